"""Feature sets put together: the better one weighs more, as far as rows are many enough to say so."""

import numpy as np
import pytest
from scipy.special import expit, logit

from ktodata.labels.classifier.ensemble import fit_ensemble, log_loss, siblings_of

ROWS = 2000
EVERY = np.ones(ROWS, bool)


def probabilities(rows=2000, seed=0, **strengths):
    """Labels, and feature sets that show them with the given strength (nats of log-odds) and noise of 1 nat."""
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < 0.6
    feature_sets = {
        name: expit(np.where(labels, strength, -strength) + rng.standard_normal(rows))[:, None]
        for name, strength in strengths.items()
    }
    return labels[:, None], feature_sets


def test_log_loss_by_hand():
    """-log 0.8 = 0.2231, -log 0.5 = 0.6931: 0.4581 on average."""
    assert log_loss(np.array([0.8, 0.5]), np.array([True, False])) == pytest.approx(0.4581, abs=1e-4)


def test_a_feature_set_that_says_nothing_weighs_nothing():
    labels, feature_sets = probabilities(text=1.0, surface_features=0.0)
    rng = np.random.default_rng(1)
    blend = fit_ensemble(feature_sets, expit(rng.standard_normal(2000)), labels, np.arange(2000), np.ones(2000, bool))
    assert (
        blend.metrics["weights"]["text"] > 1.5
    )  # the honest log-odds of two heaps 2 apart with a spread of 1 are twice the set's
    assert blend.metrics["weights"]["surface_features"] < 0.3
    assert not blend.metrics["labels_follow_the_prompt"]


def test_a_blend_is_better_than_its_parts_and_calibrated():
    labels, feature_sets = probabilities(text=0.7, completion_residual=0.7)
    blend = fit_ensemble(feature_sets, np.full(2000, 0.6), labels, np.arange(2000), np.ones(2000, bool)).p_desirable[:, 0]
    y = labels[:, 0]
    assert log_loss(blend, y) < min(log_loss(probs[:, 0], y) for probs in feature_sets.values()) - 0.02
    sure = blend > 0.8
    assert y[sure].mean() == pytest.approx(blend[sure].mean(), abs=0.04)


@pytest.mark.parametrize("strength", np.linspace(0.1, 1.0, 10))
def test_no_probability_jumps_as_labels_follow_the_topic_more(strength):
    """Ten steps of how far the prompt tells the labels: a step of 1 % in it moves no row by more than a few points."""
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.8, prompt=strength)
    nearly = probabilities(text=1.0, completion_residual=0.8, prompt=1.01 * strength)[1]
    one, other = (
        fit_ensemble(sets, sets.pop("prompt")[:, 0], labels, np.arange(2000), np.ones(2000, bool)).p_desirable
        for sets in (feature_sets, nearly)
    )
    assert np.abs(one - other).max() < 0.03


def test_labels_that_follow_the_topic_are_reported():
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.8, prompt=0.8)
    metrics = fit_ensemble(feature_sets, feature_sets.pop("prompt")[:, 0], labels, np.arange(2000), np.ones(2000, bool)).metrics
    assert metrics["labels_follow_the_prompt"]
    assert 0.1 < metrics["prompt_information_share"] < 1


def test_small_tables_weigh_alike_and_large_ones_as_the_labels_say():
    shares = []
    for rows in (60, 20_000):
        labels, feature_sets = probabilities(rows=rows, text=1.0, surface_features=0.0)
        weights = fit_ensemble(feature_sets, np.full(rows, 0.6), labels, np.arange(rows), np.ones(rows, bool)).metrics["weights"]
        shares.append(weights["surface_features"] / weights["text"])
    assert shares[0] > 0.3
    assert shares[1] < 0.05


def test_labels_of_weak_sources_are_predicted_by_all_sets_alike():
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.0)
    both = {name: np.repeat(probs, 2, axis=1) for name, probs in feature_sets.items()}
    blend = fit_ensemble(
        both, np.full(2000, 0.6), np.repeat(labels, 2, axis=1), np.arange(2000), np.ones(2000, bool), weak_sources=1
    )
    log_odds = sum(np.log(probs / (1 - probs)) for probs in feature_sets.values())[:, 0] / 2
    np.testing.assert_allclose(blend.p_desirable[:, 1], expit(log_odds), atol=1e-6)


def test_held_out_rows_shape_nothing():
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.5)
    train = np.arange(2000) < 1500
    turned = np.where(train[:, None], labels, ~labels)
    first, second = (
        fit_ensemble(feature_sets, np.full(2000, 0.6), y, np.arange(2000), train).p_desirable for y in (labels, turned)
    )
    np.testing.assert_array_equal(first, second)


def test_a_large_table_is_blended_as_a_sample_of_it_says(monkeypatch):
    from ktodata.labels.classifier import features

    labels, feature_sets = probabilities(text=1.0, completion_residual=0.5)
    whole = fit_ensemble(feature_sets, np.full(2000, 0.6), labels, np.arange(2000), np.ones(2000, bool))
    monkeypatch.setattr(features, "MAX_FITTED", 1000)
    part = fit_ensemble(feature_sets, np.full(2000, 0.6), labels, np.arange(2000), np.ones(2000, bool))
    for name, weight in whole.metrics["weights"].items():
        assert part.metrics["weights"][name] == pytest.approx(weight, rel=0.2)
    assert not np.array_equal(part.p_desirable, whole.p_desirable)


def grouped_labels(share_of_prompts, seed=0):
    """Labels of 500 prompts of 4 answers; in that share of the prompts all answers have one label."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(500), 4)
    whole = (rng.random(500) < share_of_prompts)[groups]
    return np.where(whole, (rng.random(500) < 0.5)[groups], rng.random(ROWS) < 0.5), groups


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.8])
def test_the_topic_counts_less_the_more_labels_hang_on_it(share):
    """Two answers to one prompt share their label by more than chance in that share of prompts: weight 1 - 2 x share, at least 0."""
    labels, groups = grouped_labels(share)
    siblings = siblings_of(labels, groups, EVERY)
    assert siblings.correlation == pytest.approx(share, abs=0.07)
    assert siblings.topic_weight == pytest.approx(max(0, 1 - 2 * share), abs=0.14)
    assert siblings.contrast < 0.15


@pytest.mark.parametrize("share", np.linspace(0, 1, 11))
def test_no_probability_jumps_as_labels_hang_on_the_topic_more(share):
    _, sets = probabilities(text=1.0, completion_residual=0.8)
    labels, groups = grouped_labels(share)
    turned = labels.copy()
    turned[:4] = ~turned[:4]
    first, second = (fit_ensemble(sets, np.full(ROWS, 0.5), y[:, None], groups, EVERY).p_desirable for y in (labels, turned))
    assert np.abs(first - second).max() < 0.02


def test_answers_set_against_each_other_are_compared():
    """Pairs with one desirable answer each: what both have in common says nothing, so their log-odds become opposite."""
    rng = np.random.default_rng(0)
    first = rng.random(ROWS // 2) < 0.5
    labels, groups = np.stack([first, ~first], axis=1).ravel(), np.repeat(np.arange(ROWS // 2), 2)
    shared = np.repeat(rng.standard_normal(ROWS // 2), 2)
    own = np.where(labels, 0.5, -0.5) + 0.5 * rng.standard_normal(ROWS)
    blend = fit_ensemble({"text": expit(shared + own)[:, None]}, np.full(ROWS, 0.5), labels[:, None], groups, EVERY)
    assert blend.metrics["sibling_contrast"] == pytest.approx(1, abs=0.05)
    log_odds = logit(blend.p_desirable[:, 0].reshape(-1, 2))
    assert np.abs(log_odds.sum(axis=1) - np.median(log_odds.sum(axis=1))).mean() < 0.4
    assert ((blend.p_desirable[:, 0] > 0.5) == labels).mean() > ((expit(shared + own) > 0.5) == labels).mean() + 0.1


def test_a_few_siblings_say_little_of_a_table():
    """Three prompts of two equal labels among 1,994 single rows: 6 rows speak, and as many as PRIOR_ROWS speak against."""
    groups = np.append(np.repeat(np.arange(3), 2), np.arange(3, ROWS - 3))
    labels = np.append([True, True, False, False, False, False], np.arange(ROWS - 6) % 2 == 0)
    assert 0 < siblings_of(labels, groups, EVERY).correlation < 0.2


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_no_or_one_row_have_no_siblings(rows):
    siblings = siblings_of(np.ones(rows, bool), np.zeros(rows, int), np.ones(rows, bool))
    assert (siblings.correlation, siblings.topic_weight, siblings.contrast) == (0, 1, 0)
