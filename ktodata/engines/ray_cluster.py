"""The engine of a Ray cluster: where workers are placed, how they are started again, and how data travel, is Ray's.

An actor a worker, so that a model is loaded once: of tasks that ask for a GPU, Ray ends the process after each.
"""

import logging
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

import ktodata
from ktodata.engines.crew import Idle, WorkerLostError, map_by_crew
from ktodata.engines.engine import Floats, ModelWork, Part
from ktodata.engines.local_processes import thread_limits
from ktodata.errors import EngineError
from ktodata.models import first_line
from ktodata.work_done import working_on

CONNECT_S = 5.0
REASON_CHARS = 300  # of Ray's last line on a loss: why, and then advice


@contextmanager
def ray_cluster(workers: int | None, address: str | None) -> Iterator["RayCluster"]:
    """The engine, connected: to `address`, else to where Ray itself looks (RAY_ADDRESS, this machine), else to a new Ray here.

    A connection that is there already, as in a notebook, is used, and left open.
    Raises EngineError where there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here sends nothing home
    import ray

    if ray.is_initialized():
        yield RayCluster(workers)
        return
    _check_reachable(address or os.environ.get("RAY_ADDRESS"))
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"cannot join the Ray cluster at {address or 'this machine'}: {first_line(error)}. A cluster that was started with "
            "tokens wants RAY_AUTH_MODE=token here, and its token; driver and nodes need the same Ray and the same Python."
        ) from error
    try:
        yield RayCluster(workers)
    finally:
        ray.shutdown()


class RayCluster:
    """Workers on the cluster: as many as were asked for, else one for each processor (or GPU, where the model runs on one)."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers

    def map(self, work: ModelWork, parts: Iterable[Part]) -> Generator[Floats]:
        """As Engine has it. No more workers than there are parts; they end with the map."""
        import ray

        kind, gpus = ("GPU", 1) if work.device.startswith("cuda") else ("CPU", 0)
        parts = iter(parts)
        first = list(islice(parts, self._workers or max(1, int(ray.cluster_resources().get(kind, 0)))))
        if not first:
            return
        work.unload()
        working_on(f"waiting for Ray: workers with a {kind} each, {len(first)} of them")
        actor = ray.remote(RayActor).options(num_cpus=1, num_gpus=gpus)
        workers = [RayWorker(partial(actor.remote, work)) for _ in first]
        yield from map_by_crew(workers, chain(first, parts))

    def __str__(self) -> str:
        return "ray" if self._workers is None else f"ray, {self._workers} workers"


class RayActor:
    """What runs in a process of Ray's. Its model is loaded by the first part, so that an end for want of memory is of a part."""

    def __init__(self, work: ModelWork) -> None:
        os.environ.update(thread_limits(1))
        self._work = work

    def version(self) -> str:
        return ktodata.__version__

    def run(self, part: Part) -> Floats:
        return self._work(part)


class RayWorker:
    """The driver's end of an actor. Where it is placed, and when there is room for it, is Ray's.

    place : gives a new actor
    """

    def __init__(self, place: Callable[[], Any]) -> None:
        self._place = place
        self._actor: Any = None
        self._up: Any = None  # a reference, ready once the actor is
        self._stopped = False

    def join(self, idle: Idle) -> None:
        """As crew.Worker has it."""
        if self._stopped:
            return
        if self._actor is not None:
            idle.put(self)
            return
        self._actor = self._place()
        self._up = self._actor.version.remote()
        self._up.future().add_done_callback(lambda done: idle.put(self))

    def run(self, part: Part) -> Floats:
        """As crew.Worker has it. Raises EngineError where a worker has another ktodata."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if (version := ray.get(self._up)) != ktodata.__version__:
                raise EngineError(
                    f"a Ray worker has ktodata {version}, and this is {ktodata.__version__}: have one on every node."
                )
            return np.asarray(ray.get(self._actor.run.remote(part)))
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            self._end()
            raise WorkerLostError(_reason(error)) from error

    def stop(self) -> None:
        """As crew.Worker has it."""
        self._stopped = True
        self._end()

    def _end(self) -> None:
        import ray

        actor, self._actor = self._actor, None
        if actor is not None:
            ray.kill(actor)


def _reason(error: Exception) -> str:
    """Why a worker was lost, in Ray's words: the last line, as those before it say where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:REASON_CHARS].rstrip(".")


def _check_reachable(address: str | None) -> None:
    """Raises EngineError where nobody listens: Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise EngineError(
            f"no Ray cluster at {address}: {first_line(error)}. `ray start --head` on a machine prints its address."
        ) from error
