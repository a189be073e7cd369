"""Which rows are in which step, and with whose completion each prompt is paired to estimate z0. A pure function of the seed."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktodata.train.data.packing import Pair, Sequences
from ktodata.train.data.tokens import TokenRows

RowNumbers = NDArray[np.int64]
Entry = tuple[float, int, int]  # rank of a batch, tie-breaker, number of the batch

# batches that a prompt's rows are offered to before they are parted
OFFERS = 8


@dataclass(frozen=True)
class Batch:
    """One effective batch: row numbers, longest first, and for each the row whose completion is its mismatched partner."""

    epoch: int
    rows: RowNumbers
    partners: RowNumbers
    compared: RowNumbers  # places in `rows` whose mismatched pair is scored: all of them, or a sample

    def matched(self) -> list[Pair]:
        """Each row's prompt with its own completion."""
        return [(int(row), int(row)) for row in self.rows]

    def mismatched(self) -> dict[int, Pair]:
        """Each compared row's prompt with its partner's completion, by place in the step."""
        return {int(place): (int(self.rows[place]), int(self.partners[place])) for place in self.compared}


@dataclass(frozen=True)
class BatchPlan:
    """All steps of a training, and what could not be had."""

    steps: tuple[Batch, ...]
    metrics: dict[str, Any]


def plan_training(
    rows: TokenRows,
    *,
    batch_size: int,
    epochs: int,
    max_steps: int | None,
    seed: int,
    group_by_prompt: bool = True,
    siblings_together: bool = False,
    kl_pairs_per_batch: int | None = None,
    sides: NDArray[np.int8] | None = None,
) -> BatchPlan:
    """Shuffle every epoch anew into effective batches of at most batch_size rows, both labels in each where possible.

    group_by_prompt : let up to a quarter of a batch be rows of one prompt, which is then computed once; otherwise rows are
        dealt one by one
    siblings_together : up to a half: where rows of a prompt are set against each other, parting them loses what they would teach
    kl_pairs_per_batch : mismatched pairs scored in each step, drawn anew; none: all
    sides : 1 for rows that are pulled up, -1 down, 0 for those that count nothing, which are in no batch; none: by label

    Batches differ by at most one row in size, so no lonely row is left at the end. Within a batch rows stand longest first:
    micro-batches of neighbours pad little, and what would not fit into memory fails at once.
    """
    random = np.random.default_rng([seed, 1])
    wanted = max_steps if max_steps is not None else np.inf
    lengths, sequences = rows.lengths, Sequences(rows)
    groups = rows.group_numbers
    sides = np.where(rows.label, 1, -1).astype(np.int8) if sides is None else sides
    most = max(1, batch_size // (2 if siblings_together else 4)) if group_by_prompt else 1
    counted = np.flatnonzero(sides)
    steps: list[Batch] = []
    for epoch in range(epochs):
        if len(steps) >= wanted:
            break
        for places in _deal(sides[counted], sequences.prompt_of[counted], batch_size, most, random):
            batch = counted[places]
            longest_first = batch[np.lexsort((batch, -lengths[batch]))]
            partners = longest_first[derange(groups[longest_first], sequences.completion_of[longest_first], random)]
            count = min(len(batch), kl_pairs_per_batch or len(batch))
            compared = np.arange(len(batch)) if count == len(batch) else np.sort(random.permutation(len(batch))[:count])
            steps.append(Batch(epoch, longest_first, partners, compared))
    return _batch_plan(steps[: None if max_steps is None else max_steps], rows.label, sides, groups, sequences)


def plan_held_out(rows: TokenRows, **dealt: Any) -> BatchPlan:
    """One pass over all rows, dealt like a training epoch; the same partners at every evaluation. dealt : of `plan_training`"""
    return plan_training(rows, epochs=1, max_steps=None, **dealt)


def shifted(plan: BatchPlan, by: int) -> BatchPlan:
    """The same plan for rows that stand `by` places further down in a joined table."""
    return BatchPlan(
        tuple(Batch(step.epoch, step.rows + by, step.partners + by, step.compared) for step in plan.steps), plan.metrics
    )


def derange(groups: RowNumbers, texts: RowNumbers, random: np.random.Generator) -> RowNumbers:
    """For each of B rows the position of another one, each used once: of another prompt group, with another completion.

    groups, texts : numbers that are equal where the prompt group, the completion, is the same.
    Drawn at random among the assignments with the fewest violations; with B >= 2 no row is ever its own partner.
    """
    from scipy.optimize import linear_sum_assignment

    size = len(groups)
    cost = random.random((size, size)) / (size + 1)  # all of it together stays below one violation
    cost += (groups[:, None] == groups[None, :]) + 1.0 * (texts[:, None] == texts[None, :])
    np.fill_diagonal(cost, 2.0 * size + 2)  # dearer than every other pair violating both rules
    partners: RowNumbers = linear_sum_assignment(cost)[1]
    return partners


def _deal(
    sides: NDArray[np.int8], prompt: RowNumbers, batch_size: int, most: int, random: np.random.Generator
) -> list[RowNumbers]:
    """Row numbers of each batch, at most `most` of one prompt dealt together; the rarer label evenly over all batches."""
    # a batch of one has no mismatched pair: with batch_size 2 and an odd number of rows, one batch has three
    count = min(-(-len(sides) // batch_size), len(sides) // 2)
    sizes = np.array([len(part) for part in np.array_split(np.arange(len(sides)), count)])
    random.shuffle(sizes)
    rarer = sides > 0 if (sides > 0).sum() <= (sides < 0).sum() else sides < 0
    # no piece may hold so many of the rarer label that a batch goes without
    even = max(1, int(rarer.sum()) // count)
    pieces = [piece for rows in _rows_by_prompt(prompt, random) for piece in _parted(rows, rarer, most, even)]
    dealer = _Dealer(prompt, sizes.tolist(), random)
    dealer.evenly([piece for piece in pieces if rarer[piece].any()], rarer)
    dealer.fill([piece for piece in pieces if not rarer[piece].any()])
    return [np.concatenate(batch) for batch in dealer.batches]


def _rows_by_prompt(prompt: RowNumbers, random: np.random.Generator) -> list[RowNumbers]:
    """The rows of each prompt, prompts and rows in random order."""
    order = random.permutation(len(prompt))
    order = order[np.argsort(prompt[order], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(prompt[order])) + 1)
    return [groups[number] for number in random.permutation(len(groups))]


def _parted(rows: RowNumbers, rarer: NDArray[np.bool_], most: int, even: int) -> list[RowNumbers]:
    """One prompt's rows in pieces of nearly one size: at most `most` rows, at most `even` of the rarer label."""
    count = max(-(-len(rows) // most), -(-int(rarer[rows].sum()) // even))
    rare_first = rows[np.argsort(~rarer[rows], kind="stable")]
    return [rare_first[number::count] for number in range(count)]


class _Dealer:
    """Fills batches of given sizes with pieces; parts a piece only where none of a few batches has room for it."""

    def __init__(self, prompt: RowNumbers, sizes: list[int], random: np.random.Generator) -> None:
        self.batches: list[list[RowNumbers]] = [[] for _ in sizes]
        self._room, self._prompt, self._random = sizes, prompt, random
        self._sizes = tuple(sizes)
        self._prompts: list[set[int]] = [set() for _ in sizes]

    def evenly(self, pieces: list[RowNumbers], rarer: NDArray[np.bool_]) -> None:
        """Deal pieces to the batch with the smallest share of the rarer label so far, those with the most of it first.

        The share, not the count: of small batches that differ by a row, the smaller one would be filled with that label alone.
        """

        def of_rarer(rows: Iterable[RowNumbers]) -> int:
            return sum(int(rarer[piece].sum()) for piece in rows)

        self._deal_pieces(
            sorted(pieces, key=lambda piece: of_rarer([piece])),
            lambda number: of_rarer(self.batches[number]) / self._sizes[number],
        )

    def fill(self, pieces: list[RowNumbers]) -> None:
        """Deal pieces to the batch with the most room, the largest first."""
        self._deal_pieces(sorted(pieces, key=len), lambda number: -self._room[number])

    def _deal_pieces(self, waiting: list[RowNumbers], rank: Callable[[int], float]) -> None:
        """Give the last of `waiting` to the batch of lowest rank, until none is left."""
        numbers = [number for number in self._random.permutation(len(self.batches)).tolist() if self._room[number]]
        heap = [(rank(number), tie, number) for tie, number in enumerate(numbers)]
        heapq.heapify(heap)
        while waiting:
            piece = waiting.pop()
            (_, tie, number), passed = self._offer(heap, piece)
            taken, left = piece[: self._room[number]], piece[self._room[number] :]
            if len(left):
                waiting.append(left)
            self._give(number, taken)
            if self._room[number]:
                heapq.heappush(heap, (rank(number), tie, number))
            for entry in passed:
                heapq.heappush(heap, entry)

    def _offer(self, heap: list[Entry], piece: RowNumbers) -> tuple[Entry, list[Entry]]:
        """(the entry of the batch that takes the piece, entries to put back): the best one with room and without its prompt."""
        tried = [heapq.heappop(heap)]
        while heap and len(tried) < OFFERS and heap[0][0] == tried[0][0] and not self._suits(tried[-1][2], piece):
            tried.append(heapq.heappop(heap))
        chosen = tried[-1] if self._suits(tried[-1][2], piece) else tried[0]
        return chosen, [entry for entry in tried if entry is not chosen]

    def _suits(self, number: int, piece: RowNumbers) -> bool:
        return self._room[number] >= len(piece) and int(self._prompt[piece[0]]) not in self._prompts[number]

    def _give(self, number: int, piece: RowNumbers) -> None:
        self.batches[number].append(piece)
        self._room[number] -= len(piece)
        self._prompts[number].add(int(self._prompt[piece[0]]))


def _with_siblings(prompts: RowNumbers, desirable: NDArray[np.bool_]) -> int:
    """Rows of a batch whose prompt has both labels in it."""
    _, of, rows = np.unique(prompts, return_inverse=True, return_counts=True)
    of_desirable = np.bincount(of, desirable, len(rows))
    return int(rows[(of_desirable > 0) & (of_desirable < rows)].sum())


def _batch_plan(
    steps: list[Batch], label: NDArray[np.bool_], sides: NDArray[np.int8], groups: RowNumbers, sequences: Sequences
) -> BatchPlan:
    texts, prompts = sequences.completion_of, sequences.prompt_of
    shared_prompt = sum(int((groups[step.rows] == groups[step.partners]).sum()) for step in steps)
    equal_completion = sum(int((texts[step.rows] == texts[step.partners]).sum()) for step in steps)
    one_class = sum(not {-1, 1} <= set(sides[step.rows].tolist()) for step in steps)
    distinct = sum(len(np.unique(prompts[step.rows])) for step in steps)
    metrics = {
        "steps": len(steps),
        "batch_rows_max": max((len(step.rows) for step in steps), default=0),
        "rows_per_prompt": round(sum(len(step.rows) for step in steps) / max(1, distinct), 3),  # within a step
        "rows_with_siblings": sum(_with_siblings(prompts[step.rows], label[step.rows]) for step in steps),  # of the other label
        "rows_pulled_up": int((sides > 0).sum()),
        "rows_pulled_down": int((sides < 0).sum()),
        "rows_left_out": int((sides == 0).sum()),  # they count nothing
        "one_class_batches": one_class,  # where there are fewer rows of a label than batches
        "partners_sharing_prompt_group": shared_prompt,
        "partners_with_equal_completion": equal_completion,
    }
    return BatchPlan(tuple(steps), metrics)
