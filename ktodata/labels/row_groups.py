"""Rows that stand on one side of every split: those of one prompt group, unless it is too large for that."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FOLDS = 5  # of label_noise, unless somebody asks for others


def row_groups(table: pl.DataFrame, *, folds: int = FOLDS) -> Ints:
    """Codes of rows that belong together: int [N].

    table : prompt, completion, prompt_group; trained, where some rows are not learnt from

    A group with more than 1 / folds of the training rows leaves no fold that is like the others, and its rows are answered by
    models that know next to nothing of them. Its rows are dealt by their texts: to one prompt, completions of the same words but
    for numbers, case and punctuation stay together. Where those are too many for a fold as well, each row is a group.
    """
    table = table.select(
        "prompt",
        "completion",
        code=pl.col("prompt_group").rank("dense").cast(pl.Int64),
        place=pl.int_range(pl.len(), dtype=pl.Int64),
        trained="trained" if "trained" in table.columns else pl.lit(value=True),
    )
    letters = pl.col("completion").str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}]+", " ")
    words = pl.when(letters.str.strip_chars() == "").then("completion").otherwise(letters)
    for finer in (pl.struct("prompt", words=words), pl.struct("place")):
        large = pl.col("trained").sum().over("code") * folds > pl.col("trained").sum()
        apart = pl.struct("code", part=pl.when(large).then(finer.rank("dense")))
        if table.select(large.any()).item():
            table = table.with_columns(code=apart.rank("dense").cast(pl.Int64))
    return np.asarray(table["code"].to_numpy(), np.int64)
