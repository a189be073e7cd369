"""A few reviewed rows correct a model that was fooled, in the class where they show a pattern, and in no other."""

import numpy as np
import polars as pl
import pytest
from refusal_rows import refusals

from ktodata.errors import DataError, ShapeError
from ktodata.labels.classifier.feature_sets import row_features
from ktodata.labels.people.reviewed_model import EVIDENCE_VARIANCE, NOISE, learn_from_reviews
from ktodata.stats import Z95


def fooled(rows=600, seed=0):
    """A rater who calls every refusal undesirable, also where refusing is right (topic 0); a model of those labels agrees."""
    prompts, completions, texts, topic, refuses = refusals(rows, seed=seed)
    labels, truth = ~refuses, np.where(topic == 0, refuses, ~refuses)
    truth |= labels  # of what is called desirable, all is
    everything = np.ones(rows, bool)
    return row_features(prompts, completions, texts, fit_rows=everything), labels, truth, np.where(labels, 0.9, 0.1)


def sample(labels, each, seed=0):
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == given))[:each] for given in (False, True)]
    return np.isin(np.arange(len(labels)), np.concatenate(chosen))


def test_thirty_reviews_of_a_class_show_what_the_model_repeats():
    rows, labels, truth, p = fooled()
    reviewed = sample(labels, 30)
    model = learn_from_reviews(rows, p, labels, reviewed, truth)
    unseen = ~labels & ~reviewed
    wrong = truth[unseen]
    assert 0.2 < wrong.mean() < 0.5
    doubt = model.p_desirable[unseen]
    assert doubt[wrong].min() > np.quantile(doubt[~wrong], 0.95)
    assert abs(doubt.mean() - wrong.mean()) < 0.1
    assert model.scale[False] > 0


def test_a_class_without_errors_keeps_its_order():
    rows, labels, truth, _ = fooled()
    rng = np.random.default_rng(1)
    p = np.where(labels, rng.uniform(0.6, 0.95, 600), 0.1)
    model = learn_from_reviews(rows, p, labels, sample(labels, 30), truth)
    unseen = labels & ~sample(labels, 30)
    assert model.scale[True] == 0
    order = np.argsort(p[unseen])
    assert (np.diff(model.p_desirable[unseen][order]) >= -1e-9).all()
    assert model.p_desirable[unseen].min() > 0.8


def test_too_few_reviews_change_nothing():
    rows, labels, truth, p = fooled()
    model = learn_from_reviews(rows, p, labels, sample(labels, 7), truth)
    np.testing.assert_array_equal(model.p_desirable, p)
    assert model.scale == {False: None, True: None}


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
    empty = row_features(
        np.zeros((40, 4), np.float32), np.zeros((40, 4), np.float32), pl.Series([""] * 40), fit_rows=np.ones(40, bool)
    )
    labels = np.arange(40) < 20
    model = learn_from_reviews(empty, np.where(labels, 0.8, 0.2), labels, np.ones(40, bool), labels)
    assert np.isfinite(model.p_desirable).all()


# --- further evidence ----------------------------------------------------------------------------------------------------


def flips_unseen(rows=600, seed=0):
    """A quarter of the labels flipped, which no text shows; and evidence, ranked within each label, that has an inkling of them."""
    texts, labels, _, _ = fooled(rows, seed)
    rng = np.random.default_rng(seed)
    wrong = rng.random(rows) < 0.25
    truth = labels ^ wrong
    inkling = np.where(truth, 0.5, -0.5) + rng.uniform(-0.5, 0.5, rows)
    p = np.where(labels, rng.uniform(0.6, 0.95, rows), rng.uniform(0.05, 0.4, rows))
    return texts, labels, truth, p, ranked(inkling, labels)


def ranked(evidence, labels):
    """In (-1, 1), centred within each label."""
    centred = np.empty(len(labels))
    for given in (False, True):
        here = labels == given
        centred[here] = 2 * (evidence[here].argsort().argsort() + 0.5) / here.sum() - 1
    return centred


def auroc(model, labels, truth, unseen, given):
    """Chance that a wrong label looks more doubtful than a sound one, among the unreviewed rows of one given label."""
    here = unseen & (labels == given)
    quality = np.where(labels, model.p_desirable, 1 - model.p_desirable)
    wrong = (labels != truth)[here]
    return (quality[here][wrong][:, None] < quality[here][~wrong]).mean()


def brier(model, truth, unseen):
    return np.square(model.p_desirable - truth)[unseen].mean()


@pytest.mark.parametrize("evidence", [np.empty((600, 0)), np.zeros((600, 1)), np.full((600, 2), np.nan)])
def test_without_evidence_nothing_changes_to_the_last_bit(evidence):
    rows, labels, truth, p = fooled()
    reviewed = sample(labels, 30)
    plain, with_evidence = (learn_from_reviews(rows, p, labels, reviewed, truth, evidence=each) for each in (None, evidence))
    np.testing.assert_array_equal(plain.p_desirable, with_evidence.p_desirable)
    assert plain.scale == with_evidence.scale


def test_evidence_that_proved_right_finds_errors_that_no_text_shows():
    rows, labels, truth, p, evidence = flips_unseen()
    reviewed = sample(labels, 30)
    plain, model = (learn_from_reviews(rows, p, labels, reviewed, truth, evidence=each) for each in (None, evidence[:, None]))
    for given in (False, True):
        assert auroc(plain, labels, truth, ~reviewed, given) < 0.6
        assert auroc(model, labels, truth, ~reviewed, given) > 0.85
        (weight,) = model.weights[given]
        assert 0 < weight.low < weight.value < weight.high
    assert brier(model, truth, ~reviewed) < brier(plain, truth, ~reviewed) - 0.08


def test_useless_evidence_leaves_p_as_it_is():
    """Over five draws: what it costs is within noise, where evidence that knows something gains eight points."""
    worse = []
    for seed in range(5):
        rows, labels, truth, p, _ = flips_unseen(200, seed)
        useless = np.random.default_rng([seed, 1]).uniform(-1, 1, 200)
        reviewed = sample(labels, 30, seed)
        plain, model = (learn_from_reviews(rows, p, labels, reviewed, truth, evidence=each) for each in (None, useless[:, None]))
        worse.append(brier(model, truth, ~reviewed) - brier(plain, truth, ~reviewed))
    assert abs(np.mean(worse)) < 0.01
    assert np.median(np.abs(worse)) < 0.005


def test_evidence_that_is_wrong_in_one_class_is_used_by_its_sign():
    rows, labels, truth, p, evidence = flips_unseen()
    reviewed, turned = sample(labels, 30), np.where(labels, evidence, -evidence)
    right, model = (learn_from_reviews(rows, p, labels, reviewed, truth, evidence=each[:, None]) for each in (evidence, turned))
    assert model.weights[False][0].high < 0 < model.weights[True][0].low
    np.testing.assert_allclose(model.p_desirable, right.p_desirable)


def test_evidence_that_only_repeats_the_model_is_no_second_one():
    """The model's own score handed in again: nothing is left of it beyond m, and it is not believed."""
    rows, labels, truth, p, _ = flips_unseen()
    reviewed = sample(labels, 30)
    plain, model = (learn_from_reviews(rows, p, labels, reviewed, truth, evidence=each) for each in (None, 2 * p[:, None] - 1))
    assert {weight.value for weights in model.weights.values() for weight in weights} == {0.0}
    np.testing.assert_array_equal(model.p_desirable, plain.p_desirable)


def test_nobody_reviewed_so_no_evidence_moves_anything():
    rows, labels, truth, p, evidence = flips_unseen()
    model = learn_from_reviews(rows, p, labels, sample(labels, 7), truth, evidence=evidence[:, None])
    np.testing.assert_array_equal(model.p_desirable, p)
    assert model.weights == {False: (), True: ()}


def test_the_weight_by_hand():
    """Rows without text, m = 0, n reviewed rows of one label whose truth is the evidence, +1 or -1 in equal parts.

    The evidence is at right angles to what a0 sees, so b = n s / (n s + noise) = 40 x 0.2 / (40 x 0.2 + 0.15) = 0.9816.
    """
    n = 40
    empty = row_features(
        np.zeros((n, 4), np.float32), np.zeros((n, 4), np.float32), pl.Series([""] * n), fit_rows=np.ones(n, bool)
    )
    evidence = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    everything = np.ones(n, bool)
    model = learn_from_reviews(empty, np.full(n, 0.5), everything, everything, evidence > 0, evidence=evidence[:, None])
    (weight,) = model.weights[True]
    assert weight.value == pytest.approx(n * EVIDENCE_VARIANCE / (n * EVIDENCE_VARIANCE + NOISE), abs=1e-9)
    # and its variance is s - s n s / (n s + noise)
    assert (weight.high - weight.value) / Z95 == pytest.approx(
        (EVIDENCE_VARIANCE * NOISE / (n * EVIDENCE_VARIANCE + NOISE)) ** 0.5, abs=1e-9
    )


def test_evidence_that_does_not_fit_are_refused():
    rows, labels, truth, p = fooled()
    for evidence, error, words in (
        (np.zeros(600), ShapeError, r"shape \(600,\) on 600 rows"),
        (np.zeros((5, 1)), ShapeError, "on 600 rows"),
        (np.full((600, 1), 1.5), DataError, r"600 of 600 rows is outside \[-1, 1\]"),
    ):
        with pytest.raises(error, match=words):
            learn_from_reviews(rows, p, labels, sample(labels, 30), truth, evidence=evidence)
