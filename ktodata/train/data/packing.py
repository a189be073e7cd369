"""Rows without padding: the sequences of a forward pass stand one after the other, and completions of one prompt share it.

A prompt with its completions is laid out as [prompt | completion | completion | ...]. Each completion sees the prompt and itself,
and is numbered as if it stood right after the prompt, so that its log-prob is that of its own sequence. The same completion
after the same prompt is there once, however many pairs ask for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktodata.train.data.tokens import Ids, TokenRows

Pair = tuple[int, int]  # (row whose prompt, row whose completion)
Leaf = tuple[int, int]  # (number of a prompt, number of a completion): pairs with the same tokens are one leaf
Numbers = NDArray[np.int64]


class Leaves:
    """Which pairs of a table of rows are the same tokens, and those tokens."""

    def __init__(self, rows: TokenRows) -> None:
        self.rows = rows
        self._prompts, self.prompt_of = _numbered(rows.prompt)
        self._completions, self.completion_of = _numbered(rows.completion)

    def of(self, pair: Pair) -> Leaf:
        """The leaf of (row whose prompt, row whose completion)."""
        row, partner = pair
        return int(self.prompt_of[row]), int(self.completion_of[partner])

    def prompt(self, leaf: Leaf) -> Ids:
        """Token ids before the completion."""
        return self._prompts[leaf[0]]

    def completion(self, leaf: Leaf) -> Ids:
        """Token ids of the completion, cut so that it fits max_length after this prompt."""
        return self._completions[leaf[1]][: self.rows.max_length - len(self._prompts[leaf[0]])]

    def length(self, leaf: Leaf) -> int:
        """Tokens of the leaf's own sequence, prompt and completion."""
        return len(self.prompt(leaf)) + len(self.completion(leaf))


@dataclass(frozen=True)
class Segment:
    """Tokens [start, end) of a pack: each sees those before it in the segment, and all of `prefix` (start, end), its prompt."""

    start: int
    end: int
    prefix: tuple[int, int] | None = None


@dataclass(frozen=True)
class Pack:
    """One forward pass over L tokens, of which C are predicted; K leaves are scored.

    With `continues` the prompts are not in it: prefixes are places in an earlier pack, whose keys and values are at hand.
    """

    leaves: tuple[Leaf, ...]  # [K]
    ids: Numbers  # [L]
    positions: Numbers  # [L], place in the leaf's own sequence
    segments: tuple[Segment, ...]  # in the order of their tokens, all L of them
    sources: Numbers  # [C], the token whose hidden state predicts; negative: -1 - its place in the earlier pack
    targets: Numbers  # [C], the token predicted
    owners: Numbers  # [C], the leaf that it belongs to
    prompts: dict[int, tuple[int, int]]  # number of each prompt in it -> where it stands
    completions: dict[Leaf, tuple[int, int]]  # where each completion stands
    continues: bool = False

    def places_of(self, wanted: Sequence[Leaf]) -> list[int]:
        """Where each of `wanted` stands in `leaves`."""
        places = {leaf: number for number, leaf in enumerate(self.leaves)}
        return [places[leaf] for leaf in wanted]


def pack(leaves: Leaves, wanted: Sequence[Leaf]) -> Pack:
    """One pack of all `wanted` (each at most once), those of one prompt together, in order of first appearance."""
    writer = _Writer(leaves)
    for prompt, group in by_prompt(wanted).items():
        writer.tree(prompt, group)
    return writer.pack(continues=False)


def continuation(leaves: Leaves, wanted: Sequence[Leaf], earlier: Pack) -> Pack:
    """One pack of the completions of `wanted` alone; their prompts are all in `earlier`."""
    writer = _Writer(leaves)
    for leaf in wanted:
        writer.branch(leaf, earlier.prompts[leaf[0]])
    return writer.pack(continues=True)


def by_prompt(wanted: Sequence[Leaf]) -> dict[int, list[Leaf]]:
    """Leaves under the number of their prompt."""
    groups: dict[int, list[Leaf]] = {}
    for leaf in wanted:
        groups.setdefault(leaf[0], []).append(leaf)
    return groups


def packs_of(leaves: Leaves, wanted: Sequence[Leaf], *, tokens: int) -> list[list[Leaf]]:
    """`wanted` in parts of at most `tokens` tokens each (one leaf may have more), as few as first-fit by falling size finds.

    Leaves of one prompt stay together unless they do not fit into one part. A pure function of its arguments.
    """
    trees = [tree for group in by_prompt(wanted).values() for tree in _trees(leaves, group, tokens)]
    sizes = [_tree_tokens(leaves, tree) for tree in trees]
    parts: list[list[Leaf]] = []
    room: list[int] = []
    for number in sorted(range(len(trees)), key=lambda number: -sizes[number]):
        # only the last few parts are asked: with many thousand trees, asking all would cost the square of their number
        fits = next((part for part in range(max(0, len(parts) - 64), len(parts)) if room[part] >= sizes[number]), None)
        if fits is None:
            parts.append([])
            room.append(tokens)
            fits = len(parts) - 1
        parts[fits] += trees[number]
        room[fits] -= sizes[number]
    return parts


def packed_tokens(leaves: Leaves, wanted: Sequence[Leaf]) -> int:
    """Tokens that a pack of `wanted` has."""
    return sum(_tree_tokens(leaves, group) for group in by_prompt(wanted).values())


def _trees(leaves: Leaves, group: list[Leaf], tokens: int) -> list[list[Leaf]]:
    """Leaves of one prompt, parted where they would have more than `tokens` tokens together."""
    prompt, used = len(leaves.prompt(group[0])), tokens + 1
    trees: list[list[Leaf]] = []
    for leaf in group:
        size = len(leaves.completion(leaf))
        if used + size > tokens:
            trees.append([])
            used = prompt
        trees[-1].append(leaf)
        used += size
    return trees


def _tree_tokens(leaves: Leaves, tree: list[Leaf]) -> int:
    return len(leaves.prompt(tree[0])) + sum(len(leaves.completion(leaf)) for leaf in tree)


class _Writer:
    """Writes trees one after the other into one sequence."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._length = 0
        self._ids: list[Ids] = []
        self._positions: list[Numbers] = []
        self._segments: list[Segment] = []
        self._sources: list[Numbers] = []
        self._targets: list[Ids] = []
        self._scored: list[Leaf] = []
        self._owners: list[Numbers] = []
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completions: dict[Leaf, tuple[int, int]] = {}

    def tree(self, prompt: int, group: list[Leaf]) -> None:
        ids = self._leaves.prompt(group[0])
        start = self._length
        self._append(ids, at=0)
        self._prompts[prompt] = (start, self._length)
        # one completion alone is a plain sequence: attention over it is purely causal
        alone = len(group) == 1 or not len(ids)
        if not alone:
            self._segments.append(Segment(start, self._length))
        for leaf in group:
            self._completion(leaf, self._prompts[prompt], joined_from=start if alone else None)

    def branch(self, leaf: Leaf, prompt: tuple[int, int]) -> None:
        # the token before its first one is in the earlier pack
        self._completion(leaf, prompt, joined_from=None, elsewhere=True)

    def pack(self, *, continues: bool) -> Pack:
        return Pack(
            leaves=tuple(self._scored),
            ids=_joined(self._ids),
            positions=_joined(self._positions),
            segments=tuple(self._segments),
            sources=_joined(self._sources),
            targets=_joined(self._targets),
            owners=_joined(self._owners),
            prompts=self._prompts,
            completions=self._completions,
            continues=continues,
        )

    def _completion(self, leaf: Leaf, prompt: tuple[int, int], *, joined_from: int | None, elsewhere: bool = False) -> None:
        ids, start = self._leaves.completion(leaf), self._length
        before = prompt[1] - prompt[0]
        self._append(ids, at=before)
        if joined_from is not None and before:
            self._segments.append(Segment(joined_from, self._length))
        else:
            self._segments.append(Segment(start, self._length, prompt if before else None))
        last = prompt[1] - 1
        first = [] if not before else [-1 - last] if elsewhere else [last]
        self._sources.append(np.array([*first, *range(start, self._length - 1)], dtype=np.int64))
        self._targets.append(ids[len(ids) - len(self._sources[-1]) :])  # without a prompt nothing predicts the first token
        self._owners.append(np.full(len(self._sources[-1]), len(self._scored)))
        self._completions[leaf] = (start, self._length)
        self._scored.append(leaf)

    def _append(self, ids: Ids, *, at: int) -> None:
        self._ids.append(ids)
        self._positions.append(np.arange(at, at + len(ids)))
        self._length += len(ids)


def _joined(parts: Sequence[NDArray[np.integer]]) -> Numbers:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


def _numbered(texts: Sequence[Ids]) -> tuple[list[Ids], Numbers]:
    """(the distinct ones in order of appearance, the number of each text's)."""
    numbers: dict[bytes, int] = {}
    of = np.array([numbers.setdefault(ids.tobytes(), len(numbers)) for ids in texts], dtype=np.int64)
    distinct: list[Ids] = [texts[row] for row in np.unique(of, return_index=True)[1]]
    return distinct, of
