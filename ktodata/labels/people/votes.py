"""Several verdicts on one text: what most say, and how each rater agrees with the others."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.stats import clopper_pearson

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
    }
)


@dataclass(frozen=True)
class VoteCounts:
    """What the votes say.

    rows : row_id, votes_up, votes_down, outvoted (more votes against the label than for it, at least two against)
    raters : one line a rater; `agreement` is with the majority of the others on shared rows, its interval exact
    votes : row_id, rater, verdict: of each rater the last on a row, and every vote without a rater
    metrics : counts
    """

    rows: pl.DataFrame
    raters: pl.DataFrame
    votes: pl.DataFrame
    metrics: dict[str, Any]


def aggregate_votes(rows: pl.DataFrame, *, judged: pl.DataFrame | None = None) -> VoteCounts:
    """Pool the votes on each text.

    rows : row_id, label, votes (those of every row with the same text, where they are known)
    judged : row_id, votes of all that raters are to be judged by, each text once; `rows` when None
    """
    cast = votes_of_rows(rows)
    counted, votes, named = _count_votes(rows, cast), last_votes(cast), cast.drop_nulls("rater")
    shared = votes.drop_nulls("rater").filter(pl.len().over("row_id") > 1)
    metrics: dict[str, Any] = {
        "raters": named["rater"].n_unique(),
        "votes": cast.height,
        "votes_without_rater": cast.height - named.height,
        "rows_with_several_raters": shared["row_id"].n_unique(),
        "rows_with_three_votes": counted.filter(pl.col("votes_up") + pl.col("votes_down") > 2).height,
        "outvoted": int(counted["outvoted"].sum()),
    }
    judged_by = cast if judged is None else votes_of_rows(judged)
    return VoteCounts(counted, _rater_agreement(judged_by.drop_nulls("rater")), votes, metrics)


def votes_of_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """One line a vote: row_id, rater, verdict; in the order of the rows, a rater's earlier votes on a row before later ones.

    rows : row_id, votes
    """
    cast = rows.select("row_id", place=pl.int_range(pl.len()), vote="votes").explode("vote").drop_nulls("vote")
    cast = cast.select("row_id", "place", pl.col("vote").struct.unnest()).drop_nulls("label")
    return cast.sort("place", "created_at", nulls_last=False, maintain_order=True).select("row_id", "rater", verdict="label")


def last_votes(cast: pl.DataFrame) -> pl.DataFrame:
    """Each named rater's last verdict on each row, then every verdict without a name: row_id, rater, verdict.

    cast : the same, one line a vote, earlier ones first
    """
    cast = cast.select("row_id", "rater", "verdict").drop_nulls(["row_id", "verdict"])
    named = cast.drop_nulls("rater").unique(["row_id", "rater"], keep="last", maintain_order=True)
    return pl.concat([named, cast.filter(pl.col("rater").is_null())])


def _count_votes(rows: pl.DataFrame, cast: pl.DataFrame) -> pl.DataFrame:
    sums = cast.group_by("row_id").agg(
        votes_up=pl.col("verdict").sum().cast(pl.Int64), votes_down=(~pl.col("verdict")).sum().cast(pl.Int64)
    )
    joined = rows.select("row_id", "label").join(sums, on="row_id", how="left", maintain_order="left")
    up, down = pl.col("votes_up").fill_null(0), pl.col("votes_down").fill_null(0)
    against, for_it = pl.when("label").then(down).otherwise(up), pl.when("label").then(up).otherwise(down)
    return joined.select("row_id", votes_up=up, votes_down=down, outvoted=(against > for_it) & (against >= 2))


def _rater_agreement(named: pl.DataFrame) -> pl.DataFrame:
    up = pl.col("verdict").cast(pl.Int64)
    balance = (2 * up - 1).sum().over("row_id") - (2 * up - 1)  # of the other raters: above 0, most say desirable
    judged = last_votes(named).with_columns(others=balance)
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
    )
    return table.select(RATERS_SCHEMA.names()).cast(RATERS_SCHEMA)
