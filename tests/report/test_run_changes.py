"""What is said of new rows' rates: that they differ, that they do not, or that the rows are too few to tell."""

import numpy as np
import pytest

from ktodata.report.run_changes import GroupChange, beyond_chance
from ktodata.report.shares import Share


def change(added: tuple[int, int], before: tuple[int, int], name: str = "") -> GroupChange:
    return GroupChange(name, Share(*added), Share(*before))


@pytest.mark.parametrize("new", [5, 13, 19])
def test_a_few_rows_that_all_go_the_other_way_differ(new):
    rows = change((0, new), (850, 1000))
    assert rows.is_testable(tests=1) and rows.differs(tests=1)


@pytest.mark.parametrize("new", [(0, 1), (1, 1), (0, 2), (2, 2)])
def test_rows_that_no_labels_could_tell_apart_are_too_few(new):
    assert not change(new, (70, 100)).is_testable(tests=1)


def test_enough_rows_that_are_alike_do_not_differ():
    rows = change((8, 12), (70, 100))
    assert rows.is_testable(tests=1) and not rows.differs(tests=1)


def test_groups_too_small_to_tell_cost_the_others_nothing():
    small = [change((1, 1), (7, 10), f"r{n}") for n in range(40)]
    assert change((5, 14), (70, 100)).differs(tests=1) and not change((5, 14), (70, 100)).differs(tests=41)
    assert [each.name for each in beyond_chance([*small, change((5, 14), (70, 100), "other")])] == ["other"]


def test_equal_rates_differ_in_one_draw_of_twenty_at_most():
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(300):
        sizes = rng.integers(1, 30, 12)
        groups = [change((int(rng.binomial(n, 0.7)), int(n)), (int(rng.binomial(60, 0.7)), 60)) for n in sizes]
        draws.append(bool(beyond_chance(groups)))
    assert np.mean(draws) <= 0.05
