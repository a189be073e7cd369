"""MLflow: traces with their assessments, as the API gives them, and as `Trace.to_json` writes them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ktodata.formats.dialects.traces.trace_texts import HOLDS, judged_answer, trace_id, verdict_entries
from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import (
    LabelledCompletion,
    Record,
    UnusableError,
    clip,
    kind,
    listed,
    need_list,
    rater_name,
    votes_of_row,
)
from ktodata.formats.scores import MODELS, PEOPLE, Score
from ktodata.formats.times import stamp
from ktodata.formats.turns import row_completion, row_turns

ASSESSMENT = ("assessment_name", "source.source_type", "source.source_id", "feedback.value", "valid", "last_update_time")
OTLP_KINDS = ("string_value", "bool_value", "int_value", "double_value", "array_value", "kvlist_value", "bytes_value")
INPUTS, OUTPUTS = "mlflow.spanInputs", "mlflow.spanOutputs"


def is_mlflow(record: Record, _fields: Fields) -> bool:
    whole = _whole(record)
    return isinstance(whole.get("spans"), list) and isinstance(whole.get("assessments"), list)


def read_mlflow(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """MLflow: a trace (id, spans) with its assessments, of which feedback is a verdict and an expectation is none.

    The texts are the inputs and outputs of the root span. Say which assessment is the label, and what its values mean. Those of
    people are source HUMAN; one that was overridden (valid: false) counts for nothing.
    """
    whole = _whole(record)
    spans = [span for span in need_list(whole.get("spans"), "spans") if isinstance(span, Mapping)]
    root = next((span for span in spans if not (span.get("parent_span_id") or span.get("parent_id"))), None)
    if root is None:
        raise UnusableError("no_text", "no span of the trace is its root")
    attributes = _attributes(root.get("attributes"))
    assessments = verdict_entries(whole.get("assessments"), "assessments")
    scores = [_assessment_score(item) for item in assessments if _is_verdict(item)]
    inside = [f"spans[].attributes.{name}" for name in attributes if name not in (INPUTS, OUTPUTS)]
    others = [
        f"assessments[assessment_name={clip(item.get('assessment_name'), 40)}]" for item in assessments if not _is_verdict(item)
    ]
    below = ["spans[] below the root"] if len(spans) > 1 else []
    texts = attributes.get(INPUTS), attributes.get(OUTPUTS)
    judged = judged_answer(*texts, (INPUTS, OUTPUTS), scores, fields.label, [*inside, *others, *below])
    # `Trace.to_json` has no id beside its two parts
    about = {"source_id": whole["trace_id"]} if whole.get("trace_id") and "source_id" not in fields.about else {}
    return [replace(answer, about={**answer.about, **about}) for answer in judged]


def _whole(record: Record) -> Record:
    """A trace as the API gives it; `Trace.to_json` has it in two parts."""
    info, data = record.get("info"), record.get("data")
    return {**info, **data} if isinstance(info, Mapping) and isinstance(data, Mapping) else record


def _is_verdict(assessment: Mapping[str, Any]) -> bool:
    return isinstance(assessment.get("feedback"), Mapping) and assessment.get("valid") is not False


def _assessment_score(assessment: Mapping[str, Any]) -> Score:
    given = assessment.get("source")
    source = given if isinstance(given, Mapping) else {}
    by, name = PEOPLE if source.get("source_type") == "HUMAN" else MODELS, str(assessment.get("assessment_name"))
    rater = rater_name(source.get("source_id") or None) if by == PEOPLE else f"model {name}"
    return Score(name, assessment["feedback"].get("value"), by, rater, assessment.get("last_update_time"))


def _attributes(given: Any) -> dict[str, Any]:
    """The attributes of a span: OpenTelemetry's list of keys and values, or an object of JSON texts."""
    if isinstance(given, Mapping):
        return {name: _parsed(value) for name, value in given.items()}
    return _otlp_items(given or ())


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _otlp_items(items: Any) -> dict[str, Any]:
    """OpenTelemetry's list of keys and values."""
    if not isinstance(items, list | tuple):
        raise UnusableError("no_text", f"attributes of a span are {kind(items)}, not a list of keys and values")
    return {str(pair.get("key")): _otlp_value(pair.get("value")) for pair in (_only(item, ("key", "value")) for item in items)}


def _otlp_value(value: Any) -> Any:
    """An OpenTelemetry value, {its kind: what it is}, as a plain one."""
    there = {} if value is None else _only(value, OTLP_KINDS)  # Parquet has a null for each other kind
    if len(there) > 1:
        raise UnusableError("no_text", f"a value of a span is of several kinds: {listed(there)}")
    for name, inside in there.items():
        if name == "array_value":
            values = need_list(_only(inside, ("values",)).get("values") or [], "an array of a span")
            return [_otlp_value(item) for item in values]
        if name == "kvlist_value":
            return _otlp_items(_only(inside, ("values",)).get("values") or [])
        return int(inside) if name == "int_value" and re.fullmatch(r"-?\d{1,19}", str(inside)) else inside
    return None


def _only(value: Any, names: Sequence[str]) -> dict[str, Any]:
    """What an object holds, if it holds nothing but `names`."""
    if not isinstance(value, Mapping):
        raise UnusableError("no_text", f"a part of a span is {kind(value)}, not an object")
    there = {name: inside for name, inside in value.items() if inside is not None}
    if other := [name for name in there if name not in names]:
        raise UnusableError("no_text", f"a part of a span holds {listed(other)} beside {', '.join(names)}")
    return there


def _as_otlp(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [{"key": key, "value": _as_otlp(item)} for key, item in value.items()]
        return {"kvlist_value": {"values": items}}
    if isinstance(value, list | tuple):
        return {"array_value": {"values": [_as_otlp(item) for item in value]}}
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": str(value)}
    return {"double_value": value} if isinstance(value, float) else {"string_value": str(value)}


def write_mlflow(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    logged: dict[str, Any] = {"messages": row_turns(row)} | ({"tools": json.loads(row["tools"])} if row["tools"] else {})
    assessments = [
        {
            "assessment_name": "feedback",
            "source": {"source_type": "HUMAN", "source_id": vote["rater"]},
            "feedback": {"value": vote["label"]},
            "last_update_time": stamp(vote["created_at"]),
        }
        for vote in votes_of_row(row)
    ]
    texts = ((INPUTS, logged), (OUTPUTS, row_completion(row)))
    attributes = [{"key": name, "value": _as_otlp(value)} for name, value in texts]
    return {"id": trace_id(row), "assessments": assessments, "spans": [{"attributes": attributes}]}


MLFLOW = Format(
    name="mlflow",
    matches=is_mlflow,
    read=read_mlflow,
    write=write_mlflow,
    holds=HOLDS,
    reads=(
        *("trace_id", "info.trace_id"),
        *(f"{spans}[].attributes" for spans in ("spans", "data.spans")),
        *(f"{assessments}[].{name}" for assessments in ("assessments", "info.assessments") for name in ASSESSMENT),
    ),
    names_verdicts=True,
    example={
        "id": "tr-1",
        "assessments": [
            {
                "assessment_name": "feedback",
                "source": {"source_type": "HUMAN", "source_id": "ann"},
                "feedback": {"value": True},
                "last_update_time": "2025-05-01T10:00:00Z",
            }
        ],
        "spans": [
            {
                "attributes": [
                    {"key": INPUTS, "value": _as_otlp({"messages": [{"role": "user", "content": "What colour is the sky?"}]})},
                    {"key": OUTPUTS, "value": {"string_value": "Blue."}},
                ]
            }
        ],
    },
    settings={"label": {"column": "feedback", True: True, False: False}},
    about={"source_id": "id"},
)
