"""Attention over a pack: each segment sees itself from left to right, and its prompt wholly. No padding, no mask over the pack.

It is put into a model through transformers' attention interface, so that the model's own code runs around it. The kernel:
  varlen   torch's variable-length flash attention: CUDA, bf16 or fp16
  sdpa     one call of torch's scaled dot product attention a segment: everywhere, and where a layer sees less than all
           that stands before; spelt out where scores are capped (Gemma 2) or share their softmax with a sink (gpt-oss)

What a layer sees, the model says by the rule that its mask would be made by: windows, chunks. A segment's mask is that rule at
the places of the segment's own sequence.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ktodata.train.data.packing import Segment
from ktodata.train.model.frozen_layers import layer_configs

Tensor = Any
Kernel = Literal["varlen", "sdpa"]

NAME = "ktodata_packed"
VARLEN = "varlen"
# what some models hand to their attention beyond queries, keys and values
ALTERS_SCORES = ("position_bias", "head_mask")


@dataclass
class Memory:
    """Keys and values of a pack, per layer, for completions that come after the same prompts later; they carry no gradient."""

    keys: dict[int, Tensor] = field(default_factory=dict)  # layer number -> [1, heads, L, D]
    values: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class Layout:
    """What attention must know of a pack: handed through the model to every layer."""

    segments: tuple[Segment, ...]
    kernel: Kernel
    reach: int  # tokens of the longest sequence there may be, in this pack or another
    positions: Tensor  # int64 [L], the place of each token in its own sequence
    record: Memory | None = None  # written to
    earlier: Memory | None = None  # prefixes are in there, not in this pack
    plan: dict[Any, Any] = field(default_factory=dict)  # masks, or index tensors of the varlen kernel: made once a pack


def pick_kernel(device: Any, compute_dtype: Any, config: Any) -> Kernel:
    """The varlen kernel where torch has it for this device, this precision and the heads of the model's `config`, else sdpa."""
    fits = all(width % 8 == 0 and width <= 256 for width in map(_head_width, layer_configs(config)))
    if device.type != "cuda" or compute_dtype not in (torch.bfloat16, torch.float16) or not fits:
        return "sdpa"
    there = find_spec("torch.nn.attention.varlen") is not None  # torch 2.10 and newer
    return "varlen" if there and torch.cuda.get_device_capability(device) >= (8, 0) else "sdpa"


def _head_width(config: Any) -> int:
    heads, size = (getattr(config, name, None) for name in ("num_attention_heads", "hidden_size"))
    return int(getattr(config, "head_dim", None) or (size // heads if heads and size else 0))


@dataclass(frozen=True)
class Sight:
    """Which places of its sequence a query sees, where those are not simply all before it; made once for each kind of layer.

    rule : (batch, head, place of the query, place of the key) -> bool, over tensors of places; transformers' `mask_function`
    """

    rule: Callable[..., Tensor]

    def mask(self, length: int, prefix: int, device: Any) -> Tensor:
        """Bool [length, prefix + length] of a segment of this length after a prefix."""
        places = torch.arange(prefix + length, device=device)
        none = torch.zeros((), dtype=torch.int64, device=device)
        return self.rule(none, none, places[prefix:, None], places[None, :]).expand(length, prefix + length)


@contextmanager
def packed_attention(model: Any, reach: int = 0) -> Iterator[None]:
    """Inside, the model's layers attend by the Layout they are handed; outside, as it was loaded.

    reach : tokens of the longest sequence there may be; 0 for layers that are run again, without masks

    Raises NotImplementedError, in the pass, for models whose attention a Layout does not describe.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, partial(sight_in_place_of_mask, reach))
    configs = {
        id(part.config): part.config for part in model.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")
    }
    before = {number: config._attn_implementation for number, config in configs.items()}
    finds_packs = masking_utils.find_packed_sequence_indices
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        # it would take places that begin anew for other sequences, and hide each prompt from its completions
        masking_utils.find_packed_sequence_indices = lambda *_, **__: None
        yield
    finally:
        masking_utils.find_packed_sequence_indices = finds_packs
        for number, config in configs.items():
            config._attn_implementation = before[number]


def sight_in_place_of_mask(
    reach: int, *_: Any, mask_function: Callable[..., Tensor], local_size: int | None = None, device: Any = "cpu", **__: Any
) -> Sight | None:
    """In place of a mask over the pack, what a layer sees; None where that is all before it in sequences of up to `reach` tokens.

    Raises NotImplementedError for layers that look ahead.
    """
    from transformers.masking_utils import causal_mask_function

    if mask_function is causal_mask_function or (local_size is not None and local_size >= reach):
        return None
    sight, size = Sight(mask_function), reach if local_size is None else local_size + 1
    seen = sight.mask(size, 0, device)
    if seen.triu(1).any():
        raise NotImplementedError("attention to what comes later")
    return None if bool(seen.tril().sum() == size * (size + 1) // 2) else sight


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Sight | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer over a pack.

    query [1, Hq, L, D]; key, value [1, Hkv, L, D]. Returns [1, L, Hq, D] and no weights.
    softcap : scores are squeezed to below it, softcap * tanh(score / softcap)
    s_aux : [Hq], the score of a sink that takes its part of each query's attention, and gives nothing
    Raises NotImplementedError for what it does not do (no layout, other altered scores, a mask, dropout): such models run padded.
    """
    if layout is None:
        raise NotImplementedError("its layers do not hand on what their attention is told of a pack")
    given = attention_mask is not None and not isinstance(attention_mask, Sight)
    if given or dropout or any(other.get(name) is not None for name in ALTERS_SCORES):
        raise NotImplementedError("scores that are altered, a mask, or dropout")
    sight = attention_mask
    if sight is None and sliding_window is not None and sliding_window < layout.reach:
        sight = _window(layout, sliding_window)
    query = _at_own_places(module, query, layout)
    if layout.record is not None:
        layout.record.keys[module.layer_idx] = key.detach()
        layout.record.values[module.layer_idx] = value.detach()
    earlier = None if layout.earlier is None else (layout.earlier.keys[module.layer_idx], layout.earlier.values[module.layer_idx])
    plain = sight is None and softcap is None and s_aux is None
    if layout.kernel == "varlen" and plain:
        return _varlen(query, key, value, earlier, layout, scaling), None
    by_torch = partial(F.scaled_dot_product_attention, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    spelt_out = partial(_spelt_out, scale=scaling, softcap=softcap, sink=s_aux)
    scores = by_torch if softcap is None and s_aux is None else spelt_out
    return _by_segment(query, key, value, earlier, layout, sight, scores), None


def _window(layout: Layout, size: int) -> Sight:
    """That of a layer which was handed its window: itself and the `size` - 1 places before."""
    name = ("window", size)
    if name not in layout.plan:
        layout.plan[name] = Sight(lambda _, __, query, key: (key <= query) & (key > query - size))
    sight: Sight = layout.plan[name]
    return sight


def _at_own_places(module: Any, query: Tensor, layout: Layout) -> Tensor:
    """Queries of layers that scale them by their place, which they take to be that in the pass (Llama 4, arXiv:2501.19399)."""
    if not getattr(module, "attn_temperature_tuning", False) or getattr(module, "use_rope", True):
        return query

    def scale(places: Tensor) -> Tensor:
        return torch.log1p(torch.floor((places.float() + 1) / module.floor_scale)) * module.attn_scale + 1

    ratio = scale(layout.positions) / scale(torch.arange(query.shape[2], device=query.device))
    return query * ratio[:, None].to(query.dtype)


def _by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    earlier: tuple[Tensor, Tensor] | None,
    layout: Layout,
    sight: Sight | None,
    attended_by: Callable[..., Tensor],
) -> Tensor:
    lengths = [segment.end - segment.start for segment in layout.segments]
    # split, not sliced: the gradient of all pieces is put together once
    queries, keys, values = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    numbers = {segment.start: number for number, segment in enumerate(layout.segments)}
    out = []
    for number, segment in enumerate(layout.segments):
        k, v = keys[number], values[number]
        if segment.prefix is not None:
            start, end = segment.prefix
            if earlier is not None:
                before = tuple(tensor[:, :, start:end] for tensor in earlier)
            else:
                before = (keys[numbers[start]], values[numbers[start]])
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        mask = _segment_mask(layout, sight, lengths[number], _width(segment.prefix), query.device)
        attended = attended_by(queries[number], k, v, attn_mask=mask, is_causal=mask is None)
        out.append(attended.transpose(1, 2))
    return torch.cat(out, dim=1)


def _segment_mask(layout: Layout, sight: Sight | None, length: int, prefix: int, device: Any) -> Tensor | None:
    """Bool [length, prefix + length], what a segment sees after its prefix, made once a pack. None: all before it, no prefix."""
    if sight is None and not prefix:
        return None
    name = (sight, length, prefix)
    if name not in layout.plan:
        plain = torch.ones(length, prefix + length, dtype=torch.bool, device=device).tril(prefix) if sight is None else None
        layout.plan[name] = plain if sight is None else sight.mask(length, prefix, device)
    return layout.plan[name]


def _spelt_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor,
    is_causal: bool,
    scale: float | None,
    softcap: float | None,
    sink: Tensor | None,
) -> Tensor:
    """What torch's own attention gives, where scores are altered before the softmax: [1, Hq, T, D]."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    scores = (query @ key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril() if is_causal else attn_mask
    scores = scores.float().masked_fill(seen.logical_not(), -torch.inf)
    if sink is not None:
        scores = torch.cat([scores, sink.float().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)], dim=-1)
    shares = scores.softmax(dim=-1)[..., : key.shape[2]]
    return shares.to(value.dtype) @ value


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, earlier: tuple[Tensor, Tensor] | None, layout: Layout, scaling: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if VARLEN not in layout.plan:
        layout.plan[VARLEN] = _varlen_plan(layout, query.device, offset=0 if earlier is None else earlier[0].shape[2])
    plan = layout.plan[VARLEN]
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if earlier is not None:
        k, v = (torch.cat([old[0].transpose(0, 1), new]) for old, new in zip(earlier, (k, v), strict=True))
    if plan["keys"] is not None:
        k, v = k.index_select(0, plan["keys"]), v.index_select(0, plan["keys"])
    # parameters came and were renamed between releases of torch
    options: dict[str, Any] = {"window_size": (-1, 0)} if varlen_takes("window_size") else {"is_causal": True}
    if query.shape[1] != key.shape[1] and varlen_takes("enable_gqa"):
        options["enable_gqa"] = True
    elif query.shape[1] != key.shape[1]:
        k, v = (tensor.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for tensor in (k, v))
    out = varlen_attn(q.contiguous(), k, v, plan["cu_q"], plan["cu_k"], plan["max_q"], plan["max_k"], scale=scaling, **options)
    return out[None]


def _varlen_plan(layout: Layout, device: Any, *, offset: int) -> dict[str, Any]:
    """Where queries and keys of each segment start; keys are gathered where a prompt serves several completions."""
    spans = [(segment.prefix, segment.start, segment.end) for segment in layout.segments]
    widths_q = [end - start for _, start, end in spans]
    widths_k = [end - start + _width(prefix) for prefix, start, end in spans]
    gathered = any(prefix is not None for prefix, _, _ in spans) or offset > 0
    # own keys stand after those of the earlier pack
    places = [
        np.concatenate([np.arange(*(prefix or (0, 0))), np.arange(offset + start, offset + end)]) for prefix, start, end in spans
    ]

    def on_device(numbers: Any, dtype: Any) -> Tensor:
        return torch.tensor(np.asarray(numbers), dtype=dtype).to(device, non_blocking=True)

    return {
        "cu_q": on_device(np.cumsum([0, *widths_q]), torch.int32),
        "cu_k": on_device(np.cumsum([0, *widths_k]), torch.int32),
        "max_q": max(widths_q),
        "max_k": max(widths_k),
        "keys": on_device(np.concatenate(places), torch.int64) if gathered else None,
    }


@cache
def varlen_takes(name: str) -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return name in inspect.signature(varlen_attn).parameters


def _width(span: tuple[int, int] | None) -> int:
    return 0 if span is None else span[1] - span[0]
