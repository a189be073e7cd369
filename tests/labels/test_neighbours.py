import numpy as np
import pytest

from ktodata.errors import EmptyDataError, OneClassError, ShapeError
from ktodata.labels.evidence import neighbours as module
from ktodata.labels.evidence.neighbours import nearest_rows, neighbour_agreement


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def all_of(count):
    return np.ones(count, bool)


def two_topics(rows=400, *, flipped=0.1, desirable=0.5, seed=0):
    """Good and bad completions lie apart; a share of labels is flipped. (vectors, labels, groups, flipped)."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < desirable
    vectors = rng.normal(size=(rows, 8)).astype(np.float32) * 0.3
    vectors[:, 0] += np.where(truth, 1, -1)
    wrong = rng.random(rows) < flipped
    return vectors, truth ^ wrong, np.arange(rows), wrong


def test_agreement_by_hand():
    """Row 0's nearest two are rows 1 and 2, in its direction: weights 1 and 1. base = 2/4, S = 2.
    p = (2 x 0.5 + 1) / (2 + 2) = 0.5: one neighbour of two agrees, as chance would have it -> 0.5
    row 3: opposite, weights 0: only the base rate is left -> 0.5
    row 1 (undesirable): neighbours 0 and 2, both desirable: p = (1 + 2) / 4 = 0.75 -> quality 0.25
    """
    vectors = angles(0, 0, 0, 180)
    labels = np.array([True, False, True, False])
    signal = neighbour_agreement(vectors, labels, np.arange(4), all_of(4), neighbours=2)
    np.testing.assert_allclose(signal.quality(labels), [0.5, 0.25, 0.5, 0.5])


def test_the_base_rate_is_no_evidence():
    """90 % desirable, labels at random: neither class looks doubtful as a whole (the raw share would say 0.9 and 0.1)."""
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(2000, 8)).astype(np.float32), rng.random(2000) < 0.9
    quality = neighbour_agreement(vectors, labels, np.arange(2000), all_of(2000)).quality(labels)
    assert abs(quality[labels].mean() - 0.5) < 0.1
    assert abs(quality[~labels].mean() - 0.5) < 0.1


@pytest.mark.parametrize("desirable", [0.5, 0.85])
def test_flipped_rows_rank_first_within_their_label(desirable):
    vectors, labels, groups, wrong = two_topics(desirable=desirable)
    quality = neighbour_agreement(vectors, labels, groups, all_of(400)).quality(labels)
    for given in (True, False):
        of_class = np.flatnonzero(labels == given)
        count = int(wrong[of_class].sum())
        first = of_class[np.argsort(quality[of_class])[:count]]
        assert wrong[first].mean() >= 0.9


def test_a_repeat_does_not_vouch_for_itself():
    """Ten copies of a flipped row, one group: alone they agree with each other, outside their group nobody agrees."""
    vectors, labels, groups, _ = two_topics(200, flipped=0)
    row = int(np.flatnonzero(labels)[0])
    copies = np.append(np.arange(200), np.full(10, row))
    labels = np.append(labels, np.zeros(10, bool))
    vouching = neighbour_agreement(vectors[copies], labels, np.arange(210), all_of(210), neighbours=9).quality(labels)[200:]
    fair = neighbour_agreement(vectors[copies], labels, groups[copies], all_of(210), neighbours=9).quality(labels)[200:]
    assert vouching.min() > 0.7
    assert fair.max() < 0.3


def test_held_out_rows_are_judged_but_do_not_judge():
    vectors = angles(0, 1, 2, 90, 91)
    train = np.array([True, True, False, True, True])
    found = nearest_rows(vectors, np.arange(5), train, neighbours=2)
    assert found.rows[2].tolist() == [1, 0]
    assert 2 not in found.rows


def test_nothing_is_said_of_rows_without_neighbours():
    vectors = np.vstack([angles(0, 10, 20), [[0, 0]], [[np.nan, 1]]]).astype(np.float32)
    labels = np.array([True, False, True, True, False])
    quality = neighbour_agreement(vectors, labels, np.arange(5), all_of(5)).quality(labels)
    assert np.isfinite(quality).tolist() == [True, True, True, False, False]
    alone = neighbour_agreement(angles(0, 5), np.array([True, False]), np.zeros(2, int), all_of(2))
    assert not alone.known.any()
    assert alone.metrics["rows_without_neighbours"] == 2


def test_nearest_rows_are_those_of_brute_force():
    rng = np.random.default_rng(1)
    vectors, groups = rng.normal(size=(1500, 6)).astype(np.float32), rng.integers(0, 300, 1500)
    train = rng.random(1500) < 0.9
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    similarity[groups[:, None] == groups] = -np.inf
    similarity[:, ~train] = -np.inf
    expected = np.argsort(-similarity, axis=1)[:, :7]
    assert (nearest_rows(vectors, groups, train, neighbours=7).rows == expected).mean() > 0.999


def test_cells_find_nearly_the_same_and_say_how_nearly(monkeypatch):
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(40, 16))
    vectors = (centres[rng.integers(0, 40, 6000)] + 0.3 * rng.normal(size=(6000, 16))).astype(np.float32)
    groups = np.arange(6000) // 2
    exact = nearest_rows(vectors, groups, all_of(6000), neighbours=10)
    monkeypatch.setattr(module, "EXACT_ROWS", 100)
    quick = nearest_rows(vectors, groups, all_of(6000), neighbours=10)
    again = nearest_rows(vectors, groups, all_of(6000), neighbours=10)
    assert (quick.rows == again.rows).all()
    assert not (groups[quick.rows] == groups[:, None]).any()
    hits = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(exact.rows, quick.rows, strict=True)])
    assert hits > 0.9
    assert abs(quick.metrics["recall"] - hits) < 0.05


def test_cells_cope_with_one_text_repeated(monkeypatch):
    monkeypatch.setattr(module, "EXACT_ROWS", 100)
    vectors = np.vstack([np.tile(angles(10), (3000, 1)), angles(*np.linspace(90, 180, 500))])
    found = nearest_rows(vectors, np.arange(3500), all_of(3500), neighbours=5)
    assert (found.rows >= 0).all()


def test_errors_say_what_is_wrong():
    vectors, labels = angles(0, 1, 2), np.array([True, False, True])
    with pytest.raises(ShapeError, match="vectors 3, labels 3, groups 2, train 3"):
        neighbour_agreement(vectors, labels, np.arange(2), all_of(3))
    with pytest.raises(EmptyDataError, match="none of 3 rows"):
        neighbour_agreement(vectors, labels, np.arange(3), np.zeros(3, bool))
    with pytest.raises(OneClassError, match="all 3 training rows are desirable"):
        neighbour_agreement(vectors, all_of(3), np.arange(3), all_of(3))
