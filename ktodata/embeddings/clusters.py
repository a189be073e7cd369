"""Clusters of prompts: how many, which, and what to call them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.chunks import one_thread
from ktodata.embeddings.vectors import of_unit_length

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

GRID = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
# a cluster of fewer prompts than this, on average, says nothing about a region
PROMPTS_PER_CLUSTER = 10
TIE = 0.01
FIT_SAMPLE, SCORE_SAMPLE = 4_000, 2_000
MINI_BATCH_FROM = 20_000
NAME_SAMPLE, NAME_CHARS = 2_000, 2_000


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
    silhouettes = {} if clusters else _silhouettes(vectors, seed)
    best = max(silhouettes.values(), default=0)
    count = clusters or max((k for k, score in silhouettes.items() if score >= best - TIE), default=1)
    centres = _fit_kmeans(vectors, weights, min(count, len(vectors)), seed)
    return _by_size(vectors, weights, centres, mean, silhouettes)


def cluster_as_tight(vectors: Floats, weights: Floats, model: Clusters, tight: float, *, seed: int) -> Clusters:
    """The fewest clusters that are as tight as `tight` (see `tightness`), seen from the mean of `model`; numbered by weight."""
    vectors = _centred(vectors, model.mean)
    for k in (1, *GRID):
        candidate = _by_size(vectors, weights, _fit_kmeans(vectors, weights, min(k, len(vectors)), seed), model.mean, {})
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
    return of_unit_length(vectors - mean, shortest=1e-4)  # what is left of texts that are all alike is rounding, not direction


def _nearest_centre(vectors: Floats, centres: Floats) -> Ints:
    half_square = (centres**2).sum(axis=1) / 2
    with one_thread():
        parts = [(vectors[block] @ centres.T - half_square).argmax(axis=1) for block in _vector_blocks(len(vectors))]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def exemplars(vectors: Floats, clusters: Clusters, count: int = 3) -> list[list[int]]:
    """For each cluster the numbers of the texts nearest to its centre, nearest first."""
    of = clusters.of_text
    vectors = _centred(vectors, clusters.mean)
    parts = [((vectors[block] - clusters.centres[of[block]]) ** 2).sum(axis=1) for block in _vector_blocks(len(vectors))]
    distance = np.concatenate(parts)
    order = np.lexsort((distance, of))
    starts = np.searchsorted(of[order], np.arange(len(clusters.centres)))
    ends = np.searchsorted(of[order], np.arange(len(clusters.centres)), side="right")
    return [order[start : min(start + count, end)].tolist() for start, end in zip(starts, ends, strict=True)]


def cluster_terms(texts: Sequence[str], of_text: Ints, *, count: int = 6, seed: int = 0) -> list[list[str]]:
    """For each cluster the terms (one or two words) that set it apart, strongest first, by class-based TF-IDF.

    Weight of term t in cluster c: tf(t, c) log(1 + A / f(t)), tf being its share of the cluster's terms, f its number in all
    clusters, A the mean number of terms per cluster (Grootendorst 2022, arXiv:2203.05794). Each cluster is read from a sample.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    total = int(of_text.max()) + 1
    rng = np.random.default_rng(seed)
    members = [_draw_sample(np.flatnonzero(of_text == k), NAME_SAMPLE, rng) for k in range(total)]
    read = np.concatenate(members)
    owner = np.repeat(np.arange(total), [len(rows) for rows in members])
    counter = CountVectorizer(
        stop_words="english",
        ngram_range=(1, 2),
        token_pattern=r"(?u)\b[^\W\d_][\w'-]+\b",
        min_df=2 if len(read) >= 50 else 1,
        max_features=20_000,
    )
    try:
        counts = counter.fit_transform([texts[i][:NAME_CHARS] for i in read])
    except ValueError:  # no word at all: numbers, symbols, a script without spaces
        return [[] for _ in range(total)]
    per_cluster = np.stack([np.asarray(counts[owner == k].sum(axis=0)).ravel() for k in range(total)])
    share = per_cluster / np.maximum(per_cluster.sum(axis=1, keepdims=True), 1)
    weight = share * np.log1p(per_cluster.sum() / total / per_cluster.sum(axis=0))
    vocabulary = counter.get_feature_names_out()
    return [_best_terms(vocabulary, row, count) for row in weight]


def cluster_names(terms: Sequence[Sequence[str]], examples: Sequence[str]) -> list[str]:
    """A short name for each cluster: its first three terms, or the beginning of its exemplar; no name twice."""
    names = [", ".join(t[:3]) or f"like {example[:40]!r}" for t, example in zip(terms, examples, strict=True)]
    counts: dict[str, int] = {}
    for i, name in enumerate(names):
        counts[name] = counts.get(name, 0) + 1
        names[i] = name if counts[name] == 1 else f"{name} ({counts[name]})"
    return names


def effective_number(sizes: npt.ArrayLike) -> float:
    """exp(entropy): how many clusters of equal size would be as varied; from 1 to the number of clusters."""
    weights = np.asarray(sizes, float)
    share = weights[weights > 0] / weights.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def effective_number_interval(of_text: Ints, weights: Floats, *, seed: int, draws: int = 200) -> tuple[float, float]:
    """The middle 95 % of the effective number when the texts are drawn again with replacement."""
    rng = np.random.default_rng(seed)
    count, total = len(of_text), int(of_text.max()) + 1
    values = []
    for _ in range(draws):
        drawn = rng.integers(0, count, count)
        values.append(effective_number(np.bincount(of_text[drawn], weights=weights[drawn], minlength=total)))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _silhouettes(vectors: Floats, seed: int) -> dict[int, float]:
    from sklearn.metrics import pairwise_distances, silhouette_score

    rng = np.random.default_rng(seed)
    sample = vectors[_draw_sample(np.arange(len(vectors)), FIT_SAMPLE, rng)]
    scored = sample[_draw_sample(np.arange(len(sample)), SCORE_SAMPLE, rng)]
    with one_thread():
        apart = pairwise_distances(scored)  # once for all of them
    np.fill_diagonal(apart, 0)
    scores = {}
    for k in GRID:
        if k * PROMPTS_PER_CLUSTER > len(vectors):
            break
        of_text = _nearest_centre(scored, _fit_kmeans(sample, np.ones(len(sample)), k, seed))
        if len(np.unique(of_text)) > 1:
            with one_thread():
                scores[k] = round(float(silhouette_score(apart, of_text, metric="precomputed")), 4)
    return scores


def _fit_kmeans(vectors: Floats, weights: Floats, k: int, seed: int) -> Floats:
    """Centres by k-means; the mini-batch form when there is much to go through."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    many = len(vectors) > MINI_BATCH_FROM
    model = (
        MiniBatchKMeans(k, batch_size=4096, n_init=3, max_iter=50, random_state=seed)
        if many
        else KMeans(k, n_init=3, random_state=seed)
    )
    # one thread: the order of the sums, and with it the last bit of the centres, must not depend on the machine
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters: empty ones are left out
        centres: Floats = model.fit(vectors, sample_weight=weights).cluster_centers_
    return centres


def _draw_sample(rows: Ints, size: int, rng: np.random.Generator) -> Ints:
    return rows if len(rows) <= size else np.sort(rng.choice(rows, size, replace=False))


def _vector_blocks(length: int, size: int = 16_384) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _best_terms(vocabulary: npt.NDArray[np.str_], weight: Floats, count: int) -> list[str]:
    """The strongest terms, without those whose words a stronger term holds already."""
    best: list[str] = []
    covered: set[str] = set()
    for i in np.lexsort((vocabulary, -weight)):
        if weight[i] <= 0 or len(best) == count:
            break
        words = set(str(vocabulary[i]).split())
        if not words <= covered:
            best.append(str(vocabulary[i]))
            covered |= words
    return best
