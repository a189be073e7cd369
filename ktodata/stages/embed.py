"""A vector for each prompt and each completion, so that later steps can tell which texts mean nearly the same."""

from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.embeddings.encode import Device, encode_texts
from ktodata.feedback import question_text
from ktodata.findings import issue, passed
from ktodata.stage import StageResult
from ktodata.text.scripts import scripts_of

NEEDS = ("prompt", "completion")
USES = ("turns",)
ADDS = ("prompt_embedding", "completion_embedding")

PAIRS = 400  # of each script, drawn to see whether unlike texts are told apart
MIN_TEXTS = 20
SAMPLED_CHARS = 1_000  # of a text that its letters in a row are taken from
BLIND = 0.75  # mean cosine of unlike texts from which an encoder does not know their script


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
    """Add prompt_embedding and completion_embedding: vectors of length 1 (all zero where the encoder sees nothing in a text).

    Of a conversation the words of its turns are read, without system turns and role names.
    """
    sides = ("prompt", "completion")
    feedback = feedback.with_columns(prompt=question_text(feedback))
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
        "scripts": _likeness_by_script(distinct, encoded.vectors),
        "truncated": truncated,
        "max_chars": max_chars,
    }
    metrics["findings"] = [_check_seen(metrics).as_dict(), _check_truncation(truncated, feedback.height, max_chars).as_dict()]
    return StageResult(columns=feedback.select("row_id").with_columns(**columns), metrics=metrics)


def _lines_of(texts: pl.Series, lines: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    return texts.to_frame("text").join(lines, on="text", how="left", maintain_order="left")["line"].to_numpy()


def _likeness_by_script(texts: pl.Series, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, dict[str, float]]:
    """Of each script: how many texts, and the mean cosine of pairs drawn at random that share hardly any letters in a row.

    An encoder that knows a script gives such pairs a cosine well below 1; one that does not makes all of them alike.
    """
    table = texts.to_frame("text").with_columns(script=scripts_of(texts), line=pl.int_range(pl.len()))
    likeness = {}
    for (script,), rows in table.group_by("script", maintain_order=True):
        drawn = np.random.default_rng(0).choice(rows["line"].to_numpy(), (PAIRS, 2))
        unlike = np.array([first != second and _overlap(texts[int(first)], texts[int(second)]) < 0.1 for first, second in drawn])
        if rows.height >= MIN_TEXTS and unlike.sum() >= MIN_TEXTS:
            first, second = drawn[unlike].T
            cosine = float(np.einsum("ij,ij->i", vectors[first], vectors[second]).mean())
            likeness[str(script)] = {"texts": rows.height, "cosine_of_unlike": cosine}
    return likeness


def _overlap(first: str, second: str) -> float:
    """Jaccard similarity of what three letters in a row the two texts hold."""
    a, b = ({text[place : place + 3] for place in range(len(text[:SAMPLED_CHARS]) - 2)} for text in (first, second))
    return len(a & b) / max(len(a | b), 1)


def _check_seen(metrics: dict[str, Any]) -> Any:
    """KD050: the encoder sees nothing in some texts, or does not tell those of one script apart."""
    blind = {script: of for script, of in metrics["scripts"].items() if of["cosine_of_unlike"] > BLIND}
    parts = [
        f"the encoder hardly tells {of['texts']:,} texts in {script} script apart: pairs that share no words have a mean "
        f"similarity of {of['cosine_of_unlike']:.2f}, so topics, near rows and label quality mean little there"
        for script, of in blind.items()
    ]
    if zero := metrics["zero_vectors"]:
        parts.append(
            f"the encoder sees nothing in {zero:,} of {metrics['distinct_texts']:,} distinct texts (empty, or only characters "
            "outside its vocabulary); their vectors are zero, so they are near to nothing"
        )
    return issue("KD050", f"{'; '.join(parts)}. Another model may read them.") if parts else passed("KD050")


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
