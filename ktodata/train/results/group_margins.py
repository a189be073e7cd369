"""Margins of groups of rows: which label, source or rater the rest of the feedback argues against."""

import polars as pl
from scipy.special import stdtrit

from ktodata.errors import DataError
from ktodata.feedback import check_columns


def by_group(per_row: pl.DataFrame, feedback: pl.DataFrame, column: str) -> pl.DataFrame:
    """Mean margin of the rows of each value of `column`, the group that is most at odds with the rest first.

    per_row : as `summarise` gives it. feedback : row_id and `column` (label, source, rater, ...), one value a row; null is a
        group too.

    Returns group, n (rows), mean, low, high (95 % interval of the mean, Student's t; null under two rows), and expected: the mean
    margin if each of the group's rows had that of all rows of its label and part. high < expected: the group's labels fight the
    rest; one sound group in forty does so by chance. Rows are taken as independent: many rows of one prompt make the interval
    too narrow.

    Raises MissingColumnError for a column that is not there, DataError for a column of lists, for a row_id that is repeated in
    feedback, and when feedback holds none of the rows.
    """
    rows = _rows_with_group(per_row, feedback, column).sort("group", "row_id", "part")  # one order of each sum: the same last bit
    margins = (
        rows.with_columns(expected=pl.col("mean_margin").mean().over("label", "part"))
        .group_by("group", maintain_order=True)
        .agg(
            n=pl.len(),
            mean=pl.col("mean_margin").mean(),
            expected=pl.col("expected").mean(),
            error=pl.col("mean_margin").std() / pl.len().sqrt(),
        )
        .sort(pl.col("mean") - pl.col("expected"), maintain_order=True)
    )
    reach = margins["error"] * pl.Series(stdtrit(margins["n"].to_numpy().astype(float) - 1, 0.975))
    return margins.select("group", "n", "mean", low=pl.col("mean") - reach, high=pl.col("mean") + reach, expected="expected")


def _rows_with_group(per_row: pl.DataFrame, feedback: pl.DataFrame, column: str) -> pl.DataFrame:
    check_columns(feedback, ("row_id", column), who="by_group")
    if feedback.schema[column].is_nested():
        raise DataError(f"by_group: column {column!r} is {feedback.schema[column]}; it must hold one value a row.")
    named = feedback.select("row_id", group=column)
    if repeats := named.height - named["row_id"].n_unique():
        raise DataError(f"by_group: {repeats:,} of {named.height:,} rows of feedback share their row_id with another row.")
    rows = per_row.join(named, on="row_id")
    if rows.is_empty():
        raise DataError(
            f"by_group: feedback holds none of the {per_row.height:,} rows that training saw. Give the table it came from."
        )
    return rows
