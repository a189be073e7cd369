"""Where the numbers of a training go while it runs: a file of JSON lines, or one of accelerate's trackers."""

import json
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from ktodata.errors import SettingError
from ktodata.extras import require
from ktodata.files import whole_file

LoggerName = Literal["jsonl", "tensorboard", "wandb", "trackio", "mlflow"]
Report = Callable[[dict[str, Any]], None]

PROJECT = "ktodata"
IN_FOLDER = ("jsonl", "tensorboard")


def check_loggers(names: Sequence[LoggerName], *, folder: Path | None) -> None:
    """Raise MissingExtraError for a logger whose package is not installed, SettingError for one that needs a folder."""
    for name in names:
        if name != "jsonl":
            require(name, what=f"logger {name!r}", extra=name)
            require("accelerate", what=f"logger {name!r}")
        if name in IN_FOLDER and folder is None:
            raise SettingError(f"logger {name!r} writes into out, which is not given. Give out, or leave {name!r} out.")


@contextmanager
def open_loggers(
    names: Sequence[LoggerName], *, folder: Path | None, settings: dict[str, Any], resumed_step: int = 0
) -> Iterator[Report]:
    """A function to be called with every event of the loop; it writes them to all of `names`.

    folder : gets log.jsonl, and TensorBoard's files in tensorboard/.
    settings : JSON values only; shown beside the curves.
    resumed_step : updates made before now. What is already logged of later steps is removed (jsonl) or hidden (tensorboard), as
        those steps are made again; wandb ignores a step that went by, trackio and mlflow have it twice.

    Raises as `check_loggers` does.
    """
    check_loggers(names, folder=folder)
    with ExitStack() as stack:
        reports = []
        for name in names:
            opened = _json_lines(folder, resumed_step) if name == "jsonl" else _tracker(name, folder, settings, resumed_step)
            reports.append(stack.enter_context(opened))

        def report(event: dict[str, Any]) -> None:
            for write in reports:
                write(event)

        yield report


def scalars(event: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of an event, as train/<name> or validation/<name>; an interval's ends as <name>_low, <name>_high."""
    held_out = event.get("held_out")
    part, values = ("train", event) if held_out is None else ("validation", held_out)
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {name if key == "value" else f"{name}_{key}": number for key, number in value.items()}
        elif name not in ("step", "steps"):
            flat[name] = value
    return {f"{part}/{name}": float(value) for name, value in flat.items() if _is_finite_number(value)}


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _without_gaps(value: Any) -> Any:
    """Without None and what is not finite, at every depth: JSON has no word for the latter."""
    if not isinstance(value, dict):
        return value
    cleaned = {name: _without_gaps(inner) for name, inner in value.items()}
    return {name: inner for name, inner in cleaned.items() if not _is_gap(inner)}


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


@contextmanager
def _json_lines(folder: Path | None, resumed_step: int) -> Iterator[Report]:
    assert folder is not None  # check_loggers refuses it
    path = folder / "log.jsonl"
    _drop_later_steps(path, resumed_step)
    with path.open("a", encoding="utf-8") as file:

        def report(event: dict[str, Any]) -> None:
            file.write(json.dumps(_without_gaps(event), allow_nan=False) + "\n")
            file.flush()

        yield report


def _drop_later_steps(path: Path, resumed_step: int) -> None:
    """Leave the lines of steps up to `resumed_step` only."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and resumed_step else []
    with whole_file(path) as scratch:
        scratch.write_text("".join(line + "\n" for line in lines if _step_of(line) <= resumed_step), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except json.JSONDecodeError:  # a killed process leaves half a line at the end
        return math.inf


@contextmanager
def _tracker(name: str, folder: Path | None, settings: dict[str, Any], resumed_step: int) -> Iterator[Report]:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate's own logger asks for it
    tracker = LOGGER_TYPE_TO_CLASS[name](**_tracker_options(name, folder, settings, resumed_step))
    tracker.start()
    try:
        if name == "tensorboard":  # its table of hyperparameters takes no lists or tables, and would begin anew at each resume
            tracker.log({"settings": f"```json\n{json.dumps(settings, indent=1)}\n```"}, step=resumed_step + 1)
        if name == "mlflow" and _kept_run_id(folder, name, resumed_step) is None:  # a run's parameters can be set once
            _keep_run_id(folder, name, tracker.tracker.info.run_id)
            tracker.store_init_configuration(settings)
        yield lambda event: tracker.log(scalars(event), step=event["step"])
    finally:
        tracker.finish()


def _tracker_options(name: str, folder: Path | None, settings: dict[str, Any], resumed_step: int) -> dict[str, Any]:
    """What the tracker is made with, so that a resumed training goes on where it was."""
    if name == "tensorboard":
        return {"run_name": "tensorboard", "logging_dir": str(folder), "purge_step": resumed_step + 1}
    if name == "mlflow":  # the server names a run
        return {"experiment_name": PROJECT, "run_id": _kept_run_id(folder, name, resumed_step)}
    run = {"run_name": PROJECT, "resume": "allow", "config": settings}  # accelerate's run_name is their project
    run_id = _kept_run_id(folder, name, resumed_step) or _keep_run_id(folder, name, uuid.uuid4().hex[:12])
    return run | ({"id": run_id, "dir": folder and str(folder)} if name == "wandb" else {"name": run_id, "embed": False})


def _kept_run_id(folder: Path | None, service: str, resumed_step: int) -> str | None:
    """The service's name for the training that is resumed; None: it is a new one."""
    file = folder and folder / f"{service}_run.txt"
    return file.read_text(encoding="utf-8").strip() if file and resumed_step and file.exists() else None


def _keep_run_id(folder: Path | None, service: str, run_id: str) -> str:
    """Keep the name in `folder`, so that a resumed training goes on under it."""
    if folder is not None:
        with whole_file(folder / f"{service}_run.txt") as scratch:
            scratch.write_text(run_id + "\n", encoding="utf-8")
    return run_id
