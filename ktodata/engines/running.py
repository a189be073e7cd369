"""From what a user says of an engine to work that is mapped with it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ktodata.engines.engine import InProcess, mapped_with
from ktodata.engines.local_processes import LocalProcesses
from ktodata.errors import SettingError
from ktodata.extras import require
from ktodata.meter import cores
from ktodata.settings import unknown_name

ENGINES = ("in_process", "local", "ray")


@contextmanager
def running_on(name: str | None, *, workers: int | None = None, address: str | None = None) -> Iterator[None]:
    """Inside, this thread maps its parts with the engine of that name; None: in this process.

    workers : processes; None: as many as there are cores (local), or processors that Ray has. address : of a Ray cluster
    Raises SettingError for a name or number that is none, MissingExtraError and EngineError where Ray is not there.
    """
    check_engine(name, workers=workers, address=address)
    with _open(name or "in_process", workers, address) as engine, mapped_with(engine):
        yield


def check_engine(name: str | None, *, workers: int | None = None, address: str | None = None) -> None:
    """Raise what `running_on` raises before it starts or joins anything."""
    name = name or "in_process"
    if name not in ENGINES:
        raise SettingError(unknown_name("there is no engine", name, ENGINES))
    if workers is not None and workers < 1:
        raise SettingError(f"workers is a number from 1 on; got {workers}.")
    if workers is not None and name == "in_process":
        raise SettingError("workers says how many processes an engine starts: give engine local or ray, too.")
    if address is not None and name != "ray":
        raise SettingError("address is that of a Ray cluster: give engine ray, too.")
    if name == "ray":
        require("ray", what="the engine ray", extra="ray")


def _open(name: str, workers: int | None, address: str | None) -> Any:
    """A context that gives the engine."""
    if name == "ray":
        from ktodata.engines.ray_cluster import ray_cluster

        return ray_cluster(workers, address)
    count = cores() if workers is None else workers
    if name == "in_process" or count == 1:  # a process beside this one would only hold the model twice
        return nullcontext(InProcess())
    return nullcontext(LocalProcesses(count))
