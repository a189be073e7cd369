"""How often each rater is right on rows that somebody trusted has judged: no assumption on how raters err."""

import polars as pl

from ktodata.stats import clopper_pearson

MIN_JUDGED = 5  # reviewed rows of one class that a rater has judged


def confusions_by_reviews(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """rater, sensitivity and specificity with 95 % intervals; null where fewer than MIN_JUDGED rows tell.

    rows : row_id, label, trusted_label, drawable, drawn (reviewed because a random draw said so; others stand for nothing)
    votes : row_id, rater, verdict
    The draw takes more of the rarer label, and labels are made of votes: so each drawn row counts for the rows of its label that
    it stands for. The interval is the exact one of as many rows as those weights are worth: Korn and Graubard 1998.
    """
    stands_for = (pl.col("drawable").sum() / pl.col("drawn").sum()).over("label")
    drawn = rows.with_columns(weight=stands_for).filter("drawn").select("row_id", "trusted_label", "weight")
    judged = drawn.join(votes.drop_nulls("rater"), on="row_id")
    right, weight = pl.col("verdict") == pl.col("trusted_label"), pl.col("weight")
    table = judged.select("rater").unique(maintain_order=True)
    for name, true in (("sensitivity", True), ("specificity", False)):
        rate, worth = weight.filter(right).sum() / weight.sum(), weight.sum() ** 2 / (weight**2).sum()
        each = judged.filter(trusted_label=true).group_by("rater").agg(n=pl.len(), rate=rate, worth=worth)
        each = each.filter(pl.col("n") >= MIN_JUDGED)
        low, high = clopper_pearson((each["rate"] * each["worth"]).to_numpy(), each["worth"].to_numpy())
        of_class = each.select(
            "rater", pl.col("rate").alias(name), pl.Series(f"{name}_low", low), pl.Series(f"{name}_high", high)
        )
        table = table.join(of_class, on="rater", how="left", maintain_order="left")
    return table
