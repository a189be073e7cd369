"""Clusters of prompts: planted topics are found again, counted and named."""

import numpy as np
import pytest

from ktodata.embeddings.clusters import (
    cluster_as_tight,
    cluster_texts,
    effective_number,
    effective_number_interval,
    exemplars,
    nearest_cluster,
    tightness,
)
from ktodata.embeddings.holes import calibrate, nearest_prompts, rows_per_reference_prompt, similarity_among_themselves
from ktodata.embeddings.map_layout import map_prompts, map_sample
from ktodata.errors import SettingError


def blobs(sizes, *, noise=0.25, dimension=24, seed=0):
    """Unit vectors around random directions, with a large direction in common; (vectors, topic)."""
    rng = np.random.default_rng(seed)
    topic = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0][: len(sizes) + 1]
    vectors = centres[topic] + 2 * centres[-1] + noise * rng.normal(size=(len(topic), dimension)) / np.sqrt(dimension)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), topic


@pytest.mark.parametrize("topics", [2, 3, 6, 8])
def test_the_number_of_planted_topics_is_found(topics):
    vectors, topic = blobs([60] * topics)
    fitted = cluster_texts(vectors, np.ones(len(vectors)), clusters=None, seed=0)
    assert len(fitted.centres) == topics
    assert len(set(zip(fitted.of_text, topic, strict=True))) == topics  # one cluster for one topic, both ways


def test_clusters_are_numbered_by_their_rows_not_by_their_texts():
    vectors, topic = blobs([100, 30])
    weights = np.where(topic == 1, 10.0, 1.0)  # 300 rows in the topic of 30 texts
    fitted = cluster_texts(vectors, weights, clusters=2, seed=0)
    assert set(fitted.of_text[topic == 1]) == {0}


def test_clusters_do_not_depend_on_threads_and_new_texts_join_theirs():
    vectors, _topic = blobs([50, 40, 30])
    fitted = cluster_texts(vectors, np.ones(120), clusters=3, seed=0)
    more, new_topic = blobs([5, 5, 5])
    assert np.array_equal(nearest_cluster(more, fitted), [0] * 5 + [1] * 5 + [2] * 5)
    assert np.array_equal(new_topic, nearest_cluster(more, fitted))
    assert np.array_equal(fitted.centres, cluster_texts(vectors, np.ones(120), clusters=3, seed=0).centres)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_or_equal_texts_are_one_cluster(count):
    alike = np.tile(blobs([1])[0], (count, 1))
    fitted = cluster_texts(alike, np.ones(count), clusters=None, seed=0)
    assert set(fitted.of_text) == {0}
    assert len(cluster_texts(alike, np.ones(count), clusters=5, seed=0).centres) == 1


def test_exemplars_are_the_nearest_to_the_centre():
    vectors, topic = blobs([40, 20])
    fitted = cluster_texts(vectors, np.ones(60), clusters=2, seed=0)
    for number, near in enumerate(exemplars(vectors, fitted)):
        members = np.flatnonzero(fitted.of_text == number)
        assert set(near) <= set(members) and len(near) == 3
        assert set(topic[near]) == {number}


def test_effective_number_by_hand():
    """Shares 1/2, 1/4, 1/4: entropy = 1/2 ln 2 + 2 * 1/4 ln 4 = 3/2 ln 2; exp = 2^1.5 = 2.828"""
    assert effective_number([2, 1, 1]) == pytest.approx(2**1.5)
    assert effective_number([5, 5, 5, 5]) == pytest.approx(4)
    assert effective_number([7, 0]) == pytest.approx(1)


def test_interval_of_the_effective_number_holds_it_and_narrows_with_more_texts():
    few, many = (np.repeat([0, 1, 2], [n // 2, n // 4, n // 4]) for n in (40, 4000))
    low, high = effective_number_interval(few, np.ones(len(few)), seed=0)
    assert low < 2**1.5 < high
    narrow = effective_number_interval(many, np.ones(len(many)), seed=0)
    assert narrow[1] - narrow[0] < (high - low) / 5
    scattered = np.repeat(np.arange(30), np.arange(30) % 5 + 2)  # few texts to a cluster: drawing again loses some clusters
    low, high = effective_number_interval(scattered, np.ones(len(scattered)), seed=0)
    assert low < effective_number(np.bincount(scattered)) < high <= 30


def test_nearest_prompt_by_hand_and_its_own_group_does_not_count():
    training = np.eye(3, dtype=np.float32)
    near = nearest_prompts(np.array([[0.6, 0.8, 0.0]], np.float32), training)
    assert (near.number[0], round(float(near.similarity[0]), 6)) == (1, 0.8)
    other = nearest_prompts(training[:1], training, groups=np.array([7, 7, 8]), own_groups=np.array([7]))
    assert (other.number[0], other.similarity[0]) == (2, 0.0)


def test_the_threshold_leaves_out_about_one_training_prompt_in_twenty():
    vectors, _ = blobs([400, 400], noise=0.6)
    among = similarity_among_themselves(vectors, np.arange(800), seed=0)
    threshold = calibrate(among, among[:40]).cut.threshold
    near = nearest_prompts(vectors, vectors, groups=np.arange(800), own_groups=np.arange(800))
    assert (near.similarity < threshold).mean() == pytest.approx(0.05, abs=0.002)


def test_too_few_groups_to_calibrate_are_refused_with_what_to_do():
    vectors, _ = blobs([30])
    with pytest.raises(SettingError, match=r"3 groups .* min_similarity: 0.5"):
        similarity_among_themselves(vectors, np.arange(30) % 3, seed=0)


def similarities(rng, count: int, alone: float, centre: float = 0.88) -> np.ndarray:
    """Of prompts of whom a share stands alone."""
    near = rng.normal(centre, 0.03, count)
    return np.where(np.arange(count) < round(alone * count), rng.uniform(0.1, 0.35, count), near)


@pytest.mark.parametrize("alone", [0, 0.02, 0.047, 0.053, 0.08, 0.12, 0.2])
def test_a_subject_that_is_missing_shows_however_many_training_prompts_stand_alone(alone):
    rng = np.random.default_rng(int(alone * 1000))
    calibration = calibrate(similarities(rng, 360, alone), missing := similarities(rng, 60, 0, centre=0.7))
    assert calibration.cut.is_beyond_chance and (missing < calibration.cut.threshold).mean() > 0.9
    assert calibration.cut.level == 0.05 or alone > 0.04


@pytest.mark.parametrize("alone", [0, 0.05, 0.2])
@pytest.mark.parametrize("size", [30, 300])
def test_a_reference_drawn_as_the_training_prompts_are_lacks_nothing(alone, size):
    rng = np.random.default_rng(size)
    rows = [calibrate(similarities(rng, 100, alone), similarities(rng, size, alone)) for _ in range(100)]
    assert sum(each.cut.is_beyond_chance or each.elsewhere is not None for each in rows) <= 5


def test_where_only_high_thresholds_differ_nothing_can_be_said():
    """The reference is a little farther off as a whole: a threshold that half of the training prompts miss tells it."""
    rng = np.random.default_rng(0)
    among = rng.uniform(0.8, 0.95, 400)
    calibration = calibrate(among, rng.uniform(0.835, 0.88, 400))
    assert calibration.elsewhere is not None and not calibration.cut.is_beyond_chance
    few = calibrate(among, rng.uniform(0.8, 0.95, 12))
    assert not few.cut.is_beyond_chance and few.most_unseen > 0.2 > calibrate(among, rng.uniform(0.8, 0.95, 3000)).most_unseen


def test_rows_per_reference_prompt_is_the_median_of_clusters_that_hold_any():
    """rows / reference: 10/1, 30/2, 8/4 -> 10, 15, 2; the last cluster holds no reference prompt. Median 10."""
    assert rows_per_reference_prompt(np.array([10.0, 30, 8, 99]), np.array([1.0, 2, 4, 0])) == 10


def test_map_sample_keeps_every_cluster_and_the_proportions():
    of_text = np.repeat([0, 1, 2], [8000, 1990, 10])
    counts = np.bincount(of_text[map_sample(of_text, seed=0, size=1000)])
    assert counts.sum() == 1000
    assert abs(counts[0] - 800) <= 2 and abs(counts[1] - 199) <= 2 and counts[2] >= 1


def test_the_map_keeps_topics_apart_and_repeats():
    vectors, topic = blobs([30, 30], noise=0.1)
    place = map_prompts(vectors, seed=0)
    assert np.array_equal(place, map_prompts(vectors, seed=0))
    gap = np.linalg.norm(place[topic == 0].mean(axis=0) - place[topic == 1].mean(axis=0))
    spread = max(np.linalg.norm(place[topic == k] - place[topic == k].mean(axis=0), axis=1).mean() for k in (0, 1))
    assert gap > 2 * spread


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
def test_the_map_of_few_or_equal_prompts_is_finite(count):
    same = np.tile(blobs([1])[0], (count, 1))
    assert np.isfinite(map_prompts(same, seed=0)).all()
    assert np.isfinite(map_prompts(blobs([count])[0], seed=0)).all()


def test_the_fewest_clusters_that_are_as_tight():
    """Seen from training texts of two topics, texts of one new topic are one cluster, of three new topics three."""
    training, _ = blobs([60, 60, 0, 0, 0])
    model = cluster_texts(training, np.ones(120), clusters=2, seed=0)
    tight = tightness(training, np.ones(120), model)
    for sizes in ([0, 0, 40, 0, 0], [0, 0, 40, 30, 20]):
        new, topic = blobs(sizes)
        fitted = cluster_as_tight(new, np.ones(len(new)), model, 0.97 * tight, seed=0)
        assert len(fitted.centres) == len(set(topic))
