"""Losses as pure functions of tensors: no model, no settings object, no state."""

from dataclasses import dataclass
from typing import Any

import torch

from ktodata.errors import ShapeError

Tensor = Any  # a torch.Tensor; its shape and unit stand in each docstring


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: float = 0.1,
    desirable_weight: float | Tensor = 1.0,
    undesirable_weight: float | Tensor = 1.0,
) -> Tensor:
    """KTO loss of each of B examples: in [0, its weight], lower is better, 0.5 x weight before training starts.

    policy_logps, reference_logps : float [B]
        log p(completion | prompt) in nats, summed over completion tokens; prompt and padding left out.
    desirable : bool [B]
    kl : float []
        The reference point z0 in nats, >= 0, one for the batch, carrying no gradient.
    beta : per nat
        Larger holds the policy closer to the reference; 0.1 is the paper's usual value.
    desirable_weight, undesirable_weight : float, or float [B] for a weight of each row

    Returns float [B]. Raises ShapeError when the [B] tensors differ in length, naming each length.
    Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.
    """
    check_same_length(policy_logps=policy_logps, reference_logps=reference_logps, desirable=desirable)
    log_ratio = policy_logps - reference_logps  # [B], nats
    gain = torch.where(desirable, log_ratio - kl, kl - log_ratio)  # the sign is the only thing the label decides
    weight = torch.where(desirable, desirable_weight, undesirable_weight)
    return weight * (1 - torch.sigmoid(beta * gain))


def kto_gradient_weight(log_ratio: Tensor, kl: Tensor, *, beta: float = 0.1, weight: float | Tensor = 1.0) -> Tensor:
    """How hard each row pulls: |d loss / d log p(completion)|, float [B] in [0, weight x beta / 4], per nat.

    Largest where log_ratio equals kl, near 0 far away from it on either side; the same for both labels.
    """
    s = torch.sigmoid(beta * (log_ratio - kl))
    return weight * beta * s * (1 - s)


@dataclass(frozen=True)
class ReferencePoint:
    """KTO's z0 of one effective batch, in nats, and how well it is known."""

    value: Tensor  # float [], >= 0
    unclamped: Tensor  # float []
    standard_error: Tensor  # float [], of the unclamped mean; nan for a single pair


def reference_point(log_ratios: Tensor) -> ReferencePoint:
    """z0 from the log-ratios (nats, float [B]) of one effective batch's mismatched pairs: their mean, at least 0, no gradient.

    All micro-batches of a step go in together: a mean of clamped means would be biased upwards.
    """
    log_ratios = log_ratios.detach()
    mean = log_ratios.mean()
    error = log_ratios.std(unbiased=True) / len(log_ratios) ** 0.5 if len(log_ratios) > 1 else torch.full_like(mean, torch.nan)
    # a true KL is never negative, but its estimate from mismatched pairs can be: hence the clamp
    return ReferencePoint(value=mean.clamp(min=0), unclamped=mean, standard_error=error)


def check_same_length(**tensors: Tensor) -> None:
    """Raise ShapeError, naming each length, unless all tensors are [B] with one B."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        named = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ShapeError(f"these must all be [B] with the same B: {named}.")


@dataclass(frozen=True)
class Kto:
    """KTO as the training loop uses it: the loss above with its settings, times each row's own weight."""

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def loss(self, policy_logps: Tensor, reference_logps: Tensor, desirable: Tensor, kl: Tensor, row_weight: Tensor) -> Tensor:
        """Float [B]; shapes and units as in `kto_loss`, row_weight float [B]."""
        return kto_loss(
            policy_logps,
            reference_logps,
            desirable,
            kl,
            beta=self.beta,
            desirable_weight=self.desirable_weight * row_weight,
            undesirable_weight=self.undesirable_weight * row_weight,
        )

    def gradient_weight(self, log_ratio: Tensor, desirable: Tensor, kl: Tensor, row_weight: Tensor) -> Tensor:
        """Float [B]: |d loss / d log p| of each row, per nat."""
        weight = torch.where(desirable, self.desirable_weight, self.undesirable_weight) * row_weight
        return kto_gradient_weight(log_ratio, kl, beta=self.beta, weight=weight)
