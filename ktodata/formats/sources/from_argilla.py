"""Argilla: the records of a dataset that somebody responded to.

A record is {id, fields, metadata, status, responses: {question: [{value, user_id, status, updated_at}]}, suggestions:
{question: [{value, agent, score}]}, ...} as its export has it and the format `argilla` reads it; `id` is the record's external
id where it has one. Records without a response are no records.

Asked: GET /api/v1/me/datasets for the dataset's id, /api/v1/datasets/{id}/questions, /api/v1/datasets/{id}/records.
"""

from collections import Counter, defaultdict
from operator import itemgetter
from typing import Any
from uuid import UUID

from ktodata.errors import SettingError
from ktodata.formats.sources.held_items import LOOK_UP, Feed, HeldItems, Item
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.service import Query, Service, by_offset
from ktodata.formats.sources.source import Credentials, Joined, PullSource
from ktodata.formats.sources.verdict_request import OutgoingVerdict, VerdictRequest
from ktodata.formats.times import moment

PAGE_SIZE = 100
BY_QUESTION = ("responses", "suggestions")


def headers(credentials: Credentials, http: HttpClient) -> dict[str, str]:
    return {"x-argilla-api-key": credentials["ARGILLA_API_KEY"]}


def fetch(service: Service, query: Query) -> None:
    path = f"/api/v1/datasets/{_dataset_id(service, query)}"
    service.get("questions", f"{path}/questions")

    def page(offset: int) -> int:
        body = service.get("records", f"{path}/records", include=list(BY_QUESTION), offset=offset, limit=PAGE_SIZE)
        return len(body["items"])

    by_offset(page, PAGE_SIZE)


def _dataset_id(service: Service, query: Query) -> str:
    """The id of the dataset, which may be given by name."""
    name = query.project or ""
    try:
        return str(UUID(name))
    except ValueError:
        datasets = service.get("datasets", "/api/v1/me/datasets")["items"]
    if keys := [item["id"] for item in datasets if item["name"] == name]:
        if len(keys) == 1:
            return str(keys[0])
        raise SettingError(f"argilla has {len(keys)} datasets {name!r}, in several workspaces: give the id: {', '.join(keys)}.")
    names = ", ".join(sorted(item["name"] for item in datasets))
    raise SettingError(f"argilla has no dataset {name!r}; it has {names or 'none'}.")


def join(items: HeldItems, query: Query) -> Joined:
    questions = {key: question["name"] for key, question in items.of("questions").items()}
    records, left_out = [], Counter[str]()
    for record in items.of("records").values():
        changed = moment(record.get("updated_at"))
        if query.since is not None and changed is not None and changed < query.since:
            left_out["before since"] += 1
        elif record.get("responses"):
            own = {name: value for name, value in record.items() if name not in (*BY_QUESTION, "id")}
            key = record.get("external_id") or record["id"]
            by_question = {"responses": _responses_of(record), "suggestions": _suggestions_of(record, questions)}
            records.append({"id": key, "server_id": record["id"], **own, **by_question})
    return Joined(records, left_out)


def _responses_of(record: Item) -> dict[str, list[dict[str, Any]]]:
    """Argilla's responses, which hold a value for each question, as each question's responses."""
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for response in record["responses"]:
        about = {name: response.get(name) for name in ("user_id", "status", "inserted_at", "updated_at")}
        for question, value in (response.get("values") or {}).items():
            answers[question].append({"value": value["value"], **about})
    return dict(answers)


def _suggestions_of(record: Item, questions: dict[str, str]) -> dict[str, list[Item]]:
    suggestions: dict[str, list[Item]] = defaultdict(list)
    for suggestion in record.get("suggestions") or ():
        suggestions[questions.get(suggestion["question_id"], suggestion["question_id"])].append(suggestion)
    return dict(suggestions)


def verdict_request(verdict: OutgoingVerdict) -> VerdictRequest | None:
    """The response of the key's user, which takes the place of an earlier one; None where the question has no such answer."""
    if verdict.value is None or verdict.column not in verdict.record["responses"]:
        return None
    response = {"values": {verdict.column: {"value": verdict.value}}, "status": "submitted"}
    items = [{**response, "record_id": verdict.record["server_id"]}]
    return VerdictRequest("POST", "/api/v1/me/responses/bulk", {"items": items})


ARGILLA_SOURCE = PullSource(
    name="argilla",
    project="the dataset's name or id",
    needs=("ARGILLA_API_KEY",),
    headers=headers,
    feeds={
        "datasets": LOOK_UP,
        "questions": Feed(itemgetter("items")),
        "records": Feed(itemgetter("items"), updated=("updated_at",)),
    },
    fetch=fetch,
    join=join,
    verdict_request=verdict_request,
    one_answer=True,
)
