"""A distributed of several processes, over torch.distributed: NCCL between GPUs, gloo between CPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, Literal

import torch
import torch.distributed as dist

# Its functions' defaults are the group that is there when it is loaded, which is then never freed: its threads go on while Python
# ends, and now and then abort the process. Loaded here, before there is a group, it keeps none.
import torch.distributed.nn

from ktodata.errors import SettingError
from ktodata.train.distributed.interface import Distributed, Parallel, SingleProcess
from ktodata.train.distributed.sharding import is_sharded, processes_here

Tensor = Any

# how long one waits for the others. The first one alone writes the model, which torch's 10 minutes on GPUs may be too few for; a
# process that dies is seen by torchrun at once, whatever this is.
TIMEOUT = timedelta(hours=1)
# gradients summed in one go: larger ones are no faster, and each needs a copy
BUCKET_NUMBERS = 2**26


class Processes:
    """The processes of torch's default process group. In each, `device` is the one it trains on."""

    def __init__(self, parallel: Parallel, device: Any) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.parallel: Parallel | None = parallel
        self._device = device

    @property
    def is_sharded(self) -> bool:
        """Whether each holds a part of every matrix, which the others need at every pass."""
        return self.parallel in ("fsdp", "hsdp")

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same in each; `tensor` stays as it is."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def sum_gradients(self, model: Any) -> None:
        """Sum the gradients of what trains over all processes; for what is shared out, the backward pass has done so."""
        trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
        parameters = [parameter for parameter in trained if not is_sharded(parameter)]
        for parameter in parameters:
            if parameter.grad is None:  # this process had no row in the step
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in parameters]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def broadcast(self, value: Any) -> Any:
        """What the process of rank 0 has."""
        held = [value if self.rank == 0 else None]
        dist.broadcast_object_list(held, src=0, device=self._device)
        return held[0]

    def all_equal(self, value: str) -> bool:
        """Whether all processes have the same value."""
        values: list[str] = [""] * self.size
        dist.all_gather_object(values, value)
        return len(set(values)) == 1


@contextmanager
def process_group(device: str) -> Iterator[bool]:
    """Inside, the processes that torchrun started are one group, each on its own GPU; whether this one is the first (rank 0).

    device : as `fit` is given it; "auto" is cuda where there is one. Without torchrun there is no group, and one process.
    Raises SettingError when a machine has fewer GPUs than processes.
    """
    store = meeting_place()
    if store is None:
        yield True
        return
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        backend, number = "nccl", int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise SettingError(
                f"process {number} of this machine finds {torch.cuda.device_count()} GPUs. Start at most one process for each: "
                f"torchrun --nproc-per-node {torch.cuda.device_count()}."
            )
        torch.cuda.set_device(number)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    yield dist.get_rank() == 0
    # after an error the others may wait in the middle of something: the launcher ends them
    dist.destroy_process_group()


@cache
def meeting_place() -> Any:
    """The store in which processes that torchrun started find each other; None without torchrun."""
    if "RANK" not in os.environ or not dist.is_available():
        return None
    return next(dist.rendezvous("env://"))[0]


def current_processes(parallel: Literal["auto"] | Parallel, device: Any) -> Distributed:
    """The processes that this one trains with: those of torch's default process group, if there is one.

    Raises SettingError when a launcher started several processes but they have not met, when they would share one GPU, or where
    hsdp is asked of machines that have not as many processes each.
    """
    if not (dist.is_available() and dist.is_initialized()):
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started > 1:
            raise SettingError(
                f"a launcher started {started} processes, but they do not know of each other: each would train alone, and write "
                "to the same place. Use torchrun -m ktodata.train, or call torch.distributed.init_process_group() before fit()."
            )
        return SingleProcess()
    if dist.get_world_size() == 1:
        return SingleProcess()
    if device.index is not None:
        raise SettingError(
            f"device is {str(device)!r} in each of {dist.get_world_size()} processes. Give auto, cpu or cuda: with cuda, process "
            "number n of a machine trains on its GPU number n."
        )
    if parallel == "auto":
        parallel = "fsdp" if device.type == "cuda" else "ddp"
    processes = Processes(parallel, device)
    if parallel == "hsdp":
        _check_alike_machines(processes)
    return processes


def _check_alike_machines(processes: Processes) -> None:
    """Raise SettingError unless as many processes, two or more, were started on each machine."""
    here = processes_here()
    # all are asked before anything is refused, so that they refuse together
    if not processes.all_equal(str(here)) or here < 2 or processes.size % here:
        raise SettingError(
            "parallel is hsdp, which shares the weights out within each machine: torchrun must start as many processes, two or "
            f"more, on each; this one has {here} of {processes.size}. Use --nproc-per-node, or parallel='fsdp'."
        )


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in order, in runs of at most BUCKET_NUMBERS numbers, or one gradient."""
    bucket: list[Tensor] = []
    held = 0
    for gradient in gradients:
        if bucket and held + gradient.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.numel()
    if bucket:
        yield bucket
