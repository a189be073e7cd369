"""Several workers on one line of parts: whoever is free takes the next, and results come in the order of the parts."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

from ktodata.engines.engine import Floats, Part

AHEAD = 2  # parts a worker that are taken before the eldest is done: nobody waits, and results do not pile up


class Worker(Protocol):
    """A process somewhere that has the work."""

    def run(self, part: Part, name: str) -> Floats:
        """The work of the part. name : of the part, for people. Raises EngineError where the process ends over it."""

    def stop(self) -> None:
        """End it, also in the middle of a part."""


Idle = SimpleQueue[Worker | Exception]


def map_by_crew(workers: Sequence[Worker], idle: Idle, parts: Iterable[Part]) -> Iterator[Floats]:
    """The workers' results of the parts, in order; the workers are stopped at the end, or when nobody listens any more.

    idle : holds each worker once it can take a part; or the error by which one never will, which is raised
    """
    threads = ThreadPoolExecutor(len(workers))  # they only wait, each for a worker
    waiting: deque[Future[Floats]] = deque()
    try:
        for number, part in enumerate(parts, start=1):
            waiting.append(threads.submit(_run, idle, part, f"part {number:,} ({len(part):,} texts)"))
            if len(waiting) > AHEAD * len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in workers:
            worker.stop()
        threads.shutdown(cancel_futures=True)


def _run(idle: Idle, part: Part, name: str) -> Floats:
    worker = idle.get()
    try:
        if isinstance(worker, Exception):
            raise worker
        return worker.run(part, name)
    finally:
        idle.put(worker)
