"""Pairs as the providers' preference tuning takes them: OpenAI, Fireworks and Together; Vertex AI."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.dialects.pairs import better_and_worse, labelled_pair
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.records import CannotHoldError, LabelledCompletion, Record, Turn, UnusableError, kind, need, need_list
from ktodata.formats.turns import answer_turn, completion_of, is_plain, row_turns, turns_of
from ktodata.formats.unread_fields import passed_over, unread

SIDES = ("preferred_output", "non_preferred_output")


def is_openai(record: Record, _fields: Fields) -> bool:
    return "input" in record and all(side in record for side in SIDES)


def read_openai(record: Record, _fields: Fields) -> list[LabelledCompletion]:
    """OpenAI's preference tuning, which Fireworks and Together share: input.messages, preferred_output, non_preferred_output."""
    given = record["input"]
    if not isinstance(given, list | Mapping):
        raise UnusableError("no_prompt", f"input is {kind(given)}, not an object with messages")
    turns = turns_of(given if isinstance(given, list) else need(given, "messages"), "input.messages")
    better, worse = (completion_of(record[side], side) for side in SIDES)
    first, second = labelled_pair(turns, better, worse)
    if isinstance(given, Mapping):
        first.tools = second.tools = given.get("tools")
        first.not_kept = unread(given, ("messages", "tools"), "input")
    return [first, second]


def write_openai(rows: Sequence[Row]) -> dict[str, Any]:
    better, worse = better_and_worse(rows)
    sides = {side: [answer_turn(row)] for side, row in zip(SIDES, (better, worse), strict=True)}
    return {"input": {"messages": row_turns(better)}, **sides}


OPENAI_PREFERENCE = Format(
    name="openai_preference",
    matches=is_openai,
    read=read_openai,
    write=write_openai,
    group="pair_id",
    holds=CONVERSATION,
    texts=("input", *SIDES),
    example={
        "input": {"messages": [{"role": "user", "content": "What colour is the sky?"}]},
        "preferred_output": [{"role": "assistant", "content": "Blue."}],
        "non_preferred_output": [{"role": "assistant", "content": "Green."}],
    },
)

INSTRUCTIONS = ("systemInstruction", "system_instruction")
VERTEX_ROLES = {"user": "user", "assistant": "model"}


def is_vertex(record: Record, _fields: Fields) -> bool:
    return "contents" in record and "completions" in record


def read_vertex(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Vertex AI's preference tuning: contents, and completions with a score each.

    Two completions of different scores are a pair, the higher the better one. More, or `label: {column: score, at_least: ...}`,
    are labelled one by one.
    """
    turns = [*_instruction(record), *turns_of(record["contents"], "contents")]
    entries = need_list(record["completions"], "completions")
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise UnusableError("not_text", "completions holds something that is not an object of score and completion")
    answers = [completion_of(need(entry, "completion"), "completion") for entry in entries]
    if fields.label.column is None and not fields.label.is_given and len(entries) == 2:
        judged = _pair_by_score(turns, answers, [need(entry, "score") for entry in entries])
    else:
        judged = [
            LabelledCompletion(turns, answer, fields.rated(entry, "score"))
            for answer, entry in zip(answers, entries, strict=True)
        ]
    for first in judged[:1]:
        first.not_kept = _unread_of_vertex(record, fields)
    return judged


def _unread_of_vertex(record: Record, fields: Fields) -> list[str]:
    read = ("[].completion", *(f"[].{column}" for column in fields.verdict_columns("score")))
    used = _instruction_column(record)
    instruction = [] if used is None else unread(record[used], ("role", "parts"), used)
    return [*unread(record["completions"], read, "completions"), *instruction, *passed_over(record, INSTRUCTIONS, (used or "",))]


def _instruction_column(record: Record) -> str | None:
    return next((name for name in INSTRUCTIONS if record.get(name)), None)


def _instruction(record: Record) -> list[Turn]:
    if (column := _instruction_column(record)) is None:
        return []
    value = record[column]
    parts = value.get("parts") if isinstance(value, Mapping) else [value]
    return turns_of([{"parts": parts, "role": "system"}], "systemInstruction")


def _pair_by_score(turns: list[Turn], answers: Sequence[str | Turn], scores: Sequence[Any]) -> list[LabelledCompletion]:
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise UnusableError("label_unmapped", f"the score of a completion is a number; this is {kind(score)}")
    if scores[0] == scores[1]:
        raise UnusableError("tie", "neither completion is better")
    better, worse = answers if scores[0] > scores[1] else reversed(answers)
    return labelled_pair(turns, better, worse)


def write_vertex(rows: Sequence[Row]) -> dict[str, Any]:
    better_and_worse(rows)
    turns = row_turns(rows[0])
    dialogue = turns[1:] if turns[0]["role"] == "system" else turns
    completions = [{"score": int(row["label"]), "completion": _content(answer_turn(row))} for row in rows]
    record = {"contents": [_content(turn) for turn in dialogue], "completions": completions}
    return record if dialogue is turns else {"systemInstruction": {"parts": [{"text": turns[0]["content"]}]}, **record}


def _content(turn: Turn) -> dict[str, Any]:
    if turn["role"] not in VERTEX_ROLES or not is_plain(turn):
        raise CannotHoldError("only texts of user and model have a place in it")
    return {"role": VERTEX_ROLES[turn["role"]], "parts": [{"text": turn["content"]}]}


VERTEX_PREFERENCE = Format(
    name="vertex_preference",
    matches=is_vertex,
    read=read_vertex,
    write=write_vertex,
    group="pair_id",
    holds=("prompt", "completion", "label", "turns"),
    texts=("contents", *INSTRUCTIONS),
    reads=("completions",),
    example={
        "contents": [{"role": "user", "parts": [{"text": "What colour is the sky?"}]}],
        "completions": [
            {"score": 1, "completion": {"role": "model", "parts": [{"text": "Blue."}]}},
            {"score": 0, "completion": {"role": "model", "parts": [{"text": "Green."}]}},
        ],
    },
)
