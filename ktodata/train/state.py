"""How far a training is."""

import time
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import torch

from ktodata.train.distributed.sharding import own_part, shard_like
from ktodata.train.objectives import RunningMean

Tensor = Any


@dataclass(frozen=True)
class Weights:
    """A copy of what trains in a model, in the host's memory: whole, or this process's share of a model that is shared out."""

    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, model: Any) -> "Weights":
        """A copy of the weights as they are now, shared out as they are."""
        return cls({name: tensor.to("cpu", copy=True) for name, tensor in trainable(model).items()})

    def restore(self, model: Any) -> None:
        """Give `model` these weights."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own_part(parameters[name]).copy_(own_part(shard_like(tensor, parameters[name])))


def trainable(model: Any) -> dict[str, Tensor]:
    """What trains, by name: frozen weights come from the base model again."""
    return {name: parameter.detach().contiguous() for name, parameter in model.named_parameters() if parameter.requires_grad}


@dataclass
class State:
    """What a training has done so far. With weights, optimizer and random state it is all that a resume needs."""

    step: int = 0  # updates made
    history: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    telemetry: list[pl.DataFrame] = field(default_factory=list)
    running: RunningMean = field(default_factory=RunningMean)  # of rewards, for objectives that compare with it
    pass_tokens: int | None = None  # most tokens of one pass, once that is known: a resumed training cuts its updates as before
    best: Weights | None = None  # those of the best evaluation, when training may stop early
    template_day: str | None = None  # that prompts name, where a chat template writes the day: a resumed training keeps it
    # what the process that began this training says of its reference pass, and what it took until the last checkpoint
    reference: dict[str, Any] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)  # tokens, as in scorer.Work, of all processes
    seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)  # when this process did: not part of what is saved
    read_at: float | None = None  # perf_counter when numbers were last read: not part of what is saved

    @property
    def seconds_so_far(self) -> float:
        """In the training loop, of this process and of those that it goes on from."""
        return self.seconds + time.perf_counter() - self.began
