from typing import Any

import numpy as np
import polars as pl
import pytest

from ktodata.labels.label_words import next_for_labels, review_sentence, reviewed_labels
from ktodata.labels.people.trusted import (
    check_flags,
    flip_rates,
    mark_reviewed,
    next_of_draw,
    random_sample,
    reviewed_metrics,
    rows_to_review,
    trusted_rates,
    within_known,
)
from ktodata.stats import Interval


def test_rates_by_class_and_source():
    trusted = pl.DataFrame(
        {
            "label": [True] * 4 + [False] * 2,
            "trusted_label": [True, True, True, False, True, False],
            "source": ["a"] * 3 + ["b"] * 3,
        }
    )
    told = {
        (r["by"], r["value"], r["given"]): (r["rows"], r["wrong"]) for r in trusted_rates(trusted, ("source", "rater")).to_dicts()
    }
    assert told == {
        ("label", None, False): (2, 1),
        ("label", None, True): (4, 1),
        ("source", "a", True): (3, 0),
        ("source", "b", True): (1, 1),
        ("source", "b", False): (2, 1),
    }
    of_desirable = trusted_rates(trusted, ()).row(1, named=True)
    assert (of_desirable["error_low"], of_desirable["error_high"]) == pytest.approx((0.0063, 0.8059), abs=1e-3)


def test_flags_checked_by_hand():
    """Three flagged, two of them wrong; three wrong in all."""
    trusted = pl.DataFrame(
        {
            "label": [True] * 5,
            "trusted_label": [False, False, True, False, True],
            "flagged": [True, True, True, False, False],
            "label_quality": [0.1, 0.2, 0.3, 0.4, 0.9],
            "drawable": [True] * 5,
        }
    )
    told = check_flags(trusted, trusted, given=True, size=50)
    assert told["flag_precision"]["value"] == pytest.approx(2 / 3)
    assert told["flag_recall"]["value"] == pytest.approx(2 / 3)
    assert told["auroc"]["value"] == pytest.approx(5 / 6)
    assert check_flags(trusted, trusted, given=False, size=0)["error_rate"]["value"] is None


@pytest.mark.parametrize(
    ("wrong", "right", "left"),
    [
        (2, 50, (0.05, 0.02, 0.09)),  # nothing is ruled out
        (4, 94, (0.05, 0.04, 0.06)),  # both ends are, a part
        (7, 0, (None, 0.07, 0.09)),  # and the estimate
        (17, 30, (None, 0.17, 0.7)),  # all of it is: what is certain is left
        (0, 99, (None, 0.0, 0.01)),
    ],
)
def test_what_other_verdicts_rule_out_is_no_share_that_the_draw_leaves_open(wrong, right, left):
    judged = pl.DataFrame({"label": [True] * (wrong + right), "trusted_label": [False] * wrong + [True] * right})
    assert within_known(Interval(0.05, 0.02, 0.09), judged, 100) == pytest.approx(left)


def test_the_sample_is_stratified_and_says_what_it_stands_for():
    rows = pl.DataFrame({"row_id": [str(n) for n in range(1000)], "label": [n >= 100 for n in range(1000)]})
    sample = rows_to_review(rows, total=60, seed=0)
    assert sample.group_by("label", "stands_for").len().sort("label").rows() == [(False, 2.5, 40), (True, 45.0, 20)]
    assert not sample["label"][:30].all() and sample["label"][:30].any(), "in random order, so that the reviewer sees no pattern"
    assert sample.equals(rows_to_review(rows, total=60, seed=0))
    assert not sample.equals(rows_to_review(rows, total=60, seed=1))


def test_a_small_class_is_taken_whole_and_the_other_fills_up():
    rows = pl.DataFrame({"row_id": [str(n) for n in range(100)], "label": [n >= 5 for n in range(100)]})
    assert rows_to_review(rows, total=60, seed=0)["label"].sum() == 55
    assert rows_to_review(rows.head(20), total=60, seed=0).height == 20
    assert rows_to_review(rows, total=0, seed=0).height == 0


def test_rows_reviewed_because_they_looked_wrong_do_not_count_as_a_sample():
    """Sixty drawn at random, then sixty of the most doubtful: the first alone say how many labels are wrong."""
    rng, ids = np.random.default_rng(0), pl.Series("row_id", [f"row {n}" for n in range(2000)])
    labels, wrong = rng.random(2000) < 0.7, rng.random(2000) < 0.1
    asked = rows_to_review(pl.DataFrame({"row_id": ids, "label": labels}), total=60, seed=3)["row_id"]
    drawn = ids.is_in(asked.implode()).to_numpy()
    reviewed = drawn.copy()
    reviewed[np.flatnonzero(wrong & ~drawn)[:60]] = True
    found = random_sample(ids, labels, reviewed, 3)
    assert (found & drawn).sum() == 60
    assert (found & ~drawn).sum() <= 4  # a doubtful row may happen to be next in the draw
    skipped = reviewed & ~np.isin(np.arange(2000), np.flatnonzero(drawn)[:2])
    assert random_sample(ids, labels, skipped, 3).sum() >= 50, "a row that nobody could judge does not undo the draw"


def test_trusted_rows_of_unknown_origin_are_no_random_draw():
    ids, labels = pl.Series("row_id", [f"row {n}" for n in range(500)]), np.arange(500) % 2 == 0
    reviewed = np.arange(500) % 25 == 0
    assert not random_sample(ids, labels, reviewed, 0).any()
    assert random_sample(ids, labels, np.ones(500, bool), 0).all(), "all of them are no sample, but the whole"


def test_whoever_stops_early_has_judged_the_beginning_of_the_draw():
    rows = pl.DataFrame({"row_id": [f"row {n}" for n in range(600)], "label": [n % 4 > 0 for n in range(600)]})
    sample = rows_to_review(rows, total=60, seed=3)["row_id"]
    for judged in (15, 37, 60):
        reviewed = rows["row_id"].is_in(sample[:judged].implode()).to_numpy()
        assert (random_sample(rows["row_id"], rows["label"].to_numpy(), reviewed, 3) == reviewed).all()


def test_the_next_of_the_draw_are_as_many_as_are_asked_for_whatever_was_judged_before():
    """Rows that were judged for another reason take no place, and the draw goes on where it ended."""
    rng = np.random.default_rng(5)
    rows = pl.DataFrame({"row_id": [f"r{n}" for n in range(300)], "label": rng.random(300) < 0.7})
    ids = rows_to_review(rows, total=300, seed=3)["row_id"]
    drawn = set(rows_to_review(rows, total=60, seed=3)["row_id"])
    for judged in (set(), drawn, drawn | set(rng.choice(ids, 90, replace=False)), set(ids[:295])):
        left = rows.with_columns(unjudged=~pl.col("row_id").is_in(list(judged)))
        for count in (0, 1, 2, 30, 500):
            following = next_of_draw(left, count, seed=3)
            assert following.len() == following.n_unique() == min(count, 300 - len(judged)) and not judged & set(following)
    following = next_of_draw(rows.with_columns(unjudged=~pl.col("row_id").is_in(list(drawn))), 30, seed=3)
    assert set(following) == set(rows_to_review(rows, total=90, seed=3)["row_id"]) - drawn


def test_flip_rates_are_those_that_were_made():
    """1,000 truly desirable rows, 10 % flipped; 500 undesirable, 40 % flipped: 900 + 200 are labelled desirable."""
    given = {True: 1100, False: 400}
    found = flip_rates(given, {True: 200 / 1100, False: 100 / 400})
    assert found == {"desirable": pytest.approx(0.1), "undesirable": pytest.approx(0.4)}
    assert flip_rates(given, {True: None, False: 0.1}) is None
    assert flip_rates({True: 10, False: 10}, {True: 1.0, False: 0.0}) is None, "no truly desirable row would be left"


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8])
def test_a_beginning_that_is_reviewed_by_chance_is_no_draw(share):
    """The queue alone, so long that ten rows of the order in a row are reviewed in some draws: no rate follows from doubtful rows."""
    rng, alarms = np.random.default_rng(0), 0
    for seed in range(100):
        ids, labels = pl.Series("row_id", [f"row {n}" for n in range(400)]), rng.random(400) < 0.7
        alarms += int(random_sample(ids, labels, rng.random(400) < share, seed).any())
    assert alarms <= 8


@pytest.mark.parametrize("queue", [0, 90, 240])
def test_what_the_desk_recorded_as_drawn_measures_whatever_else_was_judged(queue):
    """Doubtful rows are judged beside a draw of 16, and are wrong twice as often: none says how far the draw went."""
    rng, truths, rates = np.random.default_rng(1), [], []
    for draw in range(40):
        rows = pl.DataFrame({"row_id": [f"{draw} {n}" for n in range(300)], "label": rng.random(300) < 0.6})
        wrong, labels = rng.random(300) < 0.2, rows["label"].to_numpy()
        recorded = rows["row_id"].is_in(rows_to_review(rows, total=16, seed=3)["row_id"].implode()).to_numpy()
        doubtful = np.argsort(-(rng.normal(size=300) + 2 * wrong))[:queue]
        reviewed = recorded | np.isin(np.arange(300), doubtful)
        sample = random_sample(rows["row_id"], labels, reviewed, 3, recorded)
        assert (sample & recorded).sum() == 16
        truths.append(wrong.mean())
        rates.append(wrong[sample & reviewed].mean())
    assert np.mean(rates) == pytest.approx(np.mean(truths), abs=0.05)


def test_rows_recorded_under_another_order_and_gaps_are_no_draw():
    rows = pl.DataFrame({"row_id": [f"row {n}" for n in range(300)], "label": [n % 2 == 0 for n in range(300)]})
    labels = rows["label"].to_numpy()
    draw = rows_to_review(rows, total=40, seed=3)["row_id"]
    recorded = rows["row_id"].is_in(draw.implode()).to_numpy()
    assert random_sample(rows["row_id"], labels, recorded, 4, recorded).sum() <= 4, "they are no beginning of this order"
    some = rows["row_id"].is_in(draw.gather([0, 1, *range(3, 40)]).implode()).to_numpy()
    sample = random_sample(rows["row_id"], labels, some, 3, some)
    assert (sample & ~some).sum() == 1, "a drawn row that was skipped is in the draw, without a verdict"


@pytest.mark.parametrize("grown", [0, 100, 200])
def test_a_draw_that_rows_have_joined_says_so_and_holds_again_when_those_among_it_are_judged(grown):
    """60 of 400 rows are drawn and judged; then others come, and stand anywhere in the order."""
    ids = [f"row {n}" for n in range(400 + grown)]
    rows = pl.DataFrame({"row_id": ids, "label": [n % 5 > 0 for n in range(len(ids))]})
    drawn = set(rows_to_review(rows.head(400), total=60, seed=3)["row_id"])

    def reviewed(judged: set[str]) -> dict[str, Any]:
        verdict = pl.when(pl.col("row_id").is_in(list(judged)))
        table = rows.with_columns(trusted_label=verdict.then("label"), draw_seed=verdict.then(3), trained=True)
        return reviewed_metrics(mark_reviewed(table.with_columns(label_quality=0.5, flagged=False), 3))

    metrics = reviewed(drawn)
    assert metrics["drawn_at_random"] + metrics["draw_outgrown"] == 60
    assert (metrics["draw_outgrown"] > 20) == (metrics["left_between"] > 5) == (grown > 0)
    words = review_sentence(reviewed_labels(metrics))
    assert (
        f"Judge these {metrics['left_between']} rows, the first of the next reviews, and the draw counts again." in words
    ) == (grown > 0)
    to_draw = next_for_labels(reviewed_labels(metrics)).draw
    assert to_draw == 30 if not grown else to_draw <= metrics["left_between"]
    unjudged = rows.with_columns(unjudged=~pl.col("row_id").is_in(list(drawn)))
    then = reviewed(drawn | set(next_of_draw(unjudged, to_draw, seed=3)))
    assert then["drawn_at_random"] >= 60 and then["draw_outgrown"] <= 3
