"""The share of wrong labels from a random draw of reviews: how narrow its interval can be where weak evidence covers every row.

    python tests/benchmarks/error_rates.py DATA_FOLDER [--draws 1000] [--sets ...] [--kept FOLDER]

A person with perfect eyes judges 30 to 300 rows, drawn within each given label as the audit draws them. What the other rows are like
is known only by `doubt`, learnt without any review: P(wrong) of the classifier of labels and text, out of fold, or the order that
text and further votes make together. Each method gives a 95 % interval of the share of wrong labels in all rows:

    exact          what ktodata says (`stats.stratified_share`), of two strata, the given labels. It uses no doubt
    by estimate    the exact interval that it said before: Buehler's, outcomes in the order of the estimate, all pairs of shares tried
    score          Miettinen and Nurminen's: the normal test, with the variance of the likeliest shares under the share that is tested
    strata         the same in four strata, each given label cut in two where that leaves least variance of doubt (no verdict is read)
    three strata   each given label cut in three
    ppi++          weak labels as control variates (arXiv 2311.01453): of each given label, doubt times the weight that leaves least variance
    ppi++, t       the same with leave-one-out residuals and the t distribution
    by size        another draw, score: rows shared out over the given labels by their size, where the audit's draw has more of the rarer
    neyman         another draw, strata: rows shared out over the four by their size and the spread that doubt expects

Coverage and width are over all draws; of `by estimate`, which is slow, over the first 100. `limit` is the width that no method
linear in `doubt` gets below in large draws: the square root of the share of variance of "wrong", within the given labels, that
doubt does not explain. Made-up sets: 3,000 rows, errors of 2 to 30 %, doubt from worthless to strong and, in all, off by half in
log-odds.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import label_noise_alone as alone
import numpy as np
import polars as pl
from machine import machine, write_result
from scipy.optimize import brentq
from scipy.special import bdtr, expit, logit, ndtri, stdtrit

import ktodata as kd
from ktodata.labels.people.review_queue import shares
from ktodata.stats import Pair, stratified_share

BUDGETS = (30, 60, 100, 300)
SETS = (
    *("xstest, GPT-4's labels", "xstest, string match", "gsm8k, self-consistency", "evouna, string match"),
    *("youtube, majority of functions", "openqa, gpt4", "openqa, bem", "openqa, davinci"),
    *("halueval_general, uniform", "halueval_general, by topic"),
)
RATES, SHARPNESS = (0.02, 0.05, 0.15, 0.3), (0.0, 1.5, 3.0)
Z = float(ndtri(0.975))
HALVINGS = 50
SLOW = 100  # draws of `by estimate`
MIN_OF_STRATUM = 5  # rows of a draw of its own
Ends = tuple[np.ndarray, np.ndarray]


class Judged(NamedTuple):
    """labels, wrong, doubt : of all N rows. rows : int [D, n], places of the judged rows of D draws, `take` of each given label"""

    labels: np.ndarray
    wrong: np.ndarray
    doubt: np.ndarray
    rows: np.ndarray
    take: tuple[int, int]

    @property
    def sizes(self) -> tuple[int, int]:
        return int((~self.labels).sum()), int(self.labels.sum())


# --- what is measured on -------------------------------------------------------------------------------------------------------


def votes_of(record: dict[str, Any]) -> dict[str, bool]:
    """All votes on a record, that of the one who gave the label among them; none where there is no second."""
    systems = {name: record[name] for name in ("weak_label_gpt4", "weak_label_strmatch") if record.get(name) is not None}
    votes = record.get("votes", systems)
    return votes if len(votes) > 1 else {}


def doubts(folder: Path, name: str, rows: int) -> dict[str, np.ndarray]:
    """label, wrong, and doubt by text; by text and votes where there are second votes."""
    _, file, labels_of, _ = alone.SETS[name]
    table = alone.load(folder, name, rows)
    labels, wrong = table["label"].to_numpy(), (table["label"] != table["truth"]).to_numpy()
    by_set = alone.candidates(table, [0])[0]
    p = alone.together(table, {each: by_set[each] for each in alone.FEATURE_SETS})
    result = {"label": labels, "wrong": wrong, "text": np.where(labels, 1 - p, p)}
    records = [record for record in alone.read(folder / file) if labels_of(record)[0] is not None]
    votes = {(record["prompt"].strip(), record["completion"].strip()): votes_of(record) for record in records}
    if any(votes.values()):
        cast = [
            [
                {"rater": rater, "label": label, "created_at": None}
                for rater, label in votes[prompt.strip(), answer.strip()].items()
            ]
            for prompt, answer in table.select("prompt", "completion").iter_rows()
        ]
        voted = table.drop("pooled_votes", strict=False).with_columns(votes=pl.Series(cast, dtype=table.schema["votes"]))
        result["text and votes"] = 1 - kd.label_noise(voted, noise_injection=0).columns["label_quality"].to_numpy()
    return result


def made_up(rate: float, sharpness: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([round(100 * rate), round(10 * sharpness)])
    ease, labels = rng.normal(size=3000), rng.random(3000) < 0.65
    centre = brentq(lambda a: expit(a + sharpness * ease).mean() - rate, -30, 10)
    chance = expit(centre + sharpness * ease)
    return {"label": labels, "wrong": rng.random(3000) < chance, "text": expit(logit(chance) / 2)}


def made_up_sets() -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    kinds = product(RATES, SHARPNESS)
    return {f"made up, {rate:.0%} wrong, sharpness {sharpness:g}": partial(made_up, rate, sharpness) for rate, sharpness in kinds}


# --- methods: the ends of an interval for each draw --------------------------------------------------------------------------------


def exact(judged: Judged, interval: Callable[[Pair, Pair, Pair], Any] = stratified_share) -> Ends:
    @cache
    def ends(hits: Pair) -> tuple[float, float]:
        low, high = interval(hits, judged.take, judged.sizes)[-2:]
        return float(low or 0.0), float(1.0 if high is None else high)

    is_wrong = judged.wrong[judged.rows]
    hits = (is_wrong[:, : judged.take[0]].sum(axis=1), is_wrong[:, judged.take[0] :].sum(axis=1))
    low, high = np.array([ends((int(a), int(b))) for a, b in zip(*hits, strict=True)]).T
    return low, high


def by_estimate(hits: Pair, trials: Pair, sizes: Pair) -> tuple[float, float]:
    misses = (trials[0] - hits[0], trials[1] - hits[1])
    weights = (sizes[0] / sum(sizes), sizes[1] / sum(sizes))
    return 1 - _last_by_estimate(misses, trials, weights), _last_by_estimate(hits, trials, weights)


def _last_by_estimate(hits: Pair, trials: Pair, weights: tuple[float, float]) -> float:
    estimate = sum(weight * hit / trial for weight, hit, trial in zip(weights, hits, trials, strict=True))
    counts = np.arange(trials[0] + 1.0)
    room = np.floor((estimate - weights[0] * counts / trials[0]) * trials[1] / weights[1] + 1e-9)
    counts, room = counts[room >= 0], np.minimum(room[room >= 0], trials[1])
    low, high = estimate, 1.0
    for _ in range(15):
        middle = (low + high) / 2
        first = np.linspace(max(0.0, (middle - weights[1]) / weights[0]), min(1.0, middle / weights[0]), 33)[:, None]
        second = np.clip((middle - weights[0] * first) / weights[1], 0, 1)
        below = np.where(counts > 0, bdtr(np.maximum(counts - 1, 0), trials[0], first), 0.0)
        chances = ((bdtr(counts, trials[0], first) - below) * bdtr(room, trials[1], second)).sum(axis=1)
        low, high = (middle, high) if chances.max() > 0.025 else (low, middle)
    return high


def score(hits: np.ndarray, drawn: np.ndarray, sizes: np.ndarray) -> Ends:
    """Ends for each draw. hits, drawn, sizes : [D, K], in K strata; drawn may be 0 where sizes are.

    The likeliest shares whose weighted sum is theta lie on one curve, p_k(m) = root of m w_k p^2 - (n_k + m w_k) p + x_k = 0, so an
    end is one root in m (Miettinen and Nurminen 1985, of a sum). Variances are of draws without replacement.
    """
    weights = sizes / sizes.sum(axis=1, keepdims=True)
    left = np.clip((sizes - drawn) / np.maximum(sizes - 1, 1), 0, 1)
    return 1 - _upper(drawn - hits, drawn, weights, left), _upper(hits, drawn, weights, left)


def _upper(hits: np.ndarray, drawn: np.ndarray, weights: np.ndarray, left: np.ndarray) -> np.ndarray:
    trials = np.maximum(drawn, 1e-9)
    estimate = (weights * hits / trials).sum(axis=1)

    def at(exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pull = np.minimum(-np.power(10.0, exponent)[:, None] * weights, -1e-12)
        root = np.sqrt((trials + pull) ** 2 - 4 * pull * hits)
        below, above = trials + pull + root, trials + pull - root
        p = np.clip(np.where(trials + pull > 0, 2 * hits / np.maximum(below, 1e-12), above / (2 * pull)), 0, 1)
        theta = (weights * p).sum(axis=1)
        return theta, theta - estimate - Z * np.sqrt((weights**2 * p * (1 - p) / trials * left).sum(axis=1))

    low, high = np.full(len(hits), -6.0), np.full(len(hits), 9.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        outside = at(middle)[1] > 0
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return at(high)[0]


def cut(values: np.ndarray, parts: int) -> np.ndarray:
    """Which of `parts` runs of sorted values each is in, such that the variance within is least: int [n], 0 lowest."""
    levels, place, count = np.unique(np.round(values, 4), return_inverse=True, return_counts=True)
    if len(levels) <= parts:
        return place
    rows, total = np.r_[0, np.cumsum(count)], np.r_[0, np.cumsum(count * levels)]

    def between(first: Any, last: Any) -> Any:
        return (total[last] - total[first]) ** 2 / np.maximum(rows[last] - rows[first], 1)

    best: dict[int, tuple[float, list[int]]] = {}
    for start in range(1, len(levels) if parts == 3 else 2):
        ends = np.arange(start + 1 if parts == 3 else 1, len(levels))
        if len(ends):
            gain = (
                between(0, start if parts == 3 else ends)
                + between(start if parts == 3 else ends, ends)
                + between(ends, len(levels))
            )
            best[start] = (float(gain.max()), [start, int(ends[gain.argmax()])] if parts == 3 else [int(ends[gain.argmax()])])
    return np.searchsorted(max(best.values())[1], place, side="right")


def strata_of(judged: Judged, parts: int) -> np.ndarray:
    """Number of each row's stratum, those of one given label in a row: int [N]."""
    strata = np.zeros(len(judged.labels), int)
    for side in (False, True):
        of = judged.labels == side
        strata[of] = 2 * side * parts + cut(judged.doubt[of], parts) if parts > 1 else side
    return np.unique(strata, return_inverse=True)[1]


def in_strata(judged: Judged, parts: int) -> Ends:
    """`score`; a stratum of which a draw holds no row is counted with the one before or after it that has the same given label."""
    strata = strata_of(judged, parts)
    count, of_row = strata.max() + 1, strata[judged.rows]
    drawn = np.stack([(of_row == k).sum(axis=1) for k in range(count)], axis=1).astype(float)
    hits = np.stack([((of_row == k) & judged.wrong[judged.rows]).sum(axis=1) for k in range(count)], axis=1).astype(float)
    sizes = np.repeat(np.bincount(strata)[None].astype(float), len(drawn), axis=0)
    side = np.array([judged.labels[strata == k][0] for k in range(count)])
    for draw, empty in zip(*np.nonzero(drawn == 0), strict=True):
        others = [k for k in range(count) if side[k] == side[empty] and drawn[draw, k]]
        if others:
            nearest = min(others, key=lambda k, empty=empty: abs(k - empty))
            sizes[draw, nearest] += sizes[draw, empty]
            sizes[draw, empty] = 0
    return score(hits, drawn, sizes)


def ppi(judged: Judged, *, careful: bool) -> Ends:
    """The power-tuned estimate of each given label. careful : leave-one-out residuals and t in place of the normal."""
    estimate, variance = np.zeros(len(judged.rows)), np.zeros(len(judged.rows))
    for side, part in enumerate(np.split(judged.rows, [judged.take[0]], axis=1)):
        count, of = part.shape[1], judged.labels == bool(side)
        if not count:
            continue
        wrong, doubt, weight = judged.wrong[part].astype(float), judged.doubt[part], of.mean()
        off, spread = wrong - wrong.mean(axis=1, keepdims=True), doubt - doubt.mean(axis=1, keepdims=True)
        sum_of_squares = np.maximum((spread**2).sum(axis=1), 1e-12)
        tuned = (off * spread).sum(axis=1) / sum_of_squares
        left = off - tuned[:, None] * spread
        if careful:
            left = left / np.maximum(1 - 1 / count - spread**2 / sum_of_squares[:, None], 1e-3)
        estimate += weight * (wrong.mean(axis=1) - tuned * (doubt.mean(axis=1) - judged.doubt[of].mean()))
        freedom = count if careful else max(count - 1, 1)
        variance += weight**2 * (left**2).sum(axis=1) / freedom / count * max(0.0, 1 - count / of.sum())
    reach = np.sqrt(variance) * (float(stdtrit(max(judged.rows.shape[1] - 4, 2), 0.975)) if careful else Z)
    return np.clip(estimate - reach, 0, 1), np.clip(estimate + reach, 0, 1)


def own_draw(judged: Judged, rng: np.random.Generator, parts: int) -> Ends:
    """`score` of another draw of as many rows: from four strata by size and expected spread, or from the given labels by size."""
    strata, budget = strata_of(judged, parts), judged.rows.shape[1]
    sizes, wrong = np.bincount(strata), np.bincount(strata, weights=judged.wrong).astype(int)
    expected = np.clip(np.bincount(strata, weights=judged.doubt) / sizes, 0.05, 0.5)
    worth = sizes * (np.sqrt(expected * (1 - expected)) if parts > 1 else 1)
    least = min(MIN_OF_STRATUM, budget // (2 * len(sizes)))
    take = np.minimum(np.maximum(np.round(worth / worth.sum() * budget), least), sizes)
    hits = rng.hypergeometric(wrong, sizes - wrong, take.astype(int), (len(judged.rows), len(sizes))).astype(float)
    same = np.ones((len(hits), 1))
    return score(hits, same * take, same * sizes)


METHODS: dict[str, Callable[[Judged, np.random.Generator], Ends]] = {
    "exact": lambda judged, _: exact(judged),
    "by estimate": lambda judged, _: exact(judged._replace(rows=judged.rows[:SLOW]), by_estimate),
    "score": lambda judged, _: in_strata(judged, 1),
    "strata": lambda judged, _: in_strata(judged, 2),
    "three strata": lambda judged, _: in_strata(judged, 3),
    "ppi++": lambda judged, _: ppi(judged, careful=False),
    "ppi++, t": lambda judged, _: ppi(judged, careful=True),
    "by size": lambda judged, rng: own_draw(judged, rng, 1),
    "neyman": lambda judged, rng: own_draw(judged, rng, 2),
}


# --- figures -----------------------------------------------------------------------------------------------------------------------


def measure(columns: dict[str, np.ndarray], by: str, budget: int, draws: int, seed: int) -> dict[str, Any]:
    """Of each method: share of draws whose interval holds the truth, misses to either side, width, and that beside exact's."""
    rng, labels, wrong = np.random.default_rng([seed, budget]), columns["label"], columns["wrong"]
    sides = [np.flatnonzero(labels == side) for side in (False, True)]
    take = shares(len(sides[0]), len(sides[1]), budget)
    rows = np.stack(
        [np.concatenate([rng.permutation(side)[:count] for side, count in zip(sides, take, strict=True)]) for _ in range(draws)]
    )
    judged, truth, result = Judged(labels, wrong, columns[by], rows, take), wrong.mean(), {}
    for name, method in METHODS.items():
        low, high = method(judged, rng)
        result[name] = {
            "coverage": float(((low <= truth) & (truth <= high)).mean()),
            "truth_below": float((truth < low).mean()),
            "truth_above": float((truth > high).mean()),
            "width": float((high - low).mean()),
        }
        result[name]["beside_exact"] = result[name]["width"] / result["exact"]["width"]
    return result


def limit(columns: dict[str, np.ndarray], by: str) -> float:
    """Width that is left in large draws, within the given labels."""
    left = total = 0.0
    for side in (False, True):
        of = columns["label"] == side
        wrong, doubt = columns["wrong"][of].astype(float), columns[by][of]
        share_explained = np.corrcoef(wrong, doubt)[0, 1] ** 2 if wrong.std() and doubt.std() else 0.0
        total += of.sum() ** 2 * wrong.var()
        left += of.sum() ** 2 * wrong.var() * (1 - share_explained)
    return float(np.sqrt(left / total))


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each method over cells: mean and least coverage, cells under 0.94, mean and median width beside exact's."""
    lines = {}
    for name in METHODS if cells else ():
        coverage, width = (np.array([cell["methods"][name][key] for cell in cells]) for key in ("coverage", "beside_exact"))
        good = (coverage >= 0.94) & (width <= 0.7)
        lines[name] = {
            "cells": len(cells),
            "coverage": float(coverage.mean()),
            "least_coverage": float(coverage.min()),
            "cells_under_0.94": int((coverage < 0.94).sum()),
            "width_beside_exact": float(width.mean()),
            "cells_of_0.7_at_0.94": int(good.sum()),
        }
    return lines


def kept_doubts(folder: Path, name: str, rows: int, kept: Path | None) -> dict[str, np.ndarray]:
    place = None if kept is None else kept / f"{name.replace(' ', '_').replace(',', '')}.npz"
    if place is not None and place.exists():
        return dict(np.load(place))
    columns = doubts(folder, name, rows)
    if place is not None:
        np.savez(place, **columns)
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="only sets whose name begins with one of these")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1500, help="of a set, at most")
    parser.add_argument("--kept", type=Path, help="a folder where doubt is kept, so that a second run fits nothing")
    parser.add_argument("--name", default="error_rates", help="of the result file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    sets = {name: partial(kept_doubts, options.folder, name, options.rows, options.kept) for name in SETS} | made_up_sets()
    cells = []
    for number, (name, columns_of) in enumerate(sets.items()):
        if options.sets and not name.startswith(tuple(options.sets)):
            continue
        columns = columns_of()
        for by in ("text", "text and votes"):
            for budget in BUDGETS if by in columns else ():
                methods = measure(columns, by, budget, options.draws, number)
                about = {
                    "set": name,
                    "doubt": by,
                    "reviews": budget,
                    "rows": len(columns["label"]),
                    "wrong": float(columns["wrong"].mean()),
                }
                cells.append(about | {"limit": limit(columns, by), "methods": methods})
                figures = {way: (round(of["coverage"], 3), round(of["beside_exact"], 2)) for way, of in methods.items()}
                print(name, by, budget, round(cells[-1]["limit"], 2), figures, flush=True)
    kinds = {"real, text": "text", "real, text and votes": "text and votes"}
    lines = {
        kind: summary([c for c in cells if c["doubt"] == by and not c["set"].startswith("made up")]) for kind, by in kinds.items()
    }
    lines["made up"] = summary([cell for cell in cells if cell["set"].startswith("made up")])
    lines = {kind: line for kind, line in lines.items() if line}
    print(json.dumps(lines, indent=1), flush=True)
    write_result(options.name, {"summary": lines, "cells": cells, **machine()})


if __name__ == "__main__":
    main()
