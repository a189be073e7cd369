"""Several completions after one prompt in a single sequence, so that the frozen layers see each prompt once.

A row's prompt comes back with its partner's completion, and often with other rows': [prompt | completion | completion | ...],
where each completion looks at the prompt and at itself only, and is numbered as if it stood right after the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ktodata.train.tokens import Ids, TokenRows

Tensor = Any
Pair = tuple[int, int]  # (row whose prompt, row whose completion)

# tokens of one sequence: attention over it costs the square
LONGEST = 1024


@dataclass(frozen=True)
class Shared:
    """One prompt with the completions of `pairs` after it; `ends` are where prompt and completions end."""

    pairs: tuple[Pair, ...]
    ids: Ids
    ends: tuple[int, ...]

    def states_of(self, states: Tensor) -> list[Tensor]:
        """[T, H] of each pair's own sequence, out of [>= len(ids), H]."""
        prompt = states[: self.ends[0]]
        return [torch.cat([prompt, states[start:end]]) for start, end in zip(self.ends[:-1], self.ends[1:], strict=True)]


def share_prompts(rows: TokenRows, pairs: Sequence[Pair]) -> list[Shared]:
    """All `pairs`, those with the same prompt tokens together as far as LONGEST allows; longest first."""
    by_prompt: dict[bytes, list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(rows.prompt[pair[0]].tobytes(), []).append(pair)
    shared = [_shared(rows, part) for group in by_prompt.values() for part in _parts(rows, group)]
    return sorted(shared, key=lambda one: -len(one.ids))


def collate_shared(shared: Sequence[Shared], device: Any) -> tuple[Tensor, ...]:
    """Token ids [B, L], position ids [B, L], and which tokens each may look at, bool [B, 1, L, L]."""
    width = max(len(one.ids) for one in shared)
    ids, positions = np.zeros((2, len(shared), width), dtype=np.int64)
    seen = np.zeros((len(shared), 1, width, width), dtype=bool)
    for number, one in enumerate(shared):
        segment = _segment(one, width)
        ids[number, : len(one.ids)] = one.ids
        starts = np.array((0, *one.ends))[segment]
        positions[number] = np.arange(width) - starts + np.where(segment > 0, one.ends[0], 0)
        seen[number, 0] = np.tri(width, dtype=bool) & ((segment[:, None] == segment) | (segment == 0))
    return tuple(torch.from_numpy(array).to(device) for array in (ids, positions, seen))


def _segment(one: Shared, width: int) -> NDArray[np.int64]:
    """0 on the prompt, 1, 2, ... on the completions and, one number further, on the padding."""
    return np.searchsorted(one.ends, np.arange(width), side="right")


def _shared(rows: TokenRows, pairs: list[Pair]) -> Shared:
    prompt = rows.prompt[pairs[0][0]]
    completions = [rows.sequence(*pair)[0][len(prompt) :] for pair in pairs]
    ends = np.cumsum([len(prompt), *map(len, completions)])
    return Shared(tuple(pairs), np.concatenate([prompt, *completions]), tuple(int(end) for end in ends))


def _parts(rows: TokenRows, pairs: list[Pair]) -> list[list[Pair]]:
    parts: list[list[Pair]] = []
    used = LONGEST + 1
    for pair in pairs:
        prompt, completion = len(rows.prompt[pair[0]]), len(rows.completion[pair[1]])
        if used + completion > LONGEST:
            parts.append([])
            used = prompt
        parts[-1].append(pair)
        used += completion
    return parts
