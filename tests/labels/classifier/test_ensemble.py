"""Views put together: the better one weighs more, and labels that follow the topic are judged without it."""

import numpy as np
import pytest
from scipy.special import expit

from ktodata.labels.classifier.ensemble import fit_ensemble, log_loss


def opinions(rows=2000, seed=0, **strengths):
    """Labels, and views that see them with the given strength (nats of log-odds) and noise of 1 nat."""
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < 0.6
    views = {
        name: expit(np.where(labels, strength, -strength) + rng.standard_normal(rows))[:, None]
        for name, strength in strengths.items()
    }
    return labels[:, None], views


def test_log_loss_by_hand():
    """-log 0.8 = 0.2231, -log 0.5 = 0.6931: 0.4581 on average."""
    assert log_loss(np.array([0.8, 0.5]), np.array([True, False])) == pytest.approx(0.4581, abs=1e-4)


def test_a_view_that_tells_nothing_weighs_nothing():
    labels, views = opinions(text=1.0, form=0.0)
    rng = np.random.default_rng(1)
    found = fit_ensemble(views, expit(rng.standard_normal(2000)), labels, np.ones(2000, bool))
    assert (
        found.facts["weights"]["text"] > 1.5
    )  # the honest log-odds of two heaps 2 apart with a spread of 1 are twice the view's
    assert found.facts["weights"]["form"] < 0.15
    assert not found.facts["labels_follow_the_prompt"]


def test_a_blend_is_better_than_its_parts_and_calibrated():
    labels, views = opinions(text=0.7, answer=0.7)
    found = fit_ensemble(views, np.full(2000, 0.6), labels, np.ones(2000, bool)).p_desirable[:, 0]
    y = labels[:, 0]
    assert log_loss(found, y) < min(log_loss(view[:, 0], y) for view in views.values()) - 0.02
    sure = found > 0.8
    assert y[sure].mean() == pytest.approx(found[sure].mean(), abs=0.04)


@pytest.mark.parametrize(("prompt_tells", "driven"), [(0.0, False), (0.45, True), (2.0, False)])
def test_labels_that_follow_the_topic_in_part_are_judged_without_it(prompt_tells, driven):
    """A prompt that tells a fifth of what the text does: yes. Nothing: no need. Nearly all: there is no answer to judge."""
    labels, views = opinions(text=1.0, answer=0.8, prompt=prompt_tells)
    prompt = views.pop("prompt")
    rng = np.random.default_rng(2)
    honest = (
        expit(np.log(prompt / (1 - prompt))[:, 0] * 2 * prompt_tells) if prompt_tells else expit(0.1 * rng.standard_normal(2000))
    )
    found = fit_ensemble(views, honest, labels, np.ones(2000, bool))
    assert found.facts["labels_follow_the_prompt"] is driven
    assert set(found.facts["weights"]) == ({"answer"} if driven else {"text", "answer"})


def test_labels_of_further_systems_are_seen_by_all_views():
    labels, views = opinions(text=1.0, answer=0.8, prompt=0.45)
    prompt = views.pop("prompt")
    both = {name: np.repeat(view, 2, axis=1) for name, view in views.items()}
    honest = expit(np.log(prompt / (1 - prompt))[:, 0] * 0.9)
    found = fit_ensemble(both, honest, np.repeat(labels, 2, axis=1), np.ones(2000, bool), further=1)
    assert found.facts["labels_follow_the_prompt"]
    y = labels[:, 0]
    assert log_loss(found.p_desirable[:, 1], y) < log_loss(found.p_desirable[:, 0], y)


def test_held_out_rows_shape_nothing():
    labels, views = opinions(text=1.0, answer=0.5)
    train = np.arange(2000) < 1500
    turned = np.where(train[:, None], labels, ~labels)
    first, second = (fit_ensemble(views, np.full(2000, 0.6), y, train).p_desirable for y in (labels, turned))
    np.testing.assert_array_equal(first, second)


def test_a_large_table_is_blended_as_a_sample_of_it_says(monkeypatch):
    from ktodata.labels.classifier import features

    labels, views = opinions(text=1.0, answer=0.5)
    whole = fit_ensemble(views, np.full(2000, 0.6), labels, np.ones(2000, bool))
    monkeypatch.setattr(features, "MAX_FITTED", 1000)
    part = fit_ensemble(views, np.full(2000, 0.6), labels, np.ones(2000, bool))
    for name, weight in whole.facts["weights"].items():
        assert part.facts["weights"][name] == pytest.approx(weight, rel=0.2)
    assert not np.array_equal(part.p_desirable, whole.p_desirable)
