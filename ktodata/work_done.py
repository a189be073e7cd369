"""How far long work is, for whoever listens: it says so without knowing by whom it is run, and mostly nobody hears it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# gets text, in words; of what is counted also done and unit and, where they are known, total and seconds_left
Listener = Callable[[Mapping[str, Any]], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Inside, `listener` is called each time that work of this thread says how far it is."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def working_on(what: str) -> None:
    """What is done from here on, and cannot be counted: "laying out the map"."""
    if (listener := _listener.get()) is not None:
        listener({"text": what})


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
            listener(self._event(time.perf_counter() - self._started))

    def _event(self, seconds: float) -> dict[str, Any]:
        timed = self._even and self._done > 0 and seconds > 0
        counts: dict[str, Any] = {"done": self._done, "unit": self._what}
        words = f"{self._done:,} {self._what}"
        if self._of is not None:
            counts["total"], words = self._of, f"{self._done:,} of {self._of:,} {self._what}"
        if timed:
            rate = self._done / seconds
            words += f", {rate:,.0f} a second" if rate >= 10 else f", {rate:.2g} a second"
        if timed and self._of is not None:
            left = max(self._of - self._done, 0) / rate
            counts["seconds_left"] = round(left, 1)
            words += f", {duration(left)} left for these" if left else ""
        return {"text": words, **counts}


def duration(seconds: float) -> str:
    """A span of time in the unit that fits."""
    if seconds < 90:
        return f"{max(1, round(seconds)):,} s"
    return f"{round(seconds / 60):,} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
