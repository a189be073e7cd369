"""Which rows a person should look at next: those whose labels are likely wrong, and not ten times the same mistake.

A review is worth most where it is likely to change a label, and where what it shows is not already said by another row of the
queue. So rows are taken one after the other, the largest gain first, and each that is taken lowers the gain of rows like it:

    gain(row) = P(label wrong) x (1 - largest similarity to a row that was taken before)

The first rows are drawn at random within each given class: they alone measure the labels, and they show what no model suspects.
"""

import numpy as np
from numpy.typing import NDArray

from ktodata.signals.views import Rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

POOL = 4096  # rows of the largest P(wrong) among which the queue is made


def queue(rows: Rows, p_wrong: Floats, open_rows: Bools, count: int) -> Ints:
    """Places of the next `count` rows to review, best first: int [<= count].

    p_wrong : float [N], P(the given label is wrong), in [0, 1]
    open_rows : bool [N], rows that may be asked about
    """
    places = np.flatnonzero(open_rows)
    places = places[np.argsort(-p_wrong[places], kind="stable")][: max(POOL, count)]
    nearest = np.zeros(len(places))
    gain = p_wrong[places].astype(np.float64)
    taken: list[int] = []
    left = np.ones(len(places), bool)
    for _ in range(min(count, len(places))):
        best = int(np.flatnonzero(left)[np.argmax(gain[left])])
        taken.append(best)
        left[best] = False
        nearest = np.maximum(nearest, _similarity(rows, places, places[best]))
        gain = p_wrong[places] * (1 - nearest)
    return np.asarray(places[taken], dtype=np.int64)


def stratified(labels: Bools, open_rows: Bools, count: int, *, seed: int) -> Ints:
    """Places of `count` rows drawn at random, half of each given class while it lasts: int [<= count]."""
    rng = np.random.default_rng([seed, 0x57A7])
    sides = [rng.permutation(np.flatnonzero(open_rows & (labels == given))) for given in (False, True)]
    half = min(count // 2, len(sides[0]))
    ups = sides[1][: count - half]
    return np.concatenate([sides[0][: count - len(ups)], ups])


def _similarity(rows: Rows, places: Ints, one: int) -> Floats:
    """How alike the answers are, topic taken away: in [0, 1], 1 for a row with itself."""
    parts = rows.topic_free
    alike = sum((part[places] @ part[one] for part in parts[1:]), start=parts[0][places] @ parts[0][one]) / len(parts)
    near = np.exp(rows.prompts[places] @ rows.prompts[one] - 1)
    similarity: Floats = np.clip(np.asarray(alike * near, float), 0, 1)
    return similarity
