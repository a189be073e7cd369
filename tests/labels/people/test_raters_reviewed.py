import numpy as np
import polars as pl
import pytest

from ktodata.feedback import feedback_table
from ktodata.labels.label_rows import label_rows
from ktodata.labels.people.raters_reviewed import confusions_by_reviews
from ktodata.labels.people.weighed_votes import weigh_votes


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


@pytest.mark.parametrize("reviewed", [0, 200])
def test_agreement_gives_a_rate_and_reviewed_rows_an_interval(reviewed):
    """Raters who seem to err apart may be copiers of one of them: nothing that votes say bounds how often they are wrong."""
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    right = rng.random((600, 5)) < 0.85
    cast = [
        [{"rater": f"r{j}", "label": bool(t == ok), "created_at": None} for j, ok in enumerate(oks)]
        for t, oks in zip(truth, right, strict=True)
    ]
    rows = [{"prompt": f"p {n}", "completion": f"c {n}", "label": bool(truth[n]), "votes": votes} for n, votes in enumerate(cast)]
    verdict = pl.when(pl.int_range(pl.len()) < reviewed).then("label")
    feedback = feedback_table(*rows).with_columns(prompt_group="row_id", trusted_label=verdict)
    votes = weigh_votes(label_rows(feedback, neighbours=0, all_at_random=True, seed=0), seed=0)
    assert votes.independence.identified
    confusions = votes.tables()["confusions"]
    assert confusions["sensitivity"].is_between(0.7, 0.95).all()
    ends = confusions.select("sensitivity_low", "specificity_high").null_count().row(0)
    assert ends == ((0, 0) if reviewed else (5, 5)) and confusions["informativeness_low"].null_count() == 5
