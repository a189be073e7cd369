"""The names of rows of plain text, many at once: the same as `table.content_id` gives one by one."""

import polars as pl
import xxhash

ISO_SECONDS, MICROSECONDS = "%Y-%m-%dT%H:%M:%S", ".%6f"


def content_ids(frame: pl.DataFrame) -> pl.Series:
    """row_id of each row, from its prompt, completion, label, rater, created_at and source_id; its turns are null."""
    verdict = pl.when("label").then(pl.lit("desirable")).otherwise(pl.lit("undesirable"))
    content = frame.select("prompt", "completion", verdict.alias("label"), "rater", _iso_text(pl.col("created_at")), "source_id")
    lengths = (pl.col(name).str.len_chars().cast(pl.String).fill_null("-") for name in content.columns)
    texts = (pl.col(name).fill_null("") for name in content.columns)
    keys = content.select(key=pl.format("4,{},{},{},{},{},{}\x1ftext{}{}{}{}{}{}", *lengths, *texts))
    # a row's key is read once and thrown away
    return pl.Series("row_id", list(map(xxhash.xxh3_64_hexdigest, keys["key"].cast(pl.Binary).to_list())), dtype=pl.String)


def _iso_text(time: pl.Expr) -> pl.Expr:
    """What `datetime.isoformat` writes of a time in UTC: microseconds only where there are some."""
    has_fraction = time.dt.microsecond() != 0
    fraction = pl.when(has_fraction).then(time.dt.to_string(MICROSECONDS)).otherwise(pl.lit(""))
    return time.dt.to_string(ISO_SECONDS) + fraction + pl.lit("+00:00")
