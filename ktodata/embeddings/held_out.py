"""Held-out prompts that mean what a training prompt means: what a search by words (the split's) cannot see."""

from typing import Any

import numpy as np
import polars as pl

from ktodata.embeddings.holes import Floats, nearest_prompts
from ktodata.embeddings.vectors import without_mean
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stats import percent_span, share

# cosine; of 13 pairs the packaged encoders gave reworded questions 0.70 to 0.99, and one template filled in twice 0.24 to 0.79
SAME_MEANING = 0.85
SAMPLE = 2_000  # held-out prompts that are searched
SHOWN = 200

NEAR_SCHEMA = pl.Schema(
    {
        "row_id": pl.String(),
        "prompt": pl.String(),
        "nearest_row_id": pl.String(),
        "nearest": pl.String(),
        "similarity": pl.Float64(),
    }
)


def near_held_out(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The held-out prompts with a training prompt of another group of nearly the same vector, nearest first; and counts.

    What all training prompts have in common, as an instruction before each question, is taken out first: it makes any two alike.
    rows : row_id, prompt, part, prompt_group, prompt_embedding (length 1, or zero). Of many held-out prompts a sample is used.
    """
    places = rows.select("row_id", "prompt", "part", "prompt_group", place=pl.int_range(pl.len()))
    distinct = places.unique("prompt", keep="first", maintain_order=True).sort("row_id")
    training, held_out = (distinct.filter(side) for side in (pl.col("part") == "train", pl.col("part") != "train"))
    searched = held_out.sample(min(SAMPLE, held_out.height), seed=0).sort("row_id")
    if searched.is_empty() or training.is_empty():
        return pl.DataFrame(schema=NEAR_SCHEMA), {"searched": 0, "held_out": held_out.height, "near": 0}
    codes = pl.concat([searched, training])["prompt_group"].rank("dense").to_numpy()
    of_searched, vectors = (rows["prompt_embedding"].gather(side["place"]).to_numpy() for side in (searched, training))
    common = _in_common(vectors)
    nearest = nearest_prompts(
        without_mean(of_searched, common),
        without_mean(vectors, common),
        groups=codes[searched.height :],
        own_groups=codes[: searched.height],
    )
    other = training[np.maximum(nearest.number, 0)]
    pairs = searched.select("row_id", "prompt").with_columns(
        nearest_row_id=other["row_id"], nearest=other["prompt"], similarity=pl.Series(nearest.similarity, dtype=pl.Float64)
    )
    near = pairs.filter(pl.col("similarity") >= SAME_MEANING).sort("similarity", "row_id", descending=[True, False])
    return near.head(SHOWN), {"searched": searched.height, "held_out": held_out.height, "near": near.height}


def _in_common(vectors: Floats) -> Floats:
    """The mean of [n, d] vectors, less a part in n, so that of few it does not take their own meaning away, of one nothing."""
    return np.asarray(vectors.mean(axis=0) * ((len(vectors) - 1) / len(vectors)), vectors.dtype)


def check_held_out(counts: dict[str, Any] | None) -> Finding:
    """KD053: held-out prompts have a training prompt of nearly the same meaning. counts : of `near_held_out`; None: no parts"""
    if counts is None or not counts["searched"]:
        return not_applicable("KD053", "no rows are held out, or none to train on is left")
    of_all = share(counts["near"], counts["searched"])
    text = (
        f"{counts['near']:,} of {counts['searched']:,} held-out prompts searched have a training prompt of another group with a "
        f"similarity of {SAME_MEANING} or more, by the encoder, beyond what all prompts share "
        f"({percent_span(of_all.low or 0.0, of_all.high or 0.0)} of all)"
    )
    if not counts["near"]:
        return passed("KD053", f"{text}. What the encoder does not see as alike would not be seen here.")
    return issue(
        "KD053",
        f"{text}: reworded questions, by the look of it (table near_held_out). Where they are the same question, held-out "
        "figures flatter: keep them together with split: {group: COLUMN}.",
        counts["near"],
    )
