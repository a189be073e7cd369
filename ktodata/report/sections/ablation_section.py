"""Did curation help: what `ktodata ablate` found on a run, drawn, and in one answer that claims no more than it shows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.experiments.arm_figures import TRUE, ForestDot, ceiling_of, review_lines, rewards_by_class
from ktodata.experiments.contrast import contrast
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections import experiment_pictures
from ktodata.report.sections.experiment_rows import (
    Value,
    as_many,
    facts_of,
    how_seeded,
    how_trained,
    sentences,
    table_of,
    value_of,
    whose_rows,
    with_truth,
)
from ktodata.report.text import count, one_line, plural

# families of arms, as `kd.ablate` names them: what is tried on the labels, and its controls; the others are bounds
TREATMENTS = ("confident learning", "by the audit", "by guess", "reviewed", "relabelled", "repaired", "noise-corrected")
DRAWN, REVIEWED_AT_RANDOM = "at random", "reviewed at random"
MEASURES = {"auc": "AUC", "auc_within_model": "AUC within a generating model"}
LINES = pl.Schema(
    dict.fromkeys(("arm", "says", "measure", "family"), pl.String())
    | dict.fromkeys(("budget", "value", "low", "high", "minus_baseline", "minus_low", "minus_high"), pl.Float64())
    | {"differs": pl.Boolean()}
    | dict.fromkeys(("gap_recovered", "gap_low", "gap_high"), pl.Float64())
    | {"rows": pl.Int64(), "seeds": pl.Int64()}
)
MINUS = ("minus_baseline", "minus_low", "minus_high")


@dataclass(frozen=True)
class TreatmentLine:
    """One arm by one measure; `minus` is its difference from the labels as given, `share` of the gap to true labels."""

    arm: str
    says: str
    measure: str
    value: Value
    minus: Value
    differs: bool | None
    share: Value
    rows: int | None
    seeds: int | None


@dataclass(frozen=True)
class AblationSection:
    """What was found, ready to be shown. `stale`: why it is not about the rows of today; then nothing else is shown."""

    stale: str
    verdict: list[str]
    answer: tuple[str, str] | None
    forest: Markup | None
    curve: Markup | None
    rewards: Markup | None
    lines: list[TreatmentLine]
    measured: list[tuple[str, str]]
    by_label: bool


def read_ablation(run: RunFiles) -> AblationSection | None:
    """The findings; None when the run was not ablated."""
    told = run.ablation
    if not told:
        return None
    table = table_of(told, "arms", LINES)
    scores = run.ablation_scores
    part, by_label = str(pick(told, "settings.part", default="test")), pick(told, "settings.judged_by") == "label"
    stale = whose_rows(run, scores, part) or as_many(_trained_on(table), pick(run.metrics("label_noise"), "rows.learnt_from"))
    if stale or scores is None:
        return AblationSection(stale, [], None, None, None, None, [], [], by_label)
    settings, judged = facts_of(told, "settings"), _judged(scores, part, by_label=by_label)
    scores = with_truth(run, scores, by_label=by_label)
    return AblationSection(
        stale="",
        verdict=sentences(told.get("verdict")),
        answer=_answer(table, scores, judged),
        forest=_forest(table),
        curve=_curve(table),
        rewards=_rewards(scores),
        lines=[_line(line) for line in table.iter_rows(named=True)],
        measured=list(_measured(settings, judged)),
        by_label=by_label,
    )


def _trained_on(table: pl.DataFrame) -> int | None:
    """Rows of the labels as given, which are all that there are."""
    rows = table.filter(pl.col("minus_baseline").is_null())["rows"].drop_nulls()
    return int(rows[0]) if len(rows) else None


def _judged(scores: pl.DataFrame, part: str, *, by_label: bool) -> str:
    whose = "their labels as given" if by_label else "the truth that the recipe names"
    return f"{plural(scores['row_id'].n_unique(), part + ' row')}, judged by {whose}"


def _line(line: Mapping[str, Any]) -> TreatmentLine:
    return TreatmentLine(
        arm=one_line(line["arm"], 80),
        says=one_line(line["says"] or "", 160),
        measure=MEASURES.get(line["measure"], str(line["measure"])),
        value=value_of(line, "value", "low", "high"),
        minus=value_of(line, *MINUS),
        differs=line["differs"],
        share=value_of(line, "gap_recovered", "gap_low", "gap_high"),
        rows=line["rows"],
        seeds=line["seeds"],
    )


def _forest(table: pl.DataFrame) -> Markup | None:
    panels = []
    for measure, name in MEASURES.items():
        known = table.filter(pl.col("measure") == measure).drop_nulls(MINUS)
        gaps = [ForestDot(*line) for line in known.select("arm", *MINUS, pl.col("differs").fill_null(False)).iter_rows()]
        if gaps:
            panels.append((f"{name} minus that of the labels as given\nright is better", gaps))
    return (
        experiment_pictures.forest("ablation-forest", "Each treatment of the labels, minus the labels as given", panels)
        if panels
        else None
    )


def _curve(table: pl.DataFrame) -> Markup | None:
    lines = review_lines(table, "auc")
    return experiment_pictures.review_curve("ablation-curve", lines, ceiling_of(table, "auc"), measure="auc") if lines else None


def _rewards(scores: pl.DataFrame) -> Markup | None:
    arms = rewards_by_class(scores)
    return experiment_pictures.rewards("ablation-rewards", arms, shared=True) if arms else None


def _answer(table: pl.DataFrame, scores: pl.DataFrame, judged: str) -> tuple[str, str] | None:
    """The best treatment beside its control; None where the file does not say which arms are treatments.

    scores : arm, seed, row_id, reward, truth, group
    """
    auc = table.filter(pl.col("measure") == "auc")
    tried = auc.filter(pl.col("family").is_in(TREATMENTS)).drop_nulls(["minus_baseline", "differs"])
    if tried.is_empty():
        return None
    better = tried.filter("differs", pl.col("minus_baseline") > 0).sort("minus_baseline", descending=True, maintain_order=True)
    worse = tried.filter("differs", pl.col("minus_baseline") < 0).sort("minus_baseline", maintain_order=True)
    told = [
        f"Of {plural(tried.height, 'treatment')} of the labels, each training the same model, {count(better.height)} did better "
        f"than the labels as given by more than chance, {count(worse.height)} worse."
    ]
    short = "It got worse." if worse.height else "No clear difference."
    for name, found in (("Best", better), ("Worst", worse)):
        if found.height:
            told.append(f"{name}: {_gain(found.row(0, named=True))}.")
    if better.height:
        short, beside = _beside_control(auc, scores, better.row(0, named=True))
        told.append(beside)
    true = auc.filter(pl.col("family") == TRUE).drop_nulls("minus_baseline")
    if true.height:
        told.append(f"To compare with: {_gain(true.row(0, named=True))}.")
    return short, " ".join([*told, f"Differences in held-out AUC with 95 % intervals; {judged}."])


def _beside_control(auc: pl.DataFrame, scores: pl.DataFrame, best: Mapping[str, Any]) -> tuple[str, str]:
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
    found = auc.filter(same).drop_nulls("minus_baseline")
    return found.row(0, named=True) if found.height else None


def _gain(line: Mapping[str, Any]) -> str:
    gain, ends = value_of(line, *MINUS).signed
    return f"{one_line(line['arm'], 60)}, {gain} ({ends})"


def _measured(settings: Mapping[str, Any], judged: str) -> Iterator[tuple[str, str]]:
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
