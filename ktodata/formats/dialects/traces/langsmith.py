"""LangSmith: runs with their feedback, or single feedback that the texts of its run were joined to."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.dialects.traces.trace_texts import HOLDS, is_trace, read_trace, trace_id, verdict_entries
from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import (
    LabelledCompletion,
    Record,
    UnusableError,
    clip,
    rater_name,
    votes_of_row,
)
from ktodata.formats.scores import MODELS, PEOPLE, Score
from ktodata.formats.times import stamp
from ktodata.formats.turns import row_completion, row_turns
from ktodata.formats.unread_fields import passed_over, unread, unread_of_rater

FEEDBACK = ("key", "score", "value", "created_at", "feedback_source")


def is_langsmith(record: Record, _fields: Fields) -> bool:
    return ("outputs" in record and "feedback_stats" in record) or is_trace(
        record, "outputs", "feedback", single=("key", "score")
    )


def read_langsmith(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """LangSmith: a run (id, inputs, outputs) with its feedback, or single feedback that inputs and outputs were joined to.

    The verdict is `score`, or `value` where there is no score. Say which key is the label, and what its values mean. A run that
    holds `feedback_stats` only has no single verdicts: their mean is read by its path, feedback_stats.KEY.avg.
    """
    if record.get("outputs") is None:
        raise UnusableError("no_text", f"the run has no outputs{': ' + clip(record['error'], 60) if record.get('error') else ''}")
    if "feedback" not in record and "feedback_stats" in record:
        names = unread(record["feedback_stats"], ("*.avg",), "feedback_stats")
        return read_trace(record, ("inputs", "outputs"), _summarised_scores(record), fields.label, names)
    entries = verdict_entries(record["feedback"], "feedback") if "feedback" in record else [record]
    scores = [_langsmith_score(score) for score in entries]
    not_read = passed_over(record, (*(FEEDBACK if "feedback" in record else ()), "feedback_stats"), ())
    for score in entries:
        not_read += unread_of_rater(score.get("feedback_source"), "feedback[].feedback_source")
    return read_trace(record, ("inputs", "outputs"), scores, fields.label, not_read)


def _summarised_scores(record: Record) -> list[Score]:
    stats = record["feedback_stats"] if isinstance(record["feedback_stats"], Mapping) else {}
    means = [
        (f"feedback_stats.{key}.avg", mean["avg"]) for key, mean in stats.items() if isinstance(mean, Mapping) and "avg" in mean
    ]
    return [Score(path, mean, PEOPLE) for path, mean in means]


def _langsmith_score(feedback: Mapping[str, Any]) -> Score:
    source = feedback.get("feedback_source")
    by = MODELS if isinstance(source, Mapping) and source.get("type") in ("model", "auto_eval") else PEOPLE
    score = feedback.get("score")
    value = feedback["value"] if score is None and "value" in feedback else score
    key = str(feedback.get("key"))
    rater = rater_name(source) if by == PEOPLE else f"model {key}"
    return Score(key, value, by, rater, feedback.get("created_at"), f"feedback[key={clip(key, 40)}]")


def write_langsmith(rows: Sequence[Row]) -> dict[str, Any]:
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
    texts = {"inputs": {"messages": row_turns(row)}, "outputs": {"output": row_completion(row)}}
    return {"id": trace_id(row), **texts, "feedback": feedback}


LANGSMITH = Format(
    name="langsmith",
    matches=is_langsmith,
    read=read_langsmith,
    write=write_langsmith,
    holds=HOLDS,
    texts=("inputs", "outputs"),
    reads=(*FEEDBACK, *(f"feedback[].{name}" for name in FEEDBACK), "feedback_stats"),
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
    settings={"label": {"column": "feedback", True: True, False: False}},
    about={"source_id": "id"},
    names_verdicts=True,
)
