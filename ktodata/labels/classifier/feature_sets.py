"""What a row looks like to the out-of-fold models: several feature sets that are wrong for different reasons.

    text                 the completion, in the light of its prompt
    completion_residual  the same with the topic taken away: what in the completion its prompt does not predict
    words                words and pairs of words, of prompt and completion apart
    surface_features     length and form of both, no meaning
    hidden_state         what a language model makes of the completion after its prompt, where that was computed
    prompt               the prompt alone: it ranks no rows, it only shows how far labels follow what was asked (KD047)

Whether an answer is good shows in what it does with its prompt, and a judge that dislikes a topic shows in the prompt. So a set
without the topic still sees the one where the other has learnt it from the labels.

`text` and `completion_residual` are kernels: rows are alike when their completions are, and more so when their prompts are too,
k(row, row') = c . c' x (exp(p . p' - 1) + 0.3), p and c unit vectors, averaged over several ways to make vectors of a completion:
its embedding, the words of its opening, and its parts of words (endings, figures, marks of code, words never seen before).
They are turned into components by Nystroem's method (Williams and Seeger 2001), so that one fast linear model serves all sets.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.embeddings.chunks import joined, map_chunks, one_thread, total
from ktodata.labels.classifier.features import Components, Places, Projection, fitted_rows
from ktodata.text.tfidf import part_vectors, word_vectors

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
KernelFeatureSet = Literal["text", "completion_residual", "prompt", "hidden_state"]

LANDMARKS = 1000  # rows that all others are compared with
LANDMARKS_OF_MORE = 500  # where models are fitted on a sample: it would take a third of the time, and shows little
COMPONENTS = 384
UNLIKE_PROMPTS_WEIGHT = 0.3  # weight of completions that are alike after prompts that have nothing in common
RIDGE = 1.0  # of predicting a completion's vector from its prompt's
VARIANCE = 1000.0  # of all components of a feature set together, so that one grid of penalties fits every set
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
    """`vectors` without what their prompts predict of them, at length 1: float32 [N, d]."""

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
class Repeated:
    """`distinct` vectors, float32 [n, d], each where it is repeated: [N, d]. place : int [N]"""

    distinct: Floats
    place: NDArray[np.int64]

    def __getitem__(self, rows: Places | int) -> Floats:
        return np.asarray(self.distinct[self.place[rows]])

    def __len__(self) -> int:
        return len(self.place)


@dataclass(frozen=True)
class RowFeatures:
    """Unit vectors of N rows: prompts float32 [N, d], completions and the same without their topic, each float32 [N, .].

    words : float32 [N, k], of the completions, as `word_vectors` makes them
    hidden_state : float32 [N, h], a language model's hidden states, standardised; None where there are none
    """

    prompts: Vectors
    completions: tuple[Vectors, ...]
    prompt_residual: tuple[Vectors, ...]
    words: Floats
    hidden_state: Floats | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def kernel(self, feature_set: KernelFeatureSet, rows: Places, columns: NDArray[np.int64]) -> Floats:
        """How alike `rows` and the rows `columns` are: float32 [rows, columns], largest for a row with itself."""
        return kernel_between(self.vectors_of(feature_set, rows), self.vectors_of(feature_set, columns))

    def vectors_of(self, feature_set: KernelFeatureSet, rows: Places) -> "KernelVectors":
        """What a feature set has of some rows."""
        if feature_set == "prompt":
            return KernelVectors(self.prompts[rows], None)
        if feature_set == "hidden_state":
            assert self.hidden_state is not None
            return KernelVectors(None, self.hidden_state[rows])
        parts = self.prompt_residual if feature_set == "completion_residual" else self.completions
        return KernelVectors(self.prompts[rows], np.hstack([part[rows] for part in parts]) * np.float32(len(parts) ** -0.5))


class KernelVectors(NamedTuple):
    """Unit vectors of n rows: of the prompts, and of the completions, side by side and of length 1 together."""

    prompts: Floats | None
    completions: Floats | None


def kernel_between(rows: KernelVectors, columns: KernelVectors) -> Floats:
    """How alike rows are: float32 [rows, columns]."""
    if rows.prompts is None or columns.prompts is None:
        assert rows.completions is not None and columns.completions is not None
        return np.asarray(rows.completions @ columns.completions.T)
    # rows to one prompt stand together, as a rule: it is compared once
    new = np.append(True, (rows.prompts[1:] != rows.prompts[:-1]).any(axis=1))[: len(rows.prompts)]
    kernel = rows.prompts[new] @ columns.prompts.T
    kernel -= 1
    np.exp(kernel, out=kernel)
    kernel = kernel[np.cumsum(new) - 1]
    if rows.completions is not None and columns.completions is not None:
        kernel += np.float32(UNLIKE_PROMPTS_WEIGHT)
        kernel *= rows.completions @ columns.completions.T
    return np.asarray(kernel)


def row_features(
    prompts: Floats, completions: Floats, texts: pl.Series, *, fit_rows: Bools, hidden_states: Floats | None = None
) -> RowFeatures:
    """Rows as the feature sets need them.

    prompts, completions : float32 [N, d], their embeddings; texts : the completions themselves
    hidden_states : float32 [N, h], of a language model, if they were computed
    fit_rows : bool [N], rows that words and topics are learnt from; no label is looked at
    """
    unit_prompts = Unit(prompts, _lengths(prompts))
    # in one go: half of it, finding directions, runs on one core
    with one_thread(), ThreadPoolExecutor(2) as pool:
        jobs = [(word_vectors, texts), (word_vectors, texts.str.slice(0, OPENING)), (part_vectors, texts)]
        words, *others = pool.map(lambda job: job[0](job[1], fit_rows), jobs)
    vectors = [completions, *others]
    standardised = None if hidden_states is None else _standardised(hidden_states, fit_rows)
    return RowFeatures(
        unit_prompts,
        tuple(Unit(each, _lengths(each)) for each in vectors),
        tuple(PromptResidual(each, unit_prompts, *predict_from_prompt(each, unit_prompts, fit_rows)) for each in vectors),
        words,
        None if standardised is None else np.asarray(standardised / _lengths(standardised)),
    )


def predict_from_prompt(vectors: Floats, prompts: Vectors, fit_rows: Bools) -> tuple[Floats, Floats]:
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


def kernel_components(rows: RowFeatures, feature_set: KernelFeatureSet, *, fit_rows: Bools) -> Components:
    """The leading components of a feature set's kernel, principal on `fit_rows`; the others are only projected."""
    chosen = np.flatnonzero(fit_rows)
    if not len(chosen):
        return Components(np.zeros((len(rows), 1), np.float32), np.zeros(1))
    count = LANDMARKS if fitted_rows(fit_rows) is None else LANDMARKS_OF_MORE
    landmarks = np.sort(np.random.default_rng(0x5EED).permutation(chosen)[:count])
    landmark_vectors = rows.vectors_of(feature_set, landmarks)
    with one_thread():
        energy, axes = np.linalg.eigh(kernel_between(landmark_vectors, landmark_vectors).astype(np.float64))
    leading = np.flatnonzero(energy > 1e-4 * max(energy[-1], 1e-12))[::-1][:COMPONENTS]
    towards = (axes[:, leading] / np.sqrt(energy[leading])).astype(np.float32)

    def features(part: Places) -> Floats:
        return kernel_between(rows.vectors_of(feature_set, part), landmark_vectors)

    return orthogonal(len(rows), features, towards, fit_rows=fit_rows)


def orthogonal(count: int, features: Callable[[Places], Floats], towards: Floats, *, fit_rows: Bools) -> Components:
    """Features turned so that they are uncorrelated over `fit_rows`, centred, of VARIANCE together; largest first.

    features : gives float32 [rows, m] of some of `count` rows
    towards : float32 [m, k], what of them is wanted
    """
    sample = fitted_rows(fit_rows)
    used = fit_rows if sample is None else np.ones(len(sample), bool)
    projected = joined(len(used), lambda part: features(part if sample is None else sample[part]) @ towards)
    mean = total(map_chunks(len(used), lambda part: projected[part][used[part]].sum(axis=0, dtype=np.float64))) / used.sum()

    def second_moment(part: slice) -> NDArray[np.float64]:
        centred = projected[part][used[part]] - mean
        return np.asarray(centred.T @ centred)

    moment = total(map_chunks(len(used), second_moment))
    with one_thread():
        energy, axes = np.linalg.eigh(moment)
    energy, axes = np.maximum(energy[::-1], 0), axes[:, ::-1]
    scale = (VARIANCE * used.sum() / max(energy.sum(), 1e-12)) ** 0.5
    turned, centre = (axes * scale).astype(np.float32), mean.astype(np.float32)
    values = joined(len(used), lambda part: (projected[part] - centre) @ turned)
    return Components(values, energy * scale**2, sample, Projection(features, towards @ turned, -centre @ turned))


def linear_components(*vectors: Vectors, fit_rows: Bools) -> Components:
    """Vectors side by side, float32 [N, .] each, turned into components."""
    width = sum(each[:0].shape[1] for each in vectors)
    return orthogonal(
        len(fit_rows),
        lambda part: np.hstack([each[part] for each in vectors]),
        np.eye(width, dtype=np.float32),
        fit_rows=fit_rows,
    )


def surface_components(surface: Floats, *, fit_rows: Bools) -> Components:
    """Surface features, standardised, as components."""
    return linear_components(_standardised(surface, fit_rows), fit_rows=fit_rows)


def of_distinct(texts: pl.Series, fit_rows: Bools, vectors: Callable[[pl.Series, Bools], Floats]) -> Repeated:
    """`word_vectors` or `part_vectors` of texts that repeat, as prompts do: each is looked at once. float32 [N, k]"""
    distinct, first, place = np.unique(texts.hash().to_numpy(), return_index=True, return_inverse=True)
    fitted = np.bincount(place[fit_rows], minlength=len(distinct)) > 0
    return Repeated(vectors(texts.gather(first), fitted), place)


def _standardised(vectors: Floats, fit_rows: Bools) -> Floats:
    """Each column of mean 0 and deviation 1 over `fit_rows`; one that does not vary is 0. Some columns dwarf all others else."""
    clean = np.nan_to_num(vectors, posinf=0, neginf=0)
    spread = clean[fit_rows].std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    mean = clean[fit_rows].mean(axis=0) if fit_rows.any() else 0.0
    return np.asarray((clean - mean) * scale, dtype=np.float32)


def _lengths(vectors: Floats) -> Floats:
    """Length of each row, to divide by: infinite for zero."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors, dtype=np.float32))[..., None]
    return np.asarray(np.where(length > 1e-9, length, np.inf), dtype=np.float32)
