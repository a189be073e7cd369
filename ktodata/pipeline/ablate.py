"""`kd.ablate`: which treatment of the labels makes the better model? Arms on equal terms, with a random control for each.

Every arm is trained from the same model with the same seeds and as many updates of the same size, and judged by held-out rows
whose truth is known. Dropping rows has its control, as many dropped at random; so has review, as many reviewed at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import DataError, RunError
from ktodata.evaluate.truth import with_truth
from ktodata.experiments.arms import Arm, ArmTraining, plan_arms
from ktodata.experiments.arms_clock import estimate_arms
from ktodata.experiments.arms_run import Notify, train_arms
from ktodata.experiments.contrast import contrast
from ktodata.files import whole_file, write_json
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run
from ktodata.pipeline.treatments import CLEAN, FAMILIES, NOISY, Family, treatments

TERMS: Mapping[str, Any] = {"epochs": 1, "max_steps": 77, "batch_size": 16, "learning_rate": 2e-5, "trainable_layers": 6}
WORDS = {"says": pl.String(), "rows": pl.Int64(), "family": pl.String(), "budget": pl.Float64()}  # of each arm
# what a recipe's train: may say about every arm; labels and weights are what the arms differ in
TRAINED_BY = (
    *("objective", "epochs", "max_steps", "batch_size", "learning_rate", "warmup_fraction", "schedule", "beta", "max_length"),
    *("trainable_layers", "lora", "optimizer", "weight_decay", "device", "dtype", "kl_pairs_per_batch", "activation_cache_mb"),
)


@dataclass(frozen=True)
class Ablation:
    """What was found.

    table : one line for each arm and measure, as `evaluate.contrast` gives it, with rows (trained on, of the last seed), says
        (what the arm is), family (the kind of treatment, of FAMILIES) and budget (share of the rows that it reviews; null: none)
    scores : arm, seed, row_id, reward; held_out : row_id, truth, group, model
    """

    table: pl.DataFrame
    scores: pl.DataFrame
    held_out: pl.DataFrame
    settings: Mapping[str, Any]

    def verdict(self) -> list[str]:
        """Sentences: what differs from the labels as given, and what does not. A difference counts if its interval lacks zero."""
        told = []
        for line in self.table.filter(pl.col("measure") == "auc", pl.col("arm") != NOISY).iter_rows(named=True):
            span = f"{line['minus_baseline']:+.3f} ({line['minus_low']:+.3f} to {line['minus_high']:+.3f})"
            word = (
                "no difference that this can show" if not line["differs"] else "better" if line["minus_baseline"] > 0 else "worse"
            )
            gap = "" if line["gap_recovered"] is None else f"; {line['gap_recovered']:.0%} of the gap to true labels"
            told.append(f"{line['arm']}: {word}, AUC {span}{gap}.")
        clean = self.table.filter(pl.col("measure") == "auc", pl.col("arm") == CLEAN)
        if clean.height and not clean["differs"][0]:
            told.append("True labels are not better than those as given by more than chance, so no share of that gap is told.")
        return told

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"settings": dict(self.settings), "verdict": self.verdict(), "arms": self.table.to_dicts()}

    def write(self, folder: Path) -> None:
        """ablation.json, and ablation.parquet with every score."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / "ablation.parquet") as scratch:
            self.scores.write_parquet(scratch)
        write_json(folder / "ablation.json", self.as_dict())

    def plot(self, measure: str = "auc") -> Any:
        """A matplotlib figure: each arm's difference from the labels as given, with its 95 % interval.

        Raises EmptyDataError when no arm has a difference in that measure.
        """
        from ktodata.experiments.ablation_figures import forest

        return forest(self.table, measure=measure)


def ablate(
    audit: LabelAudit,
    held_out: pl.DataFrame,
    *,
    model: str,
    truth: Mapping[str, bool] | None = None,
    budgets: Sequence[float] = (0.05, 0.1),
    families: Sequence[Family] = FAMILIES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    train: Mapping[str, Any] | None = None,
    conversational: bool = False,
    folder: Path | None = None,
    notify: Notify = lambda event: None,
) -> Ablation:
    """Train one model for each treatment of the labels, and say which of them helps.

    audit : as `kd.audit` gives it; its training rows are what all arms start from
    held_out : row_id, prompt, completion and truth (bool; rows of null are left out); prompt_group and model where known. No row
        of them, and no prompt, may be among the audit's: split first.
    truth : row_id -> true label of the audit's rows, for the arms that need it (true labels, wrong rows dropped, reviews played)
    budgets : shares of the rows that are reviewed
    families : the kinds of treatment to try (`treatments.Family`); the labels as given are always among them
    train : settings of `kd.train.fit` in place of TERMS; every arm makes the same updates. Fix them beforehand. z0 is estimated
        from a quarter as many pairs as an update has rows, unless kl_pairs_per_batch says: that halves the cost of an arm.
    conversational : hand the model messages through its chat template, in place of plain text
    folder : keeps each arm's scores as it goes, so that a stopped ablation goes on
    notify : called with what it will cost before the first training, and before each arm (`evaluate.arms_run.train_arms`)

    Two arms that come to the same are trained once. Raises what `fit` raises, and DataError for rows of truth
    that are missing or held-out rows of one class.
    """
    plan = plan_ablation(
        audit,
        held_out,
        model=model,
        truth=truth,
        budgets=budgets,
        families=families,
        seeds=seeds,
        train=train,
        conversational=conversational,
        folder=folder,
    )
    return plan.train(notify)


@dataclass(frozen=True)
class AblationPlan:
    """What an ablation trains, before it does.

    trainings : every arm with every seed; scored : held-out rows as the trainer takes them
    held_out : row_id, truth, group, model of those
    """

    trainings: Sequence[ArmTraining]
    scored: pl.DataFrame
    held_out: pl.DataFrame
    settings: Mapping[str, Any]

    def outlook(self) -> dict[str, Any]:
        """What it would train and what that costs: arms, and `estimate` (`arms_clock.estimate_arms`). A few updates are timed."""
        told: dict[str, dict[str, Any]] = {}
        for training in self.trainings:
            line = told.setdefault(
                training.arm.name, {"arm": training.arm.name, **_told(training.arm), "trainings": 0, "kept": 0}
            )
            line["trainings"] += 1
            line["kept"] += training.kept
        estimate = estimate_arms(self.trainings, self.scored)
        return {"settings": dict(self.settings), "arms": list(told.values()), "estimate": estimate}

    def train(self, notify: Notify = lambda event: None) -> Ablation:
        """Do it. notify : as in `arms_run.train_arms`."""
        scores = train_arms(self.trainings, self.scored, notify=notify)
        told = {training.arm.name: _told(training.arm) for training in self.trainings}
        table = contrast(scores, self.held_out, baseline=NOISY, ceiling=CLEAN if CLEAN in told else None)
        return Ablation(_with_words(table, told), scores, self.held_out, self.settings)


def plan_ablation(
    audit: LabelAudit,
    held_out: pl.DataFrame,
    *,
    model: str,
    truth: Mapping[str, bool] | None,
    budgets: Sequence[float],
    families: Sequence[Family],
    seeds: Sequence[int],
    train: Mapping[str, Any] | None,
    conversational: bool,
    folder: Path | None,
) -> AblationPlan:
    """The plan of `ablate` with these arguments. Reviews are played; nothing is trained. Raises DataError as `ablate` does."""
    known = held_out.filter(pl.col("truth").is_not_null())
    if known["truth"].n_unique() < 2:
        raise DataError(f"ablate: {known.height:,} held-out rows have a known truth; both true and false are needed.")
    settings = _equal_terms({**TERMS, **(train or {})}, int(audit.trained.sum()))
    arms_of = treatments(audit, truth=truth, budgets=budgets, families=families)

    def shown(seed: int) -> list[Arm]:
        return [replace(arm, rows=_shown(arm.rows, conversational)) for arm in arms_of(seed)]

    scored = _shown(known.with_columns(label="truth"), conversational)
    trainings = plan_arms(shown, scored, model=model, seeds=seeds, train=settings, folder=folder)
    groups = pl.col("prompt_group") if "prompt_group" in known.columns else pl.col("prompt")
    source = pl.col("model") if "model" in known.columns else pl.lit(None, pl.String)
    about = known.select("row_id", "truth", group=groups, model=source)
    return AblationPlan(trainings, scored, about, {"model": model, "seeds": list(seeds), **settings})


def pool(parts: Sequence[Ablation]) -> Ablation:
    """One ablation of several, each with rows held out of its own and seeds of its own: cross-validation, every row judged once.

    An arm counts where every part has it. Measures are taken within a seed and averaged; intervals: over all prompts and seeds.
    """
    names = [
        name for name in parts[0].table["arm"].unique(maintain_order=True) if all(name in part.table["arm"] for part in parts)
    ]
    scores, held_out = pl.concat([part.scores for part in parts]), pl.concat([part.held_out for part in parts])
    told = {line["arm"]: line for part in parts for line in part.table.select("arm", *WORDS).iter_rows(named=True)}
    table = contrast(
        scores.filter(pl.col("arm").is_in(names)),
        held_out.unique(maintain_order=True),
        baseline=NOISY,
        ceiling=CLEAN if CLEAN in names else None,
    )
    seeds = [seed for part in parts for seed in part.settings["seeds"]]
    return Ablation(_with_words(table, told), scores, held_out, {**parts[0].settings, "seeds": seeds, "parts": len(parts)})


def _told(arm: Arm) -> dict[str, Any]:
    return {"says": arm.says, "rows": arm.rows.height, "family": arm.family, "budget": arm.budget}


def _with_words(table: pl.DataFrame, told: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """The table with WORDS, what was told of each arm."""
    words = pl.DataFrame([{"arm": name, **of_arm} for name, of_arm in told.items()], schema={"arm": pl.String(), **WORDS})
    return table.join(words, on="arm", how="left", maintain_order="left")


def _equal_terms(settings: dict[str, Any], rows: int) -> dict[str, Any]:
    """As many updates for every arm, whatever it left out: those that `epochs` over all rows make, unless max_steps says.

    Mismatched pairs are what costs most, as no arm can share another's; a quarter as many as rows do for z0, unless kl_pairs_per_batch says.
    """
    batch = settings["batch_size"]
    steps = settings["max_steps"] or settings["epochs"] * -(-rows // batch)
    return settings | {
        "max_steps": steps,
        "epochs": 1000,
        "kl_pairs_per_batch": settings.get("kl_pairs_per_batch") or max(2, batch // 4),
    }


def ablate_run(folder: Path | str, *, notify: Notify = lambda event: None, **asked: Any) -> Ablation:
    """`ablate` on the rows of a run; writes ablation.json and ablation.parquet into the run folder, and goes on where it stopped.

    asked : as in `plan_of_run`, which raises what this raises beside what `fit` does
    """
    found = plan_of_run(folder, **asked).train(notify)
    found.write(Path(folder))
    return found


def plan_of_run(
    folder: Path | str,
    *,
    part: str = "test",
    model: str | None = None,
    budgets: Sequence[float] = (0.05, 0.1),
    families: Sequence[Family] = FAMILIES,
    seeds: Sequence[int] = (0, 1, 2),
    train: Mapping[str, Any] | None = None,
) -> AblationPlan:
    """What `ablate_run` would train.

    Held-out rows are judged by the truth that the recipe's `evaluate:` names, and so are the arms that need it; without one, by
    their labels as given, which then are what is learnt to please.
    model, train : those of the recipe's `train:` unless given. Raises RunError for a run without label_noise or held-out rows.
    """
    run = Run(folder)
    audit, recipe = LabelAudit.of_run(run), run.manifest["recipe"]
    asked = {name: value for name, value in (recipe["train"] or {}).items() if name in TRAINED_BY}
    base = model or (recipe["train"] or {}).get("model")
    if base is None:
        raise RunError(f"{run.folder}: its recipe trains no model; say which one to train.")
    rows = _with_truth(run)
    held_out = rows.filter(pl.col("part") == part) if "part" in rows.columns else rows.clear()
    if held_out.is_empty():
        raise RunError(f"{run.folder} holds out no {part} rows; put the step split into its recipe.")
    known = rows.filter(pl.col("row_id").is_in(audit.table.filter(pl.Series(audit.trained))["row_id"].implode()))
    every = rows["judged_by"][0] == "truth" and known["truth"].null_count() == 0
    plan = plan_ablation(
        audit,
        held_out,
        model=base,
        truth=dict(known.select("row_id", "truth").iter_rows()) if every else None,
        budgets=budgets,
        families=families,
        seeds=seeds,
        train={**asked, **(train or {})},
        conversational=bool(run.stage("export").metrics["conversational"]) if "export" in run.stage_names() else False,
        folder=run.folder / "ablation",
    )
    return replace(plan, settings={**plan.settings, "part": part, "judged_by": rows["judged_by"][0]})


def _with_truth(run: Run) -> pl.DataFrame:
    """The run's rows with truth (from the file that its recipe names; else the label) and judged_by."""
    asked = run.evaluate_settings()
    if not asked.get("truth"):
        return run.feedback.with_columns(truth="label", judged_by=pl.lit("label"))
    return with_truth(run.feedback, asked["truth"], None).with_columns(judged_by=pl.lit("truth"))


def _shown(rows: pl.DataFrame, conversational: bool) -> pl.DataFrame:
    """Prompts and completions as messages, if asked for."""
    if not conversational:
        return rows
    told = {"prompt": "user", "completion": "assistant"}
    turns = [
        pl.concat_list(pl.struct(pl.lit(role).alias("role"), pl.col(name).alias("content"))).alias(name)
        for name, role in told.items()
    ]
    return rows.with_columns(turns)
