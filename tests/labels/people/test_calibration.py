"""What a p may do: intervals hold the truth, sureness without reviewed rows turns nothing, and reviews that bear it out do."""

import numpy as np
import pytest
from scipy.special import expit, logit

from ktodata.labels.actions import DROP_FROM
from ktodata.labels.people.calibration import UNTURNED, calibrate


def calibrated(p, reviewed, wrong, groups):
    """All rows have one given label."""
    return calibrate(p, reviewed, wrong, np.ones(len(p), bool), groups)


def drawn(shift, *, rows=2000, reviews=60, seed=0):
    """Rows whose P(wrong) is stated with log-odds that are `shift` too low, and so many reviewed at random."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-2, 2, rows))
    wrong = rng.random(rows) < expit(logit(p) + shift)
    reviewed = np.zeros(rows, bool)
    reviewed[rng.permutation(rows)[:reviews]] = True
    return p, reviewed, wrong


@pytest.mark.parametrize("shift", [-0.7, 0.0, 0.7])
def test_the_interval_holds_the_share_that_is_wrong(shift):
    """Ends of 95 % to each side, for shifts such as a prior N(0, 1) has: 200 draws."""
    inside = []
    for seed in range(200):
        p, reviewed, wrong = drawn(shift, seed=seed)
        fitted = calibrated(p, reviewed, wrong & reviewed, np.arange(len(p)))
        inside.append((fitted.low.mean() <= wrong.mean(), wrong.mean() <= fitted.high.mean()))
    assert (np.mean(inside, axis=0) >= 0.92).all()


@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.5])
def test_the_best_estimate_lies_between_the_ends_and_nearer_to_the_truth(shift):
    """A p that is off all over, as that of a fit to few reviews is, was a point outside of its own interval."""
    errors = []
    for seed in range(60):
        p, reviewed, wrong = drawn(shift, seed=seed)
        fitted = calibrated(p, reviewed, wrong & reviewed, np.arange(len(p)))
        assert ((fitted.low <= fitted.p_wrong) & (fitted.p_wrong <= fitted.high)).all()
        errors.append([abs(of.mean() - wrong.mean()) for of in (fitted.p_wrong, p)])
    best, as_given = np.mean(errors, axis=0)
    assert best < 0.6 * as_given if shift else best < 0.04


def test_soft_labels_are_not_surer_than_right():
    surer = []
    for seed in range(100):
        p, reviewed, wrong = drawn(0.5, reviews=40, seed=seed)
        soft = calibrated(p, reviewed, wrong & reviewed, np.arange(len(p))).least_sure
        right = np.where(soft == UNTURNED, 0.5, (soft > 0.5) == wrong)  # says nothing of either
        surer.append(np.maximum(soft, 1 - soft).mean() - right.mean())
    assert np.mean(np.array(surer) > 0.03) <= 0.05


def sure_rows(wrong, sound, *, groups=None, unseen=300):
    """Rows at p = 0.99 of which so many were reviewed, beside 60 reviewed rows at 0.05 as right as that says."""
    p = np.r_[np.full(wrong + sound, 0.99), np.full(60, 0.05), np.full(unseen, 0.99)]
    reviewed = np.arange(len(p)) < wrong + sound + 60
    is_wrong = (np.arange(len(p)) < wrong) | ((np.arange(len(p)) >= wrong + sound) & (np.arange(len(p)) % 20 == 0))
    return calibrated(p, reviewed, is_wrong & reviewed, np.arange(len(p)) if groups is None else groups(len(p)))


def test_labels_are_turned_only_where_reviewed_rows_that_look_so_are_wrong():
    assert sure_rows(9, 0).turned[-300:].all()  # 9 of 9: at least 0.717
    assert not sure_rows(8, 0).turned.any()  # 8 of 8: at least 0.688
    assert not sure_rows(0, 0).turned.any()
    assert not sure_rows(5, 5).turned.any()
    for fitted in (sure_rows(8, 0), sure_rows(5, 5)):  # nor is a soft label turned
        assert fitted.least_sure.max() == UNTURNED


def test_luck_turns_labels_that_are_often_right_in_one_draw_of_twenty_at_most():
    """Of rows that look surely wrong 68 % are; four to twenty of them are reviewed. A majority was borne out in 27 % of these draws."""
    rng = np.random.default_rng(2)
    drawn_rows = [(reviews, rng.binomial(reviews, 0.68)) for reviews in rng.integers(4, 21, 400)]
    acts = [sure_rows(wrong, reviews - wrong).turned.any() for reviews, wrong in drawn_rows]
    assert np.mean(acts) <= 0.05


def test_rows_of_a_prompt_count_as_one_while_nothing_shows_them_apart():
    """Ten reviewed rows of one prompt, all wrong together, are one row or little more."""
    alone = sure_rows(10, 0)
    together = sure_rows(10, 0, groups=lambda rows: np.where(np.arange(rows) < 10, 0, np.arange(rows)))
    assert alone.turned.any() and not together.turned.any()


@pytest.mark.parametrize(("alike", "least", "most"), [(0.0, 50, 60), (4.0, 4, 12)])
def test_rows_of_a_prompt_count_as_far_as_they_are_wrong_apart(alike, least, most):
    """60 reviewed rows of 4 prompts. alike : spread of the prompts' own log-odds of being wrong, which p does not know"""
    counted = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        group = np.arange(400) % 4
        p = expit(rng.normal(-1, 2, 400))
        wrong = rng.random(400) < expit(logit(p) + alike * rng.permutation([-1.5, -0.5, 0.5, 1.5])[group])
        reviewed = np.isin(np.arange(400), rng.permutation(400)[:60])
        counted.append(calibrated(p, reviewed, wrong & reviewed, group).counts.sum())
    assert least <= np.mean(counted) <= most


def test_more_reviews_are_not_asked_for_where_they_would_count_for_nothing():
    """Of one prompt whose rows are wrong together, four of four are one row, and so would forty be."""
    p, rows = np.r_[np.full(44, 0.97), np.full(100, 0.05)], np.arange(144)
    reviewed = (rows < 4) | (rows >= 84)
    fitted = calibrated(p, reviewed, rows < 4, np.where(rows < 44, 0, rows))
    assert fitted.borne_out(~reviewed)[True].reviews_needed is None
    apart = calibrated(p, reviewed, rows < 4, rows)
    assert 1 <= apart.borne_out(~reviewed)[True].reviews_needed <= 10


def test_it_says_how_many_reviews_would_show_it():
    few, shown, refuted = (sure_rows(wrong, sound) for wrong, sound in ((2, 0), (12, 0), (1, 4)))
    answers = []
    for fitted in (few, shown, refuted):
        p = np.r_[fitted.p_wrong, np.full(300, 0.05)]
        open_rows = np.arange(len(p)) >= len(p) - 600  # 300 of 600 look wrong
        longer = calibrated(
            p, np.r_[fitted.counts, np.zeros(300)] > 0, np.r_[fitted.wrong, np.zeros(300, bool)], np.arange(len(p))
        )
        answers.append(longer.borne_out(open_rows)[True])
    few, shown, refuted = answers
    # nine such rows, of which one in two is, beside the two that were reviewed
    assert (few.reviewed, few.wrong, few.turned, few.reviews_needed) == (2, 2, 0, 14)
    assert (shown.turned, shown.reviews_needed) == (300, None)
    assert (refuted.turned, refuted.reviews_needed) == (0, None)  # one of five: no number shows that most are
    rare = calibrated(np.r_[0.9, np.full(60, 0.05)], np.arange(61) >= 20, np.zeros(61, bool), np.arange(61))
    assert (
        rare.borne_out(np.arange(61) < 20)[True].reviews_needed is None
    )  # nine of one in twenty: 180 reviews, and there are 61 rows


def test_the_surest_rows_need_no_more_than_they_claim():
    """A line under 1/2 (flags of any precision) asks no majority of the reviewed rows."""
    p, reviewed, wrong = drawn(0.0, reviews=1000)
    fitted = calibrated(p, reviewed, wrong & reviewed, np.arange(len(p)))
    assert fitted.surely(0.0).all()
    assert fitted.surely(0.2).sum() > fitted.surely(0.8).sum() > 0
    assert wrong[fitted.surely(0.8)].mean() >= 0.8


def of_two_labels(reviewed_wrong, *, draws):
    """One label's reviewed rows that look surely wrong are wrong; so many of the other's 400 rows are reviewed, at the same p = 0.99.

    reviewed_wrong : of these, how many are
    """
    rare = np.arange(460) < 60
    reviewed = (np.arange(460) < 50) | ((np.arange(460) >= 60) & (np.arange(460) < 60 + draws))
    wrong = np.where(rare, np.arange(460) < 30, np.arange(460) < 60 + reviewed_wrong)
    p = np.where(rare & (np.arange(460) >= 30), 0.05, 0.99)
    return calibrate(p, reviewed, wrong & reviewed, rare, np.arange(460)), rare


@pytest.mark.parametrize(("wrong", "draws"), [(0, 0), (2, 4), (5, 20)])
def test_no_label_is_turned_flagged_or_dropped_by_reviews_of_the_other_label(wrong, draws):
    """30 of 30 reviewed rows of the rarer label are wrong: 27 of 27 or 35 of 50 of both together let all others be turned."""
    fitted, rare = of_two_labels(wrong, draws=draws)
    assert not fitted.surely(0.8)[~rare].any() and not fitted.turned[~rare].any()
    assert (fitted.p_wrong_low[~rare] <= DROP_FROM).all()  # so that no row is dropped, either
    assert fitted.turned[:30].all() and not fitted.turned[30:].any()
    assert fitted.borne_out(fitted.counts == 0)[False].turned == 0


def test_a_label_is_measured_by_ten_reviewed_rows_of_its_own():
    for draws, is_measured in ((0, False), (9, False), (10, True)):
        fitted, rare = of_two_labels(draws, draws=draws)
        assert (fitted.measured[~rare] == is_measured).all() and fitted.measured[rare].all()
        assert is_measured == (fitted.p_wrong_low[~rare].max() > 0) == (fitted.least_sure[~rare].max() > 0)


def test_rows_are_dropped_where_reviewed_rows_like_them_are_wrong_often_enough():
    """At p = 0.6 of 400 rows: 4 wrong ones of 6 that were reviewed show more than a quarter, 3 of 6 do not."""
    for wrong, may_drop in ((4, True), (3, False)):
        p, rows = np.r_[np.full(406, 0.6), np.full(60, 0.05)], np.arange(466)
        reviewed = (rows < 6) | (rows >= 406)
        fitted = calibrated(p, reviewed, rows < wrong, rows)
        assert ((fitted.p_wrong_low[6:406] > DROP_FROM) == may_drop).all()
