import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktodata.errors import DataError, LabelError, OneClassError, SettingError, ShapeError
from ktodata.labels.classifier.confident_learning import (
    compute_confident_joint,
    find_label_issues,
    get_label_quality_scores,
    noise_matrices,
)

PRUNING = ("prune_by_noise_rate", "prune_by_class", "both")
OTHERS = ("confident_learning", "predicted_neq_given", "low_self_confidence", "low_normalized_margin")


def of_cleanlab(labels, probs, **settings):
    from cleanlab.filter import find_label_issues as theirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theirs(labels, probs, n_jobs=1, **settings)


def test_by_hand():
    """Thresholds: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.9 + 0.8 + 0.7) / 3 = 0.8.

    Row 2 is given class 0 and 0.9 >= 0.8 sure of class 1: counted off the diagonal. Row 5 reaches no threshold and is not counted.
    Counts [[2, 1], [0, 2]]; calibrated to three rows a class [[2, 1], [0, 3]]: one row to doubt in class 0, none in class 1.
    """
    labels = np.array([0, 0, 0, 1, 1, 1])
    desirable = np.array([0.1, 0.2, 0.9, 0.9, 0.8, 0.7])
    probs = np.stack([1 - desirable, desirable], axis=1)
    assert compute_confident_joint(labels, probs, calibrate=False).tolist() == [[2, 1], [0, 2]]
    assert compute_confident_joint(labels, probs).tolist() == [[2, 1], [0, 3]]
    assert find_label_issues(labels, probs).tolist() == [False, False, True, False, False, False]
    rates = noise_matrices(compute_confident_joint(labels, probs))
    np.testing.assert_allclose(rates.true_if_given, [[2 / 3, 0], [1 / 3, 1]])
    np.testing.assert_allclose(rates.given_if_true, [[1, 1 / 4], [0, 3 / 4]])


def test_bools_series_and_one_column_mean_the_same_as_a_matrix():
    labels = np.array([False, False, False, True, True, True])
    desirable = np.array([0.1, 0.2, 0.9, 0.9, 0.8, 0.7])
    expected = find_label_issues(labels.astype(int), np.stack([1 - desirable, desirable], axis=1))
    assert find_label_issues(pl.Series(labels), pl.Series(desirable)).tolist() == expected.tolist()
    frame = pl.DataFrame({"undesirable": 1 - desirable, "desirable": desirable})
    assert find_label_issues(pl.Series(labels), frame).tolist() == expected.tolist()
    assert find_label_issues(labels, desirable, return_indices_ranked_by="self_confidence").tolist() == [2]


def test_half_a_row_is_rounded_as_cleanlab_rounds_it():
    """Of class 2, counts of 3 and 1 for 6 rows are 4.5 and 1.5; the last bit of the joint's sum says which of them is raised."""
    from cleanlab.count import compute_confident_joint as theirs

    counts = [
        [1, 0, 0, 0, 0, 0],
        [0, 4, 2, 0, 0, 0],
        [0, 0, 3, 0, 1, 0],
        [0, 0, 2, 2, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 3],
    ]
    given = [1, 6, 6, 4, 2, 7]
    labels = np.repeat(np.arange(6), given)
    guessed = [[true for true, count in enumerate(row) for _ in range(count)] for row in counts]
    probs = np.zeros((len(labels), 6))
    for start, own, guesses, k in zip(np.cumsum(given) - given, given, guessed, range(6), strict=True):
        for place, true in enumerate([*guesses, *[None] * (own - len(guesses))]):
            probs[start + place] = 0.02
            probs[start + place, k if true is None else true] = 0.3 if true is None else 0.9
    np.testing.assert_array_equal(compute_confident_joint(labels, probs), theirs(labels, probs))


@st.composite
def problems(draw):
    """K = 2 .. 6 classes, 5 .. 80 rows, sometimes with ties and with classes that no row is labelled."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k, n = draw(st.integers(2, 6)), draw(st.integers(5, 80))
    probs = rng.dirichlet(np.full(k, draw(st.sampled_from([0.2, 1.0, 5.0]))), n)
    if draw(st.booleans()):
        probs = np.round(probs * 4) / 4 + 1e-9
        probs /= probs.sum(axis=1, keepdims=True)
    named = draw(st.integers(2, k))
    labels = np.where(rng.random(n) < 0.6, probs.argmax(axis=1) % named, rng.integers(0, named, n))
    labels[:2] = [0, named - 1]
    return labels, probs


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from(PRUNING), st.sampled_from([1.0, 0.5]), st.sampled_from([0, 1, 3]))
def test_pruned_sets_equal_cleanlabs(problem, filter_by, frac_noise, min_examples):
    labels, probs = problem
    options = {"filter_by": filter_by, "frac_noise": frac_noise, "min_examples_per_class": min_examples}
    np.testing.assert_array_equal(find_label_issues(labels, probs, **options), of_cleanlab(labels, probs, **options))


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from(OTHERS))
def test_other_sets_and_scores_equal_cleanlabs(problem, filter_by):
    from cleanlab.rank import get_label_quality_scores as theirs

    labels, probs = problem
    np.testing.assert_array_equal(
        find_label_issues(labels, probs, filter_by=filter_by), of_cleanlab(labels, probs, filter_by=filter_by)
    )
    for method in ("self_confidence", "normalized_margin"):
        np.testing.assert_array_equal(
            get_label_quality_scores(labels, probs, method=method), theirs(labels, probs, method=method)
        )


@pytest.mark.shared
def test_equal_to_cleanlab_on_20_newsgroups(shared):
    folder = shared / "label_noise_20news"
    labels = np.load(folder / "20news_test_set_original_labels.npy")
    probs = np.load(folder / "20news_test_set_pyx.npy")
    assert probs.shape == (7532, 20)
    for filter_by in PRUNING + OTHERS:
        ours, theirs = find_label_issues(labels, probs, filter_by=filter_by), of_cleanlab(labels, probs, filter_by=filter_by)
        assert theirs.sum() > 10
        np.testing.assert_array_equal(ours, theirs, err_msg=filter_by)
    ranked = find_label_issues(labels, probs, return_indices_ranked_by="self_confidence")
    np.testing.assert_array_equal(ranked, of_cleanlab(labels, probs, return_indices_ranked_by="self_confidence"))


@pytest.mark.parametrize(
    ("labels", "probs", "error", "words"),
    [
        ([0, 1], [[0.5, 0.5]], ShapeError, r"\[2\] and \[1, 2\]"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], LabelError, "from 0 to 2"),
        (["a", "b"], [[0.5, 0.5], [0.5, 0.5]], LabelError, "whole numbers"),
        ([0, 1], [[0.5, 0.5], [3.0, -2.0]], DataError, "1 of 2 rows .* row 1"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], DataError, "row 1"),
        ([1, 1], [[0.5, 0.5], [0.5, 0.5]], OneClassError, "all 2 labels"),
    ],
)
def test_bad_input_is_named(labels, probs, error, words):
    with pytest.raises(error, match=words):
        find_label_issues(labels, probs)


def test_unknown_filter_is_named():
    with pytest.raises(SettingError, match="'prune'"):
        find_label_issues([0, 1], [0.2, 0.8], filter_by="prune")
