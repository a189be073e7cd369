"""rebalance: the paper's weights by hand, rows dropped least trustworthy first, and what cannot be balanced said."""

import json

import polars as pl
import pytest

from ktodata.errors import MissingColumnError, OneClassError
from ktodata.feedback import feedback_table
from ktodata.stages.rebalance import kto_weights, rebalance


def rows(desirable, undesirable, **columns):
    table = feedback_table(*[(f"p{i}", f"c{i}", i < desirable) for i in range(desirable + undesirable)])
    return table.with_columns(state=pl.lit("keep"), **columns)


def quality(*values):
    return pl.Series("label_quality", values, dtype=pl.Float64)


def statuses(result):
    return {finding["code"]: finding["status"] for finding in result.metrics["findings"]}


@pytest.mark.parametrize(
    ("desirable", "undesirable", "target", "expected"),
    [
        (80, 20, 1.0, (1, 4)),  # 80 / (4 * 20) = 1
        (80, 20, 4 / 3, (1, 3)),  # 80 / (3 * 20) = 4/3
        (7, 93, 1.0, (93 / 7, 1)),  # 93/7 * 7 / 93 = 1
        (30, 60, 4 / 3, (8 / 3, 1)),  # 8/3 * 30 / 60 = 4/3
        (50, 50, 4 / 3, (1, 1)),  # inside [1, 4/3] already
        (40, 30, 1.0, (1, 1)),  # 4/3 is inside
        (99, 100, 1.0, (100 / 99, 1)),  # just outside
    ],
)
def test_weights_by_hand(desirable, undesirable, target, expected):
    weights = kto_weights(desirable, undesirable, target)
    assert weights == pytest.approx(expected)
    assert min(weights) == 1
    assert 1 - 1e-9 <= weights[0] * desirable / (weights[1] * undesirable) <= 4 / 3 + 1e-9


def test_every_row_gets_the_weight_of_its_label():
    result = rebalance(rows(8, 2))
    assert result.columns["weight"].to_list() == [1.0] * 8 + [4.0] * 2
    assert result.columns.schema["weight"] == pl.Float64
    assert result.actions() == {}
    assert (result.metrics["n_D"], result.metrics["n_U"], result.metrics["weighted_ratio"]) == (8, 2, 1.0)
    assert result.metrics["effective_rows"] == pytest.approx((8 + 8) ** 2 / (8 + 2 * 16))
    names = result.metrics["trainer_settings"]
    assert names["trl"] == {"desirable_weight": 1.0, "undesirable_weight": 4.0}
    assert names["llamafactory"] == {"kto_chosen_weight": 1.0, "kto_rejected_weight": 4.0}
    json.dumps(result.metrics)


def test_only_rows_that_will_be_trained_on_are_counted():
    """Trained on: rows 1-4 desirable, 5 relabelled to undesirable, 6 undesirable: 4 to 2. Held for review, dropped, held out: not."""
    table = rows(8, 2).with_columns(
        label=pl.Series([True] * 5 + [False] + [True] * 3 + [False]),
        state=pl.Series(["keep"] * 4 + ["relabel", "keep", "review", "drop", "keep", "keep"]),
        part=pl.Series(["train"] * 8 + ["validation", "test"]),
    )
    result = rebalance(table)
    assert (result.metrics["n_D"], result.metrics["n_U"], result.metrics["lambda_U"]) == (4, 2, 2.0)
    assert result.columns["weight"].to_list() == [1.0] * 4 + [2.0, 2.0] + [1.0] * 4


def test_drop_reaches_the_ratio_exactly_with_the_least_trustworthy_rows():
    """6 desirable to 3 undesirable, 1:1 asked for: the three desirable rows of lowest quality go; row 1 has an expert's verdict."""
    table = rows(6, 3, label_quality=quality(0.0, 0.9, 0.2, 0.8, 0.1, 0.3, 0, 0, 0)).with_columns(
        trusted_label=pl.Series([True] + [None] * 8)
    )
    result = rebalance(table, by="drop", ratio=1.0)
    assert result.actions() == dict.fromkeys(("3", "5", "6"), ("drop", "rebalance"))
    assert json.loads(result.decisions["evidence"][0]) == {"desirable": True, "label_quality": 0.2}
    assert set(result.columns["weight"]) == {1.0}
    assert (result.metrics["n_D"], result.metrics["n_U"]) == (3, 3)


def test_a_trusted_row_goes_only_when_nothing_else_is_left():
    table = rows(1, 3).with_columns(trusted_label=pl.Series([None, False, False, None]))
    actions = rebalance(table, by="drop").actions()
    assert "4" in actions and len(actions) == 2


def test_a_row_without_quality_goes_after_the_bad_and_before_the_good():
    table = rows(5, 3, label_quality=quality(0.1, 0.2, None, 0.9, 0.9, 0.5, 0.5, 0.5))
    assert set(rebalance(table, by="drop").actions()) == {"1", "2"}
    assert set(rebalance(table, by="drop", ratio=2 / 3).actions()) == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("ratio", "counts"), [(1.0, (20, 20)), (2.0, (40, 20)), (0.5, (10, 20)), (4.0, (80, 20)), (8.0, (80, 10)), (1000.0, (80, 1))]
)
def test_any_ratio_is_reached(ratio, counts):
    metrics = rebalance(rows(80, 20), by="drop", ratio=ratio).metrics
    assert (metrics["n_D"], metrics["n_U"]) == counts


def test_without_quality_the_draw_is_seeded_and_does_not_depend_on_the_order_of_rows():
    table = rows(30, 10)
    first = rebalance(table, by="drop", seed=1).decisions
    assert first.equals(rebalance(table.reverse(), by="drop", seed=1).decisions)
    assert not first.equals(rebalance(table, by="drop", seed=2).decisions)


def test_caps_take_the_least_trustworthy_of_each_cluster_before_the_weights():
    """Cluster 0 holds rows 1-4, cluster 1 rows 5-6, cap 2: the two worst of cluster 0 go; 2 desirable to 2 are left."""
    table = rows(4, 2, cluster=pl.Series([0, 0, 0, 0, 1, 1], dtype=pl.Int32), label_quality=quality(0.3, 0.9, 0.1, 0.8, 1, 1))
    result = rebalance(table, max_per_cluster=2)
    assert result.actions() == {"1": ("drop", "cluster_cap"), "3": ("drop", "cluster_cap")}
    assert json.loads(result.decisions["evidence"][0])["cluster_rows"] == 4
    assert (result.metrics["dropped_over_cap"], result.metrics["lambda_D"], result.metrics["lambda_U"]) == (2, 1.0, 1.0)


def test_caps_without_clusters_say_which_step_is_missing():
    with pytest.raises(MissingColumnError, match=r"max_per_cluster=5 needs column 'cluster'.*Put coverage before rebalance"):
        rebalance(rows(3, 3), max_per_cluster=5)


@pytest.mark.parametrize(
    ("desirable", "undesirable", "message"), [(3, 0, "all 3 are desirable"), (0, 2, "all 2 are undesirable")]
)
@pytest.mark.parametrize("by", ["weights", "drop", "none"])
def test_one_class_is_refused_with_what_to_do(desirable, undesirable, message, by):
    with pytest.raises(OneClassError, match=f"{message}.*check how ingest maps the label"):
        rebalance(rows(desirable, undesirable), by=by)


def test_where_the_other_class_is_is_said():
    """As after a draw whose verdicts all fell on one side: what was given as the other label is turned, or held."""
    feedback = rows(3, 3).sort("label").with_columns(state=pl.Series(["relabel", "review", "review", "keep", "keep", "keep"]))
    with pytest.raises(OneClassError, match=r"all 4 are desirable \(of those given as the other label 2 are held .* 1 is turned"):
        rebalance(feedback)


def test_no_rows_to_train_on_is_said_as_such():
    with pytest.raises(OneClassError, match="there are none"):
        rebalance(rows(2, 2).with_columns(state=pl.lit("review")))


@pytest.mark.parametrize(("desirable", "undesirable"), [(80, 20), (93, 7), (20, 80), (7, 93)])
def test_kd060_fires_at_80_20_and_93_7(desirable, undesirable):
    assert statuses(rebalance(rows(desirable, undesirable)))["KD060"] == "issue"


def test_kd060_is_silent_at_60_40():
    assert statuses(rebalance(rows(60, 40)))["KD060"] == "passed"


def test_kd061_fires_when_the_weighted_ratio_is_outside_the_papers_interval():
    assert statuses(rebalance(rows(80, 20), by="none"))["KD061"] == "issue"
    assert statuses(rebalance(rows(80, 20), by="drop", ratio=2.0))["KD061"] == "issue"
    assert statuses(rebalance(rows(80, 20), by="weights"))["KD061"] == "passed"


def test_kd062_fires_when_few_rows_weigh_more_than_ten_others():
    assert statuses(rebalance(rows(93, 7)))["KD062"] == "issue"
    assert statuses(rebalance(rows(80, 20)))["KD062"] == "passed"
    assert statuses(rebalance(rows(50, 50)))["KD062"] == "not_applicable"


def test_kd063_fires_when_more_than_half_of_the_rows_go():
    assert statuses(rebalance(rows(80, 20), by="drop"))["KD063"] == "issue"
    assert statuses(rebalance(rows(60, 40), by="drop"))["KD063"] == "passed"
    assert statuses(rebalance(rows(60, 40)))["KD063"] == "not_applicable"


def test_no_weight_is_over_the_cap_and_the_finding_says_what_it_holds_back():
    rows = pl.DataFrame({"row_id": [f"r{n}" for n in range(501)], "label": [n > 0 for n in range(501)]})
    rows = rows.with_columns(state=pl.lit("keep"))
    capped, free = rebalance(rows), rebalance(rows, max_weight=1000)
    assert capped.columns["weight"].max() == 10 and free.columns["weight"].max() == 500
    ratio = next(each for each in capped.metrics["findings"] if each["code"] == "KD061")
    assert "max_weight holds the weights back" in ratio["text"] and "by: weights" not in ratio["text"]
    finding = next(each for each in capped.metrics["findings"] if each["code"] == "KD062")
    assert finding["status"] == "issue" and "asks for 500.00, and max_weight holds it back" in finding["text"]


def test_a_cap_of_one_holds_every_weight_back_and_the_finding_says_so():
    finding = next(each for each in rebalance(rows(5, 95), max_weight=1).metrics["findings"] if each["code"] == "KD062")
    assert finding["status"] == "issue" and "No row is weighed up. The rule asks for 19.00, and max_weight" in finding["text"]
    assert statuses(rebalance(rows(50, 50), max_weight=1))["KD062"] == "not_applicable"


def test_a_cluster_below_the_cap_keeps_all_its_rows():
    """Five rows in cluster 0 and two in cluster 1, at most three of each: two go, both of cluster 0."""
    feedback = feedback_table(*((f"p{n}", "c", n % 2 == 0) for n in range(7)))
    feedback = feedback.with_columns(state=pl.lit("keep"), cluster=pl.Series([0] * 5 + [1] * 2, dtype=pl.Int32))
    dropped = rebalance(feedback, by="none", max_per_cluster=3).decisions["row_id"]
    assert len(dropped) == 2
    assert set(dropped) <= {"1", "2", "3", "4", "5"}
