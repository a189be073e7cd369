"""Langfuse: traces with their scores, or single scores that the texts of their trace were joined to."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.dialects.traces.trace_texts import HOLDS, is_trace, read_trace, trace_id, verdict_entries
from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import (
    LabelledCompletion,
    Record,
    clip,
    lookup,
    rater_name,
    votes_of_row,
)
from ktodata.formats.scores import MODELS, PEOPLE, Score
from ktodata.formats.times import stamp
from ktodata.formats.turns import row_completion, row_turns
from ktodata.formats.unread_fields import passed_over

SCORE = ("dataType", "value", "stringValue", "name", "authorUserId", "source", "timestamp")
JUDGING = ("BOOLEAN", "NUMERIC", "CATEGORICAL")  # TEXT and CORRECTION are comments
FLATTENED = ("sessionId", "userId", "latency")  # of an exported trace whose scores stand in columns of their names


def is_langfuse(record: Record, fields: Fields) -> bool:
    flattened = "output" in record and any(name in record for name in FLATTENED) and fields.has_label(record)
    return flattened or is_trace(record, "output", "scores", single=("dataType", "value"))


def read_langfuse(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Langfuse: a trace (id, input, output) with its scores, or single scores that input and output were joined to.

    Say which score is the label, and what its values mean: label: {column: thumb, 1: true, 0: false}. A score without an author
    is the user's, whom the trace names; one of source EVAL is a model's.
    """
    column = fields.label.column
    if "scores" not in record and "dataType" not in record and column is not None:
        values = lookup(record, column)
        scores = [Score(column, value, PEOPLE, _user(record)) for value in (values if isinstance(values, list) else [values])]
        return read_trace(record, ("input", "output"), scores, fields.label)
    entries = verdict_entries(record["scores"], "scores") if "scores" in record else [record]
    scores = [_langfuse_score(score, record) for score in entries if _is_judging(score)]
    comments = [f"scores[name={clip(score.get('name'), 40)}]" for score in entries if not _is_judging(score)]
    of_trace = passed_over(record, SCORE, ()) if "scores" in record else []
    return read_trace(record, ("input", "output"), scores, fields.label, [*comments, *of_trace])


def _is_judging(score: Mapping[str, Any]) -> bool:
    return score.get("dataType", "NUMERIC") in JUDGING


def _langfuse_score(score: Mapping[str, Any], trace: Record) -> Score:
    value = score.get("stringValue") if score.get("dataType") == "CATEGORICAL" else score.get("value")
    by = MODELS if score.get("source") == "EVAL" else PEOPLE
    rater = rater_name(score.get("authorUserId") or None) or (_user(trace) if by == PEOPLE else f"model {score.get('name')}")
    name = str(score.get("name"))
    return Score(name, value, by, rater, score.get("timestamp"), f"scores[name={clip(name, 40)}]")


def _user(trace: Record) -> str | None:
    return rater_name(trace.get("userId") or None)


def write_langfuse(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    scores = [
        {
            "name": "feedback",
            "dataType": "BOOLEAN",
            "value": int(vote["label"]),
            "stringValue": str(vote["label"]),
            "authorUserId": vote["rater"],
            "timestamp": stamp(vote["created_at"]),
        }
        for vote in votes_of_row(row)
    ]
    return {"id": trace_id(row), "input": row_turns(row), "output": row_completion(row), "scores": scores}


LANGFUSE = Format(
    name="langfuse",
    matches=is_langfuse,
    read=read_langfuse,
    write=write_langfuse,
    holds=HOLDS,
    texts=("input", "output"),
    reads=("userId", *SCORE, *(f"scores[].{name}" for name in SCORE)),
    example={
        "id": "trace-1",
        "input": [{"role": "user", "content": "What colour is the sky?"}],
        "output": "Blue.",
        "scores": [
            {
                "name": "feedback",
                "dataType": "BOOLEAN",
                "value": 1,
                "stringValue": "True",
                "authorUserId": "ann",
                "timestamp": "2025-05-01T10:00:00Z",
            }
        ],
    },
    settings={"label": {"column": "feedback", 1: True, 0: False}},
    about={"source_id": "id"},
    names_verdicts=True,
)
