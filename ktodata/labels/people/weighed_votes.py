"""Everything that several raters say of the rows: counts, CROWDLAB's quality, and Dawid and Skene's of raters who share rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.raters import CONTESTED_SCHEMA, RATERS_SCHEMA, Aggregated, dawid_skene, wrong_or_contested
from ktodata.labels.people.votes import MIN_SHARED, VoteCounts, aggregate_votes


@dataclass(frozen=True)
class Votes:
    """counts : votes of each row and each rater.

    aggregated, verdicts : what raters who share rows are worth, which of those rows are wrong or contested; None: too few shared
    """

    counts: VoteCounts
    aggregated: Aggregated | None = None
    verdicts: pl.DataFrame | None = None

    def join(self, table: pl.DataFrame) -> pl.DataFrame:
        """Add votes_up, votes_down, outvoted, p_by_raters, and CROWDLAB's quality to label_quality where there is one."""
        for columns in (self.counts.rows, self.counts.quality):
            table = table.join(columns, on="row_id", how="left", maintain_order="left")
        table = table.with_columns(label_quality=pl.coalesce("vote_quality", "label_quality"))
        if self.aggregated is None:
            return table.with_columns(p_by_raters=pl.lit(None, pl.Float64))
        several = self.aggregated.rows.filter(pl.col("contested").is_not_null())
        return table.join(several.select("row_id", p_by_raters="p_desirable"), on="row_id", how="left", maintain_order="left")

    def as_metrics(self) -> dict[str, Any]:
        """As JSON values."""
        metrics: dict[str, Any] = {"votes": self.counts.metrics | {"quality_from_votes": self.counts.quality.height}}
        if self.aggregated is None or self.verdicts is None:
            return metrics
        verdicts = dict(self.verdicts["verdict"].value_counts(sort=True).iter_rows())
        return metrics | {"agreement": self.aggregated.metrics | {"verdicts": verdicts}}

    def tables(self) -> dict[str, pl.DataFrame]:
        """raters, confusions, contested; the last two are empty unless raters share rows."""
        if self.aggregated is None or self.verdicts is None:
            confusions, contested = pl.DataFrame(schema=RATERS_SCHEMA), pl.DataFrame(schema=CONTESTED_SCHEMA)
        else:
            confusions, contested = self.aggregated.raters, self.verdicts.filter(verdict="contested")
        return {"raters": self.counts.raters, "confusions": confusions, "contested": contested}


def weigh_votes(rows: LabelRows, p_desirable: NDArray[np.float64] | None, *, seed: int) -> Votes:
    """What the votes say. p_desirable : float [N], out of fold; None when there is no model."""
    texts = _texts_with_votes(rows.table)
    # columns first: a filtered table is a copy, vectors included
    trained = rows.table.select("row_id", "label", votes="pooled_votes").filter(pl.Series(rows.trained))
    counts = aggregate_votes(
        trained,
        None if p_desirable is None else p_desirable[rows.trained],
        judged=texts.select("row_id", votes="vote"),
    )
    if counts.metrics["rows_with_several_raters"] < MIN_SHARED:
        return Votes(counts)
    vote = pl.col("vote").struct
    cast = texts.select("row_id", "vote").explode("vote")
    cast = cast.select("row_id", rater=vote.field("rater"), verdict=vote.field("label")).drop_nulls("verdict")
    aggregated = dawid_skene(cast, seed=seed)
    return Votes(counts, aggregated, wrong_or_contested(aggregated, texts))


def _texts_with_votes(table: pl.DataFrame) -> pl.DataFrame:
    """What raters are judged by, each text once: row_id, prompt, completion, label, part, state, vote.

    Rows that wait because their own votes differ are among them: without those all raters would seem to agree.
    """
    rows = table.select("row_id", "prompt", "completion", "label", "part", "state", vote="pooled_votes")
    in_training = (pl.col("part") == "train") & (pl.col("state") != "drop")
    return rows.filter(in_training).unique(["prompt", "completion"], keep="first", maintain_order=True)
