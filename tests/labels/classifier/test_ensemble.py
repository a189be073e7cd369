"""Feature sets put together: the better one weighs more, as far as rows are many enough to say so."""

import numpy as np
import pytest
from scipy.special import expit

from ktodata.labels.classifier.ensemble import fit_ensemble, log_loss


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
    blend = fit_ensemble(feature_sets, expit(rng.standard_normal(2000)), labels, np.ones(2000, bool))
    assert (
        blend.metrics["weights"]["text"] > 1.5
    )  # the honest log-odds of two heaps 2 apart with a spread of 1 are twice the set's
    assert blend.metrics["weights"]["surface_features"] < 0.3
    assert not blend.metrics["labels_follow_the_prompt"]


def test_a_blend_is_better_than_its_parts_and_calibrated():
    labels, feature_sets = probabilities(text=0.7, completion_residual=0.7)
    blend = fit_ensemble(feature_sets, np.full(2000, 0.6), labels, np.ones(2000, bool)).p_desirable[:, 0]
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
        fit_ensemble(sets, sets.pop("prompt")[:, 0], labels, np.ones(2000, bool)).p_desirable for sets in (feature_sets, nearly)
    )
    assert np.abs(one - other).max() < 0.03


def test_labels_that_follow_the_topic_are_reported():
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.8, prompt=0.8)
    metrics = fit_ensemble(feature_sets, feature_sets.pop("prompt")[:, 0], labels, np.ones(2000, bool)).metrics
    assert metrics["labels_follow_the_prompt"]
    assert 0.1 < metrics["prompt_information_share"] < 1


def test_small_tables_weigh_alike_and_large_ones_as_the_labels_say():
    shares = []
    for rows in (60, 20_000):
        labels, feature_sets = probabilities(rows=rows, text=1.0, surface_features=0.0)
        weights = fit_ensemble(feature_sets, np.full(rows, 0.6), labels, np.ones(rows, bool)).metrics["weights"]
        shares.append(weights["surface_features"] / weights["text"])
    assert shares[0] > 0.3
    assert shares[1] < 0.05


def test_labels_of_weak_sources_are_predicted_by_all_sets_alike():
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.0)
    both = {name: np.repeat(probs, 2, axis=1) for name, probs in feature_sets.items()}
    blend = fit_ensemble(both, np.full(2000, 0.6), np.repeat(labels, 2, axis=1), np.ones(2000, bool), weak_sources=1)
    log_odds = sum(np.log(probs / (1 - probs)) for probs in feature_sets.values())[:, 0] / 2
    np.testing.assert_allclose(blend.p_desirable[:, 1], expit(log_odds), atol=1e-6)


def test_held_out_rows_shape_nothing():
    labels, feature_sets = probabilities(text=1.0, completion_residual=0.5)
    train = np.arange(2000) < 1500
    turned = np.where(train[:, None], labels, ~labels)
    first, second = (fit_ensemble(feature_sets, np.full(2000, 0.6), y, train).p_desirable for y in (labels, turned))
    np.testing.assert_array_equal(first, second)


def test_a_large_table_is_blended_as_a_sample_of_it_says(monkeypatch):
    from ktodata.labels.classifier import features

    labels, feature_sets = probabilities(text=1.0, completion_residual=0.5)
    whole = fit_ensemble(feature_sets, np.full(2000, 0.6), labels, np.ones(2000, bool))
    monkeypatch.setattr(features, "MAX_FITTED", 1000)
    part = fit_ensemble(feature_sets, np.full(2000, 0.6), labels, np.ones(2000, bool))
    for name, weight in whole.metrics["weights"].items():
        assert part.metrics["weights"][name] == pytest.approx(weight, rel=0.2)
    assert not np.array_equal(part.p_desirable, whole.p_desirable)
