"""How a recipe's feedback is read, before anything runs: `ktodata run --dry-run`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ktodata.formats import IngestResult
from ktodata.formats.label_rules import label_rule
from ktodata.models import load_tokenizer
from ktodata.pipeline.recipe import Recipe
from ktodata.report.sections.flow_section import reading_account
from ktodata.report.text import one_line
from ktodata.stages.export import Conversational, shard_table, written_form
from ktodata.stages.ingest import ingest

MAX_CHARS = 2_000  # of the first row that are shown


@dataclass(frozen=True)
class ReadingPreview:
    """What was read: the table, its metrics, and the first row as it will be trained on, or else as it will be written.

    label_note : what a threshold makes of the label, and whether all rows have one label; empty: neither
    first_row : with the template's own marks where the recipe trains a model that has one; null where no row was read
    """

    feedback: pl.DataFrame = field(repr=False)
    metrics: dict[str, Any]
    first_row: str | None
    label_note: str
    trained_on: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "reading": self.metrics,
            "label_note": self.label_note,
            "first_row": self.first_row,
            "as_trained_on": self.trained_on,
        }

    def lines(self) -> list[str]:
        """A line for each file, the account of all records, the labels, the first row."""
        files = [
            f"{file['name']}: {file['read_as']}{', ' * bool(file['records'])}{', '.join(file['formats']) or 'nothing'}"
            for file in self.metrics["files"]
        ]
        labels = ", ".join(f"{number:,} {name}" for name, number in self.metrics["labels"].items())
        how = "as it will be trained on" if self.trained_on else "as it will be written"
        first = [] if self.first_row is None else [f"the first row, {how}: {one_line(self.first_row, MAX_CHARS)}"]
        return [*files, *reading_account(self.metrics).lines(), f"labels: {labels}{self.label_note}", *first]


def preview_reading(recipe: Recipe, paths: Sequence[str]) -> ReadingPreview:
    """Read the feedback and write nothing. Raises what reading raises, as where nothing can be read."""
    read: IngestResult = ingest(**{**recipe.ingest.settings, "paths": list(paths)})
    model = None if recipe.train is None else recipe.train["model"]
    first_row = _first_row(read.feedback, recipe, model)
    note = _label_note(recipe.ingest.settings.get("label"), read.metrics["labels"])
    return ReadingPreview(read.feedback, dict(read.metrics), first_row, note, model is not None)


def _label_note(setting: Any, labels: Mapping[str, int]) -> str:
    threshold = label_rule(setting).threshold
    note = "" if threshold is None else f" ({threshold.in_words()})"
    if sum(labels.values()) and not all(labels.values()):
        note += ". All rows have one label, so nothing can be learnt from them: look at what the label's values are said to mean"
    return note


def _first_row(feedback: pl.DataFrame, recipe: Recipe, model: str | None) -> str | None:
    if feedback.is_empty():
        return None
    conversational = recipe.export.settings.get("conversational", "auto")
    form: Conversational = "always" if written_form(feedback, conversational, model).conversational else "never"
    row = feedback.sort("source", "source_line", maintain_order=True).head(1).with_columns(state=pl.lit("keep"))
    place = row.select("row_id", part=pl.lit("train"), shard=pl.lit(0), position=pl.lit(0))
    written = shard_table(row, place, conversational=form)
    if model is None:
        return str(written.select("prompt", "completion").to_dicts()[0])
    return _decoded(written, load_tokenizer(model), recipe)


def _decoded(written: pl.DataFrame, tokenizer: Any, recipe: Recipe) -> str:
    """The tokens of the row, as text: what the template makes of it, or prompt and completion as they stand."""
    from ktodata.train.data.tokens import tokenize
    from ktodata.train.data.training_rows import check_rows

    max_length = (recipe.train or {}).get("max_length") or 1024
    rows, _ = tokenize(check_rows(written, part="train", both_classes=False), tokenizer, max_length=max_length, part="train")
    return str(tokenizer.decode(rows.sequence(0, 0)[0]))
