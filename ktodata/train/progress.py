"""How a training says where it is: to a function, to the terminal, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[dict[str, Any]], None]


@contextmanager
def reporting(progress: bool | Report) -> Iterator[Report]:
    """A function to be called with {"step", "steps", ...} after every step: the given one, a rich bar on stderr, or nothing."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda event: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        said = TextColumn("training {task.description}")
        with Progress(said, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("reference", total=None)

            def show(event: dict[str, Any]) -> None:
                loss = f"loss {event['loss']:.4f}" if "loss" in event else None
                bar.update(task, completed=event["step"], total=event["steps"], description=loss)

            yield show
