import numpy as np
import pytest
from scipy.stats import binom

from ktodata.stats import Interval, auroc, clopper_pearson, percent_span, placements, share, stratified_share


def test_clopper_pearson_by_hand_and_at_its_ends():
    """0 of 10: the upper end u solves (1 - u)^10 = 0.025, so u = 1 - 0.025^0.1 = 0.3085; 10 of 10 mirrors it."""
    low, high = clopper_pearson([0, 10, 0], [10, 10, 0])
    np.testing.assert_allclose(low, [0, 0.6915, 0], atol=1e-4)
    np.testing.assert_allclose(high, [0.3085, 1, 1], atol=1e-4)


def test_clopper_pearson_equals_scipys():
    from scipy.stats import binomtest

    for hits, trials in [(3, 17), (1, 2), (99, 100)]:
        theirs = binomtest(hits, trials).proportion_ci(0.95, "exact")
        assert share(hits, trials)[1:] == pytest.approx((theirs.low, theirs.high))


def test_share_of_nothing_is_unknown():
    assert share(0, 0) == (None, None, None)


@pytest.mark.parametrize(
    ("low", "high", "answer"), [(-0.1, 0.2, True), (0.0, 0.2, True), (0.1, 0.2, False), (-0.2, -0.1, False), (None, 0.2, None)]
)
def test_an_interval_says_whether_zero_is_in_it(low, high, answer):
    assert Interval(0.1, low, high).includes_zero is answer


@pytest.mark.parametrize(
    ("low", "high", "digits", "answer"),
    [
        (0.9996, 0.9999, 1, "99.96 to 99.99"),
        (0.0003, 0.05, 1, "0.03 to 5.00"),
        (0.0, 1.0, 1, "0.0 to 100.0"),
        (0.42, 0.997, 0, "42.0 to 99.7"),
    ],
)
def test_the_ends_of_a_share_are_rounded_alike(low, high, digits, answer):
    assert percent_span(low, high, digits) == f"{answer}\u2009%"


def test_no_interval_reads_the_other_way_round():
    rng = np.random.default_rng(0)
    near_an_end = rng.choice([0, 1], (500, 1)) + rng.choice([-1, 1], (500, 2)) * 10 ** rng.uniform(-6, 0, (500, 2))
    for low, high in np.sort(np.clip(near_an_end, 0, 1)):
        ends = [float(end) for end in percent_span(low, high)[:-2].split(" to ")]
        assert ends[0] <= ends[1]


def test_auroc_by_hand():
    """Low 1, 3 against high 2, 4: three of the four pairs are in order."""
    assert auroc([1, 3], [2, 4]).value == 0.75
    assert [side.tolist() for side in placements([1, 3], [2, 4])] == [[1, 0.5], [0.5, 1]]
    assert auroc([1, 1], [1, 1]).value == 0.5
    assert auroc([1], [2, 3]).value is None


def test_auroc_interval_holds_the_truth():
    """Normal scores one standard deviation apart: AUROC is Phi(1 / sqrt 2) = 0.7602. About 95 of 100 intervals hold it."""
    rng = np.random.default_rng(0)
    told = [auroc(rng.standard_normal(60), rng.standard_normal(90) + 1) for _ in range(200)]
    assert 180 <= sum(one.low <= 0.7602 <= one.high for one in told) <= 199


def test_a_stratified_share_of_one_stratum_or_of_equal_ones():
    """Clopper-Pearson's where there is one stratum; nearly so where equal strata are one."""
    assert stratified_share((3, 0), (40, 0), (100, 0)) == share(3, 40, of=100)
    low, high = clopper_pearson(2, 60)
    equal = stratified_share((1, 1), (30, 30), (300, 300))
    assert equal.value == pytest.approx(2 / 60) and equal.low == pytest.approx(low, abs=2e-3)
    assert equal.high == pytest.approx(high, abs=2e-3)
    open_part = stratified_share((3, 0), (40, 0), (100, 300))
    assert open_part.value is None and open_part.low < 0.02 and open_part.high > 0.75
    assert stratified_share((0, 0), (0, 0), (10, 10)) == (None, None, None)


@pytest.mark.parametrize(("trials", "sizes"), [((10, 5), (100, 900)), ((4, 9), (500, 500))])
def test_a_stratified_share_is_exact_under_every_pair_of_shares(trials, sizes):
    """Each outcome's chance by the product of two binomials: ends miss with 2.5 % at most to either side, whatever the shares."""
    outcomes = [(a, b) for a in range(trials[0] + 1) for b in range(trials[1] + 1)]
    ends = np.array([stratified_share(hits, trials, sizes)[1:] for hits in outcomes], float)
    for first in (0.01, 0.1, 0.3, 0.5, 0.9):
        for second in (0.02, 0.06, 0.2, 0.6):
            truth = (sizes[0] * first + sizes[1] * second) / sum(sizes)
            chance = np.array([binom.pmf(a, trials[0], first) * binom.pmf(b, trials[1], second) for a, b in outcomes])
            assert max(chance[ends[:, 0] > truth].sum(), chance[ends[:, 1] < truth].sum()) <= 0.025


def test_scores_that_never_differ_in_their_place_are_not_known_for_certain():
    """Six flips that all tie with the rest, or all lie below it, leave room on a side of chance, or under one."""
    tied, apart = auroc([1.0] * 6, [1.0] * 100), auroc([0.0] * 6, [1.0] * 100)
    assert tied.value == 0.5 and tied.low < 0.35 and tied.high > 0.65
    assert apart.value == apart.high == 1 and apart.low < 0.8
    assert auroc([0.0] * 600, [1.0] * 600).low > 0.98


def test_shares_that_a_stratum_refutes_do_not_widen_the_interval():
    """Over all pairs of shares it was 0.045 to 0.304: the widest had all errors where 1 of 20 was one."""
    ends = stratified_share((18, 1), (40, 20), (261, 958))
    assert ends == pytest.approx((0.1356, 0.069, 0.286), abs=1e-3)


def test_of_a_whole_that_was_counted_nothing_is_left_open():
    assert share(3, 40, of=40) == (0.075, 0.075, 0.075) == stratified_share((1, 2), (10, 30), (10, 30))
    assert share(3, 40, of=42) == (0.075, 3 / 42, 5 / 42)
    assert share(3, 40, of=10**6)[1:] == pytest.approx(share(3, 40)[1:])
    nearly = stratified_share((1, 2), (10, 30), (10, 32))
    assert nearly.low == pytest.approx(3 / 42) and nearly.high == pytest.approx(5 / 42)
