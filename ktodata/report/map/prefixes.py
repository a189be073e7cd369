"""How the texts of many rows begin, read without holding any text whole."""

import polars as pl

from ktodata.files import scan_parquet
from ktodata.report.run_files import RunFiles

TEXTS = ("prompt", "completion")
GIVEN = ("label", "rater", "source", "source_line")


def read_prefixes(run: RunFiles, row_ids: pl.Series, *, limit: int) -> pl.DataFrame:
    """Of each row: row_id, what was given, the first `limit` characters of its texts, and how long each is (prompt_chars, ...).

    One line for each of `row_ids`, in their order; what is not known of a row is null. Texts are as they were given, not cleaned.
    """
    requested = row_ids.alias("row_id").to_frame()
    file = run.path / "stages" / "ingest" / "columns.parquet"
    if not file.is_file():
        return requested.with_columns(pl.lit(None).alias(name) for name in (*GIVEN, *TEXTS, *(f"{text}_chars" for text in TEXTS)))
    prefixes = (
        scan_parquet(file)
        .join(requested.lazy(), on="row_id", how="semi")
        .select(
            "row_id",
            *GIVEN,
            *(pl.col(text).str.slice(0, limit) for text in TEXTS),
            *(pl.col(text).str.len_chars().alias(f"{text}_chars") for text in TEXTS),
        )
    )
    return requested.join(prefixes.collect(), on="row_id", how="left", maintain_order="left")
