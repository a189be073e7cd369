"""Any other record, read by the columns that the recipe names; written, the feedback table's own column names."""

from collections.abc import Collection, Sequence
from typing import Any

from ktodata.formats.dialects import judged_turns
from ktodata.formats.dialects.judged_turns import EACH
from ktodata.formats.file_types.strict_json import parse_json_text
from ktodata.formats.format import CONVERSATION, Fields, Format, Row, TextColumns
from ktodata.formats.records import LabelledCompletion, Record, Turn, need
from ktodata.formats.times import stamp
from ktodata.formats.turns import completion_of, conversation, holds_messages, prompt_of, row_completion, row_prompt, turns_of

TEXTS = ("rater", "source_id", "pair_id", "model")
ABOUT = ("rater", "created_at", "source_id", "source", "pair_id", "model")


def matches(_record: Record, _fields: Fields) -> bool:
    return True


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    if fields.messages and EACH in (fields.label.column or ""):
        return judged_turns.read(record, fields)
    if fields.messages:
        return [LabelledCompletion(*_conversation(record, fields.messages, fields), fields.verdict(record))]
    column = fields.completion[0] if fields.completion else "completion"
    completion = completion_of(need(record, column), column)
    return [LabelledCompletion(prompt_of(record, fields.prompt or ("prompt",)), completion, fields.verdict(record))]


def _conversation(record: Record, column: str, fields: Fields) -> tuple[list[Turn], str | Turn]:
    """The column's turns and the judged answer: the last of them, or what stands in the column of the completion."""
    turns = parse_json_text(need(record, column), column)
    if not fields.completion:
        return conversation(turns, column, fields.judged)
    name = fields.completion[0]
    answer = need(record, name)
    return turns_of(turns, column), completion_of(parse_json_text(answer, name) if holds_messages(answer) else answer, name)


def plain_texts(_keys: Collection[str], fields: Fields) -> TextColumns | None:
    if fields.messages or fields.message_columns:
        return None
    return TextColumns(fields.prompt or ("prompt",), fields.completion[0] if fields.completion else "completion")


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    judged = {"prompt": row_prompt(row), "completion": row_completion(row), "label": row["label"]}
    about = {name: row[name] for name in TEXTS} | {"created_at": stamp(row["created_at"]), "source": row["source"]}
    return judged | about | {"trusted_label": row["trusted_label"]}


MAPPING = Format(
    name="mapping",
    matches=matches,
    read=read,
    plain_texts=plain_texts,
    write=write,
    takes_columns=True,
    holds=(*CONVERSATION, *ABOUT, "trusted_label"),
    texts=("prompt", "completion"),
    own_label="label",
    example={
        "prompt": "What colour is the sky?",
        "completion": "Blue.",
        "label": True,
        "rater": "ann",
        "source_id": "q-1",
        "pair_id": None,
        "model": "small",
        "created_at": "2025-05-01T10:00:00Z",
        "source": "survey",
        "trusted_label": True,
    },
    settings={name: name for name in ABOUT} | {"trusted": "trusted_label"},
)
