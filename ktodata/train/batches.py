"""Which rows are in which step, and with whose completion each prompt is paired to estimate z0. A pure function of the seed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktodata.train.tokens import TokenRows

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One effective batch: row numbers, longest first, and for each the row whose completion is its mismatched partner."""

    epoch: int
    rows: Rows
    partners: Rows


@dataclass(frozen=True)
class Plan:
    """All steps of a training, and what could not be had."""

    steps: tuple[Step, ...]
    facts: dict[str, Any]


def plan_training(rows: TokenRows, *, batch_size: int, epochs: int, max_steps: int | None, seed: int) -> Plan:
    """Shuffle every epoch anew into effective batches of at most batch_size rows, both labels in each where possible.

    Batches differ by at most one row in size, so no lonely row is left at the end. Within a batch rows stand longest first:
    micro-batches of neighbours pad little, and what would not fit into memory fails at once.
    """
    random = np.random.default_rng([seed, 1])
    wanted = max_steps if max_steps is not None else np.inf
    lengths = np.array([len(p) + len(c) for p, c in zip(rows.prompt, rows.completion, strict=True)])
    texts = _completion_ids(rows)
    groups = np.unique(rows.group, return_inverse=True)[1]
    steps: list[Step] = []
    for epoch in range(epochs):
        if len(steps) >= wanted:
            break
        for batch in _deal(rows.label, batch_size, random):
            longest_first = batch[np.lexsort((batch, -lengths[batch]))]
            steps.append(Step(epoch, longest_first, longest_first[derange(groups[longest_first], texts[longest_first], random)]))
    return _plan(steps[: None if max_steps is None else max_steps], rows.label, groups, texts)


def plan_held_out(rows: TokenRows, *, batch_size: int, seed: int) -> Plan:
    """One pass over all rows, in the same shape as a training epoch; the same partners at every evaluation."""
    return plan_training(rows, batch_size=batch_size, epochs=1, max_steps=None, seed=seed)


def shifted(plan: Plan, by: int) -> Plan:
    """The same plan for rows that stand `by` places further down in a joined table."""
    return Plan(tuple(Step(step.epoch, step.rows + by, step.partners + by) for step in plan.steps), plan.facts)


def derange(groups: Rows, texts: Rows, random: np.random.Generator) -> Rows:
    """For each of B rows the position of another one, each used once: of another prompt group, with another completion.

    groups, texts : numbers that are equal where the prompt group, the completion, is the same.
    Drawn at random among the assignments with the fewest violations; with B >= 2 no row is ever its own partner.
    """
    from scipy.optimize import linear_sum_assignment

    size = len(groups)
    cost = random.random((size, size)) / (size + 1)  # all of it together stays below one violation
    cost += (groups[:, None] == groups[None, :]) + 1.0 * (texts[:, None] == texts[None, :])
    np.fill_diagonal(cost, 2.0 * size + 2)  # dearer than every other pair violating both rules
    partners: Rows = linear_sum_assignment(cost)[1]
    return partners


def micro_batches(count: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `count` neighbours."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _deal(label: NDArray[np.bool_], batch_size: int, random: np.random.Generator) -> list[Rows]:
    """Row numbers of each batch: the rarer label dealt round, one batch after another, the other label fills up."""
    # a batch of one has no mismatched pair: with batch_size 2 and an odd number of rows, one batch has three
    count = min(-(-len(label) // batch_size), len(label) // 2)
    sizes = np.array([len(part) for part in np.array_split(np.arange(len(label)), count)])
    random.shuffle(sizes)
    of_true, of_false = random.permutation(np.flatnonzero(label)), random.permutation(np.flatnonzero(~label))
    rarer, other = (of_true, of_false) if len(of_true) <= len(of_false) else (of_false, of_true)
    # always fits: the rarer label holds at most half of all rows, and batches hold two rows or more
    turns = np.concatenate([random.permutation(count) for _ in range(-(-len(rarer) // count))] or [np.arange(0)])[: len(rarer)]
    room = sizes - np.bincount(turns, minlength=count)
    rest = np.split(other, np.cumsum(room)[:-1])
    return [np.concatenate([rarer[turns == number], rest[number]]) for number in range(count)]


def _completion_ids(rows: TokenRows) -> Rows:
    """A number for each row, equal where the completion's tokens are."""
    return np.unique([completion.tobytes().hex() for completion in rows.completion], return_inverse=True)[1]


def _plan(steps: list[Step], label: NDArray[np.bool_], groups: Rows, texts: Rows) -> Plan:
    shared_prompt = sum(int((groups[step.rows] == groups[step.partners]).sum()) for step in steps)
    equal_completion = sum(int((texts[step.rows] == texts[step.partners]).sum()) for step in steps)
    one_class = sum(int(label[step.rows].all() or not label[step.rows].any()) for step in steps)
    facts = {
        "steps": len(steps),
        "batch_rows_min": min((len(step.rows) for step in steps), default=0),
        "batch_rows_max": max((len(step.rows) for step in steps), default=0),
        "one_class_batches": one_class,
        "partners_sharing_prompt_group": shared_prompt,
        "partners_with_equal_completion": equal_completion,
    }
    return Plan(tuple(steps), facts)
