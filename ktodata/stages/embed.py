"""A vector for each prompt and each completion, so that later steps can tell which texts mean nearly the same."""

from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.embeddings.encode import Device, encode_texts
from ktodata.findings import issue, passed
from ktodata.stage import StageResult

NEEDS = ("prompt", "completion")
ADDS = ("prompt_embedding", "completion_embedding")


def embed(
    feedback: pl.DataFrame,
    *,
    model: Annotated[
        str,
        Field(
            description="encoder: a packaged name, hub id or folder; packaged:wordllama-256 (static) is fast on a CPU, "
            "packaged:all-minilm-l6-v2 sees word order"
        ),
    ] = "packaged:wordllama-256",
    batch_size: Annotated[int, Field(ge=1, description="texts encoded at once; lower it when memory is short")] = 64,
    device: Annotated[Device, Field(description="where the encoder runs; auto takes a CUDA device if there is one")] = "auto",
    max_chars: Annotated[
        int, Field(ge=1, description="characters of a text that are read; the rest is left out and counted")
    ] = 10_000,
    cache: Annotated[bool, Field(description="keep vectors on disk by content, so that no text is encoded twice")] = True,
) -> StageResult:
    """Add prompt_embedding and completion_embedding: vectors of length 1 (all zero where the encoder sees nothing in a text)."""
    sides = ("prompt", "completion")
    cut = feedback.select(pl.col(side).str.slice(0, max_chars) for side in sides)
    distinct = pl.concat([cut[side].rename("text") for side in sides]).unique().sort()
    encoded = encode_texts(distinct.to_list(), model=model, batch_size=batch_size, device=device, cache=cache)
    lines = pl.DataFrame({"text": distinct, "line": np.arange(len(distinct))})
    dimension = encoded.vectors.shape[1]
    columns = {
        f"{side}_embedding": pl.Series(encoded.vectors[_lines_of(cut[side], lines)], dtype=pl.Array(pl.Float32, dimension))
        for side in sides
    }
    truncated = {side: int((feedback[side].str.len_chars() > max_chars).sum()) for side in sides}
    metrics = {
        "encoder": encoded.encoder,
        "encoder_fingerprint": encoded.fingerprint,
        "device": encoded.device,
        "dimension": dimension,
        "rows": feedback.height,
        "distinct_texts": len(distinct),
        "from_cache": encoded.from_cache,
        "unreadable_cache_files": encoded.unreadable_cache_files,
        "zero_vectors": encoded.zero_vectors,
        "truncated": truncated,
        "max_chars": max_chars,
    }
    metrics["findings"] = [_check_seen(metrics).as_dict(), _check_truncation(truncated, feedback.height, max_chars).as_dict()]
    return StageResult(columns=feedback.select("row_id").with_columns(**columns), metrics=metrics)


def _lines_of(texts: pl.Series, lines: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    return texts.to_frame("text").join(lines, on="text", how="left", maintain_order="left")["line"].to_numpy()


def _check_seen(metrics: dict[str, Any]) -> Any:
    """KD050: the encoder sees nothing in some texts."""
    if not (zero := metrics["zero_vectors"]):
        return passed("KD050")
    return issue(
        "KD050",
        f"the encoder sees nothing in {zero:,} of {metrics['distinct_texts']:,} distinct texts (empty, or only characters "
        "outside its vocabulary); their vectors are zero, so they are near to nothing. Another model may read them.",
    )


def _check_truncation(truncated: dict[str, int], rows: int, max_chars: int) -> Any:
    """KD051: texts are longer than what is read of them."""
    if not any(truncated.values()):
        return passed("KD051")
    return issue(
        "KD051",
        f"{truncated['prompt']:,} prompts and {truncated['completion']:,} completions of {rows:,} rows are longer than "
        f"{max_chars:,} characters; only their beginning shapes the vector. Raise max_chars to read more.",
        rows=max(truncated.values()),
    )
