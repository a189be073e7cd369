"""Attention over a pack: each segment sees itself from left to right, and its prompt wholly. No padding, no mask over the pack.

It is put into a model through transformers' attention interface, so that the model's own code runs around it. The kernel:
  varlen   torch's variable-length flash attention: CUDA, bf16 or fp16
  sdpa     one call of torch's scaled dot product attention a segment: everywhere
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ktodata.train.data.packing import Segment

Tensor = Any
Kernel = Literal["varlen", "sdpa"]

NAME = "ktodata_packed"
SHORT_WINDOW = "a sliding window shorter than a sequence"
# what some models hand to their attention beyond queries, keys and values
ALTERS_SCORES = ("softcap", "s_aux", "position_bias", "head_mask")


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
    record: Memory | None = None  # written to
    earlier: Memory | None = None  # prefixes are in there, not in this pack
    plan: dict[Any, Any] = field(default_factory=dict)  # masks, or index tensors of the varlen kernel: made once a pack


def pick_kernel(device: Any, compute_dtype: Any, config: Any) -> Kernel:
    """The varlen kernel where torch has it for this device, this precision and the heads of the model's `config`, else sdpa."""
    heads, size = (getattr(config, name, None) for name in ("num_attention_heads", "hidden_size"))
    width = getattr(config, "head_dim", None) or (size // heads if heads and size else 0)
    if device.type != "cuda" or compute_dtype not in (torch.bfloat16, torch.float16) or width % 8 or width > 256:
        return "sdpa"
    there = find_spec("torch.nn.attention.varlen") is not None  # torch 2.10 and newer
    return "varlen" if there and torch.cuda.get_device_capability(device) >= (8, 0) else "sdpa"


@contextmanager
def packed_attention(model: Any, reach: int = 0) -> Iterator[None]:
    """Inside, the model's layers attend by the Layout they are handed; outside, as it was loaded.

    reach : tokens of the longest sequence there may be; 0 for layers that are run again, without masks

    Raises NotImplementedError, here or in the pass, for models whose attention a Layout does not describe.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    # some models say their window to the mask alone
    AttentionMaskInterface.register(NAME, partial(no_mask, reach))
    configs = {
        id(part.config): part.config for part in model.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")
    }
    if any(getattr(config, "attn_temperature_tuning", False) for config in configs.values()):
        raise NotImplementedError("attention that is scaled by a token's place in the pass")  # Llama 4 counts over the whole pack
    before = {number: config._attn_implementation for number, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for number, config in configs.items():
            config._attn_implementation = before[number]


def no_mask(reach: int, *_: Any, local_size: int | None = None, **__: Any) -> None:
    """In place of a mask over the pack, none: a Layout says who sees whom. Raises NotImplementedError for a short window."""
    if local_size is not None and local_size < reach:
        raise NotImplementedError(SHORT_WINDOW)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer over a pack.

    query [1, Hq, L, D]; key, value [1, Hkv, L, D]. Returns [1, L, Hq, D] and no weights. Raises NotImplementedError
    for what it does not do (a window shorter than the longest sequence, altered scores, a mask, dropout): such models run padded.
    """
    if sliding_window is not None and sliding_window < layout.reach:
        raise NotImplementedError(SHORT_WINDOW)
    if attention_mask is not None or dropout or any(other.get(name) is not None for name in ALTERS_SCORES):
        raise NotImplementedError("scores that are altered, a mask, or dropout")
    if layout.record is not None:
        layout.record.keys[module.layer_idx] = key.detach()
        layout.record.values[module.layer_idx] = value.detach()
    earlier = None if layout.earlier is None else (layout.earlier.keys[module.layer_idx], layout.earlier.values[module.layer_idx])
    by_kernel = _varlen if layout.kernel == "varlen" else _by_segment
    return by_kernel(query, key, value, earlier, layout, scaling), None


def _by_segment(
    query: Tensor, key: Tensor, value: Tensor, earlier: tuple[Tensor, Tensor] | None, layout: Layout, scaling: float | None
) -> Tensor:
    lengths = [segment.end - segment.start for segment in layout.segments]
    # split, not sliced: the gradient of all pieces is put together once
    queries, keys, values = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    numbers = {segment.start: number for number, segment in enumerate(layout.segments)}
    out = []
    for number, segment in enumerate(layout.segments):
        k, v, mask = keys[number], values[number], None
        if segment.prefix is not None:
            start, end = segment.prefix
            if earlier is not None:
                before = tuple(tensor[:, :, start:end] for tensor in earlier)
            else:
                before = (keys[numbers[start]], values[numbers[start]])
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
            mask = _after_prefix(layout, lengths[number], end - start, query.device)
        attended = F.scaled_dot_product_attention(
            queries[number],
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        out.append(attended.transpose(1, 2))
    return torch.cat(out, dim=1)


def _after_prefix(layout: Layout, length: int, prefix: int, device: Any) -> Tensor:
    """Bool [length, prefix + length]: all of the prefix, and what stands before in the segment; made once a pack."""
    shape = (length, prefix)
    if shape not in layout.plan:
        layout.plan[shape] = torch.ones(length, prefix + length, dtype=torch.bool, device=device).tril(prefix)
    return layout.plan[shape]


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, earlier: tuple[Tensor, Tensor] | None, layout: Layout, scaling: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if not layout.plan:
        layout.plan.update(_varlen_plan(layout, query.device, offset=0 if earlier is None else earlier[0].shape[2]))
    plan = layout.plan
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
