"""How often each rater is right on rows that somebody trusted has judged: no assumption on how raters err."""

import polars as pl

from ktodata.stats import clopper_pearson

MIN_JUDGED = 5  # reviewed rows of one class that a rater has judged


def confusions_by_reviews(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """rater, sensitivity and specificity with exact 95 % intervals; null where fewer than MIN_JUDGED rows tell.

    rows : row_id, trusted_label, drawn (reviewed because a random draw said so; others were chosen, and stand for nothing)
    votes : row_id, rater, verdict
    """
    judged = rows.filter("drawn").select("row_id", "trusted_label").join(votes.drop_nulls("rater"), on="row_id")
    right = pl.col("verdict") == pl.col("trusted_label")
    table = judged.select("rater").unique(maintain_order=True)
    for name, true in (("sensitivity", True), ("specificity", False)):
        each = judged.filter(trusted_label=true).group_by("rater").agg(n=pl.len(), hits=right.sum())
        each = each.filter(pl.col("n") >= MIN_JUDGED)
        low, high = clopper_pearson(each["hits"].to_numpy(), each["n"].to_numpy())
        rate = pl.col("hits").cast(pl.Float64) / pl.col("n")
        of_class = each.select("rater", rate.alias(name), pl.Series(f"{name}_low", low), pl.Series(f"{name}_high", high))
        table = table.join(of_class, on="rater", how="left", maintain_order="left")
    return table
