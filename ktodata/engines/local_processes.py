"""The engine of one machine: processes that each load the model once, and the cores shared out among them."""

import os
import pickle
import subprocess
import sys
from collections.abc import Generator, Iterable
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from ktodata.engines.crew import Idle, WorkerLostError, map_by_crew
from ktodata.engines.engine import Floats, ModelWork, Part
from ktodata.meter import cores
from ktodata.work_done import working_on

THREADS_OF = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")  # the matrix libraries go by the first, tokenizers by the second


def thread_limits(threads: int) -> dict[str, str]:
    """Environment of a process that may use so many threads; what the user has set holds."""
    return {name: os.environ.get(name, str(threads)) for name in THREADS_OF}


class LocalProcesses:
    """Processes that are started for a map and end with it, so that no model waits in memory for the next stage."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def map(self, work: ModelWork, parts: Iterable[Part]) -> Generator[Floats]:
        """As Engine has it. No more processes than there are parts; a single part is done here."""
        parts = iter(parts)
        first = list(islice(parts, self._workers))
        if len(first) < 2:
            yield from map(work, first)
            return
        work.unload()
        working_on(f"{len(first)} processes start, and load the model")
        packed, limits = pickle.dumps(work), thread_limits(max(1, cores() // len(first)))
        yield from map_by_crew([WorkerProcess(packed, limits) for _ in first], chain(first, parts))

    def __str__(self) -> str:
        return f"local, {self._workers} workers"


class WorkerProcess:
    """A process that is given the work once and then parts, one at a time. It is started when the first part comes.

    packed : the work, pickled. limits : environment that says how many threads it takes
    """

    def __init__(self, packed: bytes, limits: dict[str, str]) -> None:
        self._packed, self._limits = packed, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def join(self, idle: Idle) -> None:
        """As crew.Worker has it."""
        if not self._stopped:
            idle.put(self)

    def run(self, part: Part) -> Floats:
        """As crew.Worker has it."""
        try:
            error, made = self._send(part)
        except (EOFError, OSError, pickle.UnpicklingError):  # the process is no more, or stopped in the middle of its answer
            raise WorkerLostError(_ending(self._end(patience_s=5))) from None
        if error is not None:
            raise error
        return made

    def stop(self) -> None:
        """As crew.Worker has it."""
        self._stopped = True
        self._end()

    def _send(self, part: Part) -> tuple[Exception | None, Floats]:
        process = self._process or self._start()
        assert process.stdin and process.stdout
        pickle.dump(part, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        answer: tuple[Exception | None, Floats] = pickle.load(process.stdout)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        if self._stopped:
            raise EOFError
        # not multiprocessing: its processes import the user's script again, and outlive a driver that is killed
        places = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        command = [sys.executable, "-P", "-m", "ktodata.engines.worker_process"]
        environment = {**os.environ, **self._limits, "PYTHONPATH": places}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin
        pickle.dump(self._packed, self._process.stdin)
        return self._process

    def _end(self, patience_s: float = 0) -> int | None:
        """The process's exit code, once it is over: by itself, if it is so soon."""
        process, self._process = self._process, None
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return process.wait(patience_s)
        process.kill()
        return process.wait()


def _ending(code: int | None) -> str:
    return f"exit code {code}{': it was killed, mostly for want of memory' if code == -9 else ''}"
