"""log p(completion | prompt): only the positions that predict a completion token go through the vocabulary projection."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ktodata.train.data.ragged_ids import Ids
from ktodata.train.model.logit_form import LogitForm

Tensor = Any

# logits stored for the backward pass; beyond it they are computed again, tile by tile
MAX_STORED_LOGITS_MB = 1024
TILE_MB = 256
PLAIN = LogitForm()


@dataclass(frozen=True)
class TokenBatch:
    """B sequences, padded on the right to T."""

    input_ids: Tensor  # int64 [B, T]
    completion_mask: Tensor  # bool [B, T], true on completion tokens
    real_mask: Tensor  # bool [B, T], false on padding


def collate(sequences: Sequence[tuple[Ids, int]], device: Any) -> TokenBatch:
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
    return TokenBatch(*(torch.from_numpy(array).to(device) for array in (input_ids, real & (position >= starts), real)))


def completion_logps(
    hidden: Tensor, head: Any, batch: TokenBatch, dtype: Any = torch.float32, form: LogitForm = PLAIN
) -> tuple[Tensor, Tensor]:
    """(log-prob of each completion token: float32 [C], nats; the row that it belongs to: int64 [C]).

    hidden : float [B, T, H], what the head turns into logits
    """
    predicts = batch.completion_mask[:, 1:]  # the position before a token predicts it
    per_token = token_logps(hidden[:, :-1][predicts], head, batch.input_ids[:, 1:][predicts], dtype, form)
    return per_token, predicts.nonzero()[:, 0]


def summed(per_token: Tensor, owners: Tensor, count: int) -> Tensor:
    """Float32 [count]: sum of what each owns."""
    return torch.zeros(count, dtype=torch.float32, device=per_token.device).index_add(0, owners, per_token)


def token_logps(states: Tensor, head: Any, targets: Tensor, dtype: Any = torch.float32, form: LogitForm = PLAIN) -> Tensor:
    """The log-prob of each target token: float32 [n], nats.

    states : float [n, H]
    head : a linear layer, H -> V
    targets : int64 [n]
    dtype : of what is multiplied; sums are float32 always
    form : what becomes of the head's output before it is called logits
    """
    logps: Tensor = _TokenLogps.apply(states.to(dtype), head.weight, head.bias, targets, form)
    return logps


class _TokenLogps(torch.autograd.Function):  # type: ignore[misc]
    """Log-softmax of a projection, at one entry a row. The [n, V] logits exist once: their gradient is made in their place."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, form: LogitForm) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            weight = weight.to(states.dtype)  # the same tensor unless arithmetic is in bfloat16
            size = max(1, int(TILE_MB * 1e6 / (4 * len(weight))))
            needs_gradient = any(ctx.needs_input_grad)
            keep = needs_gradient and 4 * len(states) * len(weight) <= MAX_STORED_LOGITS_MB * 1e6
            stored, norms, picked = [], [], []
            for part in _tiles(len(states), size):
                logits = _logits(states[part], weight, bias, form)
                norms.append(torch.logsumexp(logits, dim=-1))
                picked.append(logits.gather(1, targets[part, None])[:, 0])
                if keep:
                    stored.append(logits)
            norm = _cat(norms, states)
        if needs_gradient:
            ctx.save_for_backward(states, weight, bias, targets, norm)
            ctx.stored, ctx.size, ctx.form = stored, size, form
        return _cat(picked, states) - norm

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets, norm = ctx.saved_tensors
        of_states, of_weight, of_bias = (
            torch.zeros_like(tensor, dtype=torch.float32) if wanted else None
            for tensor, wanted in zip((states, weight, bias), ctx.needs_input_grad[:3], strict=True)
        )
        stored = list(ctx.stored)
        ctx.stored = None  # they are overwritten: there is no second backward pass through here
        for part in _tiles(len(states), ctx.size):
            logits = stored.pop(0) if stored else _logits(states[part], weight, bias, ctx.form)
            slope = None if ctx.form == PLAIN else ctx.form.slope(logits)
            of_logits = logits.sub_(norm[part, None]).exp_().mul_(-upstream[part, None])
            of_logits.scatter_add_(1, targets[part, None], upstream[part, None].to(of_logits.dtype))
            if slope is not None:
                of_logits.mul_(slope)
            if of_bias is not None:
                of_bias += of_logits.sum(0)
            narrow = of_logits.to(states.dtype)
            if of_states is not None:
                of_states[part] = narrow @ weight
            if of_weight is not None:
                _add_product(of_weight, narrow.T, states[part])
        return None if of_states is None else of_states.to(states.dtype), of_weight, of_bias, None, None


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, form: LogitForm) -> Tensor:
    """Float32 [n, V]: rounded to 8 bits, as a plain bfloat16 product would be, a log-prob is off by some 0.05 nats a token."""
    output = _float_product(states, weight.T)
    return form.apply_(output if bias is None else output + bias.float())


def _float_product(left: Tensor, right: Tensor) -> Tensor:
    """The product of both in float32, whatever the precision of the two."""
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    with _products_of_narrow_numbers():
        return left.float() @ right.float()


@contextmanager
def _products_of_narrow_numbers() -> Iterator[None]:
    """Let a CPU's bfloat16 instructions take float32 numbers that were bfloat16 before: the products are exact all the same."""
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(settings, "fp32_precision"):  # before torch 2.9
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total`, which is float32."""
    if left.dtype == torch.float32:
        total.addmm_(left, right)  # no product of its own size beside it
    else:
        total += _float_product(left, right)


def _tiles(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _cat(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float32, device=like.device)


def full_logit_logps(model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """The same as `completion_logps` the plain way, through the model's own logits [B, T, V]: slow, for any architecture."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.real_mask.long(), use_cache=False).logits[:, :-1].float()
    per_token = torch.log_softmax(logits, -1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    predicts = batch.completion_mask[:, 1:]
    return per_token[predicts], predicts.nonzero()[:, 0]


def own_logit_logps(model: Any, input_ids: Tensor, places: Tensor) -> Tensor:
    """Log-probs of the tokens at `places` of one row, by the model's own logits there and nothing else: float32 [places], nats.

    input_ids : int64 [1, T]. Where the model takes it, only the logits of those places are made.
    """
    before = places - 1
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes_places = "logits_to_keep" in inspect.signature(base.forward).parameters
    kept = model(input_ids=input_ids, use_cache=False, **({"logits_to_keep": before} if takes_places else {})).logits[0]
    logits = kept if takes_places else kept[before]
    return torch.log_softmax(logits.float(), -1).gather(-1, input_ids[0, places, None])[..., 0]
