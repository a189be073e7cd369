"""Folds that never put one prompt on both sides, with about the same share of each label in each."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def group_folds(groups: NDArray[np.integer], labels: NDArray[np.bool_], *, folds: int, seed: int) -> Ints:
    """The fold (0 .. folds - 1) of each of N rows; rows of one group share it.

    groups : int [N], any codes
    labels : bool [N]

    Groups of equal composition (so many desirable, so many undesirable rows) are interchangeable. Each such kind is shuffled and
    dealt evenly; what is left over goes, largest kind first, to the folds that lack it most. The loop is over kinds, not over
    rows or groups, so a million prompts take about a second. No fold is empty while there are at least as many groups as folds.
    """
    _, group = np.unique(groups, return_inverse=True)
    composition = np.stack([np.bincount(group, weights=labels == side) for side in (False, True)], axis=1).astype(np.int64)
    kinds, kind_of_group = np.unique(composition, axis=0, return_inverse=True)
    total = np.maximum(composition.sum(axis=0), 1)
    shuffled = np.random.default_rng(seed).permutation(len(composition))
    by_kind = shuffled[np.argsort(kind_of_group.ravel()[shuffled], kind="stable")]
    ends = np.cumsum(np.bincount(kind_of_group.ravel(), minlength=len(kinds)))
    fold_of_group = np.empty(len(composition), np.int64)
    load = np.zeros((folds, 2))
    for kind in np.lexsort((kinds[:, 0], kinds.sum(axis=1)))[::-1]:
        members = by_kind[ends[kind - 1] if kind else 0 : ends[kind]]
        rounds = len(members) // folds
        fold_of_group[members[: rounds * folds]] = np.tile(np.arange(folds), rounds)
        load += rounds * kinds[kind]
        for member in members[rounds * folds :]:
            # least growth of the squared share of each label; an empty fold costs nothing and is taken first
            fold = np.lexsort((load.sum(axis=1), (load * kinds[kind] / total**2).sum(axis=1)))[0]
            fold_of_group[member] = fold
            load[fold] += kinds[kind]
    return np.asarray(fold_of_group[group.ravel()])
