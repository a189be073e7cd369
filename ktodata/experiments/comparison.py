"""What a comparison of methods gives back: every row's score and every measure, on disk and in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ktodata.experiments.arm_keys import releases
from ktodata.experiments.arms import BASE, TrainedArm
from ktodata.experiments.measures import by_seed, measure_all
from ktodata.experiments.method_verdict import verdict_sentences
from ktodata.experiments.probes.refusals import JUDGE, refuses
from ktodata.files import whole_file, write_note

if TYPE_CHECKING:
    from ktodata.experiments.method_plan import MethodPlan
    from ktodata.train.results.training_figures import Drawing


@dataclass(frozen=True)
class Comparison:
    """Of KTO with other methods on the same rows.

    metrics : settings, rows_used, tokens, estimate, arms (one entry for each policy), by_seed, generation, probes (files and
        tasks), win_rate, versions; JSON values.
    per_row : method, seed, row_id, label, truth, group, model, tokens, logp, reward, reward_model; a line per policy and row.
    answers : method, seed, row_id, text, tokens, unfinished, refuses; empty without `generate`. Model text: do not trust it.
    probed : method, seed, probe, item, text, tokens, unfinished; what was written to prompts of files. Model text as well.
    items : method, seed, task, item, score; empty without `tasks`.
    """

    metrics: dict[str, Any]
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
        used: dict[str, Any] = self.metrics["rows_used"]
        return used

    def verdict(self) -> list[str]:
        """Who wins where, in plain sentences; none where an interval includes zero."""
        return verdict_sentences(self.measures, self.metrics)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values: metrics, measures, verdict."""
        return {**self.metrics, "measures": self.measures.to_dicts(), "verdict": self.verdict()}

    def plot(self) -> "Drawing":
        """A forest plot, as a matplotlib figure."""
        from ktodata.experiments.arm_figures import method_forest

        return method_forest(self.measures)

    def write(self, folder: Path) -> None:
        """comparison.json and comparison.parquet (per_row); answers, probed and items.parquet where there are any."""
        tables = {"comparison": self.per_row, "answers": self.answers, "probed": self.probed, "items": self.items}
        for name, frame in tables.items():
            if name == "comparison" or not frame.is_empty():
                with whole_file(folder / f"{name}.parquet") as scratch:
                    frame.write_parquet(scratch)
        written = [folder / f"{name}.parquet" for name, frame in tables.items() if name == "comparison" or not frame.is_empty()]
        write_note(folder / "comparison.json", self.as_dict(), written)


def comparison_of(plan: "MethodPlan", arms: Sequence[TrainedArm]) -> Comparison:
    """All measures of trained arms, the base first."""
    from ktodata.experiments.probes.probe_table import probe_table
    from ktodata.experiments.probes.win_rate import win_table

    settings, held_out, judged = plan.settings, plan.held_out, None
    beta, draws = settings["beta"], {"resamples": settings["bootstrap"], "seed": 0}
    tables = [measure_all(held_out, arms, beta=beta, **draws), probe_table(plan.probes, arms, **draws)]
    if plan.judging is not None:
        wins, judged = win_table(plan.judging, held_out, arms, settings, **draws)
        tables.append(wins)
    reference = arms[0].scores.select("row_id", reference_logp="logp")
    per_row = _of_all(arms, "scores", reference, held_out)
    per_row = per_row.with_columns(reward=beta * (pl.col("logp") - pl.col("reference_logp")))
    answers = _of_all(arms, "answers")
    refused = pl.Series([refuses(text) for text in answers["text"]], dtype=pl.Boolean)
    metrics = {
        "settings": json_settings(settings),
        **plan.metrics,
        "estimate": plan.cost,
        "learning_rates": dict(plan.terms.rates),
        "arms": [{"method": arm.name, "seed": arm.seed, **arm.metrics} for arm in arms],
        "share_desirable": {name: held_out[name].cast(pl.Float64).mean() for name in ("label", "truth")},
        "by_seed": by_seed(held_out, arms, beta=beta),
        "win_rate": judged,
        "generation": {"prompts": arms[0].answers.height, "judge": JUDGE} if arms[0].answers.height else None,
        "versions": {name: release for arm in arms if arm.name != BASE for name, release in releases(arm.name).items()},
    }
    more = {name: _of_all(arms, name) for name in ("probed", "items")}
    return Comparison(metrics, pl.concat(tables), per_row, answers.with_columns(refuses=refused), **more)


def json_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON values, without what has no part in the numbers."""
    wanted = {name: value for name, value in settings.items() if name not in ("out", "notify")}
    return {name: str(value) if isinstance(value, Path) else value for name, value in wanted.items()}


def _of_all(arms: Sequence[TrainedArm], table: str, *by_row: pl.DataFrame) -> pl.DataFrame:
    """One table of every arm, with method and seed, and what `by_row` knows of each row_id."""
    frames = []
    for arm in arms:
        frame: pl.DataFrame = getattr(arm, table)
        for known in by_row:
            frame = frame.join(known, on="row_id", how="left", maintain_order="left")
        frames.append(frame.with_columns(method=pl.lit(arm.name), seed=pl.lit(arm.seed)))
    return pl.concat(frames)
