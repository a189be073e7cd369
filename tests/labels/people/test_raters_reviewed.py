import polars as pl
import pytest

from ktodata.labels.people.raters_reviewed import confusions_by_reviews


def test_rates_by_hand_and_only_from_the_random_draw():
    """ann is right on 4 of 5 desirable rows that were drawn; the row that was picked for looking odd does not count."""
    rows = pl.DataFrame({"row_id": list("abcdefg"), "trusted_label": [True] * 5 + [False] * 2, "drawn": [True] * 6 + [False]})
    verdicts = [True, True, True, True, False, True, True]
    votes = pl.DataFrame({"row_id": list("abcdefg"), "rater": ["ann"] * 7, "verdict": verdicts})
    line = confusions_by_reviews(rows, votes).row(0, named=True)
    assert line["rater"] == "ann" and line["sensitivity"] == pytest.approx(0.8)
    assert line["sensitivity_low"] == pytest.approx(0.2836, abs=1e-3) and line["sensitivity_high"] == pytest.approx(
        0.9949, abs=1e-3
    )
    assert line["specificity"] is None, "one row is too few"
