"""Rows on which people differ whatever their skill: no label of theirs is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.feedback import LABEL_NAMES, VOTE
from ktodata.report.examples import Example, examples
from ktodata.report.run_files import StageTables, pick
from ktodata.report.sections.judge_section import with_judge_votes
from ktodata.report.shares import Share
from ktodata.report.text import one_line, percent, plural

MAX_CONTESTED_EXAMPLES = 4
MAX_VOTES = 6  # of a row, shown by name


@dataclass(frozen=True)
class ContestedSection:
    """How many of the rows that several people judged are contested, and a few of them.

    identified : whether the votes' agreement can tell contested rows from wrong ones; else they only seem to be
    """

    share: Share
    examples: list[Example]
    identified: bool


def read_contested(run: StageTables, *, with_examples: bool = True) -> ContestedSection | None:
    """The contested rows; None where label_noise left no such table, or no row has votes of several people."""
    table = run.table("label_noise", "contested")
    facts = run.metrics("label_noise")
    judged, identified = (
        sum(pick(facts, "agreement.verdicts", default={}).values()),
        pick(facts, "independence.identified") is True,
    )
    if table is None or not judged:
        return None
    worst = table.sort("p_contested", "row_id", descending=[True, False]).head(MAX_CONTESTED_EXAMPLES)
    examples_shown = _contested_examples(run, worst, identified) if with_examples else []
    return ContestedSection(Share(table.height, judged), examples_shown, identified)


def _contested_examples(run: StageTables, worst: pl.DataFrame, identified: bool) -> list[Example]:
    pooled = run.columns("dedupe", "pooled_votes")
    own = run.rows(worst["row_id"])
    votes: dict[str, Any] = {row_id: row.get("votes") for row_id, row in own.items()}
    if pooled is not None and "pooled_votes" in pooled.columns:
        votes |= dict(worst.select("row_id").join(pooled.drop_nulls("pooled_votes"), on="row_id").rows())
    cast = pl.DataFrame(
        {"row_id": list(votes), "votes": list(votes.values())}, schema={"row_id": pl.String, "votes": pl.List(VOTE)}
    )
    votes = dict(with_judge_votes(run, cast).rows())
    notes = {
        row_id: [*([f"chance that people differ on it {percent(chance, 0)}"] * identified), *_votes_in_words(votes.get(row_id))]
        for row_id, chance in worst.select("row_id", "p_contested").iter_rows()
    }
    return examples(run, notes)


def _votes_in_words(votes: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """How many said what, and who, as far as MAX_VOTES reaches."""
    cast = [vote for vote in votes or () if vote and vote["label"] is not None]
    if not cast:
        return []
    up = sum(vote["label"] for vote in cast)
    named = [
        f"{one_line(vote['rater'], 24) if vote['rater'] is not None else 'somebody'}: {LABEL_NAMES[vote['label']]}"
        for vote in cast
    ]
    more = [f"and {plural(len(cast) - MAX_VOTES, 'vote')} more"] if len(cast) > MAX_VOTES else []
    return [f"{up} of {plural(len(cast), 'vote')} say desirable", *named[:MAX_VOTES], *more]
