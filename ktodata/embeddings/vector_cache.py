"""Vectors of texts on disk, kept by content: a text that was encoded once by an encoder is never encoded again by it.

One folder per encoder, any number of Parquet files in it, each written whole under a temporary name and then renamed. So a killed
process leaves no half file, and two processes at once at worst store a vector twice.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ktodata.files import read_parquet, whole_file
from ktodata.models import cache_dir

Vectors = npt.NDArray[np.float32]
BETWEEN = "\x1e"  # stands between a prompt and its completion where one vector is of both


def cache_folder(kind: str, model: str, fingerprint: str) -> Path:
    """Where vectors of this kind are kept: a readable name of the model, and all that they depend on as a fingerprint."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[-60:]
    return cache_dir() / kind / f"{readable}-{fingerprint[:16]}"


def text_keys(texts: Sequence[str]) -> list[str]:
    """A 128-bit name for each text."""
    return [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() for text in texts]


def load_vectors(folder: Path, keys: Sequence[str]) -> tuple[dict[str, int], Vectors, int]:
    """({key: line of the matrix}, matrix, files that could not be read) for those of `keys` that are stored."""
    requested = pl.DataFrame({"key": pl.Series(keys, dtype=pl.String)})
    parts, unreadable = [], 0
    for path in sorted(folder.glob("*.parquet")):
        try:
            stored = read_parquet(path)
            parts.append(stored.select("key", "vector").join(requested, on="key", how="semi"))
        except (OSError, pl.exceptions.PolarsError):
            unreadable += 1
    rows = pl.concat(parts).unique("key", keep="first", maintain_order=True) if parts else pl.DataFrame()
    if not rows.height:
        return {}, np.empty((0, 0), np.float32), unreadable
    return {key: line for line, key in enumerate(rows["key"])}, rows["vector"].to_numpy(), unreadable


def store_vectors(folder: Path, keys: Sequence[str], vectors: Vectors) -> None:
    """Store the vectors in one new file, named by its keys."""
    if not keys:
        return
    name = hashlib.blake2b("".join(sorted(keys)).encode(), digest_size=16).hexdigest()
    with whole_file(folder / f"{name}.parquet") as scratch:
        pl.DataFrame({"key": keys, "vector": vectors}).write_parquet(scratch)
