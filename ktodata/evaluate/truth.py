"""What is really true of held-out rows, where that is known; used to score only."""

from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

from ktodata.errors import DataError, LabelError, MissingColumnError
from ktodata.files import read_table


class TruthFile(TypedDict):
    """A file that says what is true of rows."""

    path: Annotated[str, Field(description="Parquet, CSV or JSON lines")]
    id: Annotated[
        str, Field(description="its column that names the row; found in the shards by that name, as source_id, or row_id")
    ]
    label: Annotated[str, Field(description="its column with the truth: true or false")]


TruthFile.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


def with_truth(rows: pl.DataFrame, truth: TruthFile | None, truth_column: str | None) -> pl.DataFrame:
    """`rows` with the column `truth` (null where it is not known), from a file or from one of its own columns."""
    if truth is not None:
        return _join_truth(rows, truth)
    if truth_column is None:
        return rows.with_columns(truth=pl.lit(None, dtype=pl.Boolean))
    if truth_column not in rows.columns:
        raise MissingColumnError(f"truth_column {truth_column!r}: the rows have {', '.join(rows.columns)}.")
    return rows.with_columns(truth=_checked_boolean(rows[truth_column], f"column {truth_column!r}"))


def _join_truth(rows: pl.DataFrame, truth: TruthFile) -> pl.DataFrame:
    table = read_table(Path(truth["path"]))
    for column in (truth["id"], truth["label"]):
        if column not in table.columns:
            raise MissingColumnError(f"{truth['path']} has no column {column!r}; it has {', '.join(table.columns)}.")
    known = table.select(
        id=pl.col(truth["id"]).cast(pl.String),
        truth=_checked_boolean(table[truth["label"]], f"{truth['path']}: {truth['label']!r}"),
    ).unique()
    if contradicted := known.height - known["id"].n_unique():
        raise DataError(f"{truth['path']}: {contradicted:,} ids have more than one truth. Give each row one.")
    key = next(name for name in (truth["id"], "source_id", "row_id") if name in rows.columns)
    bare = rows.drop("truth", strict=False).with_columns(id=pl.col(key).cast(pl.String))
    joined = bare.join(known, on="id", how="left", maintain_order="left")
    if joined["truth"].is_null().all():
        raise DataError(
            f"{truth['path']}: none of its {known.height:,} ids (first: {known['id'].min()!r}) is a {key} of the {rows.height:,} "
            f"rows (first: {joined['id'].min()!r})."
        )
    return joined.drop("id")


def _checked_boolean(values: pl.Series, what: str) -> pl.Series:
    if values.dtype != pl.Boolean:
        raise LabelError(f"{what} is {values.dtype}; truth must be true or false.")
    return values
