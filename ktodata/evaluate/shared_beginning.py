"""Greedy answers to prompts that begin alike, as all do that have one system message: the beginning is computed once.

An answer that has ended leaves the batch, so that nothing is computed for it any more. transformers' `generate` does neither.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ktodata.train.data.ragged_ids import Ids

TAKEN = ("position_ids", "attention_mask", "past_key_values", "logits_to_keep")
# of a model's own generation settings, those that leave greedy answers as they are
HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "do_sample", "temperature", "top_p", "top_k"),
    *("use_cache", "output_attentions", "output_hidden_states"),
}


def can_share_beginning(model: Any) -> bool:
    """Whether the model keeps each token's keys and values, nothing else, and has no way of writing of its own."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    generation = getattr(own, "generation_config", None)
    if generation is None or own.config.is_encoder_decoder or not set(TAKEN) <= set(inspect.signature(own.forward).parameters):
        return False
    set_by_model = {name for name in generation.to_diff_dict() if not name.startswith(("_", "transformers_"))}
    layers = DynamicCache(config=own.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers) and set_by_model <= HARMLESS


def write_with_shared_beginning(
    model: Any, prompts: Sequence[Ids], *, end: int | None, max_new_tokens: int, device: Any
) -> list[list[int]]:
    """New token ids for each prompt, the likeliest each time, up to and without `end`."""
    written: list[list[int]] = [[] for _ in prompts]
    with torch.no_grad():
        batch = _Batch.of(model, prompts, device)
        for _ in range(max_new_tokens):
            likeliest = batch.step(model)
            going = [place for place, token in enumerate(likeliest) if token != end]
            for place in going:
                written[batch.alive[place]].append(likeliest[place])
            if not going:
                break
            batch.keep(going)
    return written


@dataclass
class _Batch:
    """Answers that go on. alive : numbers of their prompts; ids, positions : int64 [N, new tokens]; mask : [N, all tokens]"""

    cache: Any
    alive: list[int]
    ids: Any
    positions: Any
    mask: Any

    @classmethod
    def of(cls, model: Any, prompts: Sequence[Ids], device: Any) -> "_Batch":
        from transformers.cache_utils import DynamicCache

        cache, shared = DynamicCache(config=model.config), common_beginning(prompts)
        if shared:
            beginning = torch.from_numpy(prompts[0][:shared].astype(np.int64))[None].to(device)
            model(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        ids, mask = (tensor.to(device) for tensor in _padded([prompt[shared:] for prompt in prompts], shared))
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        return cls(cache, list(range(len(prompts))), ids, positions, mask)

    def step(self, model: Any) -> list[int]:
        """The likeliest next token of each answer, which becomes what is read next."""
        made = model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.ids, self.positions = made.logits[:, -1].argmax(-1, keepdim=True), self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        likeliest: list[int] = self.ids[:, 0].tolist()
        return likeliest

    def keep(self, places: list[int]) -> None:
        """The others have ended."""
        if len(places) < len(self.alive):
            stays = torch.tensor(places, device=self.ids.device)
            self.cache.batch_select_indices(stays)
            self.ids, self.positions, self.mask = self.ids[stays], self.positions[stays], self.mask[stays]
            self.alive = [self.alive[place] for place in places]


def common_beginning(prompts: Sequence[Ids]) -> int:
    """How many tokens all prompts begin with, leaving each a token at least."""
    shortest = min(map(len, prompts))
    differ = (np.stack([prompt[:shortest] for prompt in prompts]) != prompts[0][:shortest]).any(axis=0)
    return int(np.append(np.flatnonzero(differ), shortest - 1).min())


def _padded(rests: Sequence[Ids], shared: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [N, W], padded on the left: what is written follows directly; mask [N, shared + W], 1 where a token counts)."""
    width = max(map(len, rests))
    ids, mask = torch.zeros(len(rests), width, dtype=torch.int64), torch.ones(len(rests), shared + width, dtype=torch.int64)
    for number, rest in enumerate(rests):
        ids[number, width - len(rest) :] = torch.from_numpy(rest.astype(np.int64))
        mask[number, shared : shared + width - len(rest)] = 0
    return ids, mask
