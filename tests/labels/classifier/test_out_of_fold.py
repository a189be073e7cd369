import numpy as np
import polars as pl
import pytest

import ktodata.labels.classifier.out_of_fold as out_of_fold_module
from ktodata.errors import OneClassError
from ktodata.labels.classifier.feature_sets import linear_components
from ktodata.labels.classifier.features import surface_features
from ktodata.labels.classifier.logistic import fit_logistic
from ktodata.labels.classifier.out_of_fold import calibration_error, out_of_fold, platt


def two_classes(rows=300, width=16, seed=0):
    """Rows whose first coordinate tells the label, noisily; each its own group."""
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < 0.6
    vectors = rng.standard_normal((rows, width)).astype(np.float32)
    vectors[:, 0] += np.where(labels, 1.5, -1.5)
    form = rng.standard_normal((rows, 2)).astype(np.float32)
    return vectors, form, labels


def components_of(vectors, form, rows=None):
    return linear_components(vectors, form, fit_rows=np.ones(len(form), bool) if rows is None else rows)


def test_the_fit_equals_sklearns():
    from sklearn.linear_model import LogisticRegression

    vectors, form, labels = two_classes()
    components = components_of(vectors, form)
    used = np.ones((300, 2), bool)
    used[:100, 1] = False
    ours = fit_logistic(components, np.stack([labels, ~labels], axis=1), used, np.array([20.0, 100.0]))
    for model, (target, penalty) in enumerate([(labels, 20.0), (~labels, 100.0)]):
        rows = used[:, model]
        theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000).fit(components.values[rows], target[rows])
        np.testing.assert_allclose(ours.weights[:, model], theirs.coef_[0], atol=2e-3)
        np.testing.assert_allclose(ours.intercepts[model], theirs.intercept_[0], atol=5e-3)


def test_a_rows_own_label_does_not_reach_its_score():
    """Turning one row's label leaves its score before calibration as it was; two numbers of calibration move it by 1 / rows."""
    vectors, form, labels = two_classes()
    turned = labels ^ (np.arange(300) == 7)

    def predict(y):
        return out_of_fold(components_of(vectors, form), y[:, None], np.arange(300), np.ones(300, bool), folds=5, seeds=1, seed=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out_of_fold_module, "group_folds", lambda groups, labels, *, folds, seed: np.arange(len(labels)) % folds)
        first, second = predict(labels), predict(turned)
    assert first.raw[7] == pytest.approx(second.raw[7], abs=1e-3)  # the descent stops at a tolerance
    assert first.p_desirable[7] == pytest.approx(second.p_desirable[7], abs=1 / 100)
    assert np.abs(first.raw - second.raw)[np.arange(300) % 5 != 2].max() > 0.002


def test_small_tables_get_more_fold_assignments_and_seeds_move_them_less():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.5
    components = components_of(rng.standard_normal((200, 8)).astype(np.float32), np.zeros((200, 1), np.float32))

    def spread(assignments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(out_of_fold_module, "MAX_ASSIGNMENTS", assignments)
            fits = [
                out_of_fold(components, labels[:, None], np.arange(200), np.ones(200, bool), folds=5, seeds=1, seed=s)
                for s in (0, 100)
            ]
        assert fits[0].metrics["seeds"] == assignments
        return np.abs(fits[0].raw - fits[1].raw).mean()

    assert spread(20) < 0.5 * spread(1)


def test_held_out_rows_are_not_learnt_from():
    vectors, form, labels = two_classes()
    train = np.arange(300) < 200
    components = components_of(vectors, form, train)
    turned = np.where(train, labels, ~labels)
    first, second = (
        out_of_fold(components, y[:, None], np.arange(300), train, folds=5, seeds=2, seed=0).p_desirable for y in (labels, turned)
    )
    np.testing.assert_array_equal(first, second)
    assert ((first[200:, 0] > 0.5) == labels[200:]).mean() > 0.85


def test_probabilities_are_calibrated_and_the_facts_say_how_well():
    vectors, form, labels = two_classes(rows=2000)
    found = out_of_fold(
        components_of(vectors, form), labels[:, None], np.arange(2000), np.ones(2000, bool), folds=5, seeds=2, seed=0
    )
    p = found.p_desirable[:, 0]
    assert abs(labels[p > 0.8].mean() - p[p > 0.8].mean()) < 0.05
    assert abs(labels[p < 0.2].mean() - p[p < 0.2].mean()) < 0.05
    assert found.metrics["after_calibration"] == calibration_error(p, labels)
    assert found.metrics["after_calibration"]["ece"] < 0.05


def test_calibration_error_by_hand():
    """Two rows at 0.9, one right: gap 0.4; two at 0.1, both undesirable: gap 0.1. ECE (0.8 + 0.2) / 4, Brier (.01 + .81 + .01 + .01) / 4."""
    error = calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, False, False, False]))
    assert error == pytest.approx({"ece": 0.25, "brier": 0.21})


def test_scores_that_point_the_wrong_way_become_the_base_rate():
    scores = np.linspace(-1, 1, 100)
    slope, shift = platt(scores, scores < 0)
    assert slope == 0
    assert shift == pytest.approx(0, abs=0.05)
    assert platt(scores, scores > 0)[0] > 0


def test_a_label_in_too_few_groups_is_an_error_that_counts():
    vectors, form, _ = two_classes(rows=60)
    labels, groups = np.arange(60) >= 12, np.where(np.arange(60) < 12, 0, np.arange(60))
    with pytest.raises(OneClassError, match=r"48 desirable and 12 undesirable"):
        out_of_fold(components_of(vectors, form), labels[:, None], groups, np.ones(60, bool), folds=5, seeds=1, seed=0)


def test_form_features_are_finite_for_any_text():
    texts = ["", "\x00", "x" * 100_000, "\u202eabc", "$x$ <script>", "é" * 7, "a\n\n\nb?"]
    made = surface_features(pl.DataFrame({"prompt": texts, "completion": texts[::-1]}))
    assert made.shape == (7, 11)
    assert np.isfinite(made).all()


@pytest.fixture
def large(monkeypatch):
    """Tables of more than 1,000 training rows count as large."""
    from ktodata.labels.classifier import features

    monkeypatch.setattr(features, "MAX_FITTED", 1000)


def test_a_large_table_is_predicted_from_a_sample_of_it(large):
    vectors, form, labels = two_classes(rows=4000)
    train = np.arange(4000) < 3500
    columns = np.stack([labels, labels], axis=1)
    components = components_of(vectors, form, train)
    assert components.values.shape[0] == 1000
    found = out_of_fold(components, columns, np.arange(4000), train, folds=5, seeds=2, seed=0)
    assert found.metrics["rows_fitted"] == 1000
    p = found.p_desirable[:, 0]
    np.testing.assert_allclose(found.p_desirable[:, 1], p, atol=1e-6)
    assert ((p[3500:] > 0.5) == labels[3500:]).mean() > 0.9
    assert found.metrics["after_calibration"]["ece"] < 0.04
    turned = np.where(train[:, None], columns, ~columns)
    again = out_of_fold(components, turned, np.arange(4000), train, folds=5, seeds=2, seed=0)
    np.testing.assert_array_equal(again.p_desirable[:, 0], p)


def test_in_a_large_table_a_group_is_not_predicted_from_its_own_labels(large):
    """Vectors that tell the group and nothing else: a model that had seen the group would know its label."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 50)
    vectors = np.eye(40, dtype=np.float32)[group] + 0.01 * rng.standard_normal((2000, 40)).astype(np.float32)
    labels = (rng.random(40) < 0.5)[group]
    components = components_of(vectors, np.zeros((2000, 1), np.float32))
    p = out_of_fold(components, labels[:, None], group, np.ones(2000, bool), folds=5, seeds=1, seed=0).p_desirable[:, 0]
    assert ((p > 0.5) == labels).mean() < 0.7


def test_a_sampled_row_scores_as_its_components_say(large):
    vectors, form, _ = two_classes(rows=1500)
    components = components_of(vectors, form)
    weights, intercepts = np.random.default_rng(0).standard_normal((components.values.shape[1], 3)), np.ones(3)
    expected = components.values @ weights + intercepts
    np.testing.assert_allclose(components.scores(weights, intercepts)(components.rows), expected, rtol=1e-4, atol=1e-4)


def test_a_large_table_is_the_same_on_any_number_of_cores(monkeypatch, large):
    from ktodata.embeddings import chunks

    vectors, form, labels = two_classes(rows=1500)
    monkeypatch.setattr(chunks, "CHUNK", 64)

    def predict():
        components = components_of(vectors, form)
        return out_of_fold(
            components, labels[:, None], np.arange(1500), np.ones(1500, bool), folds=3, seeds=1, seed=0
        ).p_desirable

    many = predict()
    monkeypatch.setattr(chunks, "cores", lambda: 1)
    assert predict().tobytes() == many.tobytes()


def test_the_same_on_any_number_of_cores(monkeypatch):
    from ktodata.embeddings import chunks

    vectors, form, labels = two_classes(rows=400)
    monkeypatch.setattr(chunks, "CHUNK", 64)

    def predict():
        components = components_of(vectors, form)
        return out_of_fold(components, labels[:, None], np.arange(400), np.ones(400, bool), folds=3, seeds=1, seed=0).p_desirable

    many = predict()
    monkeypatch.setattr(chunks, "cores", lambda: 1)
    assert predict().tobytes() == many.tobytes()
