"""Label Studio's JSON export: tasks with data {prompt, completion} and annotations whose results are choices or ratings.

A choice is a text, so the recipe says what each means ({desirable: true, undesirable: false} for what is written here).
Cancelled annotations are passed over, and so are results of other controls than `label.column`, where that is given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import (
    LabelledCompletion,
    Record,
    UnusableError,
    Verdict,
    Vote,
    need,
    need_list,
    rater_name,
    votes_of_row,
)
from ktodata.formats.times import stamp
from ktodata.formats.turns import completion_of, prompt_of, row_completion, row_prompt

CHOICES = {True: "desirable", False: "undesirable"}


def matches(record: Record, _fields: Fields) -> bool:
    return isinstance(record.get("data"), Mapping) and "annotations" in record


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    data = need(record, "data")
    prompt = prompt_of(data, fields.prompt or ("prompt",))
    column = fields.completion[0] if fields.completion else "completion"
    votes = [vote for item in need_list(record["annotations"], "annotations") for vote in _annotation_votes(item, fields)]
    return [LabelledCompletion(prompt, completion_of(need(data, column), column), Verdict.by_votes(votes))]


def _annotation_votes(annotation: Any, fields: Fields) -> list[Vote]:
    if not isinstance(annotation, Mapping) or annotation.get("was_cancelled"):
        return []
    values = [_result_value(result, fields) for result in need_list(annotation.get("result"), "result")]
    labels = [fields.label.truth(value) for value in values if value is not None]
    rater = rater_name(annotation.get("completed_by"))
    return [Vote(rater, label, annotation.get("created_at")) for label in labels if label is not None]


def _result_value(result: Any, fields: Fields) -> Any:
    if not isinstance(result, Mapping) or fields.label.column not in (None, result.get("from_name")):
        return None
    value = result.get("value")
    if not isinstance(value, Mapping) or not ("choices" in value or "rating" in value):
        return None
    if "rating" in value:
        return value["rating"]
    choices = need_list(value["choices"], "choices")
    if len(choices) > 1:
        raise UnusableError("label_unmapped", f"{len(choices)} choices were made at once")
    return choices[0] if choices else None


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    annotations = [
        {
            "completed_by": vote["rater"],
            "created_at": stamp(vote["created_at"]),
            "was_cancelled": False,
            "result": [
                {"from_name": "label", "to_name": "completion", "type": "choices", "value": {"choices": [CHOICES[vote["label"]]]}}
            ],
        }
        for vote in votes_of_row(row)
    ]
    data = {"prompt": row_prompt(row), "completion": row_completion(row)}
    return {"id": row["source_id"] or row["row_id"], "data": data, "annotations": annotations}


LABEL_STUDIO = Format(
    name="label_studio",
    matches=matches,
    read=read,
    write=write,
    takes_columns=True,
    holds=(
        "prompt",
        "completion",
        "label",
        "turns",
        "answer",
        "tools",
        "chat_template_kwargs",
        "votes",
        "rater",
        "created_at",
        "source_id",
    ),
    example={
        "id": "task-1",
        "data": {"prompt": "What colour is the sky?", "completion": "Blue."},
        "annotations": [
            {
                "completed_by": "ann",
                "created_at": "2025-05-01T10:00:00Z",
                "was_cancelled": False,
                "result": [
                    {"from_name": "label", "to_name": "completion", "type": "choices", "value": {"choices": ["desirable"]}}
                ],
            }
        ],
    },
    settings={"label": {"desirable": True, "undesirable": False}},
    about={"source_id": "id"},
)
