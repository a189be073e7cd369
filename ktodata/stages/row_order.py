"""The order of training rows, planned for KTO.

A KTO trainer takes its mismatched pairs (x, y') from the rows that stand next to each other: TRL rotates the completions by one
inside every block of `per_device_train_batch_size` rows of the file, others take the next row. So the order of the file decides
what the reference point z0 is estimated from. A good order has, in every block of B rows,

- both labels, in the ratio of the whole (a block of one class has no reward margin, and its z0 sees one class only);
- no two rows of one prompt group (their "mismatched" completion would match);
- no equal completions, and no rows of one group, next to each other, the last and first row of a block being neighbours too;

and the last block is not a single row (its mismatched completion would be its own). Everything here works on arrays of codes.
"""

import heapq
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OrderCheck:
    """How often an order breaks a rule; `unavoidable_...` is how much of it no order could mend."""

    rows: int
    blocks: int
    single_class_blocks: int
    blocks_off_ratio: int
    same_group_in_block: int
    unavoidable_same_group_in_block: int
    same_group_neighbours: int
    equal_completion_neighbours: int
    lone_last_row: bool

    def as_dict(self) -> dict[str, int | bool]:
        """As JSON values."""
        return asdict(self)


def plan_order(labels: Bools, groups: Ints, completions: Ints, *, block: int, seed: int) -> Ints:
    """Row numbers in the order in which they should stand in the file: a permutation of 0 .. n-1.

    labels : bool [n]; groups : int [n], code of the prompt group; completions : int [n], code of the completion's text.
    block : rows per batch of the trainer, at least 2.

    Every block's count of desirable rows is within 1 of its exact share, always. The other rules are kept where that is possible
    and broken as rarely as a greedy placement with pairwise repair can do; `check_order` counts what is left. O(n log n).
    """
    if not len(labels):
        return np.empty(0, np.int64)
    rng = np.random.default_rng(seed)
    groups, completions = _dense_codes(groups), _dense_codes(completions)
    capacity = _capacity(labels, block)
    block_of = _assign_blocks(labels, groups, completions, capacity, rng)
    _repair(block_of, labels, groups, completions, capacity.sum(axis=1), rng)
    order = np.lexsort((rng.permutation(len(labels)), block_of))
    return _arrange(order, groups, completions, block)


def check_order(order: Ints, labels: Bools, groups: Ints, completions: Ints, *, block: int) -> OrderCheck:
    """Count what an order breaks, in every block of `block` rows. Raises ValueError unless `order` is a permutation."""
    rows = len(labels)
    if not np.array_equal(np.sort(order), np.arange(rows)):
        raise ValueError(f"an order of {rows} rows must name each of 0 .. {rows - 1} once")
    if not rows:
        return OrderCheck(0, 0, 0, 0, 0, 0, 0, 0, False)
    label, group, completion = labels[order], _dense_codes(groups)[order], _dense_codes(completions)[order]
    block_of = np.arange(rows) // block
    sizes = np.bincount(block_of)
    desirable = np.bincount(block_of, weights=label)
    blocks = len(sizes)
    pairs = _neighbours(rows, block)
    one_class = (desirable == 0) | (desirable == sizes)
    cells = np.unique(block_of * (group.max() + 1) + group).size
    return OrderCheck(
        rows=rows,
        blocks=blocks,
        single_class_blocks=int(one_class.sum()),
        # the tolerance is for rounding in the product only
        blocks_off_ratio=int((np.abs(desirable - sizes * (labels.sum() / rows)) > 1 + 1e-9).sum()),
        same_group_in_block=rows - cells,
        unavoidable_same_group_in_block=int(np.maximum(np.bincount(group) - blocks, 0).sum()),
        same_group_neighbours=int((group[pairs[0]] == group[pairs[1]]).sum()),
        equal_completion_neighbours=int((completion[pairs[0]] == completion[pairs[1]]).sum()),
        lone_last_row=rows % block == 1,
    )


def _dense_codes(values: Ints) -> Ints:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _neighbours(rows: int, block: int) -> tuple[Ints, Ints]:
    """Positions that stand next to each other: in the file, and the last with the first of each block (TRL's rotation)."""
    first = np.arange(0, rows, block)
    last = np.minimum(first + block, rows) - 1
    wraps = last > first + 1  # in a block of two they are neighbours already; a block of one is `lone_last_row`
    left = np.concatenate([np.arange(rows - 1), last[wraps]])
    right = np.concatenate([np.arange(1, rows), first[wraps]])
    return left, right


def _capacity(labels: Bools, block: int) -> Ints:
    """[blocks, 2]: undesirable and desirable rows of each block. Rounded running totals keep each block within 1 of its share."""
    rows, desirable = len(labels), int(labels.sum())
    edges = np.minimum(np.arange(0, rows + block, block), rows)
    share = np.diff((2 * edges * desirable + rows) // (2 * rows))
    return np.stack([np.diff(edges) - share, share], axis=1)


class _Slots:
    """The open places of one label: the blocks, the one with most open places first."""

    def __init__(self, open_places: Ints, tie: Ints) -> None:
        self.heap = [(-int(left), int(tie[k]), k) for k, left in enumerate(open_places) if left]
        heapq.heapify(self.heap)

    def take(self, count: int, avoid: set[int]) -> list[int]:
        """Up to `count` different blocks outside `avoid`, one place taken in each."""
        chosen: list[tuple[int, int, int]] = []
        skipped: list[tuple[int, int, int]] = []
        while self.heap and len(chosen) < count:
            entry = heapq.heappop(self.heap)
            (skipped if entry[2] in avoid else chosen).append(entry)
        for left, tie, k in chosen:
            if left < -1:
                heapq.heappush(self.heap, (left + 1, tie, k))
        for entry in skipped:
            heapq.heappush(self.heap, entry)
        return [entry[2] for entry in chosen]


def _assign_blocks(labels: Bools, groups: Ints, completions: Ints, capacity: Ints, rng: np.random.Generator) -> Ints:
    """The block of each row: large groups first, each spread over the emptiest blocks; then the rows that are alone in theirs."""
    block_of = np.full(len(labels), -1, np.int64)
    tie = rng.permutation(len(capacity))
    slots = [_Slots(capacity[:, label], tie) for label in (0, 1)]
    rarer_first = (0, 1) if labels.mean() > 0.5 else (1, 0)
    for members in _groups_by_size(groups, rng):
        used: set[int] = set()
        late: list[tuple[int, int]] = []
        for label in rarer_first:
            rows = members[labels[members] == bool(label)]
            blocks = slots[label].take(len(rows), used)
            block_of[rows[: len(blocks)]] = blocks
            used.update(blocks)
            late += [(label, int(row)) for row in rows[len(blocks) :]]
        _place_late(late, slots, block_of)
    _place_single(block_of, labels, completions, capacity, tie, rng)
    return block_of


def _groups_by_size(groups: Ints, rng: np.random.Generator) -> Iterable[Ints]:
    """The rows of each group of two or more, largest group first, else in random order."""
    sizes = np.bincount(groups)
    shuffled = rng.permutation(len(sizes))
    rows = np.lexsort((rng.permutation(len(groups)), shuffled[groups], -sizes[groups]))
    rows = rows[sizes[groups[rows]] > 1]
    if len(rows):
        yield from np.split(rows, np.flatnonzero(np.diff(groups[rows])) + 1)


def _place_late(late: list[tuple[int, int]], slots: list[_Slots], block_of: Ints) -> None:
    """Rows of a group with more rows than there are blocks: dealt round by round, so that the surplus is spread evenly."""
    for label in (0, 1):
        rows = [row for of, row in late if of == label]
        while rows:
            blocks = slots[label].take(len(rows), set())
            block_of[rows[: len(blocks)]] = blocks
            rows = rows[len(blocks) :]


def _place_single(block_of: Ints, labels: Bools, completions: Ints, capacity: Ints, tie: Ints, rng: np.random.Generator) -> None:
    """Deal the remaining rows round the blocks, equal completions one after the other, so that each block gets few of them."""
    often = np.bincount(completions)
    for label in (0, 1):
        of_label = labels == bool(label)
        rows = np.flatnonzero(of_label & (block_of < 0))
        left = capacity[:, label] - np.bincount(block_of[of_label & (block_of >= 0)], minlength=len(capacity))
        places = np.repeat(np.arange(len(capacity)), left)
        turn = np.arange(len(places)) - np.repeat(np.cumsum(left) - left, left)
        places = places[np.lexsort((tie[places], turn))]
        dealt = np.lexsort((rng.permutation(len(rows)), completions[rows], -often[completions[rows]]))
        block_of[rows[dealt]] = places


class _Tally:
    """How many rows of a code are in a block, and how many are over what the block can take."""

    def __init__(self, codes: Ints, block_of: Ints, limit: Ints) -> None:
        self.codes: list[int] = codes.tolist()
        self.limit: list[int] = limit.tolist()
        self.width = int(codes.max()) + 1
        keys, counts = np.unique(block_of * self.width + codes, return_counts=True)
        self.count: dict[int, int] = dict(zip(keys.tolist(), counts.tolist(), strict=True))

    def add(self, row: int, block: int) -> int:
        """Put a row into a block; the change in surplus, 0 or 1."""
        key = block * self.width + self.codes[row]
        self.count[key] = self.count.get(key, 0) + 1
        return int(self.count[key] > self.limit[block])

    def remove(self, row: int, block: int) -> int:
        """Take a row out of a block; the change in surplus, 0 or -1."""
        key = block * self.width + self.codes[row]
        self.count[key] -= 1
        return -int(self.count[key] >= self.limit[block])


def _repair(block_of: Ints, labels: Bools, groups: Ints, completions: Ints, sizes: Ints, rng: np.random.Generator) -> None:
    """Swap rows of one label between blocks while that lowers the surplus of groups and completions. Changes `block_of`."""
    limits = (np.ones_like(sizes), np.maximum(sizes // 2, 1))  # more than half a block of one completion cannot be kept apart
    bad = _surplus_rows(block_of, groups, limits[0], movable=len(sizes))
    bad = np.union1d(bad, _surplus_rows(block_of, completions, limits[1], movable=len(sizes)))
    if not len(bad):
        return
    tallies = [_Tally(groups, block_of, limits[0]), _Tally(completions, block_of, limits[1])]
    same_label = [np.flatnonzero(labels == bool(label)) for label in (0, 1)]
    budget = 2 * len(labels) + 10_000  # swaps tried in all: what cannot be mended must not take minutes
    for row in rng.permutation(bad).tolist():
        others = same_label[int(labels[row])]
        # few rows: all of them in random order; many: a random draw finds a partner at once unless there is hardly any
        partners = rng.permutation(others) if len(others) <= 256 else rng.choice(others, 64)
        budget -= len(partners)
        if budget < 0:
            return
        for partner in partners.tolist():
            if _swap_if_better(row, partner, block_of, tallies):
                break


def _surplus_rows(block_of: Ints, codes: Ints, limit: Ints, movable: int) -> Ints:
    """Rows beyond their block's limit for their code; none of a code that fills every block already."""
    order = np.lexsort((codes, block_of))
    key = block_of[order] * (int(codes.max()) + 1) + codes[order]
    first = np.r_[True, key[1:] != key[:-1]]
    rank = np.arange(len(key)) - np.maximum.accumulate(np.where(first, np.arange(len(key)), 0))
    full = np.bincount(codes[order][first])
    surplus = (rank >= limit[block_of[order]]) & ((full[codes[order]] < movable) | (limit[block_of[order]] > 1))
    return order[surplus]


def _swap_if_better(row: int, other: int, block_of: Ints, tallies: list[_Tally]) -> bool:
    here, there = int(block_of[row]), int(block_of[other])
    if here == there or _swap_blocks(row, here, other, there, tallies) >= 0:
        if here != there:
            _swap_blocks(row, there, other, here, tallies)
        return False
    block_of[row], block_of[other] = there, here
    return True


def _swap_blocks(row: int, here: int, other: int, there: int, tallies: list[_Tally]) -> int:
    """Move `row` from `here` to `there` and `other` the other way; the change in surplus."""
    return sum(t.remove(row, here) + t.remove(other, there) + t.add(row, there) + t.add(other, here) for t in tallies)


def _arrange(order: Ints, groups: Ints, completions: Ints, block: int) -> Ints:
    """Re-order the rows inside each block so that neighbours share neither group nor completion, where they can."""
    order = order.copy()
    left, right = _neighbours(len(order), block)
    clash = _clashes(order[left], order[right], groups, completions)
    within = clash & (left // block == right // block)
    for k in np.unique(left[within] // block).tolist():
        rows = slice(k * block, (k + 1) * block)
        order[rows] = _ring(order[rows], groups, completions)
    for start in range(block, len(order), block):  # a ring may be turned freely: turn it until it fits the row before it
        rows = slice(start, start + block)
        fits = ~_clashes(np.broadcast_to(order[start - 1], order[rows].shape), order[rows], groups, completions)
        if not fits[0] and fits.any():
            order[rows] = np.roll(order[rows], -int(fits.argmax()))
        elif not fits[0]:
            _turn_both(order, start, block, groups, completions)
    return order


def _turn_both(order: Ints, start: int, block: int, groups: Ints, completions: Ints) -> None:
    """Turn the block at `start` and the one before it, also backwards, until the seam fits, if it can. Changes `order`."""
    ring, rows = order[start - block : start].copy(), slice(start, start + block)
    before = order[max(start - block - 1, 0)]
    for turned in (ring, ring[::-1]):
        for turn in range(block):
            option = np.roll(turned, -turn)
            if start > block and _clashes(before[None], option[:1], groups, completions)[0]:
                continue
            fits = ~_clashes(np.broadcast_to(option[-1], order[rows].shape), order[rows], groups, completions)
            if fits.any():
                order[start - block : start] = option
                order[rows] = np.roll(order[rows], -int(fits.argmax()))
                return


def _clashes(a: Ints, b: Ints, groups: Ints, completions: Ints) -> Bools:
    clashing: Bools = (groups[a] == groups[b]) | (completions[a] == completions[b])
    return clashing


def _ring(rows: Ints, groups: Ints, completions: Ints) -> Ints:
    """The rows of one block as a ring with few clashes: alternate the most frequent code, then swap pairs while that helps."""
    size = len(rows)
    codes = [_dense_codes(groups[rows]), _dense_codes(completions[rows])]
    most = [int(np.bincount(code).max()) for code in codes]
    floor = sum(max(0, 2 * count - size) for count in most)  # c of m on a ring: at least 2c - m of them touch
    worse = codes[int(most[1] > most[0])]
    by_count = np.lexsort((worse, -np.bincount(worse)[worse]))
    ring = np.empty(size, np.int64)
    ring[np.r_[0:size:2, 1:size:2]] = by_count
    pairs = list(zip(codes[0].tolist(), codes[1].tolist(), strict=True))
    return rows[_swap_pairs(ring.tolist(), pairs, floor)]


def _swap_pairs(ring: list[int], pairs: list[tuple[int, int]], floor: int) -> list[int]:
    size = len(ring)

    def cost(starts: Iterable[int]) -> int:
        total = 0
        for i in starts:
            (g, c), (h, d) = pairs[ring[i]], pairs[ring[(i + 1) % size]]
            total += (g == h) + (c == d)
        return total

    better = True
    while better and cost(range(size)) > floor:
        better = False
        for i in [i for i in range(size) if cost((i,))]:
            for j in range(size):
                edges = {(i - 1) % size, i, (j - 1) % size, j}
                before = cost(edges)
                ring[i], ring[j] = ring[j], ring[i]
                if cost(edges) < before:
                    better = True
                    break
                ring[i], ring[j] = ring[j], ring[i]
    return ring
