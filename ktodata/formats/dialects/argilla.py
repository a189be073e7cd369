"""Argilla's export: fields {prompt, completion} and responses to a question, nested or flattened ("label.responses").

An answer is a text, so the recipe says what each means ({desirable: true, undesirable: false} for what is written here).
Only submitted responses are votes; suggestions are a model's word and no vote. Argilla exports no time of a response; what is
pulled from it has one.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ktodata.feedback import LABEL_NAMES
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.records import (
    LabelledCompletion,
    Record,
    UnusableError,
    clip,
    need,
    need_list,
    rater_name,
    votes_of_row,
)
from ktodata.formats.scores import PEOPLE, Score, other_verdicts, verdict_of
from ktodata.formats.turns import completion_of, prompt_of, row_completion, row_prompt
from ktodata.formats.unread_fields import unread

RESPONSE = ("value", "user_id", "status")
TIMES = ("updated_at", "inserted_at")
FLATTENED_ENDS = ("", ".users", ".status")


def matches(record: Record, _fields: Fields) -> bool:
    nested = isinstance(record.get("fields"), Mapping) and "responses" in record
    return nested or any(name.endswith(".responses") for name in record)


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    scores = _scores(record)
    verdict = verdict_of(scores, fields.label)  # first: which it is can be asked whatever the texts are called
    texts = record["fields"] if isinstance(record.get("fields"), Mapping) else record
    columns = fields.prompt or ("prompt",)
    column = fields.completion[0] if fields.completion else "completion"
    prompt, completion = prompt_of(texts, columns), completion_of(need(texts, column), column)
    names = [] if texts is record else unread(texts, (*columns, column), "fields")
    names += other_verdicts(scores, fields.label)
    return [LabelledCompletion(prompt, completion, verdict, not_kept=names)]


def _scores(record: Record) -> list[Score]:
    """Every submitted answer to every question."""
    is_nested = isinstance(record.get("responses"), Mapping)
    answers = record["responses"] if is_nested else _flattened_answers(record)
    path = "responses.{}" if is_nested else "{}.responses"
    return [
        _score(str(question), item, path.format(clip(question, 40)))
        for question, items in answers.items()
        for item in need_list([] if items is None else items, f"responses to {question!r}")
        if _is_submitted(item)
    ]


def _score(question: str, response: Mapping[str, Any], path: str) -> Score:
    at = response.get("updated_at") or response.get("inserted_at")
    return Score(question, response.get("value"), PEOPLE, rater_name(response.get("user_id")), at, path=path)


def _is_submitted(item: Any) -> bool:
    if not isinstance(item, Mapping):
        raise UnusableError("not_a_response", "responses hold something that is not an object with a value")
    return item.get("status") in (None, "submitted")


def _flattened_answers(record: Record) -> dict[str, list[dict[str, Any]]]:
    """What Argilla writes as columns: QUESTION.responses, with QUESTION.responses.users and .status beside it."""
    questions = [name.removesuffix(".responses") for name in record if name.endswith(".responses")]
    lists = {name: [need_list(record.get(f"{name}.responses{end}") or [], name) for end in FLATTENED_ENDS] for name in questions}
    return {name: [dict(zip(RESPONSE, item, strict=True)) for item in zip_longest(*columns)] for name, columns in lists.items()}


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    responses = [
        {"value": LABEL_NAMES[vote["label"]], "user_id": vote["rater"], "status": "submitted"} for vote in votes_of_row(row)
    ]
    fields = {"prompt": row_prompt(row), "completion": row_completion(row)}
    return {"id": row["source_id"] or row["row_id"], "status": "completed", "fields": fields, "responses": {"label": responses}}


ARGILLA = Format(
    name="argilla",
    matches=matches,
    read=read,
    write=write,
    takes_columns=True,
    holds=(*CONVERSATION, "rater", "source_id"),
    example={
        "id": "record-1",
        "status": "completed",
        "fields": {"prompt": "What colour is the sky?", "completion": "Blue."},
        "responses": {"label": [{"value": "desirable", "user_id": "ann", "status": "submitted"}]},
    },
    settings={"label": {"column": "label", "desirable": True, "undesirable": False}},
    about={"source_id": "id"},
    names_verdicts=True,
    texts=("prompt", "completion"),
    reads=(
        "fields",
        "status",
        *(f"responses.*[].{name}" for name in (*RESPONSE, *TIMES)),
        *(f"*.responses{end}" for end in FLATTENED_ENDS),
    ),
)
