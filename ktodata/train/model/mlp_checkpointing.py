"""Gated feed-forward blocks that keep two tensors for the backward pass instead of four: a quarter of a decoder's activations.

What lies between the two projections and the third is cheap and is computed again. Values and gradients stay what they were.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Tensor = Any


@contextmanager
def checkpoint_mlps(model: Any) -> Iterator[None]:
    """Inside, every block of the form down(silu(gate(x)) * up(x)) with a plain linear `down` runs as described above."""
    blocks = [part for part in model.modules() if _is_gated(part)]
    try:
        for block in blocks:
            block.forward = partial(_forward, block)
        yield
    finally:
        for block in blocks:
            del block.forward


def _is_gated(part: Any) -> bool:
    """The blocks of Llama, Mistral, Qwen and their kin; adapters and quantized layers are left alone."""
    return (
        [name for name, _ in part.named_children()] == ["gate_proj", "up_proj", "down_proj", "act_fn"]
        and type(part.down_proj) is nn.Linear
        and type(part.act_fn).__name__ in ("SiLU", "SiLUActivation")
        and "forward" not in vars(part)
    )


def _forward(block: Any, x: Tensor) -> Tensor:
    gate, up, down = block.gate_proj(x), block.up_proj(x), block.down_proj
    product: Tensor = _GatedProduct.apply(gate, up, down.weight)
    return product if down.bias is None else product + down.bias


class _GatedProduct(torch.autograd.Function):  # type: ignore[misc]
    """(silu(gate) * up) @ weight.T for gate, up [..., I] and weight [H, I]."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return F.linear(F.silu(gate) * up, weight.to(gate.dtype))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        of_weight = None
        if ctx.needs_input_grad[2]:
            flat, inner = upstream.reshape(-1, upstream.shape[-1]), (silu * up).reshape(-1, gate.shape[-1])
            of_weight = (flat.T @ inner).to(weight.dtype)
        of_product = upstream @ weight.to(upstream.dtype)
        of_up = of_product * silu
        of_gate = of_product.mul_(up).mul_(sigmoid + silu * (1 - sigmoid))
        return of_gate, of_up, of_weight
