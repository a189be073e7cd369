"""Texts to unit vectors: each distinct text once, in an order that does not depend on the rows' order, with a cache on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.static_encoder import BATCH, STATIC, StaticEncoder, load_static_encoder
from ktodata.embeddings.vector_cache import cache_folder, load_vectors, store_vectors, text_keys
from ktodata.embeddings.vectors import of_unit_length
from ktodata.errors import ModelError
from ktodata.models import first_line, load_encoder
from ktodata.work_done import WorkDone

Vectors = npt.NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]

BATCHES_A_CALL = 8  # of the model, before it is said how far it is


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

    The cache is in models.cache_dir()/vectors, one folder for each name and content of weights and tokenizer; it is written once,
    after the last batch. Encoders with attention may differ in the last bit with the texts that share a batch; batches are sorted
    by length, then text, so the same set of texts gives the same bytes.
    Raises ModelError when the model cannot be read, the device is absent, or a text cannot be encoded.
    """
    encoder = load_static_encoder(model) if model in STATIC else SentenceEncoder(model, device)
    folder = cache_folder("vectors", model, encoder.fingerprint)
    keys = text_keys(texts)
    line_of, stored, unreadable = load_vectors(folder, keys) if cache else ({}, np.empty((0, 0), np.float32), 0)
    missing = [i for i, key in enumerate(keys) if key not in line_of]
    fresh = _encode_sorted(encoder, [texts[i] for i in missing], model, batch_size)
    vectors = np.zeros((len(texts), encoder.dimension), np.float32)
    vectors[missing] = fresh
    if line_of:
        held = [i for i, key in enumerate(keys) if key in line_of]
        vectors[held] = stored[[line_of[keys[i]] for i in held]]
    if cache:
        store_vectors(folder, [keys[i] for i in missing], fresh)
    zero = int((~vectors.any(axis=1)).sum())
    return Encoded(vectors, model, encoder.fingerprint, encoder.device, len(texts) - len(missing), unreadable, zero)


class SentenceEncoder:
    """A model of sentence-transformers on a device. Raises ModelError as `encode_texts` does."""

    def __init__(self, name: str, device: Device) -> None:
        self._model = load_encoder(name)
        self.device = _torch_device(device)
        self._model.to(self.device)
        self.dimension = int(self._model.get_embedding_dimension())
        self.fingerprint = _fingerprint(self._model)

    def encode(self, texts: list[str], batch_size: int) -> Vectors:
        """Vectors as the model makes them, float32 [n, D]."""
        size = max(batch_size, BATCH) if _is_static(self._model) else batch_size
        step, done, parts = size * BATCHES_A_CALL, WorkDone("characters", sum(map(len, texts))), []
        for part in (texts[start : start + step] for start in range(0, len(texts), step)):
            parts.append(self._model.encode(part, batch_size=size, show_progress_bar=False, convert_to_numpy=True))
            done.add(sum(map(len, part)))
        return np.concatenate(parts).astype(np.float32, copy=False)


def _encode_sorted(encoder: SentenceEncoder | StaticEncoder, texts: list[str], model: str, batch_size: int) -> Vectors:
    if not texts:
        return np.empty((0, encoder.dimension), np.float32)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
    try:
        raw = encoder.encode([texts[i] for i in order], batch_size)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ModelError(
            f"the encoder {model!r} failed on {len(texts):,} texts: {first_line(error)}. "
            f"Try a smaller batch_size (it is {batch_size}), a smaller max_chars, or another model."
        ) from error
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    vectors[order] = of_unit_length(raw)
    return vectors


def _is_static(encoder: Any) -> bool:
    """Without attention there is no padding: larger batches give the same vectors and cost less."""
    return type(encoder[0]).__name__ == "StaticEmbedding"


def _torch_device(device: Device) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device 'cuda' was asked for, but torch sees no CUDA device. Use device: auto or cpu.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


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
