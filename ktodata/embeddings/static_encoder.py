"""The encoder that needs neither torch nor a network: a vector for each token, and a text is the mean of its tokens."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ktodata.models import resolve_model

STATIC = ("packaged:wordllama-256",)
BATCH = 2048  # texts whose tokens are in memory at once


class StaticEncoder:
    """tokenizer : of the package tokenizers. table : the vector of each token, float32 [tokens, D]."""

    device = "cpu"

    def __init__(self, tokenizer: Any, table: npt.NDArray[np.float32]) -> None:
        self._tokenizer, self._table = tokenizer, table
        self.dimension = int(table.shape[1])
        self.fingerprint = hashlib.blake2b(tokenizer.to_str().encode() + table.tobytes(), digest_size=16).hexdigest()

    def part_size(self, batch_size: int) -> int:
        """Texts that `encode` is given at once."""
        return max(batch_size, BATCH)

    def encode(self, texts: list[str], batch_size: int = BATCH, device: str = "cpu") -> npt.NDArray[np.float32]:
        """Means of token vectors, float32 [n, D], not of unit length; zero for a text without a known token.

        batch_size, device : nothing hangs on them here
        """
        # without the places of tokens in the text, which nobody asks for: a third faster
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        weights = np.repeat((1 / np.maximum(lengths, 1)).astype(np.float32), lengths)
        places = np.concatenate([np.array(ids, dtype=np.int64) for ids in tokens])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return np.asarray(csr_array((weights, places, offsets), shape=(len(texts), len(self._table))) @ self._table)


@cache
def load_static_encoder(name: str) -> StaticEncoder:
    """One of STATIC, read once a process. MissingExtraError where the package that ships it is not installed."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    package = Path(resolve_model(name))
    weights = next((package / "weights").glob("*256*.safetensors"))
    tokenizer = Tokenizer.from_file(str(next((package / "tokenizers").rglob("*tokenizer*.json"))))
    tokenizer.no_padding()
    return StaticEncoder(tokenizer, next(iter(load_file(weights).values())).astype(np.float32))
