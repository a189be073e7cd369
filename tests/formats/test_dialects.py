"""Every format: its example is recognised, read, written and read again, with all that it says it holds."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ktodata.errors import EmptyDataError, LabelError
from ktodata.feedback import feedback_table
from ktodata.formats import FORMATS, read, write
from ktodata.formats.format import Format
from ktodata.formats.turns import loaded_turn

SKY = "What colour is the sky?"


def named(format: Format) -> str:
    return format.name


def turns_in(feedback: pl.DataFrame) -> list[list[dict[str, Any]] | None]:
    return [turns and [loaded_turn(turn) for turn in turns] for turns in feedback["turns"].to_list()]


def rows(feedback: pl.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return feedback.select(columns or ("prompt", "completion", "label")).rows()


@pytest.mark.parametrize("format", FORMATS.values(), ids=named)
def test_the_example_comes_back_field_by_field(format: Format, lines, tmp_path: Path):
    source = lines(format.example)
    first = read(source, format=format.name, **format.settings).feedback
    written = write(first, tmp_path / "again.jsonl", format=format.name)
    assert written.rows == first.height
    assert json.loads((tmp_path / "again.jsonl").read_text()) == format.example
    again = read(tmp_path / "again.jsonl", format=format.name, **format.settings).feedback
    assert_frame_equal(first.select(format.holds), again.select(format.holds))


@pytest.mark.parametrize("format", [d for d in FORMATS.values() if d.name != "mapping"], ids=named)
def test_the_example_is_recognised(format: Format, lines):
    metrics = read(lines(format.example), **format.settings).metrics
    assert metrics["files"][0]["formats"] == {format.name: 1}


@pytest.mark.parametrize("suffix", [".json", ".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("format", FORMATS.values(), ids=named)
def test_every_kind_of_file_holds_every_format(format: Format, suffix: str, lines, tmp_path: Path):
    first = read(lines(format.example), format=format.name, **format.settings).feedback
    write(first, tmp_path / f"again{suffix}", format=format.name)
    again = read(tmp_path / f"again{suffix}", format=format.name, **format.settings).feedback
    assert_frame_equal(first.select(format.holds), again.select(format.holds))


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def pairs_of(texts: list[tuple[str, str, str]]) -> pl.DataFrame:
    """Two rows for each (prompt, better, worse), with all that any format holds of a row."""
    about = {"rater": "ann", "created_at": datetime(2025, 5, 1, 10, tzinfo=UTC), "model": "small", "source": "survey"}
    sides = [
        {
            "prompt": f"{number} {prompt}",
            "completion": side,
            "label": label,
            "rating": 9.5 if label else 1.0,
            "pair_id": f"p{number}",
        }
        for number, (prompt, *both) in enumerate(texts)
        for side, label in zip(both, (True, False), strict=True)
    ]
    return feedback_table(
        *(side | about | {"source_id": f"s{at}", "trusted_label": side["label"]} for at, side in enumerate(sides))
    )


@pytest.mark.parametrize("format", FORMATS.values(), ids=named)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.tuples(any_text, any_text, any_text), min_size=1, max_size=4))
def test_any_text_comes_back_as_it_was(tmp_path_factory, format: Format, texts: list[tuple[str, str, str]]):
    """The numbers before the prompts keep those apart that a format groups by."""
    path = tmp_path_factory.mktemp("texts") / "written.jsonl"
    feedback = pairs_of(texts)
    assert write(feedback, path, format=format.name).rows == feedback.height
    again = read(path, format=format.name, **format.settings).feedback
    held = [name for name in format.holds if name != "turns"]  # a plain prompt comes back as one turn where there are only turns
    assert sorted(again.select(held).rows(), key=repr) == sorted(feedback.select(held).rows(), key=repr)


# --- field by field, where an example shows only one form --------------------------------------------------------------


def test_trl_as_text_and_as_turns(lines):
    result = read(
        lines(
            {"prompt": SKY, "completion": "Blue.", "label": True},
            {
                "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SKY}],
                "completion": [{"role": "assistant", "content": "Blue."}],
                "label": False,
            },
        )
    )
    assert rows(result.feedback) == [(SKY, "Blue.", True), (f"System: Be brief.\n\nUser: {SKY}", "Blue.", False)]
    assert turns_in(result.feedback)[0] is None
    assert [turn["role"] for turn in turns_in(result.feedback)[1]] == ["system", "user"]


def test_trl_paired_without_a_prompt_takes_what_both_sides_share(lines):
    user = {"role": "user", "content": SKY}
    sides = {
        side: [user, {"role": "assistant", "content": content}] for side, content in (("chosen", "Blue."), ("rejected", "Green."))
    }
    feedback = read(lines(sides)).feedback
    assert rows(feedback) == [(SKY, "Blue.", True), (SKY, "Green.", False)]
    assert feedback["pair_id"].n_unique() == 1
    assert feedback["pair_id"].null_count() == 0


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": SKY, "completion": "Blue.", "label": True},
        {"system": "", "question": SKY, "completion": "Blue.", "label": True},
        {"system": None, "prompt": SKY, "completion": "Blue.", "label": True},
        {"completion": [{"role": "user", "content": SKY}, {"role": "assistant", "content": "Blue."}], "label": True},
    ],
    ids=["argilla", "intel", "ultra", "argilla_chat"],
)
def test_axolotl_types(record: dict[str, Any], lines):
    result = read(lines(record))
    assert result.metrics["files"][0]["formats"] == {"axolotl": 1}
    assert rows(result.feedback) == [(SKY, "Blue.", True)]


def test_axolotl_user_defined_is_read_by_its_field_names(lines):
    record = {"frage": SKY, "antwort": "Blue.", "gut": True}
    assert rows(
        read(lines(record), prompt="frage", completion="antwort", label={"column": "gut", True: True, False: False}).feedback
    ) == [(SKY, "Blue.", True)]


def test_llamafactory_sharegpt_with_from_and_value(lines):
    talk = [{"from": "human", "value": SKY}, {"from": "gpt", "value": "Blue."}]
    feedback = read(lines({"conversations": talk, "kto_tag": False})).feedback
    assert rows(feedback) == [(SKY, "Blue.", False)]
    assert turns_in(feedback) == [[{"role": "user", "content": SKY}]]


def test_llamafactory_alpaca_joins_instruction_and_input_as_its_trainer_does(lines):
    record = {"instruction": "Translate.", "input": "ciel", "output": "sky", "kto_tag": True}
    assert rows(read(lines(record)).feedback) == [("Translate.\nciel", "sky", True)]


def test_halos_pairs(lines):
    turn = [{"role": "user", "content": SKY}]
    sides = {"output_A": [{"role": "assistant", "content": "Green."}], "output_B": [{"role": "assistant", "content": "Blue."}]}
    record = {"prompt_id": 1, "prompt": turn, **sides, "label": 0, "reward_A": 0.1, "reward_B": 0.9, "type": "pairwise_feedback"}
    assert rows(read(lines(record)).feedback) == [(SKY, "Blue.", True), (SKY, "Green.", False)]


def test_hh_rlhf_with_two_human_turns_in_a_row(lines):
    start = "\n\nHuman: Hi!\n\nHuman: Are you there?\n\nAssistant:"
    feedback = read(lines({"chosen": f"{start} Yes.", "rejected": f"{start} No."})).feedback
    assert turns_in(feedback)[0] == [{"role": "user", "content": "Hi!"}, {"role": "user", "content": "Are you there?"}]
    assert feedback["completion"].to_list() == ["Yes.", "No."]


def test_transcript_prompts_become_turns_only_on_request(lines):
    path = lines({"prompt": "\n\nHuman: Hi!\n\nAssistant:", "completion": " Hello.", "label": True})
    plain, parsed = read(path).feedback, read(path, transcripts=True).feedback
    assert rows(plain) == [("\n\nHuman: Hi!\n\nAssistant:", " Hello.", True)]
    assert turns_in(parsed) == [[{"role": "user", "content": "Hi!"}]]
    assert rows(parsed) == [("Hi!", " Hello.", True)]


def test_ultrafeedback_by_a_rating_further_in(lines):
    """The ratings are text in UltraFeedback's annotations: 4 and 2 against a threshold of 4."""
    completions = [
        {"model": name, "response": name, "annotations": {"helpfulness": {"Rating": rating}}}
        for name, rating in (("large", "4"), ("small", "2"))
    ]
    label = {"column": "annotations.helpfulness.Rating", "at_least": 4}
    feedback = read(lines({"instruction": SKY, "completions": completions}), label=label).feedback
    assert rows(feedback, "model", "label", "rating") == [("large", True, 4.0), ("small", False, 2.0)]
    assert feedback["pair_id"].null_count() == 2


THUMB = {"column": "thumb", 1: True, 0: False}


def test_langfuse_votes_of_several_people(lines):
    scores = [
        {"name": "thumb", "dataType": "BOOLEAN", "value": value, "authorUserId": who, "timestamp": "2025-01-01T00:00:00Z"}
        for who, value in (("ann", 1), ("bob", 0), ("cid", 1))
    ]
    scores += [{"name": "note", "dataType": "TEXT", "value": None, "stringValue": "hm"}]
    feedback = read(lines({"id": "t1", "input": SKY, "output": {"content": "Blue."}, "scores": scores}), label=THUMB).feedback
    assert rows(feedback) == [(SKY, "Blue.", True)]
    assert [(vote["rater"], vote["label"]) for vote in feedback["votes"].to_list()[0]] == [
        ("ann", True),
        ("bob", False),
        ("cid", True),
    ]


def test_langfuse_kinds_of_scores_and_their_names(lines):
    base = {"input": SKY, "output": "Blue."}
    numeric = lines({**base, "dataType": "NUMERIC", "name": "quality", "value": 0.7}, name="n.jsonl")
    assert rows(read(numeric, label={"column": "quality", "at_least": 0.5}).feedback) == [(SKY, "Blue.", True)]
    category = lines({**base, "dataType": "CATEGORICAL", "name": "verdict", "value": 0, "stringValue": "bad"}, name="c.jsonl")
    assert rows(read(category, label={"column": "verdict", "bad": False}).feedback) == [(SKY, "Blue.", False)]
    other = {"name": "speed", "dataType": "BOOLEAN", "value": 0}
    named = lines({**base, "scores": [{"name": "thumb", "dataType": "BOOLEAN", "value": 1}, other]}, name="s.jsonl")
    assert rows(read(named, label=THUMB).feedback) == [(SKY, "Blue.", True)]


def test_langsmith_scores_are_labels_only_when_the_recipe_says_so(lines):
    record = {"inputs": {"question": SKY}, "outputs": {"answer": "Blue."}, "key": "thumb", "score": 1}
    for unsaid in (None, "thumb", {1: True, 0: False}, {"column": "thump", 1: True, 0: False}):
        with pytest.raises(LabelError, match=r"'thumb' by people \(1 2\)"):
            read(lines(record, record), label=unsaid)
    assert rows(read(lines(record), label=THUMB).feedback) == [(SKY, "Blue.", True)]


@pytest.mark.parametrize("source", ["API", "ANNOTATION", "EVAL"])
def test_a_negative_flag_is_read_as_the_recipe_says(lines, source):
    """Neither a type nor a name says whether true is good."""
    score = {"name": "negative_user_feedback", "dataType": "BOOLEAN", "value": 1, "source": source}
    path = lines({"id": "t", "userId": "u", "input": SKY, "output": "Green.", "scores": [score]})
    with pytest.raises(LabelError, match=r"'negative_user_feedback' by (people|models) \(1 1\)"):
        read(path)
    meanings = {"column": "negative_user_feedback", 1: False, 0: True}
    assert rows(read(path, label=meanings).feedback, "label", "rater") == [
        (False, "model negative_user_feedback" if source == "EVAL" else "u")
    ]


def test_people_and_models_are_never_added_up_unasked(lines):
    scores = [{"name": "thumb", "dataType": "BOOLEAN", "value": v, "source": s} for v, s in ((1, "API"), (0, "EVAL"))]
    path = lines({"id": "t", "userId": "u", "input": SKY, "output": "Blue.", "scores": scores})
    with pytest.raises(LabelError, match="by: people"):
        read(path, label=THUMB)
    assert rows(read(path, label={**THUMB, "by": "people"}).feedback, "label") == [(True,)]
    assert rows(read(path, label={**THUMB, "by": "models"}).feedback, "label") == [(False,)]
    assert rows(read(path, label={**THUMB, "by": "both"}).feedback, "label") == [(True,), (False,)]  # even: both wait in dedupe


def test_the_last_word_of_a_rater_counts(lines):
    """u changes their mind twice and ends at down, whatever order the export has; v says up once. A vote of nobody is its own."""
    votes = (("u", 0, "2026-01-01T10:02:00Z"), ("u", 1, "2026-01-01T10:01:00Z"), ("u", 0, "2026-01-01T10:00:00Z"), ("v", 0, None))
    scores = [{"name": "thumb", "dataType": "BOOLEAN", "value": v, "authorUserId": u, "timestamp": t} for u, v, t in votes]
    result = read(lines({"id": "t", "input": SKY, "output": "Green.", "scores": scores}), label=THUMB)
    row = result.feedback.row(0, named=True)
    assert [(vote["rater"], vote["label"]) for vote in row["votes"]] == [("u", False), ("v", False)]
    assert [vote["label"] for vote in row["earlier_votes"]] == [False, True]
    assert result.metrics["earlier_votes"] == 2


def test_label_studio_ratings_cancelled_annotations_and_accounts(lines):
    def annotation(who: Any, rating: int, *, cancelled: bool = False) -> dict[str, Any]:
        result = [{"from_name": "stars", "type": "rating", "value": {"rating": rating}}]
        return {"completed_by": who, "was_cancelled": cancelled, "result": result}

    given = [annotation({"id": 7, "email": "ann@x"}, 5), annotation(8, 4), annotation(9, 1, cancelled=True)]
    record = {"id": 1, "data": {"question": SKY, "completion": "Blue."}, "annotations": given}
    feedback = read(lines(record), format="label_studio", prompt="question", label={"column": "stars", "at_least": 4}).feedback
    assert [vote["rater"] for vote in feedback["votes"].to_list()[0]] == ["ann@x", "8"]


def test_argilla_flattened_and_drafts(lines):
    record = {
        "id": "r1",
        "prompt": SKY,
        "completion": "Blue.",
        "good.responses": ["yes", "no"],
        "good.responses.users": ["ann", "bob"],
        "good.responses.status": ["submitted", "draft"],
        "good.suggestion": "no",
    }
    feedback = read(lines(record), label={"column": "good", "yes": True, "no": False}).feedback
    assert rows(feedback, "completion", "label", "rater", "source_id") == [("Blue.", True, "ann", "r1")]


def test_preference_with_words_models_and_a_tie(lines):
    base = {"q": SKY, "a": "Blue.", "b": "Green.", "ma": "large", "mb": "small"}
    path = lines({**base, "which": "left"}, {**base, "which": "both"}, {**base, "which": None})
    label = {"column": "which", "left": "first", "right": "second", "both": "tie"}
    result = read(path, prompt="q", completion=["a", "b"], label=label, model=["ma", "mb"])
    assert rows(result.feedback, "completion", "label", "model") == [("Blue.", True, "large"), ("Green.", False, "small")]
    assert result.quarantine["reason"].to_list() == ["tie", "unlabelled"]


def test_preference_by_the_most_votes(lines, tmp_path):
    """Votes 1, 1, 2: first. 0, 0, 1: a tie, as most say. 0, 1: a tie, as no more say else. 1, 2: each side has both labels."""
    base = {"prompt": SKY, "response1": "Blue.", "response2": "Green."}
    path = lines(*({**base, "a": a, "b": b, "c": c} for a, b, c in ((1, 1, 2), (0, 0, 1), (0, 1, None), (1, 2, None))))
    result = read(path, format="preference", label={1: "first", 2: "second", 0: "tie"}, votes=["a", "b", "c"])
    most, even = [(SKY, "Blue.", True), (SKY, "Green.", False)], result.feedback[2:]
    assert rows(result.feedback[:2]) == most
    assert rows(even, "completion", "label", "rater") == [
        ("Blue.", True, "a"),
        ("Blue.", False, "b"),
        ("Green.", True, "b"),
        ("Green.", False, "a"),
    ]
    with pytest.raises(EmptyDataError, match="raters are divided on which side of the pair is better"):
        write(even, tmp_path / "pairs.jsonl", format="trl_paired")
    assert [vote["label"] for vote in result.feedback["votes"].to_list()[1]] == [False, False, True]
    assert result.quarantine["reason"].to_list() == ["tie", "tie"]
