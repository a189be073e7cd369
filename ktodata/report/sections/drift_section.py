"""Is the same content judged differently: by source, rater, model or script, or after some date?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.labels.drift_words import KINDS, beside_in_words, nothing_compared
from ktodata.labels.people.drift import ALL, OVER_TIME, SCHEMA
from ktodata.report.examples import Example, examples
from ktodata.report.run_files import StageTables, pick
from ktodata.report.sections.over_time import DAY, Change, Panel, over_time, panel
from ktodata.report.text import interval, number, one_line, percent, plural, signed

MAX_LINES = 20  # shown at most: what was found, then the most certain of the rest
MAX_PAIRS = 2  # for each finding
MAX_FINDINGS = 4  # with examples
MAX_PANELS = 3


@dataclass(frozen=True)
class DriftLine:
    """One group beside the rest, or (a change) beside its own past; `differs` where that is more than chance."""

    column: str
    name: str
    rows: int
    kind: str
    since: tuple[str, str] | None  # of a change: the first day after it, and the interval of that
    effect: tuple[str, str]  # share called desirable above what the rest would call so, in points, and its interval
    p_adjusted: str
    differs: bool
    counterpart: str = ""  # whom it differs from, where nobody can say which of the two is off


@dataclass(frozen=True)
class DriftPair:
    """A row of a group that departs, and a row outside of like content with the other label."""

    name: str
    row: Example
    other_name: str
    other: Example


@dataclass(frozen=True)
class DriftSection:
    """What was compared, each group with its difference, pairs of rows, and the share of desirable labels over time."""

    tested: str  # "6 raters, 2 models"
    tests: int
    lines: list[DriftLine]
    groups: int  # in all
    n_differing: int  # of them, by more than chance
    picture: Markup | None
    pairs: list[DriftPair]
    nothing: str  # why no groups were compared, where none were


def read_drift(run: StageTables, *, with_examples: bool = True) -> DriftSection | None:
    """The comparison; None where label_noise left no such table."""
    table = run.table("label_noise", "drift")
    if table is None or not set(SCHEMA) <= {*table.columns, "counterpart"}:
        return None
    noise = run.metrics("label_noise")
    facts = pick(noise, "drift", default={})
    differing = table.filter("significant")
    return DriftSection(
        tested=", ".join(_tested_groups(pick(facts, "tested", default={}))),
        tests=pick(facts, "tests", default=0),
        lines=[_drift_line(group) for group in table.head(MAX_LINES).iter_rows(named=True)],
        groups=table.height,
        n_differing=differing.height,
        picture=_drift_picture(run, differing.filter(pl.col("since").is_not_null())),
        pairs=_drift_pairs(run, differing.head(MAX_FINDINGS)) if with_examples else [],
        nothing=pick(noise, "not_learnt", default="") or nothing_compared(facts, pick(noise, "votes.raters", default=0)),
    )


def _tested_groups(groups: Mapping[str, int]) -> Iterator[str]:
    for name, many in groups.items():
        yield "all rows over time" if name == OVER_TIME else plural(many, name)


def _drift_line(group: Mapping[str, Any]) -> DriftLine:
    points = [
        None if group[f"effect_points{end}"] is None else 100 * group[f"effect_points{end}"] for end in ("", "_low", "_high")
    ]
    spread = [signed(point, 1) for point in points[1:]]
    return DriftLine(
        column="over time" if group["column"] == OVER_TIME else group["column"],
        name=_group_name(group["value"]),
        rows=group["rows"],
        kind=KINDS.get(group["kind"], group["kind"]),
        since=(f"{group['since']:{DAY}}", f"{group['since_low']:{DAY}} to {group['since_high']:{DAY}}")
        if group["since"]
        else None,
        effect=(signed(points[0], 1), " to ".join(spread) if interval(points[1:]) else "no interval"),
        p_adjusted=number(group["p_adjusted"], 3),
        differs=group["significant"],
        counterpart=one_line(beside_in_words(group.get("counterpart")), 120),
    )


def _group_name(value: str) -> str:
    return "all rows" if value == ALL else one_line(value, 40)


def _drift_picture(run: StageTables, changed: pl.DataFrame) -> Markup | None:
    """All rows, and beside them those who were found to change; None where rows have no dates."""
    rows = run.columns("ingest", "label", "created_at", "source", "rater")
    if rows is None or "created_at" not in rows.columns:
        return None
    dates = {(group["column"], group["value"]): group for group in changed.iter_rows(named=True)}
    panels = [panel("all rows", rows, _change_of(dates.pop((OVER_TIME, ALL), None)))]
    for (column, value), group in dates.items():
        if column in rows.columns:
            panels.append(panel(_group_name(value), rows.filter(pl.col(column) == value), _change_of(group)))
    drawn: list[Panel] = [each for each in panels if each is not None][:MAX_PANELS]
    return over_time("over-time", "Share of desirable labels over time", drawn) if drawn else None


def _change_of(group: Mapping[str, Any] | None) -> Change | None:
    return Change(group["since"], group["since_low"], group["since_high"]) if group else None


def _drift_pairs(run: StageTables, differing: pl.DataFrame) -> list[DriftPair]:
    table = run.table("label_noise", "drift_examples")
    if table is None or table.is_empty():
        return []
    order = differing.select("column", "value", rank=pl.int_range(pl.len()), changed=pl.col("since").is_not_null())
    chosen = table.join(order, on=["column", "value"], maintain_order="left").sort("rank", maintain_order=True)
    chosen = chosen.group_by("rank", maintain_order=True).head(MAX_PAIRS)
    return [pair for pair_row in chosen.iter_rows(named=True) if (pair := _drift_pair(run, pair_row))]


def _drift_pair(run: StageTables, pair: Mapping[str, Any]) -> DriftPair | None:
    alike = [] if pair["similarity"] is None else [f"similarity {number(pair['similarity'], 2)}"]
    content = [f"by its content desirable with {percent(pair[name], 0)}" for name in ("p_desirable", "other_p_desirable")]
    row = examples(run, {pair["row_id"]: content[:1]})
    other = examples(run, {pair["other_row_id"]: [*content[1:], *alike]})
    if not row or not other:
        return None
    whose = "" if pair["column"] == OVER_TIME else f"{pair['column']} {_group_name(pair['value'])}"
    if pair["changed"]:
        return DriftPair(f"{whose} after the change".strip(), row[0], "before it", other[0])
    return DriftPair(whose, row[0], "outside the group", other[0])
