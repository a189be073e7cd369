"""TRL's unpaired preference: prompt, completion, label; text, or lists of turns."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.fields import Fields
from ktodata.formats.format import Format, Row
from ktodata.formats.records import LabelledCompletion, Record, answer, completion_of, need, prompt_of


def matches(record: Record, _fields: Fields) -> bool:
    return "prompt" in record and "completion" in record


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    completion = completion_of(need(record, "completion"), "completion")
    return [LabelledCompletion(prompt_of(record, ("prompt",)), completion, fields.verdict(record))]


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    if row["turns"] is None:
        return {"prompt": row["prompt"], "completion": row["completion"], "label": row["label"]}
    return {"prompt": row["turns"], "completion": [answer(row["completion"])], "label": row["label"]}


TRL = Format(
    name="trl",
    matches=matches,
    read=read,
    write=write,
    holds=("prompt", "completion", "label", "turns"),
    example={
        "prompt": [{"role": "user", "content": "What colour is the sky?"}],
        "completion": [{"role": "assistant", "content": "Blue."}],
        "label": True,
    },
)
