"""Which process computes what of a step. Every process finds the shares of all others by itself: nothing is sent for it."""

from collections.abc import Sequence
from typing import Any

import torch

from ktodata.train.data.packing import Pair, SequenceKey, Sequences, packed_tokens
from ktodata.train.distributed.interface import Distributed
from ktodata.train.model.scorer import Scorer

Tensor = Any


def split_work(sequences: Sequences, pairs: Sequence[Pair], size: int) -> list[list[int]]:
    """Positions in `pairs` for each of `size` processes, rising: those of one prompt together, tokens evened out.

    Prompts are dealt from the longest to the shortest, each to who has the fewest tokens. A pure function of its arguments.
    """
    groups: dict[int, dict[SequenceKey, list[int]]] = {}
    for number, pair in enumerate(pairs):
        sequence = sequences.of(pair)
        groups.setdefault(sequence[0], {}).setdefault(sequence, []).append(number)
    tokens = {prompt: packed_tokens(sequences, list(group)) for prompt, group in groups.items()}
    dealt: list[list[int]] = [[] for _ in range(size)]
    load = [0] * size
    for prompt in sorted(groups, key=lambda prompt: -tokens[prompt]):
        taker = load.index(min(load))
        load[taker] += tokens[prompt]
        dealt[taker] += [number for numbers in groups[prompt].values() for number in numbers]
    return [sorted(numbers) for numbers in dealt]


def shared_logps(scorer: Scorer, distributed: Distributed, pairs: Sequence[Pair]) -> Tensor:
    """What `scorer.without_gradient(pairs)` gives, float32 [len(pairs)], nats: each process computes a share, all get all."""
    dealt = split_work(scorer.sequences, pairs, distributed.size)
    passes = max(scorer.passes([pairs[number] for number in share]) for share in dealt) if distributed.is_sharded else 0
    mine = dealt[distributed.rank]
    logps = torch.zeros(len(pairs), dtype=torch.float32, device=scorer.device)
    logps[mine] = scorer.without_gradient([pairs[number] for number in mine], passes=passes)
    return distributed.sum(logps)
