"""What is seen while a recipe runs: a line for each stage, a spinner, in a log how far a long one is; or all of it as JSON."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from ktodata.work_done import heard_by

EVERY = 30.0  # seconds between two lines of one stage where there is no terminal
EVERY_JSON = 1.0


class Progress:
    """Shows a run's events. Call it with each event; use it as a context so that the spinner ends with the run.

    as_json : each event as a line of JSON on standard error: kind (start, progress, done, cached, note), stage, number, of; of
        progress text and, where it is counted, done, total, unit, seconds_left
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._as_json = as_json
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False)
        self._status: Status | None = None
        self._printed_at = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def __call__(self, event: Mapping[str, Any]) -> None:
        place = f"[{event['number']}/{event['of']}] {event['stage']}"
        if self._as_json:
            self._print_json(event)
        elif event["kind"] in ("start", "progress"):
            self._spin(f"{place}: {event['text']}" if "text" in event else place)
        else:
            self._end()
            self._printed_at = time.monotonic()
            self._console.print(_event_line(place, event), soft_wrap=True)  # a line stays a line, however long

    def of_stage(self, stage: str, work: Mapping[str, Any]) -> None:
        """How far work is that is done alone, as work_done.Listener has it."""
        if self._as_json:
            self._print_json({"stage": stage, "kind": "progress", **work})
        else:
            self._spin(f"{stage}: {work['text']}")

    def _print_json(self, event: Mapping[str, Any]) -> None:
        """One line; of what is counted no more than one a second."""
        now = time.monotonic()
        if "done" not in event or now - self._printed_at >= EVERY_JSON:
            self._printed_at = now
            self._console.print(json.dumps(dict(event), default=str), soft_wrap=True)

    def _spin(self, text: str) -> None:
        """Show `text` beside the spinner; plain Text, so that nothing in it is read as markup."""
        if not self._console.is_terminal:
            self._log(text)
        elif self._status is None:
            self._status = self._console.status(Text(text), spinner="dots")
            self._status.start()
        else:
            self._status.update(Text(text))

    def _log(self, text: str) -> None:
        if time.monotonic() - self._printed_at >= EVERY:
            self._printed_at = time.monotonic()
            self._console.print(text)

    def _end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextmanager
def show_progress(of: str = "working", *, quiet: bool = False, as_json: bool = False) -> Iterator[Progress]:
    """Inside, work says on standard error how far it is: a spinner on a terminal, a line now and then in a log.

    of : what the lines begin with. as_json : each a line of JSON: stage, kind, text, and where it is counted done, total, unit,
    seconds_left
    """
    with Progress(quiet=quiet, as_json=as_json) as progress, heard_by(partial(progress.of_stage, of)):
        yield progress


def _event_line(place: str, event: Mapping[str, Any]) -> str:
    """What stays on the screen: of a note its text, of a stage that is over how long it took, and what was said beside that."""
    if event["kind"] == "note":
        return f"{event['stage']}: {event['text']}"
    took = "unchanged" if event["kind"] == "cached" else f"{event['seconds']:.1f} s"
    return f"{place}: {took}; {event['text']}" if "text" in event else f"{place}: {took}"
