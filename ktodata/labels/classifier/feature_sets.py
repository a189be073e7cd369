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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.embeddings.chunks import joined, map_chunks, one_thread, total
from ktodata.labels.classifier.features import Components, Places, Projection, fitted_rows, principal_components
from ktodata.text.tfidf import word_vectors

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
KernelView = Literal["text", "answer", "prompt", "reading"]

LANDMARKS = 1000  # rows that all others are compared with
COMPONENTS = 384
ALONE = 0.3  # weight of completions that are alike after prompts that have nothing in common
RIDGE = 1.0  # of foretelling a completion's vector from its prompt's
VARIANCE = 1000.0  # of all components of a view together, so that one grid of penalties fits every view
OPENING = 300  # characters; how a completion begins says most about what it does


class Vectors(Protocol):
    """float32 [N, d], of which any rows can be asked for."""

    def __getitem__(self, rows: Any, /) -> Any: ...

    def __len__(self) -> int: ...


# made when rows of them are asked for, as copies of a million would fill the memory


@dataclass(frozen=True)
class Unit:
    """`vectors` at length 1: float32 [N, d]; zero stays zero. lengths : float32 [N, 1], infinite for zero."""

    vectors: Floats
    lengths: Floats

    def __getitem__(self, rows: Places | int) -> Floats:
        return np.asarray(self.vectors[rows] / self.lengths[rows])

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class PromptResidual:
    """`vectors` without what their prompts foretell of them, at length 1: float32 [N, d]."""

    vectors: Floats
    prompts: Unit
    mean: Floats
    weights: Floats

    def __getitem__(self, rows: Places | int) -> Floats:
        left = self.vectors[rows] - self.mean - self.prompts[rows] @ self.weights
        return np.asarray(left / _lengths(left))

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class RowFeatures:
    """Unit vectors of N rows: prompts float32 [N, d], completions and the same without their topic, each float32 [N, .].

    reading : float32 [N, h], a language model's hidden states, standardised; None where there are none
    """

    prompts: Vectors
    completions: tuple[Vectors, ...]
    prompt_residual: tuple[Vectors, ...]
    reading: Floats | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def kernel(self, view: KernelView, rows: Places, others: NDArray[np.int64]) -> Floats:
        """How alike `rows` and `others` are: float32 [rows, others], largest for a row with itself."""
        return alike(self.seen(view, rows), self.seen(view, others))

    def seen(self, view: KernelView, rows: Places) -> "Seen":
        """What a view sees of some rows."""
        if view == "prompt":
            return Seen(self.prompts[rows], None)
        if view == "reading":
            assert self.reading is not None
            return Seen(None, self.reading[rows])
        parts = self.prompt_residual if view == "answer" else self.completions
        return Seen(self.prompts[rows], np.hstack([part[rows] for part in parts]) * np.float32(len(parts) ** -0.5))


class Seen(NamedTuple):
    """Unit vectors of n rows: of the prompts, and of the completions, side by side and of length 1 together."""

    prompts: Floats | None
    completions: Floats | None


def alike(some: Seen, others: Seen) -> Floats:
    """The kernel between rows: float32 [some, others]."""
    if some.prompts is None or others.prompts is None:
        assert some.completions is not None and others.completions is not None
        return np.asarray(some.completions @ others.completions.T)
    # rows to one prompt stand together, as a rule: it is compared once
    new = np.append(True, (some.prompts[1:] != some.prompts[:-1]).any(axis=1))[: len(some.prompts)]
    near = some.prompts[new] @ others.prompts.T
    near -= 1
    np.exp(near, out=near)
    near = near[np.cumsum(new) - 1]
    if some.completions is not None and others.completions is not None:
        near += np.float32(ALONE)
        near *= some.completions @ others.completions.T
    return np.asarray(near)


def row_features(
    prompts: Floats, completions: Floats, texts: pl.Series, *, fit_rows: Bools, hidden_states: Floats | None = None
) -> RowFeatures:
    """Rows as the views need them.

    prompts, completions : float32 [N, d], their embeddings; texts : the completions themselves
    hidden_states : float32 [N, h], of a language model, if they were computed
    fit_rows : bool [N], rows that words and topics are learnt from; no label is looked at
    """
    p = Unit(prompts, _lengths(prompts))
    # in one go: half of it, finding directions, runs on one core
    with one_thread(), ThreadPoolExecutor(2) as pool:
        made = [completions, *pool.map(lambda some: word_vectors(some, fit_rows), (texts.str.slice(0, OPENING), texts))]
    prompt_residual = tuple(PromptResidual(one, p, *_foretold(one, p, fit_rows)) for one in made)
    reading = None if hidden_states is None else _standard(hidden_states, fit_rows)
    return RowFeatures(
        p,
        tuple(Unit(one, _lengths(one)) for one in made),
        prompt_residual,
        None if reading is None else np.asarray(reading / _lengths(reading)),
    )


def _foretold(vectors: Floats, prompts: Vectors, fit_rows: Bools) -> tuple[Floats, Floats]:
    """Mean float32 [d'] and weights float32 [d, d'] of a ridge regression of `vectors` on the prompts' vectors."""
    rows = fitted_rows(fit_rows)
    rows = np.flatnonzero(fit_rows) if rows is None else rows

    width, height = prompts[:0].shape[1], vectors.shape[1]

    def moments(part: slice) -> NDArray[np.float64]:
        p, v = prompts[rows[part]].astype(np.float64), vectors[rows[part]].astype(np.float64)
        return np.vstack([p.T @ np.hstack([p, v]), np.hstack([p, v]).sum(axis=0)])

    summed = total(map_chunks(len(rows), moments)) if len(rows) else np.zeros((width + 1, width + height))
    mean = summed[-1, width:] / max(len(rows), 1)
    with one_thread():
        weights = np.linalg.solve(
            summed[:-1, :width] + RIDGE * np.eye(width), summed[:-1, width:] - summed[-1, :width, None] * mean
        )
    return mean.astype(np.float32), weights.astype(np.float32)


def kernel_components(rows: RowFeatures, view: KernelView, *, fit_rows: Bools, components: int = COMPONENTS) -> Components:
    """The leading components of a view's kernel, found on `fit_rows`; the others are only projected."""
    chosen = np.flatnonzero(fit_rows)
    if not len(chosen):
        return Components(np.zeros((len(rows), 1), np.float32), np.zeros(1), 0.0)
    landmarks = np.sort(np.random.default_rng(0x5EED).permutation(chosen)[:LANDMARKS])
    stand = rows.seen(view, landmarks)
    with one_thread():
        energy, axes = np.linalg.eigh(alike(stand, stand).astype(np.float64))
    kept = np.flatnonzero(energy > 1e-4 * max(energy[-1], 1e-12))[::-1][:components]
    towards = (axes[:, kept] / np.sqrt(energy[kept])).astype(np.float32)
    return orthogonal(len(rows), lambda part: alike(rows.seen(view, part), stand), towards, fit_rows=fit_rows)


def orthogonal(count: int, features: Callable[[Places], Floats], towards: Floats, *, fit_rows: Bools) -> Components:
    """Features turned so that they are uncorrelated over `fit_rows`, centred, of VARIANCE together; largest first.

    features : gives float32 [rows, m] of some of `count` rows
    towards : float32 [m, k], what of them is wanted
    """
    sample = fitted_rows(fit_rows)
    used = fit_rows if sample is None else np.ones(len(sample), bool)
    made = joined(len(used), lambda part: features(part if sample is None else sample[part]) @ towards)
    mean = total(map_chunks(len(used), lambda part: made[part][used[part]].sum(axis=0, dtype=np.float64))) / used.sum()

    def second_moment(part: slice) -> NDArray[np.float64]:
        centred = made[part][used[part]] - mean
        return np.asarray(centred.T @ centred)

    moment = total(map_chunks(len(used), second_moment))
    with one_thread():
        energy, axes = np.linalg.eigh(moment)
    energy, axes = np.maximum(energy[::-1], 0), axes[:, ::-1]
    scale = (VARIANCE * used.sum() / max(energy.sum(), 1e-12)) ** 0.5
    turned, centre = (axes * scale).astype(np.float32), mean.astype(np.float32)
    values = joined(len(used), lambda part: (made[part] - centre) @ turned)
    return Components(values, energy * scale**2, 1.0, sample, Projection(features, towards @ turned, -centre @ turned))


def pair_components(prompts: Floats, completions: Floats, form: Floats, *, fit_rows: Bools) -> Components:
    """Principal components of [p, c, |p - c|, p * c, form], of VARIANCE together."""
    found = principal_components(prompts, completions, form, fit_rows=fit_rows)
    count = len(found.values) if found.rows is not None else int(fit_rows.sum())
    scale = np.float32((VARIANCE * max(count, 1) / max(float(found.energy.sum()), 1e-12)) ** 0.5)
    assert found.projection is not None
    projection = replace(found.projection, axes=found.projection.axes * scale, shift=found.projection.shift * scale)
    return replace(found, values=found.values * scale, energy=found.energy * float(scale) ** 2, projection=projection)


def form_components(form: Floats, *, fit_rows: Bools) -> Components:
    """Form features, standardised, as components."""
    return orthogonal(
        len(form), _standard(form, fit_rows).__getitem__, np.eye(form.shape[1], dtype=np.float32), fit_rows=fit_rows
    )


def _standard(vectors: Floats, fit_rows: Bools) -> Floats:
    """Each column of mean 0 and deviation 1 over `fit_rows`; one that does not vary is 0. Some columns dwarf all others else."""
    clean = np.nan_to_num(vectors, posinf=0, neginf=0)
    spread = clean[fit_rows].std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    mean = clean[fit_rows].mean(axis=0) if fit_rows.any() else 0.0
    return np.asarray((clean - mean) * scale, dtype=np.float32)


def _lengths(vectors: Floats) -> Floats:
    """Length of each row, to divide by: infinite for zero."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return np.asarray(np.where(length > 1e-9, length, np.inf), dtype=np.float32)
