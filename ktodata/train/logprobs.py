"""log p(completion | prompt): only the positions that predict a completion token go through the vocabulary projection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from ktodata.train.tokens import Ids

Tensor = Any

# logits of one chunk at a vocabulary of 50k in fp32: 400 MB
CHUNK_TOKENS = 2048


@dataclass(frozen=True)
class Batch:
    """B sequences, padded on the right to T."""

    input_ids: Tensor  # int64 [B, T]
    completion_mask: Tensor  # bool [B, T], true on completion tokens
    real_mask: Tensor  # bool [B, T], false on padding


def collate(sequences: Sequence[tuple[Ids, int]], device: Any) -> Batch:
    """Pad (token ids, completion start) on the right.

    Which id pads does not matter and no pad token is needed: in a causal model nothing real looks to its right, so there is no
    attention mask either, and attention runs its faster, purely causal kernel.
    """
    width = max(len(ids) for ids, _ in sequences)
    input_ids = np.zeros((len(sequences), width), dtype=np.int64)
    lengths = np.array([len(ids) for ids, _ in sequences])[:, None]
    starts = np.array([start for _, start in sequences])[:, None]
    for number, (ids, _) in enumerate(sequences):
        input_ids[number, : len(ids)] = ids
    position = np.arange(width)[None, :]
    real = position < lengths
    return Batch(*(torch.from_numpy(array).to(device) for array in (input_ids, real & (position >= starts), real)))


def completion_logps(hidden: Tensor, head: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """Summed log-probs of each row's completion: float32 [B], nats.

    hidden : float [B, T, H], what the head turns into logits
    head : [n, H] -> [n, V]; called on completion positions only, CHUNK_TOKENS at a time
    """
    predicts = batch.completion_mask[:, 1:]  # the position before a token predicts it
    row = predicts.nonzero()[:, 0]
    states, targets = hidden[:, :-1][predicts], batch.input_ids[:, 1:][predicts]
    if len(states) <= CHUNK_TOKENS:
        per_token = _token_logps(states, targets, head)
    else:
        # logits of a chunk are computed again in the backward pass instead of being kept
        parts = zip(states.split(CHUNK_TOKENS), targets.split(CHUNK_TOKENS), strict=True)
        per_token = torch.cat([checkpoint(_token_logps, s, t, head, use_reentrant=False) for s, t in parts])
    return torch.zeros(len(batch.input_ids), dtype=torch.float32, device=hidden.device).index_add(0, row, per_token)


def _token_logps(states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    return -F.cross_entropy(head(states).float(), targets, reduction="none")


def full_logit_logps(model: Any, batch: Batch) -> Tensor:
    """The same as `completion_logps` the plain way, through the model's own logits [B, T, V]: slow, for any architecture."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.real_mask.long(), use_cache=False).logits[:, :-1].float()
    per_token = torch.log_softmax(logits, -1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return (per_token * batch.completion_mask[:, 1:]).sum(-1)
