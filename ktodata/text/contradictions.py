"""Nearly the same completion to the same prompt, with opposite labels: one is likely wrong, or the criterion is unclear."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.embeddings.vectors import of_unit_length
from ktodata.text.conclusions import begins_otherwise
from ktodata.text.words import meaning_key

Floats = NDArray[np.float32]

CHUNK = 16_384  # pairs compared at once
LARGE = 256  # rows of a group from which it is compared as one matrix


def near_contradictions(
    rows: pl.DataFrame, prompts: Floats, completions: Floats, *, similarity: float, among: NDArray[np.bool_] | None = None
) -> pl.DataFrame:
    """For each row with a near twin of the other label: row_id, near_twin (row_id), near_similarity (cosine of the completions).

    rows : row_id, prompt, completion, label, prompt_group; prompts, completions : float32 [N, d], their embeddings
    among : bool [N], the rows to compare; None: all

    Twins share their prompt_group, both cosines are at least `similarity`, and prompt and completion have the same `meaning_key`:
    embeddings hardly see that "A: 3" is not "A: 4", or that "safe" is not "not safe", nor is "safe" in one "unsafe" in the other.
    Only the most similar twin is named, the first of equals.
    """
    places = rows.select("label", "prompt_group", place=pl.int_range(pl.len()))
    if among is not None:
        places = places.filter(among)
    may_oppose = places.filter(pl.col("label").n_unique().over("prompt_group") > 1)
    texts = rows.select("prompt", "completion")[may_oppose["place"]]
    keyed = may_oppose.with_columns(key=pl.struct("prompt_group", *(meaning_key(text) for text in texts)))
    opposed = keyed.filter(pl.col("label").n_unique().over("key") > 1).with_columns(group=pl.col("key").rank("dense"))
    parts = [_similar_pairs(pairs, prompts, completions, similarity) for pairs in _opposed_pairs(opposed)]
    parts = [_alike(part, rows) for part in parts]
    twins = pl.concat([pl.DataFrame(schema={"row": pl.Int64, "twin": pl.Int64, "near_similarity": pl.Float64}), *parts])
    turned = twins.select(row="twin", twin="row", near_similarity="near_similarity")
    best = pl.concat([twins, turned]).sort(["row", "near_similarity", "twin"], descending=[False, True, False])
    best = best.unique("row", keep="first", maintain_order=True)
    ids = rows["row_id"]
    return pl.DataFrame(
        {"row_id": ids.gather(best["row"]), "near_twin": ids.gather(best["twin"]), "near_similarity": best["near_similarity"]},
        schema={"row_id": pl.String, "near_twin": pl.String, "near_similarity": pl.Float64},
    )


def _opposed_pairs(opposed: pl.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(desirable rows, undesirable rows), side by side, a bounded number at a time."""
    size = pl.len().over("group")
    small = opposed.filter(size <= LARGE)
    up, down = (small.filter(pl.col("label") == side).select("group", "place") for side in (True, False))
    pairs = up.join(down, on="group", maintain_order="left_right")
    for start in range(0, pairs.height, CHUNK):
        part = pairs.slice(start, CHUNK)
        yield part["place"].to_numpy(), part["place_right"].to_numpy()
    for _, group in opposed.filter(size > LARGE).group_by("group", maintain_order=True):
        ups, downs = (group.filter(pl.col("label") == side)["place"].to_numpy() for side in (True, False))
        step = max(CHUNK // len(downs), 1)
        for start in range(0, len(ups), step):
            some = ups[start : start + step]
            yield np.repeat(some, len(downs)), np.tile(downs, len(some))


def _similar_pairs(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]], prompts: Floats, completions: Floats, similarity: float
) -> pl.DataFrame:
    rows, twins = pairs
    cosine, of_prompts = (
        np.einsum("ij,ij->i", of_unit_length(side[rows]), of_unit_length(side[twins])) for side in (completions, prompts)
    )
    near = (cosine >= similarity) & (of_prompts >= similarity)
    return pl.DataFrame(
        {"row": rows[near], "twin": twins[near], "near_similarity": cosine[near].astype(np.float64).clip(max=1).round(6)}
    )


def _alike(pairs: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    texts = [rows["prompt", "completion"][pairs[side]].rows() for side in ("row", "twin")]
    other = [any(map(begins_otherwise, text, twin)) for text, twin in zip(*texts, strict=True)]
    return pairs.filter(~pl.Series(other, dtype=pl.Boolean))
