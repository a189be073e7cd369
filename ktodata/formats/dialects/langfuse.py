"""Langfuse: a trace (id, input, output) with its scores, or single scores that input and output were joined to.

BOOLEAN scores are labels as they stand (1 and 0); NUMERIC ones need `at_least`, CATEGORICAL ones a meaning for each text.
Scores of other names than the setting `label.column`, where that is given, are passed over; so are comments (TEXT, CORRECTION).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.dialects.logs import completion_in, prompt_in, voted
from ktodata.formats.fields import Fields
from ktodata.formats.format import Format, Row
from ktodata.formats.label_rules import BOOLEANS, Meanings
from ktodata.formats.records import LabelledCompletion, Record, Vote, need, need_list, row_turns, stamp, votes_of_row

ONE_ZERO: Meanings = {(int, 1): True, (int, 0): False, (float, 1.0): True, (float, 0.0): False, **BOOLEANS}
JUDGING = ("BOOLEAN", "NUMERIC", "CATEGORICAL")


def matches(record: Record, _fields: Fields) -> bool:
    return "output" in record and ("scores" in record or ("dataType" in record and "value" in record))


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    prompt = prompt_in(need(record, "input"), "input")
    completion = completion_in(need(record, "output"), "output")
    scores = need_list(record["scores"], "scores") if "scores" in record else [record]
    return [LabelledCompletion(prompt, completion, voted([vote for score in scores for vote in _votes(score, fields)]))]


def _votes(score: Any, fields: Fields) -> list[Vote]:
    if not isinstance(score, Mapping) or score.get("dataType") not in JUDGING:
        return []
    if fields.label.column not in (None, score.get("name")):
        return []
    value = score.get("stringValue") if score["dataType"] == "CATEGORICAL" else score.get("value")
    own = ONE_ZERO if score["dataType"] == "BOOLEAN" else BOOLEANS
    label = fields.label.truth(value, own)
    rater = score.get("authorUserId") or score.get("source")
    return [] if label is None else [Vote(rater, label, score.get("timestamp"))]


def write(rows: Sequence[Row]) -> dict[str, Any]:
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
    return {"id": row["source_id"] or row["row_id"], "input": row_turns(row), "output": row["completion"], "scores": scores}


LANGFUSE = Format(
    name="langfuse",
    matches=matches,
    read=read,
    write=write,
    holds=("prompt", "completion", "label", "turns", "votes", "rater", "created_at", "source_id"),
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
    about={"source_id": "id"},
)
