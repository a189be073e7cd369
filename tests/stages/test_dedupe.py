"""dedupe on planted repeats, contradictions, near-duplicates and templates, and on real feedback."""

import gzip
import json
import re
from datetime import UTC, datetime
from operator import itemgetter

import numpy as np
import polars as pl
import pytest

from ktodata.errors import MissingColumnError, SettingError
from ktodata.feedback import VOTE, feedback_table
from ktodata.ledger import add_columns
from ktodata.stage import StageResult
from ktodata.stages.dedupe import ADDS, dedupe
from ktodata.stages.split import split

QUESTION = "how do I bake a good loaf of white bread at home in a small oven without a stone or a lid"
ANSWER = (
    "mix flour water salt and yeast, let the dough rest over night in a cool place, shape it the next morning and bake it"
    " in a hot pan until the crust is brown"
)
REFUSAL = "I am sorry, but I cannot help you with that, because it could do harm to you or to others around you."


def numbers(*texts: str) -> list[tuple[str, str, bool]]:
    return [(text, "yes", True) for text in texts]


def findings(result: StageResult) -> dict[str, str]:
    return {finding["code"]: finding["status"] for finding in result.metrics["findings"]}


def column(result: StageResult, name: str) -> dict[str, object]:
    return dict(result.columns.select("row_id", name).iter_rows())


def words_named(count: int) -> list[str]:
    """Different made-up words without digits."""
    return [
        f"{a}{b}{c}o" for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("ban", "dur", "fel", "gim", "kor", "lun", "mas", "nip")
    ][:count]


# exact repeats


def test_dedupe_drops_the_repeat_and_asks_about_the_contradiction():
    feedback = feedback_table(
        ("2+2?", "4", True),
        ("2+2?", "4", True),  # repeat
        ("sky?", "blue", True),  # contradicted by the next row
        ("sky?", "blue", False),
    )
    result = dedupe(feedback)
    assert result.actions() == {
        "2": ("drop", "repeat"),
        "3": ("review", "labels_disagree"),
        "4": ("review", "labels_disagree"),
    }
    assert column(result, "duplicate_of") == {"1": None, "2": "1", "3": None, "4": None}
    assert column(result, "contradicted") == {"1": False, "2": False, "3": True, "4": True}
    groups = column(result, "prompt_group")
    assert groups["1"] == groups["2"] != groups["3"] == groups["4"]


def test_no_row_is_lost_and_the_input_is_left_alone():
    feedback = feedback_table(*numbers("a", "a", "b", ""), ("", "", False), ("", "", True))
    before = feedback.clone()
    result = dedupe(feedback)
    assert result.columns["row_id"].to_list() == feedback["row_id"].to_list()
    assert result.columns.columns == ["row_id", *ADDS]
    assert result.columns.schema["pooled_votes"] == pl.List(VOTE)
    assert feedback.equals(before)


@pytest.mark.parametrize(
    ("text", "other", "settings", "same"),
    [
        ("two  words\n", "two words", {}, True),
        ("two  words", "two words", {"ignore_space": False}, False),
        ("Two words", "two words", {"ignore_space": False}, True),
        ("caf\u00e9", "cafe\u0301", {}, True),  # composed and decomposed
        ("Yes", "yes", {}, True),
        ("Yes", "yes", {"ignore_case": False}, False),
        ("Yes  no", "Yes no", {"ignore_case": False}, True),
        ("yes", "no", {}, False),
        ("a\0b", "a b", {}, False),
        # code is as it is written
        ("So:\n```\nif x:\n    y()\nz()\n```", "So:\n```\nif x:\n    y()\n    z()\n```", {}, False),
        ("```\nTrue\n```", "```\ntrue\n```", {}, False),
        ("So:  it\n```\nTrue\n``` End", "so: it\n```\nTrue\n```\n\nend", {}, True),
        ("~~~\nA\n~~~", "~~~\na\n~~~", {}, False),
        ("````\n```\nA\n```\nB\n````", "````\n```\nA\n```\nb\n````", {}, False),
        ("cut off ```\nA", "cut off ```\na", {}, False),
        ("```a``` Then Text", "```a``` then text", {}, True),
        ("a\x1fb", "a b", {}, False),
        ("a\x1fb ```a```", "a b ```a```", {}, False),  # and what is around it as where there is none
        ('<tool_call>open({"path": "/A"})</tool_call>', '<tool_call>open({"path": "/a"})</tool_call>', {}, False),
        # also where nothing fences it
        (
            "def f(x):\n    for y in x:\n        s += y\n        return s",
            "def f(x):\n    for y in x:\n        s += y\n    return s",
            {},
            False,
        ),
        ("for x in y:\n    True", "for x in y:\n    true", {}, False),
        ("a:\n  b: 1\nc: 2", "a:\n  b: 1\n  c: 2", {}, False),
        ("- a\n\t- b", "- a\n- b", {}, False),
        ("use `curl -O` here", "use `curl -o` here", {}, False),
        ("Use `curl\n-o` here", "use `curl -o`  here", {}, True),
        ("Both `a` Here\n```\nx\n``` Then `b`", "both `a` here\n```\nx\n``` then `b`", {}, True),
        (r"the $\Delta$ of it", r"the $\delta$ of it", {}, False),
        ("a laser of 5 MW", "a laser of 5 mW", {}, False),
        ("it has 10 MB free", "it has 10 Mb free", {}, False),
        ("It has 10\nMB free", "it has 10 MB free", {}, True),
        ("In 2020 There was", "in 2020 there was", {}, True),
        ("Prose that\nis set \n\nin lines.", "prose that is set in lines.", {}, True),
    ],
)
def test_what_equal_means(text, other, settings, same):
    for sides in ((("p", text), ("p", other)), ((text, "c"), (other, "c"))):
        result = dedupe(feedback_table(*((*side, True) for side in sides)), near=None, **settings)
        assert result.metrics["repeats"] == int(same)


def test_answers_that_differ_in_code_or_in_a_call_are_no_near_repeats():
    """All their words are the same, or nearly all."""
    code = ANSWER + "\n```\nfor loaf in oven:\n    bake(loaf)\n{}eat(loaf)\n```"
    waves = ANSWER + "\n~~~\n{}(loaf)\n~~~\nand so on"
    unfenced = ANSWER + "\n\n    {}(loaf)\n\nand so on"
    call = ANSWER + '\n<tool_call>bake({{"bread": "{}"}})</tool_call>'
    verbs = ("bake", "eat")
    for text, values in ((code, ("    ", "")), (call, ("white", "black")), (waves, verbs), (unfenced, verbs)):
        rows = [(QUESTION, text.format(value), True) for value in values]
        assert dedupe(feedback_table(*rows)).actions() == {}
    assert dedupe(feedback_table((QUESTION, ANSWER, True), (QUESTION, f"{ANSWER} well", True))).metrics["near_repeats"] == 1


def test_programs_with_the_same_words_and_opposite_labels_are_both_kept_and_listed():
    """They are no one text with both labels, and no near repeats; prompts that differ only so stay on one side of a split."""
    programs = "for x in y:\n    s += x\n    return s", "for x in y:\n    s += x\nreturn s"
    rows = [(QUESTION, text, up) for text, up in zip(programs, (False, True), strict=True)]
    opposed = dedupe(feedback_table(*rows, *(row for row in rows)))
    assert opposed.actions() == {"3": ("drop", "repeat"), "4": ("drop", "repeat")}
    assert opposed.tables["near_contradictions"].height == 1 and opposed.metrics["contradicted_texts"] == 0
    prompts = dedupe(feedback_table(*((f"{QUESTION}\n{text}", ANSWER, True) for text in programs)))
    assert prompts.actions() == {} and len(set(column(prompts, "prompt_group").values())) == 1


def test_texts_of_three_words_keep_the_first_of_each():
    """A tool for long texts lost all three, another all but one."""
    result = dedupe(feedback_table(("p", "cat", True), ("p", "dog", True), ("p", "cat", True)))
    assert result.actions() == {"3": ("drop", "repeat")}


def test_the_best_evidenced_row_is_kept():
    vote = {"rater": "a", "label": True, "created_at": None}
    feedback = feedback_table(
        {"prompt": "p", "completion": "one vote", "label": True},
        {"prompt": "p", "completion": "one vote", "label": True, "votes": [vote, vote]},  # most votes
        {"prompt": "p", "completion": "trusted", "label": True},
        {"prompt": "p", "completion": "trusted", "label": True, "trusted_label": False},  # a verdict is no reason to stay
        {"prompt": "p", "completion": "doubted", "label": True, "votes": [vote, vote]},
        {"prompt": "p", "completion": "doubted", "label": True},  # the only one not doubted before
    )
    feedback = feedback.with_columns(state=pl.Series(["keep", "keep", "keep", "keep", "review", "keep"]))
    assert column(dedupe(feedback), "duplicate_of") == {"1": "2", "2": None, "3": None, "4": "3", "5": "6", "6": None}


def test_a_verdict_on_a_repeat_is_known_of_the_row_that_stays():
    """A trusted label is about the text. Rows 2, 4 and 9 stay for their votes, 6 is overruled; 10 is a near repeat of 11."""
    vote = {"rater": "a", "label": True, "created_at": None}
    twice = {"label": True, "votes": [vote, vote]}
    feedback = feedback_table(
        {"prompt": "p", "completion": "judged", "label": True, "trusted_label": False},
        {"prompt": "p", "completion": "Judged", **twice},
        {"prompt": "p", "completion": "differ", "label": True, "trusted_label": False},
        {"prompt": "p", "completion": "differ", **twice, "trusted_label": True},
        {"prompt": "p", "completion": "both", "label": False, "trusted_label": False},
        {"prompt": "p", "completion": "both", "label": True},
        {"prompt": "p", "completion": "open", "label": True, "trusted_label": True},
        {"prompt": "p", "completion": "open", "label": True, "trusted_label": False},
        {"prompt": "p", "completion": "open", **twice},
        {"prompt": QUESTION, "completion": f"{ANSWER} well", "label": True, "trusted_label": False},
        {"prompt": QUESTION, "completion": ANSWER, **twice},
    )
    result = dedupe(feedback)
    assert column(result, "duplicate_of")["10"] == "11"
    known = column(result, "trusted_label")
    assert {row: known[row] for row in ("2", "4", "6", "9", "11")} == {"2": False, "4": True, "6": False, "9": None, "11": None}
    metrics = {"rows": 7, "from_same_text": 1, "lost_with_near_repeats": 1, "overruled": 1, "texts_with_both": 2}
    assert result.metrics["trusted"] == metrics
    assert findings(result)["KD029"] == "issue"
    assert findings(dedupe(feedback.head(2)))["KD029"] == "passed"
    assert findings(dedupe(feedback.drop("trusted_label")))["KD029"] == "not_applicable"


def test_a_trusted_label_settles_a_text_with_both_labels():
    """Of the rows that say otherwise one could be relabelled, but then the text would stand there twice."""
    feedback = feedback_table(
        {"prompt": "p", "completion": "settled", "label": True, "trusted_label": False},
        {"prompt": "p", "completion": "settled", "label": False},
        {"prompt": "p", "completion": "Settled", "label": True},
        {"prompt": "p", "completion": "Settled", "label": False},
        {"prompt": "p", "completion": "open", "label": True},
        {"prompt": "p", "completion": "open", "label": False},
        {"prompt": "p", "completion": "no one's", "label": True, "trusted_label": True},
        {"prompt": "p", "completion": "no one's", "label": False, "trusted_label": False},
    )
    result = dedupe(feedback)
    assert result.actions() == {
        "1": ("review", "overruled"),
        **dict.fromkeys("34", ("drop", "repeat")),
        **dict.fromkeys("5678", ("review", "labels_disagree")),
    }
    assert column(result, "duplicate_of") | {"1": "2", "3": "1", "4": "2"} == column(result, "duplicate_of")
    assert column(result, "trusted_label")["2"] is False and column(result, "contradicted")["2"] is False
    assert len(column(result, "pooled_votes")["2"]) == 2  # one of either label: further ones may be copies
    assert (
        result.metrics["held_for_review"] == 4 and result.metrics["repeats"] == 2 and result.metrics["trusted"]["overruled"] == 1
    )


@pytest.mark.parametrize("verdict", [None, True, False])
def test_the_same_rows_go_with_a_verdict_and_without_so_that_a_split_stays_as_it_was(verdict):
    """A near text, and repeats of either label of a text on which raters are divided; somebody has judged the third row."""
    well = {"prompt": QUESTION, "completion": f"{ANSWER} well"}
    near = {"prompt": QUESTION, "completion": ANSWER, "label": True}
    feedback = feedback_table(near, *(well | {"label": label} for label in (True, False, True, False)))
    judged = feedback.with_columns(trusted_label=pl.when(pl.col("row_id") == "3").then(pl.lit(verdict, pl.Boolean)))
    actions = dedupe(judged).actions()
    assert [row_id for row_id, (action, _) in actions.items() if action == "drop"] == ["4", "5"]
    assert {row_id for row_id, (_, reason) in actions.items() if reason == "overruled"} == {True: {"3"}, False: {"2"}}.get(
        verdict, set()
    )


def test_sixty_verdicts_drop_no_other_row_and_move_none_between_parts():
    """Repeats with one label and with both, by several raters, judged at random; without the verdicts the same rows stay."""
    chance = np.random.default_rng(7)
    rows = [
        {"prompt": f"How do I grow plant {number % 30}?", "completion": f"Water kind {number % 40}.", "rater": f"r{number % 7}"}
        | {"label": bool(chance.random() < 0.6), "created_at": None}
        for number in range(400)
    ]
    feedback = feedback_table(*rows)
    trusted = [None] * feedback.height
    for place in chance.choice(feedback.height, 60, replace=False):
        trusted[place] = bool(chance.random() < 0.5)
    judged = feedback.with_columns(trusted_label=pl.Series(trusted))
    parts, dropped, states = [], [], []
    for table in (feedback, judged):
        actions = dedupe(table, near=None).actions()
        dropped.append({row for row, (action, _) in actions.items() if action == "drop"})
        states.append({row: action for row, (action, _) in actions.items()})
        left = add_columns(table, dedupe(table, near=None)).filter(~pl.col("row_id").is_in(dropped[-1]))
        parts.append(split(left, validation=0.1, test=0.2).columns.sort("row_id"))
    assert dropped[0] == dropped[1] and parts[0].equals(parts[1])
    assert states[0] != states[1]  # the verdicts were of texts with both labels, too


def test_a_row_that_cannot_stand_for_its_text_overrules_nothing():
    """The row that agrees with the verdict is of no use, so the other stays: label_noise gives it the trusted label."""
    feedback = feedback_table(
        {"prompt": "p", "completion": "text", "label": True, "trusted_label": False},
        {"prompt": "p", "completion": "text", "label": False},
    ).with_columns(state=pl.when(pl.col("row_id") == "2").then(pl.lit("drop")).otherwise(pl.lit("keep")))
    result = dedupe(feedback)
    assert "1" not in result.actions() and column(result, "contradicted") == {"1": False, "2": False}


def test_the_kept_rows_hold_the_last_vote_of_everybody():
    may, june = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    feedback = feedback_table(
        {"prompt": "p", "completion": "c", "label": True, "rater": "ann", "created_at": may},
        {"prompt": "p", "completion": "C", "label": True, "rater": "bob", "created_at": june},
        {"prompt": "p", "completion": "c", "label": False, "rater": "ann", "created_at": june},  # she changed her mind
        {"prompt": "p", "completion": "other", "label": True, "rater": "eve", "created_at": may},
    )
    pooled = column(dedupe(feedback), "pooled_votes")
    everybody = [
        {"rater": "bob", "label": True, "created_at": june},
        {"rater": "ann", "label": False, "created_at": june},
    ]
    assert pooled == {"1": None, "2": everybody, "3": everybody, "4": [{"rater": "eve", "label": True, "created_at": may}]}


def test_one_row_of_each_label_is_held_and_says_how_the_votes_stand():
    feedback = vote_rows(*[(None, True, day) for day in (1, 2)], *[(None, False, day) for day in (1, 2)])
    result = dedupe(feedback)
    assert result.actions() == {
        "1": ("review", "labels_disagree"),
        "2": ("drop", "repeat"),
        "3": ("review", "labels_disagree"),
        "4": ("drop", "repeat"),
    }
    held = result.decisions.filter(pl.col("action") == "review").sort("row_id")
    assert held["caused_by"].to_list() == ["3", "1"]
    assert json.loads(held["evidence"][0]) == {"desirable_votes": 2, "undesirable_votes": 2}
    names = ("contradicted_texts", "texts_to_judge", "held_for_review", "outvoted_texts")
    assert [result.metrics[name] for name in names] == [1, 1, 2, 0]
    text = next(finding["text"] for finding in result.metrics["findings"] if finding["code"] == "KD021")
    assert text.startswith("1 text (2 rows) has both labels, and no majority decides.")
    assert findings(result)["KD021"] == "issue"


def test_a_record_that_is_there_twice_has_no_second_vote():
    """Nobody knows a copy from another person's verdict where neither has a name or a time; votes in one record are different ones."""
    unnamed = {"rater": None, "created_at": None}
    feedback = feedback_table(
        *[{"prompt": "p", "completion": "copied", "label": True, "source_id": str(number)} for number in range(3)],
        {"prompt": "p", "completion": "copied", "label": False},
        *[{"prompt": "p", "completion": "poll", "label": True, "votes": [unnamed | {"label": True}] * 3}] * 2,
        *[{"prompt": "p", "completion": "named", "label": True, "rater": rater} for rater in ("ann", "bob")],
    )
    result = dedupe(feedback)
    assert result.actions() == {
        **dict.fromkeys("14", ("review", "labels_disagree")),
        **dict.fromkeys("2368", ("drop", "repeat")),
    }
    pooled = column(result, "pooled_votes")
    assert [len(pooled[row]) for row in "1457"] == [2, 2, 3, 2]
    repeats = next(finding for finding in result.metrics["findings"] if finding["code"] == "KD020")
    assert "5 verdicts without a rater or a time of their own may be copies" in repeats["text"]


def test_a_majority_of_the_votes_decides():
    feedback = vote_rows(*[(None, True, day) for day in (1, 2, 3)], *[(None, False, day) for day in (1, 2)])
    result = dedupe(feedback)
    assert result.actions() == {
        **dict.fromkeys("23", ("drop", "repeat")),
        **dict.fromkeys("45", ("drop", "outvoted")),
    }
    outvoted = result.decisions.filter(reason="outvoted")
    assert outvoted["caused_by"].to_list() == ["1", "1"]
    assert json.loads(outvoted["evidence"][0]) == {"desirable_votes": 3, "undesirable_votes": 2}
    assert [len(votes or ()) for votes in column(result, "pooled_votes").values()] == [5, 0, 0, 0, 0]
    assert not any(column(result, "contradicted").values())
    names = ("contradicted_texts", "held_for_review", "outvoted_texts", "outvoted_rows", "superseded_rows", "repeats")
    assert [result.metrics[name] for name in names] == [0, 0, 1, 2, 0, 2]
    disagreement = next(finding for finding in result.metrics["findings"] if finding["code"] == "KD021")
    assert (disagreement["status"], disagreement["rows"]) == (
        "issue",
        2,
    ) and "2 outvoted rows of the other label" in disagreement["text"]


def test_texts_are_counted_by_the_last_vote_of_each_rater():
    """One text with a majority and a minority, one that its only minority took back, one that is even and has a repeat."""
    votes = [("a", 1, 1, True), ("a", 2, 1, True), ("a", 3, 1, False), ("b", 1, 1, True), ("b", 2, 1, False), ("b", 2, 2, True)]
    votes += [("c", 1, 1, True), ("c", 2, 1, False), ("c", 3, 1, True), ("c", 4, 1, False)]
    rows = [
        {
            "prompt": "p",
            "completion": text,
            "label": label,
            "rater": f"r{rater}",
            "created_at": datetime(2026, 5, day, tzinfo=UTC),
        }
        for text, rater, day, label in votes
    ]
    result = dedupe(feedback_table(*rows))
    last = {(text, rater): label for text, rater, _, label in sorted(votes, key=itemgetter(2))}
    of_texts = {text: [label for (of, _), label in last.items() if of == text] for text in "abc"}
    differ = {text: sum(given) for text, given in of_texts.items() if len(set(given)) == 2}
    even = [text for text, up in differ.items() if 2 * up == len(of_texts[text])]
    text = next(finding["text"] for finding in result.metrics["findings"] if finding["code"] == "KD021")
    assert re.findall(r"(\d+) texts? \((\d+) rows\)", text) == [(str(len(even)), str(2 * len(even)))]
    assert result.metrics["majority_texts"] == len(differ) - len(even) == 1
    assert f"most raters' last votes gave one: {len(differ) - len(even)} text." in text
    assert "all last votes agree: 1 text." in text
    assert result.decisions.filter(reason="labels_disagree").height == 2 * len(even)


def vote_rows(*votes):
    """Rows of one text: rater, label, and the day of May on which it was given, or None."""
    days = [(rater, label, day and datetime(2026, 5, day, tzinfo=UTC)) for rater, label, day in votes]
    return feedback_table(
        *({"prompt": "p", "completion": "c", "label": label, "rater": rater, "created_at": day} for rater, label, day in days)
    )


DIVIDED = ("review", "labels_disagree")


@pytest.mark.parametrize(
    ("votes", "actions"),
    [
        # the last word of a rater counts, in whatever order it was read
        ([("ann", True, 1), ("ann", False, 2)], {"1": ("drop", "superseded")}),
        ([("ann", False, 2), ("ann", True, 1)], {"2": ("drop", "superseded")}),
        ([("ann", True, None), ("ann", False, None)], {"1": DIVIDED, "2": DIVIDED}),
        ([("ann", True, 3), ("ann", False, 3)], {"1": DIVIDED, "2": DIVIDED}),
        ([("ann", True, 1), ("ann", False, None)], {"1": DIVIDED, "2": DIVIDED}),
        # three clicks of one person are one vote
        ([("ann", True, 1), ("ann", True, 2), ("ann", True, 3), ("bob", False, 1)], {"1": DIVIDED, "4": DIVIDED}),
        ([("ann", True, None), ("ann", True, None), ("bob", False, 1)], {"1": DIVIDED, "3": DIVIDED}),
        # of nobody in particular each counts
        ([(None, True, 1), (None, True, 2), ("bob", False, 3)], {"3": ("drop", "outvoted")}),
        ([(" ", True, 1), (" ", True, 2), ("bob", False, 3)], {"3": ("drop", "outvoted")}),
        # the row that stays is one whose rater still says so
        ([("ann", True, 1), ("ann", False, 2), ("bob", True, 1), ("eve", True, 1)], {"1": "repeat", "2": ("drop", "outvoted")}),
        ([("ann", False, 1), ("ann", True, 2), ("bob", True, 1)], {"1": ("drop", "superseded")}),
    ],
)
def test_of_each_rater_the_last_vote_counts(votes, actions):
    result = dedupe(vote_rows(*votes)).actions()
    repeats = {row_id: reason for row_id, (_, reason) in result.items() if reason == "repeat"}
    expected = {row_id: action for row_id, action in actions.items() if action != "repeat"}
    assert {row_id: action for row_id, action in result.items() if row_id not in repeats} == expected
    assert {row_id for row_id, action in actions.items() if action == "repeat"} <= set(repeats)


def test_earlier_votes_are_counted_and_pooled_nowhere():
    result = dedupe(vote_rows(("ann", True, 1), ("ann", False, 2), ("bob", False, 1)))
    assert result.metrics["earlier_votes"] == 1
    pooled = [votes for votes in column(result, "pooled_votes").values() if votes is not None]
    assert [sorted(vote["rater"] for vote in votes) for votes in pooled] == [["ann", "bob"]]


@pytest.mark.parametrize("verdicts", [(None, None, False), (None, None, True), (True, False, None)])
def test_a_majority_decides_which_row_stays_and_a_trusted_label_only_what_it_says(verdicts):
    """Label noise relabels the row that stays where somebody trusted says otherwise."""
    rows = vote_rows(("ann", True, 1), ("bob", False, 1), ("eve", False, 1))
    result = dedupe(rows.with_columns(trusted_label=pl.Series(verdicts)))
    assert result.actions() == {"1": ("drop", "outvoted"), "3": ("drop", "repeat")}
    if verdicts[2] is not None:
        assert column(result, "trusted_label")["2"] is verdicts[2]
        assert column(result, "contradicted")["2"] is False


def test_a_majority_whose_rows_wait_for_somebody_does_not_decide():
    rows = vote_rows(("ann", True, 1), ("bob", False, 1), ("eve", False, 1))
    result = dedupe(rows.with_columns(state=pl.Series(["keep", "review", "review"])))
    assert ("drop", "outvoted") not in result.actions().values() and column(result, "contradicted")["1"]


def test_rows_that_differ_in_what_the_model_was_given_are_no_repeats():
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    same = {"type": "function", "function": {"parameters": {"type": "object"}, "name": "weather"}}
    other = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    row = {"prompt": QUESTION, "completion": ANSWER, "label": True}
    feedback = feedback_table(
        row,
        row | {"tools": json.dumps([tool])},
        row | {"tools": json.dumps([other])},
        row | {"tools": json.dumps([same], indent=1)},  # the second row's, written otherwise
        row | {"chat_template_kwargs": '{"enable_thinking": false}'},
    )
    assert dedupe(feedback).actions() == {"4": ("drop", "repeat")}
    assert dedupe(feedback.drop("tools", "chat_template_kwargs")).metrics["repeats"] == 4


# near-duplicates


def test_a_near_repeat_says_which_row_it_repeats_and_how_alike_they_are():
    """One of 34 words changes, and it stands first: one single word and one pair of about 60 differ on each side."""
    feedback = feedback_table((QUESTION, ANSWER, True), (QUESTION + "?", ANSWER.replace("mix", "stir"), True))
    result = dedupe(feedback)
    assert result.actions() == {"2": ("drop", "near_repeat")}
    decision = result.decisions.row(0, named=True)
    assert decision["caused_by"] == "1"
    assert json.loads(decision["evidence"])["duplicate_similarity"] == column(result, "duplicate_similarity")["2"]
    assert 0.9 < column(result, "duplicate_similarity")["2"] < 1
    assert dedupe(feedback, near=None).actions() == {}
    assert dedupe(feedback, near=0.99).actions() == {}


@pytest.mark.parametrize(
    ("end", "other"),
    [
        ("The statement is true.", "The statement is false."),
        ("**Answer: (A)**", "**Answer: (B)**"),
        ("So the drug is unsafe for children who weigh less than twenty kilos.", "So the drug is safe for children who weigh less than twenty kilos."),
        ("It begins at 5 AM, as it always does in the summer months.", "It begins at 5 PM, as it always does in the summer months."),
        ("Take 5 mg of it in the morning, and again late in the evening.", "Take 5 g of it in the morning, and again late in the evening."),
        ("Option B would be the one that I like to take, here as elsewhere.", "Option C would be the one that I like to take, here as elsewhere."),
        ("Then turn left.", "Then turn right."),
        ("Den här är inte säker.", "Den här är säker."),
        ("Bu güvenli değil.", "Bu güvenli."),
        ("यह सुरक्षित नहीं है।", "यह सुरक्षित है।"),
        ("안전하지 않습니다.", "안전합니다."),
        ("so all in all it is nothing but true", "so all in all it is nothing but false"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("row", ["{body}. {end}", "{body}\n{end}"])
def test_another_conclusion_is_another_answer_and_the_pair_is_listed(end, other, row):
    """Where their difference is neither a digit nor a known negation; nearly all their words are the same."""
    texts = [row.format(body=f"{ANSWER}. {ANSWER.upper()}", end=text) for text in (end, other)]
    result = dedupe(feedback_table(*((QUESTION, text, True) for text in texts)))
    assert result.actions() == {}
    assert result.tables["near_texts"].select("row_id", "other_row_id").rows() == [("1", "2")]
    assert "1 pair of nearly equal rows may say different things" in str(result.metrics["findings"])


def test_an_answer_of_one_sentence_ends_otherwise_or_goes_on():
    ends = [f"{ANSWER} and {ANSWER.upper()} so it is {end}" for end in ("true", "false", "true indeed")]
    assert dedupe(feedback_table(*((QUESTION, text, True) for text in ends))).actions() == {"3": ("drop", "near_repeat")}


def test_a_verdict_that_stands_first_counts_too():
    texts = [f"{verdict}. {ANSWER}. {ANSWER.upper()}" for verdict in ("That is right", "That is odd")]
    assert dedupe(feedback_table(*((QUESTION, text, True) for text in texts))).actions() == {}


@pytest.mark.parametrize("other", [f"{ANSWER}. So **it is not very** good.", f"{ANSWER}! So it is not __very__ good"])
def test_marks_around_a_negation_or_in_a_conclusion_say_nothing_else(other):
    rows = [(QUESTION, text, True) for text in (f"{ANSWER}. So it is not very good.", other)]
    assert dedupe(feedback_table(*rows)).metrics["near_repeats"] == 1


@pytest.mark.parametrize(
    "negated", ["not " + ANSWER, ANSWER + " which isnt so", ANSWER + " but never again", "Nein, das ist kein Brot. " + ANSWER]
)
def test_a_negation_makes_another_text(negated):
    assert dedupe(feedback_table((QUESTION, ANSWER, True), (QUESTION, negated, True))).actions() == {}


def test_one_refusal_to_two_questions_is_no_duplicate():
    assert (
        dedupe(feedback_table((QUESTION, REFUSAL, False), ("how do I open a lock without its key", REFUSAL, False))).actions()
        == {}
    )


def test_two_answers_to_one_long_question_are_no_duplicates():
    assert dedupe(feedback_table((QUESTION * 20, "yes", True), (QUESTION * 20, "buy it", True))).actions() == {}


def test_near_rows_with_opposite_labels_are_both_kept_and_listed():
    result = dedupe(feedback_table((QUESTION, ANSWER, True), (QUESTION, ANSWER + " all over", False)))
    assert result.actions() == {}
    listed = result.tables["near_contradictions"].row(0, named=True)
    assert (listed["row_id"], listed["label"], listed["other_row_id"], listed["other_label"]) == ("1", True, "2", False)
    assert listed["similarity"] > 0.9
    assert findings(result)["KD022"] == "issue"


def test_near_repeats_are_not_chained():
    """Each answer has three more words than the one before, so that neighbours are near and the ends are not."""
    more = ["with some olives", "plus many seeds", "fresh garden herbs"]
    answers = [" ".join([ANSWER, *more[:count]]) for count in range(4)]
    result = dedupe(feedback_table(*((QUESTION, answer, True) for answer in answers)), near=0.85)
    assert column(result, "duplicate_of") == {"1": None, "2": "1", "3": None, "4": "3"}


def test_a_changed_number_is_another_text():
    answer = ANSWER + " for {} minutes at {} degrees"
    rows = [(QUESTION, answer.format(minutes, 230), True) for minutes in (30, 40, 50)]
    assert dedupe(feedback_table(*rows)).actions() == {}


def test_rows_doubted_or_contradicted_swallow_no_others():
    """A held row may not come back, so what is near it has to stay."""
    held = feedback_table((QUESTION, ANSWER, True), (QUESTION, ANSWER + " all over", True))
    held = held.with_columns(state=pl.Series(["review", "keep"]))
    assert dedupe(held).actions() == {}
    contradicted = feedback_table((QUESTION, ANSWER, True), (QUESTION, ANSWER, False), (QUESTION, ANSWER + " all over", True))
    assert set(dedupe(contradicted).actions()) == {"1", "2"}


@pytest.mark.parametrize(
    ("text", "other", "dropped"), [("ok", "ok.", True), ("yes", "no", False), ("👍", "👎", False), ("!!!", "???", False)]
)
def test_texts_under_five_words(text, other, dropped):
    assert bool(dedupe(feedback_table(("p", text, True), ("p", other, True))).actions()) is dropped


def test_empty_and_wordless_texts_do_not_crash():
    feedback = feedback_table(
        ("", "", True), ("", "", True), ("...", "?", True), ("\0", "\u200b", True), ("<script>", "[bold]", True)
    )
    assert dedupe(feedback).actions() == {"2": ("drop", "repeat")}


def test_a_table_without_rows():
    result = dedupe(feedback_table())
    assert (result.columns.height, result.decisions.height, result.metrics["rows"]) == (0, 0, 0)
    assert set(findings(result).values()) == {"not_applicable"}


@pytest.mark.slow
def test_a_text_of_20_megabytes():
    huge = " ".join(f"word{number % 900_001}" for number in range(1_900_000))
    assert len(huge) > 19_000_000
    feedback = feedback_table(("p", huge, True), ("p", huge + " end", True), ("p", "x" * 20_000_000, True), ("p", "small", True))
    result = dedupe(feedback)
    assert result.actions() == {"2": ("drop", "near_repeat")}


# prompts and templates


def test_arithmetic_prompts_are_each_a_group_of_their_own():
    result = dedupe(feedback_table(*numbers("What is 13 + 25?", "What is 14 + 27?", "what is 13 + 25", "What is 13 - 25?")))
    groups = column(result, "prompt_group")
    assert groups["1"] == groups["3"]
    assert len(set(groups.values())) == 3


def test_groups_of_prompts_are_chained():
    """A split must keep all three together, although the first and the last are less than 0.8 alike."""
    prompts = [QUESTION, QUESTION + " with some butter", QUESTION + " with some butter or olive oil"]
    ends = dedupe(feedback_table(*numbers(prompts[0], prompts[2])))
    assert len(set(column(ends, "prompt_group").values())) == 2
    assert len(set(column(dedupe(feedback_table(*numbers(*prompts))), "prompt_group").values())) == 1


def test_ten_thousand_rows_of_one_template_do_not_merge():
    """Any two rows share all but one or two of 40 words; a chain over them would make one group, and one row, of all."""
    names = words_named(500)
    prompt = "you are a careful assistant of a small shop and answer in a friendly way . please write a short note to {} about {}"
    answer = "dear {} , thank you very much for your interest in {} , we will send you a note as soon as we know more about it"
    rows = [(prompt.format(a, b), answer.format(a, b), True) for a in names[:100] for b in names[100:200]]
    feedback = feedback_table(*rows)
    result = dedupe(feedback)
    assert result.metrics["prompt_groups"] == 10_000
    assert result.metrics["near_repeats"] == 0
    assert findings(result)["KD023"] == "passed"


def test_numbered_rows_of_one_template_do_not_merge():
    rows = [
        (f"{QUESTION} and how much is {n} plus {n + 1}", f"it is {2 * n + 1} and that is all I can tell you about it", True)
        for n in range(2_000)
    ]
    result = dedupe(feedback_table(*rows))
    assert (result.metrics["prompt_groups"], result.metrics["near_repeats"]) == (2_000, 0)


def test_a_large_group_is_reported():
    feedback = feedback_table(*numbers(*[QUESTION] * 12, *words_named(88)))
    result = dedupe(feedback)
    assert result.metrics["largest_prompt_group"] == {"row_id": "1", "rows": 12, "share": 0.12}
    assert findings(result)["KD023"] == "issue"
    assert findings(dedupe(feedback.tail(92)))["KD023"] == "passed"


def test_pairs_left_uncompared_are_counted():
    """One prompt, and answers in which two words of 25 differ: nearly all pairs look alike."""
    names = words_named(400)
    rows = [
        (QUESTION, f"{ANSWER} and give {a} the rest with a lot of {b} on top", True)
        for a, b in zip(names, names[::-1], strict=True)
    ]
    result = dedupe(feedback_table(*rows), near=0.95)
    assert result.metrics["pairs"]["rows"]["skipped"] > 0
    assert findings(result)["KD025"] == "issue"
    assert findings(dedupe(feedback_table(*rows[:20])))["KD025"] == "passed"


# evaluation prompts


def test_evaluation_prompts_are_dropped_with_the_one_they_match():
    feedback = feedback_table(
        *numbers("What is 13 + 25?", "Please: what is 13 + 25? Thanks", QUESTION + " please", "why is the sky blue")
    )
    result = dedupe(feedback, decontaminate=["what is 13 + 25?", QUESTION])
    assert result.actions() == {"1": ("drop", "contaminated"), "2": ("drop", "contaminated"), "3": ("drop", "contaminated")}
    evidence = {row["row_id"]: json.loads(row["evidence"]) for row in result.decisions.iter_rows(named=True)}
    assert evidence["1"] == {"match": "exact", "match_similarity": 1.0, "evaluation_prompt": "what is 13 + 25?"}
    assert evidence["2"] == {"match": "contains", "match_similarity": None, "evaluation_prompt": "what is 13 + 25?"}
    assert evidence["3"]["match"] == "near"
    assert evidence["3"]["match_similarity"] > 0.9
    assert evidence["3"]["evaluation_prompt"] == QUESTION
    assert findings(result)["KD024"] == "issue"
    assert findings(dedupe(feedback, decontaminate=["nothing like it"]))["KD024"] == "passed"
    assert findings(dedupe(feedback))["KD024"] == "not_applicable"


def test_a_contaminated_row_is_decided_on_once():
    feedback = feedback_table((QUESTION, "a", True), (QUESTION, "a", True), (QUESTION, "a", False))
    assert dedupe(feedback, decontaminate=[QUESTION]).decisions["reason"].to_list() == ["contaminated"] * 3


# settings and repetition


@pytest.mark.parametrize("name", ["near", "near_prompts"])
def test_a_percentage_is_answered_with_the_fraction(name):
    with pytest.raises(SettingError, match=rf"dedupe: {name} is a similarity between 0.5 and 1; got 80. Did you mean 0.8\?"):
        dedupe(feedback_table(), **{name: 80})


def test_a_missing_column_is_named():
    with pytest.raises(MissingColumnError, match="dedupe needs column 'votes'"):
        dedupe(feedback_table(*numbers("a")).drop("votes"))


def test_the_same_input_gives_the_same_output():
    words = words_named(60)
    rows = [(QUESTION + f" and {words[n % 7]}", f"{ANSWER} {words[n % 30]} {words[n % 11]}", n % 3 > 0) for n in range(600)]
    first, other = (dedupe(feedback_table(*rows), seed=5) for _ in range(2))
    assert first.columns.equals(other.columns)
    assert first.decisions.equals(other.decisions)
    assert first.metrics == other.metrics
    assert first.tables["near_contradictions"].equals(other.tables["near_contradictions"])


# real feedback


@pytest.mark.shared
def test_repeats_and_disagreements_of_the_tulu_judges(shared):
    """Counted in plain Python over (prompt, completion) folded for case and white space: 777 different texts, 60 with both labels.

    No text holds code, and no record is given a time, so a rater has one vote of each label. 17 texts are tied.
    """
    with gzip.open(shared / "kto_tulu1_human.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    feedback = feedback_table(
        *({"prompt": r["prompt"], "completion": r["completion"], "label": r["label"], "rater": r["annotator"]} for r in records)
    )
    result = dedupe(feedback)
    votes: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for record in records:
        text = tuple(" ".join(record[name].lower().split()) for name in ("prompt", "completion"))
        votes.setdefault(text, []).append((record["annotator"], record["label"]))
    up = {text: sum(label for _, label in set(given)) for text, given in votes.items()}
    ties = sum(2 * up[text] == len(set(given)) for text, given in votes.items())
    assert result.metrics["texts"] == len(votes)
    assert result.metrics["contradicted_texts"] == ties == 17
    assert (
        result.metrics["outvoted_texts"] == sum(len({label for _, label in given}) == 2 for given in votes.values()) - ties == 43
    )
    # one row of a text stays, or one of each label where it is tied; every other row is a repeat or outvoted
    assert result.metrics["repeats"] + result.metrics["outvoted_rows"] == len(records) - len(votes) - ties
    pooled = result.columns.filter(pl.col("pooled_votes").is_not_null())
    assert pooled["pooled_votes"].list.len().max() == max(len(set(given)) for given in votes.values())


@pytest.mark.shared
def test_prompts_with_one_long_tool_description_do_not_merge(shared):
    """7,673 rows with a few long tool descriptions: by Jaccard alone 944 of them are one group, and 1,184 are near repeats."""
    with gzip.open(shared / "dedupe" / "toolformer-dedupe-only.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    feedback = feedback_table(*((r["instruction"] + "\n" + r["input"], r["response"], True) for r in records))
    result = dedupe(feedback)
    assert result.metrics["largest_prompt_group"]["share"] < 0.01
    assert 0.01 < result.metrics["near_repeats"] / len(records) < 0.1
