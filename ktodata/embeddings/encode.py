"""Texts to unit vectors: each distinct text once, in an order that does not depend on the rows' order, with a cache on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.static_encoder import BATCH, STATIC, StaticEncoder, load_static_encoder
from ktodata.embeddings.vector_cache import cache_folder, load_vectors, text_keys
from ktodata.embeddings.vector_parts import VectorStore, make_vectors
from ktodata.embeddings.vectors import of_unit_length
from ktodata.engines.engine import ModelWork
from ktodata.errors import ModelError
from ktodata.models import first_line, load_encoder

Vectors = npt.NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]

BATCHES_A_PART = 8  # of a model with attention: a part is what it is given at once, and what it is said how far it is by


@dataclass(frozen=True)
class Encoded:
    """Vectors of distinct texts and how they came about."""

    vectors: Vectors
    encoder: str
    fingerprint: str
    device: str
    from_cache: int
    unreadable_cache_files: int
    zero_vectors: int


def encode_texts(
    texts: Sequence[str], *, model: str, batch_size: int = 64, device: Device = "auto", cache: bool = True
) -> Encoded:
    """Vectors [n, d] of `texts`, of length 1 each; an all-zero vector for a text in which the encoder sees nothing.

    The cache is in models.cache_dir()/vectors, one folder for each name and content of weights and tokenizer; it is written as
    parts are done. Encoders with attention may differ in the last bits with the texts that share a batch; parts are cut from the
    texts that are not there yet, sorted by length, then text. So the same texts and the same cache give the same bytes, on every
    engine; with texts that came in two runs, an encoder with attention may not give those of one run.
    Raises ModelError when the model cannot be read, the device is absent, or a text cannot be encoded.
    """
    work = EncodeWork(model, "cpu" if model in STATIC else _picked(device), batch_size)
    dimension, part_size = work.model.dimension, work.model.part_size(batch_size)
    folder = cache_folder("vectors", model, work.made_with)
    keys = text_keys(texts) if cache else []
    vectors = np.zeros((len(texts), dimension), np.float32)
    held, unreadable = load_vectors(folder, keys, vectors) if cache else (np.zeros(len(texts), bool), 0)
    order = np.array(sorted(np.flatnonzero(~held).tolist(), key=lambda i: (len(texts[i]), texts[i])), dtype=np.int64)
    store = VectorStore(folder if cache else None, keys, vectors)
    make_vectors(vectors, order, texts, work, store, part_size=part_size, unit="characters", size_of=len)
    zero = int((~vectors.any(axis=1)).sum())
    return Encoded(vectors, model, work.made_with, work.device, int(held.sum()), unreadable, zero)


@dataclass(eq=False)
class EncodeWork(ModelWork):
    """Unit vectors of the texts of a part."""

    batch_size: int

    def load(self) -> "SentenceEncoder | StaticEncoder":
        """As ModelWork has it."""
        return load_static_encoder(self.name) if self.name in STATIC else SentenceEncoder(self.name)

    def identity(self, model: "SentenceEncoder | StaticEncoder") -> str:
        """As ModelWork has it."""
        return model.fingerprint

    def __call__(self, part: Sequence[str]) -> Vectors:
        """As ModelWork has it. Raises ModelError for a text that cannot be encoded."""
        encoder = self.model
        try:
            return of_unit_length(encoder.encode(list(part), self.batch_size, self.device))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ModelError(
                f"the encoder {self.name!r} failed on {len(part):,} texts: {first_line(error)}. "
                f"Try a smaller batch_size (it is {self.batch_size}), a smaller max_chars, or another model."
            ) from error


class SentenceEncoder:
    """A model of sentence-transformers. Raises ModelError when it cannot be read."""

    def __init__(self, name: str) -> None:
        self._model = load_encoder(name)
        self.dimension = int(self._model.get_embedding_dimension())
        self.fingerprint = _fingerprint(self._model)

    def part_size(self, batch_size: int) -> int:
        """Texts that `encode` is given at once."""
        return BATCHES_A_PART * self._at_once(batch_size)

    def encode(self, texts: list[str], batch_size: int, device: str) -> Vectors:
        """Vectors as the model makes them, float32 [n, D]. Raises ModelError where there is no such device."""
        _check_device(device)
        self._model.to(device)
        made: Vectors = self._model.encode(
            texts, batch_size=self._at_once(batch_size), show_progress_bar=False, convert_to_numpy=True
        )
        return made.astype(np.float32, copy=False)

    def _at_once(self, batch_size: int) -> int:
        """Without attention there is no padding: larger batches give the same vectors and cost less."""
        return max(batch_size, BATCH) if type(self._model[0]).__name__ == "StaticEmbedding" else batch_size


def _picked(device: Device) -> str:
    """Either cpu or cuda. A device that is named is taken at its word: the engine may have it where this process has not."""
    import torch

    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device 'cuda' was asked for, but torch sees no CUDA device. Use device: auto or cpu.")


def _fingerprint(encoder: Any) -> str:
    """What the vectors depend on: the modules, the tokenizer, the weights."""
    digest = hashlib.blake2b(f"{encoder} {encoder.max_seq_length}".encode(), digest_size=16)
    tokenizer = getattr(encoder.tokenizer, "backend_tokenizer", encoder.tokenizer)
    if hasattr(tokenizer, "to_str"):
        digest.update(tokenizer.to_str().encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
