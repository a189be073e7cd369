"""Whether what is said of the labels holds, however the reviews came about: planted truths, and 200 draws of each way to review.

    python tests/benchmarks/claims.py [--draws 200]

Each draw: labels with planted errors, some of which a person with perfect eyes judges. What is then said of them goes through the one
place that report, card, terminal and audit share (`labels/label_words.py`). Of each way: draws in which a word, the finding KD043 or
"noisy" claims what is not so (level 2.5 %, one end of a 95 % interval), and in which an interval does not hold the truth (5 %): that of
all labels, that of each given label, and those of each rater and source. Drawn rows only; nothing was tuned here.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.label_findings import MANY_WRONG
from ktodata.labels.label_words import MOSTLY_BELOW, NOISY_ABOVE, UNUSABLE_ABOVE, are_noisy, is_above, reviewed_labels, trust_word
from ktodata.labels.people.raters_reviewed import wrong_by_rater
from ktodata.labels.people.trusted import drawable, mark_reviewed, reviewed_metrics, rows_to_review

SEED = 0
CLAIMS: dict[str, Callable[[float], bool]] = {
    "Mostly.": lambda share: share < MOSTLY_BELOW,
    "With care.": lambda share: share > MOSTLY_BELOW,
    "Not as they are.": lambda share: share > UNUSABLE_ABOVE,
}
Rows = pl.DataFrame  # row_id, label, truth, doubt, rater, prompt, completion, trained, state
Judge = Callable[[Rows, np.random.Generator], pl.Series]


def planted(
    rng: np.random.Generator,
    *,
    rows: int = 600,
    desirable: float = 0.75,
    wrong: tuple[float, float] = (0.15, 0.05),
    raters: int = 4,
) -> Rows:
    """Rows whose labels are wrong with these chances if given undesirable and desirable; `doubt` orders them better than chance."""
    labels = rng.random(rows) < desirable
    labels[:2] = False, True
    is_wrong = rng.random(rows) < np.where(labels, wrong[1], wrong[0])
    ids = [f"{number:016x}" for number in rng.integers(0, 2**63, rows)]
    return pl.DataFrame({"row_id": ids, "label": labels, "truth": labels ^ is_wrong, "prompt": ids}).with_columns(
        doubt=pl.Series(rng.normal(size=rows) + 1.5 * is_wrong),
        rater=pl.Series([f"r{number}" for number in rng.integers(0, raters, rows)]),
        source=pl.lit("s"),
        completion=pl.lit("c"),
        trained=pl.lit(value=True),
        state=pl.lit("keep"),
    )


def draw(rows: Rows, count: int) -> pl.Series:
    """The audit's own draw of so many rows, as a person who asks for a sample judges it."""
    chosen = rows_to_review(rows.filter(drawable(rows)), total=count, seed=SEED)["row_id"]
    return rows["row_id"].is_in(chosen.implode())


def queued(rows: Rows, count: int) -> pl.Series:
    """The most doubtful rows."""
    return rows["row_id"].is_in(rows.sort("doubt", descending=True)["row_id"].head(count).implode())


def until_wrong(rows: Rows, count: int) -> pl.Series:
    """Row after row of the draw, in its order, until so many wrong ones came up, or 200 were judged."""
    order = rows_to_review(rows.filter(drawable(rows)), total=200, seed=SEED).join(
        rows.select("row_id", hit=pl.col("truth") != pl.col("label")), on="row_id", maintain_order="left"
    )
    ends = np.flatnonzero(order["hit"].cum_sum().to_numpy() >= count)
    return rows["row_id"].is_in(order["row_id"].head(int(ends[0]) + 1 if len(ends) else 200).implode())


def with_siblings(rows: Rows) -> Rows:
    """A third of the rows, mostly doubtful ones, have a text that is there with the other label too, and held for that."""
    twins = rows.sort("doubt", descending=True).head(rows.height // 3)
    held = twins.with_columns(pl.col("row_id") + "'", ~pl.col("label"), trained=pl.lit(value=False), state=pl.lit("review"))
    return pl.concat([rows, held])


@dataclass(frozen=True)
class Way:
    """How the labels were planted and which of them a person judges."""

    plant: Callable[[np.random.Generator], Rows]
    judge: Judge
    vouched: bool = False
    contested: tuple[float, float] = (0.0, 0.0)  # share of judged rows on which people differ, of right and of wrong labels


WAYS: dict[str, Way] = {
    "a draw of 60": Way(planted, lambda rows, _: draw(rows, 60)),
    "a draw of 60, at the line": Way(lambda rng: planted(rng, wrong=(0.05, 0.05)), lambda rows, _: draw(rows, 60)),
    "a draw of 200, at the line": Way(lambda rng: planted(rng, wrong=(0.03, 0.03)), lambda rows, _: draw(rows, 200)),
    "one review": Way(planted, lambda rows, _: draw(rows, 1)),
    "eleven of the draw, twenty asked for": Way(planted, lambda rows, _: draw(rows, 11)),
    "all rows": Way(planted, lambda rows, _: rows["trained"]),
    "the queue alone, 60": Way(planted, lambda rows, _: queued(rows, 60)),
    "the queue alone, half of the rows": Way(planted, lambda rows, _: queued(rows, 300)),
    "the queue alone, 95 % of the rows": Way(planted, lambda rows, _: queued(rows, 570)),
    "a draw of 40 and 100 of the queue": Way(planted, lambda rows, _: draw(rows, 40) | queued(rows, 100)),
    "a draw of 100, one in twelve skipped where doubtful": Way(
        planted, lambda rows, rng: draw(rows, 100) & ~((rows["doubt"] > 1) & pl.Series(rng.random(rows.height) < 0.3))
    ),
    "wrong labels mostly contested": Way(planted, lambda rows, _: draw(rows, 100), contested=(0.02, 0.6)),
    "right labels often contested": Way(planted, lambda rows, _: draw(rows, 100), contested=(0.15, 0.02)),
    "a draw and the queue, both contested at times": Way(
        planted, lambda rows, _: draw(rows, 60) | queued(rows, 60), contested=(0.1, 0.3)
    ),
    "a draw of 60, some skipped as they look wrong": Way(
        planted, lambda rows, rng: draw(rows, 60) & ~((rows["doubt"] > 1.5) & pl.Series(rng.random(rows.height) < 0.6))
    ),
    "the draw until two are wrong": Way(planted, lambda rows, _: until_wrong(rows, 2)),
    "rows with siblings, all of them and a draw of 60": Way(
        lambda rng: with_siblings(planted(rng)), lambda rows, _: draw(rows, 60) | rows["prompt"].is_duplicated()
    ),
    "one class in 500": Way(
        lambda rng: planted(rng, rows=2000, desirable=0.998, wrong=(0.5, 0.02)), lambda rows, _: draw(rows, 60)
    ),
    "one class only": Way(lambda rng: planted(rng, desirable=1.0), lambda rows, _: draw(rows, 60)),
    "a small class, all of it by the queue": Way(
        lambda rng: planted(rng, desirable=0.97, wrong=(0.6, 0.02)), lambda rows, _: queued(rows, 80) | ~rows["label"]
    ),
    "vouched for, and random": Way(planted, lambda rows, rng: pl.Series(rng.random(rows.height) < 0.1), vouched=True),
    "hundreds of raters": Way(lambda rng: planted(rng, raters=300), lambda rows, _: draw(rows, 120)),
}


def claims(way: Way, seed: int) -> Counter[str]:
    """What of one draw's sentences and intervals does not hold."""
    rng = np.random.default_rng(seed)
    rows = way.plant(rng)
    judged = way.judge(rows, rng)
    chance = np.where(rows["label"] != rows["truth"], way.contested[1], way.contested[0])
    differ = judged & rows["trained"] & pl.Series(rng.random(rows.height) < chance)
    rows = rows.with_columns(
        trusted_label=pl.when(judged & ~differ).then("truth"),
        reviewed_contested=differ,
        trained=pl.col("trained") & ~differ,
        state=pl.when(differ).then(pl.lit("review")).otherwise("state"),
    )
    table = rows.with_columns(label_quality=-pl.col("doubt"), flagged=pl.lit(value=False))
    marked = mark_reviewed(table, SEED, all_at_random=way.vouched)
    metrics = reviewed_metrics(marked)
    reviews, whole = reviewed_labels(metrics), marked.filter("drawable")
    truth = share_wrong(whole)
    word, many = trust_word(reviews), is_above(reviews, MANY_WRONG)
    counts = Counter({"draws": 1, f"word: {word.partition(' (')[0]}": 1, "with a rate": int(reviews.whole.rate.low is not None)})
    counts["false words"] += int(word in CLAIMS and not CLAIMS[word](truth))
    counts["false words"] += int(are_noisy(reviews) and truth <= NOISY_ABOVE) + int(
        many is not None and many != (truth > MANY_WRONG)
    )
    counts["truth outside, all labels"] += outside(reviews.whole.rate.low, reviews.whole.rate.high, truth)
    for given, name in LABEL_NAMES.items():
        rate, of_class = metrics[name]["error_rate"], whole.filter(pl.col("label") == given)
        counts["truth outside, a given label"] += outside(rate["low"], rate["high"], share_wrong(of_class))
    rates = wrong_by_rater(marked, marked.select("row_id", "rater", verdict="label"))
    for value, given, low, high in rates.select("value", "given", "error_low", "error_high").iter_rows():
        of_rater = whole.filter(pl.col("rater") == value, pl.col("label") == given)
        counts["raters"] += 1
        counts["truth outside, raters"] += outside(low, high, share_wrong(of_rater))
    return counts


def share_wrong(rows: Rows) -> float | None:
    return rows.select((pl.col("label") != pl.col("truth")).mean()).item()


def outside(low: float | None, high: float | None, truth: float | None) -> int:
    return int(low is not None and high is not None and truth is not None and not low <= truth <= high)


def measured(way: Way, draws: int) -> dict[str, Any]:
    """The counts of all draws."""
    total: Counter[str] = Counter()
    for seed in range(draws):
        total.update(claims(way, seed))
    return dict(sorted(total.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    result = {}
    for name, way in WAYS.items():
        result[name] = measured(way, options.draws)
        print(name, result[name], flush=True)
    write_result("claims", {"draws": options.draws, "ways": result} | machine())


if __name__ == "__main__":
    main()
