"""A flat map of prompts: near on the map means near in meaning; far on it means little."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.chunks import one_thread

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

MAP_PROMPTS = 2_000
NEIGHBOURS = 10
REPELLING = 400  # points that a pass looks at
EARLY_PASSES, PASSES = 50, 150
EXAGGERATION = 12  # of the neighbours' pull, early


def map_sample(of_text: Ints, *, seed: int, size: int = MAP_PROMPTS) -> Ints:
    """Numbers of at most `size` texts, each cluster in proportion, but with at least one text each where `size` allows it."""
    if len(of_text) <= size:
        return np.arange(len(of_text))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(of_text))
    order = shuffled[np.argsort(of_text[shuffled], kind="stable")]
    counts = np.bincount(of_text)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    # the r-th of n texts stands at (r + 1/2) / n; taking the smallest of these takes the same share of every cluster
    place = np.where(rank == 0, -1.0, (rank + 0.5) / counts[of_text[order]])
    return np.sort(order[np.argsort(place, kind="stable")[:size]])


def map_prompts(vectors: Floats, *, seed: int) -> Floats:
    """[n, 2] coordinates: PCA to 50 dimensions, then `_neighbour_layout`; PCA alone under 8 prompts."""
    count = len(vectors)
    with one_thread():  # the picture must not depend on the machine's cores
        left, size, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        small = left[:, :50] * size[:50]
        if count < 8 or size[0] < 1e-3 or small.shape[1] < 2:  # too few for neighbours, or all alike
            flat = np.zeros((count, 2))
            flat[:, : min(2, small.shape[1])] = small[:, :2]
            return flat
        return _neighbour_layout(small.astype(np.float32), np.random.default_rng(seed))


def _neighbour_layout(points: Floats, rng: np.random.Generator) -> Floats:
    """t-SNE (van der Maaten and Hinton 2008) whose neighbours pull alike, and of whose repulsion each pass sees a sample.

    It starts from PCA (Kobak and Berens 2019). As trustworthy as scikit-learn's in a fifth of its time (tests/benchmarks/LOG.md).
    """
    place = points[:, :2] / points[:, 0].std() * np.float32(1e-4)
    pulls, speed, gain = _Pulls.of(points), np.zeros_like(place), np.ones_like(place)
    for number in range(EARLY_PASSES + PASSES):
        early = number < EARLY_PASSES
        step = max(len(place) / (EXAGGERATION if early else 4), 50)
        slope = 4 * (pulls.on(place) * (EXAGGERATION if early else 1) - _push(place, rng))
        gain = np.where((speed > 0) != (slope > 0), gain + 0.2, gain * 0.8).clip(0.01).astype(np.float32)
        speed = (0.5 if early else 0.8) * speed - np.float32(step) * gain * slope
        place = place + speed
    return np.asarray(place)


@dataclass(frozen=True)
class _Pulls:
    """Pairs of neighbours, each both ways, in order of the first. starts : where each point's pairs begin"""

    first: Ints
    second: Ints
    starts: Ints

    @classmethod
    def of(cls, points: Floats) -> "_Pulls":
        square = (points**2).sum(axis=1)
        apart = square[:, None] + square - 2 * points @ points.T
        np.fill_diagonal(apart, np.inf)
        count = min(NEIGHBOURS, len(points) - 1)
        near = np.argpartition(apart, count - 1, axis=1)[:, :count]
        linked = np.zeros(apart.shape, bool)
        linked[np.arange(len(points))[:, None], near] = True
        first, second = np.nonzero(linked | linked.T)
        return cls(first, second, np.searchsorted(first, np.arange(len(points))))

    def on(self, place: Floats) -> Floats:
        """Of all pairs together 1 at no distance, less the further apart: [n, 2]."""
        apart = place[self.first] - place[self.second]
        near = 1 / (1 + (apart**2).sum(axis=1)) / np.float32(len(apart))
        return np.asarray(np.add.reduceat(near[:, None] * apart, self.starts, axis=0))


def _push(place: Floats, rng: np.random.Generator) -> Floats:
    """Of all points on each: [n, 2], by REPELLING points drawn at random."""
    some = place[rng.choice(len(place), min(REPELLING, len(place)), replace=False)]
    near = 1 / ((1 + (place**2).sum(axis=1))[:, None] + (some**2).sum(axis=1) - 2 * place @ some.T)
    whole = near.sum() - len(some)  # a point does not repel itself
    near *= near
    return np.asarray((near.sum(axis=1)[:, None] * place - near @ some) / whole)
