"""LangSmith: a run (id, inputs, outputs) with its feedback, or single feedback that inputs and outputs were joined to.

The verdict is `score`, or `value` where there is no score. A score is a number without a stated scale, so it is a label only
where it is a JSON boolean, or where the recipe says what 1 and 0 mean, or gives `at_least`. Other keys than the setting
`label.column`, where that is given, are passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.dialects.logs import completion_in, prompt_in, rater_name, voted
from ktodata.formats.fields import Fields
from ktodata.formats.format import Format, Row
from ktodata.formats.records import LabelledCompletion, Record, Vote, need, need_list, row_turns, stamp, votes_of_row


def matches(record: Record, _fields: Fields) -> bool:
    return "outputs" in record and ("feedback" in record or ("key" in record and "score" in record))


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    prompt = prompt_in(need(record, "inputs"), "inputs")
    completion = completion_in(need(record, "outputs"), "outputs")
    given = need_list(record["feedback"], "feedback") if "feedback" in record else [record]
    return [LabelledCompletion(prompt, completion, voted([vote for item in given for vote in _votes(item, fields)]))]


def _votes(item: Any, fields: Fields) -> list[Vote]:
    if not isinstance(item, Mapping) or fields.label.column not in (None, item.get("key")):
        return []
    label = fields.label.truth(item["value"] if item.get("score") is None and "value" in item else item.get("score"))
    return [] if label is None else [Vote(rater_name(item.get("feedback_source")), label, item.get("created_at"))]


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    feedback = [
        {
            "key": "feedback",
            "score": vote["label"],
            "created_at": stamp(vote["created_at"]),
            "feedback_source": {"type": "api", "user_id": vote["rater"]},
        }
        for vote in votes_of_row(row)
    ]
    texts = {"inputs": {"messages": row_turns(row)}, "outputs": {"output": row["completion"]}}
    return {"id": row["source_id"] or row["row_id"], **texts, "feedback": feedback}


LANGSMITH = Format(
    name="langsmith",
    matches=matches,
    read=read,
    write=write,
    holds=("prompt", "completion", "label", "turns", "votes", "rater", "created_at", "source_id"),
    example={
        "id": "run-1",
        "inputs": {"messages": [{"role": "user", "content": "What colour is the sky?"}]},
        "outputs": {"output": "Blue."},
        "feedback": [
            {
                "key": "feedback",
                "score": True,
                "created_at": "2025-05-01T10:00:00Z",
                "feedback_source": {"type": "api", "user_id": "ann"},
            }
        ],
    },
    about={"source_id": "id"},
)
