"""A causal LM as one module from a pack of tokens to log-probs: what all passes go through, and what several devices share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from ktodata.train.data.packing import Pack
from ktodata.train.model.attention import Kernel, Layout, Memory, packed_attention
from ktodata.train.model.frozen_layers import decoder_of, lower_states, upper_states
from ktodata.train.model.logit_form import LogitForm, nearest_form, possible_forms
from ktodata.train.model.logprobs import TokenBatch, completion_logps, full_logit_logps, own_logit_logps, summed, token_logps
from ktodata.train.model.mlp_checkpointing import checkpoint_mlps

Tensor = Any


class Passed(NamedTuple):
    """What a forward pass gives: log-probs, and what completions after the same prompts need later."""

    logps: Tensor  # float32 [K], nats, of the pack's sequences
    hidden: Tensor  # float [L, H], no gradient
    memory: Memory | None
    per_token: Tensor  # float32 [C], nats, of the pack's targets; no gradient


class PackedModel(nn.Module):  # type: ignore[misc]
    """Log-probs of the completions in a pack. frozen_layers: the lowest layers that never train; they run without gradient."""

    def __init__(self, model: Any, *, kernel: Kernel, dtype: Any, frozen_layers: int, reach: int) -> None:
        super().__init__()
        self.model, self.kernel, self.dtype, self.frozen_layers, self.reach = model, kernel, dtype, frozen_layers, reach
        self.form = LogitForm()  # as `measure_form` finds it

    def forward(self, pack: Pack, *, earlier: Passed | None = None, states: Tensor | None = None, record: bool = False) -> Passed:
        """One pass over `pack`.

        earlier : the pass over the pack that `pack` continues
        states : float [L, H], what the frozen layers make of the pack, where it is known
        record : keep keys and values for a continuation
        """
        device = next(self.model.parameters()).device
        memory = Memory() if record else None
        layout = Layout(
            pack.segments, self.kernel, self.reach, on(pack.positions, device), memory, earlier.memory if earlier else None
        )
        hidden = self._hidden(pack, layout, states, device)
        pool, sources = hidden, pack.sources
        if earlier is not None:  # a completion's first token is predicted by the last one of its prompt, in the earlier pack
            pool = torch.cat([hidden, earlier.hidden])
            sources = np.where(sources < 0, len(hidden) - 1 - sources, sources)
        head = self.model.get_output_embeddings()
        per_token = token_logps(pool[on(sources, device)], head, on(pack.targets, device), self.dtype, self.form)
        logps = summed(per_token, on(pack.owners, device), len(pack.sequences))
        return Passed(logps, hidden.detach(), memory, per_token.detach())

    def lower(self, pack: Pack) -> Tensor:
        """Float [L, H]: the frozen layers' output on `pack`."""
        device = next(self.model.parameters()).device
        layout = Layout(pack.segments, self.kernel, self.reach, on(pack.positions, device))
        with packed_passes(self.model, self.reach):
            return self._lower(pack, layout, device)[0]

    def padded(self, batch: TokenBatch, method: Literal["padded", "logits"]) -> tuple[Tensor, Tensor]:
        """Log-probs of a padded batch's completion tokens, and the rows that they belong to: float32 [C], nats; int64 [C].

        Through decoder and head apart, or through the model's own logits.
        """
        if method == "logits":
            return full_logit_logps(self.model, batch)
        hidden = decoder_of(self.model)(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        return completion_logps(hidden, self.model.get_output_embeddings(), batch, self.dtype, self.form)

    def plain(self, input_ids: Tensor, places: Tensor) -> Tensor:
        """Log-probs of the tokens at `places` of one row [1, T], by the model's own logits alone: float32 [places], nats."""
        return own_logit_logps(self.model, input_ids, places)

    def own_router_loss(self, input_ids: Tensor) -> Tensor | None:
        """The model's own loss of its routers on one row, int64 [1, T]: float []; None where its code gives none."""
        return getattr(self.model(input_ids=input_ids, use_cache=False, output_router_logits=True), "aux_loss", None)

    def measure_form(self, input_ids: Tensor) -> None:
        """See on one row, int64 [1, T], what the model does to its head's output, where its config says that it may."""
        forms = possible_forms(self.model.config)
        if len(forms) > 1:
            hidden = decoder_of(self.model)(input_ids=input_ids, use_cache=False).last_hidden_state
            own = self.model(input_ids=input_ids, use_cache=False).logits
            self.form = nearest_form(forms, self.model.get_output_embeddings()(hidden).float(), own.float())

    def _hidden(self, pack: Pack, layout: Layout, states: Tensor | None, device: Any) -> Tensor:
        decoder, positions = decoder_of(self.model), layout.positions[None]
        with packed_passes(self.model, self.reach):
            if not self.frozen_layers:
                inputs = {"input_ids": on(pack.ids, device)[None]}
                return decoder(**inputs, position_ids=positions, use_cache=False, layout=layout).last_hidden_state[0]
            lower = self._lower(pack, layout, device) if states is None else states[None]
            return upper_states(decoder, lower, self.frozen_layers, position_ids=positions, layout=layout)[0]

    def _lower(self, pack: Pack, layout: Layout, device: Any) -> Tensor:
        ids, positions = on(pack.ids, device)[None], layout.positions[None]
        return lower_states(decoder_of(self.model), ids, self.frozen_layers, position_ids=positions, layout=layout)


@contextmanager
def packed_passes(model: Any, reach: int = 0) -> Iterator[None]:
    """Inside, the model runs over packs: by their layout, and with feed-forward blocks that keep less."""
    with packed_attention(model, reach), checkpoint_mlps(model):
        yield


def on(numbers: Any, device: Any) -> Tensor:
    """A numpy array as a tensor on the device, without waiting for it there."""
    return torch.from_numpy(numbers).to(device, non_blocking=True)
