"""What each label counts in the loss."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import polars as pl
import pytest
from tiny_models import text_rows, token_rows

from ktodata.errors import EmptyDataError, OneClassError, SettingError
from ktodata.train import fit
from ktodata.train.loss_weights import Balance, balance, check_flip_rates_fit, check_weights_fit


def rows_of(desirable, undesirable, *, weight=None, p_desirable=None):
    labels = [True] * desirable + [False] * undesirable
    rows = token_rows([[1]] * len(labels), [[2]] * len(labels), labels=labels)
    columns = {"weight": weight, "p_desirable": p_desirable}
    return dataclasses.replace(rows, **{name: np.array(values) for name, values in columns.items() if values is not None})


def weights(rows, desirable_weight=None, undesirable_weight=None, soft=False):
    weights_in_force = balance(rows, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight, soft=soft)
    return weights_in_force.desirable_weight, weights_in_force.undesirable_weight


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((6, 2), (1, 3)), ((2, 6), (3, 1)), ((4, 4), (1, 1))],
)
def test_with_none_given_the_rarer_label_is_raised_until_both_count_the_same(counts, expected):
    """6 x 1 = 2 x 3"""
    rows = rows_of(*counts)
    assert weights(rows) == expected
    assert balance(rows, desirable_weight=None, undesirable_weight=None, soft=False).ratio == 1


def test_a_row_counts_by_its_own_weight():
    """desirable 0.5 + 0.5 + 1 = 2, undesirable 8: 2 x 4 = 8 x 1"""
    assert weights(rows_of(3, 1, weight=[0.5, 0.5, 1, 8])) == (4, 1)


@pytest.mark.parametrize("rare_is_desirable", [True, False])
def test_a_row_of_the_rarer_label_counts_ten_of_the_other_at_most(rare_is_desirable):
    """1 : 500. Before, its weight was 500: of the 32 rows of an update it alone was 94 %."""
    rows = rows_of(1, 500) if rare_is_desirable else rows_of(500, 1)
    in_force = balance(rows, desirable_weight=None, undesirable_weight=None, soft=False)
    rarer = in_force.desirable_weight if rare_is_desirable else in_force.undesirable_weight
    assert (rarer, in_force.even_weight) == (10, 500)
    facts = in_force.as_dict(rows)
    assert (facts["class_weight_limit"], facts["held_back_from"], facts["within_paper_rule"]) == (10, 500, False)
    at_the_cap = balance(rows_of(1, 10), desirable_weight=None, undesirable_weight=None, soft=False)
    assert (at_the_cap.desirable_weight, at_the_cap.even_weight, at_the_cap.ratio) == (10, None, 1)
    assert weights(rows, 1.0, 500.0) == (1, 500)  # what somebody sets is taken


def test_what_rebalance_gave_counts_towards_the_ten():
    """1 : 500 with the weight of 10 that rebalance gave: 10 x 50 would be 500 again."""
    assert weights(rows_of(500, 1, weight=[1] * 500 + [10])) == (1, 1)
    assert weights(rows_of(500, 1, weight=[1] * 500 + [4])) == (1, 2.5)
    assert weights(rows_of(500, 1, weight=[1] * 500 + [40])) == (1, 1)  # nor is a row's own weight taken back


def test_the_cap_goes_by_the_heaviest_row_and_by_a_usual_one_of_the_other_label():
    assert weights(rows_of(32, 32, weight=[1] * 32 + [0] * 31 + [1])) == (1, 10)  # it was 32
    assert weights(rows_of(32, 32, weight=[1] * 32 + [500] + [1] * 31)) == (10, 1)  # 16.6


@pytest.mark.parametrize("settings", [{}, {"soft_labels": True}], ids=["weights", "soft"])
def test_a_training_in_which_one_label_or_none_counts_is_refused(model_folder, settings):
    """It ran to its end before: one label only, or loss 0."""
    rows = text_rows(12)
    if settings:
        one, none = (rows.with_columns(p_desirable=pl.lit(p)) for p in (0.9, 0.5))
    else:
        one, none = (rows.with_columns(weight=pl.when("label").then(kept).otherwise(0.0)) for kept in (1.0, 0.0))
    with pytest.raises(OneClassError, match="only desirable training rows count anything"):
        fit(one, model=model_folder, batch_size=6, device="cpu", **settings)
    with pytest.raises(EmptyDataError, match="no training row counts anything"):
        fit(none, model=model_folder, batch_size=6, device="cpu", **settings)


@pytest.mark.parametrize(("rate", "sound"), [(0.3, False), (0.0625, False), (0.05, True)])
@pytest.mark.parametrize("rare", ["desirable", "undesirable"])
def test_flip_rates_that_the_labels_contradict_are_refused(rare, rate, sound):
    """4 of 64: with 0.3 of the others flipped it would be 19 at least. It trained on, with -25 rows."""
    rows = rows_of(4, 60) if rare == "desirable" else rows_of(60, 4)
    other = "undesirable" if rare == "desirable" else "desirable"
    with (
        nullcontext() if sound else pytest.raises(SettingError, match=f"0.062 .* are labelled {rare}; .* {rate:.2g} would be by")
    ):
        check_flip_rates_fit(rows, {rare: 0.1, other: rate})
    check_flip_rates_fit(rows, {rare: 0.0, other: 0.0})


def test_updates_are_dealt_by_the_side_that_rows_are_pulled_to(model_folder):
    """8 of 64 rows are likelier undesirable, half are given so: one of 8 updates pulled one way only, and was counted as both."""
    rows = text_rows(64).with_columns(
        label=pl.int_range(64) % 2 == 0, p_desirable=pl.when(pl.int_range(64) % 8 == 1).then(0.05).otherwise(0.95)
    )
    soft = fit(rows, model=model_folder, batch_size=8, device="cpu", soft_labels=True)
    turned = soft.telemetry.join(rows.select("row_id", down=pl.col("p_desirable") < 0.5), on="row_id")
    assert turned.group_by("step").agg(pl.col("down").sum())["down"].to_list() == [1] * 8
    assert soft.metrics["plan"]["one_class_batches"] == 0
    unweighed = rows.with_columns(weight=pl.when(~pl.col("label") & (pl.int_range(64) % 8 != 1)).then(0.0).otherwise(1.0))
    weighed = fit(unweighed, model=model_folder, batch_size=8, device="cpu")
    assert weighed.metrics["plan"]["one_class_batches"] == 0


def test_no_row_owns_its_update(model_folder):
    """One undesirable row of 41: 10 of the 10 + 9 that a batch of 10 weighs; with its even weight 40 it would be 40 of 49."""
    rows = text_rows(41).with_columns(label=pl.int_range(41) != 7)
    settings = {"model": model_folder, "batch_size": 10, "device": "cpu", "learning_rate": 1e-6}
    result = fit(rows, **settings)
    by_step = result.telemetry.group_by("step").agg(
        loss=pl.col("loss").sum(), most=pl.col("loss").max(), rare=(~pl.col("label")).any()
    )
    (share,) = by_step.filter("rare").select(pl.col("most") / pl.col("loss")).to_series()
    assert share == pytest.approx(10 / 19, abs=0.01) or share == pytest.approx(10 / 17, abs=0.01)  # batches of 8 or 9, or 10
    assert result.metrics["balance"]["held_back_from"] == 40
    lonely = result.metrics["plan"]["one_class_batches"]
    assert lonely == len(result.history) - 1
    assert f"{lonely} of them with rows of one label only" in result._repr_html_()


def test_one_given_alone_leaves_the_other_at_1():
    rows = rows_of(6, 2)
    assert weights(rows, desirable_weight=0.5) == (0.5, 1)
    assert weights(rows, undesirable_weight=2.5) == (1, 2.5)
    assert weights(rows, desirable_weight=0.0) == (0, 1)


def test_both_given_are_taken_as_they_are():
    assert weights(rows_of(6, 2), 0.3, 0.7) == (0.3, 0.7)


def test_soft_labels_count_towards_the_likelier_label():
    """Three rows of p 0.75, 0.25, 0.25 pull up by 0.5 and down by 1, whatever their labels."""
    rows = rows_of(2, 1, p_desirable=[0.75, 0.25, 0.25])
    assert weights(rows, soft=True) == (2, 1)
    assert weights(rows, soft=False) == (1, 2)


def test_labels_are_counted_as_they_would_be_without_the_flips():
    """6 of 10 rows desirable; truly 8, of which a quarter was flipped: 8 x 0.75 = 6. So 8 x 1 = 2 x 4."""
    weights_in_force = balance(
        rows_of(6, 4),
        desirable_weight=None,
        undesirable_weight=None,
        soft=False,
        flip_rates={"desirable": 0.25, "undesirable": 0.0},
    )
    assert (weights_in_force.desirable, weights_in_force.undesirable) == pytest.approx((8, 2))
    assert (weights_in_force.desirable_weight, weights_in_force.undesirable_weight) == pytest.approx((1, 4))


DOUBT = pytest.mark.parametrize(
    ("doubt", "named"),
    [
        ({"soft": True, "flip_rates": None}, "soft_labels"),
        ({"soft": False, "flip_rates": {"desirable": 0.1, "undesirable": 0.1}}, "flip_rates"),
    ],
)


@DOUBT
def test_weights_by_a_label_that_is_doubted_are_refused(doubt, named):
    with pytest.raises(SettingError, match=f"4 desirable rows weigh 1 each, 2 undesirable ones 2: with {named} .*by: none"):
        check_weights_fit(rows_of(4, 2, weight=[1, 1, 1, 1, 2, 2]), **doubt)


@DOUBT
def test_weights_that_do_not_hang_on_the_label_are_not(doubt, named):
    for weight in ([3] * 6, [1, 2, 1, 2, 1, 2]):
        check_weights_fit(rows_of(4, 2, weight=weight), **doubt)
    check_weights_fit(rows_of(4, 2, weight=[1, 1, 1, 1, 2, 2]), soft=False, flip_rates=None)


@pytest.mark.parametrize("weight", [[1, 0], [0, 1], [0, 0]])
def test_a_label_that_counts_nothing_cannot_be_raised(weight):
    assert weights(rows_of(1, 1, weight=weight)) == (1, 1)


@pytest.mark.parametrize(
    ("weights_in_force", "ratio", "within"),
    [
        (Balance(4, 4, 1, 1), 1, True),
        (Balance(4, 3, 1, 1), 4 / 3, True),
        (Balance(4, 2.9, 1, 1), 4 / 2.9, False),
        (Balance(3.9, 4, 1, 1), 0.975, False),
        (Balance(8, 2, 0.5, 1.5), 4 / 3, True),
    ],
)
def test_the_papers_rule_is_checked_weights_included(weights_in_force, ratio, within):
    facts = weights_in_force.as_dict(rows_of(4, 3))
    assert facts["weighted_ratio"] == pytest.approx(ratio, abs=1e-4)
    assert facts["within_paper_rule"] is within
    assert ("within" if within else "outside") + " the paper's 1 to 4/3" in facts["sentence"]


def test_said_aloud():
    facts = balance(rows_of(6, 2), desirable_weight=1.5, undesirable_weight=None, soft=False).as_dict(rows_of(6, 2))
    assert facts["sentence"] == "desirable 6 x 1.5 : undesirable 2 x 1 = 4.50 (outside the paper's 1 to 4/3)"
    assert (facts["desirable"], facts["undesirable"]) == (6, 2)


def test_without_undesirable_rows_there_is_no_ratio():
    facts = Balance(4, 0, 1, 1).as_dict(rows_of(4, 0))
    assert facts["weighted_ratio"] is None
    assert facts["within_paper_rule"] is False


def test_a_training_says_and_takes_the_weights_in_force(model_folder):
    """text_rows(12): 8 desirable, 4 undesirable; before the first update each row's loss is half its weight, 1 or 2"""
    settings = {"batch_size": 12, "device": "cpu", "max_steps": 1}
    even = fit(text_rows(12), model=model_folder, **settings)
    assert (even.metrics["balance"]["desirable_weight"], even.metrics["balance"]["undesirable_weight"]) == (1, 2)
    losses = {label: table["loss"].to_list() for (label,), table in even.telemetry.group_by("label")}
    assert losses == {True: pytest.approx([0.5] * 8, abs=1e-5), False: pytest.approx([1.0] * 4, abs=1e-5)}
    given = fit(text_rows(12), model=model_folder, desirable_weight=1.0, **settings)
    assert given.history["loss"][0] == pytest.approx(0.5, abs=1e-5)
