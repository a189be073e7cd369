"""What no format knows is carried, set aside, or counted by name: a field is planted at every place of a record of every format."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ktodata.errors import KtodataError
from ktodata.formats import FORMATS, read

NAME, WORDS = "planted_remark", "the planted words"
SKY = "What colour is the sky?"
USER = {"role": "user", "content": SKY}
THUMB = {"column": "thumb", 1: True, 0: False}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": {"of": "sky"}}}
TRL = {"prompt": SKY, "label": True}


def trace(answer: Any, question: Any = SKY) -> dict[str, Any]:
    return {"id": "t", "input": question, "output": answer, "scores": [{"name": "thumb", "value": 1, "authorUserId": "ann"}]}


# shapes that the formats' own examples do not show: (record, settings)
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "choices": (TRL | {"completion": {"choices": [{"message": {"role": "assistant", "content": "Blue."}}]}}, {}),
    "choices with texts": (TRL | {"completion": {"choices": [{"text": "Blue."}]}}, {}),
    "a message alone": (TRL | {"completion": {"message": {"content": "Blue."}}}, {}),
    "candidates": (TRL | {"completion": {"candidates": [{"content": {"role": "model", "parts": [{"text": "Blue."}]}}]}}, {}),
    "generations": (trace({"generations": [[{"text": "Blue."}]]}), {"label": THUMB}),
    "output of responses": (
        TRL
        | {
            "completion": {
                "output": [
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Look up."}]},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Blue."}]},
                    {"type": "function_call", "name": "look_up", "arguments": "{}", "call_id": "c1"},
                ]
            }
        },
        {},
    ),
    "parts, calls and results": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": SKY}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Look up."},
                        {"type": "tool_use", "id": "c1", "name": "look_up", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "blue"}]}],
                },
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "blue", "tool_call_id": "c1"},
                {"role": "assistant", "content": "Blue.", "reasoning_content": "It says so."},
            ],
            "label": True,
        },
        {},
    ),
    "Gemini's parts": (
        {
            "messages": [
                {"role": "user", "parts": [{"text": SKY}]},
                {"role": "model", "parts": [{"functionCall": {"name": "look_up", "args": {}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "look_up", "response": {"it": "is"}}}]},
                {"role": "model", "parts": [{"text": "Blue."}]},
            ],
            "label": True,
        },
        {},
    ),
    "LangChain's messages": (
        {
            "id": "r",
            "inputs": {
                "messages": [[{"lc": 1, "type": "constructor", "id": ["HumanMessage"], "kwargs": {"content": SKY}}]],
                "chat_history": [{"type": "human", "data": {"content": "Hi"}}, {"message": {"role": "ai", "content": "Hello"}}],
            },
            "outputs": {"output": {"type": "ai", "content": "", "additional_kwargs": {"tool_calls": [CALL]}}},
            "feedback": [
                {"key": "thumb", "score": 1, "feedback_source": {"type": "app", "user_id": "ann"}},
                {"key": "other", "score": 1},
            ],
        },
        {"label": THUMB},
    ),
    "ChatGPT's author": (
        {"messages": [{"author": {"role": "user"}, "content": SKY}, {"role": "assistant", "content": "Blue."}], "label": True},
        {},
    ),
    "a trace's input with tools": (
        trace("Blue.", {"messages": [USER], "tools": [CALL], "system": "Be brief."}),
        {"label": THUMB},
    ),
    "one verdict a record": (
        {"input": SKY, "output": "Blue.", "dataType": "BOOLEAN", "name": "thumb", "value": 1},
        {"label": THUMB},
    ),
    "means of feedback": (
        {"id": "r", "inputs": {"question": SKY}, "outputs": {"answer": "Blue."}, "feedback_stats": {"thumb": {"avg": 1.0}}},
        {"label": {"column": "feedback_stats.thumb.avg", "at_least": 0.5}},
    ),
    "Label Studio's columns": (
        {
            "data": {"q": SKY, "a": "Blue."},
            "annotations": [
                {"completed_by": {"id": 1}, "result": [{"from_name": "stars", "type": "rating", "value": {"rating": 5}}]}
            ],
        },
        {"format": "label_studio", "prompt": "q", "completion": "a", "label": {"column": "stars", "at_least": 4}},
    ),
    "paths of settings": (
        {"log": {"ask": {"text": SKY}, "answers": [{"text": "Blue.", "ok": True}]}, "marks": [{"name": "thumb", "value": 1}]},
        {"prompt": "log.ask.text", "completion": "log.answers.0.text", "label": {**THUMB, "column": "marks[name=thumb].value"}},
    ),
    "verdicts inside a turn": (
        {"chat": {"turns": [USER, {"role": "assistant", "content": "Blue.", "mark": {"thumb": 1, "by": "ann"}}]}},
        {"messages": "chat.turns", "rater": "chat.turns[].mark.by", "label": {**THUMB, "column": "chat.turns[].mark.thumb"}},
    ),
    "pairs of conversations": (
        {side: [USER, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")},
        {},
    ),
    "two outputs": (
        {
            "type": "pairwise_feedback",
            "prompt": [USER],
            "label": 1,
            **{f"output_{side}": [{"role": "assistant", "content": side}] for side in "AB"},
        },
        {},
    ),
    "answers and scores in two lists": (
        {"prompt": SKY, "responses": [[USER | {"role": "assistant", "content": "Blue."}]], "scores": [5]},
        {"label": {"column": "scores", "at_least": 3}},
    ),
    "a system text in parts": (
        {
            "messages": [USER, {"role": "assistant", "content": "Blue."}],
            "label": True,
            "system": [{"type": "text", "text": "Be brief."}],
        },
        {},
    ),
}
CASES = {format.name: (format.example, {"format": format.name, **format.settings}) for format in FORMATS.values()} | SHAPES


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects in a value."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from objects(inner, (*path, key))
    if isinstance(value, list):
        for place, inner in enumerate(value):
            yield from objects(inner, (*path, place))


def with_field(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    inside = changed
    for step in path:
        inside = inside[step]
    inside[NAME] = value
    return changed


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_the_examples_is_lost(case: str, lines):
    record, settings = CASES[case]
    metrics = read(lines(record), **settings).metrics
    assert (metrics["records_used"], metrics["quarantined"]) == (1, {})
    known = {
        "halos": {"prompt_id": 1, "reward": 1},
        "LangChain's messages": {"feedback[key=other]": 1},
        "paths of settings": {"log.answers[].ok": 1},
    }
    assert metrics["not_kept"] == known.get(case, {})


@pytest.mark.parametrize("value", [WORDS, 7, False, {"in": WORDS}, [{"in": WORDS}]], ids=repr)
@pytest.mark.parametrize("case", CASES)
def test_a_field_that_no_format_knows_is_carried_or_counted(case: str, value: Any, lines):
    """`keep` names the field beside a record that is sound, so that what is set aside is seen as such."""
    record, settings = CASES[case]
    lost = []
    for path in objects(record):
        result = read(lines(record, with_field(record, path, value)), **settings)
        is_counted = any(NAME in name and count == 1 for name, count in result.metrics["not_kept"].items())
        is_carried = json.dumps(value) in json.dumps(result.feedback.drop("row_id").rows(), default=str).replace("\\", "")
        if not (is_counted or is_carried or result.quarantine.height):
            lost.append(path)
    assert lost == []


def test_what_a_setting_keeps_is_not_counted(lines):
    record = TRL | {"completion": "Blue.", "meta": {"lang": "en", "team": "a"}, "marks": [{"by": "ann"}, {"by": "bob"}]}
    kept = read(lines(record), keep={"lang": "meta.lang", "first": "marks.0.by"})
    assert kept.metrics["not_kept"] == {"marks[]": 1, "meta.team": 1}
    assert kept.feedback.select("lang", "first").row(0) == ("en", "ann")


def test_what_says_nothing_is_not_counted(lines):
    empty = {"a": None, "b": "", "c": [], "d": {}, "e": {"f": None, "g": [None]}}
    assert read(lines(TRL | {"completion": "Blue."} | empty)).metrics["not_kept"] == {}


def test_names_are_counted_up_to_a_limit(lines):
    """The keys of an object may be data."""
    records = [TRL | {"completion": "Blue."} | {f"user {number} {each}": 1 for each in range(30)} for number in range(50)]
    counts = read(lines(*records)).metrics["not_kept"]
    assert len(counts) == 1001 and counts["(other fields)"] == 500


def test_verdicts_that_were_not_chosen_are_counted(lines):
    scores = [
        {"name": name, "value": 1, "source": source} for name, source in (("thumb", "API"), ("thumb", "EVAL"), ("toxic", "API"))
    ]
    note = {"name": "note", "dataType": "TEXT", "stringValue": "hm"}
    record = {"id": "t", "name": "chat", "input": SKY, "output": "Blue.", "scores": [*scores, note]}
    result = read(lines(record), label={**THUMB, "by": "people"})
    names = ["name", "scores[name=note]", "scores[name=thumb] by models", "scores[name=toxic]"]
    assert result.metrics["not_kept"] == dict.fromkeys(names, 1)


def test_only_one_of_two_forms_is_read_and_the_other_counted(lines):
    record = {"messages": [USER, {"role": "assistant", "content": "Blue."}], "query": "else?", "response": "Red.", "label": True}
    assert read(lines(record)).metrics["not_kept"] == {"query": 1, "response": 1}


def test_a_label_beside_the_named_one_is_counted(lines):
    assert read(lines(TRL | {"completion": "Blue.", "good": True}), label={"column": "good", True: True, False: False}).metrics[
        "not_kept"
    ] == {"label": 1}


def test_a_key_without_a_name_is_no_instruction(lines):
    record = FORMATS["vertex_preference"].example | {"": {"x": 1}}
    assert read(lines(record)).metrics["not_kept"] == {"": 1}


def test_deep_nesting_is_set_aside_and_not_a_traceback(lines):
    deep: Any = WORDS
    for _ in range(400):
        deep = {"message": deep}
    path = lines(TRL | {"completion": "Blue."}, {"messages": [deep, deep], "label": True})
    assert read(path).metrics["records_used"] == 1


def test_messages_before_an_answer_are_counted_too(lines):
    messages = [
        {"chat": 1, "role": "user", "content": SKY, "mood": "good", "thumb": None},
        {"chat": 1, "role": "assistant", "content": "Blue.", "cost": 3, "thumb": 1},
    ]
    result = read(lines(*messages), conversation="chat", label=THUMB)
    assert result.metrics["not_kept"] == {"a turn's mood": 1, "cost": 1}


def test_errors_stay_errors(lines):
    with pytest.raises(KtodataError, match="no_prompt"):
        read(lines({"chosen": "a", "rejected": "b", NAME: WORDS}))
