"""The curve of flags by reviewed rows: which rows are flagged, tests/labels/people/test_calibration.py looks at."""

import numpy as np
import pytest

from ktodata.labels.classifier.reviewed_flags import ReviewedFlags


def flags(wrong_of_reviewed, reviewed=10):
    """100 rows, the first 40 with p_wrong 0.9 and flagged; of these `reviewed` were reviewed and so many were wrong."""
    place = np.arange(100)
    return ReviewedFlags(np.where(place < 40, 0.9, 0.1), place < reviewed, place < wrong_of_reviewed, place < 40)


def test_sound_reviewed_rows_inside_are_looked_at():
    curve = flags(5, 20).curve(np.ones(100, bool), given=True)
    at = curve.filter(rows_acted_on=curve["rows_acted_on"].max())
    assert at["expected_precision_high"][0] < 0.5 < curve["expected_precision"][0]


def test_the_curve_knows_the_depth_that_is_flagged_and_an_empty_class():
    at = flags(10).curve(np.ones(100, bool), given=True).filter(rows_acted_on=40)
    assert at["expected_precision"][0] == pytest.approx(0.9)
    assert 0.69 < at["expected_precision_low"][0] < 0.7  # 10 of 10: 0.025 ** (1 / 10)
    assert flags(10).curve(np.zeros(100, bool), given=False).is_empty()
