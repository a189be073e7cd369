"""Arize Phoenix: spans with their annotations, as the API gives both."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ktodata.formats.dialects.traces.trace_texts import judged_answer, trace_id, verdict_entries
from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import (
    CannotHoldError,
    LabelledCompletion,
    Record,
    Turn,
    UnusableError,
    need,
    rater_name,
    votes_of_row,
)
from ktodata.formats.scores import MODELS, PEOPLE, Score
from ktodata.formats.times import stamp
from ktodata.formats.turns import answer_turn, row_turns

INPUT, OUTPUT = "llm.input_messages", "llm.output_messages"
ANNOTATION = ("name", "annotator_kind", "identifier", "user_id", "updated_at", "result.label", "result.score")
HELD_OF_TURN = {"role", "content", "name", "tool_call_id", "tool_calls"}


def is_phoenix(record: Record, _fields: Fields) -> bool:
    return all(name in record for name in ("attributes", "span_kind")) and isinstance(record.get("annotations"), list)


def read_phoenix(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Phoenix: a span (id, attributes as OpenInference names them) with its annotations.

    The verdict is an annotation's label, or its score where it has no label. Say which annotation is the label, and what its
    values mean: label: {column: thumb, up: true, down: false}. Those of LLM and CODE are a model's.
    """
    flat = need(record, "attributes")
    if not isinstance(flat, Mapping):
        raise UnusableError("no_text", "attributes is no object")
    attributes = nested(flat)
    llm = _object(attributes.get("llm"))
    prompt, answers = _chat_turns(llm.get("input_messages")), _chat_turns(llm.get("output_messages"))
    logged = prompt or _logged_value(attributes.get("input"))
    output = answers[-1:] or _logged_value(attributes.get("output"))
    scores = [_annotation_score(item) for item in verdict_entries(record["annotations"], "annotations")]
    used = (INPUT if prompt else "input", OUTPUT if answers else "output", "llm.tools")
    not_read = {re.sub(r"\.\d+(?=\.|$)", "[]", name) for name in flat if not name.startswith(tuple(f"{path}." for path in used))}
    names = [f"attributes.{name}" for name in sorted(not_read)]
    return judged_answer(logged, output, ("input", "output"), scores, fields.label, names, _tools(llm))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _annotation_score(annotation: Mapping[str, Any]) -> Score:
    result = _object(annotation.get("result"))
    value = result.get("label") if result.get("label") is not None else result.get("score")
    by, name = PEOPLE if annotation.get("annotator_kind") == "HUMAN" else MODELS, str(annotation.get("name"))
    person = rater_name(annotation.get("user_id") or annotation.get("identifier") or None)
    return Score(name, value, by, person if by == PEOPLE else f"model {name}", annotation.get("updated_at"))


def _tools(llm: Mapping[str, Any]) -> Any:
    """The tools that the model was given: each is its schema, as JSON text."""
    listed = llm.get("tools")
    tools = [item.get("tool") for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    schemas = [tool.get("json_schema") for tool in tools if isinstance(tool, Mapping)]
    try:
        return [json.loads(schema) if isinstance(schema, str) else schema for schema in schemas] or None
    except ValueError as error:
        raise UnusableError("tools", f"the schema of a tool is no JSON: {error}") from error


def nested(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Flat attributes as objects in objects; numbered ones are lists."""
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        *path, last = name.split(".")
        inside = tree
        for part in path:
            step = inside.setdefault(part, {})
            inside = step if isinstance(step, dict) else {}
        inside[last] = value
    return {name: _listed(value) for name, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return [_listed(item) for item in value] if isinstance(value, list) else value
    if value and all(key.isdecimal() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(item) for key, item in value.items()}


def _chat_turns(messages: Any) -> list[dict[str, Any]]:
    """OpenInference's messages as chat turns."""
    turns = [item["message"] for item in messages or () if isinstance(item, Mapping) and isinstance(item.get("message"), Mapping)]
    return [_turn(message) for message in turns]


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    parts = [item.get("message_content") or {} for item in message.get("contents") or ()]
    turn = {name: value for name, value in message.items() if name not in ("contents", "tool_calls")}
    turn.setdefault("content", None)
    if parts and turn["content"] is None:
        turn["content"] = [{"type": part.get("type"), "text": part.get("text")} for part in parts]
    calls = [item.get("tool_call") or {} for item in message.get("tool_calls") or ()]
    return turn | ({"tool_calls": [{"type": "function", **call} for call in calls]} if calls else {})


def _logged_value(logged: Any) -> Any:
    """Input or output: its value, parsed where its mime type says JSON."""
    if not isinstance(logged, Mapping):
        return logged
    try:
        return json.loads(logged["value"]) if logged.get("mime_type") == "application/json" else logged.get("value")
    except (ValueError, TypeError, KeyError):
        return logged.get("value")


def write_phoenix(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    attributes = dict(_flat_turns(INPUT, row_turns(row))) | dict(_flat_turns(OUTPUT, [answer_turn(row)]))
    for number, tool in enumerate(json.loads(row["tools"]) if row["tools"] else ()):
        attributes[f"llm.tools.{number}.tool.json_schema"] = json.dumps(tool, ensure_ascii=False)
    annotations = [
        {
            "name": "feedback",
            "annotator_kind": "HUMAN",
            "identifier": vote["rater"],
            "result": {"label": None, "score": float(vote["label"])},
            "updated_at": stamp(vote["created_at"]),
        }
        for vote in votes_of_row(row)
    ]
    return {"id": trace_id(row), "span_kind": "LLM", "attributes": attributes, "annotations": annotations}


def _flat_turns(name: str, turns: Sequence[Turn]) -> Iterator[tuple[str, Any]]:
    """Turns as OpenInference's flat attributes."""
    for number, turn in enumerate(turns):
        if lost := {field for field, value in turn.items() if value is not None} - HELD_OF_TURN:
            raise CannotHoldError(f"OpenInference has no place for {sorted(lost)[0]}")
        place = f"{name}.{number}.message"
        yield from (
            (f"{place}.{field}", turn[field])
            for field in ("role", "content", "name", "tool_call_id")
            if turn.get(field) is not None
        )
        for position, call in enumerate(turn.get("tool_calls") or ()):
            of_call = f"{place}.tool_calls.{position}.tool_call"
            yield f"{of_call}.function.name", call["function"]["name"]
            arguments = call["function"].get("arguments")
            yield f"{of_call}.function.arguments", arguments if isinstance(arguments, str) else json.dumps(arguments)
            if call.get("id") is not None:
                yield f"{of_call}.id", call["id"]


PHOENIX = Format(
    name="phoenix",
    matches=is_phoenix,
    read=read_phoenix,
    write=write_phoenix,
    holds=("prompt", "completion", "label", "turns", "answer", "tools", "votes", "rater", "created_at", "source_id"),
    reads=("span_kind", "attributes", *(f"annotations[].{name}" for name in ANNOTATION)),
    names_verdicts=True,
    example={
        "id": "0f3a9c2b7d41e856",
        "span_kind": "LLM",
        "attributes": {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": "What colour is the sky?",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "Blue.",
        },
        "annotations": [
            {
                "name": "feedback",
                "annotator_kind": "HUMAN",
                "identifier": "ann",
                "result": {"label": None, "score": 1.0},
                "updated_at": "2025-05-01T10:00:00Z",
            }
        ],
    },
    settings={"label": {"column": "feedback", 1.0: True, 0.0: False}},
    about={"source_id": "id"},
)
