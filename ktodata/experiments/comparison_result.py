"""What a comparison gives back."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ktodata.experiments.comparison_verdict import verdict_sentences
from ktodata.files import whole_file, write_json

if TYPE_CHECKING:
    from ktodata.train.results.training_figures import Drawing


@dataclass(frozen=True)
class Comparison:
    """Of KTO with other methods on the same rows.

    facts : settings, rows_used, tokens, estimate, arms (one entry for each policy), by_seed, generation, asked (files and
        tasks), win_rate, versions; JSON values.
    per_row : method, seed, row_id, label, truth, group, model, tokens, logp, reward, reward_model; a line per policy and row.
    answers : method, seed, row_id, text, tokens, unfinished, refuses; empty without `generate`. Model text: do not trust it.
    probed : method, seed, probe, item, text, tokens, unfinished; what was written to prompts of files. Model text as well.
    items : method, seed, task, item, score; empty without `tasks`.
    """

    facts: dict[str, Any]
    measures: pl.DataFrame
    per_row: pl.DataFrame
    answers: pl.DataFrame
    probed: pl.DataFrame
    items: pl.DataFrame

    def table(self) -> pl.DataFrame:
        """One line per target, measure and method: value and 95 % interval, the same minus KTO and minus the base, paired."""
        return self.measures

    @property
    def rows_used(self) -> dict[str, Any]:
        """Rows that each method could learn from, pairs, prompts; see `ktodata.experiments.methods.preference_pairs`."""
        used: dict[str, Any] = self.facts["rows_used"]
        return used

    def verdict(self) -> list[str]:
        """Who wins where, in plain sentences; none where an interval includes zero."""
        return verdict_sentences(self.measures, self.facts)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values: facts, measures, verdict."""
        return {**self.facts, "measures": self.measures.to_dicts(), "verdict": self.verdict()}

    def plot(self) -> "Drawing":
        """A forest plot, as a matplotlib figure."""
        from ktodata.experiments.comparison_figure import forest

        return forest(self.measures)

    def write(self, folder: Path) -> None:
        """comparison.json and comparison.parquet (per_row); answers, probed and items.parquet where there are any."""
        tables = {"comparison": self.per_row, "answers": self.answers, "probed": self.probed, "items": self.items}
        for name, frame in tables.items():
            if name == "comparison" or not frame.is_empty():
                with whole_file(folder / f"{name}.parquet") as scratch:
                    frame.write_parquet(scratch)
        write_json(folder / "comparison.json", self.as_dict())
