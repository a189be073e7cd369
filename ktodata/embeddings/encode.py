"""Texts to unit vectors: each distinct text once, in an order that does not depend on the rows' order, with a cache on disk."""

import hashlib
from collections.abc import Iterator, Sequence
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
    keys = text_keys(texts) if cache else []
    vectors = np.zeros((len(texts), encoder.dimension), np.float32)
    held, unreadable = load_vectors(folder, keys, vectors) if cache else (np.zeros(len(texts), bool), 0)
    missing = np.flatnonzero(~held)
    _encode_into(vectors, texts, missing, encoder, model, batch_size)
    if cache:
        store_vectors(folder, [keys[i] for i in missing], vectors if not held.any() else vectors[missing])
    zero = int((~vectors.any(axis=1)).sum())
    return Encoded(vectors, model, encoder.fingerprint, encoder.device, int(held.sum()), unreadable, zero)


class SentenceEncoder:
    """A model of sentence-transformers on a device. Raises ModelError as `encode_texts` does."""

    def __init__(self, name: str, device: Device) -> None:
        self._model = load_encoder(name)
        self.device = _torch_device(device)
        self._model.to(self.device)
        self.dimension = int(self._model.get_embedding_dimension())
        self.fingerprint = _fingerprint(self._model)

    def batches(self, texts: list[str], batch_size: int) -> Iterator[Vectors]:
        """Vectors as the model makes them, float32 [some, D], in order."""
        size = max(batch_size, BATCH) if _is_static(self._model) else batch_size
        step, done = size * BATCHES_A_CALL, WorkDone("characters", sum(map(len, texts)))
        for part in (texts[start : start + step] for start in range(0, len(texts), step)):
            made = self._model.encode(part, batch_size=size, show_progress_bar=False, convert_to_numpy=True)
            done.add(sum(map(len, part)))
            yield made.astype(np.float32, copy=False)


def _encode_into(
    vectors: Vectors,
    texts: Sequence[str],
    missing: npt.NDArray[np.int64],
    encoder: SentenceEncoder | StaticEncoder,
    model: str,
    batch_size: int,
) -> None:
    """Put unit vectors of the texts that are missing into their lines."""
    order = np.array(sorted(missing.tolist(), key=lambda i: (len(texts[i]), texts[i])), dtype=np.int64)
    start = 0
    try:
        for made in encoder.batches([texts[i] for i in order], batch_size):
            vectors[order[start : start + len(made)]] = of_unit_length(made)
            start += len(made)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ModelError(
            f"the encoder {model!r} failed on {len(order):,} texts: {first_line(error)}. "
            f"Try a smaller batch_size (it is {batch_size}), a smaller max_chars, or another model."
        ) from error


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
