"""Clusters of prompts: how many, and which."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.chunks import one_thread
from ktodata.embeddings.vectors import without_mean

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

GRID = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
# a cluster of fewer prompts than this, on average, says nothing about a region
PROMPTS_PER_CLUSTER = 10
TIE = 0.01
TREE_SAMPLE = 2_000
MINI_BATCH_FROM = 20_000


@dataclass(frozen=True)
class Clusters:
    """Cluster of each text; the centres and the mean of all texts; the silhouette of every number of clusters that was tried."""

    of_text: Ints
    centres: Floats
    mean: Floats
    silhouettes: dict[int, float]


def cluster_texts(vectors: Floats, weights: Floats, *, clusters: int | None, seed: int) -> Clusters:
    """k-means on [n, d] unit vectors of distinct texts, weighted by their rows; cluster 0 has the largest weight.

    The mean of all texts is taken out of each vector first, or what all prompts have in common (a form of words, a role header)
    outweighs what tells them apart (Mu and Viswanath 2018, arXiv:1702.01417).
    clusters : how many; None takes, of the numbers in GRID with ten texts a cluster or more, the largest whose mean silhouette on
        a sample (Rousseeuw 1987) is within TIE of the best: where several describe the texts as well, the finest says most.
        One cluster when there are too few texts, or all are alike.
    """
    mean = vectors.mean(axis=0)
    vectors = _centred(vectors, mean)
    tree = _WardTree.of(vectors, seed)
    silhouettes = {} if clusters else _silhouettes(tree, len(vectors))
    best = max(silhouettes.values(), default=0)
    count = clusters or max((k for k, score in silhouettes.items() if score >= best - TIE), default=1)
    return _by_size(vectors, weights, _fit_kmeans(vectors, weights, tree.centres(count), seed), mean, silhouettes)


def cluster_as_tight(vectors: Floats, weights: Floats, model: Clusters, tight: float, *, seed: int) -> Clusters:
    """The fewest clusters that are as tight as `tight` (see `tightness`), seen from the mean of `model`; numbered by weight."""
    vectors = _centred(vectors, model.mean)
    tree = _WardTree.of(vectors, seed)
    for k in (1, *GRID):
        candidate = _by_size(vectors, weights, _fit_kmeans(vectors, weights, tree.centres(k), seed), model.mean, {})
        if k >= len(vectors) or _mean_cosine(vectors, weights, candidate) >= tight:
            break
    return candidate


def tightness(vectors: Floats, weights: Floats, clusters: Clusters) -> float:
    """Mean cosine between a text and the centre of its cluster, both without the mean of all; 1 when all are alike."""
    return _mean_cosine(_centred(vectors, clusters.mean), weights, clusters)


def _mean_cosine(vectors: Floats, weights: Floats, clusters: Clusters) -> float:
    length = np.maximum(np.linalg.norm(clusters.centres, axis=1, keepdims=True), 1e-12)
    centres = (clusters.centres / length)[clusters.of_text]
    return float(np.average(np.einsum("nd,nd->n", vectors, centres), weights=weights))


def _by_size(vectors: Floats, weights: Floats, centres: Floats, mean: Floats, silhouettes: dict[int, float]) -> Clusters:
    of_text = _nearest_centre(vectors, centres)
    size = np.bincount(of_text, weights=weights, minlength=len(centres))
    by_size = np.argsort(-size, kind="stable")[: int((size > 0).sum())]
    rank = np.full(len(centres), -1)
    rank[by_size] = np.arange(len(by_size))
    return Clusters(rank[of_text], centres[by_size], mean, silhouettes)


def nearest_cluster(vectors: Floats, clusters: Clusters) -> Ints:
    """The cluster whose centre is nearest to each vector."""
    return _nearest_centre(_centred(vectors, clusters.mean), clusters.centres)


def _centred(vectors: Floats, mean: Floats) -> Floats:
    """Vectors without the mean, of length 1 again; all zero where nothing is left."""
    return without_mean(vectors, mean, shortest=1e-4)  # what is left of texts that are all alike is rounding, not direction


def _nearest_centre(vectors: Floats, centres: Floats) -> Ints:
    half_square = (centres**2).sum(axis=1) / 2
    with one_thread():
        parts = [(vectors[block] @ centres.T - half_square).argmax(axis=1) for block in _vector_blocks(len(vectors))]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def exemplars(vectors: Floats, clusters: Clusters, count: int = 3) -> list[list[int]]:
    """For each cluster the numbers of the texts nearest to its centre, nearest first."""
    of = clusters.of_text
    parts = [
        ((_centred(vectors[block], clusters.mean) - clusters.centres[of[block]]) ** 2).sum(axis=1)
        for block in _vector_blocks(len(vectors))
    ]
    distance = np.concatenate(parts)
    order = np.lexsort((distance, of))
    starts = np.searchsorted(of[order], np.arange(len(clusters.centres)))
    ends = np.searchsorted(of[order], np.arange(len(clusters.centres)), side="right")
    return [order[start : min(start + count, end)].tolist() for start, end in zip(starts, ends, strict=True)]


def effective_number(sizes: npt.ArrayLike) -> float:
    """exp(entropy): how many clusters of equal size would be as varied; from 1 to the number of clusters."""
    weights = np.asarray(sizes, float)
    share = weights[weights > 0] / weights.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def effective_number_interval(of_text: Ints, weights: Floats, *, seed: int, draws: int = 200) -> tuple[float, float]:
    """The middle 95 % of the effective number when the texts are drawn again with replacement, around that of all texts.

    Texts drawn again are less varied on average than those they are drawn from: by that much the draws are moved up.
    """
    rng = np.random.default_rng(seed)
    count, total = len(of_text), int(of_text.max()) + 1
    values = []
    for _ in range(draws):
        drawn = rng.integers(0, count, count)
        values.append(effective_number(np.bincount(of_text[drawn], weights=weights[drawn], minlength=total)))
    loss = effective_number(np.bincount(of_text, weights=weights)) - np.mean(values)
    low, high = np.quantile(values, [0.025, 0.975]) + loss
    return max(float(low), 1.0), min(float(high), float(total))


@dataclass(frozen=True)
class _WardTree:
    """Ward's clusters of a sample of vectors, of every number at once: k-means starts from them, and so needs no restarts.

    From there it ends as tight as from the best of three k-means++ starts, or tighter (docs/decisions.md).
    merges : of scipy's linkage; None: one vector. apart : float32 [n, n], distances
    """

    vectors: Floats
    apart: Floats
    merges: Floats | None

    @classmethod
    def of(cls, vectors: Floats, seed: int) -> "_WardTree":
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import squareform
        from sklearn.metrics import pairwise_distances

        sample = vectors[draw_sample(np.arange(len(vectors)), TREE_SAMPLE, np.random.default_rng(seed))]
        with one_thread():
            apart = pairwise_distances(sample)
        np.fill_diagonal(apart, 0)
        return cls(sample, apart, linkage(squareform(apart, checks=False), "ward") if len(sample) > 1 else None)

    def centres(self, count: int) -> Floats:
        """Of `count` clusters, or of fewer where fewer vectors differ: float32 [k, d]."""
        from scipy.cluster.hierarchy import fcluster

        if self.merges is None:
            return self.vectors
        cluster = fcluster(self.merges, count, "maxclust") - 1
        member = (cluster == np.arange(cluster.max() + 1)[:, None]).astype(self.vectors.dtype)
        with one_thread():
            return np.asarray(member @ self.vectors / member.sum(axis=1, keepdims=True))


def _silhouettes(tree: _WardTree, texts: int) -> dict[int, float]:
    from sklearn.metrics import silhouette_score

    scores = {}
    for k in GRID:
        if k * PROMPTS_PER_CLUSTER > texts:
            break
        start = tree.centres(k)
        of_text = _nearest_centre(tree.vectors, _fit_kmeans(tree.vectors, np.ones(len(tree.vectors)), start, seed=0))
        if len(np.unique(of_text)) > 1:
            with one_thread():
                scores[k] = round(float(silhouette_score(tree.apart, of_text, metric="precomputed")), 4)
    return scores


def _fit_kmeans(vectors: Floats, weights: Floats, start: Floats, seed: int) -> Floats:
    """Centres by k-means from `start`; the mini-batch form, which `seed` is for, when there is much to go through."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    settings = {"n_clusters": len(start), "init": start, "n_init": 1, "random_state": seed}
    many = len(vectors) > MINI_BATCH_FROM
    model = MiniBatchKMeans(**settings, batch_size=4096, max_iter=50) if many else KMeans(**settings)
    # one thread: the order of the sums, and with it the last bit of the centres, must not depend on the machine
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters: empty ones are left out
        centres: Floats = model.fit(vectors, sample_weight=weights).cluster_centers_
    return centres


def draw_sample(rows: Ints, size: int, rng: np.random.Generator) -> Ints:
    """At most `size` of the rows, in their order."""
    return rows if len(rows) <= size else np.sort(rng.choice(rows, size, replace=False))


def _vector_blocks(length: int, size: int = 16_384) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]
