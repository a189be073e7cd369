"""Regions of a reference set of prompts that the training prompts do not reach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.chunks import one_thread
from ktodata.errors import SettingError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

CALIBRATION_SAMPLE = 2_000
CALIBRATION_QUANTILE = 0.05


@dataclass(frozen=True)
class NearestPrompts:
    """The most similar training prompt of each text: cosine in [-1, 1], and its number."""

    similarity: Floats
    number: Ints


def nearest_prompts(
    vectors: Floats, training: Floats, *, groups: Ints | None = None, own_groups: Ints | None = None
) -> NearestPrompts:
    """The nearest of `training` [m, d] for each of `vectors` [n, d], all of length 1; by exact search.

    groups, own_groups : codes of the training prompts' and the vectors' groups; prompts of one's own group do not count.
    """
    similarity = np.full(len(vectors), -np.inf, np.float32)
    number = np.full(len(vectors), -1)
    with one_thread():
        for start in range(0, len(vectors), 256):
            for first in range(0, len(training), 65_536):
                block = slice(start, start + 256)
                similarities = vectors[block] @ training[first : first + 65_536].T
                if groups is not None and own_groups is not None:
                    similarities[own_groups[block][:, None] == groups[first : first + 65_536]] = -np.inf
                best = similarities.argmax(axis=1)
                value = similarities[np.arange(len(best)), best]
                better = value > similarity[block]
                similarity[block] = np.where(better, value, similarity[block])
                number[block] = np.where(better, best + first, number[block])
    return NearestPrompts(similarity, number)


def calibrate(training: Floats, groups: Ints, *, seed: int) -> float:
    """How similar two prompts must be to count as covering each other: what 95 % of the training prompts reach among themselves.

    The 5th percentile, over a sample of training prompts, of the similarity to the nearest prompt of another group.
    """
    if len(np.unique(groups)) < 20:
        raise SettingError(
            f"coverage: {len(np.unique(groups))} groups of training prompts are too few to calibrate min_similarity "
            "(20 are needed). Give it, e.g. min_similarity: 0.5."
        )
    rng = np.random.default_rng(seed)
    size = min(CALIBRATION_SAMPLE, len(training))
    sample = np.sort(rng.choice(len(training), size, replace=False))
    nearest = nearest_prompts(training[sample], training, groups=groups, own_groups=groups[sample])
    return float(np.quantile(nearest.similarity, CALIBRATION_QUANTILE))


def rows_per_reference_prompt(rows: Floats, reference: Floats) -> float:
    """Training rows per reference prompt in the median cluster that holds any; `rows`, `reference`: counts by cluster."""
    held = reference > 0
    return float(np.median(rows[held] / reference[held])) if held.any() else 1.0
