"""Methods side by side: what `ktodata compare` found on a run, drawn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.experiments.arm_figures import ForestDot, rewards_by_class
from ktodata.experiments.arms import BASE
from ktodata.experiments.measures import KTO, direction
from ktodata.experiments.method_verdict import NAMES, proven
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections import experiment_pictures
from ktodata.report.sections.experiment_rows import (
    Value,
    as_many,
    facts_of,
    how_seeded,
    how_trained,
    lines_of,
    sentences,
    table_of,
    value_of,
    whose_rows,
)
from ktodata.report.text import count, one_line, plural

MEASURES = {
    "auc": "AUC of the reward; of the base, its log p per token",
    "auc_within_model": "the same within a generating model",
    "policy_auc": "AUC of each policy's own log p per token",
    "accuracy": "rows whose reward has the right sign",
    "brier": "Brier score of the reward",
    "length_bias": "rank correlation of reward and length",
    "reward_desirable": "mean reward of desirable rows",
    "reward_undesirable": "mean reward of undesirable rows",
    "retention": "change in log p per token of desirable rows",
    "reward_model_auc": "AUC of the reward model",
    "refusal_rate": "greedy answers that refuse",
    "unfinished": "greedy answers that do not end",
    "refusal_of_unsafe": "unsafe prompts refused",
    "refusal_of_safe": "safe prompts refused",
    "instructions_strict": "prompts whose every instruction was followed",
    "instructions_each": "instructions followed",
    "win_rate": "answers preferred to the base's",
    "tasks_mean": "mean score of all tasks",
}
BETTER = {1: "higher is better", -1: "lower is better", 0: "neither way is better by itself"}
LINES = pl.Schema(
    dict.fromkeys(("against", "measure", "method"), pl.String())
    | dict.fromkeys(("value", "low", "high", "minus_kto", "minus_kto_low", "minus_kto_high"), pl.Float64())
    | {"includes_zero": pl.Boolean(), "seeds_agree": pl.Boolean()}
    | dict.fromkeys(("minus_base", "minus_base_low", "minus_base_high"), pl.Float64())
    | {"base_includes_zero": pl.Boolean(), "rows": pl.Int64(), "judge": pl.String()}
)


@dataclass(frozen=True)
class MethodLine:
    """One method by one measure, and its differences from KTO and from the untrained base."""

    measure: str
    against: str
    method: str
    value: Value
    minus_kto: Value
    includes_zero: bool | None
    minus_base: Value
    base_includes_zero: bool | None
    rows: int | None
    rows_used: int | None
    seeds: int


@dataclass(frozen=True)
class ComparisonSection:
    """What was found, ready to be shown. `stale`: why it is not about the rows of today; then nothing else is shown."""

    stale: str
    verdict: list[str]
    forest: Markup | None
    rewards: Markup | None
    lines: list[MethodLine]
    rows: int | None
    used: list[tuple[str, int | None, int]]  # method, rows that it could learn from, seeds
    measured: list[tuple[str, str]]
    against: str


def read_comparison(run: RunFiles) -> ComparisonSection | None:
    """The findings; None when no methods were compared on the run."""
    told = run.comparison
    if not told:
        return None
    table, rows, part = table_of(told, "measures", LINES), run.comparison_rows, str(pick(told, "part", default="test"))
    stale = whose_rows(run, rows, part) or as_many(_trained_on(told), pick(run.metrics("export"), "rows.train"))
    against = "truth" if (table["against"] == "truth").any() else "label"
    if stale or rows is None:
        return ComparisonSection(stale, [], None, None, [], None, [], [], against)
    seeds = _seeds(told)
    lines = [_line(line, told, seeds) for line in table.iter_rows(named=True)]
    return ComparisonSection(
        stale="",
        verdict=sentences(told.get("verdict")),
        forest=_forest(table.filter(pl.col("against") == against), against),
        rewards=_rewards(rows, against),
        lines=lines,
        rows=pick(told, "rows_used.rows"),
        used=[(_name(method), _used(told, method), number) for method, number in seeds.items() if method != BASE],
        measured=list(_measured(told, against)),
        against=against,
    )


def _trained_on(told: Mapping[str, Any]) -> int | None:
    """Training rows as the shards held them, those that were too long for max_length among them."""
    used, skipped = pick(told, "rows_used.rows"), pick(told, "tokens.train.skipped_row_ids", default=[])
    return used + len(skipped) if isinstance(used, int) and isinstance(skipped, list) else None


def _seeds(told: Mapping[str, Any]) -> dict[str, int]:
    """How often each method was trained, in the order of the comparison."""
    found: dict[str, int] = {}
    for arm in lines_of(told, "arms"):
        found[str(arm.get("method"))] = found.get(str(arm.get("method")), 0) + 1
    return found


def _used(told: Mapping[str, Any], method: str) -> int | None:
    found = facts_of(told, "rows_used.rows_used").get(method)
    return found if isinstance(found, int) else None


def _name(method: Any) -> str:
    return NAMES.get(method, one_line(method, 40))


def _line(line: Mapping[str, Any], told: Mapping[str, Any], seeds: Mapping[str, int]) -> MethodLine:
    measure, method = str(line["measure"]), str(line["method"])
    named = one_line(MEASURES.get(measure, measure.replace("_", " ")), 80)
    judge = f", by {one_line(line['judge'], 60)}" if line["judge"] else ""
    return MethodLine(
        measure=f"{named}{judge}; {BETTER[direction(measure)]}",
        against=str(line["against"]),
        method=_name(method),
        value=value_of(line, "value", "low", "high"),
        minus_kto=value_of(line, "minus_kto", "minus_kto_low", "minus_kto_high"),
        includes_zero=line["includes_zero"],
        minus_base=value_of(line, "minus_base", "minus_base_low", "minus_base_high"),
        base_includes_zero=line["base_includes_zero"],
        rows=line["rows"],
        rows_used=_used(told, method),
        seeds=seeds.get(method, 0),
    )


def _forest(table: pl.DataFrame, against: str) -> Markup | None:
    """AUC of each method, minus KTO's and minus the base's."""
    auc = table.filter(pl.col("measure") == "auc").to_dicts()
    panels = []
    for other, name in ((KTO, "KTO's"), (BASE, "the untrained base's")):
        gaps = []
        for line in auc:
            by = value_of(line, *(f"minus_{other}{end}" for end in ("", "_low", "_high")))
            beyond = proven(line) if other == KTO else line["base_includes_zero"] is False
            gaps += [ForestDot(_name(line["method"]), by.value, by.low, by.high, beyond)] if by.known else []
        if gaps:
            panels.append((f"AUC of the reward, minus {name}\nagainst the {against}; right is better", gaps))
    return (
        experiment_pictures.forest("comparison-forest", "Each method, minus KTO and minus the untrained base", panels)
        if panels
        else None
    )


def _rewards(rows: pl.DataFrame, against: str) -> Markup | None:
    trained = rows.filter(pl.col("method") != BASE)
    told = trained.select(arm=pl.col("method").replace(NAMES), row_id="row_id", reward="reward", truth=against)
    arms = rewards_by_class(told)
    return experiment_pictures.rewards("comparison-rewards", arms, shared=False) if arms else None


def _measured(told: Mapping[str, Any], against: str) -> Iterator[tuple[str, str]]:
    """How it was measured: (what, in words)."""
    settings, part = facts_of(told, "settings"), str(pick(told, "part", default="test"))
    rates = facts_of(told, "learning_rates")
    yield "Base", f"{one_line(settings.get('model', 'not said'), 120)}, the same for all methods."
    yield "Training of every method", how_trained(settings, told.get("updates"))
    if rates:
        each = ", ".join(f"{_name(name)} {rate:g}" for name, rate in rates.items() if isinstance(rate, float))
        yield "Peak learning rates", f"{each}. Fixed beforehand, tuned for none."
    yield "Seeds", how_seeded(settings.get("seeds"))
    whose = "the truth" if against == "truth" else "the labels as given, with their own errors"
    rows, groups = plural(pick(told, "held_out_rows"), f"{part} row"), plural(pick(told, "prompt_groups"), "prompt group")
    yield "Judged on", f"{rows} of {groups}, by {whose}; none of them was trained on."
    yield (
        "Score",
        "Of a trained method its reward, beta × (log p of the policy - log p of the base); of the base its own log p per token.",
    )
    yield (
        "Intervals",
        f"95 %, by {count(settings.get('bootstrap'))} resamples of whole prompt groups and of seeds, the same for all methods. A "
        "difference counts only where its interval lacks zero and every seed points one way.",
    )
    if versions := facts_of(told, "versions"):
        yield "Made with", ", ".join(f"{one_line(name, 30)} {one_line(version, 30)}" for name, version in versions.items()) + "."
