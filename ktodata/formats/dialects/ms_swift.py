"""ms-swift's KTO rows: messages that end with the judged answer, and label; never a rejected_response."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import LabelledCompletion, Record, need
from ktodata.formats.turns import answer_turn, conversation, row_turns


def matches(record: Record, fields: Fields) -> bool:
    return "messages" in record and fields.has_label(record) and "rejected_response" not in record


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    turns, completion = conversation(need(record, "messages"), "messages")
    return [LabelledCompletion(turns, completion, fields.verdict(record))]


def write(rows: Sequence[Row]) -> dict[str, Any]:
    return {"messages": [*row_turns(rows[0]), answer_turn(rows[0])], "label": rows[0]["label"]}


MS_SWIFT = Format(
    name="ms_swift",
    matches=matches,
    read=read,
    write=write,
    holds=("prompt", "completion", "label", "turns", "answer", "tools", "chat_template_kwargs"),
    example={
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What colour is the sky?"},
            {"role": "assistant", "content": "Blue."},
        ],
        "label": True,
    },
)
