import time

import numpy as np
import pytest

from ktodata.stats.bootstrap import bootstrap, difference, group_weights, weighted_auc, weighted_mean


def auc(scores, labels, weights=None):
    return weighted_auc(scores, labels)(np.atleast_2d(np.ones(len(scores)) if weights is None else weights).astype(float))[0]


def test_auc_by_hand_with_a_tie():
    """true 3, 2; false 2, 1: pairs 3>2, 3>1, 2=2 (half), 2>1 -> 3.5 of 4"""
    assert auc([3, 2, 2, 1], [True, True, False, False]) == 0.875


def test_all_scores_equal_is_a_coin():
    assert auc([5, 5, 5], [True, False, False]) == 0.5


def test_one_class_cannot_be_measured():
    assert np.isnan(auc([1, 2], [True, True]))


def test_weights_count_as_repeats():
    random = np.random.default_rng(0)
    scores, labels, weights = random.integers(0, 6, 40), random.random(40) < 0.4, random.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), weights)
    assert auc(scores, labels, weights) == pytest.approx(auc(scores[repeated], labels[repeated]))


def test_auc_equals_scikit_learn():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1)
    scores, labels = random.integers(0, 30, 500) / 7, random.random(500) < 0.3
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def simulated(random, groups=60):
    """Four rows a group that share half of their noise; true rows score 1 higher: AUC = P(N(1, 2) > 0) = 0.7602."""
    group = np.repeat(np.arange(groups), 4)
    label = random.random(len(group)) < 0.5
    score = label + random.normal(size=groups)[group] * 0.5**0.5 + random.normal(size=len(group)) * 0.5**0.5
    return score, label, group


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says():
    """95 % intervals, 200 data sets: between 178 and 198 cover (binomial(200, 0.95) lies in 183 ... 197 nearly always)."""
    covered = 0
    for seed in range(200):
        score, label, group = simulated(np.random.default_rng(seed))
        interval = bootstrap({"auc": weighted_auc(score, label)}, group, resamples=300, seed=seed)["auc"]
        covered += interval.low <= 0.7602 <= interval.high
    assert 178 <= covered <= 198


def test_rows_of_one_group_are_drawn_together():
    """Ten copies of each of 20 values carry no more than the 20: the interval is that of the 20, not of 200."""
    values = np.random.default_rng(0).normal(size=20)
    alone = bootstrap({"m": weighted_mean(values)}, np.arange(20), resamples=2000, seed=0)["m"]
    copied = bootstrap({"m": weighted_mean(np.repeat(values, 10))}, np.repeat(np.arange(20), 10), resamples=2000, seed=0)["m"]
    assert (copied.value, copied.low, copied.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_a_difference_is_paired():
    """Two scores that rank alike differ by exactly 0 in every resample, however wide each one's own interval is."""
    score, label, group = simulated(np.random.default_rng(3))
    first, second = weighted_auc(score, label), weighted_auc(2 * score + 1, label)
    intervals = bootstrap({"gain": difference(first, second), "auc": first}, group, resamples=200, seed=0)
    assert tuple(intervals["gain"]) == (0.0, 0.0, 0.0)
    assert intervals["auc"].high - intervals["auc"].low > 0.05


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    score, label, group = simulated(np.random.default_rng(4))
    whole = bootstrap({"auc": weighted_auc(score, label)}, group, resamples=200, seed=1)
    monkeypatch.setattr("ktodata.stats.bootstrap.BLOCK", 1000)
    assert bootstrap({"auc": weighted_auc(score, label)}, group, resamples=200, seed=1) == whole
    assert bootstrap({"auc": weighted_auc(score, label)}, group, resamples=200, seed=2) != whole


def test_what_cannot_be_measured_is_none_never_nan():
    interval = bootstrap({"auc": weighted_auc([1, 2], [True, True])}, [0, 1], resamples=100, seed=0)["auc"]
    assert tuple(interval) == (None, None, None)


def test_a_thousand_resamples_of_five_thousand_rows_are_quick():
    random = np.random.default_rng(0)
    score, label = random.normal(size=5000), random.random(5000) < 0.5
    started = time.process_time()
    bootstrap({"auc": weighted_auc(score, label)}, np.arange(5000) // 2, resamples=1000, seed=0)
    assert time.process_time() - started < 5


def test_weights_are_whole_groups_and_the_same_in_whatever_blocks(monkeypatch):
    groups = ["a", "b", "a", "c"]
    whole = np.concatenate(list(group_weights(groups, 50, np.random.default_rng(3))))
    assert (whole[:, 0] == whole[:, 2]).all() and (whole[:, [0, 1, 3]].sum(1) == 3).all()
    monkeypatch.setattr("ktodata.stats.bootstrap.BLOCK", 12)
    blocks = list(group_weights(groups, 50, np.random.default_rng(3)))
    assert len(blocks) > 1 and (np.concatenate(blocks) == whole).all()
