"""Pairs (chosen, rejected) from binary labels: a pure function of rows and seed."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PreferencePairs:
    """Row numbers: chosen[i] is desirable, rejected[i] undesirable, and both answer exactly the same prompt."""

    chosen: Numbers
    rejected: Numbers
    metrics: dict[str, Any]

    def __len__(self) -> int:
        return len(self.chosen)


def make_pairs(rows: pl.DataFrame, *, seed: int) -> PreferencePairs:
    """Every row of every prompt that has both labels, in as few pairs as that takes.

    rows : row_id, prompt, completion, label. Prompts must be equal sign for sign (messages: role and content of each): near-equal
        prompts, which share a prompt_group, ask different things.

    The rule, for a prompt with d desirable and u undesirable rows: max(d, u) pairs. Each row of the commoner label is in one
    pair; the others are dealt round, so that they are in as equally many pairs as possible. Who meets whom is drawn by `seed`;
    the order of `rows` has no part in it. Two rows with one completion are never a pair, as nothing tells them apart.
    """
    label, completions = rows["label"].to_numpy(), _comparable_texts(rows["completion"])
    random = np.random.default_rng([seed, 3])
    of_prompt = _by_prompt(rows)
    chosen: list[int] = []
    rejected: list[int] = []
    for numbers in of_prompt:
        good, bad = random.permutation(numbers[label[numbers]]), random.permutation(numbers[~label[numbers]])
        met = _meet(good, bad, completions) if len(good) and len(bad) else []
        chosen += [first for first, _ in met]
        rejected += [second for _, second in met]
    return PreferencePairs(
        np.array(chosen, np.int64), np.array(rejected, np.int64), _pair_counts(label, of_prompt, chosen, rejected)
    )


def _meet(good: Numbers, bad: Numbers, completions: Sequence[str]) -> list[tuple[int, int]]:
    """max(len(good), len(bad)) pairs, less those of equal completions where no turn of the smaller side avoids them."""
    count = max(len(good), len(bad))
    turns = range(min(len(good), len(bad)))

    def dealt(turn: int) -> list[tuple[int, int]]:
        shift = (turn, 0) if len(good) < len(bad) else (0, turn)
        both = ((int(good[(i + shift[0]) % len(good)]), int(bad[(i + shift[1]) % len(bad)])) for i in range(count))
        return [(first, second) for first, second in both if completions[first] != completions[second]]

    best: list[tuple[int, int]] = []
    for turn in turns:
        pairs = dealt(turn)
        best = pairs if len(pairs) > len(best) else best
        if len(best) == count:
            break
    return best


def _by_prompt(rows: pl.DataFrame) -> list[Numbers]:
    """Row numbers of each prompt, by row_id; prompts by their first row_id."""
    prompts = _comparable_texts(rows["prompt"])
    groups: dict[str, list[int]] = {}
    for number in rows["row_id"].arg_sort().to_list():
        groups.setdefault(prompts[number], []).append(number)
    return [np.array(numbers, np.int64) for numbers in groups.values()]


def _comparable_texts(column: pl.Series) -> list[str]:
    """Texts as they are; messages as JSON of all their fields, so that equal ones are equal text."""
    if column.dtype == pl.String:
        return column.to_list()
    return [json.dumps(messages, sort_keys=True, default=str) for messages in column.to_list()]


def _pair_counts(
    label: NDArray[np.bool_], of_prompt: Sequence[Numbers], chosen: Iterable[int], rejected: Iterable[int]
) -> dict[str, Any]:
    """Counts. rows_used: of each method, the different rows that it can learn from."""
    uses = Counter([*chosen, *rejected])
    desirable = int(label.sum())
    return {
        "rows": len(label),
        "desirable": desirable,
        "undesirable": len(label) - desirable,
        "prompts": len(of_prompt),
        "prompts_with_both_labels": sum(bool(label[numbers].any() and not label[numbers].all()) for numbers in of_prompt),
        "pairs": sum(uses.values()) // 2,
        "most_pairs_of_a_row": max(uses.values(), default=0),
        "rows_used": {
            "kto": len(label),
            "kto_hybrid": len(label),
            "sft": desirable,
            "dpo": len(uses),
            "orpo": len(uses),
            "rlhf": len(uses),
        },
    }
