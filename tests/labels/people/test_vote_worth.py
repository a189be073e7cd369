import numpy as np
import pytest
from scipy.special import expit, logit

from ktodata.labels.people.vote_worth import vote_worth
from ktodata.stats import auroc


def test_fifteen_votes_a_row_decide_the_order():
    rng = np.random.default_rng(0)
    truth = rng.random(800) < 0.5
    up = rng.binomial(15, np.where(truth, 0.75, 0.25))
    text = expit(0.3 * np.where(truth, 1, -1) + rng.standard_normal(800))
    order = vote_worth(text, up, 15 - up).order(text, up, 15 - up)
    assert auroc(order[~truth], order[truth]).value > 0.98


def test_a_vote_is_worth_what_the_others_bear_out():
    """Better raters' votes are worth more nats, coins' none, and raters who contradict each other by rule no less than none."""
    rng = np.random.default_rng(1)
    truth, text = rng.random(3000) < 0.5, np.full(3000, 0.5)
    worth = []
    for right in (0.5, 0.7, 0.9):
        up = rng.binomial(3, np.where(truth, right, 1 - right))
        worth.append(vote_worth(text, up, 3 - up).vote)
    assert worth[0] == pytest.approx(0, abs=0.1) and worth[0] < worth[1] < worth[2]
    assert worth[2] < logit(0.9) + 0.5
    ones = np.ones(100, np.int64)
    assert vote_worth(text[:100], ones, ones).vote == 0


def test_few_shared_rows_say_nothing():
    ones = np.ones(9, np.int64)
    assert vote_worth(np.full(9, 0.5), ones, ones) is None
