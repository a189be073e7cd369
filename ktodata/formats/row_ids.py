"""Names made from content: the same text has the same name on every machine and in every order of files."""

import polars as pl
import xxhash


def text_id(text: str) -> str:
    """16 hex digits that stand for `text`."""
    return xxhash.xxh3_64_hexdigest(text.encode())


def content_key(*parts: str | None) -> str:
    """16 hex digits that stand for the parts, in order; the lengths keep ("ab", "c") apart from ("a", "bc")."""
    lengths = ",".join("-" if part is None else str(len(part)) for part in parts)
    return text_id(lengths + "\x1f" + "".join(part for part in parts if part is not None))


def number_repeats(table: pl.DataFrame) -> pl.DataFrame:
    """Turn column `row_id` from the name of the content into the name of the row: exact repeats are told apart by number.

    Repeats are numbered by file and line, so that the order in which files are read changes nothing.
    """
    repeated = pl.col("row_id").is_duplicated()
    if not table.select(repeated.any()).item():
        return table
    places = table.select("row_id", "file", "source_line", repeated=repeated).with_row_index("position").filter("repeated")
    numbered = places.sort("row_id", "file", "source_line", "position").with_columns(nth=pl.int_range(pl.len()).over("row_id"))
    later = numbered.filter(pl.col("nth") > 0).select("position", name=pl.format("{}:{}", "row_id", "nth"))
    renamed = later.select("position", renamed=pl.Series([text_id(name) for name in later["name"]], dtype=pl.String))
    return (
        table.with_row_index("position")
        .join(renamed, on="position", how="left", maintain_order="left")
        .with_columns(row_id=pl.coalesce("renamed", "row_id"))
        .drop("position", "renamed")
    )
