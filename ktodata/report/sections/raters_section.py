"""Who gave the labels: how much each rater says, how far others agree, and how often each is right by all votes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.labels.people.raters_reviewed import MIN_JUDGED
from ktodata.labels.people.vote_worth import MIN_SHARED
from ktodata.labels.people.votes import aggregate_votes, last_votes, votes_of_rows
from ktodata.report.run_files import StageTables, pick
from ktodata.report.sections.judge_section import with_judge_votes
from ktodata.report.shares import Share
from ktodata.report.text import count, interval, number, one_line, percent, plural

MAX_RATERS_SHOWN = 20  # shown at most, those with most votes
COUNTS_LESS = 0.7  # what a rater's vote says, in votes, under which the page says so; chance alone takes some
Cell = tuple[str, str]  # a number, and under it its interval or why there is none
UNKNOWN: Cell = ("–", "")
BY_AGREEMENT = "if raters err apart"  # in place of an interval


@dataclass(frozen=True)
class RaterLine:
    """One line of the table, in words: number and interval of each measure."""

    name: str
    votes: int
    desirable: Cell  # share of the rater's votes that say so
    agreement: Cell  # with the majority of the others, on rows that they share
    up_if_good: Cell  # says desirable, of desirable answers
    up_if_bad: Cell  # says desirable, of undesirable answers
    remarks: str


@dataclass(frozen=True)
class RatersSection:
    """The raters with most votes; `weighed` is empty where errors could be estimated, and says why not where they could not.

    good_and_bad : what says which answers are good
    """

    lines: list[RaterLine]
    raters: int  # in all
    weighed: str
    agreement: str  # of all raters, beyond chance; empty where unknown
    good_and_bad: str = ""


def read_raters(run: StageTables) -> RatersSection | None:
    """The table; None where label_noise left none."""
    votes = _votes_per_text(run)
    if votes is None or run.table("label_noise", "raters") is None:
        return None
    # counted anew, as the stage's own table does not say how often each called an answer desirable
    agreed, judged = aggregate_votes(votes).raters, _desirable_by_rater(votes)
    place = {name: number for number, name in enumerate(judged)}  # of ties the first in the data: names can be left out of a page
    lines = (
        agreed.sort(pl.col("rater").replace_strict(place))
        .sort("votes", descending=True, maintain_order=True)
        .head(MAX_RATERS_SHOWN)
    )
    errors = run.table("label_noise", "confusions")
    if errors is not None and "sensitivity" in errors.columns:
        lines = lines.join(
            errors.drop("votes", strict=False).unique("rater", keep="first"), on="rater", how="left", maintain_order="left"
        )
    facts = run.metrics("label_noise")
    return RatersSection(
        lines=[_rater_line(line, judged[line["rater"]]) for line in lines.iter_rows(named=True)],
        raters=agreed.height,
        weighed=_not_weighed(errors, pick(facts, "votes.training_rows_with_several_raters")),
        agreement=_alpha_in_words(pick(facts, "agreement.alpha", default={})),
        good_and_bad=_good_and_bad(facts),
    )


def _votes_per_text(run: StageTables) -> pl.DataFrame | None:
    """row_id, label and everybody's votes (rater, label, created_at), a line a text; None where the rows carry no votes."""
    feedback, seen = run.columns("ingest", "label", "votes"), run.columns("label_noise")
    if feedback is None or seen is None or not {"label", "votes"} <= set(feedback.columns):
        return None
    feedback = feedback.join(seen, on="row_id", how="semi", maintain_order="left")  # so that both count the same texts
    pooled = run.columns("dedupe", "pooled_votes")
    if pooled is None or "pooled_votes" not in pooled.columns:
        return with_judge_votes(run, feedback.select("row_id", "label", "votes"))
    # of a text with both labels dedupe keeps a row of each, and both carry all votes
    rows = feedback.drop("votes").join(pooled.drop_nulls("pooled_votes"), on="row_id", maintain_order="left")
    rows = rows.join(run.text_numbers(), on="row_id", maintain_order="left")
    rows = rows.unique("text", keep="first", maintain_order=True).select("row_id", "label", votes="pooled_votes")
    return with_judge_votes(run, rows)


def _not_weighed(errors: pl.DataFrame | None, shared: Any) -> str:
    if errors is None:
        return "This run has no estimate of the raters' errors."
    if not errors.is_empty():
        return ""
    rows = plural(shared, "row") if shared else "no row"
    few = f"Raters share too few rows: {rows} of the training part got votes of more than one rater"
    return f"{few}, and {MIN_SHARED} are needed. So nothing can be said of who errs how often."


def _good_and_bad(facts: Mapping[str, Any]) -> str:
    """What says which answers are good: reviewed rows, the agreement of the votes, or nothing."""
    reviewed = f"by rows that were drawn at random and reviewed, for a rater with {MIN_JUDGED} of a class"
    by_reviews = bool(pick(facts, "trusted.drawn_at_random", default=0))
    if pick(facts, "independence.identified") is True:
        by_votes = (
            "what the votes of all raters together make likely (Dawid and Skene), not what is true: raters who err in the same "
            "way look right, and raters with few votes are drawn towards the others"
        )
        return f"Good and bad are {f'judged {reviewed}; else ' if by_reviews else ''}{by_votes}."
    reason = pick(facts, "independence.reason", default="not identifiable")
    known = f"Good and bad are judged {reviewed}. Of others it" if by_reviews else "How often a rater is right"
    return f"{known} is not known: by agreement it is {reason}."


def _alpha_in_words(alpha: Mapping[str, Any]) -> str:
    ends = interval(alpha)
    return f"{number(alpha['value'], 2)} ({ends})" if ends and alpha.get("value") is not None else ""


def _desirable_by_rater(votes: pl.DataFrame) -> dict[str, Share]:
    """Of each rater: votes that say desirable, of all; a later vote on a row stands for an earlier one."""
    last = last_votes(votes_of_rows(votes)).drop_nulls("rater")
    counted = last.group_by("rater", maintain_order=True).agg(pl.col("verdict").sum().cast(pl.Int64), pl.len())
    return {rater: Share(hits, total) for rater, hits, total in counted.iter_rows()}


def _rater_line(line: Mapping[str, Any], judged: Share) -> RaterLine:
    return RaterLine(
        name=one_line(line["rater"], 40),
        votes=line["votes"],
        desirable=(percent(judged.value), interval((judged.low, judged.high), as_percent=True)),
        agreement=_agreement_cell(line),
        up_if_good=_rate_cell(*(line.get(f"sensitivity{end}") for end in ("", "_low", "_high"))),
        up_if_bad=_rate_cell(*(_other(line.get(f"specificity{end}")) for end in ("", "_high", "_low"))),
        remarks="; ".join(_remarks(line)),
    )


def _rate_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    """A share with its interval; without one where only the raters' agreement gives it; or an interval alone."""
    ends = "" if low is None or high is None else interval((low, high), as_percent=True)
    if value is None:
        return UNKNOWN[0], ends
    return percent(value), ends or BY_AGREEMENT


def _other(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _agreement_cell(line: Mapping[str, Any]) -> Cell:
    if not line["shared"] or line.get("agreement") is None:
        return "–", "no row is shared"
    value, ends = _rate_cell(line["agreement"], line.get("agreement_low"), line.get("agreement_high"))
    return f"{value} of {count(line['shared'])}", ends


def _remarks(line: Mapping[str, Any]) -> Iterator[str]:
    if line.get("inverted"):
        yield "says the opposite of what the others say: up and down may be swapped"
    if (line.get("weight") or 1) < COUNTS_LESS:
        yield f"goes with others by more than the answers explain: a vote says as much as {number(line['weight'], 2)} of one"
    if line.get("self_contradictions"):
        yield f"gave both labels to {plural(line['self_contradictions'], 'row')}"
