"""Langfuse: its scores, each with the trace or observation that it is about.

A record is a trace {id, input, output, userId, ..., scores}, as the format `langfuse` reads it; a score of an observation makes a
record of that observation, with its `traceId`. Scores of a session or an experiment are about no single answer: left out.

Asked: GET /api/public/v3/scores and /api/public/v2/observations; of a server without these (before Langfuse 4)
GET /api/public/v2/scores and /api/public/traces/{id}.
"""

import base64
import json
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from ktodata.errors import NotThereError
from ktodata.formats.sources.held_items import Feed, HeldItems, Item
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.service import Query, Service, batches, by_cursor, by_offset
from ktodata.formats.sources.source import Credentials, Joined, PullSource
from ktodata.formats.sources.verdict_request import NAME, OutgoingVerdict, VerdictRequest

FIELDS = "core,basic,time,io,model,trace_context"
OBSERVATION, TRACE = "observation", "trace"


def headers(credentials: Credentials, http: HttpClient) -> dict[str, str]:
    pair = f"{credentials['LANGFUSE_PUBLIC_KEY']}:{credentials['LANGFUSE_SECRET_KEY']}"
    token = base64.b64encode(pair.encode()).decode()
    http.secrets.append(token)
    return {"authorization": f"Basic {token}"}


def fetch(service: Service, query: Query) -> None:
    try:
        _fetch_scores(service, query)
        about, legacy = _fetch_observations, False
    except NotThereError:
        _fetch_legacy_scores(service, query)
        about, legacy = _fetch_traces, True
    held = {item["id"] if legacy else item["traceId"] for item in service.held("traces" if legacy else "observations").values()}
    changed = {score["id"] for score in service.changed("scores")}
    scores = [score for score in service.held("scores").values() if _subject(score)[1]]
    about(service, [score for score in scores if score["id"] in changed or _subject(score)[1] not in held])


def _fetch_scores(service: Service, query: Query) -> None:
    settings = {"limit": 100, "fields": "details,subject,annotation", "fromTimestamp": query.since_text()}
    by_cursor(
        lambda cursor: service.get("scores", "/api/public/v3/scores", **settings, cursor=cursor),
        lambda body: body["meta"].get("cursor"),
    )


def _fetch_legacy_scores(service: Service, query: Query) -> None:
    def page(offset: int) -> int:
        settings = {"limit": 100, "page": 1 + offset // 100, "fromTimestamp": query.since_text()}
        return len(service.get("scores", "/api/public/v2/scores", **settings)["data"])

    by_offset(page, 100)


def _fetch_observations(service: Service, scores: list[Item]) -> None:
    """Of each trace its root, of each scored observation the observation itself."""
    subjects = [_subject(score) for score in scores]
    traces = list(dict.fromkeys(trace for kind, trace, _ in subjects if kind == TRACE and trace))
    observations = list(dict.fromkeys(key for kind, _, key in subjects if kind == OBSERVATION and key))
    root = {"type": "boolean", "column": "isRootObservation", "operator": "=", "value": True}
    for keys in batches(traces, 50):
        _fetch_chosen(service, [_among("traceId", keys), root])
    for keys in batches(observations, 50):
        _fetch_chosen(service, [_among("id", keys)])


def _among(column: str, keys: list[str]) -> dict[str, Any]:
    return {"type": "stringOptions", "column": column, "operator": "any of", "value": keys}


def _fetch_chosen(service: Service, conditions: list[dict[str, Any]]) -> None:
    settings = {"fields": FIELDS, "limit": 100, "filter": json.dumps(conditions)}
    by_cursor(
        lambda cursor: service.get("observations", "/api/public/v2/observations", **settings, cursor=cursor),
        lambda body: body["meta"].get("cursor"),
    )


def _fetch_traces(service: Service, scores: list[Item]) -> None:
    """Each trace, with its observations."""
    for trace in dict.fromkeys(_subject(score)[1] for score in scores):
        try:
            service.get("traces", f"/api/public/traces/{trace}")
        except NotThereError:  # deleted, its scores are not
            continue


def _subject(score: Item) -> tuple[str, str | None, str | None]:
    """The kind of thing that a score is about, the id of its trace, and its own."""
    if "subject" in score:
        subject = score["subject"] or {}
        kind, key = subject.get("kind", "nothing"), subject.get("id")
        return kind, key if kind == TRACE else subject.get("traceId"), key
    if score.get("observationId"):
        return OBSERVATION, score.get("traceId"), score["observationId"]
    return (TRACE if score.get("traceId") else "session"), score.get("traceId"), score.get("traceId")


def join(items: HeldItems, query: Query) -> Joined:
    things = _things(items)
    records: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for score in items.of("scores").values():
        kind, _, key = _subject(score)
        thing = things.get((kind, key))
        if thing is None:
            left_out[f"{kind} not there" if kind in (TRACE, OBSERVATION) else f"score of a {kind}"] += 1
        else:
            records.setdefault(thing["id"], {**thing, "scores": []})["scores"].append(_score(score))
    return Joined(list(records.values()), left_out)


def _things(items: HeldItems) -> dict[tuple[str, Any], dict[str, Any]]:
    """What a score may be about, by kind and id."""
    things: dict[tuple[str, Any], dict[str, Any]] = {}
    for trace in items.of("traces").values():
        things[TRACE, trace["id"]] = {name: value for name, value in trace.items() if name not in ("observations", "scores")}
        inner = [item for item in trace.get("observations") or () if isinstance(item, Mapping)]
        things |= {(OBSERVATION, item["id"]): dict(item) for item in inner}
    for observation in items.of("observations").values():
        texts = {name: _logged(observation.get(name)) for name in ("input", "output")}
        things[OBSERVATION, observation["id"]] = {**observation, **texts}
        if observation.get("isRootObservation") or observation.get("parentObservationId") is None:
            root = {"id": observation["traceId"], "observationId": observation["id"], "timestamp": observation.get("startTime")}
            things[TRACE, observation["traceId"]] = {**observation, **texts, **root}
    return things


def _logged(value: Any) -> Any:
    """What was logged, from the text of it that /v2/observations gives; a text that only looks like a number stays one."""
    try:
        inside = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return inside if isinstance(inside, dict | list | str) else value


def _score(score: Item) -> dict[str, Any]:
    """A score as Langfuse 3 gives it: categories in stringValue."""
    texts = {"stringValue": score["value"]} if score.get("dataType") == "CATEGORICAL" and "stringValue" not in score else {}
    return {**score, **texts}


def verdict_request(verdict: OutgoingVerdict) -> VerdictRequest:
    """A score with an id, which takes the place of an earlier one of that id."""
    record = verdict.record
    is_trace = "traceId" not in record or "observationId" in record
    about = {"traceId": record["id"]} if is_trace else {"traceId": record["traceId"], "observationId": record["id"]}
    score = {"id": verdict.subject_key, "name": NAME, "dataType": "CATEGORICAL", "value": verdict.answer}
    return VerdictRequest("POST", "/api/public/scores", {**score, **about, "metadata": {"reviewer": verdict.reviewer}})


LANGFUSE_SOURCE = PullSource(
    name="langfuse",
    url="https://cloud.langfuse.com",
    needs=("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),
    headers=headers,
    feeds={
        "scores": Feed(itemgetter("data"), updated=("updatedAt", "timestamp")),
        "observations": Feed(itemgetter("data"), updated=("updatedAt",)),
        "traces": Feed(lambda body: [body], updated=("updatedAt",)),
    },
    fetch=fetch,
    join=join,
    verdict_request=verdict_request,
)
