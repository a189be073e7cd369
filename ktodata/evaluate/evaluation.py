"""`evaluate`: base against trained on held-out rows. Its keyword-only parameters are a recipe's `evaluate:` section."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import EmptyDataError, ModelError
from ktodata.evaluate.truth import TruthFile, with_truth
from ktodata.extras import require
from ktodata.feedback import LABEL_NAMES
from ktodata.files import alone_if_run, digest_file, read_note, whole_file, write_note
from ktodata.settings import check_settings
from ktodata.stats.bootstrap import Statistic, bootstrap, difference, weighted_auc, weighted_mean
from ktodata.train.data.training_rows import check_rows, read_part
from ktodata.train.results.trained_folder import check_one_training

MEASURED_LINE = {
    **{"against": pl.String(), "measure": pl.String()},
    **{"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(), "rows": pl.Int64()},
}


@dataclass(frozen=True)
class Evaluation:
    """Results of `evaluate`. `per_row`: row_id, label, truth, reward, base_score, policy_score, log-probs, model.

    answers : item, prompt, base, trained (texts), base_passes, trained_passes of the prompts in `instructions`; None without them
    """

    metrics: dict[str, Any]
    per_row: pl.DataFrame
    answers: pl.DataFrame | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self.metrics

    def table(self) -> pl.DataFrame:
        """One line per measure: against, measure, value, low, high (95 %), rows.

        against : label or truth (what rows are ranked against), class (mean reward of rows of one label), or instructions (share
            of prompts whose answer passes; rows counts prompts)
        """
        return pl.DataFrame(list(self._lines()), schema=MEASURED_LINE)

    def _lines(self) -> Iterator[dict[str, Any]]:
        for against in ("label", "truth"):
            of = self.metrics[f"against_{against}"]
            for measure, interval in of.get("measures", {}).items():
                yield {"against": against, "measure": measure, **interval, "rows": of["rows"]}
        for of in self.metrics["by_class"]:
            if "mean_reward" in of:
                yield {
                    "against": "class",
                    "measure": f"reward_{LABEL_NAMES[of['label']]}",
                    **of["mean_reward"],
                    "rows": of["rows"],
                }
        checked = self.metrics.get("instructions", {})
        for measure in ("base", "trained", "gain"):
            if measure in checked:
                yield {"against": "instructions", "measure": measure, **checked[measure], "rows": checked["prompts"]}

    def write(self, folder: Path) -> None:
        """evaluation.json, evaluation.parquet and, where prompts were asked, evaluation_answers.parquet."""
        tables = {"evaluation.parquet": self.per_row, "evaluation_answers.parquet": self.answers}
        written = {folder / name: table for name, table in tables.items() if table is not None}
        for path, table in written.items():
            with whole_file(path) as scratch:
                table.write_parquet(scratch)
        write_note(folder / "evaluation.json", self.metrics, list(written))


def evaluate(
    run_or_shards: Path | str | pl.DataFrame,
    *,
    model: Annotated[
        str | None, Field(description="folder of the trained model or adapter; none: model/ in the run folder")
    ] = None,
    reference: Annotated[str | None, Field(description="the model before training; none: the one training.json names")] = None,
    part: Annotated[Literal["test", "validation"], Field(description="the held-out rows to score")] = "test",
    truth: Annotated[TruthFile | None, Field(description="a file that says what is true of rows; used to score only")] = None,
    truth_column: Annotated[str | None, Field(description="or the shards' own column that says it")] = None,
    beta: Annotated[float, Field(gt=0, le=100, description="per nat; scales rewards, not their order")] = 0.1,
    max_rows: Annotated[int | None, Field(ge=2, description="score at most this many rows, drawn by seed; none: all")] = None,
    max_length: Annotated[int, Field(ge=2, description="tokens of prompt and completion; the end is cut off")] = 1024,
    generate: Annotated[int, Field(ge=0, description="held-out prompts that base and trained model answer")] = 8,
    instructions: Annotated[
        Path | None, Field(description="prompts in IFEval's form that both models answer and a program checks; none: not asked")
    ] = None,
    max_new_tokens: Annotated[int, Field(ge=1, description="length of those answers")] = 64,
    bootstrap: Annotated[int, Field(ge=100, le=100_000, description="resamples of prompt groups for the intervals")] = 1000,
    device: Annotated[str, Field(description="auto (cuda when there is one), cpu, cuda, ...")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="of the arithmetic; auto: bfloat16 on cuda")
    ] = "auto",
    seed: Annotated[int, Field(ge=0, description="of drawn rows, prompts and resamples")] = 0,
    out: Annotated[Path | None, Field(description="folder for evaluation.json and evaluation.parquet; none: memory")] = None,
    progress: Annotated[
        bool | Callable[[dict[str, Any]], None], Field(description="true: a line on the terminal; a function: called every pass")
    ] = False,
) -> Evaluation:
    """Score held-out rows with a trained model and with the model it was trained from.

    Two things are measured by AUC, against the label as given, and against the truth where that is known. Like against like:
    policy_auc and base_auc rank rows by each model's own log-prob per token of the completion, and policy_gain is their paired
    difference. What training changed: auc ranks by the implicit reward, beta x (log p_policy - log p_reference), where 0.5 is
    chance. accuracy counts reward > 0 as desirable. Intervals: 95 %, resampling prompt groups.

    instructions : asks what the models *do*: the share of prompts whose greedy answers keep to what their line asks, by a
    program, before and after training, and the paired difference. An answer that is cut off at
    max_new_tokens passes nothing. Prompts that training rows have are left out and counted.
    """
    settings = check_settings(
        evaluate, {name: value for name, value in locals().items() if name != "run_or_shards"}, where="evaluate"
    )
    require("torch", "transformers", what="evaluation")
    from ktodata.evaluate.evaluation_progress import reporting_evaluation
    from ktodata.evaluate.scoring import score

    rows = read_part(run_or_shards, part)
    if rows.is_empty():
        raise EmptyDataError(f"there are no {part} rows to evaluate on. Hold some out with the step `split`.")
    rows = with_truth(check_rows(rows, part=part, both_classes=False), settings["truth"], truth_column)
    prompts, facts = (None, {}) if instructions is None else _prompts_to_check(settings["instructions"], run_or_shards)
    rows = rows if max_rows is None else rows.sample(min(max_rows, rows.height), seed=seed).sort("row_id")
    folder, base = _model_and_reference(run_or_shards, model, reference)
    note = Path(folder) / "training.json"
    check_one_training(note.parent)
    with reporting_evaluation(settings["progress"]) as report:
        scored = score(rows, settings, prompts, trained=folder, reference=base, report=report)
    # whoever shows the figures checks that the run's model is still this one; of a model elsewhere nothing is to be checked
    of_training = digest_file(note) if note.is_file() and _is_of_run(folder, run_or_shards) else None
    made = {"part": part, "beta": beta, "of_training": of_training, **scored.metrics}
    if scored.answers is not None:
        from ktodata.evaluate.checked_answers import measure_answers

        figures = measure_answers(scored.answers, resamples=bootstrap, seed=seed)
        made["instructions"] = facts | {"max_new_tokens": max_new_tokens} | figures
    result = Evaluation(made | measure(scored.rows, resamples=bootstrap, seed=seed), scored.rows, scored.answers)
    if out is not None:
        with alone_if_run(settings["out"]):
            result.write(settings["out"])
    return result


def measure(scored: pl.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """All measures of scored rows (row_id, label, truth, group, reward, base_score, policy_score, model), as JSON values."""
    with_truth_only = scored.filter(pl.col("truth").is_not_null())
    return {
        "rows": scored.height,
        "prompt_groups": scored["group"].n_unique(),
        "against_label": _ranking_measures(scored, "label", resamples, seed),
        "against_truth": _ranking_measures(with_truth_only, "truth", resamples, seed),
        "by_class": [_class_reward(scored, label, resamples, seed) for label in (True, False)],
        "by_model": [
            {"model": name} | _ranking_measures(scored.filter(pl.col("model") == name), "label", resamples, seed)
            for name in sorted(scored["model"].drop_nulls().unique())
        ],
    }


def _ranking_measures(scored: pl.DataFrame, target: str, resamples: int, seed: int) -> dict[str, Any]:
    labels = scored[target].to_numpy().astype(bool)
    counts = {"rows": scored.height, "desirable": int(labels.sum()), "undesirable": int((~labels).sum())}
    if not counts["desirable"] or not counts["undesirable"]:
        only = "no rows" if not len(labels) else "one class only"
        return {
            **counts,
            "not_applicable": f"{only}: {target} gives {counts['desirable']} desirable, {counts['undesirable']} undesirable",
        }
    reward = scored["reward"].to_numpy()
    base_auc, policy_auc = (weighted_auc(scored[name].to_numpy(), labels) for name in ("base_score", "policy_score"))
    statistics: dict[str, Statistic] = {
        "auc": weighted_auc(reward, labels),
        "base_auc": base_auc,
        "policy_auc": policy_auc,
        "policy_gain": difference(policy_auc, base_auc),
        "accuracy": weighted_mean((reward > 0) == labels),
        # of sigmoid(reward) read as P(desirable): 0.25 is chance, lower is better
        "brier": weighted_mean((1 / (1 + np.exp(-reward)) - labels) ** 2),
    }
    intervals = bootstrap(statistics, scored["group"], resamples=resamples, seed=seed)
    return {**counts, "measures": {name: interval.as_dict() for name, interval in intervals.items()}}


def _class_reward(scored: pl.DataFrame, label: bool, resamples: int, seed: int) -> dict[str, Any]:
    rows = scored.filter(pl.col("label") == label)
    counts = {"label": label, "rows": rows.height}
    if rows.is_empty():
        return {**counts, "not_applicable": "no rows"}
    mean = bootstrap({"reward": weighted_mean(rows["reward"])}, rows["group"], resamples=resamples, seed=seed)["reward"]
    return {**counts, "mean_reward": mean.as_dict()}


def _prompts_to_check(path: Path, run_or_shards: Path | str | pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """(prompts that no training row has, facts with counts)."""
    from ktodata.evaluate.checked_answers import read_checked_prompts, without_trained

    prompts, facts = read_checked_prompts(path)
    fresh = without_trained(prompts, read_part(run_or_shards, "train"))
    if fresh.is_empty():
        raise EmptyDataError(f"instructions: all {prompts.height:,} prompts of {path} are among the training rows.")
    return fresh, facts | {"prompts": fresh.height, "also_in_training": prompts.height - fresh.height}


def _is_of_run(model: str, run_or_shards: Path | str | pl.DataFrame) -> bool:
    return not isinstance(run_or_shards, pl.DataFrame) and Path(model).resolve() == (Path(run_or_shards) / "model").resolve()


def _model_and_reference(run_or_shards: Path | str | pl.DataFrame, model: str | None, reference: str | None) -> tuple[str, str]:
    if model is None:
        if isinstance(run_or_shards, pl.DataFrame) or not (Path(run_or_shards) / "model").is_dir():
            raise ModelError("there is no model/ beside the rows: say with model= which trained model to evaluate.")
        model = str(Path(run_or_shards) / "model")
    if reference is None:
        training = Path(model) / "training.json"
        if not training.is_file():
            raise ModelError(f"{training} is not there, so say with reference= which model {model} was trained from.")
        reference = str(read_note(training)["settings"]["model"])
    return model, reference
