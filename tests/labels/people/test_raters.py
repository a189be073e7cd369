import time

import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError
from ktodata.labels.people.raters import dawid_skene, krippendorff_alpha, wrong_or_contested


def table(*votes):
    """(row_id, rater, verdict)"""
    return pl.DataFrame(list(votes), schema={"row_id": pl.String, "rater": pl.String, "verdict": pl.Boolean}, orient="row")


def crowd(truth, confusion, *, share=1.0, seed=0):
    """Votes of raters {name: (sensitivity, specificity)}, each on a `share` of the rows."""
    rng = np.random.default_rng(seed)
    votes = []
    for name, (sensitivity, specificity) in confusion.items():
        says = np.where(truth, rng.random(len(truth)) < sensitivity, rng.random(len(truth)) >= specificity)
        votes += [(str(row), name, bool(says[row])) for row in np.flatnonzero(rng.random(len(truth)) < share)]
    return table(*votes)


def accuracy(rows, truth, *, majority=False):
    says = rows["votes_up"] > rows["votes_down"] if majority else rows["p_desirable"] > 0.5
    return (says.to_numpy() == truth[rows["row_id"].cast(pl.Int64).to_numpy()]).mean()


RATERS = {"ann": (0.95, 0.9), "ben": (0.8, 0.9), "cat": (0.9, 0.7), "dan": (0.6, 0.6), "eve": (0.15, 0.1)}
TRUTH = np.random.default_rng(7).random(600) < 0.6


def test_confusions_are_recovered_and_the_intervals_hold_them():
    told = dawid_skene(crowd(TRUTH, RATERS))
    assert told.metrics["converged"]
    raters = {row["rater"]: row for row in told.raters.iter_rows(named=True)}
    held = 0
    for name, true in RATERS.items():
        for what, value in zip(("sensitivity", "specificity"), true, strict=True):
            assert raters[name][what] == pytest.approx(value, abs=0.07), name
            held += raters[name][f"{what}_low"] < value < raters[name][f"{what}_high"]
    assert held >= 9, "ten intervals of 95 %"
    assert [name for name, row in raters.items() if row["inverted"]] == ["eve"]


def test_it_beats_the_majority_where_raters_are_poor():
    """dan hardly knows and eve says the opposite: two of five votes are misleading, and the majority counts them in full."""
    told = dawid_skene(crowd(TRUTH, RATERS))
    ours, majority = accuracy(told.rows, TRUTH), accuracy(told.rows, TRUTH, majority=True)
    assert ours > 0.93 > majority + 0.05


def test_raters_who_copy_each_other_count_as_one():
    """Five copies of a poor rater (0.65) outvote three good ones (0.9); they err together, so they weigh a fifth each."""
    rng = np.random.default_rng(0)
    votes = crowd(TRUTH, {"ann": (0.9, 0.9), "ben": (0.9, 0.9), "cat": (0.9, 0.9)})
    poor = np.where(rng.random(600) < 0.65, TRUTH, ~TRUTH)
    copies = table(*[(str(row), f"copy{k}", bool(poor[row])) for k in range(5) for row in range(600)])
    told = dawid_skene(pl.concat([votes, copies]))
    assert accuracy(told.rows, TRUTH) > accuracy(told.rows, TRUTH, majority=True) + 0.1
    weights = dict(told.raters.select("rater", "weight").iter_rows())
    assert weights["copy0"] < 0.3 < weights["ann"]


def test_a_rater_of_two_votes_stays_near_the_others():
    votes = pl.concat([crowd(TRUTH, {"ann": (0.9, 0.9), "ben": (0.9, 0.9)}), table(("0", "zoe", True), ("1", "zoe", True))])
    zoe = dawid_skene(votes).raters.filter(pl.col("rater") == "zoe").row(0, named=True)
    assert 0.6 < zoe["accuracy"] < 0.95
    assert zoe["sensitivity_high"] - zoe["sensitivity_low"] > 0.3
    assert not zoe["inverted"]


def test_a_models_prior_decides_where_votes_are_level():
    votes = table(("1", "ann", True), ("1", "ben", False), ("2", "ann", True), ("2", "ben", False), ("3", "ann", True))
    rows = dict(dawid_skene(votes, prior={"1": 0.9, "2": 0.1}).rows.select("row_id", "p_desirable").iter_rows())
    assert rows["1"] > 0.7 > 0.3 > rows["2"]


def test_the_last_of_two_votes_counts():
    rows = dawid_skene(table(("1", "ann", True), ("1", "ann", False), ("1", "ben", False))).rows
    assert rows.select("votes_up", "votes_down").rows() == [(0, 2)]


def test_one_rater_alone_shows_nothing_of_himself():
    told = dawid_skene(table(*[(str(row), "ann", row % 3 > 0) for row in range(60)]))
    ann = told.raters.row(0, named=True)
    assert ann["informativeness_low"] < 0.3
    assert not ann["inverted"]
    assert told.rows["contested"].null_count() == 60
    assert told.metrics["alpha"]["value"] is None


def test_equal_votes_and_no_votes_are_answered():
    told = dawid_skene(table(*[(str(row), who, True) for row in range(20) for who in ("ann", "ben")]))
    assert told.rows["p_desirable"].min() > 0.9
    assert np.isfinite(told.raters["sensitivity"].to_numpy()).all()
    assert dawid_skene(table()).rows.height == 0


def test_votes_without_a_name_count_but_are_nobodys():
    told = dawid_skene(table(("1", None, True), ("1", None, True), ("1", "ann", False)))
    assert told.rows.select("votes_up", "votes_down").rows() == [(2, 1)]
    assert told.raters["rater"].to_list() == ["ann"]


def test_rows_voted_on_alike_are_worked_on_once():
    """A vote a row, as most feedback has it: the steps cost what the kinds of rows cost. Without that, 30 s for these."""
    rng = np.random.default_rng(0)
    rows = np.arange(60_000) % 55_000
    raters = (rows + (np.arange(60_000) >= 55_000)) % 5
    right = rng.random(60_000) < 0.8  # of coins there would be no answer
    votes = pl.DataFrame({"row_id": rows.astype(str), "rater": raters.astype(str), "verdict": (rows % 2 == 1) == right})
    started = time.thread_time()
    weighed = dawid_skene(votes).rows
    assert time.thread_time() - started < 5
    of_row = votes.group_by("row_id").agg(cast=pl.struct("rater", "verdict").sort_by("rater", "verdict"))
    alike = weighed.join(of_row, on="row_id").group_by("cast").agg(pl.col("p_desirable").n_unique())
    assert alike["p_desirable"].max() == 1


def test_a_kind_of_rows_counts_as_often_as_it_occurs():
    """Where each row has a prior of its own no two are of a kind; priors equal but for their last bits must change nothing."""
    votes = crowd(TRUTH, RATERS)
    priors = {str(row): 0.5 for row in range(len(TRUTH))}
    apart = {row: 0.5 + int(row) * 1e-13 for row in priors}
    assert np.allclose(*(dawid_skene(votes, prior=each).rows["p_desirable"] for each in (priors, apart)), atol=1e-9)
    assert np.allclose(*(dawid_skene(votes, prior=each).raters["weight"] for each in (priors, apart)), atol=1e-9)


def test_a_prior_outside_0_and_1_is_refused():
    with pytest.raises(DataError, match="outside"):
        dawid_skene(table(("1", "ann", True)), prior={"1": 9.0})


def seven(n=300, seed=0):
    """Seven raters right in 9 of 10; every sixth row is contested (a coin for each), every sixth label of the others is wrong."""
    rng = np.random.default_rng(seed)
    truth, contested = rng.random(n) < 0.5, np.arange(n) % 6 == 0
    wrong = ~contested & (np.arange(n) % 6 == 1)
    says = np.where(contested[:, None], rng.random((n, 7)) < 0.5, truth[:, None] == (rng.random((n, 7)) < 0.9))
    votes = table(*[(str(row), f"r{k}", bool(says[row, k])) for row in range(n) for k in range(7)])
    labels = pl.DataFrame({"row_id": [str(row) for row in range(n)], "label": np.where(wrong, ~truth, truth)})
    return votes, labels, wrong, contested


def test_seven_votes_tell_wrong_from_contested():
    votes, labels, wrong, contested = seven()
    verdict = wrong_or_contested(dawid_skene(votes), labels)["verdict"].to_numpy()
    assert (verdict[wrong] == "wrong").mean() > 0.8
    assert (verdict[wrong] == "contested").mean() < 0.05
    assert (verdict[contested] == "contested").mean() > 0.4, "a fair coin splits 3 to 4 in 55 of 100; a 2 to 5 is doubtful"
    assert (verdict[~wrong & ~contested] == "wrong").sum() == 0
    assert (verdict[~wrong & ~contested] == "sound").mean() > 0.8


def test_two_votes_cannot_tell():
    votes, labels, _, _ = seven()
    two = votes.filter(pl.col("rater").is_in(["r0", "r1"]))
    assert (wrong_or_contested(dawid_skene(two), labels)["verdict"] == "contested").sum() == 0


def test_alpha_by_hand():
    """Rows (up, down): (2, 0), (0, 2), (1, 1), and one of a single vote, which pairs with nothing.
    n = 6, n_up = n_down = 3; disagreement 1 x 1 / 1 = 1;  alpha = 1 - 5 x 1 / 9 = 0.444
    """
    rows = [("1", True, True), ("2", False, False), ("3", True, False)]
    votes = table(*[(row, who, v) for row, *two in rows for who, v in zip("ab", two, strict=True)], ("4", "a", True))
    assert krippendorff_alpha(votes).value == pytest.approx(4 / 9)


def test_alpha_is_0_by_chance_and_1_in_agreement():
    chance = krippendorff_alpha(crowd(TRUTH, {"ann": (0.5, 0.5), "ben": (0.5, 0.5)}))
    assert chance.low < 0 < chance.high
    assert krippendorff_alpha(crowd(TRUTH, {"ann": (1, 1), "ben": (1, 1)})).value == 1
