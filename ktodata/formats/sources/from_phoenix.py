"""Arize Phoenix: the annotations of a project's spans and traces, each with its span.

A record is a span {id, trace_id, name, span_kind, parent_id, start_time, end_time, attributes, annotations}: `attributes` are
OpenInference's, flat ("llm.input_messages.0.message.role"); `annotations` are {id, name, annotator_kind: HUMAN | LLM | CODE,
result: {label, score, explanation}, identifier, user_id, metadata, created_at, updated_at}. An annotation of a trace stands with
the trace's root span. The format `phoenix` reads it. `since` is the earliest start of a span.

Asked: GET /v1/projects/{project}/spans, then /span_annotations and /trace_annotations of these: it lists none without ids.
"""

from collections import Counter
from operator import itemgetter
from typing import Any
from urllib.parse import quote

from ktodata.errors import NotThereError
from ktodata.formats.sources.held_items import Feed, HeldItems, Item
from ktodata.formats.sources.service import Query, Service, batches, by_cursor
from ktodata.formats.sources.source import Joined, PullSource, bearer
from ktodata.formats.sources.verdict_request import NAME, OutgoingVerdict, VerdictRequest

ON_SPANS, ON_TRACES = "span_annotations", "trace_annotations"


def fetch(service: Service, query: Query) -> None:
    project = f"/v1/projects/{quote(query.project or '', safe='')}"
    by_cursor(
        lambda cursor: service.get("spans", f"{project}/spans", limit=500, start_time=query.since_text(), cursor=cursor),
        itemgetter("next_cursor"),
    )
    _fetch_annotations(service, ON_SPANS, project, "span_ids", list(service.held("spans")))
    try:
        traces = dict.fromkeys(span["context"]["trace_id"] for span in service.held("spans").values())
        _fetch_annotations(service, ON_TRACES, project, "trace_ids", list(traces))
    except NotThereError:  # a server from before Phoenix had them
        return


def _fetch_annotations(service: Service, feed: str, project: str, parameter: str, keys: list[str]) -> None:
    def fetch_batch(batch: list[str]) -> None:
        settings: dict[str, Any] = {parameter: batch, "limit": 1000}
        by_cursor(lambda cursor: service.get(feed, f"{project}/{feed}", **settings, cursor=cursor), itemgetter("next_cursor"))

    for batch in batches(keys, 100):
        fetch_batch(batch)


def join(items: HeldItems, query: Query) -> Joined:
    spans = items.of("spans")
    roots = {span["context"]["trace_id"]: key for key, span in spans.items() if not span.get("parent_id")}
    records: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for feed, keys, field in ((ON_SPANS, {key: key for key in spans}, "span_id"), (ON_TRACES, roots, "trace_id")):
        for annotation in items.of(feed).values():
            key = keys.get(annotation[field])
            if key is None:
                left_out[f"{field.removesuffix('_id')} not there"] += 1
            else:
                records.setdefault(key, _span_record(spans[key]))["annotations"].append(annotation)
    return Joined(list(records.values()), left_out)


def _span_record(span: Item) -> dict[str, Any]:
    own = {name: value for name, value in span.items() if name not in ("id", "context", "events")}
    return {"id": span["context"]["span_id"], "trace_id": span["context"]["trace_id"], **own, "annotations": []}


def verdict_request(verdict: OutgoingVerdict) -> VerdictRequest:
    """An annotation of the span; one of the same name and identifier takes the place of an earlier one."""
    score = None if verdict.label is None else float(verdict.label)
    about = {"span_id": verdict.record["id"], "name": NAME, "annotator_kind": "HUMAN", "identifier": verdict.reviewer}
    annotation = {**about, "result": {"label": verdict.answer, "score": score}}
    return VerdictRequest("POST", "/v1/span_annotations?sync=true", {"data": [annotation]})


PHOENIX_SOURCE = PullSource(
    name="phoenix",
    project="the project's name or id",
    takes=("PHOENIX_API_KEY",),
    headers=bearer,
    feeds={
        "spans": Feed(itemgetter("data"), key=lambda span: span["context"]["span_id"]),
        ON_SPANS: Feed(itemgetter("data"), updated=("updated_at",)),
        ON_TRACES: Feed(itemgetter("data"), updated=("updated_at",)),
    },
    fetch=fetch,
    join=join,
    verdict_request=verdict_request,
)
