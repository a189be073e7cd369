"""What a training gives back, in memory and as a folder."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ktodata.errors import RunError
from ktodata.files import make_folder, read_note, read_sibling_table, write_note
from ktodata.models import load_causal_lm, no_progress_bars
from ktodata.train.results.group_margins import by_group
from ktodata.train.results.summary import as_html, summary_lines
from ktodata.train.results.telemetry import summarise
from ktodata.train.results.trained_folder import check_one_training, check_out, remove_earlier

if TYPE_CHECKING:
    from ktodata.train.results.training_figures import Drawing


@dataclass(frozen=True)
class TrainResult:
    """A finished training. `model` and `tokenizer` are None in one that was loaded, until `with_model`."""

    history: pl.DataFrame  # one line per update
    held_out: list[dict[str, Any]]  # one entry per evaluation of the validation rows
    telemetry: pl.DataFrame  # one line per row and epoch or evaluation; columns in ktodata.train.results.telemetry.SCHEMA
    metrics: dict[str, Any]
    folder: Path | None  # where the model (or adapter) and its tokenizer were saved
    model: Any = field(default=None, repr=False)  # the trained model itself
    tokenizer: Any = field(default=None, repr=False)

    def per_row(self) -> pl.DataFrame:
        """What training saw of each row, one line per row; columns in `ktodata.train.results.telemetry.summarise`."""
        return summarise(self.telemetry, beta=self._beta())

    def by_group(self, feedback: pl.DataFrame, column: str) -> pl.DataFrame:
        """Which labels, sources or raters the rest argues against; see `ktodata.train.results.group_margins.by_group`."""
        return by_group(self.per_row(), feedback, column)

    def plot(self) -> "Drawing":
        """Loss, z0, rewards, held-out AUC, gradient norm and learning rate over updates, as a matplotlib figure."""
        from ktodata.train.results.training_figures import training_figure

        return training_figure(self.history, self.held_out, beta=self._beta())

    def plot_rows(self) -> "Drawing":
        """Training rows on a map: how sure the model was of each label, and how much it wavered, as a matplotlib figure.

        Raises EmptyDataError when no row was seen twice.
        """
        from ktodata.train.results.training_figures import row_map

        return row_map(self.per_row())

    def save(self, folder: Path | str) -> None:
        """Model, tokenizer, telemetry.parquet and, as the last, training.json: where that is, the rest is whole.

        An earlier training in `folder` leaves it, an adapter too, which would be read in this one's place.
        Weights are saved in the dtypes that the base's are stored in (`saved_dtype`, `saved_float32` in training.json), as they
        were evaluated.

        Raises RunError when the model is not in memory, SettingError for the folder of the model that it was trained from.
        """
        import torch

        from ktodata.train.model.stored_dtype import SavedAs, held_as

        if self.model is None:
            raise RunError(f"the model is in {self.folder}, not in memory. Call with_model() first, or copy that folder.")
        out = Path(folder)
        check_out(out, self.metrics["settings"]["model"])
        make_folder(out)
        scratch = out / ".writing"
        shutil.rmtree(scratch, ignore_errors=True)
        dtype = getattr(torch, self.metrics.get("saved_dtype", "float32"))
        with no_progress_bars(), held_as(self.model, SavedAs(dtype, frozenset(self.metrics.get("saved_float32", ())))):
            self.model.save_pretrained(scratch)
        self.tokenizer.save_pretrained(scratch)
        self.telemetry.write_parquet(scratch / "telemetry.parquet")
        training = {**self.metrics, "history": self.history.to_dicts(), "held_out": self.held_out}
        write_note(scratch / "training.json", training, sorted(scratch.iterdir()))
        remove_earlier(out, {file.name for file in scratch.iterdir()})
        for file in sorted(scratch.iterdir(), key=lambda file: file.name == "training.json"):
            file.replace(out / file.name)
        scratch.rmdir()

    @classmethod
    def load(cls, folder: Path | str) -> "TrainResult":
        """A finished training as `save` or `fit` left it, without its model.

        Raises RunError when the folder holds no finished training, or a damaged one.
        """
        place = Path(folder)
        if not (place / "training.json").is_file():
            raise RunError(f"{place} holds no finished training: training.json, which is written last, is not there.")
        try:
            facts = read_note(place / "training.json")
            history, held_out = pl.DataFrame(facts.pop("history"), infer_schema_length=None), facts.pop("held_out")
            telemetry = read_sibling_table(place / "training.json", "telemetry.parquet")
        except (RunError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"the training in {place} is damaged ({type(error).__name__}: {error}). Train again into it."
            ) from error
        return cls(history=history, held_out=held_out, telemetry=telemetry, metrics=facts, folder=place)

    def with_model(self) -> "TrainResult":
        """The same with the model and its tokenizer read from `folder`.

        Raises RunError for a training that was never saved, ModelError when the model cannot be read.
        """
        if self.model is not None:
            return self
        if self.folder is None:
            raise RunError("this training has neither its model in memory nor a folder to read it from.")
        check_one_training(self.folder)
        model, tokenizer = load_causal_lm(str(self.folder))
        return replace(self, model=model, tokenizer=tokenizer)

    def _beta(self) -> float:
        return float(self.metrics["settings"]["beta"])

    def _repr_html_(self) -> str:
        return as_html(summary_lines(self.metrics, self.history, self.held_out, self.folder))
