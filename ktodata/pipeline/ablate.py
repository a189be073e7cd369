"""`kd.ablate`: which treatment of the labels makes the better model? Arms on equal terms, with a random control for each.

Every arm is trained from the same model with the same seeds and as many updates of the same size, and judged by held-out rows
whose truth is known. Dropping rows has its control, as many dropped at random; so has review, as many reviewed at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ktodata.errors import DataError, RunError
from ktodata.evaluate.truth import with_truth
from ktodata.experiments.ablation import Ablation, KtoPlan, plan_arms
from ktodata.experiments.arms import Arm
from ktodata.experiments.experiment import Notify
from ktodata.experiments.treatments import FAMILIES, AuditedRows, Family, treatments
from ktodata.extras import require
from ktodata.files import alone_in
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run

TERMS: Mapping[str, Any] = {"epochs": 1, "max_steps": 77, "batch_size": 16, "learning_rate": 2e-5, "trainable_layers": 6}
# what a recipe's train: may say about every arm; labels and weights are what the arms differ in
TRAINED_BY = (
    *("objective", "epochs", "max_steps", "batch_size", "learning_rate", "warmup_fraction", "schedule", "beta", "max_length"),
    *("trainable_layers", "lora", "optimizer", "weight_decay", "device", "dtype", "kl_pairs_per_batch", "activation_cache_mb"),
    *("group_by_prompt", "holder_gamma", "pair_weight", "row_weight"),
)


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
    train : settings of `kd.train.fit` in place of TERMS; every arm makes the same updates. Fix them beforehand
    conversational : hand the model messages through its chat template, in place of plain text
    folder : keeps each arm's scores as it goes, so that a stopped ablation goes on
    notify : called with what it will cost before the first training, and before and after each arm (`ExperimentPlan.run_arms`)

    Two arms that come to the same are trained once. Raises what `fit` raises, and DataError for rows of truth
    that are missing or held-out rows of one class.
    """
    plan = {name: value for name, value in locals().items() if name not in ("audit", "held_out", "notify")}
    return plan_ablation(audit, held_out, **plan).run(notify)


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
) -> KtoPlan:
    """The plan of `ablate` with these arguments. Reviews are played; nothing is trained. Raises DataError as `ablate` does."""
    require("torch", "transformers", "safetensors", what="an ablation")
    known = held_out.filter(pl.col("truth").is_not_null())
    if known["truth"].n_unique() < 2:
        raise DataError(f"ablate: {known.height:,} held-out rows have a known truth; both true and false are needed.")
    settings = _equal_terms({**TERMS, **(train or {})}, int(audit.trained.sum()))
    arms_of = treatments(_audited_rows(audit), truth=truth, budgets=budgets, families=families)

    def as_trained(seed: int) -> list[Arm]:
        return [replace(arm, rows=_as_messages(arm.rows, conversational)) for arm in arms_of(seed)]

    scored = _as_messages(known.with_columns(label="truth"), conversational)
    plan = plan_arms(as_trained, scored, model=model, seeds=seeds, train=settings, folder=folder)
    if conversational and "prompt_group" not in known.columns:  # groups are named by text
        plan = replace(plan, held_out=plan.held_out.with_columns(group=known["prompt"]))
    return plan


def _audited_rows(audit: LabelAudit) -> AuditedRows:
    measured = audit.result.columns.select("row_id", "soft_label", "p_wrong_low", "is_label_issue")
    rows = audit.table.select("row_id", "prompt", "completion", "label", "prompt_group").filter(pl.Series(audit.trained))
    rows = rows.join(measured, on="row_id", how="left", maintain_order="left")
    joint = None if "not_learnt" in audit.metrics else np.asarray(audit.metrics["label_noise_estimate"]["confident_joint"])
    return AuditedRows(rows, audit.p_desirable_of_trained(), joint, audit.features_of_trained)


def _equal_terms(settings: dict[str, Any], rows: int) -> dict[str, Any]:
    """As many updates for every arm, whatever it left out: those that `epochs` over all rows make, unless max_steps says."""
    steps = settings["max_steps"] or settings["epochs"] * -(-rows // settings["batch_size"])
    return settings | {"max_steps": steps, "epochs": 1000}


def ablate_run(folder: Path | str, *, notify: Notify = lambda event: None, **settings: Any) -> Ablation:
    """`ablate` on the rows of a run; writes ablation.json and ablation.parquet into the run folder, and goes on where it stopped.

    settings : as in `plan_of_run`, which raises what this raises beside what `fit` does
    """
    with alone_in(Run(folder).folder):
        ablation = plan_of_run(folder, **settings).run(notify)
        ablation.write(Path(folder))
    return ablation


def plan_of_run(
    folder: Path | str,
    *,
    part: str = "test",
    model: str | None = None,
    budgets: Sequence[float] = (0.05, 0.1),
    families: Sequence[Family] = FAMILIES,
    seeds: Sequence[int] = (0, 1, 2),
    train: Mapping[str, Any] | None = None,
) -> KtoPlan:
    """What `ablate_run` would train.

    Held-out rows are judged by the truth that the recipe's `evaluate:` names, and so are the arms that need it; without one, by
    their labels as given, which then are what is learnt to please.
    model, train : those of the recipe's `train:` unless given. Raises RunError for a run without label_noise or held-out rows.
    """
    run = Run(folder)
    audit, recipe_train = LabelAudit.of_run(run), run.manifest["recipe"]["train"] or {}
    base = model or recipe_train.get("model")
    if base is None:
        raise RunError(f"{run.folder}: its recipe trains no model; say which one to train.")
    rows, judged_by = _with_truth(run)
    held_out = rows.filter(pl.col("part") == part) if "part" in rows.columns else rows.clear()
    if held_out.is_empty():
        raise RunError(f"{run.folder} holds out no {part} rows; put the step split into its recipe.")
    known = rows.filter(pl.col("row_id").is_in(audit.table.filter(pl.Series(audit.trained))["row_id"].implode()))
    is_known = judged_by == "truth" and known["truth"].null_count() == 0
    plan = plan_ablation(
        audit,
        held_out,
        model=base,
        truth=dict(known.select("row_id", "truth").iter_rows()) if is_known else None,
        budgets=budgets,
        families=families,
        seeds=seeds,
        train={name: value for name, value in recipe_train.items() if name in TRAINED_BY} | dict(train or {}),
        conversational=bool(run.stage("export").metrics["conversational"]) if "export" in run.stage_names() else False,
        folder=run.folder / "ablation",
    )
    return replace(plan, settings={**plan.settings, "part": part, "judged_by": judged_by})


def _with_truth(run: Run) -> tuple[pl.DataFrame, str]:
    """(the run's rows with truth: from the file that its recipe names, else the label; which of both)."""
    settings = run.evaluate_settings()
    if not settings.get("truth"):
        return run.feedback.with_columns(truth="label"), "label"
    return with_truth(run.feedback, settings["truth"], None), "truth"


def _as_messages(rows: pl.DataFrame, conversational: bool) -> pl.DataFrame:
    """Prompts and completions as messages, if asked for."""
    if not conversational:
        return rows
    roles = {"prompt": "user", "completion": "assistant"}
    turns = [
        pl.concat_list(pl.struct(pl.lit(role).alias("role"), pl.col(name).alias("content"))).alias(name)
        for name, role in roles.items()
    ]
    return rows.with_columns(turns)
