"""The queue asks for likely mistakes, each kind once before any twice; the simulation counts what that buys."""

import numpy as np
import polars as pl
import pytest
from test_reviewed_model import fooled

from ktodata.errors import SettingError
from ktodata.signals.review_queue import queue, stratified
from ktodata.signals.review_simulation import simulate_review
from ktodata.signals.views import as_rows


def three_kinds():
    """Four rows of one kind of answer, one of another, one of a third; p_wrong highest for the first kind."""
    kinds = np.array([0, 0, 0, 0, 1, 2])
    prompts = np.tile(np.eye(4, dtype=np.float32)[0], (6, 1))
    completions = np.eye(4, dtype=np.float32)[kinds + 1]
    words = pl.Series(["alpha beta", "alpha beta", "alpha beta", "alpha beta", "gamma delta", "epsilon zeta"])
    rows = as_rows(prompts, completions, words, fit_rows=np.ones(6, bool))
    return rows, np.array([0.9, 0.89, 0.88, 0.87, 0.6, 0.5])


def test_the_likeliest_mistake_first_then_other_kinds():
    rows, p_wrong = three_kinds()
    assert queue(rows, p_wrong, np.ones(6, bool), 3).tolist() == [0, 4, 5]


def test_closed_rows_are_not_asked_about_and_the_queue_ends_with_the_rows():
    rows, p_wrong = three_kinds()
    open_rows = np.array([False, True, True, False, True, False])
    assert sorted(queue(rows, p_wrong, open_rows, 10).tolist()) == [1, 2, 4]
    assert queue(rows, p_wrong, np.zeros(6, bool), 3).tolist() == []


def test_a_random_sample_is_half_of_each_class_while_it_lasts():
    labels = np.arange(100) < 90
    chosen = stratified(labels, np.ones(100, bool), 30, seed=0)
    assert len(set(chosen.tolist())) == 30
    assert labels[chosen].sum() == 20  # all ten of the rarer label, the rest of the other
    assert labels[stratified(labels, np.ones(100, bool), 12, seed=0)].sum() == 6


def test_what_a_budget_buys_is_counted_and_beats_chance():
    rows, labels, truth, p = fooled()
    wrong = int((labels != truth).sum())
    played = simulate_review(rows, p, labels, truth, [20, 60], seed=0)
    assert played["order"].to_list() == ["gain", "gain", "suspicion", "suspicion", "random", "random"]
    assert played["reviewed"].to_list() == [20, 60] * 3
    assert (played["errors_found"] + played["errors_left"] == wrong).all()
    at = {(order, budget): left for order, budget, left in played.select("order", "reviewed", "errors_left").iter_rows()}
    assert at["gain", 60] < at["random", 60] - 10
    spread = played.filter(order="gain", reviewed=60)["errors_left_after_relabelling"][0]
    assert spread < at["gain", 60]


@pytest.mark.parametrize("budgets", [[], [0, 5], [10, 5], [5, 5]])
def test_budgets_that_do_not_rise_are_refused(budgets):
    rows, labels, truth, p = fooled(60)
    with pytest.raises(SettingError, match="rising numbers"):
        simulate_review(rows, p, labels, truth, budgets)
