"""Which rows a person should look at next: those that nobody can call yet, and not ten times the same question.

With p = P(label wrong), the best that training can do with a row unseen is to weigh it by what is believed of it, which leaves an
expected squared error of p (1 - p) (labels/actions.py); a review leaves none. So that is what a review is worth, not p: of a row
that is surely wrong nothing is learnt. What a review shows of rows like it need not be asked again, so rows are taken one after
the other, the largest gain first:

    gain(row) = p (1 - p) x (1 - largest similarity to a row that was taken before)

The first rows are drawn at random within each given class: they alone measure the labels, and they show what no model suspects.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ktodata.labels.classifier.feature_sets import RowFeatures

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

POOL = 4096  # rows of the largest p (1 - p) among which the queue is made
MAX_OF_THE_RARER = 2 / 3  # of a random sample


def queue(rows: RowFeatures, p_wrong: Floats, open_rows: Bools, count: int) -> Ints:
    """Places of the next `count` rows to review, best first: int [<= count].

    p_wrong : float [N], P(the given label is wrong), in [0, 1]
    open_rows : bool [N], rows that may be asked about
    """
    worth = np.asarray(p_wrong * (1 - p_wrong), np.float64)
    places = np.flatnonzero(open_rows)
    places = places[np.argsort(-worth[places], kind="stable")][: max(POOL, count)]
    parts, prompts = [part[places] for part in rows.prompt_residual], rows.prompts[places]
    nearest = np.zeros(len(places))
    gain = worth[places]
    taken: list[int] = []
    left = np.ones(len(places), bool)
    for _ in range(min(count, len(places))):
        best = int(np.flatnonzero(left)[np.argmax(gain[left])])
        taken.append(best)
        left[best] = False
        nearest = np.maximum(nearest, _similarity(parts, prompts, best))
        gain = worth[places] * (1 - nearest)
    return np.asarray(places[taken], dtype=np.int64)


def stratified(labels: Bools, open_rows: Bools, count: int, *, seed: int) -> Ints:
    """Places of `count` rows drawn at random within each given class, shared out by `shares`: int [<= count]."""
    rng = np.random.default_rng([seed, 0x57A7])
    sides = [rng.permutation(np.flatnonzero(open_rows & (labels == given))) for given in (False, True)]
    take = shares(len(sides[0]), len(sides[1]), count)
    return np.concatenate([side[:number] for side, number in zip(sides, take, strict=True)])


def shares(undesirable: int, desirable: int, count: int) -> tuple[int, int]:
    """How many of `count` rows to draw from a class of each size: (undesirable, desirable), at most what is there.

    If as many labels are wrong one way as the other, the rarer class has the higher error rate, by the ratio of the sizes, and
    the best estimate of both takes rows as the square root of that (Neyman 1934); no more than two thirds, as one side may be
    clean.
    """
    if not undesirable or not desirable:
        return min(undesirable, count), min(desirable, count)
    rarer = min(MAX_OF_THE_RARER, 1 / (1 + (min(undesirable, desirable) / max(undesirable, desirable)) ** 0.5))
    share = rarer if undesirable <= desirable else 1 - rarer
    first = min(undesirable, round(share * count))
    second = min(desirable, count - first)
    return min(undesirable, count - second), second


def _similarity(parts: Sequence[Floats], prompts: Floats, taken: int) -> Floats:
    """How alike the answers are, topic taken away: in [0, 1], 1 for a row with itself."""
    alike = sum((part @ part[taken] for part in parts[1:]), start=parts[0] @ parts[0][taken]) / len(parts)
    near = np.exp(prompts @ prompts[taken] - 1)
    similarity: Floats = np.clip(np.asarray(alike * near, float), 0, 1)
    return similarity
