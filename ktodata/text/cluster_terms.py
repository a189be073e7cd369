"""What to call clusters of texts: the terms that set each apart."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ktodata.embeddings.clusters import draw_sample
from ktodata.text.tfidf import counts, terms_in, vocabulary

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

NAME_SAMPLE, NAME_CHARS = 2_000, 2_000
WORD = r"\b[^\W\d_][\w'-]+\b"


def cluster_terms(texts: Sequence[str], of_text: Ints, *, count: int = 6, seed: int = 0) -> list[list[str]]:
    """For each cluster the terms (one or two words) that set it apart, strongest first, by class-based TF-IDF.

    Weight of term t in cluster c: tf(t, c) log(1 + A / f(t)), tf being its share of the cluster's terms, f its number in all
    clusters, A the mean number of terms per cluster (Grootendorst 2022, arXiv:2203.05794); times the share of the cluster's texts
    with t that is beyond what other clusters' texts have: an instruction that all prompts begin with names none of them. Each
    cluster is read from a sample.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    total = int(of_text.max()) + 1
    rng = np.random.default_rng(seed)
    members = [draw_sample(np.flatnonzero(of_text == k), NAME_SAMPLE, rng) for k in range(total)]
    read = pl.Series([texts[i][:NAME_CHARS] for i in np.concatenate(members)], dtype=pl.String)
    words = read.str.to_lowercase().str.extract_all(WORD).list.eval(pl.element().filter(~pl.element().is_in(ENGLISH_STOP_WORDS)))
    terms = terms_in(words)
    shared = vocabulary(terms, in_texts_at_least=2 if len(read) >= 50 else 1)
    table = counts(terms, shared, len(read))
    ends = np.cumsum([0, *map(len, members)])
    per_cluster, texts_with = (_sums(part, ends) for part in (table, table > 0))
    share = per_cluster / np.maximum(per_cluster.sum(axis=1, keepdims=True), 1)
    weight = share * np.log1p(per_cluster.sum() / total / per_cluster.sum(axis=0)) * _beyond_others(texts_with, np.diff(ends))
    letters = shared.letters.to_numpy()
    return [_best_terms(letters, row, count) for row in weight]


def cluster_names(terms: Sequence[Sequence[str]], examples: Sequence[str]) -> list[str]:
    """A short name for each cluster: its first three terms, or the beginning of its exemplar; no name twice."""
    names = [", ".join(t[:3]) or f"like {example[:40]!r}" for t, example in zip(terms, examples, strict=True)]
    times: dict[str, int] = {}
    for i, name in enumerate(names):
        times[name] = times.get(name, 0) + 1
        names[i] = name if times[name] == 1 else f"{name} ({times[name]})"
    return names


def _sums(table: Any, ends: Ints) -> Floats:
    """The sums of a sparse table's rows from each end to the next."""
    return np.stack([table[start:end].sum(axis=0) for start, end in pairwise(ends)]).astype(float)


def _beyond_others(texts_with: Floats, texts: Ints) -> Floats:
    """Of the share of a cluster's texts with a term, the part that is over the share of all other texts; 1 if there are none.

    texts_with : [clusters, terms], texts of a cluster with a term. texts : of each cluster
    """
    own = texts_with / np.maximum(texts[:, None], 1)
    others = (texts_with.sum(axis=0) - texts_with) / np.maximum(texts.sum() - texts[:, None], 1)
    beyond: Floats = np.clip(1 - others / np.maximum(own, 1e-12), 0, None)
    return beyond


def _best_terms(vocabulary: npt.NDArray[np.str_], weight: Floats, count: int) -> list[str]:
    """The strongest terms, without those whose words a stronger term holds already."""
    best: list[str] = []
    covered: set[str] = set()
    for i in np.argsort(-weight, kind="stable"):
        if weight[i] <= 0 or len(best) == count:
            break
        words = set(str(vocabulary[i]).split())
        if not words <= covered:
            best.append(str(vocabulary[i]))
            covered |= words
    return best
