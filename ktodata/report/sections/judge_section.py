"""What a language model that judged the rows is worth: how far it agrees with people, and what it was measured to lean to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.report.run_files import StageTables, pick
from ktodata.report.text import interval, percent, plural

AGREEMENT = {
    "agreement": "agrees with the trusted label",
    "wrong_seen": "sees that the given label is wrong, where it is",
    "right_doubted": "doubts the given label, where it is right",
}
PROBES = {
    "length": ("the same answer put twice", "to desirable", "to undesirable"),
    "format": ("the same answer as a list with bold marks", "to desirable", "to undesirable"),
    "position": ("yes named before no", "to yes", "to no"),
    "wording": ("asked for the good and for the bad", "yes to both", "no to both"),
    "sycophancy": ("shown the label desirable, not undesirable", "with the label", "against it"),
}


@dataclass(frozen=True)
class JudgeFigure:
    """One share: what of, its value and exact 95 % interval, and on how many rows."""

    name: str
    value: str
    interval: str
    on: str


@dataclass(frozen=True)
class JudgeSection:
    """facts : the stage's, with its findings. agreement, leanings : figures ready to be shown; empty where not measured"""

    facts: Mapping[str, Any]
    rater: str
    judged: str
    agreement: list[JudgeFigure]
    leanings: list[JudgeFigure]


def read_judge(run: StageTables) -> JudgeSection | None:
    """None where no judge was asked."""
    facts = run.metrics("judge")
    return judge_section(facts) if facts else None


def judge_section(facts: Mapping[str, Any]) -> JudgeSection:
    """From the metrics of the stage judge."""
    rows, without = pick(facts, "rows_to_judge", default=0), pick(facts, "rows_without_verdict", default=0)
    return JudgeSection(
        facts=facts,
        rater=str(pick(facts, "judge.rater", default="")),
        judged=f"{plural(rows - without, 'row')} of {plural(rows, 'row')} that were to be judged",
        agreement=[line for name, of in pick(facts, "agreement", default={}).items() for line in _of_class(name, of)],
        leanings=[*_leanings(pick(facts, "probes", default={})), *_label_shown(facts), *_own_kind(facts)],
    )


def with_judge_votes(run: StageTables, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` (row_id, votes) with the vote of a judge among the others, where one was asked."""
    judged = run.columns("judge", "judge_votes")
    if judged is None or "judge_votes" not in judged.columns:
        return rows
    cast = pl.concat_list("votes", "judge_votes")
    joined = rows.join(judged.drop_nulls("judge_votes"), on="row_id", how="left", maintain_order="left")
    return joined.with_columns(votes=pl.when(pl.col("judge_votes").is_null()).then("votes").otherwise(cast)).drop("judge_votes")


def _of_class(name: str, of: Mapping[str, Any]) -> list[JudgeFigure]:
    drawn = "drawn at random" if of["drawn"] else "chosen, not drawn: nothing follows for others"
    return [
        _figure(f"{words} (given as {name})", of[key], f"{of[key]['hits']:,} of {plural(of[key]['of'], 'reviewed row')}, {drawn}")
        for key, words in AGREEMENT.items()
        if of[key]["of"]
    ]


def _leanings(probes: Mapping[str, Any]) -> list[JudgeFigure]:
    lines = []
    for name, (thing, toward, away) in PROBES.items():
        if measured := probes.get(name):
            for way, key in ((toward, "toward"), (away, "away")):
                on = f"{measured[key]:,} of {plural(measured['rows'], 'row')}"
                lines.append(_figure(f"{thing}: {way}", measured[f"{key}_share"], on))
    return lines


def _label_shown(facts: Mapping[str, Any]) -> list[JudgeFigure]:
    followed = pick(facts, "probes.sycophancy.followed", default={})
    if not followed.get("rows"):
        return []
    names = {
        "own_label": "says what the row's own label says, where that is shown",
        "other_label": "and the other one, where that is",
    }
    return [_figure(words, followed[key], plural(followed["rows"], "row")) for key, words in names.items()]


def _own_kind(facts: Mapping[str, Any]) -> list[JudgeFigure]:
    measured = pick(facts, "self_preference", default={})
    sides = (
        ("own", f"calls undesirable rows of its own family desirable ({measured.get('family')})"),
        ("others", "and those of others"),
    )
    if not measured.get("own_rows") or not measured.get("other_rows"):
        return []
    rows = {"own": measured["own_rows"], "others": measured["other_rows"]}
    return [_figure(words, measured[key], plural(rows[key], "row")) for key, words in sides]


def _figure(name: str, measure: Mapping[str, Any], on: str) -> JudgeFigure:
    return JudgeFigure(name, percent(measure.get("value")), interval(measure, as_percent=True), on)
