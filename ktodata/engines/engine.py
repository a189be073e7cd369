"""An engine says where a pure function of a part runs, and changes nothing of its result.

What is mapped is dear: texts through a model. Stages and tables stay where they are. Parts are cut by what they hold, never by
the number of workers, so that every engine gives the same bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ktodata.errors import ModelError

Floats = NDArray[np.float32]
Part = Sequence[Any]


@dataclass(eq=False)
class ModelWork(ABC):
    """Parts through a model, which is loaded by the first call in each process and is not sent along.

    name : the model's. device : where it runs: cpu, cuda or cuda:N
    """

    name: str
    device: str
    made_with: str = field(default="", init=False)
    _model: Any = field(default=None, init=False, repr=False)

    @abstractmethod
    def __call__(self, part: Part) -> Floats:
        """A line for each item of the part, float32 [n, d]."""

    @abstractmethod
    def load(self) -> Any:
        """The model."""

    @abstractmethod
    def identity(self, model: Any) -> str:
        """All that the numbers depend on beside the part."""

    @property
    def model(self) -> Any:
        """The model, of the same identity in every process. Raises ModelError where it is another."""
        if self._model is None:
            model = self.load()
            identity = self.identity(model)
            if self.made_with not in ("", identity):
                raise ModelError(
                    f"the model {self.name!r} of a worker is not the one that this run has: other weights, another device or "
                    "other libraries. Every node needs the same model and the same packages."
                )
            self.made_with, self._model = identity, model
        return self._model

    def unload(self) -> None:
        """Let go of the model in this process: the parts run elsewhere."""
        self._model = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_model": None}


class Engine(Protocol):
    """What a run maps its parts with. It is used as a context."""

    def map(self, work: ModelWork, parts: Iterable[Part]) -> Generator[Floats]:
        """`work` of each part, in order; a few parts are in flight, never all. Closed, it ends what it has started.

        Raises what `work` raises, and EngineError.
        """

    def __str__(self) -> str: ...


class InProcess:
    """One part after the other, here, with all threads that the libraries take."""

    def map(self, work: ModelWork, parts: Iterable[Part]) -> Generator[Floats]:
        """As Engine has it."""
        yield from map(work, parts)

    def __str__(self) -> str:
        return "in_process"


_engine: ContextVar[Engine | None] = ContextVar("engine", default=None)


def current_engine() -> Engine:
    """The engine of the run that this is a part of; without one, this process."""
    return _engine.get() or InProcess()


@contextmanager
def mapped_with(engine: Engine) -> Iterator[None]:
    """Inside, it is the engine of this thread."""
    token = _engine.set(engine)
    try:
        yield
    finally:
        _engine.reset(token)
