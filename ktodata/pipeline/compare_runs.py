"""Two runs beside each other: is the model of the second better on the rows that both hold out? What a review round ends with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import DataError, OneClassError, RunError
from ktodata.evaluate.bootstrap import bootstrap, difference, weighted_auc
from ktodata.pipeline.run_folder import Run


@dataclass(frozen=True)
class RunComparison:
    """What was found. facts: auc, earlier_auc and gain, each with its interval; part, judged_by, rows, prompt_groups."""

    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self.facts

    def verdict(self) -> str:
        """In sentences. A gain counts if its 95 % interval lacks zero; that is over rows, of the two trainings at hand."""
        told = self.facts
        gain, low, high = (told["gain"][name] for name in ("value", "low", "high"))
        word = "no difference that this can show"
        if not told["includes_zero"]:
            word = "better by more than chance" if gain > 0 else "worse by more than chance"
        spans = {
            name: f"{told[name]['value']:.3f} ({told[name]['low']:.3f} to {told[name]['high']:.3f})"
            for name in ("earlier_auc", "auc")
        }
        return (
            f"Held-out AUC {spans['earlier_auc']} before, {spans['auc']} now; {gain:+.3f} ({low:+.3f} to {high:+.3f}): {word}. "
            f"{told['rows']:,} {told['part']} rows in {told['prompt_groups']:,} prompt groups that both runs hold out, judged by "
            f"{'the truth' if told['judged_by'] == 'truth' else 'their labels as given'}. That is of these two trainings: "
            "another train.seed may move either by as much. Train both with three before you believe it."
        )


def compare_runs(run: Run | Path | str, earlier: Run | Path | str, *, resamples: int = 1000, seed: int = 0) -> RunComparison:
    """How much better a run's model ranks held-out rows than an earlier run's: AUC in [0, 1], higher is better, paired.

    run, earlier : runs or their folders.
    Read off what both have evaluated; nothing is scored anew. Rows are those that both scored, so neither was trained on them.
    Judged by the truth where both runs were told it, else by the labels as given. 95 % intervals, resampling prompt groups: they
    say what other held-out rows would change, not what another seed of the training would.
    Raises RunError for a run that was not evaluated, DataError where they share no row, hold out different parts or trained on
    rows that the other holds out, OneClassError where the shared rows are all of one label.
    """
    run, earlier = (one if isinstance(one, Run) else Run(one) for one in (run, earlier))
    ours, theirs = _scored(run), _scored(earlier)
    parts = [one.stage("evaluate").metrics["part"] for one in (run, earlier)]
    if parts[0] != parts[1]:
        raise DataError(f"{run.folder} was evaluated on {parts[0]} rows and {earlier.folder} on {parts[1]} rows.")
    both = ours.join(theirs.select("row_id", earlier="reward", earlier_truth="truth"), on="row_id", maintain_order="left")
    if both.is_empty():
        raise DataError(f"{run.folder} and {earlier.folder} hold out no row in common: are they of the same feedback and seed?")
    _check_apart(both, run, earlier)
    told = both.filter(pl.col("truth").is_not_null() & pl.col("earlier_truth").is_not_null())
    judged_by, rows = ("label", both) if told.is_empty() else ("truth", told)
    labels = rows[judged_by].to_numpy().astype(bool)
    if labels.all() or not labels.any():
        raise OneClassError(f"the {len(labels):,} rows that both runs hold out are all of one label, so nothing can be ranked.")
    now, before = weighted_auc(rows["reward"], labels), weighted_auc(rows["earlier"], labels)
    asked = {"auc": now, "earlier_auc": before, "gain": difference(now, before)}
    found = bootstrap(asked, rows["group"], resamples=resamples, seed=seed)
    facts: dict[str, Any] = {name: one.as_dict() for name, one in found.items()}
    facts["includes_zero"] = found["gain"].includes_zero is not False
    facts |= {"judged_by": judged_by, "part": parts[0], "rows": rows.height, "prompt_groups": rows["group"].n_unique()}
    return RunComparison({**facts, "earlier": earlier.folder.name})


def _scored(run: Run) -> pl.DataFrame:
    if "evaluate" not in run.stage_names():
        raise RunError(f"{run.folder} was not evaluated: its recipe needs `train:` and `evaluate:`.")
    return run.stage("evaluate").columns


def _check_apart(both: pl.DataFrame, *runs: Run) -> None:
    """No row that is judged by was trained on by either run."""
    for run in runs:
        trained = run.shards("train").select("row_id").join(both, on="row_id", how="semi")
        if trained.height:
            raise DataError(
                f"{run.folder} was trained on {trained.height:,} of the {both.height:,} rows that both evaluated (first: "
                f"{trained['row_id'][0]}): its part was split anew afterwards, so they tell nothing."
            )
