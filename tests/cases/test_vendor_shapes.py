"""Answers as vendors' APIs and logs write them: the answer in them is read, and what holds several is set aside."""

from typing import Any

import pytest

from ktodata.errors import FormatError, LabelError
from ktodata.formats import read
from ktodata.formats.turns import completion_of

TEN = {"role": "assistant", "content": "Ten."}
ANSWERS: dict[str, Any] = {
    "chat completion": {"id": "c", "choices": [{"index": 0, "message": TEN, "finish_reason": "stop"}]},
    "text completion": {"choices": [{"index": 0, "text": "Ten."}]},
    "choices alone": [{"index": 0, "finish_reason": "stop", "message": TEN}],
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "Ten."}]}, "finishReason": "STOP"}]},
    "gemini without a role": {"candidates": [{"content": {"parts": [{"text": "Ten."}]}}]},
    "anthropic": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Ten."}]},
    "responses": {
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "Ten."}]},
        ]
    },
    "langchain": {
        "generations": [[{"text": "Ten.", "message": {"lc": 1, "id": ["x", "AIMessage"], "kwargs": {"content": "Ten."}}}]]
    },
    "ollama": {"model": "m", "message": TEN, "done": True},
    "content alone": {"content": "Ten."},
    "other roles": {"role": "Assistant", "content": "Ten."},
}


@pytest.mark.parametrize("column", ["completion", "output"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_answer_in_a_response_is_the_completion(answer, column, lines):
    record = {"question": "5 + 5?", column: answer, "good": True}
    feedback = read(
        lines(record), prompt="question", completion=column, label={"column": "good", True: True, False: False}
    ).feedback
    assert feedback.select("prompt", "completion", "label").rows() == [("5 + 5?", "Ten.", True)]


def test_calls_and_reasoning_of_a_response_are_kept():
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Add."}]},
        {"type": "function_call", "id": "fc", "call_id": "call-1", "name": "add", "arguments": "{}"},
    ]
    turn = completion_of({"object": "response", "output": output}, "output")
    assert isinstance(turn, dict)
    assert (turn["reasoning_content"], turn["tool_calls"][0]["id"]) == ("Add.", "call-1")
    assert turn["tool_calls"][0]["function"]["name"] == "add"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"choices": [{"message": TEN}, {"message": TEN}]}, "several_answers"),
        ({"choices": []}, "several_answers"),
        ({"candidates": None}, "not_a_list"),
        ({"output": [{"type": "image_generation_call", "result": "x"}]}, "not_text"),
        ({"usage": {}}, "not_a_turn"),
        ({"output": [{"type": "reasoning", "summary": 1.5}]}, "not_a_list"),
    ],
)
def test_what_holds_no_single_answer_is_set_aside(answer, reason, lines):
    with pytest.raises(FormatError, match=f"{reason} 1"):
        read(lines({"prompt": "5 + 5?", "completion": answer, "label": True}))


def test_a_log_of_requests_is_read_by_paths(lines):
    record = {"request": {"messages": [{"role": "developer", "content": "Brief."}, {"role": "USER", "content": "5 + 5?"}]}}
    record |= {"response": ANSWERS["chat completion"], "feedback": "up"}
    label = {"column": "feedback", "up": True, "down": False}
    for completion in ("response", "response.choices.0.message", "response.choices.0.message.content"):
        feedback = read(lines(record), prompt="request.messages", completion=completion, label=label).feedback
        assert feedback.select("prompt", "completion").rows() == [("System: Brief.\n\nUser: 5 + 5?", "Ten.")]


def test_scores_in_an_object_are_columns_and_no_list_of_verdicts(lines):
    record = {"id": "b", "input": "5 + 5?", "output": ANSWERS["choices alone"], "scores": {"thumb": 1}, "metadata": {}}
    with pytest.raises(FormatError, match="unknown_format 1"):
        read(lines(record))
    settings = {"prompt": "input", "completion": "output", "label": {"column": "scores.thumb", 1: True, 0: False}}
    assert read(lines(record), **settings).feedback["completion"].to_list() == ["Ten."]


def run(number: int, inputs: Any, outputs: Any, score: Any) -> dict[str, Any]:
    verdict = {"key": "thumb", "score": score, "value": None, "feedback_source": {"type": "api", "user_id": None}}
    return {"id": f"r{number}", "inputs": inputs, "outputs": outputs, "feedback": [verdict]}


def test_runs_of_every_wrapper_are_read(lines):
    question = {"type": "human", "content": "5 + 5?"}
    constructor = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "HumanMessage"],
        "kwargs": {"content": "5 + 5?", "type": "human"},
    }
    path = lines(
        run(1, {"messages": [[constructor]]}, ANSWERS["langchain"], 1),
        run(2, {"messages": [question]}, {"messages": [question, {"type": "ai", "content": "Ten.", "tool_calls": []}]}, 1.0),
        run(3, {"messages": [{"role": "user", "content": "5 + 5?"}]}, ANSWERS["chat completion"], 1),
        run(4, {"question": "5 + 5?"}, {"answer": "Ten.", "documents": []}, 1),
        run(5, {"query": "5 + 5?"}, {"result": "Ten."}, 1),
        {**run(6, {"query": "5 + 5?"}, None, 1), "error": "timeout"},
    )
    result = read(path, label={"column": "thumb", 1: True, 0: False})
    assert result.feedback.select("prompt", "completion").rows() == [("5 + 5?", "Ten.")] * 5
    assert result.quarantine["detail"].to_list() == ["the run has no outputs: timeout"]


def task(data: Any, *results: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "data": data, "annotations": [{"completed_by": 1, "was_cancelled": False, "result": list(results)}]}


def test_controls_of_a_task_are_listed_and_asked_for_by_name(lines):
    choices = [
        {"from_name": name, "type": "choices", "value": {"choices": [value]}}
        for name, value in (("verdict", "good"), ("why", "short"))
    ]
    path = lines(task({"prompt": "5 + 5?", "completion": "Ten."}, *choices))
    with pytest.raises(LabelError, match=r"'verdict' by people .*'why' by people"):
        read(path)
    assert read(path, label={"column": "verdict", "good": True}).feedback["label"].to_list() == [True]
    chat = lines(task({"messages": [{"role": "user", "content": "5 + 5?"}, TEN]}, *choices), name="chat.jsonl")
    assert read(chat, label={"column": "verdict", "good": True}).feedback["completion"].to_list() == ["Ten."]


def compared(rater, side, **more):
    selected = {"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": side}}
    return {"completed_by": rater, "created_at": "2025-05-01T10:00:00Z", "result": [selected], **more}


def test_a_task_that_compares_two_answers_is_read_with_all_its_annotators(lines):
    """The first is cancelled, and the second is alone against two."""
    annotations = [compared(1, "left", was_cancelled=True), compared(2, "left"), compared(3, "right"), compared(4, "right")]
    path = lines({"id": 1, "data": {"prompt": "5 + 5?", "a": "11", "b": "Ten."}, "annotations": annotations})
    with pytest.raises(FormatError, match=r"pw compares two completions; say format: label_studio.*column: pw, left: first"):
        read(path)
    label = {"column": "pw", "left": "first", "right": "second"}
    result = read(path, format="label_studio", completion=["a", "b"], label=label)
    assert result.feedback.select("completion", "label").rows() == [("11", False), ("Ten.", True)]
    votes = [[(vote["rater"], vote["label"]) for vote in votes] for votes in result.feedback["votes"].to_list()]
    assert votes == [[("2", True), ("3", False), ("4", False)], [("2", False), ("3", True), ("4", True)]]
    assert result.metrics["not_kept"] == {"annotations[was_cancelled=True]": 1}


def test_annotators_who_differ_evenly_on_two_answers_give_both_labels(lines):
    annotations = [compared(2, "left"), compared(3, "right")]
    path = lines({"id": 1, "data": {"prompt": "5 + 5?", "a": "11", "b": "Ten."}, "annotations": annotations})
    label = {"column": "pw", "left": "first", "right": "second"}
    feedback = read(path, format="label_studio", completion=["a", "b"], label=label).feedback
    assert sorted(feedback.select("completion", "label", "rater").rows()) == [
        ("11", False, "3"),
        ("11", True, "2"),
        ("Ten.", False, "2"),
        ("Ten.", True, "3"),
    ]


def test_answers_and_scores_in_two_lists_are_labelled_by_a_threshold(lines):
    path = lines(
        {"prompt": "5 + 5?", "responses": ["Ten.", "11"], "scores": [4.5, 1]},
        {"instruction": "5 + 5?", "completions": ["Ten."], "scores": [4, 1]},
    )
    result = read(path, label={"column": "scores", "at_least": 3})
    assert result.feedback.select("completion", "label", "rating").rows() == [("Ten.", True, 4.5), ("11", False, 1.0)]
    assert result.quarantine["reason"].to_list() == ["scores_differ"]


def test_two_system_texts_that_differ_are_set_aside(lines):
    talk = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "5 + 5?"}, TEN]
    path = lines(*({"messages": talk, "system": system, "label": True} for system in ("Brief.", "At length.")))
    result = read(path)
    assert result.feedback["prompt"].to_list() == ["System: Brief.\n\nUser: 5 + 5?"]
    assert result.quarantine["reason"].to_list() == ["two_systems"]


def test_a_rater_that_is_no_name_is_no_crash(lines):
    scores = [{"name": "thumb", "dataType": "BOOLEAN", "value": 1, "authorUserId": rater} for rater in ([None], {"x": 1}, 7)]
    record = {"id": "t", "input": "5 + 5?", "output": "Ten.", "scores": scores}
    assert read(lines(record), label={"column": "thumb", 1: True}).feedback["label"].to_list() == [True]
