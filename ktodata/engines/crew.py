"""Several workers on one line of parts: whoever is free takes the next, and results come in the order of the parts."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

from ktodata.engines.engine import Floats, Part
from ktodata.errors import EngineError

AHEAD = 2  # parts a worker that are taken before the eldest is done: nobody waits, and results do not pile up
ATTEMPTS = 3  # at a part over which workers are lost: by then the part is the likely reason
Idle = SimpleQueue["Worker | None"]


class Worker(Protocol):
    """A process somewhere that has the work."""

    def join(self, idle: Idle) -> None:
        """Put itself there as soon as it can take a part, started anew if it was lost; once stopped, do nothing."""

    def run(self, part: Part) -> Floats:
        """The work of the part. Raises WorkerLostError where the process ends over it."""

    def stop(self) -> None:
        """End it, also in the middle of a part."""


class WorkerLostError(Exception):
    """A process is no more. Its text says what is known of the reason."""


def map_by_crew(workers: Sequence[Worker], parts: Iterable[Part]) -> Generator[Floats]:
    """The workers' results of the parts, in order; the workers are stopped at the end, or when nobody listens any more.

    Raises what the work raises, and EngineError for a part over which ATTEMPTS workers were lost.
    """
    idle: Idle = SimpleQueue()
    threads = ThreadPoolExecutor(len(workers))  # they only wait, each for a worker
    waiting: deque[Future[Floats]] = deque()
    try:
        for worker in workers:
            worker.join(idle)
        for number, part in enumerate(parts, start=1):
            waiting.append(threads.submit(_run, idle, part, number))
            if len(waiting) > AHEAD * len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in workers:
            worker.stop()
        idle.put(None)  # who waits for a worker goes
        threads.shutdown(cancel_futures=True)


def _run(idle: Idle, part: Part, number: int) -> Floats:
    """A part that lost its worker is given to the next that is free: a new one may take long to come."""
    reason = None
    for _ in range(ATTEMPTS):
        worker = idle.get()
        if worker is None:
            idle.put(None)
            break
        try:
            return worker.run(part)
        except WorkerLostError as lost:
            reason = lost
        finally:
            worker.join(idle)
    raise EngineError(
        f"part {number:,} ({len(part):,} texts) lost its worker {ATTEMPTS} times, last: {reason}. What was done before is "
        "kept, and the same command goes on from there: with fewer workers or a smaller model, if memory was short."
    )
