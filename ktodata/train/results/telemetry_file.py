"""The telemetry of an earlier training: what it saw of each row, read from a run folder, a model folder or the file itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import EmptyDataError, FormatError, MissingColumnError, RunError
from ktodata.files import check_siblings, digest_file, read_note, read_parquet, siblings_of
from ktodata.formats.data_files import nearest

FILE, TRAINING = "telemetry.parquet", "training.json"
# what is read of it; as ktodata.train.results.telemetry writes it
COLUMNS = pl.Schema(
    {
        "row_id": pl.String(),
        "part": pl.String(),
        "epoch": pl.Int32(),
        "step": pl.Int32(),
        "label": pl.Boolean(),
        "log_ratio": pl.Float32(),
        "z0": pl.Float32(),
        "completion_tokens": pl.Int32(),
    }
)
USUAL_BETA = 0.1


@dataclass(frozen=True)
class Telemetry:
    """Observations of one training: one line a row and pass, the columns of COLUMNS; beta : per nat; digest : of the file."""

    observations: pl.DataFrame
    beta: float
    digest: str
    metrics: Mapping[str, Any]


def read_telemetry(path: Path | str) -> Telemetry:
    """Read what a training saw of its rows.

    path : a run folder (its model/ is read), a model folder, or a telemetry.parquet. beta is taken from the training.json beside
        it; without one it is 0.1, and metrics["beta_from"] says so.

    Raises FormatError (missing, damaged, or not what that training wrote), MissingColumnError (another kind of table) and
    EmptyDataError (no rows).
    """
    place = _telemetry_path(Path(path))
    training = place.with_name(TRAINING)
    _check_whole(place, training)
    observations = _observations(place)
    beta, source = _recorded_beta(training)
    return Telemetry(observations, beta, digest_file(place), {"lines": observations.height, "beta": beta, "beta_from": source})


def _telemetry_path(path: Path) -> Path:
    """The file that a path stands for."""
    tried = [path / "model" / FILE, path / FILE] if path.is_dir() else [path]
    existing = next((file for file in tried if file.is_file()), None)
    if existing is not None:
        return existing
    if path.is_dir():
        raise FormatError(
            f"telemetry: {path} holds no {FILE}, nor does its model/. Give the folder of a run that trained a model."
        )
    raise FormatError(f"telemetry: there is no {str(path)!r}. {nearest(str(path))}")


def _check_whole(place: Path, training: Path) -> None:
    """Raise FormatError where the training beside the file is damaged, or speaks of another file."""
    try:
        if training.is_file() and place.name in siblings_of(training):
            check_siblings(training, [place.name])
    except RunError as error:
        raise FormatError(f"telemetry: {error}") from error


def _observations(place: Path) -> pl.DataFrame:
    try:
        table = read_parquet(place)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FormatError(f"telemetry: {str(place)!r} is no Parquet file that can be read ({type(error).__name__}).") from error
    if missing := [name for name in COLUMNS.names() if name not in table.columns]:
        raise MissingColumnError(
            f"telemetry: {str(place)!r} has no column {', '.join(map(repr, missing))}. Give the file as training wrote it."
        )
    if table.is_empty():
        raise EmptyDataError(f"telemetry: {str(place)!r} has no rows: that training saw none.")
    try:
        return table.select(COLUMNS.names()).cast(COLUMNS)
    except pl.exceptions.PolarsError as error:
        wrong = [name for name, dtype in COLUMNS.items() if table.schema[name] != dtype]
        raise FormatError(
            f"telemetry: {str(place)!r} holds other values than training writes in {', '.join(map(repr, wrong))}."
        ) from error


def _recorded_beta(training: Path) -> tuple[float, str]:
    """(beta of the training, where that was read)."""
    if not training.is_file():
        return USUAL_BETA, f"the usual value, as no {TRAINING} is beside the file"
    try:
        beta = float(read_note(training)["settings"]["beta"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"telemetry: {str(training)!r} is damaged ({type(error).__name__}: {error}).") from error
    if not beta > 0:
        raise FormatError(f"telemetry: {str(training)!r} says beta {beta}; it is above 0.")
    return beta, TRAINING
