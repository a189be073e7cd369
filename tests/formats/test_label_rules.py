"""Labels are only what the recipe says, matched exactly, in type too."""

import pytest
import yaml

from ktodata.errors import LabelError, SettingError
from ktodata.formats import read

ROW = {"prompt": "sky?", "completion": "blue"}


def with_labels(*labels):
    return [{**ROW, "label": label} for label in labels]


def test_without_meanings_only_booleans_are_labels(lines):
    result = read(lines(*with_labels(True, False, "true", "-1", 1, 0, -1, 0.3, None, [], {})))
    assert result.feedback["label"].to_list() == [True, False]
    assert result.quarantine["line"].to_list() == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert set(result.quarantine.filter(line=9)["reason"]) == {"unlabelled"}
    assert set(result.quarantine.filter(result.quarantine["line"] != 9)["reason"]) == {"label_unmapped"}
    assert result.metrics["unmapped_labels"]["'-1'"] == 1
    assert result.metrics["unmapped_labels"]["-1"] == 1
    assert result.metrics["quarantined"] == {"label_unmapped": 8, "unlabelled": 1}


@pytest.mark.parametrize(
    ("recipe", "desirable"),
    [
        ("{1: true, 0: false}", 1),
        ("{'1': true, '0': false}", "1"),
        ("{true: true, false: false}", True),
        ("{1.0: true, 0: false}", 1.0),
        ("{up: true, down: false}", "up"),
    ],
)
def test_one_and_its_lookalikes_differ(recipe: str, desirable: object, lines):
    """1, "1" and true are equal or alike in Python and in YAML; each matches only itself. 1 and 1.0 are one number, as in JSON."""
    everything = (1, "1", True, 1.0, "up")
    result = read(lines(*with_labels(*everything)), label=yaml.safe_load(recipe))
    numbers = {int: float}
    matched = [
        i
        for i, value in enumerate(everything, start=1)
        if numbers.get(type(value), type(value)) is numbers.get(type(desirable), type(desirable)) and value == desirable
    ]
    assert result.feedback["source_line"].to_list() == matched


def test_pairs_tell_apart_what_a_mapping_cannot(lines):
    rule = {"column": "label", "values": [[1, True], [1.0, False], [True, False], ["1", True]]}
    result = read(lines(*with_labels(1, 1.0, True, "1", "1.0")), label=rule)
    assert result.feedback["label"].to_list() == [True, False, False, True]
    assert result.quarantine["reason"].to_list() == ["label_unmapped"]


def test_numbers_match_by_value_where_asked(lines):
    rule = {"column": "label", "by_number": True, 1: True, 0: False}
    result = read(lines(*with_labels(1, "1", "1.0", 0.0, "0", True, "one")), label=rule)
    assert result.feedback["label"].to_list() == [True, True, True, False, False]
    assert result.metrics["unmapped_labels"] == {"true": 1, "'one'": 1}


def test_a_band_between_two_thresholds_is_no_label(lines):
    rule = {"column": "label", "at_least": 4, "at_most": 2, "n/a": None}
    result = read(lines(*with_labels(5, "4,5", 4, 3, 2, "1.5", None, "", "n/a", "1,234")), label=rule)
    assert result.feedback["label"].to_list() == [True, True, True, False, False]
    assert result.metrics["quarantined"] == {"label_unmapped": 1, "unlabelled": 4}


@pytest.mark.parametrize(
    "bounds", [{"at_most": 2}, {"at_least": 2, "at_most": 4}, {"at_least": 4, "at_most": "2"}, {"values": 3}]
)
def test_bounds_that_cannot_be_meant(bounds, lines):
    with pytest.raises(SettingError):
        read(lines(*with_labels(1, 5)), label={"column": "label", **bounds})


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
    path = lines(
        {**ROW, "a": True, "b": False, "c": True},
        {**ROW, "a": True, "b": False, "c": None},
        {**ROW, "a": False},
        {**ROW, "a": None, "b": None, "c": None},
        {**ROW, "a": True, "b": "no", "c": True},
    )
    result = read(path, votes={"a": "ann", "b": "bob", "c": "cid"})
    assert result.feedback.select("source_line", "label").rows() == [(1, True), (3, False)]
    assert result.feedback["votes"].to_list()[0] == [
        {"rater": "ann", "label": True, "created_at": None},
        {"rater": "bob", "label": False, "created_at": None},
        {"rater": "cid", "label": True, "created_at": None},
    ]
    assert result.feedback["rater"].to_list() == [None, "ann"]  # who gave a single vote gave the label
    assert result.quarantine.select("line", "reason").rows() == [(2, "tied_votes"), (4, "unlabelled"), (5, "label_unmapped")]
    assert (result.metrics["votes"], result.metrics["raters"]) == (4, 3)


def test_a_label_column_goes_before_the_majority_and_is_a_vote_of_its_own(lines):
    path = lines({**ROW, "verdict": False, "a": True, "b": True, "who": "eve"})
    feedback = read(path, label="verdict", votes={"a": "ann", "b": "bob"}, rater="who").feedback
    assert feedback["label"].to_list() == [False]
    assert [(vote["rater"], vote["label"]) for vote in feedback["votes"].to_list()[0]] == [
        ("eve", False),
        ("ann", True),
        ("bob", True),
    ]
    again = read(path, label="a", votes={"a": "ann", "b": "bob"}).feedback  # named as a vote already: not counted twice
    assert again["votes"].list.len().to_list() == [2]


def test_votes_do_not_stand_in_for_a_label_that_was_asked_for(lines):
    path = lines(*({**ROW, **more, "a": True} for more in ({"verdict": True}, {"verdict": None}, {})))
    result = read(path, label="verdict", votes=["a"])
    assert result.feedback.height == 1
    assert result.quarantine.select("line", "reason").rows() == [(2, "unlabelled"), (3, "label_missing")]


def test_revotes_stay_separate_rows(lines):
    path = lines(*({**ROW, "label": label, "who": "ann", "at": at} for label, at in ((True, 1), (False, 2), (False, 2))))
    feedback = read(path, rater="who", created_at="at").feedback
    assert feedback["label"].to_list() == [True, False, False]
    assert feedback["row_id"].n_unique() == 3


def test_trusted_labels_are_read_with_the_meanings_of_the_label_and_as_booleans(lines):
    path = lines(*({**ROW, "thumb": "up", "expert": expert} for expert in ("down", True, None)), {**ROW, "thumb": "up"})
    feedback = read(path, label={"column": "thumb", "up": True, "down": False}, trusted="expert").feedback
    assert feedback["trusted_label"].to_list() == [False, True, None, None]


def test_no_usable_label_at_all_is_an_error_with_the_first_value_and_its_place(lines):
    with pytest.raises(LabelError) as caught:
        read(lines(*({**ROW, "thumb": thumb} for thumb in ("-1", "1", "1"))), label="thumb")
    text = str(caught.value)
    assert "column 'thumb': none of 3 records has a usable label" in text
    assert "the value '-1' is not one the recipe names, at thumbs.jsonl line 1" in text
    assert "label: {column: thumb, '1': true, '-1': false}" in text


def test_yes_and_no_without_quotes_in_yaml_are_pointed_out(lines):
    unquoted = yaml.safe_load("{column: label, yes: true, no: false}")
    with pytest.raises(LabelError, match="In YAML write 'yes' and 'no' in quotes"):
        read(lines(*with_labels("yes", "no")), label=unquoted)


def test_a_misspelt_label_column_is_answered_with_the_nearest(lines):
    with pytest.raises(LabelError, match=r"none of 1 records has a label .*Did you mean 'thumb'\?"):
        read(lines({**ROW, "thumb": True}), label="thum")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ({"column": "x", "up": 1}, "'up' is said to mean 1"),
        ({"column": "x", "up": True, "at_least": 4}, "at_least and a meaning for 'up'"),
        ({"column": "x", "at_least": True}, "at_least is a number"),
        ({"column": "x", "at_least": float("nan")}, "at_least is a number"),
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
        ({"votes": {"labl": "a", "label": "b"}}, "Did you mean 'label'"),
    ],
)
def test_settings_that_clash_or_name_what_is_not_there(settings, says: str, lines):
    with pytest.raises(SettingError, match=says):
        read(lines(*with_labels(True, False)), **settings)
