"""HALOs feedback (ContextualAI): prompt and output as turns, label 0/1, a reward; one output (binary) or two (pairwise).

What is written is binary_feedback. HALOs always reads `reward`, so the label stands there too, as 0.0 or 1.0.
"""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.dialects.pairs import labelled_pair
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.label_rules import BOOLEANS, Meanings
from ktodata.formats.records import LabelledCompletion, Record, UnusableError, kind, need, text_id
from ktodata.formats.turns import answer_turn, completion_of, row_turns, turns_of

ZERO_ONE: Meanings = {(int, 1): True, (int, 0): False, **BOOLEANS}
TYPES = ("binary_feedback", "pairwise_feedback")


def matches(record: Record, _fields: Fields) -> bool:
    return isinstance(record.get("type"), str) and record["type"] in TYPES


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    turns = turns_of(need(record, "prompt"), "prompt")
    if record.get("type") == "pairwise_feedback":
        return _read_pair(record, turns)
    return [LabelledCompletion(turns, completion_of(need(record, "output"), "output"), fields.verdict(record, own=ZERO_ONE))]


def _read_pair(record: Record, turns: list[dict[str, str]]) -> list[LabelledCompletion]:
    first, second = (completion_of(need(record, side), side) for side in ("output_A", "output_B"))
    label = need(record, "label")
    if (type(label), label) == (int, 1):
        return labelled_pair(turns, first, second)
    if (type(label), label) == (int, 0):
        return labelled_pair(turns, second, first)
    raise UnusableError("label_unmapped", f"the label of a pair is 1 (A is better) or 0 (B is); this is {kind(label)}")


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    return {
        "prompt_id": text_id(row["prompt"]),
        "prompt": row_turns(row),
        "output": [answer_turn(row)],
        "label": int(row["label"]),
        "reward": float(row["label"]),
        "type": "binary_feedback",
    }


HALOS = Format(
    name="halos",
    matches=matches,
    looks_into=("type",),
    read=read,
    write=write,
    holds=CONVERSATION,
    reads=("type", "label"),
    texts=("prompt", "output", "output_A", "output_B"),
    example={
        "prompt_id": text_id("What colour is the sky?"),
        "prompt": [{"role": "user", "content": "What colour is the sky?"}],
        "output": [{"role": "assistant", "content": "Blue."}],
        "label": 1,
        "reward": 1.0,
        "type": "binary_feedback",
    },
)
