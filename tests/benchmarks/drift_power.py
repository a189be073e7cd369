"""Whether the search for drift of criteria earns its length: beside one residual test a group, on the same plants and shuffles.

    python tests/benchmarks/drift_power.py [--draws 60]

The plain test takes labels less recalibrated p, sums them in each group (sources, raters, and five periods in place of a date),
divides by the larger of the deviations that rows and that whole prompts lead one to expect, and adjusts all groups by Holm.
`criteria_drift` tests offset, slope and a change of each, and takes what it finds into account before it judges the next group.

Of each table: draws in which the planted group is named, and draws in which another is (where nothing is planted: a false alarm; 0.05
is the level). A change over time counts as named by any period. Drawn rows only; nothing was tuned here.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from ktodata.labels.people.drift import MIN_PROMPTS, MIN_ROWS, criteria_drift

START = datetime(2026, 1, 1, tzinfo=UTC)
TURNED, DAYS, PERIODS, LEVEL = 60.0, 100.0, 5, 0.05
Named = set[tuple[str, str]]


def drawn(
    seed: int,
    *,
    rows: int = 2000,
    raters: int = 8,
    strict: float = 0.0,
    inverted: bool = False,
    turned: bool = False,
    lenient: float = 0.0,
    spread: float = 0.0,
    base: float = 0.8,
) -> pl.DataFrame:
    """Source s2 is `strict` log-odds stricter; rater r3 is inverted, always or from day 60 on (`turned`); all are `lenient` from then on.

    spread : deviation of the prompts' own offsets, each prompt being of one source; base : mean log-odds
    """
    rng = np.random.default_rng(seed)
    x, day = rng.normal(base, 1.5, rows), rng.random(rows) * DAYS
    prompt, rater = rng.integers(0, rows // (10 if spread else 3), rows), rng.integers(0, raters, rows)
    source = rng.integers(0, 4, rows) if not spread else prompt % 4
    nats = x - strict * (source == 2) + lenient * (day >= TURNED) + rng.normal(0, max(spread, 1e-9), rows)[prompt]
    label = (rng.random(rows) < expit(nats)) ^ ((inverted or turned) & (rater == 3) & ((day >= TURNED) | inverted))
    return pl.DataFrame(
        {
            "row_id": [str(row) for row in range(rows)],
            "label": label,
            "p_desirable": expit(x),
            "prompt_group": prompt,
            "source": [f"s{number}" for number in source],
            "rater": [f"r{number}" for number in rater],
            "created_at": [START + timedelta(days=float(number)) for number in day],
        }
    )


def shuffled(seed: int) -> pl.DataFrame:
    """Two troubles planted, and then dealt anew to the rows."""
    table = drawn(seed, rows=600, strict=1.0, turned=True)
    order = np.random.default_rng([seed, 1]).permutation(table.height)
    return table.with_columns(table[order].select("source", "rater", "created_at"))


TABLES: dict[str, tuple[Callable[[int], pl.DataFrame], Named]] = {
    "shuffled": (shuffled, set()),
    "nothing": (drawn, set()),
    "nothing, prompts hang together": (lambda seed: drawn(seed, rows=1000, spread=1.5), set()),
    "nothing, 60 raters": (lambda seed: drawn(seed, raters=60), set()),
    "nothing, 97 % desirable": (lambda seed: drawn(seed, base=6.0), set()),
    "a source 0.5 stricter": (lambda seed: drawn(seed, strict=0.5), {("source", "s2")}),
    "a source 1.2 stricter": (lambda seed: drawn(seed, strict=1.2), {("source", "s2")}),
    "a source 0.8 stricter, 800 rows": (lambda seed: drawn(seed, rows=800, strict=0.8), {("source", "s2")}),
    "an inverted rater": (lambda seed: drawn(seed, inverted=True), {("rater", "r3")}),
    "a rater inverted since a date": (lambda seed: drawn(seed, turned=True), {("rater", "r3")}),
    "an inverted rater, labels even": (lambda seed: drawn(seed, inverted=True, base=0.0), {("rater", "r3")}),
    "all more lenient since a date": (lambda seed: drawn(seed, lenient=0.8), {("created_at", "")}),
    "a strict source and a turned rater": (
        lambda seed: drawn(seed, strict=1.2, turned=True),
        {("source", "s2"), ("rater", "r3")},
    ),
}


def plain(table: pl.DataFrame) -> Named:
    """Groups whose labels depart from p by a residual test each, adjusted by Holm."""
    x, y = logit(np.clip(table["p_desirable"].to_numpy(), 1e-3, 1 - 1e-3)), table["label"].to_numpy()
    p = LogisticRegression(C=1e3).fit(x[:, None], y).predict_proba(x[:, None])[:, 1]
    period = ((table["created_at"] - START).dt.total_days().cast(pl.Int64) * PERIODS // int(DAYS)).cast(pl.String)
    rows = table.with_columns(residual=pl.Series(y - p), variance=pl.Series(p * (1 - p)), created_at=period)
    tests: list[tuple[float, tuple[str, str]]] = []
    for column in ("source", "rater", "created_at"):
        by_prompt = rows.group_by(column, "prompt_group").agg(pl.len(), pl.col("residual", "variance").sum())
        groups = by_prompt.group_by(column, maintain_order=True).agg(
            pl.col("len", "residual", "variance").sum(), prompts=pl.len(), robust=(pl.col("residual") ** 2).sum()
        )
        for value, size, residual, variance, prompts, robust in groups.sort(column).iter_rows():
            if size >= MIN_ROWS and prompts >= MIN_PROMPTS:
                left = 1 - variance / rows["variance"].sum()  # the mean of all is fitted, too
                z = residual / np.sqrt(max(variance, robust) * max(left, 0.02))
                tests.append((2 * float(norm.sf(abs(z))), (column, str(value))))
    named: Named = set()
    for rank, (p_value, group) in enumerate(sorted(tests)):
        if p_value * (len(tests) - rank) > LEVEL:
            break
        named.add(group)
    return named


def searched(table: pl.DataFrame) -> Named:
    """Groups that `criteria_drift` names."""
    return set(criteria_drift(table, ("source", "rater")).table.filter("significant").select("column", "value").iter_rows())


def measured(way: Callable[[pl.DataFrame], Named], name: str, draws: int) -> dict[str, float]:
    """Share of draws with all planted groups named, with any other named, and CPU seconds a draw."""
    table, planted = TABLES[name]
    planted = {(column, value if column != "created_at" else "") for column, value in planted}
    hits, others, spent = 0, 0, 0.0
    for seed in range(draws):
        rows, start = table(seed), time.process_time()
        named = {(column, "" if column == "created_at" else value) for column, value in way(rows)}
        spent += time.process_time() - start
        hits, others = hits + (planted <= named), others + bool(named - planted)
    figures = {"others named": others / draws, "cpu_seconds": round(spent / draws, 4)}
    return ({"all planted named": hits / draws} if planted else {}) | figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=60)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name in TABLES:
        result[name] = {way.__name__: measured(way, name, options.draws) for way in (plain, searched)}
        print(name, json.dumps(result[name]), flush=True)
    write_result("drift_power", {"draws": options.draws, "tables": result} | machine())


if __name__ == "__main__":
    main()
