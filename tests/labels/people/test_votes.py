import numpy as np
import polars as pl
import pytest

from ktodata.feedback import feedback_table
from ktodata.labels.people import votes
from ktodata.labels.people.votes import OTHERS, aggregate_votes


def vote(rater, label):
    return {"rater": rater, "label": label, "created_at": None}


def rated(*rows):
    """(label, {rater: verdict})"""
    return feedback_table(
        *[
            {"prompt": "p", "completion": str(n), "label": label, "votes": [vote(*one) for one in cast]}
            for n, (label, cast) in enumerate(rows)
        ]
    )


def crowd(n=80, seed=0):
    """Four raters right in 95% of rows and one in 55%; returns the table, its truth, and an uninformed model."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.5
    skill = {"ann": 0.95, "ben": 0.95, "cat": 0.95, "dan": 0.95, "eve": 0.55}
    cast = [
        [(who, bool(t == (rng.random() < s))) for who, s in skill.items() if rng.random() < 0.7] or [("ann", bool(t))]
        for t in truth
    ]
    return rated(*[(bool(rng.random() < 0.7) == t, c) for t, c in zip(truth.tolist(), cast, strict=True)]), truth, np.full(n, 0.5)


def test_counts_and_agreement_by_hand():
    """ann and ben always agree; cat is alone against them in the first row, and agrees in the second."""
    table = rated((False, [("ann", True), ("ben", True), ("cat", False)]), (True, [("ann", True), ("ben", True), ("cat", True)]))
    told = aggregate_votes(table, None)
    assert told.rows.rows() == [("1", 2, 1, True), ("2", 3, 0, False)]
    raters = {row["rater"]: row for row in told.raters.iter_rows(named=True)}
    # row 1: to ann the others are one up, one down: a tie, which counts for nothing
    assert [(raters[who]["shared"], raters[who]["agrees"]) for who in ("ann", "ben", "cat")] == [(1, 1), (1, 1), (2, 1)]
    assert raters["cat"]["agreement_low"] == pytest.approx(0.0126, abs=1e-3)


def test_a_rater_who_says_both_is_counted_once_and_named():
    table = rated((True, [("ann", True), ("ann", False), ("ben", False)]))
    raters = aggregate_votes(table, None).raters
    assert raters.select("rater", "votes", "self_contradictions").rows() == [("ann", 1, 1), ("ben", 1, 0)]


def test_crowdlab_finds_wrong_labels_and_the_careless_rater():
    table, truth, p = crowd()
    told = aggregate_votes(table, p)
    quality = table.join(told.quality, on="row_id", how="left", maintain_order="left")["vote_quality"].to_numpy()
    wrong, judged = table["label"].to_numpy() != truth, np.isfinite(quality)
    assert judged.sum() > 60
    assert quality[wrong & judged].mean() < 0.25 < 0.75 < quality[~wrong & judged].mean()
    assert told.raters.sort("quality")["rater"][0] == "eve"
    assert told.raters.sort("agreement")["rater"][0] == "eve"


def test_quality_equals_cleanlabs_own():
    from cleanlab.multiannotator import get_label_quality_multiannotator

    table, _, _ = crowd()
    p = np.random.default_rng(1).random(80)
    names = ["ann", "ben", "cat", "dan", "eve"]
    wide = np.array(
        [[{v["rater"]: v["label"] for v in cast}.get(who, np.nan) for who in names] for cast in table["votes"]], float
    )
    several = np.isfinite(wide).sum(axis=1) > 1
    theirs = get_label_quality_multiannotator(wide[several], np.stack([1 - p, p], 1)[several], verbose=False)["label_quality"]
    score, consensus = theirs["consensus_quality_score"], theirs["consensus_label"] == 1
    expected = np.where(consensus == table["label"].to_numpy()[several], score, 1 - score)
    ours = aggregate_votes(table, p).quality
    assert ours["row_id"].to_list() == table["row_id"].filter(pl.Series(several)).to_list()
    np.testing.assert_allclose(ours["vote_quality"], expected)


def test_rare_raters_are_pooled(monkeypatch):
    monkeypatch.setattr(votes, "MAX_RATERS", 3)
    table, _, p = crowd()
    told = aggregate_votes(table, p)
    assert told.metrics["raters_pooled"] == 2
    assert told.raters["quality"].count() == 3, "pooled raters have no quality of their own"
    assert OTHERS not in told.raters["rater"]


def test_single_raters_are_not_compared():
    told = aggregate_votes(rated(*[(True, [("ann", True)]), (False, [("ben", False)])] * 10), np.full(20, 0.5))
    assert told.quality.height == 0
    assert told.raters["agreement"].null_count() == 2
    assert told.metrics["rows_with_several_raters"] == 0


def test_votes_without_rater_count_only_towards_the_sums():
    told = aggregate_votes(rated((False, [(None, True), (None, True), (None, False)])), np.array([0.5]))
    assert told.rows.rows() == [("1", 2, 1, True)]
    assert told.raters.height == 0
    assert told.metrics["votes_without_rater"] == 3
