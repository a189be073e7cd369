"""Is a run's model better than another's on the rows that both hold out? What a round of reviews ends with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from ktodata.errors import DataError, OneClassError, RunError
from ktodata.report.run_files import is_of_another_model
from ktodata.stats.bootstrap import bootstrap, difference, weighted_auc, weighted_mean

if TYPE_CHECKING:
    from ktodata.pipeline.run_folder import Run


SEEDS = (
    "That is of these two trainings: another train.seed may move either by as much. Train both with three before you believe it."
)
ANSWER_GAINS = {"gain": ("passes", "baseline_passes"), "gain_over_base": ("passes", "base_passes")}


@dataclass(frozen=True)
class RunComparison:
    """metrics : auc, baseline_auc and gain, each with its interval; part, judged_by, rows, prompt_groups; JSON values.

    instructions : where both runs asked the same prompts, the shares that base, baseline and the run's model pass, and gains
    """

    metrics: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self.metrics

    def verdict(self) -> str:
        """In sentences. A gain counts if its 95 % interval lacks zero; that is over rows, of the two trainings at hand."""
        of_answers = [] if self.metrics["instructions"] is None else [_answers_verdict(self.metrics["instructions"])]
        return " ".join([*of_answers, self._ranking_verdict(), SEEDS])

    def _ranking_verdict(self) -> str:
        metrics = self.metrics
        gain, low, high = (metrics["gain"][name] for name in ("value", "low", "high"))
        before, now = (
            f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" for auc in (metrics["baseline_auc"], metrics["auc"])
        )
        return (
            f"Held-out AUC {before} before, {now} now; {gain:+.3f} ({low:+.3f} to {high:+.3f}): {_word(metrics['gain'])}. "
            f"{metrics['rows']:,} {metrics['part']} rows in {metrics['prompt_groups']:,} prompt groups that both runs hold out, "
            f"judged by {'the truth' if metrics['judged_by'] == 'truth' else 'their labels as given'}."
        )


def compare_runs(run: "Run", baseline: "Run", *, resamples: int = 1000, seed: int = 0) -> RunComparison:
    """How much better a run's model ranks held-out rows than the baseline's: AUC in [0, 1], higher is better, paired.

    Read off what both have evaluated; nothing is scored anew. Rows are those that both scored, so neither was trained on them.
    Judged by the truth where both runs were given it, else by the labels as given. 95 % intervals, resampling prompt groups:
    they say what other held-out rows would change, not what another seed of the training would.
    Raises RunError for a run that was not evaluated or has another model since, DataError where they share no row, hold out
    different parts or trained on rows that the other holds out, OneClassError where the shared rows are all of one label.
    """
    rows, judged_by = _shared_rows(run, baseline)
    labels = rows[judged_by].to_numpy().astype(bool)
    if labels.all() or not labels.any():
        raise OneClassError(f"the {len(labels):,} rows that both runs hold out are all of one label, so nothing can be ranked.")
    now, before = weighted_auc(rows["reward"], labels), weighted_auc(rows["baseline_reward"], labels)
    measures = {"auc": now, "baseline_auc": before, "gain": difference(now, before)}
    estimates = bootstrap(measures, rows["group"], resamples=resamples, seed=seed)
    return RunComparison(
        {
            **{name: estimate.as_dict() for name, estimate in estimates.items()},
            "includes_zero": estimates["gain"].includes_zero is not False,
            "judged_by": judged_by,
            "part": run.stage("evaluate").metrics["part"],
            "rows": rows.height,
            "prompt_groups": rows["group"].n_unique(),
            "baseline": baseline.folder.name,
            "instructions": _compare_answers(run, baseline, resamples, seed),
        }
    )


def _compare_answers(run: "Run", baseline: "Run", resamples: int, seed: int) -> dict[str, Any] | None:
    """Shares of the prompts that both asked whose answers pass: of the model before training, the baseline's, the run's own."""
    ours, theirs = _answers(run), _answers(baseline)
    if ours is None or theirs is None:
        return None
    theirs = theirs.select("prompt", baseline_passes="trained_passes")
    both = ours.select("prompt", "base_passes", passes="trained_passes").join(theirs, on="prompt", maintain_order="left")
    if both.is_empty():
        return None
    shares = {name: weighted_mean(both[name]) for name in ("base_passes", "baseline_passes", "passes")}
    gains = {name: difference(shares[now], shares[before]) for name, (now, before) in ANSWER_GAINS.items()}
    estimates = bootstrap(shares | gains, both["prompt"], resamples=resamples, seed=seed)
    return {"prompts": both.height} | {name: estimate.as_dict() for name, estimate in estimates.items()}


def _answers(run: "Run") -> pl.DataFrame | None:
    stage = run.stage("evaluate")
    return stage.table("answers").unique("prompt", keep="first", maintain_order=True) if "instructions" in stage.metrics else None


def _answers_verdict(compared: dict[str, Any]) -> str:
    base, before, now = (f"{100 * compared[name]['value']:.1f} %" for name in ("base_passes", "baseline_passes", "passes"))
    return (
        f"Of {compared['prompts']:,} prompts whose answers a program checks, {base} pass before any training, {before} with the "
        f"baseline's model, {now} with this one: {_points(compared['gain'])} points over the baseline, "
        f"{_word(compared['gain'])}; {_points(compared['gain_over_base'])} over the untrained model, "
        f"{_word(compared['gain_over_base'])}."
    )


def _points(gain: dict[str, float]) -> str:
    value, low, high = (f"{100 * gain[name]:+.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _word(gain: dict[str, float]) -> str:
    if gain["low"] <= 0 <= gain["high"]:
        return "no difference that this can show"
    return "better by more than chance" if gain["value"] > 0 else "worse by more than chance"


def _shared_rows(run: "Run", baseline: "Run") -> tuple[pl.DataFrame, str]:
    """The rows that both scored, with both rewards; and the column that judges: the truth where both have it, else the label.

    Where the truth judges, rows without it are left out.
    """
    ours, theirs = _scored_rows(run), _scored_rows(baseline)
    part, other_part = (each.stage("evaluate").metrics["part"] for each in (run, baseline))
    if part != other_part:
        raise DataError(f"{run.folder} was evaluated on {part} rows and {baseline.folder} on {other_part} rows.")
    theirs = theirs.select("row_id", baseline_reward="reward", baseline_truth="truth")
    both = ours.join(theirs, on="row_id", maintain_order="left")
    if both.is_empty():
        raise DataError(f"{run.folder} and {baseline.folder} hold out no row in common: are they of the same feedback and seed?")
    _check_apart(both, run, baseline)
    judged = both.filter(pl.col("truth").is_not_null() & pl.col("baseline_truth").is_not_null())
    return (both, "label") if judged.is_empty() else (judged, "truth")


def _scored_rows(run: "Run") -> pl.DataFrame:
    if "evaluate" not in run.stage_names():
        raise RunError(f"{run.folder} was not evaluated: its recipe needs `train:` and `evaluate:`.")
    if is_of_another_model(run.folder, run.stage("evaluate").metrics):
        raise RunError(
            f"{run.folder} has another model than it evaluated: `ktodata evaluate {run.folder}` measures the one there."
        )
    return run.stage("evaluate").columns


def _check_apart(both: pl.DataFrame, *runs: "Run") -> None:
    """No row that is judged by was trained on by either run."""
    for run in runs:
        trained = run.shards("train").select("row_id").join(both, on="row_id", how="semi")
        if trained.height:
            raise DataError(
                f"{run.folder} was trained on {trained.height:,} of the {both.height:,} rows that both evaluated (first: "
                f"{trained['row_id'][0]}): its part was split anew afterwards, so they say nothing."
            )
