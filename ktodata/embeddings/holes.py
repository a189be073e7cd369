"""Regions of a reference set of prompts that the training prompts do not reach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.chunks import one_thread
from ktodata.errors import SettingError
from ktodata.stats import clopper_pearson

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

CALIBRATION_SAMPLE = 2_000
# Shares of the training prompts that a threshold may leave out. Where more than the first stand alone, they would set it.
LEVELS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
HIGHER_LEVELS = (0.4, 0.5)  # too many to call the rest uncovered; looked at before anything passes
SIGNIFICANT = 0.05


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


@dataclass(frozen=True)
class Cut:
    """A threshold of similarity that leaves out a share `level` of the training prompts.

    is_beyond_chance : more of the reference is below it than chance would leave there.
    low, high : 95 % interval of the share of the reference that is below it beyond `level`.
    """

    level: float
    threshold: float
    is_beyond_chance: bool
    low: float
    high: float


@dataclass(frozen=True)
class Reach:
    """How similar a reference prompt must be to a training prompt to count as covered.

    cut : what is taken. Where none is beyond chance, the lowest.
    elsewhere : beyond chance, where `cut` is not: whether the reference lacks anything cannot be said then.
    most_unseen : share of the reference that may lie farther off than training prompts from each other, and not show
    """

    cut: Cut
    elsewhere: Cut | None
    most_unseen: float


@dataclass(frozen=True)
class Uncovered:
    """Different reference prompts that are not covered, of how many; and how often they are asked, of how many askings.

    Chance deals different prompts: one that is asked a thousand times is covered, or is not, once.
    """

    prompts: int
    of: int
    traffic: int
    traffic_of: int

    @property
    def holds_much_traffic(self) -> bool:
        """Whether they are asked more than as many others would be, by more than a threshold leaves out."""
        return float(clopper_pearson(self.traffic, self.traffic_of)[0]) - self.prompts / self.of > LEVELS[0]

    def words(self) -> str:
        """How many."""
        if self.traffic_of == self.of:
            return f"{self.prompts:,} of {self.of:,} reference prompts have"
        share = f"{self.traffic / self.traffic_of:.0%} of the {self.traffic_of:,} asked"
        return f"{self.prompts:,} of {self.of:,} different reference prompts ({share}) have"


def calibrate(among: Floats, reference: Floats) -> Reach:
    """The lowest of LEVELS whose excess of the reference is not below another's by more than chance.

    among : `similarity_among_themselves` of training prompts. reference : the similarity of each different reference prompt to
    its nearest training prompt. If both are drawn alike, the number of `reference` below an order statistic of `among` is
    beta-binomial, whatever the distribution and however many training prompts stand alone.
    """
    cuts = [_cut(level, among, reference) for level in (*LEVELS, *HIGHER_LEVELS)]
    usable, beyond = cuts[: len(LEVELS)], [cut for cut in cuts if cut.is_beyond_chance]
    most_unseen = max(0.0, *(cut.high for cut in usable))
    if not beyond:
        return Reach(usable[0], None, most_unseen)
    best = next(cut for cut in usable if cut.high >= max(each.low for each in usable))
    if best.is_beyond_chance:
        return Reach(best, None, most_unseen)
    return Reach(usable[0], max(beyond, key=lambda cut: cut.low), most_unseen)


def _cut(level: float, among: Floats, reference: Floats) -> Cut:
    from scipy.stats import betabinom

    threshold = float(np.quantile(among, level))
    below, total = int((reference < threshold).sum()), len(reference)
    rank = int((among < threshold).sum()) + 1  # of the order statistic above the threshold
    p = float(betabinom.sf(below - 1, total, rank, len(among) - rank + 1)) if rank <= len(among) else 1.0
    others = len(LEVELS) + len(HIGHER_LEVELS) - 1  # half of the allowance is the first level's, the other half theirs
    low, high = ((float(bound) - level) / (1 - level) for bound in clopper_pearson(below, total))
    return Cut(level, threshold, p <= SIGNIFICANT / 2 / (1 if level == LEVELS[0] else others), low, high)


def similarity_among_themselves(training: Floats, groups: Ints, *, seed: int) -> Floats:
    """Of a sample of training prompts, the similarity to the nearest prompt of another group."""
    if len(np.unique(groups)) < 20:
        raise SettingError(
            f"coverage: {len(np.unique(groups))} groups of training prompts are too few to calibrate min_similarity "
            "(20 are needed). Give it, e.g. min_similarity: 0.5."
        )
    rng = np.random.default_rng(seed)
    size = min(CALIBRATION_SAMPLE, len(training))
    sample = np.sort(rng.choice(len(training), size, replace=False))
    nearest = nearest_prompts(training[sample], training, groups=groups, own_groups=groups[sample])
    return nearest.similarity


def rows_per_reference_prompt(rows: Floats, reference: Floats) -> float:
    """Training rows per reference prompt in the median cluster that holds any; `rows`, `reference`: counts by cluster."""
    held = reference > 0
    return float(np.median(rows[held] / reference[held])) if held.any() else 1.0
