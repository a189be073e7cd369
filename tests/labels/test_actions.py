"""Each action's cost against brute force; p_wrong against flips that were made; a soft label is never worse than acting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktodata.labels.actions import DROP_FROM, RELABEL_FROM, costs, soft_labels, softening_shown, wrong_by_random_flips


def squared_error(pull, p_wrong):
    """E[(c - y)^2] / 4 of a label that is wrong with p_wrong, y = -1 then and +1 else."""
    return (p_wrong * (pull + 1) ** 2 + (1 - p_wrong) * (pull - 1) ** 2) / 4


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_costs_are_the_expected_squared_error_of_the_pull(values):
    """By the best estimate, whatever the low end says; with an interval of no width nothing that acts costs more than keeping."""
    p, low = np.array(values).T
    every, pulls = np.ones(len(p), bool), np.linspace(-1, 1, 2001)[:, None]
    found = costs(p, low, low, every)
    assert found.keep == pytest.approx(squared_error(1, p).mean())
    assert found.drop == pytest.approx(np.where(low > DROP_FROM, squared_error(0, p), squared_error(1, p)).mean())
    turned = low >= RELABEL_FROM
    assert found.relabel == pytest.approx(np.where(turned, squared_error(-1, p), squared_error(1, p)).mean())
    neither = np.where(low > DROP_FROM, squared_error(0, p), squared_error(1, p))
    assert found.drop_and_relabel == pytest.approx(np.where(turned, squared_error(-1, p), neither).mean())
    assert found.soften == pytest.approx(squared_error(1 - 2 * low, p).mean())
    sure = costs(p, p, p, every)
    assert sure.soften == pytest.approx(squared_error(pulls, p).min(axis=0).mean(), abs=1e-6)
    assert sure.soften <= sure.drop_and_relabel + 1e-12 <= sure.drop + 2e-12 <= sure.keep + 3e-12


def test_rows_of_unknown_p_cost_nothing_that_could_be_said():
    p = np.array([0.9, 0.2])
    assert costs(p, p, p, np.array([False, False])).as_dict()["rows"] == 0
    assert costs(p, p, p, np.array([False, True])).keep == pytest.approx(0.2)


def test_random_flips_are_given_their_probability():
    """Rows of known P(truly desirable), flipped by class at 30 % and 10 %: of rows told 0.6 wrong, 60 % are."""
    rng, n = np.random.default_rng(0), 200_000
    t = rng.beta(0.5, 0.5, n)
    truth = rng.random(n) < t
    a, b = 0.3, 0.1
    labels = truth ^ (rng.random(n) < np.where(truth, b, a))
    joint = np.array([[(~labels & ~truth).sum(), (~labels & truth).sum()], [(labels & ~truth).sum(), (labels & truth).sum()]])
    p = wrong_by_random_flips(t * (1 - b) + (1 - t) * a, labels, joint)
    for given_label in (False, True):
        for low in np.arange(0, 1, 0.1):
            here = (labels == given_label) & (p >= low) & (p < low + 0.1)
            if here.sum() > 500:
                assert (labels != truth)[here].mean() == pytest.approx(p[here].mean(), abs=0.03)


def test_a_soft_label_is_a_verdict_a_probability_or_the_label_as_given():
    labels = np.array([True, False, True, False])
    soft = soft_labels(
        labels,
        np.array([0.3, 0.3, 0.9, 0.9]),
        known=np.array([True, True, False, True]),
        reviewed=np.array([False, False, False, True]),
        truth=np.array([False, False, False, False]),
    )
    np.testing.assert_allclose(soft, [0.7, 0.3, 1.0, 0.0])


def test_what_soft_labels_take_away_by_hand():
    """Reviewed: of label 1 two wrong rows at 0.9 and two sound ones at 0.1; of label 0, one open row in five, two sound at 0."""
    softened = np.array([0.9, 0.9, 0.1, 0.1, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5])
    wrong, counts = np.arange(11) < 2, (np.arange(11) < 6).astype(float)
    labels = np.array([1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0], bool)
    shown = softening_shown(softened, wrong, counts, labels, np.arange(11) >= 6)
    assert shown.value == pytest.approx((2 * 0.99 - 2 * 0.01) / 4 / (2 / 4))
    assert shown.low < 0 < shown.high  # four rows, of which two gain
    assert softening_shown(softened, wrong & False, counts, labels, np.arange(11) >= 6).low is None
    assert softening_shown(softened, wrong, counts * labels, labels, np.arange(11) >= 6).low is None


def test_soft_labels_that_know_no_more_than_a_rate_are_rarely_shown_to_help_where_they_do_not():
    """A rate that is three times too high costs more than labels as given: 300 draws of 60 reviewed rows."""
    rng, shown = np.random.default_rng(0), []
    for _ in range(300):
        wrong, labels = rng.random(360) < 0.08, rng.random(360) < 0.5
        counts = (np.arange(360) < 60).astype(float)
        shown.append(softening_shown(np.full(360, 0.24), wrong, counts, labels, counts == 0).low or 0.0)
    assert np.mean(np.array(shown) > 0) <= 0.05
