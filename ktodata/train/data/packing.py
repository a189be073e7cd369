"""Rows without padding: the sequences of a forward pass stand one after the other, and completions of one prompt share it.

A prompt with its completions is laid out as [prompt | completion | completion | ...]. Each completion sees the prompt and itself,
and is numbered as if it stood right after the prompt, so that its log-prob is that of its own sequence. The same completion
after the same prompt is there once, however many pairs ask for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktodata.train.data.ragged_ids import Ids, Numbers
from ktodata.train.data.tokens import TokenRows

Pair = tuple[int, int]  # (row whose prompt, row whose completion)
SequenceKey = tuple[int, int]  # (number of a prompt, number of a completion): pairs with the same tokens have one key


class Sequences:
    """Which pairs of a table of rows are the same tokens, and those tokens."""

    def __init__(self, rows: TokenRows) -> None:
        self.rows = rows
        self._prompt_rows, self.prompt_of = rows.prompt.distinct()
        self._completion_rows, self.completion_of = rows.completion.distinct()

    def of(self, pair: Pair) -> SequenceKey:
        """The sequence of (row whose prompt, row whose completion)."""
        row, partner = pair
        return int(self.prompt_of[row]), int(self.completion_of[partner])

    def prompt(self, sequence: SequenceKey) -> Ids:
        """Token ids before the completion."""
        return self.rows.prompt[self._prompt_rows[sequence[0]]]

    def completion(self, sequence: SequenceKey) -> Ids:
        """Token ids of the completion, cut so that it fits max_length after this prompt."""
        ids = self.rows.completion[self._completion_rows[sequence[1]]]
        return ids[: self.rows.max_length - len(self.prompt(sequence))]

    def lengths(self, pairs: Numbers) -> Numbers:
        """Tokens of the sequence of each pair. pairs : int64 [P, 2]"""
        tokens = self.rows.prompt.lengths[pairs[:, 0]] + self.rows.completion.lengths[pairs[:, 1]]
        cut: Numbers = np.minimum(tokens, self.rows.max_length)
        return cut

    def length(self, sequence: SequenceKey) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt(sequence)) + len(self.completion(sequence))


@dataclass(frozen=True)
class Segment:
    """Tokens [start, end) of a pack: each sees those before it in the segment, and all of `prefix` (start, end), its prompt."""

    start: int
    end: int
    prefix: tuple[int, int] | None = None


@dataclass(frozen=True)
class Pack:
    """One forward pass over L tokens, of which C are predicted; K sequences are scored.

    With `continues` the prompts are not in it: prefixes are places in an earlier pack, whose keys and values are at hand.
    """

    sequences: tuple[SequenceKey, ...]  # [K]
    ids: Numbers  # [L]
    positions: Numbers  # [L], place in its own sequence
    segments: tuple[Segment, ...]  # in the order of their tokens, all L of them
    sources: Numbers  # [C], the token whose hidden state predicts; negative: -1 - its place in the earlier pack
    targets: Numbers  # [C], the token predicted
    owners: Numbers  # [C], the sequence that it belongs to
    prompts: dict[int, tuple[int, int]]  # number of each prompt in it -> where it stands
    completions: dict[SequenceKey, tuple[int, int]]  # where each completion stands
    continues: bool = False

    def places_of(self, wanted: Sequence[SequenceKey]) -> list[int]:
        """Where each of `wanted` stands in `sequences`."""
        places = {sequence: number for number, sequence in enumerate(self.sequences)}
        return [places[sequence] for sequence in wanted]


def pack(sequences: Sequences, wanted: Sequence[SequenceKey]) -> Pack:
    """One pack of all `wanted` (each at most once), those of one prompt together, in order of first appearance."""
    writer = _Writer(sequences)
    for prompt, group in by_prompt(wanted).items():
        writer.prompt_group(prompt, group)
    return writer.pack(continues=False)


def continuation(sequences: Sequences, wanted: Sequence[SequenceKey], earlier: Pack) -> Pack:
    """One pack of the completions of `wanted` alone; their prompts are all in `earlier`."""
    writer = _Writer(sequences)
    for sequence in wanted:
        writer.continuation(sequence, earlier.prompts[sequence[0]])
    return writer.pack(continues=True)


def by_prompt(wanted: Sequence[SequenceKey]) -> dict[int, list[SequenceKey]]:
    """Sequences under the number of their prompt."""
    groups: dict[int, list[SequenceKey]] = {}
    for sequence in wanted:
        groups.setdefault(sequence[0], []).append(sequence)
    return groups


def packs_of(sequences: Sequences, wanted: Sequence[SequenceKey], *, tokens: int) -> list[list[SequenceKey]]:
    """`wanted` in parts of at most `tokens` tokens each (one sequence may have more), as few as first-fit by falling size finds.

    Sequences of one prompt stay together unless they do not fit into one part. A pure function of its arguments.
    """
    prompt_groups = [part for group in by_prompt(wanted).values() for part in _fitting_groups(sequences, group, tokens)]
    sizes = [_prompt_group_tokens(sequences, prompt_group) for prompt_group in prompt_groups]
    parts: list[list[SequenceKey]] = []
    room: list[int] = []
    for number in sorted(range(len(prompt_groups)), key=lambda number: -sizes[number]):
        # only the last few parts are tried: with many thousand groups, trying all would cost the square of their number
        fits = next((part for part in range(max(0, len(parts) - 64), len(parts)) if room[part] >= sizes[number]), None)
        if fits is None:
            parts.append([])
            room.append(tokens)
            fits = len(parts) - 1
        parts[fits] += prompt_groups[number]
        room[fits] -= sizes[number]
    return parts


def packed_tokens(sequences: Sequences, wanted: Sequence[SequenceKey]) -> int:
    """Tokens that a pack of `wanted` has."""
    return sum(_prompt_group_tokens(sequences, group) for group in by_prompt(wanted).values())


def _fitting_groups(sequences: Sequences, group: list[SequenceKey], tokens: int) -> list[list[SequenceKey]]:
    """Sequences of one prompt, parted where they would have more than `tokens` tokens together."""
    prompt, used = len(sequences.prompt(group[0])), tokens + 1
    fitting: list[list[SequenceKey]] = []
    for sequence in group:
        size = len(sequences.completion(sequence))
        if used + size > tokens:
            fitting.append([])
            used = prompt
        fitting[-1].append(sequence)
        used += size
    return fitting


def _prompt_group_tokens(sequences: Sequences, prompt_group: list[SequenceKey]) -> int:
    return len(sequences.prompt(prompt_group[0])) + sum(len(sequences.completion(sequence)) for sequence in prompt_group)


class _Writer:
    """Writes prompts with their completions one after the other into one row of tokens."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self._length = 0
        self._ids: list[Ids] = []
        self._positions: list[Numbers] = []
        self._segments: list[Segment] = []
        self._sources: list[Numbers] = []
        self._targets: list[Ids] = []
        self._scored: list[SequenceKey] = []
        self._owners: list[Numbers] = []
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completions: dict[SequenceKey, tuple[int, int]] = {}

    def prompt_group(self, prompt: int, group: list[SequenceKey]) -> None:
        ids = self._sequences.prompt(group[0])
        start = self._length
        self._append(ids, at=0)
        self._prompts[prompt] = (start, self._length)
        # one completion alone is a plain sequence: attention over it is purely causal
        alone = len(group) == 1 or not len(ids)
        if not alone:
            self._segments.append(Segment(start, self._length))
        for sequence in group:
            self._completion(sequence, self._prompts[prompt], joined_from=start if alone else None)

    def continuation(self, sequence: SequenceKey, prompt: tuple[int, int]) -> None:
        # the token before its first one is in the earlier pack
        self._completion(sequence, prompt, joined_from=None, elsewhere=True)

    def pack(self, *, continues: bool) -> Pack:
        return Pack(
            sequences=tuple(self._scored),
            ids=_concatenated(self._ids),
            positions=_concatenated(self._positions),
            segments=tuple(self._segments),
            sources=_concatenated(self._sources),
            targets=_concatenated(self._targets),
            owners=_concatenated(self._owners),
            prompts=self._prompts,
            completions=self._completions,
            continues=continues,
        )

    def _completion(
        self, sequence: SequenceKey, prompt: tuple[int, int], *, joined_from: int | None, elsewhere: bool = False
    ) -> None:
        ids, start = self._sequences.completion(sequence), self._length
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
        self._completions[sequence] = (start, self._length)
        self._scored.append(sequence)

    def _append(self, ids: Ids, *, at: int) -> None:
        self._ids.append(ids)
        self._positions.append(np.arange(at, at + len(ids)))
        self._length += len(ids)


def _concatenated(parts: Sequence[NDArray[np.integer]]) -> Numbers:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)
