import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ktodata.labels.classifier.folds import group_folds


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(10, 200), st.sampled_from([0.05, 0.3, 0.5]))
def test_no_group_is_split_and_no_fold_is_empty(seed, folds, n_groups, share):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, 3 * n_groups)])
    labels = rng.random(len(groups)) < share
    fold = group_folds(groups, labels, folds=folds, seed=seed)
    assert all(len(np.unique(fold[groups == group])) == 1 for group in range(n_groups))
    assert set(fold) == set(range(folds))


def test_labels_and_rows_are_spread_evenly():
    """1,000 groups of 1 .. 4 rows, one row in ten undesirable: each of 5 folds has within 3% of its share of either."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(1000), rng.integers(1, 5, 1000))
    labels = rng.random(len(groups)) < 0.9
    fold = group_folds(groups, labels, folds=5, seed=0)
    for side in (labels, ~labels):
        counts = np.bincount(fold[side], minlength=5)
        assert np.abs(counts / counts.mean() - 1).max() < 0.03


def test_one_seed_one_answer_and_another_seed_another():
    groups, labels = np.arange(100), np.arange(100) % 3 == 0
    first = group_folds(groups, labels, folds=5, seed=1)
    np.testing.assert_array_equal(first, group_folds(groups, labels, folds=5, seed=1))
    assert (first != group_folds(groups, labels, folds=5, seed=2)).any()


def test_cleanlabs_folds_leak_near_duplicates_and_ours_do_not():
    """60 prompts, each 6 times with a coin-flip label that its copies share: there is nothing to learn but the copies."""
    from cleanlab.count import estimate_cv_predicted_probabilities
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from ktodata.labels.classifier.feature_sets import linear_components
    from ktodata.labels.classifier.out_of_fold import out_of_fold

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 6)
    labels = (np.arange(60) % 2 == 0)[groups]
    vectors = (rng.standard_normal((60, 64))[groups] + 0.05 * rng.standard_normal((360, 64))).astype(np.float32)
    leaking = estimate_cv_predicted_probabilities(vectors, labels.astype(int), clf=LogisticRegression(), cv_n_folds=5, seed=0)
    everyone = np.ones(360, bool)
    components = linear_components(vectors, fit_rows=everyone)
    ours = out_of_fold(components, labels[:, None], groups, everyone, folds=5, seeds=3, seed=0)
    assert roc_auc_score(labels, leaking[:, 1]) > 0.95
    assert roc_auc_score(labels, ours.p_desirable[:, 0]) < 0.65


def test_a_million_groups_take_seconds():
    import time

    groups = np.arange(1_000_000)
    start = time.perf_counter()
    group_folds(groups, groups % 3 == 0, folds=5, seed=0)
    assert time.perf_counter() - start < 10
