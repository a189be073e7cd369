"""Did curation help: what `ktodata ablate` measured on a run, drawn, and in one answer that claims no more than it shows."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ktodata.experiments.ablation import ONE_TRAINING, WORDS
from ktodata.experiments.arm_figures import MINUS, TRUE, ceiling_of, difference_dots, review_lines, rewards_by_class
from ktodata.experiments.contrast import SCHEMA, contrast
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections import experiment_pictures
from ktodata.report.sections.experiment_rows import (
    ExperimentSection,
    how_seeded,
    how_trained,
    object_of,
    sentences,
    table_of,
    value_of,
    why_stale,
    with_truth,
)
from ktodata.report.text import count, one_line, plural

# families of arms, as `kd.ablate` names them: what is tried on the labels, and its controls; the others are bounds
TREATMENTS = ("confident learning", "by the audit", "by guess", "reviewed", "relabelled", "repaired", "noise-corrected")
DRAWN, REVIEWED_AT_RANDOM = "at random", "reviewed at random"
MEASURES = {"auc": "AUC", "auc_within_model": "AUC within a generating model"}


def read_ablation(run: RunFiles) -> ExperimentSection | None:
    """What was measured; None when the run was not ablated."""
    if not run.ablation:
        return None
    table, scores = table_of(run.ablation, "arms", pl.Schema({**SCHEMA, **WORDS})), run.ablation_scores
    part, by_label = str(pick(run.ablation, "settings.part", default="test")), pick(run.ablation, "settings.judged_by") == "label"
    against = "label" if by_label else "truth"
    now = pick(run.metrics("label_noise"), "rows.learnt_from")
    stale = why_stale(run, scores, part, file="ablation.parquet", trained=_rows_of_baseline(table), now=now)
    if stale or scores is None:
        return ExperimentSection(stale, against)
    judged, scores = _judged(scores, part, by_label=by_label), with_truth(run, scores, by_label=by_label)
    title, curves = "Each treatment of the labels, minus the labels as given", review_lines(table, "auc")
    return ExperimentSection(
        against=against,
        verdict=sentences(run.ablation.get("verdict")),
        answer=_curation_answer(table, scores, judged),
        forest=experiment_pictures.forest("ablation-forest", title, _treatment_panels(table)),
        curve=experiment_pictures.review_curve("ablation-curve", curves, ceiling_of(table, "auc"), measure="auc"),
        rewards=experiment_pictures.rewards("ablation-rewards", rewards_by_class(scores), shared=True),
        lines=[_treatment_line(line) for line in table.iter_rows(named=True)],
        measured=list(_ablation_terms(object_of(run.ablation, "settings"), judged)),
    )


def _rows_of_baseline(table: pl.DataFrame) -> int | None:
    """Rows of the labels as given, which are all that there are."""
    rows = table.filter(pl.col("minus_baseline").is_null())["rows"].drop_nulls()
    return int(rows[0]) if len(rows) else None


def _judged(scores: pl.DataFrame, part: str, *, by_label: bool) -> str:
    whose = "their labels as given" if by_label else "the truth that the recipe names"
    return f"{plural(scores['row_id'].n_unique(), part + ' row')}, judged by {whose}"


def _treatment_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table: `minus` is its difference from the labels as given, `share` of the gap to true labels."""
    return {
        **line,
        "arm": one_line(line["arm"], 80),
        "says": one_line(line["says"] or "", 160),
        "measure": MEASURES.get(line["measure"], str(line["measure"])),
        "value": value_of(line, "value", "low", "high"),
        "minus": value_of(line, *MINUS),
        "share": value_of(line, "gap_recovered", "gap_low", "gap_high"),
    }


def _treatment_panels(table: pl.DataFrame) -> experiment_pictures.Panels:
    names = {measure: f"{name} minus that of the labels as given\nright is better" for measure, name in MEASURES.items()}
    panels = [(name, difference_dots(table, measure)) for measure, name in names.items()]
    return [(name, dots) for name, dots in panels if dots]


def _curation_answer(table: pl.DataFrame, scores: pl.DataFrame, judged: str) -> tuple[str, str] | None:
    """The best treatment beside its control; None where the file does not say which arms are treatments.

    scores : arm, seed, row_id, reward, truth, group
    """
    auc = table.filter(pl.col("measure") == "auc")
    tried = auc.filter(pl.col("family").is_in(TREATMENTS)).drop_nulls("minus_baseline")
    if tried.is_empty():
        return None
    if tried["differs"].null_count() == tried.height:
        return "Not known.", f"{ONE_TRAINING} Train each with several seeds (`--seeds 3`)."
    better = tried.filter("differs", pl.col("minus_baseline") > 0).sort("minus_baseline", descending=True, maintain_order=True)
    worse = tried.filter("differs", pl.col("minus_baseline") < 0).sort("minus_baseline", maintain_order=True)
    text = [
        f"Of {plural(tried.height, 'treatment')} of the labels, each training the same model, {count(better.height)} did better "
        f"than the labels as given by more than chance, {count(worse.height)} worse."
    ]
    short = "It got worse." if worse.height else "No clear difference."
    for name, arms in (("Best", better), ("Worst", worse)):
        if arms.height:
            text.append(f"{name}: {_gain(arms.row(0, named=True))}.")
    if better.height:
        short, sentence = _against_control(auc, scores, better.row(0, named=True))
        text.append(sentence)
    true = auc.filter(pl.col("family") == TRUE).drop_nulls("minus_baseline")
    if true.height:
        text.append(f"To compare with: {_gain(true.row(0, named=True))}.")
    return short, " ".join([*text, f"Differences in held-out AUC with 95 % intervals; {judged}."])


def _against_control(auc: pl.DataFrame, scores: pl.DataFrame, best: Mapping[str, Any]) -> tuple[str, str]:
    """What may be claimed of the best treatment: that it did it only where it beats as many rows taken at random, too."""
    control = _control(auc, best)
    if control is None:
        return "Perhaps.", "It has no random control here."
    measured = scores.filter(pl.col("truth").is_not_null())
    if measured["truth"].n_unique() < 2:
        return "Perhaps.", f"Its control: {_gain(control)}."
    rows = measured.unique("row_id").select("row_id", "truth", "group", model=pl.lit(None, pl.String))
    both = measured.filter(pl.col("arm").is_in([best["arm"], control["arm"]])).select("arm", "seed", "row_id", "reward")
    line = contrast(both, rows, baseline=control["arm"]).row(by_predicate=pl.col("arm") == best["arm"], named=True)
    ahead = bool(line["differs"]) and line["minus_baseline"] > 0
    gain, ends = value_of(line, *MINUS).signed
    word = "ahead of it by more than chance" if ahead else "no difference from it that this can show"
    return ("Curation did." if ahead else "Perhaps."), f"Its control: {_gain(control)}; {word} ({gain}, {ends})."


def _control(auc: pl.DataFrame, arm: Mapping[str, Any]) -> dict[str, Any] | None:
    """As many rows reviewed, or dropped, at random."""
    same = (
        (pl.col("family") == REVIEWED_AT_RANDOM) & (pl.col("budget") == arm["budget"])
        if arm["budget"] is not None
        else (pl.col("family") == DRAWN) & (pl.col("rows") == arm["rows"])
    )
    arms = auc.filter(same).drop_nulls("minus_baseline")
    return arms.row(0, named=True) if arms.height else None


def _gain(line: Mapping[str, Any]) -> str:
    gain, ends = value_of(line, *MINUS).signed
    return f"{one_line(line['arm'], 60)}, {gain} ({ends})"


def _ablation_terms(settings: Mapping[str, Any], judged: str) -> Iterator[tuple[str, str]]:
    """How it was measured: (what, in words)."""
    yield (
        "Model",
        f"{one_line(settings.get('model', 'not said'), 120)}, trained anew from the same weights for every arm and seed.",
    )
    yield "Training of every arm", how_trained(settings, settings.get("max_steps"))
    yield "Seeds", how_seeded(settings.get("seeds"))
    yield "Judged on", f"{judged[0].upper()}{judged[1:]}; none of them, and no prompt of theirs, was trained on."
    yield (
        "Measures",
        "AUC: the chance that a desirable row has the higher reward, beta × (log p of the trained model - log p of the untrained "
        "one), than an undesirable one; 0.5 is chance. Within a generating model: the same among rows that one model wrote.",
    )
    yield (
        "Intervals",
        "95 %, by resampling whole prompts and seeds, the same draw for all arms; a difference is taken within a draw.",
    )
    yield "Share of the gap", "(arm - labels as given) / (true labels - labels as given); 100 % is what the true labels gain."
