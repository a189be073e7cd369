"""Do the rows that lie nearest to a row carry its label?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktodata.embeddings.chunks import map_chunks, one_thread
from ktodata.embeddings.vectors import of_unit_length
from ktodata.errors import EmptyDataError, OneClassError, ShapeError
from ktodata.feedback import LABEL_NAMES
from ktodata.labels.evidence.evidence import Evidence, from_quality
from ktodata.labels.label_rows import LabelRows

Vectors = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

ROWS_COMPARED = 20_000  # rows up to which they are compared unasked: beyond, it takes longer than all the rest
EXACT_ROWS = 10_000  # training rows up to which every pair is compared; beyond, it was a third of all that label_noise takes
PROBES = 32  # cells searched then
THINNED = 3  # a search holds at most so many times its usual number of rows: copies of one text would otherwise cost N squared
BLOCK = 128  # rows compared at once: [BLOCK, candidates] similarities a core
TILE = 64  # columns whose maximum is taken before any is sorted
FIT_ROWS_PER_CELL = 50
RECALL_SAMPLE = 200
SMOOTHING = 2.0  # neighbours' worth of base rate


@dataclass(frozen=True)
class NearestRows:
    """The nearest training rows of other groups, nearest first.

    rows : int [N, k], row numbers; -1 where there is no further one
    similarity : float32 [N, k], cosine in [-1, 1]; -inf where there is none
    """

    rows: Ints
    similarity: Vectors
    metrics: dict[str, Any]


def evidence(rows: LabelRows) -> Evidence | None:
    """`neighbour_agreement` of prompts and completions together; None where it is not asked for, too slow, or has one class."""
    if not rows.neighbours or len(rows.labels) > ROWS_COMPARED or not all(rows.trained_of_class.values()):
        return None
    return neighbour_agreement(np.hstack(rows.vectors), rows.labels, rows.groups, rows.trained, neighbours=rows.neighbours)


def neighbour_agreement(
    vectors: Vectors, labels: Bools, groups: NDArray[np.integer], train: Bools, *, neighbours: int = 10
) -> Evidence:
    """Whether the nearest training rows of other groups have the row's label: 1 all do, 0.5 as many as chance, 0 none.

    vectors : float32 [N, k]; compared by cosine, so their length does not matter
    labels : bool [N]. groups : int [N], codes of near-duplicate prompts: a row's own group is left out, or a repeat would vouch
        for itself (and a prompt for its other completions). train : bool [N], the rows that may vouch for others.

    p = (S base + sum of w y) / (S + sum of w) is the share of desirable neighbours, each weighing its similarity w in [0, 1],
    smoothed by S = SMOOTHING neighbours at the base rate. A share of 0.8 means nothing where 80 % of all rows are desirable, so
    quality is the likelihood ratio instead: sigmoid(logit p - logit base) for a desirable row, 1 minus that for an undesirable
    one. Rank it within a given class: chance is near 0.5 for both labels, but the rarer label's rows spread differently.
    nan for a vector that is zero or not finite, and where every training row is of the row's own group.

    The voting is that of SimiFeat (Zhu, Dong and Liu 2022, arXiv:2110.06283), written from the paper; weights, groups and the
    likelihood ratio are ours.
    Raises ShapeError for unequal lengths, EmptyDataError without training rows, OneClassError when all have one label.
    """
    _check_lengths_and_classes(vectors, labels, groups, train)
    nearest = nearest_rows(vectors, groups, train, neighbours=neighbours)
    base = float(labels[train].mean())
    weight = np.clip(nearest.similarity, 0, 1).astype(np.float64)
    desirable = (weight * labels[nearest.rows]).sum(axis=1)  # where there is no row, its weight is 0
    share = (SMOOTHING * base + desirable) / (SMOOTHING + weight.sum(axis=1))
    ratio = share * (1 - base) / (share * (1 - base) + (1 - share) * base)
    quality = np.where(labels, ratio, 1 - ratio)
    quality[nearest.rows[:, 0] < 0] = np.nan
    metrics = {
        "neighbours": neighbours,
        "base_rate": base,
        "rows_without_neighbours": int((nearest.rows[:, 0] < 0).sum()),
        "mean_similarity": _mean_or_none(nearest.similarity[nearest.rows >= 0]),
        **nearest.metrics,
    }
    needs = ("prompt_embedding", "completion_embedding", "label", "prompt_group")
    return Evidence("neighbour_agreement", from_quality(quality, labels), needs, metrics=metrics)


def nearest_rows(vectors: Vectors, groups: NDArray[np.integer], train: Bools, *, neighbours: int, seed: int = 0) -> NearestRows:
    """The `neighbours` nearest training rows of other groups for each of N rows, by cosine.

    Every pair is compared up to EXACT_ROWS training rows. Beyond that the training rows are put into about sqrt(N) cells
    (k-means), and the PROBES cells nearest to the row's own are searched; metrics["recall"] is the share of true neighbours that
    a sample of rows found. The same on any number of cores.
    """
    unit = of_unit_length(vectors.astype(np.float32))
    candidates = np.flatnonzero(train & unit.any(axis=1))
    _, codes = np.unique(groups, return_inverse=True)
    code = codes.reshape(-1).astype(np.int64)
    cells = _one_cell(len(unit), candidates) if len(candidates) <= EXACT_ROWS else _cells(unit, candidates, seed)
    rows, similarity = _search_cells(unit, code, cells, neighbours)
    missing = ~unit.any(axis=1)
    rows[missing], similarity[missing] = -1, -np.inf
    metrics: dict[str, Any] = {"search": "every pair", "recall": 1.0}
    if len(cells.members) > 1:
        recall = _recall(unit, code, candidates, rows, np.random.default_rng(seed))
        metrics = {"search": f"{PROBES} of {len(cells.members):,} cells", "recall": recall}
    return NearestRows(rows, similarity, metrics)


@dataclass(frozen=True)
class _Cells:
    """of_row : int [N]. members : of each cell, the training rows in it. near : of each cell, the cells to search."""

    of_row: Ints
    members: list[Ints]
    near: Ints
    most: int

    def to_search(self, cell: int) -> Ints:
        rows = np.concatenate([self.members[other] for other in self.near[cell]])
        return rows if len(rows) <= self.most else rows[np.linspace(0, len(rows) - 1, self.most).astype(np.int64)]


def _one_cell(rows: int, candidates: Ints) -> _Cells:
    return _Cells(np.zeros(rows, np.int64), [candidates], np.zeros((1, 1), np.int64), len(candidates))


def _cells(unit: Vectors, candidates: Ints, seed: int) -> _Cells:
    from sklearn.cluster import MiniBatchKMeans

    count = int(np.sqrt(len(candidates)))
    sample = np.sort(np.random.default_rng(seed).choice(candidates, min(len(candidates), FIT_ROWS_PER_CELL * count), False))
    model = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=10, init="random", random_state=seed)
    with one_thread():
        centres: Vectors = model.fit(unit[sample]).cluster_centers_.astype(np.float32)
    half_square = (centres**2).sum(axis=1) / 2
    of_row = np.concatenate(list(map_chunks(len(unit), lambda part: (unit[part] @ centres.T - half_square).argmax(axis=1))))
    order = candidates[np.argsort(of_row[candidates], kind="stable")]
    ends = np.cumsum(np.bincount(of_row[candidates], minlength=count))
    members = np.split(order, ends[:-1])
    with one_thread():
        apart = half_square[:, None] + half_square - centres @ centres.T
    near = np.argsort(apart, axis=1, kind="stable")[:, :PROBES]
    return _Cells(of_row, members, near, THINNED * PROBES * len(candidates) // count)


def _search_cells(unit: Vectors, code: Ints, cells: _Cells, neighbours: int) -> tuple[Ints, Vectors]:
    order = np.argsort(cells.of_row, kind="stable")
    parts = list(map_chunks(len(unit), _search_chunk(unit, code, cells, order, neighbours)))
    rows, similarity = np.empty((len(unit), neighbours), np.int64), np.empty((len(unit), neighbours), np.float32)
    rows[order] = np.concatenate([part[0] for part in parts])
    similarity[order] = np.concatenate([part[1] for part in parts])
    return rows, similarity


def _search_chunk(
    unit: Vectors, code: Ints, cells: _Cells, order: Ints, neighbours: int
) -> Callable[[slice], tuple[Ints, Vectors]]:
    def work(part: slice) -> tuple[Ints, Vectors]:
        queries = order[part]  # sorted by cell
        rows, similarity = [], []
        for cell in np.unique(cells.of_row[queries]):
            candidates = cells.to_search(int(cell))
            candidates = candidates[np.argsort(code[candidates], kind="stable")]
            vectors = unit[candidates]
            for block in _row_blocks(queries[cells.of_row[queries] == cell]):
                best, values = _nearest_of(unit[block] @ vectors.T, code[block], code[candidates], neighbours)
                rows.append(np.where(best >= 0, candidates[best] if len(candidates) else -1, -1))
                similarity.append(values)
        return np.concatenate(rows), np.concatenate(similarity)

    return work


def _nearest_of(similarity: Vectors, code: Ints, sorted_code: Ints, neighbours: int) -> tuple[Ints, Vectors]:
    """Columns and values of the largest entries of each line, the line's own group left out. Changes `similarity`."""
    starts, ends = (np.searchsorted(sorted_code, code, side=side) for side in ("left", "right"))
    for line, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        similarity[line, start:end] = -np.inf
    columns = _tiles_of_largest(similarity, neighbours)
    values = np.take_along_axis(similarity, columns, axis=1)
    by_value = np.lexsort((columns, -values), axis=1)[:, :neighbours]
    columns, values = np.take_along_axis(columns, by_value, axis=1), np.take_along_axis(values, by_value, axis=1)
    short = neighbours - columns.shape[1]
    if short > 0:
        columns = np.pad(columns, ((0, 0), (0, short)), constant_values=-1)
        values = np.pad(values, ((0, 0), (0, short)), constant_values=-np.inf)
    columns[np.isneginf(values)] = -1
    return columns, values


def _tiles_of_largest(similarity: Vectors, count: int) -> Ints:
    """Columns among which are the `count` largest of each line: those of the `count` tiles with the largest maximum.

    A tile that holds one of the `count` largest has a maximum no smaller than it, and fewer than `count` tiles have a larger one.
    Taking maxima is far faster than partitioning whole lines.
    """
    lines, width = similarity.shape
    tiles = width // TILE
    if tiles <= count:
        return np.broadcast_to(np.arange(width), (lines, width))
    maxima = similarity[:, : tiles * TILE].reshape(lines, tiles, TILE).max(axis=2)
    best = np.argpartition(-maxima, count - 1, axis=1)[:, :count]
    inside = (best[:, :, None] * TILE + np.arange(TILE)).reshape(lines, -1)
    rest = np.broadcast_to(np.arange(tiles * TILE, width), (lines, width - tiles * TILE))  # the incomplete tile
    columns = np.concatenate([inside, rest], axis=1)
    values = np.take_along_axis(similarity, columns, axis=1)
    largest = np.argpartition(-values, count - 1, axis=1)[:, :count]
    return np.asarray(np.take_along_axis(columns, largest, axis=1))


def _recall(unit: Vectors, code: Ints, candidates: Ints, rows: Ints, rng: np.random.Generator) -> float:
    sample = np.sort(rng.choice(candidates, RECALL_SAMPLE, replace=False))
    ordered = candidates[np.argsort(code[candidates], kind="stable")]
    hits = true = 0
    with one_thread():
        for block in _row_blocks(sample, 16):
            best, _ = _nearest_of(unit[block] @ unit[ordered].T, code[block], code[ordered], rows.shape[1])
            exact = np.where(best >= 0, ordered[best], -1)
            hits += sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(exact, rows[block], strict=True))
            true += int((exact >= 0).sum())
    return hits / max(true, 1)


def _check_lengths_and_classes(vectors: Vectors, labels: Bools, groups: NDArray[np.integer], train: Bools) -> None:
    lengths = {"vectors": len(vectors), "labels": len(labels), "groups": len(groups), "train": len(train)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise ShapeError(f"neighbour_agreement: all need one line a row; their lengths are {listed}.")
    if not train.any():
        raise EmptyDataError(f"neighbour_agreement: none of {len(train):,} rows is a training row; none can vouch.")
    if labels[train].all() or not labels[train].any():
        name = LABEL_NAMES[bool(labels[train].all())]
        raise OneClassError(f"neighbour_agreement: all {int(train.sum()):,} training rows are {name}; neighbours can only agree.")


def _row_blocks(rows: Ints, size: int = BLOCK) -> Iterator[Ints]:
    yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _mean_or_none(values: Vectors) -> float | None:
    return float(values.mean(dtype=np.float64)) if values.size else None
