"""What each trained policy gave, on disk as soon as it is known: an experiment that was killed goes on from there.

FOLDER/<arm>-seed<n>-<key>/ holds scores.parquet (a line per held-out row) and metrics.json; and, where more was asked,
answers.parquet, probed.parquet (answers to prompts of files) and items.parquet (scores of lm-eval's items). The key is a digest
of all that the numbers depend on, so that changed rows or settings never meet old numbers; two arms of one key share a folder.
"""

import re
from pathlib import Path

import polars as pl

from ktodata.errors import RunError
from ktodata.experiments.arms import ArmTraining, TrainedArm
from ktodata.files import check_siblings, make_folder, read_note, read_parquet, remove_leftovers, whole_folder, write_note

TABLES = ("scores", "answers", "probed", "items")


class ArmStore:
    """Trained arms in a folder, or nowhere where there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None and folder.is_dir():
            remove_leftovers(folder)

    def __contains__(self, training: ArmTraining) -> bool:
        return self._place(training) is not None

    def find(self, training: ArmTraining) -> TrainedArm | None:
        """The arm as it was kept; None when there is none. Raises RunError when it is damaged."""
        place = self._place(training)
        if place is None:
            return None
        try:
            files = {name: place / f"{name}.parquet" for name in TABLES}
            tables = {name: read_parquet(file) for name, file in files.items() if name == "scores" or file.is_file()}
            check_siblings(place / "metrics.json")
            metrics = read_note(place / "metrics.json")
            return TrainedArm(training.arm.name, training.seed, metrics=metrics, **tables)
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise RunError(
                f"{place} is damaged ({type(error).__name__}). Remove that folder, and it is trained again."
            ) from error

    def keep(self, training: ArmTraining, arm: TrainedArm) -> None:
        """Write the arm, whole or not at all."""
        if self._folder is None:
            return
        name = re.sub(r"\W+", "-", training.arm.name).strip("-")
        make_folder(self._folder)
        with whole_folder(self._folder / f"{name}-seed{training.seed}-{training.key}") as scratch:
            for table in TABLES:
                if table == "scores" or not getattr(arm, table).is_empty():
                    getattr(arm, table).write_parquet(scratch / f"{table}.parquet")
            write_note(scratch / "metrics.json", arm.metrics, sorted(scratch.iterdir()))

    def _place(self, training: ArmTraining) -> Path | None:
        return None if self._folder is None else next(self._folder.glob(f"[!.]*-{training.key}"), None)
