"""What a row looks like to the out-of-fold models, in several views that are wrong for different reasons.

    text      the completion, in the light of its prompt
    answer    the same with the topic taken away: what in the completion the prompt does not foretell
    pair      both embeddings, their difference and their product, and the form, as they are
    form      length and form of both, no meaning
    reading   what a language model makes of the completion after its prompt, where its hidden states were computed
    prompt    the prompt alone: no model of it ranks rows, it only shows how far labels follow what was asked

Whether an answer is good shows in what it does with its prompt, and a judge that dislikes a topic shows in the prompt. So a view
without the topic still sees the one where the other has learnt it from the labels.

`text` and `answer` are kernels: rows are alike when their completions are, and count as more alike when their prompts are too,
k(row, row') = c . c' x (exp(p . p' - 1) + 0.3), p and c unit vectors, averaged over several ways to make vectors of a completion.
They are turned into components by Nystroem's method (Williams and Seeger 2001), so that one fast linear model serves all views.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.signals.features import Components, map_chunks, principal_components
from ktodata.signals.words_view import word_vectors

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
KernelView = Literal["text", "answer", "prompt", "reading"]

LANDMARKS = 1000  # rows that all others are compared with
COMPONENTS = 384
ALONE = 0.3  # weight of completions that are alike after prompts that have nothing in common
RIDGE = 1.0  # of foretelling a completion's vector from its prompt's
VARIANCE = 1000.0  # of all components of a view together, so that one grid of penalties fits every view
OPENING = 300  # characters; how a completion begins says most about what it does


@dataclass(frozen=True)
class Rows:
    """Unit vectors of N rows: prompts float32 [N, d], completions and the same without their topic, each float32 [N, .].

    reading : float32 [N, h], a language model's hidden states, standardised; None where there are none
    """

    prompts: Floats
    completions: tuple[Floats, ...]
    topic_free: tuple[Floats, ...]
    reading: Floats | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def kernel(self, view: KernelView, rows: slice | NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
        """How alike `rows` and `others` are: float32 [rows, others], largest for a row with itself."""
        if view == "reading":
            assert self.reading is not None
            return np.asarray(self.reading[rows] @ self.reading[others].T)
        near = np.exp(self.prompts[rows] @ self.prompts[others].T - 1)
        if view == "prompt":
            return np.asarray(near)
        parts = self.topic_free if view == "answer" else self.completions
        alike = sum((part[rows] @ part[others].T for part in parts[1:]), start=parts[0][rows] @ parts[0][others].T)
        return np.asarray(alike / len(parts) * (near + ALONE), dtype=np.float32)


def as_rows(
    prompts: Floats, completions: Floats, texts: pl.Series, *, fit_rows: Bools, hidden_states: Floats | None = None
) -> Rows:
    """Rows as the views need them.

    prompts, completions : float32 [N, d], their embeddings; texts : the completions themselves
    hidden_states : float32 [N, h], of a language model, if they were computed
    fit_rows : bool [N], rows that words and topics are learnt from; no label is looked at
    """
    p = _unit(prompts)
    made = [completions, word_vectors(texts.str.slice(0, OPENING), fit_rows), word_vectors(texts, fit_rows)]
    topic_free = tuple(_unit(without_topic(one, p, fit_rows)) for one in made)
    reading = None if hidden_states is None else _unit(_standard(hidden_states, fit_rows))
    return Rows(p, tuple(map(_unit, made)), topic_free, reading)


def without_topic(vectors: Floats, prompts: Floats, fit_rows: Bools) -> Floats:
    """What a ridge regression on the prompts' vectors leaves of `vectors`: float32, same shape."""
    p, v = prompts[fit_rows].astype(np.float64), vectors[fit_rows].astype(np.float64)
    mean = v.mean(axis=0) if len(v) else np.zeros(vectors.shape[1])
    weights = np.linalg.solve(p.T @ p + RIDGE * np.eye(p.shape[1]), p.T @ (v - mean))
    return np.asarray(vectors - mean.astype(np.float32) - prompts @ weights.astype(np.float32))


def kernel_components(rows: Rows, view: KernelView, *, fit_rows: Bools, components: int = COMPONENTS) -> Components:
    """The leading components of a view's kernel, found on `fit_rows`; the others are only projected."""
    chosen = np.flatnonzero(fit_rows)
    if not len(chosen):
        return Components(np.zeros((len(rows), 1), np.float32), np.zeros(1), 0.0)
    landmarks = np.sort(np.random.default_rng(0x5EED).permutation(chosen)[:LANDMARKS])
    energy, axes = np.linalg.eigh(rows.kernel(view, landmarks, landmarks).astype(np.float64))
    kept = np.flatnonzero(energy > 1e-4 * max(energy[-1], 1e-12))[::-1][:components]
    towards = (axes[:, kept] / np.sqrt(energy[kept])).astype(np.float32)
    return orthogonal(len(rows), lambda part: rows.kernel(view, part, landmarks) @ towards, fit_rows=fit_rows)


def orthogonal(count: int, features: Callable[[slice], Floats], *, fit_rows: Bools) -> Components:
    """Features turned so that they are uncorrelated over `fit_rows`, centred, of VARIANCE together; largest first.

    features : gives float32 [rows, k] of a slice of `count` rows
    """
    made = np.vstack(list(map_chunks(count, features)))
    fitted = made[fit_rows].astype(np.float64)
    mean = fitted.mean(axis=0)
    energy, axes = np.linalg.eigh((fitted - mean).T @ (fitted - mean))
    energy, axes = np.maximum(energy[::-1], 0), axes[:, ::-1]
    scale = (VARIANCE * len(fitted) / max(energy.sum(), 1e-12)) ** 0.5
    turned = (axes * scale).astype(np.float32)
    made -= mean.astype(np.float32)
    return Components(np.asarray(made @ turned), energy * scale**2, 1.0)


def pair_components(prompts: Floats, completions: Floats, form: Floats, *, fit_rows: Bools) -> Components:
    """Principal components of [p, c, |p - c|, p * c, form], of VARIANCE together."""
    found = principal_components(prompts, completions, form, fit_rows=fit_rows)
    scale = (VARIANCE * max(int(fit_rows.sum()), 1) / max(float(found.energy.sum()), 1e-12)) ** 0.5
    return Components(np.asarray(found.values * np.float32(scale)), found.energy * scale**2, found.explained)


def form_components(form: Floats, *, fit_rows: Bools) -> Components:
    """Form features, standardised, as components."""
    clean = np.nan_to_num(form, posinf=0, neginf=0)
    spread = clean[fit_rows].std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    return orthogonal(len(form), lambda part: np.asarray(clean[part] * scale, dtype=np.float32), fit_rows=fit_rows)


def _standard(vectors: Floats, fit_rows: Bools) -> Floats:
    """Each dimension of mean 0 and deviation 1 over `fit_rows`: a few dimensions of a hidden state dwarf all others."""
    clean = np.nan_to_num(vectors, posinf=0, neginf=0)
    spread = clean[fit_rows].std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    return np.asarray((clean - clean[fit_rows].mean(axis=0)) * scale, dtype=np.float32)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-9), dtype=np.float32)
