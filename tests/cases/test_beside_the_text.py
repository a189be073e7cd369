"""What an answer says beside its text, and texts that are not the text: nothing of it is cut or read as something else unsaid."""

import json

import pytest

from ktodata.errors import DataError
from ktodata.formats import read

CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": {"q": "sky"}}}
ASKED = [{"role": "user", "content": "Sky?"}]


def answer_of(record, lines, **settings):
    """The judged answer's turn, and what was not kept."""
    result = read(lines({"prompt": "Sky?", "label": True} | record), **settings)
    row = result.feedback.row(0, named=True)
    turn = {key: value for key, value in (row["answer"] or {"content": row["completion"]}).items() if value}
    return turn, result.metrics["not_kept"]


@pytest.mark.parametrize("text", ["text", "content"])
def test_calls_beside_a_text_are_the_answers(lines, text):
    turn, lost = answer_of(
        {"out": {text: "Let me see.", "tool_calls": [CALL], "id": "r1"}}, lines, prompt="prompt", completion="out"
    )
    assert turn["content"] == "Let me see." and json.loads(turn["tool_calls"]) == [CALL]
    assert "id" not in turn and not lost


def test_what_a_named_column_holds_beside_the_answer_is_counted(lines):
    out = {"text": "Blue.", "citations": [1], "finish_reason": "stop"}
    turn, lost = answer_of({"out": out}, lines, prompt="prompt", completion="out")
    assert turn["content"] == "Blue." and lost == {"out.citations": 1, "out.finish_reason": 1}


def test_calls_beside_the_output_of_a_trace_are_the_answers(lines):
    score = {"name": "thumb", "value": 1, "source": "ANNOTATION"}
    trace = {"id": "t", "input": "Sky?", "output": {"content": "", "tool_calls": [CALL]}, "scores": [score]}
    history = {"input": {"input": "Sky?", "history": "Human: hi\nAI: hello"}, "output": "Blue."}
    label = {"column": "thumb", 1: True, 0: False}
    not_text = {"output": {"messages": [{"role": "assistant", "content": "Blue."}], "tool_calls": [CALL]}}
    result = read(lines(trace, trace | history, trace | not_text), format="langfuse", label=label)
    assert json.loads(result.feedback["answer"].struct.field("tool_calls")[0]) == [CALL]
    assert result.metrics["not_kept"]["input.history"] == result.metrics["not_kept"]["output.tool_calls"] == 1


def test_thoughts_are_reasoning_and_ciphers_are_nothing(lines):
    gemini = [{"role": "model", "parts": [{"text": "The user asks.", "thought": True}, {"text": "Blue."}]}]
    turn, lost = answer_of({"completion": gemini}, lines)
    assert (turn["reasoning_content"], turn["content"], lost) == ("The user asks.", "Blue.", {})
    parts = [{"type": "redacted_thinking", "data": "EroBCkgIARABGAIiQ"}, {"type": "text", "text": "Blue."}]
    turn, lost = answer_of({"completion": [{"role": "assistant", "content": parts}]}, lines)
    assert turn["content"] == "Blue." and "reasoning_content" not in turn and lost == {"a turn's content[].data": 1}


def test_an_empty_content_beside_parts_is_not_the_text(lines):
    turns = [{"role": "assistant", "content": "", "parts": [{"type": "text", "text": "Blue."}]}]
    assert answer_of({"completion": turns}, lines)[0]["content"] == "Blue."


@pytest.mark.parametrize("key", ["images", "experimental_attachments", "audio"])
def test_a_picture_on_a_turn_is_no_text(lines, key):
    turn = {"role": "user", "content": "What is this?", key: ["iVBORw0KGgo="]}
    path = lines(
        {"prompt": [turn], "completion": "A cat.", "label": True}, {"prompt": "Sky?", "completion": "Blue.", "label": True}
    )
    result = read(path)
    assert result.feedback["completion"].to_list() == ["Blue."]
    assert key in result.quarantine["detail"][0]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"role": "assistant", "content": "Blue."}),
        json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Blue."}}]}),
        json.dumps({"messages": ASKED}),
        str([{"role": "assistant", "content": "Blue."}]),
    ],
)
def test_a_text_that_is_messages_is_not_what_was_said(lines, text):
    with pytest.raises(DataError, match="messages as text"):
        read(lines({"prompt": "Sky?", "completion": text, "label": True}))


def test_json_that_is_an_answer_stays_one(lines):
    for text in ('{"role": "admin"}', '{"type": "object", "required": []}', "{'colour': 'blue'}", '[{"id": 7, "name": "ann"}]'):
        assert read(lines({"prompt": "As JSON?", "completion": text, "label": True})).feedback["completion"].to_list() == [text]


def test_other_verdicts_on_a_turn_than_the_one_asked_for_are_counted(lines):
    others = [{"user": "ann", "value": 1}, {"user": "ben", "value": -1}, {"user": "cid", "value": -1}]
    answer = {"role": "assistant", "content": "Blue.", "feedback": others}
    result = read(lines({"messages": [*ASKED, answer]}), label={"column": "messages[].feedback.0.value", 1: True, -1: False})
    assert result.feedback["label"].to_list() == [True]
    assert result.metrics["not_kept"] == {"a turn's feedback": 1}


def test_two_messages_of_a_response_are_no_one_answer(lines):
    output = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]} for text in ("1.", "2.")
    ]
    with pytest.raises(DataError, match="holds 2 messages; which of them was judged"):
        read(lines({"prompt": "Sky?", "completion": {"output": output}, "label": True}))


def test_a_whole_number_is_one_name_whether_or_not_its_column_has_gaps(lines):
    row = {"prompt": "Sky?", "completion": "Blue.", "label": True}
    result = read(lines(row | {"who": 7.0, "id": 101.0}, row | {"who": 7, "id": 102}), rater="who", source_id="id")
    assert result.feedback["rater"].to_list() == ["7", "7"] and result.feedback["source_id"].to_list() == ["101", "102"]
