"""Which process computes what of a step. Every process finds the shares of all others by itself: nothing is sent for it."""

from collections.abc import Sequence
from typing import Any

import torch

from ktodata.train.data.packing import Leaf, Leaves, Pair, packed_tokens
from ktodata.train.distributed.world import Distributed
from ktodata.train.model.scorer import Scorer

Tensor = Any


def split_work(leaves: Leaves, pairs: Sequence[Pair], size: int) -> list[list[int]]:
    """Positions in `pairs` for each of `size` processes, rising: those of one prompt together, tokens evened out.

    Prompts are dealt from the longest to the shortest, each to who has the fewest tokens. A pure function of its arguments.
    """
    groups: dict[int, dict[Leaf, list[int]]] = {}
    for number, pair in enumerate(pairs):
        leaf = leaves.of(pair)
        groups.setdefault(leaf[0], {}).setdefault(leaf, []).append(number)
    tokens = {prompt: packed_tokens(leaves, list(group)) for prompt, group in groups.items()}
    dealt: list[list[int]] = [[] for _ in range(size)]
    load = [0] * size
    for prompt in sorted(groups, key=lambda prompt: -tokens[prompt]):
        taker = load.index(min(load))
        load[taker] += tokens[prompt]
        dealt[taker] += [number for numbers in groups[prompt].values() for number in numbers]
    return [sorted(numbers) for numbers in dealt]


def shared_logps(scorer: Scorer, world: Distributed, pairs: Sequence[Pair]) -> Tensor:
    """What `scorer.without_gradient(pairs)` gives, float32 [len(pairs)], nats: each process computes a share, all get all."""
    dealt = split_work(scorer.leaves, pairs, world.size)
    passes = max(scorer.passes([pairs[number] for number in share]) for share in dealt) if world.in_step else 0
    mine = dealt[world.rank]
    logps = torch.zeros(len(pairs), dtype=torch.float32, device=scorer.device)
    logps[mine] = scorer.without_gradient([pairs[number] for number in mine], passes=passes)
    return world.sum(logps)
