"""Rounds are judged by reviewed rows where there are enough, paired, and one helps only where its gain is clear of zero."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from ktodata.errors import DataError, OneClassError
from ktodata.evaluate.rounds import best_round, compare_rounds, ruler, standing_round, waited


def held_out(rows=300, seed=0):
    truth = np.random.default_rng(seed).random(rows) < 0.6
    table = pl.DataFrame(
        {"row_id": [f"r{n:03}" for n in range(rows)], "label": truth, "prompt_group": [f"g{n // 2}" for n in range(rows)]}
    )
    return table.with_columns(trusted_label=pl.lit(None, pl.Boolean))


def rewards(table, *strengths, seed=0):
    """Of each round: how strongly it sees the label, and each row's own luck, which all rounds share."""
    rng = np.random.default_rng(seed)
    luck = rng.normal(size=table.height)
    own = [luck + 0.2 * rng.normal(size=table.height) for _ in strengths]
    return [
        table.select("row_id", reward=pl.Series(force * table["label"].to_numpy() + gain))
        for force, gain in zip(strengths, own, strict=True)
    ]


def lines_of(*aucs, includes_zero=False):
    """Lines with these values, whose differences to round 0 include zero or not."""
    return [{"auc": {"value": auc}, "minus_round_0": {"includes_zero": includes_zero}} for auc in aucs]


def test_the_auc_is_the_plain_one_and_differences_are_paired():
    table = held_out()
    given = rewards(table, 0.5, 0.5, 1.0)
    lines = compare_rounds(given, ruler(table), resamples=400, seed=0)
    plain = [roc_auc_score(table["label"], table_of_round["reward"]) for table_of_round in given]
    assert [line["auc"]["value"] for line in lines] == pytest.approx(plain)
    assert lines[0]["minus_best"] is None and lines[0]["best_before"] is None
    same, better = lines[1]["minus_round_0"], lines[2]["minus_round_0"]
    assert same["includes_zero"] and not better["includes_zero"] and better["low"] > 0
    assert better["value"] == pytest.approx(plain[2] - plain[0])
    assert better["high"] - better["low"] < lines[2]["auc"]["high"] - lines[2]["auc"]["low"]  # what rounds share cancels


def test_a_round_is_set_against_the_best_before_it_not_the_last():
    table = held_out()
    lines = compare_rounds(rewards(table, 0.2, 1.0, 0.5, 1.5), ruler(table), resamples=100, seed=0)
    assert [line["best_before"] for line in lines] == [None, 0, 1, 1]
    assert lines[2]["minus_best"]["value"] < 0 < lines[2]["minus_round_0"]["value"]


def test_which_round_is_best_and_how_long_that_is_ago():
    assert best_round(lines_of(0.6, 0.7, 0.7)) == 1  # the earliest of equals
    assert [waited(lines_of(*aucs)) for aucs in ((0.6,), (0.6, 0.5), (0.6, 0.7, 0.7), (0.6, 0.5, 0.8))] == [0, 1, 1, 0]


def test_a_round_stands_only_where_its_gain_is_clear_of_zero():
    assert standing_round(lines_of(0.6, 0.7)) == 1
    assert standing_round(lines_of(0.6, 0.7, includes_zero=True)) == 0
    assert standing_round(lines_of(0.7, 0.6)) == 0


def test_reviewed_rows_judge_where_there_are_five_of_either_verdict():
    """The first ten rows are reviewed, against their labels; with four of one verdict the labels judge instead."""
    table = held_out()
    verdicts = [*[True] * 5, *[False] * 5]
    reviewed = table.with_columns(trusted_label=pl.Series([*verdicts, *[None] * 290]))
    by = ruler(reviewed)
    assert by.by == "reviewed labels" and dict(by.rows.select("row_id", "truth").iter_rows()) == {
        f"r{n:03}": verdict for n, verdict in enumerate(verdicts)
    }
    assert by.as_dict() == {"judged_by": "reviewed labels", "rows": 10, "desirable": 5, "prompt_groups": 5}
    fewer = ruler(reviewed.with_columns(trusted_label=pl.when(pl.col("row_id") != "r009").then("trusted_label")))
    assert fewer.by == "labels as given" and fewer.rows.height == 300


def test_what_cannot_be_judged_is_said():
    table = held_out()
    with pytest.raises(OneClassError, match=r"the 300 validation rows are all of one label.*Hold out more"):
        ruler(table.with_columns(label=True))
    first, second = rewards(table, 0.5, 0.5)
    with pytest.raises(DataError, match="round 1 lacks the rewards of 3 of 300 validation rows"):
        compare_rounds([first, second[3:]], ruler(table), resamples=100, seed=0)
    only_good = first.filter(table["label"])
    with pytest.raises(OneClassError, match="that the model scored are all of one label"):
        compare_rounds([only_good], ruler(table), resamples=100, seed=0)
