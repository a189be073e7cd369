"""Another criterion makes labels wrong that a draw of reviews finds; where it finds too few, the answers differ."""

import numpy as np
import polars as pl
import pytest

from ktodata.labels.drift_reviewed import reviewed_groups
from ktodata.labels.people.drift import OTHERS, OVER_TIME
from ktodata.labels.people.review_queue import stratified


def rows(*, strict, drawn, seed=0, column="rater"):
    """600 rows, of which every third is ann's, who calls 41 of 100 that are desirable to others undesirable if she is strict."""
    rng = np.random.default_rng(seed)
    anns = np.arange(600) % 3 == 0
    truth = rng.random(600) < np.where(anns, 0.5, 0.9)
    labels = truth & ~(anns & (rng.random(600) < 0.41)) if strict else truth
    reviewed = np.zeros(600, bool)
    if drawn:
        reviewed[stratified(labels, ~reviewed, drawn, seed=seed)] = True
    table = {"label": labels, "wrong": reviewed & (labels != truth), "drawn": reviewed, "undecided": np.zeros(600, bool)}
    return pl.DataFrame(table | {column: np.where(anns, "ann", "bob")})


GROUP = {
    "value": "ann",
    "kind": "offset",
    "since": None,
    "effect_points": -0.41,
    "effect_points_low": -0.52,
    "effect_points_high": -0.35,
}


@pytest.mark.parametrize("column", ["rater", "source", "model", "script"])
@pytest.mark.parametrize("counterpart", [None, OTHERS, "bob"])
def test_draws_that_find_nothing_wrong_rule_another_criterion_out(column, counterpart):
    group = GROUP | {"column": column, "counterpart": counterpart}
    shown = reviewed_groups(group, rows(strict=False, drawn=90, column=column))
    assert shown["ruled_out"] and [wrong for wrong, _ in shown["reviewed"]] == [0, 0]
    assert not reviewed_groups(group, rows(strict=False, drawn=0, column=column))["ruled_out"]
    assert not reviewed_groups(group | {"kind": "inverted"}, rows(strict=False, drawn=90, column=column))["ruled_out"]
    assert not reviewed_groups(group | {"effect_points_high": 0.1}, rows(strict=False, drawn=90, column=column))["ruled_out"]


def test_another_criterion_is_ruled_out_in_one_draw_of_twenty_at_most():
    group = GROUP | {"column": "rater", "counterpart": None, "effect_points_low": -0.3, "effect_points_high": -0.2}
    out = [reviewed_groups(group, rows(strict=True, drawn=90, seed=seed))["ruled_out"] for seed in range(40)]
    assert np.mean(out) <= 0.05


def test_of_a_date_rows_before_stand_beside_those_after():
    table = rows(strict=False, drawn=90).with_columns(pl.Series(OVER_TIME, np.arange(600)))
    shown = reviewed_groups(GROUP | {"column": OVER_TIME, "counterpart": None, "since": 400}, table)
    assert sum(of for _, of in shown["reviewed"]) == 90 and shown["reviewed"][0][1] < shown["reviewed"][1][1]


def test_picked_rows_say_nothing_of_others():
    table = rows(strict=False, drawn=90)
    picked = table.with_columns(wrong=~pl.col("drawn"))
    assert reviewed_groups(GROUP | {"column": "rater", "counterpart": None}, picked)["ruled_out"]
