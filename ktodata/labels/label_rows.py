"""The rows whose labels are judged, as every step of it needs them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.feedback import VECTORS, VOTE
from ktodata.labels.people.trusted import CONTESTED, DRAW_SEED, mark_reviewed
from ktodata.labels.row_groups import FOLDS, row_groups
from ktodata.stage import is_trained

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Vectors = NDArray[np.float32]

ABSENT = {
    "part": pl.lit("train"),
    "state": pl.lit("keep"),
    "contradicted": pl.lit(False),
    "trusted_label": pl.lit(None, pl.Boolean),
    CONTESTED: pl.lit(False),
    DRAW_SEED: pl.lit(None, pl.Int64),
    "pooled_votes": pl.col("votes"),
    "rater": pl.lit(None, pl.String),
    "source": pl.lit(None, pl.String),
    "model": pl.lit(None, pl.String),
    "created_at": pl.lit(None, pl.Datetime("us", "UTC")),
    "judge_p_desirable": pl.lit(None, pl.Float64),
    "judge_votes": pl.lit(None, pl.List(VOTE)),
    "training_dynamics": pl.lit(None, pl.Float64),
}


@dataclass(frozen=True)
class LabelRows:
    """table : the feedback with every column of ABSENT, and trained (the models learn from it, and it can be decided on),
    reviewed, wrong, drawn and undecided as `mark_reviewed` gives them; without vectors, which each table made of it would copy
    neighbours : near rows that vote on each; 0: none do. columns_of_vectors : float32 [N, .], those of VECTORS that are there
    folds : parts of the rows, each answered by models of the others
    """

    table: pl.DataFrame
    neighbours: int = 0
    columns_of_vectors: Mapping[str, Vectors] = field(default_factory=dict)
    folds: int = FOLDS

    @cached_property
    def labels(self) -> Bools:
        return self.bools("label")

    @cached_property
    def trained(self) -> Bools:
        return self.bools("trained")

    @cached_property
    def reviewed(self) -> Bools:
        return self.bools("reviewed")

    @cached_property
    def wrong(self) -> Bools:
        """Reviewed, and the label is not the verdict."""
        return self.bools("wrong")

    @cached_property
    def drawn(self) -> Bools:
        """Reviewed, and known to be drawn at random: these alone stand for others."""
        return self.bools("drawn")

    @property
    def truth(self) -> Bools:
        """The verdict where `reviewed`, elsewhere the label: bool [N]."""
        return self.labels ^ self.wrong

    @cached_property
    def groups(self) -> Ints:
        """Codes of rows that stand on one side of every split, prompt groups as a rule: int [N], as `row_groups` gives them."""
        return row_groups(self.table, folds=self.folds)

    @property
    def largest_dealt_by_text(self) -> int:
        """Training rows of the largest prompt group that is too large to stand together; 0: none is."""
        rows = self.table.with_columns(own=pl.Series(self.groups)).filter("trained").group_by("prompt_group")
        sizes = rows.agg(pl.len(), parts=pl.col("own").n_unique()).filter(pl.col("parts") > 1)["len"]
        return int(sizes.sort().tail(1).sum())

    @property
    def vectors(self) -> tuple[Vectors, Vectors]:
        """Embeddings of prompts and completions: float32 [N, d] each."""
        return self.columns_of_vectors["prompt_embedding"], self.columns_of_vectors["completion_embedding"]

    @property
    def hidden_states(self) -> Vectors | None:
        """float32 [N, h], of a language model; None where they were not computed."""
        return self.columns_of_vectors.get("hidden_state")

    @property
    def trained_of_class(self) -> dict[bool, int]:
        """Training rows of each given label."""
        return {given: int((self.trained & (self.labels == given)).sum()) for given in (True, False)}

    def bools(self, column: str) -> Bools:
        """A column of true and false: bool [N]."""
        return np.asarray(self.table[column].to_numpy(), bool)


def label_rows(
    feedback: pl.DataFrame, *, neighbours: int, folds: int = FOLDS, all_at_random: bool = False, seed: int
) -> LabelRows:
    """The rows with what steps before may have left out; `seed` is that of the random draw of reviewed rows.

    all_at_random : as `mark_reviewed` takes it
    """
    vectors = {name: np.asarray(feedback[name].to_numpy(), np.float32) for name in VECTORS if name in feedback.columns}
    table = feedback.drop(vectors).with_columns(**{name: value for name, value in ABSENT.items() if name not in feedback.columns})
    # a judge's vote counts here, and in no decision of dedupe on a text that raters are divided on
    with_judge = pl.concat_list("pooled_votes", "judge_votes")
    table = table.with_columns(pooled_votes=pl.when(pl.col("judge_votes").is_null()).then("pooled_votes").otherwise(with_judge))
    table = table.with_columns(trained=is_trained(table.columns))
    return LabelRows(mark_reviewed(table, seed, all_at_random=all_at_random), neighbours, vectors, folds)
