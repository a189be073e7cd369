"""The page of a bench: every figure, and beside it whether the difference to this package can be told."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ktodata.bench.bench_cells import BenchCell, paired
from ktodata.bench.bench_tracks import BenchOutcome
from ktodata.bench.bench_training import arm_name, percent
from ktodata.experiments.treatments import CLEAN, NOISY
from ktodata.stats import Interval

OURS, CONTROL = "ktodata", "as given"
DRAWS = 300  # of prompt groups
Names = Sequence[str]


def bench_page(outcome: BenchOutcome) -> str:
    """Markdown. Every interval is of 95 %, over prompt groups drawn anew, the same rows for both methods."""
    plan = outcome.plan
    about = (
        f"{len(outcome.rows)} label sources of {len(set(outcome.data.values()))} files, at most {plan.max_rows:,} rows each, "
        f"seeds: {plan.seeds}, {datetime.now(UTC):%Y-%m-%d}. No method sees the truth of a row that nobody reviewed. "
        "Intervals are of 95 %, over prompt groups drawn anew, the same for both methods. They hold for these sources, "
        "and what was chosen on one of them is not on trial on it."
    )
    lines = ["# Wrong labels of unpaired feedback", "", about, ""]
    if 0.0 in plan.budgets:
        lines += _detect(outcome)
    for budget in plan.budgets:
        lines += _repair(outcome, budget)
    for share in plan.train:
        lines += _train(outcome, share)
    if outcome.passed_over:
        lines += ["## Not measured", "", *(f"- {name}: {' '.join(why.split())}" for name, why in outcome.passed_over.items()), ""]
    return "\n".join(lines)


def _detect(outcome: BenchOutcome) -> Iterator[str]:
    methods = [name for name in _methods(outcome, 0.0) if name != CONTROL]
    yield from (
        "## Detect: error AUROC within a given label, no reviews",
        "",
        "The last column is this package less whichever other method does best on that source.",
        "",
    )
    yield from _header(["source", "rows", "wrong", *methods, f"{OURS} less the best other"])
    for source in outcome.rows:
        cells = {name: outcome.cells[source, 0.0, name] for name in methods if (source, 0.0, name) in outcome.cells}
        values = {name: _mean(each, "auroc") for name, each in cells.items()}
        yield _row([*_about(outcome, source), *(_number(values.get(name)) for name in methods), _against_best(cells, values)])
    yield ""
    yield from _calibration(outcome, methods)


def _calibration(outcome: BenchOutcome, methods: Names) -> Iterator[str]:
    """Of the methods that give probabilities."""
    cells = {key: each for key, each in outcome.cells.items() if key[1] == 0.0 and all(cell.p_wrong is not None for cell in each)}
    sure = [name for name in methods if any(method == name for _, _, method in cells)]
    if not sure:
        return
    yield from (
        "## Calibration: Brier score of the probability that a label is wrong, and its calibration error in 10 bins",
        "",
        "0 is best of both. To know the share of wrong labels alone gives the first figure's Brier score.",
        "",
    )
    yield from _header(["source", "rows", "wrong", "the share alone", *sure])
    for source in outcome.rows:
        share, figures = outcome.wrong[source], list[str]()
        for name in sure:
            each = cells.get((source, 0.0, name))
            shown = [_number(_mean(each, measure)) for measure in ("brier", "calibration_error")] if each else []
            figures.append(", ".join(shown))
        yield _row([*_about(outcome, source), _number(share * (1 - share)), *figures])
    yield ""


def _against_best(cells: dict[str, list[BenchCell]], values: dict[str, float | None]) -> str:
    others = {name: value for name, value in values.items() if name != OURS and value is not None}
    if OURS not in cells or values[OURS] is None or not others:
        return "not measured"
    best = max(others, key=lambda name: others[name])
    return f"{_difference(cells[OURS], cells[best], 'auroc')} ({best})"


def _repair(outcome: BenchOutcome, budget: float) -> Iterator[str]:
    methods = _methods(outcome, budget)
    yield from (
        f"## Repair: labels right, {percent(budget)} of the rows reviewed",
        "",
        f'"{CONTROL}" is the control: as many rows reviewed at random, nothing else changed.',
        "",
    )
    yield from _header(["source", "rows", "wrong", "reviewed", *methods, f"{OURS} less the control"])
    for source in outcome.rows:
        cells = {name: outcome.cells[source, budget, name] for name in methods if (source, budget, name) in outcome.cells}
        gap = _difference(cells[OURS], cells[CONTROL], "right") if {OURS, CONTROL} <= cells.keys() else "not measured"
        shares = [_percent(_mean(cells[name], "right")) if name in cells else "" for name in methods]
        reviewed = {int(cell.reviewed.sum()) for each in cells.values() for cell in each}  # as many by every method
        yield _row([*_about(outcome, source), ", ".join(map(str, reviewed)), *shares, gap])
    yield ""


def _train(outcome: BenchOutcome, share: float) -> Iterator[str]:
    """What a policy learnt, beside the labels as given; the control reviews as many rows at random and changes nothing else."""
    trained = {source: each.table.filter(measure="auc") for (source, at), each in outcome.trained.items() if at == share}
    if not trained:
        return
    arms = list(dict.fromkeys(arm for table in trained.values() for arm in table["arm"] if arm not in (NOISY, CLEAN)))
    settings = next(iter(outcome.trained.values())).settings
    yield from (
        f"## Train: how well a policy ranks held-out rows, {percent(share)} of the training rows reviewed",
        "",
        f"AUC of the reward against the truth, after {settings['max_steps']} updates of {settings['batch_size']} rows; "
        f"{len(settings['seeds'])} trainings an arm, each on two thirds of the prompts, judged on the rest. All else is the "
        f"difference to {NOISY}, and in brackets the share of the gap to {CLEAN}, where there is one. "
        f'"{arm_name(CONTROL, share)}" is the control: as many rows reviewed at random, nothing else changed. '
        "The last column says what could have been told: half of the interval's width.",
        "",
    )
    yield from _header(["source", "rows", "wrong", NOISY, CLEAN, *arms, "could be told"])
    for source, table in trained.items():
        lines = {line["arm"]: line for line in table.iter_rows(named=True)}
        cells = [_gained(lines.get(arm)) for arm in (CLEAN, *arms)]
        width = (lines[CLEAN]["minus_high"] - lines[CLEAN]["minus_low"]) / 2
        yield _row([*_about(outcome, source), f"{lines[NOISY]['value']:.3f}", *cells, f"{width:.3f}"])
    yield ""


def _gained(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return ""
    words = _worded(Interval(line["minus_baseline"], line["minus_low"], line["minus_high"]))
    if line["gap_recovered"] is None:
        return words
    return f"{words} [{line['gap_recovered']:.0%}, {line['gap_low']:.0%} to {line['gap_high']:.0%}]"


def _difference(first: list[BenchCell], second: list[BenchCell], measure: str) -> str:
    """A difference with its interval, and what may be said of it."""
    return _worded(paired(first, second, measure, draws=DRAWS))


def _worded(difference: Interval) -> str:
    value, low, high = difference
    if value is None or low is None or high is None:
        return "not measured"
    word = "ahead" if low > 0 else "behind" if high < 0 else "the same" if low == high == 0 else "cannot be told"
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f}): {word}"


def _methods(outcome: BenchOutcome, budget: float) -> list[str]:
    return list(dict.fromkeys(method for _, at, method in outcome.cells if at == budget))


def _about(outcome: BenchOutcome, source: str) -> list[str]:
    return [source, f"{outcome.rows[source]:,}", f"{outcome.wrong[source]:.1%}"]


def _mean(cells: list[BenchCell], measure: str) -> float | None:
    values = [getattr(cell, measure)(np.ones(len(cell.labels))) for cell in cells]
    return None if None in values else float(np.mean(values))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _header(names: Names) -> tuple[str, str]:
    return _row(names), _row(["---"] * len(names))


def _row(cells: Names) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
