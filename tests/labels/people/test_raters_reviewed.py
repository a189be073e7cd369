import numpy as np
import polars as pl
import pytest

from ktodata.labels.people.raters_reviewed import confusions_by_reviews


def test_rates_by_hand_and_only_from_the_random_draw():
    """ann is right on 4 of 5 desirable rows that were drawn; the row that was picked for looking odd does not count."""
    rows = pl.DataFrame({"row_id": list("abcdefg"), "trusted_label": [True] * 5 + [False] * 2, "drawn": [True] * 6 + [False]})
    rows = rows.with_columns(label=True, drawable=True)
    verdicts = [True, True, True, True, False, True, True]
    votes = pl.DataFrame({"row_id": list("abcdefg"), "rater": ["ann"] * 7, "verdict": verdicts})
    line = confusions_by_reviews(rows, votes).row(0, named=True)
    assert line["rater"] == "ann" and line["sensitivity"] == pytest.approx(0.8)
    assert line["sensitivity_low"] == pytest.approx(0.2836, abs=1e-3) and line["sensitivity_high"] == pytest.approx(
        0.9949, abs=1e-3
    )
    assert line["specificity"] is None, "one row is too few"


def test_the_rarer_label_is_drawn_more_often_and_counts_for_no_more():
    """Labels are the majority of three raters, 80 of 600 rows drawn: intervals hold the raters' rates as often as they should."""
    rng, held = np.random.default_rng(0), []
    for _ in range(30):
        truth = rng.random(600) < 0.75
        votes = np.array([np.where(rng.random(600) < skill, truth, ~truth) for skill in (0.75, 0.85, 0.65)])
        labels, chance = votes.sum(axis=0) >= 2, rng.random(600)
        drawn = chance < np.where(labels, 0.08, 0.3)
        rows = pl.DataFrame({"row_id": np.arange(600), "label": labels, "trusted_label": truth, "drawn": drawn, "drawable": True})
        cast = [pl.DataFrame({"row_id": np.arange(600), "rater": str(n), "verdict": each}) for n, each in enumerate(votes)]
        for line in confusions_by_reviews(rows, pl.concat(cast)).iter_rows(named=True):
            own = votes[int(line["rater"])]
            for name, side in (("sensitivity", truth), ("specificity", ~truth)):
                held.append(line[f"{name}_low"] <= (own == truth)[side].mean() <= line[f"{name}_high"])
    assert np.mean(held) > 0.92
