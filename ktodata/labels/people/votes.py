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
    apart : the same, of those that are known to be of different people
    metrics : counts, those of raters over all that they are judged by; at_odds : raters who go against the majority of the others
        more often than with it, by more than chance
    """

    rows: pl.DataFrame
    raters: pl.DataFrame
    votes: pl.DataFrame
    apart: pl.DataFrame
    metrics: dict[str, Any]


def aggregate_votes(rows: pl.DataFrame, *, judged: pl.DataFrame | None = None) -> VoteCounts:
    """Pool the votes on each text.

    rows : row_id, label, votes (those of every row with the same text, where they are known)
    judged : row_id, votes of all that raters are to be judged by, each text once; `rows` when None
    """
    cast = votes_of_rows(rows)
    counted, judged_by = _count_votes(rows, cast), cast if judged is None else votes_of_rows(judged)
    named = judged_by.drop_nulls("rater")
    raters = _rater_agreement(named)
    metrics: dict[str, Any] = {
        "raters": raters.height,
        "votes": judged_by.height,
        "votes_without_rater": judged_by.height - named.height,
        "rows_with_several_raters": count_shared(named),
        "rows_with_three_votes": counted.filter(pl.col("votes_up") + pl.col("votes_down") > 2).height,
        "outvoted": int(counted["outvoted"].sum()),
        "at_odds": _at_odds(named),
    }
    return VoteCounts(counted, raters, last_votes(cast), _votes_apart(cast), metrics)


def count_shared(cast: pl.DataFrame) -> int:
    """Rows with votes of two named raters or more. cast : row_id, rater, verdict, one line a vote"""
    return cast.drop_nulls("rater").unique(["row_id", "rater"]).filter(pl.len().over("row_id") > 1)["row_id"].n_unique()


def _at_odds(named: pl.DataFrame) -> list[dict[str, Any]]:
    """rater, agrees, shared of those whose agreement lies under 1/2 by its whole interval, at 95 % for all of them together.

    The farthest off first, then without its votes, as it makes others look so; of two who are as far off nobody can say which is.
    """
    at_odds: list[dict[str, Any]] = []
    while (tested := _rater_agreement(named).filter(pl.col("shared") > 0)).height:
        level = 1 - 0.05 / (tested.height + len(at_odds))
        high = clopper_pearson(tested["agrees"].to_numpy(), tested["shared"].to_numpy(), level=level)[1]
        farthest = tested.filter(pl.Series((high < 0.5) & (high == high.min())))
        if farthest.is_empty():
            break
        at_odds += farthest.select("rater", "agrees", "shared").to_dicts()
        named = named.filter(~pl.col("rater").is_in(farthest["rater"].implode()))
    return at_odds


def votes_of_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """One line a vote: row_id, rater, verdict, created_at; in the order of the rows, earlier votes on a row before later ones.

    rows : row_id, votes
    """
    cast = rows.select("row_id", place=pl.int_range(pl.len()), vote="votes").explode("vote").drop_nulls("vote")
    cast = cast.select("row_id", "place", pl.col("vote").struct.unnest()).drop_nulls("label")
    cast = cast.sort("place", "created_at", nulls_last=False, maintain_order=True)
    return cast.select("row_id", "rater", "created_at", verdict="label")


def last_votes(cast: pl.DataFrame) -> pl.DataFrame:
    """Each named rater's last verdict on each row, then every verdict without a name: row_id, rater, verdict.

    cast : the same, one line a vote, earlier ones first
    """
    cast = cast.select("row_id", "rater", "verdict").drop_nulls(["row_id", "verdict"])
    named = cast.drop_nulls("rater").unique(["row_id", "rater"], keep="last", maintain_order=True)
    return pl.concat([named, cast.filter(pl.col("rater").is_null())])


def _votes_apart(cast: pl.DataFrame) -> pl.DataFrame:
    """Of each row the named raters' last votes; where nobody is named, those of one record, as two times may be one person's.

    cast : as votes_of_rows gives it, so that what is said at one time is one record's: dedupe counts copies once
    """
    named = pl.col("rater").is_not_null()
    unnamed = cast.filter(~named.any().over("row_id")).with_columns(at_once=pl.len().over("row_id", "created_at"))
    first = pl.col("created_at").filter(pl.col("at_once") == pl.col("at_once").max()).first().over("row_id")
    unnamed = unnamed.filter(pl.col("created_at").eq_missing(first))
    return last_votes(pl.concat([cast.filter(named), unnamed.drop("at_once")]))


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
