"""Labels are only what the recipe says, matched exactly, in type too."""

import polars as pl
import pytest
import yaml

from ktodata.errors import LabelError, SettingError
from ktodata.formats import read
from ktodata.formats.inspection import inspect
from ktodata.labels.people.raters import krippendorff_alpha
from ktodata.report.sections.flow_section import reading_account
from ktodata.stages.dedupe import dedupe

ROW = {"prompt": "sky?", "completion": "blue"}
AS_BOOLEANS = {True: True, False: False}


def with_labels(*labels):
    return [{**ROW, "label": label} for label in labels]


def test_without_meanings_only_booleans_are_labels(lines):
    result = read(lines(*with_labels(True, False, "true", "-1", 1, 0, -1, 0.3, None, [], {})))
    assert result.feedback["label"].to_list() == [True, False]
    assert result.quarantine["line"].to_list() == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert set(result.quarantine.filter(line=9)["reason"]) == {"unlabelled"}
    assert set(result.quarantine.filter(result.quarantine["line"] != 9)["reason"]) == {"label_unmapped"}
    assert result.metrics["unmapped_labels"]["'-1'"] == 2  # and -1: one meaning would cover both
    assert result.metrics["quarantined"] == {"label_unmapped": 8, "unlabelled": 1}


@pytest.mark.parametrize(
    ("recipe", "read_lines"),
    [
        ("{1: true, 0: false}", [1, 2, 4, 5]),
        ("{'1': true, '0': false}", [1, 2, 4, 5]),
        ("{1.0: true, 0: false}", [1, 2, 4, 5]),
        ("{true: true, false: false}", [3, 6, 7]),
        ("{'TRUE': true, 'FALSE': false}", [3, 6, 7]),
        ("{up: true, down: false}", [8, 9]),
    ],
)
def test_a_meaning_holds_for_a_number_or_boolean_however_it_is_written(recipe: str, read_lines: list[int], lines):
    """1, "1" and 1.0 are one number and true, "TRUE" one boolean; 1 is not true, and a word is one however it is spelt."""
    everything = (1, "1", True, 1.0, " 1.0", "TRUE", "true ", "up", "Up")
    result = read(lines(*with_labels(*everything)), label=yaml.safe_load(recipe))
    assert result.feedback["source_line"].to_list() == read_lines


def test_values_without_a_meaning_are_listed_by_word(lines):
    """Also in the error that asks for meanings, with the count of those that it does not list."""
    answers = [
        " yes ",
        "yes",
        "YES",
        "1.0",
        "1",
        "\N{THUMBS UP SIGN}",
        "\N{THUMBS UP SIGN}\ufe0f",
        *(f"word {n}" for n in range(20)),
    ]
    path = lines(*with_labels(*answers, True))
    unmapped = read(path).metrics["unmapped_labels"]
    assert list(unmapped.items())[:4] == [("' yes '", 3), ("'1.0'", 2), ("'\N{THUMBS UP SIGN}'", 2), ("'word 0'", 1)]
    with pytest.raises(LabelError, match=r"'word 8': CHOOSE}.*One spelling of each is enough\. 12 more values in 12 records\."):
        read(path, label={"column": "label", "up": True})


def test_another_spelling_of_a_word_is_read_as_it_and_counted(lines):
    """Also where many are read at once; of two meanings that differ in spelling alone, none is a third spelling's."""
    answers = ["yes", "Yes", "no", " NO", "Yess", "N/A", "ya"] * 40
    rule = {"column": "label", "yes": True, "no": False, "n/a": None, "Ya": True, "YA": False}
    path = lines(*({**ROW, "label": answer, "human": answer.upper()} for answer in answers))
    result = read(path, label=rule, trusted={"column": "human", "yes": True, "no": False, "N/A": None, "YESS": None, "YA": None})
    assert result.feedback["label"].to_list() == [True, True, False, False] * 40
    assert result.feedback["trusted_label"].to_list() == result.feedback["label"].to_list()
    assert result.metrics["quarantined"] == {"label_unmapped": 80, "unlabelled": 40}
    assert result.metrics["respelt"] == {
        "label": {"'Yes' as 'yes'": 40, "' NO' as 'no'": 40},
        "trusted": {"'YES' as 'yes'": 80, "'NO' as 'no'": 40, "' NO' as 'no'": 40},
    }
    sentence = "values of label read as another spelling of the same word: 'Yes' as 'yes' 40, ' NO' as 'no' 40"
    assert sentence in repr(result) and sentence in reading_account(result.metrics).lines()
    draft = inspect(path).recipe()
    assert '80 records, "yes" 40 and "Yes" 40' in draft


def test_a_verdict_on_a_turn_is_counted_once(lines):
    turn = {"role": "assistant", "content": "Blue.", "thumb": "Up", "at": 1}
    label = {"column": "messages[].thumb", "up": True, "down": False}
    path = lines({"messages": [{"role": "user", "content": "Sky?"}, turn]})
    assert read(path, label=label, created_at="messages[].at").metrics["respelt"] == {"label": {"'Up' as 'up'": 1}}


def test_what_is_set_aside_goes_before_a_threshold_in_text_too(lines):
    result = read(lines(*with_labels("0", "5", "2")), label={"column": "label", "at_least": 3, 0: None})
    assert result.feedback.select("source_line", "label").rows() == [(2, True), (3, False)]


def test_two_meanings_of_one_number_say_nothing_of_a_third_way_to_write_it(lines):
    rule = {"column": "label", 1: True, "1": False}
    result = read(lines(*with_labels(1, "1", "1.0")), label=rule)
    assert result.feedback["label"].to_list() == [True, False]
    assert result.quarantine["detail"].to_list() == ["the value '1.0' has no meaning: it is given for 1, '1'"]


def test_pairs_tell_apart_what_a_mapping_cannot(lines):
    rule = {"column": "label", "values": [[1, True], [1.0, False], [True, False], ["1", True]]}
    result = read(lines(*with_labels(1, 1.0, True, "1", "1.0")), label=rule)
    assert result.feedback["label"].to_list() == [True, False, False, True]
    assert result.quarantine["reason"].to_list() == ["label_unmapped"]


def test_a_band_between_two_thresholds_is_no_label(lines):
    rule = {"column": "label", "at_least": 4, "undesirable_at_most": 2, "n/a": None}
    result = read(lines(*with_labels(5, "4,5", 4, 3, 2, "1.5", None, "", "n/a", "1,234")), label=rule)
    assert result.feedback["label"].to_list() == [True, True, True, False, False]
    assert result.metrics["quarantined"] == {"label_unmapped": 1, "unlabelled": 4}


def test_where_low_is_good_a_threshold_says_so(lines):
    grades = with_labels("1", 2, "2,5", 3, 5)
    assert read(lines(*grades), label={"desirable_at_most": 2}).feedback["label"].to_list() == [True, True, False, False, False]
    between = read(lines(*grades), label={"desirable_at_most": 2, "undesirable_at_least": 3})
    assert between.feedback.select("rating", "label").rows() == [(1, True), (2, True), (3, False), (5, False)]


@pytest.mark.parametrize(
    "bounds",
    [
        {"at_most": 2},
        {"at_least": 4, "at_most": 2},
        {"undesirable_at_most": 2},
        {"at_least": 4, "desirable_at_most": 2},
        {"at_least": 4, "undesirable_at_least": 5},
        {"at_least": 2, "undesirable_at_most": 4},
        {"desirable_at_most": 4, "undesirable_at_least": 2},
        {"at_least": 4, "undesirable_at_most": "2"},
        {"values": 3},
    ],
)
def test_bounds_that_cannot_be_meant(bounds, lines):
    with pytest.raises(SettingError) as caught:
        read(lines(*with_labels(1, 5)), label={"column": "label", **bounds})
    if str(caught.value).startswith("label: ") and "cannot be meant" in str(caught.value):
        assert all(f"{edge} (the " in str(caught.value) for edge in ("at_least", "desirable_at_most"))


def test_null_sets_a_value_aside_and_the_rest_is_unmapped(lines):
    label = {"column": "label", "up": True, "down": False, "meh": None}
    result = read(lines(*with_labels("up", "meh", "what", "down")), label=label)
    assert result.feedback["label"].to_list() == [True, False]
    assert result.quarantine.select("line", "reason").rows() == [(2, "unlabelled"), (3, "label_unmapped")]
    assert "'what'" in result.quarantine["detail"][1]


def test_a_threshold_takes_numbers_and_numbers_in_text_and_keeps_them(lines):
    result = read(lines(*with_labels(4.0, 3.9, "4.5", True, "high", None, 5)), label={"column": "label", "at_least": 4})
    assert result.feedback.select("label", "rating").rows() == [(True, 4.0), (False, 3.9), (True, 4.5), (True, 5.0)]
    assert result.quarantine.select("line", "reason").rows() == [(4, "label_unmapped"), (5, "label_unmapped"), (6, "unlabelled")]


def test_votes_become_one_row_with_a_majority_label(lines):
    """Even votes (line 2) are a row of each label, as in a file of one vote a record: `dedupe` holds both for a person."""
    path = lines(
        {**ROW, "a": True, "b": False, "c": True},
        {**ROW, "a": True, "b": False, "c": None},
        {**ROW, "a": False},
        {**ROW, "a": None, "b": None, "c": None},
        {**ROW, "a": True, "b": "no", "c": True},
    )
    result = read(path, label=AS_BOOLEANS, votes={"a": "ann", "b": "bob", "c": "cid"})
    assert result.feedback.select("source_line", "label").rows() == [(1, True), (2, True), (2, False), (3, False)]
    assert result.feedback["votes"].to_list()[0] == [
        {"rater": "ann", "label": True, "created_at": None},
        {"rater": "bob", "label": False, "created_at": None},
        {"rater": "cid", "label": True, "created_at": None},
    ]
    assert result.feedback["rater"].to_list() == [None, "ann", "bob", "ann"]  # who gave a single vote gave the label
    assert result.quarantine.select("line", "reason").rows() == [(4, "unlabelled"), (5, "label_unmapped")]
    assert [result.metrics[name] for name in ("votes", "raters", "even_votes")] == [6, 3, 1]
    assert "1 with even votes" in repr(result)


def test_votes_in_columns_and_one_a_record_end_the_same(lines):
    """Two raters of four texts, who agree on two, differ on one, and of whom one skips one: no disagreement goes unseen."""
    given = [(True, True), (True, False), (False, False), (True, None)]
    texts = [{"prompt": f"q{n}?", "completion": f"a{n}"} for n in range(len(given))]
    wide = read(
        lines(*({**row, "ann": a, "bob": b} for row, (a, b) in zip(texts, given, strict=True))),
        label=AS_BOOLEANS,
        votes=["ann", "bob"],
    )
    long = [
        {**row, "label": label, "who": who}
        for row, labels in zip(texts, given, strict=True)
        for who, label in zip(("ann", "bob"), labels, strict=True)
    ]
    tables = [wide.feedback, read(lines(*(row for row in long if row["label"] is not None)), rater="who").feedback]
    waits, votes, alphas = zip(*map(_after_dedupe, tables), strict=True)
    assert waits[0] == waits[1] == [("q1?", False), ("q1?", True)]
    assert votes[0] == votes[1]
    assert alphas[0] == alphas[1] < 1


def _after_dedupe(feedback):
    """(prompt, label) of the rows that are held; every vote on each text; the raters' agreement."""
    result = dedupe(feedback, near=None)
    rows = feedback.join(result.columns, on="row_id")
    held = rows.filter(pl.col("row_id").is_in(result.decisions.filter(pl.col("action") == "review")["row_id"].implode()))
    votes = rows.filter(pl.col("pooled_votes").is_not_null()).select("prompt", votes="pooled_votes").unique("prompt")
    votes = votes.explode("votes").select("prompt", pl.col("votes").struct.unnest()).sort("prompt", "rater")
    alpha = krippendorff_alpha(votes.select("rater", row_id="prompt", verdict="label"), draws=2).value
    return sorted(held.select("prompt", "label").rows()), votes.rows(), alpha


def test_a_label_column_goes_before_the_majority_and_is_a_vote_of_its_own(lines):
    path = lines({**ROW, "verdict": False, "a": True, "b": True, "who": "eve"})
    feedback = read(path, label={"column": "verdict", **AS_BOOLEANS}, votes={"a": "ann", "b": "bob"}, rater="who").feedback
    assert feedback["label"].to_list() == [False]
    assert [(vote["rater"], vote["label"]) for vote in feedback["votes"].to_list()[0]] == [
        ("eve", False),
        ("ann", True),
        ("bob", True),
    ]
    again = read(
        path, label={"column": "a", **AS_BOOLEANS}, votes={"a": "ann", "b": "bob"}
    ).feedback  # named as a vote already: not counted twice
    assert again["votes"].list.len().to_list() == [2]


def test_votes_do_not_stand_in_for_a_label_that_was_asked_for(lines):
    path = lines(*({**ROW, **more, "a": True} for more in ({"verdict": True}, {"verdict": None}, {})))
    result = read(path, label={"column": "verdict", **AS_BOOLEANS}, votes=["a"])
    assert result.feedback.height == 1
    assert result.quarantine.select("line", "reason").rows() == [(2, "unlabelled"), (3, "label_missing")]


def test_revotes_stay_separate_rows(lines):
    path = lines(*({**ROW, "label": label, "who": "ann", "at": at} for label, at in ((True, 1), (False, 2), (False, 2))))
    feedback = read(path, rater="who", created_at="at").feedback
    assert feedback["label"].to_list() == [True, False, False]
    assert feedback["row_id"].n_unique() == 3


def test_trusted_labels_are_read_with_the_meanings_of_the_label_alone(lines):
    """Beside `is_bad` an expert's true says the same as the label's; what true means beside "up" nobody has said."""
    path = lines(*({**ROW, "thumb": "up", "expert": expert} for expert in ("down", True, None)), {**ROW, "thumb": "up"})
    result = read(path, label={"column": "thumb", "up": True, "down": False}, trusted="expert")
    assert result.feedback["trusted_label"].to_list() == [False, None, None, None]
    assert result.metrics["unread_trusted"] == {"expert": {"true": 1}}
    for true, false in ((True, False), ("true", "false"), (1, 0), ("yes", "no")):
        rows = ({**ROW, "is_bad": value, "expert": value, "trusted_label": value is false} for value in (true, false))
        path, label = lines(*rows), {"column": "is_bad", true: False, false: True}
        assert read(path, label=label, trusted="expert").feedback["trusted_label"].to_list() == [False, True]
        own = read(path, label=label, trusted="trusted_label").feedback  # ktodata's own column: true is desirable
        assert own["trusted_label"].to_list() == [False, True]


def test_comparisons_that_say_0_and_1_alone_are_asked_about(lines):
    base = {"prompt": "Sky?", "response1": "Blue.", "response2": "Green."}
    zero_one, with_two = ([{**base, "preference": side} for side in sides] for sides in ((0, 1, 1), (0, 1, 2)))
    with pytest.raises(LabelError, match=r"1 comparisons say 0, 2 say 1 and none says 2.*0: CHOOSE, 1: CHOOSE"):
        read(lines(*zero_one))
    meant = {"column": "preference", 0: "first", 1: "second"}
    assert read(lines(*zero_one), label=meant).feedback["label"].to_list() == [True, False, False, True, False, True]
    assert read(lines(*with_two)).feedback["label"].to_list() == [True, False, False, True]


def test_no_value_of_a_column_that_a_setting_names_means_anything_by_itself(lines):
    """`flagged: true` is as often as not the bad one: neither its type nor its name says so."""
    flagged = [{**ROW, "flagged": value, "votes": [value]} for value in (True, False)] * 60  # read many at once, too
    with pytest.raises(
        LabelError, match=r"the value true has no meaning.*label: \{column: flagged, true: CHOOSE, false: CHOOSE\}"
    ):
        read(lines(*flagged), label="flagged")
    with pytest.raises(LabelError, match=r"label: \{true: CHOOSE, false: CHOOSE\}"):
        read(lines(*flagged), votes=["flagged"])
    sides = [{"q": "Sky?", "response_0": "Blue.", "response_1": "Green.", "better": side} for side in (0, 1)]
    with pytest.raises(LabelError, match=r"first, second, tie or null .* label: \{column: better, 0: CHOOSE, 1: CHOOSE\}"):
        read(lines(*sides), prompt="q", completion=["response_0", "response_1"], label="better", format="preference")


def test_a_trusted_value_without_a_meaning_costs_no_row_and_is_counted(lines):
    """A threshold gives a trusted column's values no meaning."""
    judged = [{**ROW, "score": 0.7, "human": human} for human in ("1", "0", None, "1")]
    label = {"column": "score", "at_least": 0.5}
    with pytest.raises(
        LabelError, match=r"'human': none of 3 verdicts has a meaning: '1' 2, '0' 1\..*human, '1': CHOOSE, '0': CHOOSE"
    ):
        read(lines(*judged), label=label, trusted="human")
    many = judged * 60  # read many at once, too
    meant = read(lines(*many), label=label, trusted={"column": "human", 1: True, 0: False})
    assert meant.feedback["trusted_label"].to_list()[:4] == [True, False, None, True]
    some = read(lines(*many, {**ROW, "score": 0.7, "human": "TRUE"}), label=label, trusted={"column": "human", True: True})
    assert some.feedback["trusted_label"].to_list() == [None] * 240 + [True]
    assert some.metrics["unread_trusted"] == {"human": {"'1'": 120, "'0'": 60}}
    assert "180 verdicts in trusted column 'human' without a meaning" in repr(some)


def test_no_usable_label_at_all_is_an_error_with_the_first_value_and_its_place(lines):
    with pytest.raises(LabelError) as caught:
        read(lines(*({**ROW, "thumb": thumb} for thumb in ("-1", "1", "1"))), label="thumb")
    text = str(caught.value)
    assert "column 'thumb': none of 3 records has a usable label" in text
    assert "the value '-1' has no meaning: none is given for any" in text and "at thumbs.jsonl line 1" in text
    assert "label: {column: thumb, '1': CHOOSE, '-1': CHOOSE}" in text


def test_a_refusal_never_gives_a_value_a_meaning_and_can_be_pasted(lines):
    values = ["it's", 'a "b"', "two\nlines", "👍", "no", 4]
    with pytest.raises(LabelError) as caught:
        read(lines(*({**ROW, "ok?": value} for value in values)), label={"column": "ok?"})
    pasted = yaml.safe_load(str(caught.value).partition("CHOOSE: label: ")[2].partition("; on the")[0])
    assert pasted == {"column": "ok?", **dict.fromkeys(values, "CHOOSE")}
    with pytest.raises(SettingError, match="CHOOSE"):
        read(lines(*with_labels(True)), label=pasted)


def test_where_most_have_an_unmapped_label_the_refusal_is_about_the_label(lines):
    """Also where others are without a prompt; and numbers that are ratings may be given an edge."""
    with pytest.raises(
        LabelError, match=r"none of 5 records can be used: label_unmapped 4, .*label: \{column: label, at_least: CHOOSE"
    ):
        read(lines(*with_labels(1, 2, 3, 4), {"prompt": 5, "completion": "c", "label": True}))


def test_yes_and_no_without_quotes_in_yaml_are_pointed_out(lines):
    unquoted = yaml.safe_load("{column: label, yes: true, no: false}")
    with pytest.raises(LabelError, match="In YAML write 'yes' and 'no' in quotes"):
        read(lines(*with_labels("yes", "no")), label=unquoted)


def test_a_misspelt_label_column_is_answered_with_the_nearest(lines):
    with pytest.raises(LabelError, match=r"none of 1 records has a column .*Did you mean 'thumb'\?"):
        read(lines({**ROW, "thumb": True}), label="thum")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ({"column": "x", "up": 1}, "'up' is said to mean 1"),
        ({"column": "x", "up": True, "at_least": 4}, "at_least and a meaning for 'up'"),
        ({"column": "x", "at_least": True}, "at_least is a number"),
        ({"column": "x", "at_least": float("nan")}, "at_least is a number"),
        ({"values": [[1, True], [1, False]]}, "1 is given two meanings"),
        ({"values": [[[1], True]]}, "no text, number"),
        ({"column": 3, "up": True}, "column must be the name of a column"),
        ({"a": "first", "b": True}, "cannot stand in one mapping"),
    ],
)
def test_settings_that_cannot_be_meant(label, says: str, lines):
    with pytest.raises(SettingError, match=says):
        read(lines(*with_labels(True)), label=label)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"format": "trll"}, "Did you mean 'trl'"),
        ({"format": "trl", "prompt": "q"}, "has its own columns"),
        ({"format": "trl", "completion": ["a", "b"]}, "has its own columns"),
        ({"format": "mapping", "completion": ["a", "b"]}, "are for format: preference"),
        ({"format": "preference", "label": {"a": True}}, "compares two completions"),
        ({"format": "helpsteer"}, "holds ratings"),
        ({"keep": ["source"]}, "original_source: source"),
        ({"keep": ["rating"], "label": {"column": "label", "at_least": 1}}, "'rating' is a column of the feedback table"),
        ({"rater": "anotator"}, "rater: no record has a column 'anotator'"),
        ({"votes": {"labl": "a", "label": "b"}, "label": AS_BOOLEANS}, "Did you mean 'label'"),
    ],
)
def test_settings_that_clash_or_name_what_is_not_there(settings, says: str, lines):
    with pytest.raises(SettingError, match=says):
        read(lines(*with_labels(True, False)), **settings)
