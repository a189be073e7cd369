"""Label Studio: the annotated tasks of a project.

A record is a task {id, data, annotations, ...} as its JSON export has it and the format `label_studio` reads it. Tasks without an
annotation are no records. `since` is the last change of a task.

Asked: GET /api/tasks; with a personal access token (not a legacy one) POST /api/token/refresh/ first, for a token that holds for
minutes.
"""

import json
from collections import Counter
from operator import itemgetter
from typing import Any

from ktodata.formats.sources.held_items import Feed, HeldItems, Item
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.service import Query, Service
from ktodata.formats.sources.source import Credentials, Joined, PullSource
from ktodata.formats.sources.verdict_request import OutgoingVerdict, VerdictRequest

PAGE_SIZE = 100


def headers(credentials: Credentials, http: HttpClient) -> dict[str, str]:
    key = credentials["LABEL_STUDIO_API_KEY"]
    if key.count(".") != 2:
        return {"authorization": f"Token {key}"}

    def renewed() -> dict[str, str]:
        token = json.loads(http.text("POST", http.address("/api/token/refresh/"), {"refresh": key}))["access"]
        http.secrets.append(token)
        return {"authorization": f"Bearer {token}"}

    http.renew = renewed
    return renewed()


def fetch(service: Service, query: Query) -> None:
    number, n_tasks, total = 0, 0, 1
    while n_tasks < total:
        number += 1
        body = service.get(
            "tasks",
            "/api/tasks",
            project=query.project,
            page=number,
            page_size=PAGE_SIZE,
            fields="all",
            query=_changed_since(query),
        )
        n_tasks, total = n_tasks + len(body["tasks"]), body["total"] if body["tasks"] else 0


def _changed_since(query: Query) -> str | None:
    if query.since is None:
        return None
    newer = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": query.since_text()}
    return json.dumps({"filters": {"conjunction": "and", "items": [newer]}})


def _content(task: Item) -> dict[str, Any]:
    """A task without "created_ago": "2 minutes"."""
    annotations = [dict(annotation, created_ago=None) for annotation in task.get("annotations") or ()]
    return {**task, "annotations": annotations}


def join(items: HeldItems, query: Query) -> Joined:
    records: list[dict[str, Any]] = [dict(task) for task in items.of("tasks").values() if task.get("annotations")]
    return Joined(records, Counter())


def verdict_request(verdict: OutgoingVerdict) -> VerdictRequest | None:
    """An annotation of the task by the control that the recipe's label names; None where it has no choice for the verdict."""
    annotations = verdict.record.get("annotations") or ()
    results = [item for annotation in annotations for item in annotation.get("result") or ()]
    control = next((item for item in results if item.get("from_name") == verdict.column and item.get("type") == "choices"), None)
    if control is None or verdict.value is None:
        return None
    names = {name: control[name] for name in ("from_name", "to_name", "type")}
    result = {**names, "id": verdict.key, "value": {"choices": [str(verdict.value)]}}
    return VerdictRequest("POST", f"/api/tasks/{int(verdict.record['id'])}/annotations/", {"result": [result]})


LABEL_STUDIO_SOURCE = PullSource(
    name="label_studio",
    url="https://app.humansignal.com",
    project="the number of the project, as in the address of its page",
    needs=("LABEL_STUDIO_API_KEY",),
    headers=headers,
    feeds={"tasks": Feed(itemgetter("tasks"), updated=("updated_at",), content=_content)},
    fetch=fetch,
    join=join,
    verdict_request=verdict_request,
)
