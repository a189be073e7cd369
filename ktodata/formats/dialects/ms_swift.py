"""ms-swift's rows: messages that end with the judged answer, or query, response and history; for KTO and in pairs."""

from collections.abc import Collection, Sequence
from typing import Any

from ktodata.formats.dialects.llamafactory import history_turns
from ktodata.formats.dialects.pairs import better_and_worse, labelled_pair, same_prompt
from ktodata.formats.format import CONVERSATION, Fields, Format, Row, TextColumns
from ktodata.formats.records import LabelledCompletion, Prompt, Record, Turn, need, text
from ktodata.formats.turns import answer_turn, completion_of, conversation, prompt_of, row_turns
from ktodata.formats.unread_fields import passed_over

QUERY = ("query", "response", "history")
REJECTED = ("rejected_response", "rejected_messages")


def _is_swift(record: Record) -> bool:
    return "messages" in record or ("query" in record and "response" in record)


def matches(record: Record, fields: Fields) -> bool:
    return _is_swift(record) and fields.has_label(record) and not any(record.get(name) is not None for name in REJECTED)


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """ms-swift's KTO rows: messages that end with the judged answer, or query, response and history; and label."""
    return [LabelledCompletion(*_answered(record, fields), fields.verdict(record), not_kept=_passed_over(record))]


def _passed_over(record: Record) -> list[str]:
    """Columns of the form that the record is not read in."""
    return passed_over(record, QUERY, ()) if record.get("messages") is not None else []


def _answered(record: Record, fields: Fields) -> tuple[Prompt, str | Turn]:
    if record.get("messages") is not None:
        return conversation(record["messages"], "messages", fields.judged)
    query = prompt_of(record, ("query",))
    if isinstance(query, str) and (before := history_turns(record.get("history"))):
        query = [*before, {"role": "user", "content": query}]
    return query, completion_of(need(record, "response"), "response")


def plain_texts(keys: Collection[str], _fields: Fields) -> TextColumns | None:
    return None if "messages" in keys or "history" in keys else TextColumns(("query",), "response")


def write(rows: Sequence[Row]) -> dict[str, Any]:
    return {"messages": [*row_turns(rows[0]), answer_turn(rows[0])], "label": rows[0]["label"]}


MS_SWIFT = Format(
    name="ms_swift",
    matches=matches,
    read=read,
    plain_texts=plain_texts,
    looks_into=REJECTED,
    write=write,
    holds=CONVERSATION,
    texts=("messages", *QUERY),
    own_label="label",
    example={
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What colour is the sky?"},
            {"role": "assistant", "content": "Blue."},
        ],
        "label": True,
    },
)


def is_paired(record: Record, _fields: Fields) -> bool:
    return _is_swift(record) and any(record.get(name) is not None for name in REJECTED)


def read_paired(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """ms-swift's pairs: messages that end with the better answer, and rejected_response, or rejected_messages as a whole."""
    prompt, better = _answered(record, fields)
    worse: str | Turn
    if record.get(used := "rejected_messages") is not None:
        other, worse = conversation(record[used], used)
        prompt = same_prompt(prompt, other)
    else:
        used = "rejected_response"
        worse = text(record[used], used)
    first, second = labelled_pair(prompt, better, worse)
    first.not_kept = [*_passed_over(record), *passed_over(record, REJECTED, (used,))]
    return [first, second]


def write_paired(rows: Sequence[Row]) -> dict[str, Any]:
    better, worse = better_and_worse(rows)
    return {"messages": [*row_turns(better), answer_turn(better)], "rejected_response": worse["completion"]}


MS_SWIFT_PAIRED = Format(
    name="ms_swift_paired",
    matches=is_paired,
    read=read_paired,
    looks_into=REJECTED,
    write=write_paired,
    group="pair_id",
    holds=("prompt", "completion", "label", "turns"),
    texts=("messages", *QUERY, *REJECTED),
    example={
        "messages": [{"role": "user", "content": "What colour is the sky?"}, {"role": "assistant", "content": "Blue."}],
        "rejected_response": "Green.",
    },
)
