"""How a training says where it is: to a function, to the terminal, or not at all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ktodata.work_done import Listener, duration

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


def updates_heard_by(listener: Listener) -> Report:
    """A function for `progress=` that says which update it is; and how long the others take, by those after the first reading.

    The first update is slower, and those before a resumed one were made elsewhere.
    """
    first: list[tuple[float, int]] = []

    def show(event: dict[str, Any]) -> None:
        if "step" not in event or "steps" not in event:
            return
        step, steps, now = event["step"], event["steps"], time.perf_counter()
        work = {"text": f"update {step} of {steps}", "done": step, "total": steps, "unit": "updates"}
        if step and not first:
            first.append((now, step))
        elif step and step > first[0][1]:
            left = (now - first[0][0]) / (step - first[0][1]) * (steps - step)
            work |= {"seconds_left": round(left, 1)}
            work["text"] += f", {duration(left)} left" if step < steps else ""
        listener(work)

    return show


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
