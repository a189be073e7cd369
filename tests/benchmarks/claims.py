"""Whether what is said of the labels holds, however the reviews came about: planted truths, and 200 draws of each way to review.

    python tests/benchmarks/claims.py [--draws 200]

Each draw: labels with planted errors, some of which a person with perfect eyes judges. What is then said of them goes through the one
place that report, card, terminal and audit share (`labels/label_words.py`). Of each way: draws in which a word, the finding KD043 or
"noisy" claims what is not so (level 2.5 %, one end of a 95 % interval), and in which an interval does not hold the truth (5 %): that of
all labels, that of each given label, and those of each rater. The truth of labels is that of the rows that could be drawn, and
the sentence names them; that of raters is of all texts that they judged, those that wait among them. Nothing was tuned here.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result

from ktodata.feedback import LABEL_NAMES, VOTE
from ktodata.labels.label_findings import MANY_WRONG
from ktodata.labels.label_rows import label_rows
from ktodata.labels.label_words import MOSTLY_BELOW, NOISY_ABOVE, UNUSABLE_ABOVE, are_noisy, is_above, reviewed_labels, trust_word
from ktodata.labels.people.raters_reviewed import confusions_by_reviews, texts_of_raters, wrong_by_rater
from ktodata.labels.people.trusted import HELD, draw_order, drawable, reviewed_metrics, rows_to_review
from ktodata.labels.people.votes import last_votes, votes_of_rows

SEED = 0
CLAIMS: dict[str, Callable[[float], bool]] = {
    "Mostly.": lambda share: share < MOSTLY_BELOW,
    "With care.": lambda share: share > MOSTLY_BELOW,
    "Not as they are.": lambda share: share > UNUSABLE_ABOVE,
}
Rows = pl.DataFrame  # row_id, label, truth, doubt, votes, prompt, completion, trained, state
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
    votes = [[vote(number, label)] for number, label in zip(rng.integers(0, raters, rows), labels, strict=True)]
    return as_rows(ids, labels, labels ^ is_wrong, votes).with_columns(doubt=pl.Series(rng.normal(size=rows) + 1.5 * is_wrong))


def vote(rater: int, label: bool) -> dict[str, Any]:
    return {"rater": f"r{rater}", "label": bool(label), "created_at": None}


def as_rows(ids: list[str], labels: Any, truth: Any, votes: list[list[dict[str, Any]]]) -> Rows:
    """Rows to train on, each a text of its own."""
    return pl.DataFrame({"row_id": ids, "label": labels, "truth": truth, "prompt": ids}).with_columns(
        votes=pl.Series(votes, dtype=pl.List(VOTE)),
        doubt=pl.lit(0.0),
        completion=pl.lit("c"),
        prompt_group="prompt",
        trained=pl.lit(value=True),
        state=pl.lit("keep"),
    )


def judged_twice(rng: np.random.Generator, *, raters: int, texts: int = 500, skill: float = 0.8) -> Rows:
    """Two of the raters judge each text; one on which they differ waits with both labels."""
    truth, ids = rng.random(texts) < 0.5, [f"{number:016x}" for number in rng.integers(0, 2**63, texts)]
    pairs = [rng.choice(raters, 2, replace=False) for _ in range(texts)]
    votes = [
        [vote(rater, bool(true ^ (rng.random() > skill))) for rater in pair] for pair, true in zip(pairs, truth, strict=True)
    ]
    rows = as_rows(ids, [both[0]["label"] for both in votes], truth, votes)
    even = pl.Series([both[0]["label"] != both[1]["label"] for both in votes])
    return with_held(rows.filter(~even), rows.filter(even))


def until_a_word(rows: Rows, most: int) -> pl.Series:
    """The draw, 60 rows and then 30 more each time, as the audit advises, until it says more than that reviews are too few."""
    for count in range(60, most + 1, 30):
        judged = draw(rows, count)
        if (
            trust_word(reviewed_labels(reviewed_metrics(marked(rows.with_columns(trusted_label=pl.when(judged).then("truth"))))))
            in CLAIMS
        ):
            break
    return judged


def marked(rows: Rows, *, vouched: bool = False) -> Rows:
    """As label_noise sees them; no model says anything."""
    table = label_rows(rows, neighbours=0, all_at_random=vouched, seed=SEED).table
    return table.with_columns(label_quality=-pl.col("doubt"), flagged=pl.lit(value=False))


def with_held(rows: Rows, texts: Rows) -> Rows:
    """And texts that wait with a row of each label."""
    held = texts.with_columns(trained=pl.lit(value=False), state=pl.lit(HELD))
    return pl.concat([rows, held, held.with_columns(pl.col("row_id") + "'", ~pl.col("label"))])


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
    """A third of the rows, mostly doubtful ones, have a text that another rater gave the other label, and wait for that."""
    twins = rows.sort("doubt", descending=True).head(rows.height // 3)
    votes = [[own, vote(99, not own["label"])] for (own,) in twins["votes"]]
    return with_held(rows.join(twins, on="row_id", how="anti"), twins.with_columns(votes=pl.Series(votes, dtype=pl.List(VOTE))))


def waiting(rows: Rows, count: int) -> pl.Series:
    """The first of the texts that wait, as the desk asks about them."""
    texts = rows.filter(state=HELD).group_by("prompt").agg(pl.col("row_id").min())["row_id"]
    return rows["prompt"].is_in(
        rows.filter(pl.col("row_id").is_in(texts[draw_order(texts, SEED)].head(count).implode()))["prompt"].implode()
    )


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
        lambda rng: with_siblings(planted(rng)), lambda rows, _: draw(rows, 60) | (rows["state"] == HELD)
    ),
    "one class in 500": Way(
        lambda rng: planted(rng, rows=2000, desirable=0.998, wrong=(0.5, 0.02)), lambda rows, _: draw(rows, 60)
    ),
    "one class only": Way(lambda rng: planted(rng, desirable=1.0), lambda rows, _: draw(rows, 60)),
    "a small class, all of it by the queue": Way(
        lambda rng: planted(rng, desirable=0.97, wrong=(0.6, 0.02)), lambda rows, _: queued(rows, 80) | ~rows["label"]
    ),
    "vouched for, and random": Way(planted, lambda rows, rng: pl.Series(rng.random(rows.height) < 0.1), vouched=True),
    "looked at again after each 30 up to 480, 5.5 % wrong": Way(
        lambda rng: planted(rng, rows=2000, wrong=(0.055, 0.055)), lambda rows, _: until_a_word(rows, 480)
    ),
    "looked at again after each 30 up to 480, 4.5 % wrong": Way(
        lambda rng: planted(rng, rows=2000, wrong=(0.045, 0.045)), lambda rows, _: until_a_word(rows, 480)
    ),
    "two raters a text, a draw of 60": Way(lambda rng: judged_twice(rng, raters=2), lambda rows, _: draw(rows, 60)),
    "two raters a text, a draw of 60 and 90 that wait": Way(
        lambda rng: judged_twice(rng, raters=2), lambda rows, _: draw(rows, 60) | waiting(rows, 90)
    ),
    "two of six raters a text, a draw of 200 and 60 that wait": Way(
        lambda rng: judged_twice(rng, raters=6), lambda rows, _: draw(rows, 200) | waiting(rows, 60)
    ),
    "two raters a text, all rows": Way(
        lambda rng: judged_twice(rng, raters=2), lambda rows, _: pl.repeat(True, len(rows), eager=True)
    ),
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
    table = marked(rows, vouched=way.vouched)
    metrics = reviewed_metrics(table)
    reviews, whole = reviewed_labels(metrics), table.filter("drawable")
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
    counts.update(of_raters(table))
    return counts


def of_raters(table: Rows) -> Counter[str]:
    """What of the raters' intervals does not hold, against all that each of them said."""
    texts = texts_of_raters(table, seed=SEED)
    votes = last_votes(votes_of_rows(texts))
    every = votes_of_rows(table.unique("prompt")).join(table.select("row_id", "truth"), on="row_id")
    counts: Counter[str] = Counter()
    for name, given, low, high in wrong_by_rater(texts, votes).select("value", "given", "^error_[lh].*$").iter_rows():
        own = every.filter(pl.col("rater") == name, pl.col("verdict") == given)
        counts["raters"] += 1
        counts["truth outside, raters"] += outside(low, high, own.select((pl.col("verdict") != pl.col("truth")).mean()).item())
    for line in confusions_by_reviews(texts, votes).iter_rows(named=True):
        for name, side in (("sensitivity", True), ("specificity", False)):
            own = every.filter(pl.col("rater") == line["rater"], pl.col("truth") == side)
            right = own.select((pl.col("verdict") == side).mean()).item()
            counts["raters, up to good or down to bad"] += line[f"{name}_low"] is not None
            counts["truth outside, up to good or down to bad"] += outside(line[f"{name}_low"], line[f"{name}_high"], right)
    return counts


def share_wrong(rows: Rows) -> float:
    return float((rows["label"] != rows["truth"]).to_numpy().mean()) if rows.height else float("nan")


def outside(low: float | None, high: float | None, truth: float | None) -> int:
    return int(low is not None and high is not None and truth is not None and (truth < low - 1e-9 or truth > high + 1e-9))


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
