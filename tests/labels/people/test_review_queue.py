"""The queue asks for what nobody can call, each kind once before any twice; the simulation counts what that buys."""

import numpy as np
import polars as pl
import pytest
from test_reviewed_model import fooled

from ktodata.errors import SettingError
from ktodata.labels.classifier.feature_sets import row_features
from ktodata.labels.people.review_queue import queue, shares, stratified
from ktodata.labels.people.review_simulation import simulate_review


def three_kinds():
    """Four rows of one kind of answer, one of another, one of a third; p_wrong least certain for the first kind."""
    kinds = np.array([0, 0, 0, 0, 1, 2])
    prompts = np.tile(np.eye(4, dtype=np.float32)[0], (6, 1))
    completions = np.eye(4, dtype=np.float32)[kinds + 1]
    words = pl.Series(["alpha beta", "alpha beta", "alpha beta", "alpha beta", "gamma delta", "epsilon zeta"])
    rows = row_features(prompts, completions, words, fit_rows=np.ones(6, bool))
    return rows, np.array([0.5, 0.49, 0.48, 0.47, 0.3, 0.2])


def test_the_least_certain_first_then_other_kinds():
    rows, p_wrong = three_kinds()
    assert queue(rows, p_wrong, np.ones(6, bool), 3).tolist() == [0, 4, 5]


def test_a_sure_mistake_is_not_asked_about_before_a_doubt():
    rows, _ = three_kinds()
    p_wrong = np.array([0.99, 0.99, 0.99, 0.99, 0.4, 0.01])
    assert queue(rows, p_wrong, np.ones(6, bool), 1).tolist() == [4]


def test_closed_rows_are_not_asked_about_and_the_queue_ends_with_the_rows():
    rows, p_wrong = three_kinds()
    open_rows = np.array([False, True, True, False, True, False])
    assert sorted(queue(rows, p_wrong, open_rows, 10).tolist()) == [1, 2, 4]
    assert queue(rows, p_wrong, np.zeros(6, bool), 3).tolist() == []


def test_a_random_sample_takes_more_of_the_rarer_label_while_it_lasts():
    labels = np.arange(100) < 90
    chosen = stratified(labels, np.ones(100, bool), 30, seed=0)
    assert len(set(chosen.tolist())) == 30
    assert labels[chosen].sum() == 20  # all ten of the rarer label, the rest of the other
    assert labels[stratified(labels, np.ones(100, bool), 12, seed=0)].sum() == 4  # two thirds of the rarer one
    even = np.arange(100) < 50
    assert even[stratified(even, np.ones(100, bool), 12, seed=0)].sum() == 6


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ((100, 400), 30, (20, 10)),
        ((400, 100), 30, (10, 20)),
        ((0, 50), 30, (0, 30)),
        ((100, 225), 50, (30, 20)),
        ((5, 5), 30, (5, 5)),
        ((40, 2), 30, (28, 2)),
        ((2, 40), 30, (2, 28)),
    ],
)
def test_rows_are_shared_out_by_the_root_of_the_ratio_and_none_is_left_unused(sizes, count, expected):
    assert shares(*sizes, count) == expected


def test_what_a_budget_buys_is_counted_and_beats_chance():
    rows, labels, truth, p = fooled()
    wrong = int((labels != truth).sum())
    played = simulate_review(rows, p, labels, truth, [20, 60], seed=0)
    assert played["order"].to_list() == ["gain", "gain", "suspicion", "suspicion", "random", "random"]
    assert played["reviewed"].to_list() == [20, 60] * 3
    assert (played["errors_caught"] + played["errors_left"] == wrong).all()
    left = played.filter(reviewed=20).select("order", "errors_left_if_likelier")
    at = dict(left.iter_rows())
    assert at["gain"] < wrong / 2
    found = dict(played.filter(reviewed=60).select("order", "errors_caught").iter_rows())
    assert found["suspicion"] > found["random"] + 10  # it asks about what is surely wrong: many are found, little is learnt
    assert played["errors_left_if_likelier"].sum() < played["errors_left"].sum()


def test_what_the_model_knows_is_not_what_may_act():
    """Under forty reviews drawn at random no label is turned, however sure the model is; from then on only as they bear out."""
    rows, labels, truth, p = fooled()
    played = simulate_review(rows, p, labels, truth, [20, 60, 160], orders=["gain"], seed=0)
    few, some, many = played.iter_rows(named=True)
    for line in (few, some):  # 10, then 30 of them drawn
        assert line["relabelled"] == 0 < line["likelier"] and line["errors_left_after_relabelling"] == line["errors_left"]
    assert many["errors_left_if_likelier"] <= many["errors_left_after_relabelling"] < many["errors_left"]
    assert many["relabelled"] > 0


@pytest.mark.parametrize("budgets", [[], [0, 5], [10, 5], [5, 5]])
def test_budgets_that_do_not_rise_are_refused(budgets):
    rows, labels, truth, p = fooled(60)
    with pytest.raises(SettingError, match="rising numbers"):
        simulate_review(rows, p, labels, truth, budgets)
