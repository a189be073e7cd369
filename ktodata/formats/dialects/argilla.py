"""Argilla's export: fields {prompt, completion} and responses to a question, nested or flattened ("label.responses").

An answer is a text, so the recipe says what each means ({desirable: true, undesirable: false} for what is written here).
Only submitted responses are votes; suggestions are a model's word and no vote. Argilla exports no time of a response.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ktodata.formats.dialects.label_studio import CHOICES
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
from ktodata.formats.turns import completion_of, prompt_of, row_completion, row_prompt

Response = tuple[Any, Any, Any]  # value, user, status


def matches(record: Record, fields: Fields) -> bool:
    nested = isinstance(record.get("fields"), Mapping) and "responses" in record
    return nested or f"{fields.label_column()}.responses" in record


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    texts = record["fields"] if isinstance(record.get("fields"), Mapping) else record
    prompt = prompt_of(texts, fields.prompt or ("prompt",))
    column = fields.completion[0] if fields.completion else "completion"
    submitted = [(value, user) for value, user, status in _responses(record, fields) if status in (None, "submitted")]
    labels = [(rater_name(user), fields.label.truth(value)) for value, user in submitted]
    votes = [Vote(rater, label) for rater, label in labels if label is not None]
    return [LabelledCompletion(prompt, completion_of(need(texts, column), column), Verdict.by_votes(votes))]


def _responses(record: Record, fields: Fields) -> Iterator[Response]:
    question = fields.label_column()
    if "responses" not in record:
        names = (f"{question}.responses", f"{question}.responses.users", f"{question}.responses.status")
        return zip_longest(*(need_list(record.get(name) or [], name) for name in names))
    answers = record["responses"].get(question) if isinstance(record["responses"], Mapping) else None
    return (_parse_response(item) for item in need_list(answers or [], f"responses to {question!r}"))


def _parse_response(item: Any) -> Response:
    if not isinstance(item, Mapping):
        raise UnusableError("not_a_response", "responses hold something that is not an object with a value")
    return item.get("value"), item.get("user_id"), item.get("status")


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    responses = [{"value": CHOICES[vote["label"]], "user_id": vote["rater"], "status": "submitted"} for vote in votes_of_row(row)]
    fields = {"prompt": row_prompt(row), "completion": row_completion(row)}
    return {"id": row["source_id"] or row["row_id"], "status": "completed", "fields": fields, "responses": {"label": responses}}


ARGILLA = Format(
    name="argilla",
    matches=matches,
    read=read,
    write=write,
    takes_columns=True,
    holds=("prompt", "completion", "label", "turns", "answer", "tools", "chat_template_kwargs", "rater", "source_id"),
    example={
        "id": "record-1",
        "status": "completed",
        "fields": {"prompt": "What colour is the sky?", "completion": "Blue."},
        "responses": {"label": [{"value": "desirable", "user_id": "ann", "status": "submitted"}]},
    },
    settings={"label": {"desirable": True, "undesirable": False}},
    about={"source_id": "id"},
)
