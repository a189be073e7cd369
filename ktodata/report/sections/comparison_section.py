"""Methods side by side: what `ktodata compare` measured on a run, drawn."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ktodata.experiments.arm_figures import ForestDot, Rewards, rewards_by_class
from ktodata.experiments.arms import BASE
from ktodata.experiments.measures import KTO, MEASURES, TABLE, direction
from ktodata.experiments.method_verdict import NAMES, proven
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections import experiment_pictures
from ktodata.report.sections.experiment_rows import (
    ExperimentSection,
    Value,
    how_seeded,
    how_trained,
    lines_of,
    object_of,
    sentences,
    table_of,
    value_of,
    why_stale,
)
from ktodata.report.text import count, one_line, plural

BETTER = {1: "higher is better", -1: "lower is better", 0: "neither way is better by itself"}


def read_comparison(run: RunFiles) -> ExperimentSection | None:
    """What was measured; None when no methods were compared on the run."""
    comparison, rows = run.comparison, run.comparison_rows
    if not comparison:
        return None
    table, part = table_of(comparison, "measures", pl.Schema(TABLE)), str(pick(comparison, "part", default="test"))
    against = "truth" if (table["against"] == "truth").any() else "label"
    trained, now = _rows_compared_on(comparison), pick(run.metrics("export"), "rows.train")
    stale = why_stale(run, rows, part, file="comparison/comparison.parquet", trained=trained, now=now)
    if stale or rows is None:
        return ExperimentSection(stale, against)
    seeds = Counter(str(arm.get("method")) for arm in lines_of(comparison, "arms"))
    panels = _method_panels(table.filter(pl.col("against") == against), against)
    return ExperimentSection(
        against=against,
        verdict=sentences(comparison.get("verdict")),
        forest=experiment_pictures.forest("comparison-forest", "Each method, minus KTO and minus the untrained base", panels),
        rewards=experiment_pictures.rewards("comparison-rewards", _method_rewards(rows, against), shared=False),
        lines=[_method_line(line, comparison, seeds) for line in table.iter_rows(named=True)],
        rows=pick(comparison, "rows_used.rows"),
        used=[(_method_name(method), _used(comparison, method), number) for method, number in seeds.items() if method != BASE],
        measured=list(_comparison_terms(comparison, against)),
    )


def _rows_compared_on(comparison: Mapping[str, Any]) -> int | None:
    """Training rows as the shards held them, those that were too long for max_length among them."""
    used, skipped = pick(comparison, "rows_used.rows"), pick(comparison, "tokens.train.skipped_row_ids", default=[])
    return used + len(skipped) if isinstance(used, int) and isinstance(skipped, list) else None


def _used(comparison: Mapping[str, Any], method: str) -> int | None:
    rows = object_of(comparison, "rows_used.rows_used").get(method)
    return rows if isinstance(rows, int) else None


def _method_name(method: Any) -> str:
    return NAMES.get(method, one_line(method, 40))


def _method_line(line: Mapping[str, Any], comparison: Mapping[str, Any], seeds: Mapping[str, int]) -> dict[str, Any]:
    """A line of the table: one method by one measure, and its differences from KTO and from the untrained base."""
    measure, method = str(line["measure"]), str(line["method"])
    name = one_line(MEASURES[measure].name if measure in MEASURES else measure.replace("_", " "), 80)
    judge = f", by {one_line(line['judge'], 60)}" if line["judge"] else ""
    return {
        **line,
        "measure": f"{name}{judge}; {BETTER[direction(measure)]}",
        "method": _method_name(method),
        "value": value_of(line, "value", "low", "high"),
        **{f"minus_{other}": _difference_from(line, other) for other in (KTO, BASE)},
        "rows_used": _used(comparison, method),
        "seeds": seeds.get(method, 0),
    }


def _difference_from(line: Mapping[str, Any], other: str) -> Value:
    return value_of(line, *(f"minus_{other}{end}" for end in ("", "_low", "_high")))


def _method_panels(table: pl.DataFrame, against: str) -> experiment_pictures.Panels:
    """AUC of each method, minus KTO's and minus the base's."""
    panels = []
    for other, name in ((KTO, "KTO's"), (BASE, "the untrained base's")):
        dots = []
        for line in table.filter(pl.col("measure") == "auc").iter_rows(named=True):
            gap, is_proven = _difference_from(line, other), proven(line) if other == KTO else line["base_includes_zero"] is False
            dots += [ForestDot(_method_name(line["method"]), gap.value, gap.low, gap.high, is_proven)] if gap.known else []
        panels.append((f"AUC of the reward, minus {name}\nagainst the {against}; right is better", dots))
    return [(axis, dots) for axis, dots in panels if dots]


def _method_rewards(rows: pl.DataFrame, against: str) -> list[Rewards]:
    trained = rows.filter(pl.col("method") != BASE)
    return rewards_by_class(trained.select("row_id", "reward", arm=pl.col("method").replace(NAMES), truth=against))


def _comparison_terms(comparison: Mapping[str, Any], against: str) -> Iterator[tuple[str, str]]:
    """How it was measured: (what, in words)."""
    settings, part = object_of(comparison, "settings"), str(pick(comparison, "part", default="test"))
    rates = object_of(comparison, "learning_rates")
    yield "Base", f"{one_line(settings.get('model', 'not said'), 120)}, the same for all methods."
    yield "Training of every method", how_trained(settings, comparison.get("updates"))
    if rates:
        each = ", ".join(f"{_method_name(name)} {rate:g}" for name, rate in rates.items() if isinstance(rate, float))
        yield "Peak learning rates", f"{each}. Fixed beforehand, tuned for none."
    yield "Seeds", how_seeded(settings.get("seeds"))
    whose = "the truth" if against == "truth" else "the labels as given, with their own errors"
    rows, groups = (
        plural(pick(comparison, "held_out_rows"), f"{part} row"),
        plural(pick(comparison, "prompt_groups"), "prompt group"),
    )
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
    if versions := object_of(comparison, "versions"):
        yield "Made with", ", ".join(f"{one_line(name, 30)} {one_line(version, 30)}" for name, version in versions.items()) + "."
