"""The processes that train together. A training alone is a distributed of one, in which every sum is already whole."""

from typing import Any, Literal, Protocol

Tensor = Any
Parallel = Literal["ddp", "fsdp", "hsdp"]


class Distributed(Protocol):
    """What a training asks of the processes that share it; every process calls the same things in the same order."""

    rank: int
    size: int
    # every process has all weights (ddp), a part of each (fsdp), or a part that each machine has once (hsdp); None: alone
    parallel: Parallel | None

    @property
    def is_sharded(self) -> bool:
        """Whether all must pass through the model together, equally often: each then lends the others its part of the weights."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same in each."""

    def sum_gradients(self, model: Any) -> None:
        """Give every process the gradients of the whole step: their sum over all processes."""

    def broadcast(self, value: Any) -> Any:
        """What the process of rank 0 has; any picklable value. Every process waits for it."""

    def all_equal(self, value: str) -> bool:
        """Whether all processes have the same value, known to each. Every process waits for all others."""


class SingleProcess:
    """One process."""

    rank = 0
    size = 1
    parallel: Parallel | None = None
    is_sharded = False

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def sum_gradients(self, model: Any) -> None:
        """Nothing: they are whole."""

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def all_equal(self, value: str) -> bool:
        """Always."""
        return True
