"""Feature sets put together: what is known counts, and the topic counts as far as labels do not hang on it."""

import numpy as np
import pytest
from scipy.special import expit, logit

from ktodata.labels.classifier.ensemble import fit_ensemble, log_loss, siblings_of

ROWS = 2000
EVERY = np.ones(ROWS, bool)
ALONE = np.arange(ROWS)


def probabilities(seed=0, **strengths):
    """Labels, and feature sets that show them with the given strength (nats of log-odds) and noise of 1 nat."""
    rng = np.random.default_rng(seed)
    labels = rng.random(ROWS) < 0.6
    return labels, {
        name: expit(np.where(labels, strength, -strength) + rng.standard_normal(ROWS))[:, None]
        for name, strength in strengths.items()
    }


def grouped_labels(share_of_prompts, seed=0):
    """Labels of 500 prompts of 4 answers; in that share of the prompts all answers have one label."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(500), 4)
    whole = (rng.random(500) < share_of_prompts)[groups]
    return np.where(whole, (rng.random(500) < 0.5)[groups], rng.random(ROWS) < 0.5), groups


def test_log_loss_by_hand():
    """-log 0.8 = 0.2231, -log 0.5 = 0.6931: 0.4581 on average."""
    assert log_loss(np.array([0.8, 0.5]), np.array([True, False])) == pytest.approx(0.4581, abs=1e-4)


def test_without_siblings_log_odds_are_averaged():
    labels, sets = probabilities(text=1.0, completion_residual=0.5)
    blend = fit_ensemble(sets, np.full(ROWS, 0.6), labels, ALONE, EVERY)
    assert blend.metrics["weights"] == {"text": 0.5, "completion_residual": 0.5}
    expected = expit((logit(sets["text"]) + logit(sets["completion_residual"])) / 2)
    np.testing.assert_allclose(blend.p_desirable, expected, atol=2e-3)


def test_a_feature_set_that_knows_nothing_changes_no_order():
    labels, sets = probabilities(text=1.0)
    nothing = {"surface_features": np.full((ROWS, 1), 0.6)}
    blend = fit_ensemble(sets | nothing, np.full(ROWS, 0.6), labels, ALONE, EVERY)
    np.testing.assert_array_equal(np.argsort(blend.p_desirable[:, 0]), np.argsort(sets["text"][:, 0]))
    assert not blend.metrics["labels_follow_the_prompt"]


def test_a_blend_is_better_than_its_parts():
    labels, sets = probabilities(text=0.7, completion_residual=0.7)
    blend = fit_ensemble(sets, np.full(ROWS, 0.6), labels, ALONE, EVERY).p_desirable[:, 0]
    assert log_loss(blend, labels) < min(log_loss(probs[:, 0], labels) for probs in sets.values()) - 0.02


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
    first, second = (fit_ensemble(sets, np.full(ROWS, 0.5), y, groups, EVERY).p_desirable for y in (labels, turned))
    assert np.abs(first - second).max() < 0.02


def test_answers_set_against_each_other_are_compared():
    """Pairs with one desirable answer each: what both have in common says nothing, so their log-odds become opposite."""
    rng = np.random.default_rng(0)
    first = rng.random(ROWS // 2) < 0.5
    labels, groups = np.stack([first, ~first], axis=1).ravel(), np.repeat(np.arange(ROWS // 2), 2)
    shared = np.repeat(rng.standard_normal(ROWS // 2), 2)
    own = np.where(labels, 0.5, -0.5) + 0.5 * rng.standard_normal(ROWS)
    blend = fit_ensemble({"text": expit(shared + own)[:, None]}, np.full(ROWS, 0.5), labels, groups, EVERY)
    assert blend.metrics["sibling_contrast"] == pytest.approx(1, abs=0.05)
    log_odds = logit(blend.p_desirable[:, 0].reshape(-1, 2))
    assert np.abs(log_odds.sum(axis=1) - np.median(log_odds.sum(axis=1))).max() < 0.3
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


def test_labels_that_follow_the_topic_are_reported():
    labels, sets = probabilities(text=1.0, completion_residual=0.8, prompt=0.8)
    metrics = fit_ensemble(sets, sets.pop("prompt")[:, 0], labels, ALONE, EVERY).metrics
    assert metrics["labels_follow_the_prompt"]
    assert 0.1 < metrics["prompt_information_share"] < 1


def test_held_out_rows_shape_nothing():
    _, sets = probabilities(text=1.0, completion_residual=0.5)
    labels, groups = grouped_labels(0.3)
    train = ALONE < 1500
    turned = np.where(train, labels, ~labels)
    first, second = (fit_ensemble(sets, np.full(ROWS, 0.6), y, groups, train).p_desirable for y in (labels, turned))
    np.testing.assert_array_equal(first, second)
