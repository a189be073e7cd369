"""Several verdicts on one text: what most say, what CROWDLAB makes of them, and how each rater agrees with the others."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.stats import clopper_pearson

Floats = NDArray[np.float64]

MIN_SHARED = 10  # rows with two raters or more; under that raters cannot be compared
MAX_RATERS = 200  # columns of CROWDLAB's dense matrix; the raters beyond are pooled into one
OTHERS = "(all other raters)"

RATERS_SCHEMA = pl.Schema(
    {
        "rater": pl.String(),
        "votes": pl.Int64(),
        "shared": pl.Int64(),
        "agrees": pl.Int64(),
        "agreement": pl.Float64(),
        "agreement_low": pl.Float64(),
        "agreement_high": pl.Float64(),
        "self_contradictions": pl.Int64(),
        "quality": pl.Float64(),
    }
)


@dataclass(frozen=True)
class VoteCounts:
    """What the votes say.

    rows : row_id, votes_up, votes_down, outvoted (more votes against the label than for it, at least two against)
    quality : row_id, vote_quality: CROWDLAB's probability that the given label is right; only rows that several raters judged
    raters : one line a rater; `agreement` is with the majority of the others on shared rows, its interval exact
    metrics : counts, and what was pooled
    """

    rows: pl.DataFrame
    quality: pl.DataFrame
    raters: pl.DataFrame
    metrics: dict[str, Any]


def aggregate_votes(rows: pl.DataFrame, p_desirable: Floats | None, *, judged: pl.DataFrame | None = None) -> VoteCounts:
    """Pool the votes on each text.

    rows : row_id, label, votes (those of every row with the same text, where they are known)
    p_desirable : float [N], out of fold, for CROWDLAB; None when there is no model
    judged : row_id, votes of all that raters are to be judged by, each text once; `rows` when None
    """
    cast = _explode(rows)
    counted = _count_votes(rows, cast)
    named, last = _by_rater(cast)
    shared = last.filter(pl.len().over("row_id") > 1)
    n_shared = shared["row_id"].n_unique()
    metrics: dict[str, Any] = {
        "raters": named["rater"].n_unique(),
        "votes": cast.height,
        "votes_without_rater": cast.height - named.height,
        "rows_with_several_raters": n_shared,
        "outvoted": int(counted["outvoted"].sum()),
    }
    quality = pl.DataFrame(schema={"row_id": pl.String, "vote_quality": pl.Float64})
    rated: dict[str, float] = {}
    if p_desirable is not None and n_shared >= MIN_SHARED:
        quality, rated, pooled = _crowdlab(rows, shared, p_desirable)
        metrics |= {"aggregated_by": "CROWDLAB (cleanlab) with the out-of-fold probabilities", "raters_pooled": pooled}
    if judged is not None:
        named, last = _by_rater(_explode(judged))
    return VoteCounts(counted, quality, _rater_agreement(named, last, rated), metrics)


def _explode(rows: pl.DataFrame) -> pl.DataFrame:
    """One line a vote: row_id, rater, verdict, created_at; a rater's earlier votes on a row stand before later ones."""
    cast = rows.select("row_id", vote="votes").explode("vote").drop_nulls("vote")
    fields = [pl.col("vote").struct.field("rater"), pl.col("vote").struct.field("label").alias("verdict")]
    cast = cast.select("row_id", *fields, pl.col("vote").struct.field("created_at"))
    return cast.drop_nulls("verdict").sort("created_at", nulls_last=False, maintain_order=True)


def _by_rater(cast: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(every vote that has a rater, each rater's last one on a row)."""
    named = cast.filter(pl.col("rater").is_not_null())
    return named, named.unique(["row_id", "rater"], keep="last", maintain_order=True)


def _count_votes(rows: pl.DataFrame, cast: pl.DataFrame) -> pl.DataFrame:
    sums = cast.group_by("row_id").agg(
        votes_up=pl.col("verdict").sum().cast(pl.Int64), votes_down=(~pl.col("verdict")).sum().cast(pl.Int64)
    )
    joined = rows.select("row_id", "label").join(sums, on="row_id", how="left", maintain_order="left")
    up, down = pl.col("votes_up").fill_null(0), pl.col("votes_down").fill_null(0)
    against, for_it = pl.when("label").then(down).otherwise(up), pl.when("label").then(up).otherwise(down)
    return joined.select("row_id", votes_up=up, votes_down=down, outvoted=(against > for_it) & (against >= 2))


def _rater_agreement(named: pl.DataFrame, last: pl.DataFrame, rated: dict[str, float]) -> pl.DataFrame:
    up = pl.col("verdict").cast(pl.Int64)
    balance = (2 * up - 1).sum().over("row_id") - (2 * up - 1)  # of the other raters: above 0, most say desirable
    judged = last.with_columns(others=balance)
    table = judged.group_by("rater").agg(
        votes=pl.len().cast(pl.Int64),
        shared=(pl.col("others") != 0).sum().cast(pl.Int64),
        agrees=((pl.col("others") != 0) & ((pl.col("others") > 0) == pl.col("verdict"))).sum().cast(pl.Int64),
    )
    twice = named.group_by("row_id", "rater").agg(differs=pl.col("verdict").n_unique() > 1)
    twice = twice.group_by("rater").agg(self_contradictions=pl.col("differs").sum().cast(pl.Int64))
    table = table.join(twice, on="rater", how="left").sort("votes", "rater", descending=[True, False])
    low, high = clopper_pearson(table["agrees"].to_numpy(), table["shared"].to_numpy())
    table = table.with_columns(
        agreement=pl.when(pl.col("shared") > 0).then(pl.col("agrees") / pl.col("shared")),
        agreement_low=pl.Series(low),
        agreement_high=pl.Series(high),
        quality=pl.col("rater").replace_strict(rated, default=None, return_dtype=pl.Float64)
        if rated
        else pl.lit(None, pl.Float64),
    )
    return table.select(RATERS_SCHEMA.names()).cast(RATERS_SCHEMA)


def _crowdlab(rows: pl.DataFrame, shared: pl.DataFrame, p_desirable: Floats) -> tuple[pl.DataFrame, dict[str, float], int]:
    """CROWDLAB on the rows that several raters judged: quality of the given labels, of the raters, and how many were pooled."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    judged = rows.select("row_id", "label", p=pl.Series(p_desirable)).join(shared, on="row_id", how="semi", maintain_order="left")
    matrix, raters, pooled = _vote_matrix(shared, judged["row_id"])
    p = np.clip(judged["p"].to_numpy(), 1e-6, 1 - 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that no consensus names: the metrics carry the counts
        crowdlab = get_label_quality_multiannotator(
            matrix, np.stack([1 - p, p], axis=1), return_detailed_quality=False, verbose=False
        )
    consensus = crowdlab["label_quality"]["consensus_label"].to_numpy().astype(bool)
    score = crowdlab["label_quality"]["consensus_quality_score"].to_numpy().astype(float)
    quality = np.where(consensus == judged["label"].to_numpy(), score, 1 - score)
    rated = crowdlab["annotator_stats"]["annotator_quality"].sort_index().to_numpy()  # its index is the column of the matrix
    return (
        pl.DataFrame({"row_id": judged["row_id"], "vote_quality": quality}),
        dict(zip(raters, rated.tolist(), strict=True)),
        pooled,
    )


def _vote_matrix(shared: pl.DataFrame, row_ids: pl.Series) -> tuple[Floats, list[str], int]:
    """Verdicts as float [rows, raters], nan where there is none; the raters; and how many of them share the last column."""
    often = shared.group_by("rater").len().sort("len", "rater", descending=[True, False])["rater"]
    kept = often.head(MAX_RATERS)
    pooled = len(often) - len(kept)
    named = shared.with_columns(rater=pl.when(pl.col("rater").is_in(kept.implode())).then("rater").otherwise(None))
    up = pl.col("verdict").mean()  # a half: the pooled raters disagree among themselves, and say nothing
    cells = named.group_by("row_id", "rater").agg(up=up).filter(pl.col("up") != 0.5)
    place = {rater: number for number, rater in enumerate(kept)}
    column = cells["rater"].replace_strict(place, default=len(kept), return_dtype=pl.Int64)
    line = cells["row_id"].replace_strict(row_ids, pl.int_range(len(row_ids), eager=True), return_dtype=pl.Int64)
    matrix = np.full((len(row_ids), len(kept) + (pooled > 0)), np.nan)
    matrix[line.to_numpy(), column.to_numpy()] = (cells["up"] > 0.5).cast(pl.Float64).to_numpy()
    return matrix, [*kept, *([OTHERS] if pooled else [])], pooled
