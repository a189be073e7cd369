"""Outcomes, the ledger, and the sum that must come out even."""

import polars as pl
import pytest

from ktodata.errors import RunError
from ktodata.feedback import feedback_table
from ktodata.ledger import StageDecisions, account, add_columns, labels_in_words, outcomes, write_up
from ktodata.stage import DECISION_SCHEMA, StageResult, decide, is_trained, trained_label

IDS = pl.Series(["a", "b", "c"])


def decisions(*lines):
    return pl.DataFrame(
        [(row, action, reason, "{}", None) for row, action, reason in lines], schema=DECISION_SCHEMA, orient="row"
    )


def states(*decided, part=None, split_follows=False):
    found = outcomes(IDS, decided, part=part, split_follows=split_follows)
    return {row["row_id"]: (row["state"], row["gone"]) for row in found.iter_rows(named=True)}


def test_the_strongest_action_holds():
    doubted = StageDecisions("label_noise", "train", decisions(("a", "review", "doubt"), ("b", "review", "doubt")))
    dropped = StageDecisions("rebalance", "train", decisions(("b", "drop", "ratio")))
    assert states(doubted, dropped) == {"a": ("review", False), "b": ("drop", True), "c": ("keep", False)}


def test_held_out_rows_keep_their_natural_mix():
    """b and c are held out: what label_noise says is for training only, what validate says is for all."""
    part = pl.DataFrame({"row_id": ["a", "b", "c"], "part": ["train", "test", "test"]})
    doubted = StageDecisions("label_noise", "train", decisions(("a", "drop", "doubt"), ("b", "drop", "doubt")))
    broken = StageDecisions("validate", "all", decisions(("c", "drop", "empty")))
    assert states(doubted, broken, part=part) == {"a": ("drop", True), "b": ("keep", False), "c": ("drop", True)}


def test_a_row_dropped_from_training_waits_for_a_later_split():
    doubted = StageDecisions("label_noise", "train", decisions(("a", "drop", "doubt")))
    assert states(doubted, split_follows=True)["a"] == ("drop", False)
    assert states(doubted, split_follows=False)["a"] == ("drop", True)


def test_the_ledger_ends_with_one_line_per_row():
    steps = [StageDecisions("dedupe", "all", decisions(("b", "drop", "repeat")))]
    final = outcomes(IDS, steps, part=None, split_follows=False)
    exported = pl.DataFrame({"row_id": ["a", "c"], "part": ["train", "train"]})
    ledger = write_up(steps, final, exported)
    assert ledger.select("row_id", "stage", "action", "reason").rows() == [
        ("b", "dedupe", "drop", "repeat"),
        ("a", "export", "keep", "sound"),
        ("b", "export", "drop", "repeat"),
        ("c", "export", "keep", "sound"),
    ]


def test_account_adds_up_and_refuses_when_it_does_not():
    held = [StageDecisions("dedupe", "all", decisions(("b", "review", "x")))]
    exported = pl.DataFrame({"row_id": ["a", "c"], "part": ["train", "test"]})
    ledger = write_up(held, outcomes(IDS, held, part=None, split_follows=False), exported)
    counts = account(ledger, IDS, exported, quarantined_records=4)
    assert counts == {
        "rows_in": 7, "quarantined": 4, "rows": 3, "kept": 2, "relabelled": 0, "dropped": 0, "review": 1, "test": 1, "train": 1,
    }  # fmt: skip
    others = [exported.head(1), pl.concat([exported, exported.head(1)])]
    of_b = ledger.filter(pl.col("stage") == "export", pl.col("row_id") == "b")
    for wrong in [*((ledger, IDS, rows) for rows in others), (pl.concat([ledger, of_b]), IDS, exported)]:
        with pytest.raises(RunError, match="do not add up"):
            account(*wrong, quarantined_records=4)
    with pytest.raises(RunError, match=r"with two outcomes or none: \['b', 'd'\]"):  # as many lines as rows
        account(pl.concat([ledger, of_b]), pl.Series([*IDS, "d"]), exported, quarantined_records=4)


def test_apply_joins_columns_and_leaves_dropped_rows_out():
    feedback = feedback_table(("a?", "a", True), ("b?", "b", False), ("c?", "c", True))
    first = StageResult(
        feedback.select("row_id", length=pl.col("prompt").str.len_chars()),
        decide(feedback, pl.col("row_id") == "2", action="drop", reason="x"),
    )
    second = StageResult(feedback.select("row_id"), decide(feedback, pl.col("row_id") == "3", action="review", reason="y"))
    once = add_columns(feedback, first)
    assert once.select("row_id", "length", "state").rows() == [("1", 2, "keep"), ("3", 2, "keep")]
    assert add_columns(once, second)["state"].to_list() == ["keep", "review"]
    assert add_columns(add_columns(once, second), first)["state"].to_list() == ["keep", "review"]


ANN = {"reviewer": "ann", "file": "reviews.csv"}
BY_P = {"stage": "label_noise", "action": "relabel", "reason": "surely_wrong", "evidence": {"p_wrong": 0.96, "p_wrong_low": 0.9}}


@pytest.mark.parametrize(
    ("end", "reason", "trusted", "verdict", "before", "exported", "why"),
    [
        ("keep", "sound", None, None, (), "desirable", "as it was read"),
        ("keep", "sound", True, ANN, (), "desirable", "as it was read"),
        (
            *("keep", "sound", False, ANN, (), "desirable"),
            "as it was read, though ann in reviews.csv says otherwise, which no step lets count",
        ),
        ("relabel", "trusted_disagrees", False, ANN, (), "undesirable", "turned, as ann in reviews.csv says so"),
        ("relabel", "trusted_disagrees", False, None, (), "undesirable", "turned, as the trusted label says so"),
        (
            *("relabel", "surely_wrong", None, None, (BY_P,), "undesirable"),
            "turned by label_noise: wrong with P 0.96, at least 0.90, by reviewed rows",
        ),
        ("review", "labels_disagree", None, None, (), None, "held for review: labels disagree"),
        (None, "", None, None, (), None, "export has not run"),
    ],
)
def test_a_row_says_which_label_is_exported_and_why(end, reason, trusted, verdict, before, exported, why):
    last = {"stage": "export", "action": end, "reason": reason, "evidence": {"decided_by": "label_noise"}}
    row = {"label": True, "trusted_label": trusted}
    words = labels_in_words(row, verdict, [*before, last] if end else [])
    assert words == {"read": "desirable", "exported": exported, "why": why}


def test_what_is_trained_on_and_with_which_label():
    states, parts = ["keep", "relabel", "review", "keep"], ["train", "train", "train", "test"]
    rows = pl.DataFrame({"state": states, "part": parts, "label": [True] * 4})
    trained = rows.with_columns(trained=is_trained(rows.columns), label=trained_label())
    assert trained["trained"].to_list() == [True, True, False, False]
    assert trained["label"].to_list() == [True, False, True, True]
    for known, expected in ((["state"], [True, True, False, True]), (["part"], [True, True, True, False]), ([], [True] * 4)):
        assert rows.with_columns(trained=is_trained(known))["trained"].to_list() == expected
