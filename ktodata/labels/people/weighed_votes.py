"""Everything that several raters say of the rows: counts, what agreement says of their errors, and whether it can."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.independence import Independence, check_independence
from ktodata.labels.people.raters import CONTESTED_SCHEMA, RATERS_SCHEMA, Aggregated, dawid_skene, wrong_or_contested
from ktodata.labels.people.raters_reviewed import confusions_by_reviews, texts_of_raters, wrong_by_rater
from ktodata.labels.people.stacking import VoteColumns
from ktodata.labels.people.vote_worth import MIN_SHARED
from ktodata.labels.people.votes import VoteCounts, aggregate_votes, count_shared, last_votes, votes_of_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Votes:
    """counts : votes of each row and each rater; columns : the same row by row, for training rows. apart : of these, how many say
    desirable and how many do not, int [N] each, by people who are known not to be the same.

    independence : whether agreement identifies the raters' errors; aggregated : what raters who share rows are worth, verdicts :
    which of those rows are wrong or contested; None: too few shared. by_reviews : the raters' rates on reviewed rows; wrong : as
    `wrong_by_rater` gives it
    """

    counts: VoteCounts
    columns: VoteColumns
    apart: tuple[Ints, Ints]
    by_reviews: pl.DataFrame
    wrong: pl.DataFrame
    independence: Independence | None = None
    aggregated: Aggregated | None = None
    verdicts: pl.DataFrame | None = None

    @property
    def by_agreement(self) -> pl.DataFrame:
        """row_id, p_by_raters: of rows with several votes, where agreement identifies it; else empty."""
        if self.independence is None or not self.independence.identified or self.aggregated is None:
            return pl.DataFrame(schema={"row_id": pl.String, "p_by_raters": pl.Float64})
        several = self.aggregated.rows.filter(pl.col("contested").is_not_null())
        return several.select("row_id", p_by_raters="p_desirable")

    def join(self, table: pl.DataFrame) -> pl.DataFrame:
        """Add votes_up, votes_down and outvoted."""
        return table.join(self.counts.rows, on="row_id", how="left", maintain_order="left")

    def as_metrics(self) -> dict[str, Any]:
        """As JSON values."""
        metrics: dict[str, Any] = {"votes": dict(self.counts.metrics)}
        if self.independence is None or self.aggregated is None or self.verdicts is None:
            return metrics
        metrics["independence"] = asdict(self.independence)
        verdicts = dict(self.verdicts["verdict"].value_counts(sort=True).iter_rows())
        return metrics | {"agreement": self.aggregated.metrics | {"verdicts": verdicts}}

    def tables(self) -> dict[str, pl.DataFrame]:
        """raters, confusions, contested; the last two are empty unless raters share rows."""
        if self.aggregated is None or self.verdicts is None or self.independence is None:
            confusions, contested = pl.DataFrame(schema=RATERS_SCHEMA), pl.DataFrame(schema=CONTESTED_SCHEMA)
        else:
            confusions, contested = self._confusions(), self.verdicts.filter(verdict="contested")
        return {"raters": self.counts.raters, "confusions": confusions, "contested": contested}

    def _confusions(self) -> pl.DataFrame:
        """The raters' rates by reviewed rows where there are any, else by agreement where that identifies them, else null.

        By agreement without an interval: it would hold if they erred apart, and copies of one look like that.
        """
        assert self.aggregated is not None and self.independence is not None
        table, rates = self.aggregated.raters, self.by_reviews.columns[1:]
        unknown = [name for name in table.columns if name not in ("rater", "votes", "weight")]
        if self.independence.identified:
            unknown = [name for name in unknown if name.endswith(("_low", "_high"))]
        table = table.with_columns(pl.lit(None, table.schema[name]).alias(name) for name in unknown)
        table = table.join(self.by_reviews, on="rater", how="left", suffix="_reviewed", maintain_order="left")
        # with ends by reviews no value by agreement, where these give none
        by_reviews = {name: pl.col(f"{name.partition('_')[0]}_low_reviewed").is_not_null() for name in rates}
        return table.select(
            pl.when(by_reviews[name]).then(f"{name}_reviewed").otherwise(name).alias(name) if name in rates else name
            for name in RATERS_SCHEMA.names()
        )


def weigh_votes(rows: LabelRows, *, seed: int) -> Votes:
    """What the votes say, before anything is learnt."""
    # columns first: a filtered table is a copy, vectors included
    every = rows.table.select("row_id", "prompt", "completion", "label", "part", "state", votes="pooled_votes")
    counts = aggregate_votes(every.filter(pl.Series(rows.trained)), judged=_each_text(every))
    columns, apart = _vote_columns(rows, counts.votes), _up_and_down(rows, counts.apart)
    of_raters = texts_of_raters(rows.table, seed=seed)
    votes = last_votes(votes_of_rows(of_raters))
    by_reviews, wrong = confusions_by_reviews(of_raters, votes), wrong_by_rater(of_raters, votes)
    # raters are counted on all texts, and weighed on those to train on: nothing of held-out ones may shape these
    texts = _each_text(every.filter(pl.col("part") == "train", pl.col("state") != "drop"))
    cast = votes_of_rows(texts)
    counts.metrics["training_rows_with_several_raters"] = count_shared(cast)
    if count_shared(cast) < MIN_SHARED:
        return Votes(counts, columns, apart, by_reviews, wrong)
    independence = check_independence(cast, seed=seed)
    if independence.identified:
        kept = cast.filter(pl.col("rater").is_in(independence.raters))
        aggregated = dawid_skene(kept, correlated=False, seed=seed)
    else:
        aggregated = dawid_skene(cast, seed=seed)
    return Votes(counts, columns, apart, by_reviews, wrong, independence, aggregated, wrong_or_contested(aggregated, texts))


def _vote_columns(rows: LabelRows, votes: pl.DataFrame) -> VoteColumns:
    """The votes of training rows, in the order of the rows; a column for each rater with enough reviewed rows."""
    place = rows.table.select("row_id", "reviewed", place=pl.int_range(pl.len()))
    cast = votes.join(place, on="row_id", maintain_order="left")
    reviewed = cast.filter("reviewed").drop_nulls("rater")["rater"].value_counts()
    names = reviewed.filter(pl.col("count") >= VoteColumns.MIN_VOTES)["rater"].sort().to_list()
    says = np.full((len(rows.labels), len(names)), np.nan)
    for column, name in enumerate(names):
        own = cast.filter(rater=name)
        says[own["place"].to_numpy(), column] = np.where(own["verdict"].to_numpy(), 1.0, -1.0)
    return VoteColumns(tuple(names), says, *_up_and_down(rows, votes))


def _up_and_down(rows: LabelRows, votes: pl.DataFrame) -> tuple[Ints, Ints]:
    """How many votes say desirable, and how many do not, in the order of the rows: int [N] each."""
    sums = votes.group_by("row_id").agg(up=pl.col("verdict").sum(), down=pl.col("verdict").not_().sum())
    sums = rows.table.select("row_id").join(sums, on="row_id", how="left", maintain_order="left")
    up, down = (sums[side].fill_null(0).cast(pl.Int64).to_numpy() for side in ("up", "down"))
    return up, down


def _each_text(rows: pl.DataFrame) -> pl.DataFrame:
    """What raters are judged by: each text with votes once.

    Rows that wait because their own votes differ are among them: without those all raters would seem to agree.
    """
    return rows.drop_nulls("votes").unique(["prompt", "completion"], keep="first", maintain_order=True)
