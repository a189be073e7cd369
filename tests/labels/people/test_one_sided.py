"""Raters who only ever say one thing: named, and left out of what agreement says, however few votes each has."""

import numpy as np
import polars as pl
import pytest

from ktodata.labels.people.one_sided import one_sided
from ktodata.labels.people.raters import dawid_skene

ROWS = 600


def table(cells):
    """cells : [rows, raters], 1 desirable, -1 undesirable, 0 silent"""
    rows, raters = np.nonzero(cells)
    return pl.DataFrame({"row_id": rows.astype(str), "rater": raters.astype(str), "verdict": cells[rows, raters] > 0})


def clickers(truth, rng, count, *, hit, slip, sees=1.0):
    side = np.where(np.arange(count) % 2 == 0, 1, -1)
    fits = np.where(truth, 1, -1)[:, None] == side
    return side * ((rng.random(fits.shape) < np.where(fits, hit, slip)) & (rng.random(fits.shape) < sees))


def judges(truth, rng, count, *, sees):
    shape = (len(truth), count)
    return np.where((rng.random(shape) < 0.8) == truth[:, None], 1, -1) * (rng.random(shape) < sees)


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize(
    ("count", "habits"),
    [(12, {"hit": 0.35, "slip": 0.04}), (200, {"hit": 0.8, "slip": 0.1, "sees": 0.03})],
    ids=["12 of many votes", "200 of 8 votes"],
)
def test_clickers_are_answered_by_nothing(share, count, habits):
    """Before, every row was desirable with p 0.99, and half of them were not."""
    rng = np.random.default_rng(0)
    truth = rng.random(ROWS) < share
    votes = table(clickers(truth, rng, count, **habits))
    fitted = dawid_skene(votes)
    assert fitted.rows.is_empty() and len(fitted.metrics["one_sided"]) == fitted.raters.height == votes["rater"].n_unique()
    assert fitted.raters["weight"].to_list() == [0] * fitted.raters.height and fitted.raters["sensitivity"].is_null().all()
    assert fitted.raters["votes"].sum() == votes.height


@pytest.mark.parametrize("share", [0.5, 0.8, 0.92])
def test_those_who_say_both_things_answer_alone(share):
    rng = np.random.default_rng(1)
    truth = rng.random(ROWS) < share
    votes = table(np.hstack([judges(truth, rng, 5, sees=0.6), clickers(truth, rng, 8, hit=0.35, slip=0.04)]))
    assert one_sided(votes) == [str(rater) for rater in (10, 11, 12, 5, 6, 7, 8, 9)]
    fitted, alone = dawid_skene(votes), dawid_skene(votes.filter(pl.col("rater").cast(pl.Int64) < 5))
    assert fitted.rows.equals(alone.rows) and fitted.raters.head(5).equals(alone.raters)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("each", [2, 5, 20])
def test_few_votes_or_a_common_verdict_are_no_habit(share, each):
    """Of 300 who say what they think, hardly one is left out, though most of those with 2 votes say one thing."""
    rng = np.random.default_rng(2)
    votes = table(judges(rng.random(ROWS) < share, rng, 300, sees=each / ROWS))
    assert len(one_sided(votes)) <= 3


@pytest.mark.parametrize("slip", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.8])
def test_who_mostly_clicks_where_it_is_right_is_answered_by_nothing(share, slip):
    """Before, 43 to 73 % of the rows were right, at a mean certainty of 0.98, beside 88 to 95 % by the majority."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = rng.random(ROWS) < share
        cells = clickers(truth, rng, 12, hit=0.4, slip=0.075)
        fitted = dawid_skene(table(np.where(rng.random(cells.shape) < slip, -cells, cells)))
        assert fitted.rows.is_empty() and fitted.raters.height == 12 and fitted.raters["weight"].sum() == 0
        assert "rows whose votes are all alike" in fitted.metrics["reason"] or "only ever say" in fitted.metrics["reason"]


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.95, 0.5), (0.5, 0.95)], ids=["lenient", "strict"])
def test_lenient_and_strict_raters_are_answered(share, sensitivity, specificity):
    """Their majority is wrong for a fifth to a third of the rows: what such a fit overrules, it may."""
    rng = np.random.default_rng(0)
    truth = rng.random(ROWS) < share
    up = np.where(truth[:, None], rng.random((ROWS, 5)) < sensitivity, rng.random((ROWS, 5)) >= specificity)
    cells = np.where(up, 1, -1) * (rng.random((ROWS, 5)) < 0.6)
    rows = dawid_skene(table(cells)).rows
    right = (rows["p_desirable"] > 0.5).to_numpy() == truth[rows["row_id"].cast(pl.Int64).to_numpy()]
    assert right.mean() > 0.78
