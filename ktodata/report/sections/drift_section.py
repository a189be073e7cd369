"""Is the same content judged differently: by source, rater, model or script, or after some date?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.labels.people.drift import ALL, OVER_TIME, SCHEMA
from ktodata.report.examples import Example, examples
from ktodata.report.run_files import Tables, pick
from ktodata.report.sections.over_time import DAY, Change, Panel, over_time, panel
from ktodata.report.text import interval, number, one_line, percent, plural, signed

LINES = 20  # shown at most: what was found, then the most certain of the rest
PAIRS = 2  # for each finding
FINDINGS = 4  # with examples
PANELS = 3
KINDS = {
    "none": "nothing",
    "offset": "another threshold",
    "slope": "follows the content otherwise",
    "inverted": "up and down look swapped",
    "change": "changed at a date",
}


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


@dataclass(frozen=True)
class Unlike:
    """A row of a group that departs, and a row outside of like content with the other label."""

    name: str
    row: Example
    beside: str
    other: Example


@dataclass(frozen=True)
class DriftSection:
    """What was compared, each group with its difference, pairs of rows, and the share of desirable labels over time."""

    tested: str  # "6 raters, 2 models"
    tests: int
    lines: list[DriftLine]
    groups: int  # in all
    found: int
    picture: Markup | None
    pairs: list[Unlike]


def read_drift(run: Tables, *, with_examples: bool = True) -> DriftSection | None:
    """The comparison; None where label_noise left no such table."""
    table = run.table("label_noise", "drift")
    if table is None or not set(SCHEMA) <= set(table.columns):
        return None
    facts = pick(run.metrics("label_noise"), "drift", default={})
    found = table.filter("significant")
    return DriftSection(
        tested=", ".join(_tested(pick(facts, "tested", default={}))),
        tests=pick(facts, "tests", default=0),
        lines=[_line(one) for one in table.head(LINES).iter_rows(named=True)],
        groups=table.height,
        found=found.height,
        picture=_picture(run, found.filter(pl.col("since").is_not_null())),
        pairs=_pairs(run, found.head(FINDINGS)) if with_examples else [],
    )


def _tested(groups: Mapping[str, int]) -> Iterator[str]:
    for name, many in groups.items():
        yield "all rows over time" if name == OVER_TIME else plural(many, name)


def _line(one: Mapping[str, Any]) -> DriftLine:
    points = [None if one[f"effect_points{end}"] is None else 100 * one[f"effect_points{end}"] for end in ("", "_low", "_high")]
    spread = [signed(point, 1) for point in points[1:]]
    return DriftLine(
        column="over time" if one["column"] == OVER_TIME else one["column"],
        name=_name(one["value"]),
        rows=one["rows"],
        kind=KINDS.get(one["kind"], one["kind"]),
        since=(f"{one['since']:{DAY}}", f"{one['since_low']:{DAY}} to {one['since_high']:{DAY}}") if one["since"] else None,
        effect=(signed(points[0], 1), " to ".join(spread) if interval(points[1:]) else "no interval"),
        p_adjusted=number(one["p_adjusted"], 3),
        differs=one["significant"],
    )


def _name(value: str) -> str:
    return "all rows" if value == ALL else one_line(value, 40)


def _picture(run: Tables, changed: pl.DataFrame) -> Markup | None:
    """All rows, and beside them those who were found to change; None where rows have no dates."""
    given = run.columns("ingest", "label", "created_at", "source", "rater")
    if given is None or "created_at" not in given.columns:
        return None
    dates = {(one["column"], one["value"]): one for one in changed.iter_rows(named=True)}
    panels = [panel("all rows", given, _change(dates.pop((OVER_TIME, ALL), None)))]
    for (column, value), one in dates.items():
        if column in given.columns:
            panels.append(panel(_name(value), given.filter(pl.col(column) == value), _change(one)))
    shown: list[Panel] = [one for one in panels if one is not None][:PANELS]
    return over_time("over-time", "Share of desirable labels over time", shown) if shown else None


def _change(one: Mapping[str, Any] | None) -> Change | None:
    return Change(one["since"], one["since_low"], one["since_high"]) if one else None


def _pairs(run: Tables, found: pl.DataFrame) -> list[Unlike]:
    table = run.table("label_noise", "drift_examples")
    if table is None or table.is_empty():
        return []
    order = found.select("column", "value", rank=pl.int_range(pl.len()), changed=pl.col("since").is_not_null())
    chosen = table.join(order, on=["column", "value"], maintain_order="left").sort("rank", maintain_order=True)
    chosen = chosen.group_by("rank", maintain_order=True).head(PAIRS)
    return [pair for one in chosen.iter_rows(named=True) if (pair := _pair(run, one))]


def _pair(run: Tables, one: Mapping[str, Any]) -> Unlike | None:
    alike = [] if one["similarity"] is None else [f"similarity {number(one['similarity'], 2)}"]
    content = [f"by its content desirable with {percent(one[name], 0)}" for name in ("p_desirable", "other_p_desirable")]
    row = examples(run, {one["row_id"]: content[:1]})
    other = examples(run, {one["other_row_id"]: [*content[1:], *alike]})
    if not row or not other:
        return None
    whose = "" if one["column"] == OVER_TIME else f"{one['column']} {_name(one['value'])}"
    if one["changed"]:
        return Unlike(f"{whose} after the change".strip(), row[0], "before it", other[0])
    return Unlike(whose, row[0], "outside the group", other[0])
