import numpy as np
import pytest

from ktodata.labels.classifier.noise_injection import (
    Recovery,
    auroc_of_real_errors,
    class_average,
    identifiability,
    inject_flips,
    recovery,
    rows_to_flag,
    trust_curve,
    two_levels,
)
from ktodata.stats import Interval, clopper_pearson


def test_flips_are_stratified_disjoint_and_only_where_asked():
    """100 desirable and 40 undesirable rows may be flipped, 60 more may not: 5% is 5 and 2 a time."""
    labels, rows = np.arange(200) < 130, (np.arange(200) < 100) | (np.arange(200) >= 160)
    planting = inject_flips(labels, rows, fraction=0.05, repeats=4, seed=0)
    assert (planting.flipped & labels[:, None]).sum(axis=0).tolist() == [5] * 4
    assert (planting.flipped & ~labels[:, None]).sum(axis=0).tolist() == [2] * 4
    assert planting.flipped.sum(axis=1).max() == 1
    assert not planting.flipped[~rows].any()
    assert ((planting.labels != labels[:, None]) == planting.flipped).all()


def test_more_repeats_than_rows_start_again():
    planting = inject_flips(np.arange(20) < 10, np.ones(20, bool), fraction=0.4, repeats=5, seed=0)
    assert planting.flipped.sum(axis=0).tolist() == [8] * 5


def test_recovery_by_hand():
    """Given desirable, unplanted p 0.9, 0.8, 0.3; one flip at 0.5: one of three looks more doubtful. AUROC 2/3."""
    labels = np.array([[True], [True], [True], [True], [False]])
    planting = type("P", (), {"labels": labels, "flipped": np.array([[False], [False], [False], [True], [False]])})()
    found = recovery(np.array([[0.9], [0.8], [0.3], [0.5], [0.1]]), planting, np.ones(5, bool), given=True)
    assert found.depths.tolist() == pytest.approx([1 / 3])
    assert found.per_repeat == 1


def scored(rows, plant_repeats=3, noise=(0.0, 0.0), spread=1.0, seed=0):
    """A perfect reader of two classes, `spread` of its log-odds; real noise (share of truly undesirable, of truly desirable)."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.5
    labels = truth ^ (rng.random(rows) < np.where(truth, noise[1], noise[0]))
    planting = inject_flips(labels, np.ones(rows, bool), fraction=0.05, repeats=plant_repeats, seed=seed)
    p = 1 / (1 + np.exp(-(np.where(truth, 3, -3) + spread * rng.standard_normal(rows))))
    return truth, labels, planting, p


def test_the_ranking_by_class_scores_a_half():
    _, _, planting, _ = scored(2000)
    by_class = np.where(planting.labels, 0.9, 0.1)
    average = class_average([recovery(by_class, planting, np.ones(2000, bool), given=given) for given in (False, True)])
    assert average.value == 0.5


def test_an_average_is_no_surer_than_its_less_known_class():
    """200 flips of one class and 2 of the other: the mean's interval is at least half as wide as that of the two flips."""
    many = Recovery(np.zeros(200), Interval(0.8, 0.75, 0.85), 200.0)
    few = Recovery(np.zeros(2), Interval(0.8, 0.16, 0.9), 2.0)
    average = class_average([many, few])
    assert average.value == pytest.approx(0.8) and average.low <= 0.8 - 0.32 and 0.85 <= average.high < 0.9
    assert class_average([many, many]).high < 0.84


def test_real_errors_hide_behind_real_noise_and_the_correction_finds_them():
    """30% of truly undesirable rows are called desirable: flips rank at about 0.85 among them, real errors at 1."""
    truth, labels, planting, p = scored(6000, noise=(0.3, 0.0))
    found = recovery(np.repeat(p[:, None], 3, axis=1), planting, np.ones(6000, bool), given=True)
    rates = (float((truth != labels)[labels].mean()), float((truth != labels)[~labels].mean()))
    assert found.auroc.value < 0.92
    assert auroc_of_real_errors(found, rates).value == pytest.approx(1, abs=0.03)
    assert identifiability(found, two_levels(p), rates) == "identifiable"


def test_expected_precision_holds_on_known_errors():
    truth, labels, planting, p = scored(6000, noise=(0.2, 0.1), spread=2.0)
    wrong = truth != labels
    for given in (False, True):
        in_class = labels == given
        found = recovery(np.repeat(p[:, None], 3, axis=1), planting, np.ones(6000, bool), given=given)
        rates = (float(wrong[in_class].mean()), float(wrong[~in_class].mean()))
        curve = trust_curve(found.depths, rows=int(in_class.sum()), error_rates=rates, given=given, basis="injected flips")
        count = rows_to_flag(curve, min_precision=0.8, most=int(in_class.sum()))
        quality = np.where(given, p, 1 - p)[in_class]
        precision = wrong[in_class][np.argsort(quality)[:count]].mean()
        assert count > 100
        assert precision >= 0.75
        expected = curve.filter(curve["rows_acted_on"] == count)["expected_precision"][0]
        assert precision == pytest.approx(expected, abs=0.1)


def test_a_curve_by_hand():
    """10 rows, half of the class wrong, four known errors in the first, first, second and fourth place from the bottom."""
    curve = trust_curve(np.array([0.1, 0.1, 0.2, 0.4]), rows=10, error_rates=(0.5, 0.0), given=True, basis="trusted rows")
    told = dict(curve.select("rows_acted_on", "recall").iter_rows())
    assert told == {1: 0.5, 2: 0.75, 3: 0.75, 4: 1.0, 5: 1.0}
    # 10 x 0.5 errors, 3 in 4 of them among the lowest three rows: more than 3, cut to all
    assert curve["expected_precision"].to_list() == [1, 1, 1, 1, 1]
    # low end of the recall: 4 of 4 is at least 0.025^(1/4) = 0.398, so 5 x 0.398 of 5 rows
    assert curve["expected_precision_low"][4] == pytest.approx(0.398, abs=1e-3)
    assert rows_to_flag(curve, min_precision=0.39, most=10) == 5
    # 3 of 4 is at least 0.194: 5 x 0.194 of 2 rows is 0.49, of 3 rows 0.32
    assert rows_to_flag(curve, min_precision=0.39, most=3) == 2
    assert rows_to_flag(curve, min_precision=0.99, most=10) == 0


@pytest.mark.parametrize(("spread", "levels"), [(0.01, (0.99, 1)), (8.0, (0.4, 0.9))])
def test_two_levels_and_a_heap(spread, levels):
    rng = np.random.default_rng(0)
    p = np.clip(0.5 + 0.1 * (np.sign(rng.standard_normal(5000)) + spread * rng.standard_normal(5000)), 0, 1)
    assert levels[0] <= two_levels(p) <= levels[1]


def test_a_normal_heap_has_two_levels_to_64_percent():
    """Split in the middle, 2 / pi = 0.637 of a normal's variance lies between the halves."""
    assert two_levels(np.random.default_rng(0).normal(0.5, 0.05, 200_000)) == pytest.approx(2 / np.pi, abs=0.005)


def test_few_flips_are_no_verdict():
    _, _, planting, p = scored(60, plant_repeats=1)
    found = recovery(p[:, None], planting, np.ones(60, bool), given=True)
    assert identifiability(found, 1.0, (0.0, 0.0)) == "not"


def test_flips_that_all_rank_below_are_no_surer_than_their_number_allows():
    """Ten flips told apart without a mistake: the share of such could still be 69 %, and not 100 to 100 %."""
    labels = np.arange(400) % 2 == 0
    injected = inject_flips(labels, np.ones(400, bool), fraction=0.05, repeats=1, seed=0)
    sure = np.where(labels, 0.9, 0.1)[:, None]
    recovered = recovery(sure, injected, np.ones(400, bool), given=True)
    assert recovered.auroc.value == 1.0 and recovered.auroc.high == 1.0
    assert recovered.auroc.low == pytest.approx(clopper_pearson(10, 10)[0])
