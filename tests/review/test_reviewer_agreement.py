"""Two reviewers: what they agree on beyond chance, and where they differ."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from ktodata.formats.verdicts.verdict_store import CURRENT_SCHEMA
from ktodata.review.review_progress import tallies
from ktodata.review.reviewer_agreement import agreements, disagreements, shared_rows


def standing(*verdicts):
    """(row_id, reviewer, verdict, given label) as the store gives them."""
    lines = [
        {
            "id": n,
            "row_id": row,
            "reviewer": who,
            "verdict": what,
            "label": label,
            "note": "",
            "seconds": float(n),
            "blind": False,
        }
        | {"trusted_label": {"keep": label, "flip": not label}.get(what), "at": "", "detector": "d", "via": "desk"}
        for n, (row, who, what, label) in enumerate(verdicts)
    ]
    return pl.DataFrame(lines, schema=CURRENT_SCHEMA)


def both(pairs):
    """Rows on which ann says the first word of each pair and bob the second; all given as desirable."""
    return standing(
        *((f"r{n}", who, what, True) for n, pair in enumerate(pairs) for who, what in zip(("ann", "bob"), pair, strict=True))
    )


def test_kappa_by_hand():
    """20 rows: both keep 10, both flip 4, ann keep and bob flip 3, ann flip and bob keep 3.
    Agreed 14 / 20 = 0.7; by chance 0.65 x 0.65 + 0.35 x 0.35 = 0.545; kappa = 0.155 / 0.455 = 0.3407
    """
    pairs = [("keep", "keep")] * 10 + [("flip", "flip")] * 4 + [("keep", "flip")] * 3 + [("flip", "keep")] * 3
    (pair,) = agreements(both(pairs))
    assert (pair.first, pair.second, pair.rows) == ("ann", "bob", 20)
    assert pair.agreed.value == 0.7 and pair.agreed.low == pytest.approx(0.4572, abs=1e-3)
    assert pair.kappa.value == pytest.approx(0.3407, abs=1e-4)
    assert pair.kappa.low < 0.1 < pair.kappa.value < pair.kappa.high < 0.85


def test_kappa_is_scikit_learns_and_its_interval_holds_what_resampling_gives():
    rng = np.random.default_rng(0)
    words = np.array(["keep", "flip", "drop", "contested"])
    first = rng.integers(4, size=60)
    second = np.where(rng.random(60) < 0.6, first, rng.integers(4, size=60))
    (pair,) = agreements(both(list(zip(words[first], words[second], strict=True))))
    assert pair.kappa.value == pytest.approx(cohen_kappa_score(first, second))
    drawn = [cohen_kappa_score(first[rows], second[rows]) for rows in rng.integers(60, size=(300, 60))]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (pair.kappa.low, pair.kappa.high) == pytest.approx((low, high), abs=0.06)


def test_keep_and_flip_of_other_labels_are_the_same_word():
    """A blind reviewer and one who saw the label are compared by what they say of the answer."""
    verdicts = standing(
        ("r", "ann", "keep", True), ("r", "bob", "keep", True), ("s", "ann", "flip", False), ("s", "bob", "keep", False)
    )
    assert disagreements(verdicts).select("row_id", "first_says", "second_says").rows() == [("s", "desirable", "undesirable")]


def test_too_few_rows_or_one_word_tell_no_kappa():
    few = agreements(both([("keep", "flip")] * 9))[0]
    assert (few.kappa.value, few.agreed.value) == (None, 0.0)
    same = agreements(both([("keep", "keep")] * 30))[0]
    assert (same.kappa.value, same.agreed.value) == (None, 1.0)


def test_three_reviewers_are_compared_two_by_two_on_shared_rows():
    verdicts = standing(
        ("a", "cid", "keep", True), ("a", "ann", "keep", True), ("a", "bob", "drop", True), ("b", "bob", "keep", True), ("c", "ann", "flip", True)
    )  # fmt: skip
    assert [(pair.first, pair.second, pair.rows, pair.agreed.value) for pair in agreements(verdicts)] == [
        ("ann", "bob", 1, 0.0), ("ann", "cid", 1, 1.0), ("bob", "cid", 1, 0.0),
    ]  # fmt: skip
    assert shared_rows(verdicts).height == 3 and agreements(standing()) == []


def test_tallies():
    verdicts = standing(
        ("a", "ann", "keep", True), ("b", "ann", "flip", True), ("c", "ann", "drop", False), ("z", "ann", "flip", True), ("a", "bob", "keep", True)
    )  # fmt: skip
    ann, bob = tallies(verdicts)
    assert (ann.reviewer, ann.rows, ann.verdicts) == ("ann", 4, {"keep": 1, "flip": 2, "drop": 1, "contested": 0})
    assert (bob.rows, bob.seconds, ann.seconds) == (1, 4.0, 1.5)
