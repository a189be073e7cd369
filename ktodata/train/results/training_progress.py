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

        text = TextColumn("training {task.description}")
        with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("reference", total=None)
            latest: dict[str, Any] = {}

            def show(event: dict[str, Any]) -> None:
                latest.update(event)
                bar.update(task, completed=event["step"], total=event["steps"], description=described(latest))

            yield show


def described(latest: dict[str, Any]) -> str:
    """The last known loss, z0 (nats), speed (tokens/s) and held-out AUC in a few words; what is not known yet is left out."""
    auc = (latest.get("held_out") or {}).get("auc")
    words = [
        f"{word} {value:{form}}"
        for word, value, form in (
            ("loss", latest.get("loss"), ".4f"),
            ("z0", latest.get("z0"), ".2f"),
            ("tokens/s", latest.get("tokens_per_second"), ",.0f"),
            ("AUC", auc and auc["value"], ".3f"),
        )
        if value is not None
    ]
    return " ".join(words)
