"""LLaMA-Factory's ShareGPT form for KTO: messages (or conversations) that end with the judged answer, and kto_tag."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.fields import Fields
from ktodata.formats.format import Format, Row
from ktodata.formats.records import LabelledCompletion, Record, answer, conversation, need, row_turns


def _column(record: Record) -> str:
    return "messages" if "messages" in record else "conversations"


def matches(record: Record, fields: Fields) -> bool:
    return "conversations" in record or ("messages" in record and fields.has_label(record, "kto_tag"))


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    turns, completion = conversation(need(record, _column(record)), _column(record))
    return [LabelledCompletion(turns, completion, fields.verdict(record, "kto_tag"))]


def write(rows: Sequence[Row]) -> dict[str, Any]:
    return {"messages": [*row_turns(rows[0]), answer(rows[0]["completion"])], "kto_tag": rows[0]["label"]}


LLAMAFACTORY_SHAREGPT = Format(
    name="llamafactory_sharegpt",
    matches=matches,
    read=read,
    write=write,
    holds=("prompt", "completion", "label", "turns"),
    example={
        "messages": [{"role": "user", "content": "What colour is the sky?"}, {"role": "assistant", "content": "Blue."}],
        "kto_tag": True,
    },
)
