"""Vectors of texts on disk, kept by content: a text that was encoded once by an encoder is never encoded again by it.

One folder per encoder, any number of Parquet files in it, each written whole under a temporary name and then renamed. So a killed
process leaves no half file, and two processes at once at worst store a vector twice.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.files import read_parquet, whole_file
from ktodata.models import cache_dir

Vectors = NDArray[np.float32]
FILE_ROWS = 50_000
BETWEEN = "\x1e"  # stands between a prompt and its completion where one vector is of both


def cache_folder(kind: str, model: str, fingerprint: str) -> Path:
    """Where vectors of this kind are kept: a readable name of the model, and all that they depend on as a fingerprint."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[-60:]
    return cache_dir() / kind / f"{readable}-{fingerprint[:16]}"


def text_keys(texts: Sequence[str]) -> list[str]:
    """A 128-bit name for each text."""
    return [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() for text in texts]


def load_vectors(folder: Path, keys: Sequence[str], vectors: Vectors) -> tuple[NDArray[np.bool_], int]:
    """Put the vectors that are stored into their lines: (bool [n], which lines those are; files that could not be read).

    keys : each once. vectors : float32 [n, d], changed in place; a file is in memory at a time, and
    of a file that holds none of the keys these alone
    """
    missing = pl.DataFrame({"key": pl.Series(keys, dtype=pl.String)}).with_row_index("line")
    held, unreadable = np.zeros(len(keys), bool), 0
    for path in sorted(folder.glob("*.parquet")):
        if missing.is_empty():
            break
        try:
            if read_parquet(path, ["key"]).join(missing, on="key", how="semi").is_empty():
                continue  # its vectors, most of its bytes, are not read
            stored = read_parquet(path).unique("key", keep="first", maintain_order=True).join(missing, on="key")
            lines = stored["line"].to_numpy()
            vectors[lines] = stored["vector"].to_numpy() if len(lines) else 0
        except (OSError, pl.exceptions.PolarsError, ValueError):  # damaged, or of another width
            unreadable += 1
            continue
        held[lines] = True
        missing = missing.join(stored, on="key", how="anti")
    return held, unreadable


def store_vectors(folder: Path, keys: Sequence[str], vectors: Vectors) -> None:
    """Store the vectors in new files, each named by its keys."""
    for start in range(0, len(keys), FILE_ROWS):
        part = keys[start : start + FILE_ROWS]
        name = hashlib.blake2b("".join(sorted(part)).encode(), digest_size=16).hexdigest()
        with whole_file(folder / f"{name}.parquet") as scratch:
            pl.DataFrame({"key": part, "vector": vectors[start : start + FILE_ROWS]}).write_parquet(scratch)
