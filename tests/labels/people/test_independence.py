"""Agreement is believed where raters err independently, and nowhere else. The truth is known: votes are drawn from it."""

import numpy as np
import polars as pl
import pytest
from scipy.special import expit, logit

from ktodata.labels.people.independence import check_independence
from ktodata.labels.people.raters import dawid_skene


def as_votes(cells):
    """(row_id, rater, verdict) of +1, -1, 0 (no vote): int [N, J]."""
    rows, raters = np.nonzero(cells)
    verdicts = cells[rows, raters] > 0
    return pl.DataFrame({"row_id": rows.astype(str), "rater": [f"rater {n}" for n in raters], "verdict": verdicts})


def draw(rows, raters, *, right=0.8, difficulty=0.0, share=0.6, seed=0):
    """Votes int [rows, raters] and the truth; difficulty: standard deviation in nats of what rows share."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < share
    skill = logit(right + rng.uniform(-0.08, 0.08, (2, raters)))
    chance = expit(np.where(truth[:, None], skill[0], skill[1]) + difficulty * rng.standard_normal((rows, 1)))
    return np.where((rng.random(chance.shape) < chance) == truth[:, None], 1, -1), truth


def sure_and_right(votes, truth):
    rows = dawid_skene(votes, correlated=False).rows
    p = rows["p_desirable"].to_numpy()
    return np.maximum(p, 1 - p).mean(), ((p > 0.5) == truth[rows["row_id"].cast(pl.Int64).to_numpy()]).mean()


def test_where_one_rater_alone_shares_rows_and_is_left_out_nothing_is_known():
    """Four raters of rows of their own, and a judge of all rows who only ever says one thing, or says what one of them says."""
    rows = np.arange(400)
    cells = np.zeros((400, 5), int)
    cells[rows, rows % 4] = np.where(np.random.default_rng(0).random(400) < 0.6, 1, -1)
    cells[:, 4] = 1
    checked = check_independence(as_votes(cells))
    assert not checked.identified and checked.one_sided == ("rater 4",)
    assert checked.reason == "not identifiable: no row was judged by two of the 4 raters that are left"


def test_independent_raters_are_believed_and_are_as_right_as_they_are_sure():
    cells, truth = draw(600, 8)
    votes = as_votes(cells)
    checked = check_independence(votes)
    assert checked.identified and checked.reason is None
    sure, right = sure_and_right(votes, truth)
    assert abs(sure - right) < 0.05


@pytest.mark.parametrize("raters", [5, 8, 20])
def test_rows_that_are_hard_for_all_are_seen(raters):
    cells, truth = draw(800, raters, difficulty=2.0)
    votes = as_votes(cells)
    checked = check_independence(votes)
    assert not checked.identified and checked.reason.startswith("not identifiable: these sources err together")
    assert checked.effective_votes < 0.7 * raters
    sure, right = sure_and_right(votes, truth)
    assert sure - right > 0.1, "what it protects from"


def test_three_judges_who_share_errors_are_never_believed():
    """89 % sure beside 73 % right, or worse: three judges leave nothing to test that by."""
    cells, truth = draw(2000, 3, difficulty=2.0)
    votes = as_votes(cells)
    sure, right = sure_and_right(votes, truth)
    assert sure - right > 0.1
    checked = check_independence(votes)
    assert not checked.identified and "(here 3)" in checked.reason


def test_two_raters_and_one_alone():
    cells, _ = draw(500, 2)
    assert "(here 2)" in check_independence(as_votes(cells)).reason
    assert "(here 1)" in check_independence(as_votes(cells[:, :1])).reason
    assert "(here 0)" in check_independence(as_votes(cells[:0])).reason


def test_functions_that_say_one_thing_or_nothing_are_left_out():
    cells, _ = draw(800, 8)
    for column in range(8):
        cells[cells[:, column] != (-1) ** column, column] = 0
    checked = check_independence(as_votes(cells))
    assert not checked.identified and len(checked.one_sided) == 8 and "only ever say one thing" in checked.reason


def test_copies_count_once():
    cells, _ = draw(800, 8)
    cells[:, 1] = cells[:, 2] = cells[:, 0]
    checked = check_independence(as_votes(cells))
    assert len(checked.copies) == 2 and len(checked.raters) == 6
    few = as_votes(cells[:, :5])
    assert "err with another" in check_independence(few).reason, "five with two copies are three"


def test_an_adversary_is_no_dependence():
    cells, truth = draw(800, 7)
    cells[:, 3] *= -1
    votes = as_votes(cells)
    assert check_independence(votes).identified
    sure, right = sure_and_right(votes, truth)
    assert abs(sure - right) < 0.05


@pytest.mark.parametrize(("rows", "share"), [(40, 0.6), (1000, 0.995)])
def test_few_rows_of_a_class_say_nothing(rows, share):
    cells, _ = draw(rows, 7, share=share)
    assert not check_independence(as_votes(cells)).identified


def test_raters_who_never_meet_are_not_compared():
    cells, _ = draw(900, 6)
    cells[:450, :3] = 0
    cells[450:, 3:] = 0
    assert not check_independence(as_votes(cells)).identified, "three on each row"


def test_a_clique_does_not_pass_for_the_truth():
    """Three of five share a factor as strong as it gets, where one class is rare: by agreement alone the other two know nothing."""
    rng = np.random.default_rng(0)
    cells, _ = draw(2000, 5, share=0.95, seed=1)
    shared = np.where(rng.random(2000) < 0.75, 1, -1)
    follows = rng.random((2000, 3)) < 0.9
    cells[:, :3] = np.where(follows, shared[:, None], cells[:, :3])
    assert not check_independence(as_votes(cells)).identified


def test_raters_swap_with_the_classes_and_answers_do_not_depend_on_names():
    cells, _ = draw(600, 8)
    first, second = check_independence(as_votes(cells)), check_independence(as_votes(-cells[:, ::-1]))
    assert first.identified == second.identified
    assert first.shift == pytest.approx(second.shift, abs=0.01)
