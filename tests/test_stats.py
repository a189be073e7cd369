import numpy as np
import pytest

from ktodata.stats import Interval, auroc, clopper_pearson, placements, share


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
