"""How far a long loop is, for whoever listens: the loop says it without knowing by whom it is run, and mostly nobody hears it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, `listener` is called with a line of words each time that a loop of this thread says how far it is."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class WorkDone:
    """Counts what a loop has done. Time left is by the pace so far, and said only once something was timed.

    what : a plural, e.g. "tokens". of : how many there will be; None: nobody knows
    even : whether each takes about as long as any other; where not, no pace is said
    """

    def __init__(self, what: str, of: int | None = None, *, even: bool = True) -> None:
        self._what, self._of, self._even, self._done = what, of, even, 0
        self._started = time.perf_counter()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        if (listener := _listener.get()) is not None:
            listener(self.words())

    def words(self) -> str:
        """What is done, of how many, how fast, and the time left for the others."""
        seconds = time.perf_counter() - self._started
        amount = f"{self._done:,} {self._what}" if self._of is None else f"{self._done:,} of {self._of:,} {self._what}"
        if not (self._even and self._done and seconds > 0):
            return amount
        rate = self._done / seconds
        pace = f"{amount}, {rate:,.0f} a second" if rate >= 10 else f"{amount}, {rate:.2g} a second"
        left = 0 if self._of is None else self._of - self._done
        return f"{pace}, {duration(left * seconds / self._done)} left for these" if left > 0 else pace


def duration(seconds: float) -> str:
    """A span of time in the unit that fits."""
    if seconds < 90:
        return f"{max(1, round(seconds)):,} s"
    return f"{round(seconds / 60):,} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
