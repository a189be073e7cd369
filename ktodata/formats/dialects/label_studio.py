"""Label Studio's JSON export: tasks with data {prompt, completion} and annotations whose results are choices or ratings.

A choice is a text, so the recipe says what each means ({desirable: true, undesirable: false} for what is written here).
Which control is the label is said by `label.column`. Cancelled annotations are passed over, and so are comments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.feedback import LABEL_NAMES
from ktodata.formats.dialects.preference import SideVote, compared, most_say, parse_side
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.records import (
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    clip,
    kind,
    need,
    need_list,
    rater_name,
    votes_of_row,
)
from ktodata.formats.scores import PEOPLE, Score, chosen_scores, other_verdicts, verdict_of
from ktodata.formats.times import stamp
from ktodata.formats.turns import completion_of, conversation, prompt_of, row_completion, row_prompt
from ktodata.formats.unread_fields import unread, unread_of_rater

ANNOTATION = ("completed_by", "created_at", "was_cancelled")
RESULT = ("from_name", "to_name", "type", "value.choices", "value.rating", "value.selected")


def matches(record: Record, _fields: Fields) -> bool:
    return isinstance(record.get("data"), Mapping) and "annotations" in record


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    data = need(record, "data")
    if not isinstance(data, Mapping):
        raise UnusableError("not_an_object", f"data is {kind(data)}, not an object")
    scores = [score for item in need_list(need(record, "annotations"), "annotations") for score in _annotation_scores(item)]
    if "messages" in data and not fields.names_columns:
        texts: tuple[Prompt, str | Turn] = conversation(data["messages"], "messages", fields.judged)
        return [_labelled(texts, ("messages",), record, scores, fields)]
    columns = fields.prompt or ("prompt",)
    if len(fields.completion) == 2:
        return _compared(record, columns, scores, fields)
    if (control := _comparing_control(record["annotations"])) and not fields.names_columns:
        raise UnusableError(
            "two_completions",
            f"{control} compares two completions; say format: label_studio, prompt: and the two columns of data as completion: "
            f"[..., ...], and label: {{column: {control}, left: first, right: second}}",
        )
    column = fields.completion[0] if fields.completion else "completion"
    texts = prompt_of(data, columns), completion_of(need(data, column), column)
    return [_labelled(texts, (*columns, column), record, scores, fields)]


def _compared(record: Record, columns: Sequence[str], scores: list[Score], fields: Fields) -> list[LabelledCompletion]:
    """Both sides of a comparison, with what each annotator says. columns : of the prompt"""
    data = record["data"]
    sides = [(score, parse_side(score.value, fields, {})) for score in chosen_scores(scores, fields.label)]
    votes = [SideVote(score.rater, side, score.created_at) for score, side in sides if side is not None]
    completions = [completion_of(need(data, column), column) for column in fields.completion]
    first, second = compared(prompt_of(data, columns), completions, most_say([vote.side for vote in votes]), votes)
    first.not_kept = _passed_over(record, (*columns, *fields.completion), scores, fields)
    return [first, second]


def _labelled(
    texts: tuple[Prompt, str | Turn], columns: Sequence[str], record: Record, scores: list[Score], fields: Fields
) -> LabelledCompletion:
    """The completion with its verdict."""
    passed_over = _passed_over(record, columns, scores, fields)
    return LabelledCompletion(*texts, verdict_of(scores, fields.label), not_kept=passed_over)


def _passed_over(record: Record, columns: Sequence[str], scores: list[Score], fields: Fields) -> list[str]:
    """The names of what the task holds beside `columns` and the verdicts that count."""
    names = [*unread(record["data"], columns, "data"), *other_verdicts(scores, fields.label)]
    cancelled = [item for item in record["annotations"] if isinstance(item, Mapping) and item.get("was_cancelled")]
    for item in record["annotations"]:
        names += unread_of_rater(item.get("completed_by") if isinstance(item, Mapping) else None, "annotations[].completed_by")
    return names + (["annotations[was_cancelled=True]"] if cancelled else [])


def _comparing_control(annotations: Sequence[Any]) -> str | None:
    """The name of the first control that compares two texts."""
    results = [item["result"] for item in annotations if isinstance(item, Mapping) and isinstance(item.get("result"), list)]
    entries = [entry for result in results for entry in result if isinstance(entry, Mapping)]
    return next((clip(entry.get("from_name"), 60) for entry in entries if entry.get("type") == "pairwise"), None)


def _annotation_scores(annotation: Any) -> list[Score]:
    if not isinstance(annotation, Mapping) or annotation.get("was_cancelled"):
        return []
    rater, time = rater_name(annotation.get("completed_by")), annotation.get("created_at")
    results = need_list(annotation.get("result"), "result")
    values = [(result.get("from_name"), _result_value(result)) for result in results if isinstance(result, Mapping)]
    return [
        Score(str(name), value, PEOPLE, rater, time, f"annotations[].result[from_name={clip(name, 40)}]")
        for name, value in values
        if value is not None
    ]


def _result_value(result: Mapping[str, Any]) -> Any:
    """A rating, one choice, or several as one text: only a recipe can say what they mean together. None: a comment."""
    value = result.get("value")
    if not isinstance(value, Mapping) or not ("choices" in value or "rating" in value or "selected" in value):
        return None
    if "choices" not in value:
        return value.get("rating", value.get("selected"))
    choices = need_list(value["choices"], "choices")
    return choices[0] if len(choices) == 1 else " + ".join(map(str, choices)) or None


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    annotations = [
        {
            "completed_by": vote["rater"],
            "created_at": stamp(vote["created_at"]),
            "was_cancelled": False,
            "result": [
                {
                    "from_name": "label",
                    "to_name": "completion",
                    "type": "choices",
                    "value": {"choices": [LABEL_NAMES[vote["label"]]]},
                }
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
    holds=(*CONVERSATION, "votes", "rater", "created_at", "source_id"),
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
    settings={"label": {"column": "label", "desirable": True, "undesirable": False}},
    about={"source_id": "id"},
    names_verdicts=True,
    reads=("data", *(f"annotations[].{name}" for name in ANNOTATION), *(f"annotations[].result[].{name}" for name in RESULT)),
)
