"""MLflow: the traces of an experiment that people, judges or code gave feedback on.

A record is a trace {id, request_time, state, tags, trace_metadata, assessments, spans}: `assessments` are {assessment_id,
assessment_name, source: {source_type: HUMAN | LLM_JUDGE | CODE, source_id}, feedback: {value}, rationale, valid, create_time,
last_update_time}, of which one that was overridden has `valid: false`; `spans` are OpenTelemetry's, the root has no
`parent_span_id`. The format `mlflow` reads it. `since` is the earliest start of a trace.

Asked: POST /api/3.0/mlflow/traces/search, GET /api/3.0/mlflow/traces/batchGet. A server that keeps spans as artifacts (before
MLflow 3.6) gives no spans there, and its previews are cut off: such traces are left out.
"""

import base64
from collections import Counter
from operator import itemgetter
from urllib.parse import quote

from ktodata.errors import NotThereError, SettingError
from ktodata.formats.sources.held_items import LOOK_UP, Feed, HeldItems, Item
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.service import Query, Service, batches, by_cursor
from ktodata.formats.sources.source import Credentials, Joined, PullSource
from ktodata.formats.sources.verdict_request import NAME, OutgoingVerdict, VerdictRequest

TRACES = "/api/3.0/mlflow/traces"


def headers(credentials: Credentials, http: HttpClient) -> dict[str, str]:
    if "MLFLOW_TRACKING_TOKEN" in credentials:
        return {"authorization": f"Bearer {credentials['MLFLOW_TRACKING_TOKEN']}"}
    if "MLFLOW_TRACKING_USERNAME" not in credentials:
        return {}
    pair = f"{credentials['MLFLOW_TRACKING_USERNAME']}:{credentials.get('MLFLOW_TRACKING_PASSWORD', '')}"
    token = base64.b64encode(pair.encode()).decode()
    http.secrets.append(token)
    return {"authorization": f"Basic {token}"}


def fetch(service: Service, query: Query) -> None:
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": _experiment_id(service, query)}}
    start = None if query.since is None else f"attributes.timestamp_ms >= {int(query.since.timestamp() * 1000)}"
    chosen = {"locations": [place], "max_results": 100, "filter": start, "order_by": ["timestamp_ms ASC"]}
    by_cursor(
        lambda token: service.post("traces", f"{TRACES}/search", {**chosen, "page_token": token}),
        lambda body: body.get("next_page_token") or None,
    )
    changed = {trace["trace_id"] for trace in service.changed("traces")}
    judged = [key for key, trace in service.held("traces").items() if _feedback(trace)]
    for keys in batches([key for key in judged if key in changed or key not in service.held("spans")], 20):
        try:
            service.get("spans", f"{TRACES}/batchGet", trace_ids=keys)
        except NotThereError:  # before MLflow 3.6; `join` counts them
            return


def _experiment_id(service: Service, query: Query) -> str:
    """The id of the experiment, which may be given by name."""
    name = query.project or ""
    if name.isdecimal():
        return name
    try:
        body = service.get("experiments", "/api/2.0/mlflow/experiments/get-by-name", experiment_name=name)
    except NotThereError as error:
        raise SettingError(f"mlflow has no experiment {name!r}: see its list of experiments. {error}") from error
    return str(body["experiment"]["experiment_id"])


def _feedback(trace: Item) -> list[Item]:
    """The assessments that are verdicts: not expectations, which say what a right answer holds."""
    return [assessment for assessment in trace.get("assessments") or () if "feedback" in assessment]


def join(items: HeldItems, query: Query) -> Joined:
    records, left_out = [], Counter[str]()
    for key, trace in items.of("traces").items():
        if not _feedback(trace):
            continue
        spans = items.of("spans").get(key, {}).get("spans")
        if not spans:
            left_out["trace without spans"] += 1
            continue
        own = {name: value for name, value in trace.items() if name not in ("trace_id", "request_preview", "response_preview")}
        records.append({"id": key, **own, "spans": spans})
    return Joined(records, left_out)


def verdict_request(verdict: OutgoingVerdict) -> VerdictRequest:
    """An assessment of the trace. MLflow gives it its id."""
    key = str(verdict.record["id"])
    source = {"source_type": "HUMAN", "source_id": verdict.reviewer}
    assessment = {"assessment_name": NAME, "trace_id": key, "source": source, "feedback": {"value": verdict.answer}}
    return VerdictRequest("POST", f"{TRACES}/{quote(key, safe='')}/assessments", {"assessment": assessment})


MLFLOW_SOURCE = PullSource(
    name="mlflow",
    project="the experiment's name or id",
    takes=("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    headers=headers,
    feeds={
        "experiments": LOOK_UP,
        "traces": Feed(lambda body: body.get("traces") or (), key=itemgetter("trace_id")),
        "spans": Feed(lambda body: body.get("traces") or (), key=lambda trace: trace["trace_info"]["trace_id"]),
    },
    fetch=fetch,
    join=join,
    verdict_request=verdict_request,
)
