"""All that a training is made of, in one place: the loop and what reads its numbers take it whole."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ktodata.train.checkpoints import Checkpoints
from ktodata.train.data.batches import BatchPlan
from ktodata.train.distributed.interface import Distributed, SingleProcess
from ktodata.train.early_stop import EarlyStop
from ktodata.train.model.scorer import Scorer
from ktodata.train.model.stored_dtype import SavedAs
from ktodata.train.objectives import Objective
from ktodata.train.reference import ReferenceLogps
from ktodata.train.state import State


@dataclass(frozen=True)
class Job:
    """A training: who scores, what is minimised, in which order, and how often it is evaluated."""

    scorer: Scorer
    reference: ReferenceLogps
    objective: Objective
    optimizer: Any
    plan: BatchPlan
    held_out: BatchPlan
    state: State
    learning_rate: Callable[[int], float]
    checkpoints: Checkpoints | None = None
    early_stop: EarlyStop | None = None
    micro_batch_tokens: int = 2048
    micro_batch_size: int | None = None
    max_grad_norm: float = 1.0
    eval_every_steps: int | None = None
    save_every_steps: int | None = None
    log_every_steps: int = 1
    report: Callable[[dict[str, Any]], None] = field(default=lambda event: None)
    distributed: Distributed = field(default_factory=SingleProcess)
    saved: SavedAs = field(default_factory=SavedAs)  # weights are evaluated as they would be saved
