"""A few reviewed rows correct a model that was fooled, in the class where they show a pattern, and in no other."""

import numpy as np
import polars as pl
from test_views import refusals

from ktodata.signals.reviewed_model import learn_from_reviews
from ktodata.signals.views import as_rows


def fooled(rows=600, seed=0):
    """A rater who calls every refusal undesirable, also where refusing is right (topic 0); a model of those labels agrees."""
    prompts, completions, texts, topic, refuses = refusals(rows, seed=seed)
    labels, truth = ~refuses, np.where(topic == 0, refuses, ~refuses)
    truth |= labels  # of what is called desirable, all is
    everything = np.ones(rows, bool)
    return as_rows(prompts, completions, texts, fit_rows=everything), labels, truth, np.where(labels, 0.9, 0.1)


def sample(labels, each, seed=0):
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == given))[:each] for given in (False, True)]
    return np.isin(np.arange(len(labels)), np.concatenate(chosen))


def test_thirty_reviews_of_a_class_show_what_the_model_repeats():
    rows, labels, truth, p = fooled()
    reviewed = sample(labels, 30)
    found = learn_from_reviews(rows, p, labels, reviewed, truth)
    unseen = ~labels & ~reviewed
    wrong = truth[unseen]
    assert 0.2 < wrong.mean() < 0.5
    doubt = found.p_desirable[unseen]
    assert doubt[wrong].min() > np.quantile(doubt[~wrong], 0.95)
    assert abs(doubt.mean() - wrong.mean()) < 0.1
    assert found.scale[False] > 0


def test_a_class_without_errors_keeps_its_order():
    rows, labels, truth, _ = fooled()
    rng = np.random.default_rng(1)
    p = np.where(labels, rng.uniform(0.6, 0.95, 600), 0.1)
    found = learn_from_reviews(rows, p, labels, sample(labels, 30), truth)
    unseen = labels & ~sample(labels, 30)
    assert found.scale[True] == 0
    order = np.argsort(p[unseen])
    assert (np.diff(found.p_desirable[unseen][order]) >= -1e-9).all()
    assert found.p_desirable[unseen].min() > 0.8


def test_too_few_reviews_change_nothing():
    rows, labels, truth, p = fooled()
    found = learn_from_reviews(rows, p, labels, sample(labels, 7), truth)
    np.testing.assert_array_equal(found.p_desirable, p)
    assert found.scale == {False: None, True: None}


def test_a_reviewed_row_is_answered_by_the_others():
    """Its own review turned round, its answer stays: the rest of the class is what speaks."""
    rows, labels, truth, p = fooled()
    reviewed = sample(labels, 30)
    one = np.flatnonzero(reviewed & ~labels)[0]
    turned = truth.copy()
    turned[one] = ~turned[one]
    first, second = (learn_from_reviews(rows, p, labels, reviewed, known).p_desirable for known in (truth, turned))
    assert abs(first[one] - second[one]) < 0.05
    assert (first[one] > 0.5) == truth[one]


def test_rows_of_no_text_are_answered_too():
    empty = as_rows(
        np.zeros((40, 4), np.float32), np.zeros((40, 4), np.float32), pl.Series([""] * 40), fit_rows=np.ones(40, bool)
    )
    labels = np.arange(40) < 20
    found = learn_from_reviews(empty, np.where(labels, 0.8, 0.2), labels, np.ones(40, bool), labels)
    assert np.isfinite(found.p_desirable).all()
