import numpy as np
import pytest

from ktodata.labels.classifier.reviewed_flags import reviewed_flags


def rows(wrong_of_reviewed, reviewed=10):
    """100 rows, the first 40 with p_wrong 0.9; of these `reviewed` were reviewed and so many were wrong."""
    p_wrong = np.where(np.arange(100) < 40, 0.9, 0.1)
    seen = np.arange(100) < reviewed
    return p_wrong, np.ones(100, bool), seen, np.arange(100) < wrong_of_reviewed


def test_flags_need_reviewed_rows_that_bear_them_out():
    """9 of 10 wrong: at least 0.66 with 90 % to one side, under 0.7; 10 of 10: at least 0.79. None reviewed: nothing is known."""
    assert reviewed_flags(*rows(10), min_precision=0.8).flagged.sum() == 40
    assert not reviewed_flags(*rows(9), min_precision=0.8).flagged.any()
    assert not reviewed_flags(*rows(0, 0), min_precision=0.8).flagged.any()


def test_sound_reviewed_rows_inside_are_looked_at():
    flags = reviewed_flags(*rows(5, 20), min_precision=0.8)
    assert not flags.flagged.any()
    curve = flags.curve(np.ones(100, bool), given=True)
    at = curve.filter(rows_acted_on=curve["rows_acted_on"].max())
    assert at["expected_precision_high"][0] < 0.5 < curve["expected_precision"][0]


def test_the_curve_knows_the_depth_that_is_flagged_and_an_empty_class():
    flags = reviewed_flags(*rows(10), min_precision=0.8)
    at = flags.curve(np.ones(100, bool), given=True).filter(rows_acted_on=40)
    assert at["expected_precision"][0] == pytest.approx(0.9)
    assert 0.69 < at["expected_precision_low"][0] < 0.7  # 10 of 10: 0.025 ** (1 / 10)
    assert flags.curve(np.zeros(100, bool), given=False).is_empty()
