"""Where the numbers of a training go while it runs: a file of JSON lines, TensorBoard, Weights & Biases, trackio."""

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

LoggerName = Literal["jsonl", "tensorboard", "wandb", "trackio"]
Report = Callable[[dict[str, Any]], None]

PROJECT = "ktodata"
IN_FOLDER = ("jsonl", "tensorboard")


def check_loggers(names: Sequence[LoggerName], *, folder: Path | None) -> None:
    """Raise MissingExtraError for a logger whose package is not installed, SettingError for one that needs a folder."""
    for name in names:
        if name != "jsonl":
            require(name, what=f"logger {name!r}", extra=name)
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
        those steps are made again; wandb ignores a step that went by, trackio has it twice.

    Raises as `check_loggers` does.
    """
    check_loggers(names, folder=folder)
    with ExitStack() as stack:
        reports = [stack.enter_context(OPEN[name](folder, settings, resumed_step)) for name in names]

        def report(event: dict[str, Any]) -> None:
            for one in reports:
                one(event)

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
    kept = {name: _without_gaps(inner) for name, inner in value.items()}
    return {name: inner for name, inner in kept.items() if not _is_gap(inner)}


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


@contextmanager
def _jsonl(folder: Path, settings: dict[str, Any], resumed_step: int) -> Iterator[Report]:
    path = folder / "log.jsonl"
    _cut(path, resumed_step)
    with path.open("a", encoding="utf-8") as file:

        def report(event: dict[str, Any]) -> None:
            file.write(json.dumps(_without_gaps(event), allow_nan=False) + "\n")
            file.flush()

        yield report


def _cut(path: Path, resumed_step: int) -> None:
    """Leave the lines of steps up to `resumed_step` only."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and resumed_step else []
    kept = [line for line in lines if _step_of(line) <= resumed_step]
    with whole_file(path) as scratch:
        scratch.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except json.JSONDecodeError:  # a killed process leaves half a line at the end
        return math.inf


@contextmanager
def _tensorboard(folder: Path, settings: dict[str, Any], resumed_step: int) -> Iterator[Report]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1) as writer:
        writer.add_text("settings", f"```json\n{json.dumps(settings, indent=1)}\n```", global_step=resumed_step + 1)

        def report(event: dict[str, Any]) -> None:
            for name, value in scalars(event).items():
                writer.add_scalar(name, value, global_step=event["step"])

        yield report


@contextmanager
def _wandb(folder: Path | None, settings: dict[str, Any], resumed_step: int) -> Iterator[Report]:
    import wandb

    run_id = _run_id(folder, "wandb", resumed_step)
    run = wandb.init(project=PROJECT, id=run_id, resume="allow", config=settings, dir=folder and str(folder))
    try:
        yield lambda event: run.log(scalars(event), step=event["step"])
    finally:
        run.finish()


@contextmanager
def _trackio(folder: Path | None, settings: dict[str, Any], resumed_step: int) -> Iterator[Report]:
    import trackio

    run_id = _run_id(folder, "trackio", resumed_step)
    run = trackio.init(project=PROJECT, name=run_id, resume="allow", config=settings, embed=False)
    try:
        yield lambda event: run.log(scalars(event), step=event["step"])
    finally:
        run.finish()


def _run_id(folder: Path | None, service: str, resumed_step: int) -> str:
    """The service's name for this training, kept in `folder` so that a resumed training goes on under it."""
    new = uuid.uuid4().hex[:12]
    if folder is None:
        return new
    file = folder / f"{service}_run.txt"
    if resumed_step and file.exists():
        return file.read_text(encoding="utf-8").strip()
    with whole_file(file) as scratch:
        scratch.write_text(new + "\n", encoding="utf-8")
    return new


OPEN: dict[LoggerName, Any] = {"jsonl": _jsonl, "tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
