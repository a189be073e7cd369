"""LangSmith: the feedback of a project, each with the run that it is about.

A record is a run {id, inputs, outputs, ..., feedback}, as the format `langsmith` reads it. Feedback on a whole project or a run
that is not there any more is left out.

Asked: GET /sessions for the project's id, GET /feedback, POST /runs/query; of a server without that POST /api/v2/runs/query.
"""

from collections import Counter
from operator import itemgetter
from typing import Any
from uuid import UUID

from ktodata.errors import NotThereError, SettingError
from ktodata.formats.sources.held_items import LOOK_UP, Feed, HeldItems, Item
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.service import Query, Service, batches, by_cursor, by_offset
from ktodata.formats.sources.source import Credentials, Joined, PullSource
from ktodata.formats.sources.verdict_request import NAME, OutgoingVerdict, VerdictRequest

TEXTS = ("inputs", "outputs", "error", "extra", "tags")
SELECT = ("id", "trace_id", "session_id", "name", "run_type", "start_time", "end_time", *TEXTS)
SELECT_V2 = [{"session_id": "PROJECT_ID"}.get(name, name.upper()) for name in SELECT]


def headers(credentials: Credentials, http: HttpClient) -> dict[str, str]:
    workspace = credentials.get("LANGSMITH_WORKSPACE_ID")
    return {"x-api-key": credentials["LANGSMITH_API_KEY"]} | ({"x-tenant-id": workspace} if workspace else {})


def fetch(service: Service, query: Query) -> None:
    project = _project_id(service, query)

    def page(offset: int) -> int:
        settings = {"session": project, "limit": 100, "offset": offset, "min_created_at": query.since_text()}
        return len(service.get("feedback", "/feedback", **settings))

    by_offset(page, 100)
    changed = {item["id"] for item in service.changed("feedback")}
    wanted = {
        item["run_id"]: item
        for item in service.held("feedback").values()
        if item.get("run_id") and (item["id"] in changed or item["run_id"] not in service.held("runs"))
    }
    for keys in batches(list(wanted), 100):
        _fetch_runs(service, project, [wanted[key] for key in keys])


def _project_id(service: Service, query: Query) -> str:
    """The id of the project, which may be given by name."""
    name = query.project or ""
    try:
        return str(UUID(name))
    except ValueError:
        projects = service.get("projects", "/sessions", name=name, limit=1)
    if not projects:
        raise SettingError(f"langsmith has no project {name!r}: see its list of tracing projects.")
    return str(projects[0]["id"])


def _fetch_runs(service: Service, project: str, feedback: list[Item]) -> None:
    keys = [item["run_id"] for item in feedback]
    try:
        by_cursor(
            lambda cursor: service.post("runs", "/runs/query", {"id": keys, "select": SELECT, "cursor": cursor}),
            lambda body: (body.get("cursors") or {}).get("next"),
        )
    except NotThereError:
        # it looks one day back unless it is given a time
        started = min((item["start_time"] for item in feedback if item.get("start_time")), default="2020-01-01T00:00:00Z")
        chosen = {"ids": keys, "project_ids": [project], "min_start_time": started, "selects": SELECT_V2, "page_size": 100}
        address = service.http.url.removesuffix("/api/v1") + "/api/v2/runs/query"
        by_cursor(
            lambda cursor: service.post("runs", address, {**chosen, "cursor": cursor}),
            lambda body: body.get("next_cursor"),
        )


def _runs_of_page(body: Any) -> list[Item]:
    runs: list[Item] = body["runs"] if "runs" in body else body["items"]
    return runs


def join(items: HeldItems, query: Query) -> Joined:
    runs = items.of("runs")
    records: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for item in items.of("feedback").values():
        key = item.get("run_id")
        if key is not None and key in runs:
            records.setdefault(key, {**runs[key], "feedback": []})["feedback"].append(item)
        else:
            left_out["run not there" if key else "feedback on no run"] += 1
    return Joined(list(records.values()), left_out)


def verdict_request(verdict: OutgoingVerdict) -> VerdictRequest:
    """Feedback with an id of its own."""
    source = {"type": "api", "metadata": {"reviewer": verdict.reviewer}}
    score = {"score": None if verdict.label is None else int(verdict.label), "value": verdict.answer}
    about = {"id": verdict.key, "run_id": verdict.record["id"], "key": NAME}
    return VerdictRequest("POST", "/feedback", {**about, **score, "feedback_source": source})


LANGSMITH_SOURCE = PullSource(
    name="langsmith",
    url="https://api.smith.langchain.com",
    project="the tracing project's name or id",
    needs=("LANGSMITH_API_KEY",),
    takes=("LANGSMITH_WORKSPACE_ID",),
    headers=headers,
    feeds={
        "projects": LOOK_UP,
        "feedback": Feed(list, updated=("modified_at", "created_at")),
        "runs": Feed(_runs_of_page, key=itemgetter("id")),
    },
    fetch=fetch,
    join=join,
    verdict_request=verdict_request,
)
