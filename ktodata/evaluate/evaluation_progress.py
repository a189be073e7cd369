"""How far an evaluation is: to a function, to the terminal, or not at all."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ktodata.train.data.ragged_ids import Numbers
from ktodata.work_done import duration

Report = Callable[[dict[str, Any]], None]


class RowsScored:
    """Rows that one model has scored, reported after every pass as {"model", "rows", "of", "rows_per_second", "seconds_left"}.

    tokens : int [N], of each row, as time goes with those: passes hold rows of one length, the longest come first
    seconds_left : for the rows of this model; only once a pass was timed that was not the first, which is slower. Nobody knows
        yet how long reading the other model and writing answers takes.
    """

    def __init__(self, model: str, tokens: Numbers, report: Report) -> None:
        self._model, self._tokens, self._report = model, tokens, report
        self._done = np.zeros(len(tokens), dtype=bool)
        self._started = time.perf_counter()
        self._first: tuple[float, int] | None = None  # when the first pass was done, and its tokens
        self._tell({})

    def add(self, rows: Sequence[int]) -> None:
        """A pass over these rows is done; over some of them again, where memory ran out."""
        now = time.perf_counter()
        self._done[list(rows)] = True
        pace: dict[str, Any] = {"rows_per_second": float(self._done.sum()) / max(now - self._started, 1e-9)}
        done = int(self._tokens[self._done].sum())
        if self._first is None:
            self._first = now, done
        elif now > self._first[0] and done > self._first[1]:
            seconds_a_token = (now - self._first[0]) / (done - self._first[1])
            pace["seconds_left"] = seconds_a_token * (int(self._tokens.sum()) - done)
        self._tell(pace)

    def _tell(self, pace: dict[str, Any]) -> None:
        self._report({"model": self._model, "rows": int(self._done.sum()), "of": len(self._tokens), **pace})


def progress_words(event: dict[str, Any]) -> str:
    """One event in a line."""
    if "rows" not in event:
        return f"{event['model']} model: {event['text']}"
    words = [f"{event['model']} model: {event['rows']:,} of {event['of']:,} rows"]
    if "rows_per_second" in event:
        words.append(f"{event['rows_per_second']:,.3g} rows/s")
    if event.get("seconds_left"):
        words.append(f"{duration(event['seconds_left'])} left for these")
    return ", ".join(words)


def rows_left(event: dict[str, Any]) -> dict[str, Any]:
    """One event as work_done.Listener has it."""
    counts = {"done": event["rows"], "total": event["of"], "unit": "rows"} if "rows" in event else {}
    left = {"seconds_left": round(event["seconds_left"], 1)} if "seconds_left" in event else {}
    return {"text": progress_words(event), **counts, **left}


@contextmanager
def reporting_evaluation(progress: bool | Report) -> Iterator[Report]:
    """A function to be called with events: the given one, a line on the terminal, or nothing."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda event: None
    else:
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text("evaluating")) as status:
            yield lambda event: status.update(Text(progress_words(event)))
