"""Verdicts find their rows again when the data was exported anew: by row_id, source_id, then text; what may mean two is set aside."""

from datetime import UTC, datetime

import polars as pl
import pytest

from ktodata.errors import DataError
from ktodata.feedback import feedback_table
from ktodata.formats.verdicts.matching import NO_ROW, OTHER_TEXT, SEVERAL, content_key, match_verdicts


def rows(*given):
    """(row_id, source_id, prompt, completion, label)"""
    names = ("row_id", "source_id", "prompt", "completion", "label")
    return feedback_table(*(dict(zip(names, row, strict=True)) for row in given))


DATA = rows(
    ("r1", "k1", "sky?", "Blue.", True),
    ("r2", "k2", "sky?", "Green.", False),
    ("r3", "k3", "sky?", "Blue.", False),  # the text of r1 once more
    ("r4", "k4", "code?", "if x:\n    y", True),
    ("r5", "k5", "code?", "if x:\ny", True),  # alike but for white space
    ("r6", "pair", "grass?", "Green.", True),
    ("r7", "pair", "grass?", "Red.", False),
    ("r8", None, "cafe\u0301?", "Oui.", True),
)


def verdicts(*given):
    names = ("row_id", "source_id", "prompt", "completion", "trusted_label")
    return pl.DataFrame(list(given), schema=dict.fromkeys(names[:4], pl.String) | {"trusted_label": pl.Boolean}, orient="row")


@pytest.mark.parametrize(
    ("verdict", "row_ids", "how"),
    [
        (("r2", None, None, None), ["r2"], "row_id"),
        (("r2", "k1", "sky?", "Blue."), ["r2"], "row_id"),  # the row_id stands before all else
        (("old", "k2", "sky?", "Green."), ["r2"], "source_id"),
        ((None, "k2", None, None), ["r2"], "source_id"),
        (("old", "pair", "grass?", "Red."), ["r7"], "source_id"),  # its text tells which side
        (("old", "other", "sky?", "Green."), ["r2"], "text"),
        (("old", "k2", "sky?", "Blue."), ["r1", "r3"], "text"),  # the id was given to another text since
        ((None, None, "  sky? ", "Blue.\r\n"), ["r1", "r3"], "text"),
        ((None, None, "caf\u00e9?", "Oui."), ["r8"], "text"),
    ],
)
def test_a_verdict_finds_its_rows(verdict, row_ids, how):
    matched = match_verdicts(verdicts((*verdict, True)), DATA)
    assert matched.verdicts["row_id"].to_list() == row_ids
    assert matched.verdicts["matched_by"].unique().to_list() == [how]
    assert matched.metrics["matched_by"] == {"row_id": 0, "source_id": 0, "text": 0} | {how: 1}
    assert matched.unmatched.is_empty()


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ((None, "pair", None, None), SEVERAL),
        ((None, None, "code?", "if x: y"), SEVERAL),
        (("gone", None, None, None), NO_ROW),
        (("gone", "k1", "sky?", "Purple."), OTHER_TEXT),
        ((None, None, "sky?", "Purple."), NO_ROW),
        ((None, None, "sky?", None), NO_ROW),
    ],
)
def test_what_may_mean_two_rows_or_none_is_set_aside(verdict, why):
    matched = match_verdicts(verdicts((*verdict, True), ("r1", None, None, None, True)), DATA)
    assert matched.unmatched["why"].to_list() == [why]
    metrics = matched.metrics
    assert metrics["ambiguous"] + metrics["unmatched"] == 1 and metrics["not_matched"][0]["why"] == why
    assert metrics["ambiguous"] == (why == SEVERAL)
    with pytest.raises(DataError, match="none of 1 verdicts"):
        match_verdicts(verdicts((*verdict, True)), DATA)


def settled(*given, **more):
    table = verdicts(*given).with_columns(**more)
    return match_verdicts(table, DATA).settled("trusted_label", DATA)


def test_a_text_on_which_verdicts_differ_is_contested_with_all_its_rows():
    """By text, by row_id, and by the row_ids of two rows of one text: a verdict is on the text."""
    by_text = (("old1", None, "sky?", "Blue.", True), ("old2", None, "sky?", "Blue.", False), ("r2", None, None, None, True))
    by_rows = (("r1", None, None, None, True), ("r3", None, None, None, False), ("r2", None, None, None, True))
    one_row = (("r1", None, None, None, True), ("r1", None, None, None, False), ("r2", None, None, None, True))
    for given in (by_text, by_rows, one_row):
        result = settled(*given)
        assert result.per_row.select("row_id", "trusted_label").rows() == [("r2", True)]
        assert set(result.differing["row_id"]) == {"r1", "r3"} and result.differing.height == 4
        assert result.metrics["people_differ"] == 2 and result.unmatched.is_empty()
        assert sum(result.metrics["matched_by"].values()) == 3


def test_of_each_reviewer_the_last_word_counts():
    day = [datetime(2026, 1, number, tzinfo=UTC) for number in (1, 3, 2)]
    given = [("r1", None, None, None, verdict) for verdict in (True, False, False)]
    result = settled(*given, reviewer=pl.Series(["ann", "ann", "bob"]), reviewed_at=pl.Series(day))
    assert result.per_row["trusted_label"].to_list() == [False] and result.metrics["replaced"] == 1
    result = settled(*given, reviewer=pl.Series(["ann", "ann", "bob"]), reviewed_at=pl.lit(None, pl.Datetime("us", "UTC")))
    assert result.per_row.is_empty() and result.metrics["people_differ"] == 2  # nobody knows which was the last


def test_a_verdict_on_the_row_itself_stands_before_one_on_its_text():
    result = settled(("old", None, "sky?", "Blue.", True), ("r1", None, None, None, True), ("x", None, "sky?", "Blue.", True))
    assert result.per_row.select("row_id", "matched_by").rows() == [("r3", "text"), ("r1", "row_id")]
    assert result.metrics["matched_by"] == {"row_id": 1, "source_id": 0, "text": 2} and result.unmatched.is_empty()
    assert settled(*[("r1", None, None, None, True)] * 2).per_row.height == 1


def test_counts_add_up_whatever_is_given():
    given = verdicts(*((f"r{n}", f"k{n}", "sky?", "Blue." if n % 2 else None, True) for n in range(12)))
    metrics = match_verdicts(given, DATA).settled("trusted_label", DATA).metrics
    assert sum(metrics["matched_by"].values()) + metrics["ambiguous"] + metrics["unmatched"] == given.height


def test_a_name_of_a_text_gives_nothing_of_it_away_and_reads_as_no_number():
    assert content_key("a b", "c") != content_key("a", "b c")
    assert content_key("a", "b").startswith("text-") and content_key("\ud800", "x") != content_key("", "x")
