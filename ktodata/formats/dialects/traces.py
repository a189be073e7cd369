"""Traces of an application with the verdicts on them: Langfuse's scores and LangSmith's feedback.

A record is a trace that holds all its verdicts, or a single verdict that the trace's texts were joined to. Verdicts of
other names than the setting `label.column`, where that is given, are passed over.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.label_rules import BOOLEANS, Meanings
from ktodata.formats.records import (
    LabelledCompletion,
    Prompt,
    Record,
    UnusableError,
    Verdict,
    Vote,
    kind,
    need,
    need_list,
    rater_name,
    text,
    votes_of_row,
)
from ktodata.formats.times import stamp
from ktodata.formats.turns import completion_of, row_completion, row_turns, turns_of

PROMPT_KEYS = ("messages", "input", "question", "prompt", "text")
COMPLETION_KEYS = ("output", "answer", "completion", "content", "text", "messages")
HOLDS = (
    "prompt",
    "completion",
    "label",
    "turns",
    "answer",
    "tools",
    "chat_template_kwargs",
    "votes",
    "rater",
    "created_at",
    "source_id",
)

# --- what both have in common -------------------------------------------------------------------------------------------


def _is_trace(record: Record, output: str, verdicts: str, single: Iterable[str]) -> bool:
    """Whether a record has an output, and its verdicts or the columns of a single one."""
    return output in record and (verdicts in record or all(name in record for name in single))


def _read_trace(
    record: Record, columns: tuple[str, str, str], vote_of: Callable[[Mapping[str, Any]], Vote | None]
) -> list[LabelledCompletion]:
    """The one completion of a trace. `columns`: those of the input, the output and the verdicts."""
    given, output, verdicts = columns
    prompt = _prompt(need(record, given), given)
    completion = completion_of(_unwrapped(need(record, output), COMPLETION_KEYS, output), output)
    single_or_all = need_list(record[verdicts], verdicts) if verdicts in record else [record]
    votes = [vote_of(verdict) for verdict in single_or_all if isinstance(verdict, Mapping)]
    return [LabelledCompletion(prompt, completion, Verdict.by_votes([vote for vote in votes if vote is not None]))]


def _prompt(value: Any, column: str) -> Prompt:
    """The prompt in a logged input: text, turns, or an object that holds either under a usual name."""
    prompt = _unwrapped(value, PROMPT_KEYS, column)
    return turns_of(prompt, column) if isinstance(prompt, list) else text(prompt, column)


def _unwrapped(value: Any, keys: Sequence[str], column: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    for key in keys:
        if key in value:
            return value[key]
    raise UnusableError("no_text", f"{column} is {kind(value)} with none of {', '.join(keys)}")


def _is_other(name: Any, fields: Fields) -> bool:
    return fields.label.column not in (None, name)


def _trace_id(row: Row) -> str:
    name: str = row["source_id"] or row["row_id"]
    return name


# --- Langfuse ---------------------------------------------------------------------------------------------------------------

ONE_ZERO: Meanings = {(int, 1): True, (int, 0): False, (float, 1.0): True, (float, 0.0): False, **BOOLEANS}
JUDGING = ("BOOLEAN", "NUMERIC", "CATEGORICAL")  # TEXT and CORRECTION are comments


def is_langfuse(record: Record, _fields: Fields) -> bool:
    return _is_trace(record, "output", "scores", single=("dataType", "value"))


def read_langfuse(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Langfuse: a trace (id, input, output) with its scores, or single scores that input and output were joined to.

    BOOLEAN scores are labels as they stand (1 and 0); NUMERIC ones need `at_least`, CATEGORICAL ones a meaning for each text.
    """
    return _read_trace(record, ("input", "output", "scores"), lambda score: _score_vote(score, fields))


def _score_vote(score: Mapping[str, Any], fields: Fields) -> Vote | None:
    if score.get("dataType") not in JUDGING or _is_other(score.get("name"), fields):
        return None
    value = score.get("stringValue") if score["dataType"] == "CATEGORICAL" else score.get("value")
    label = fields.label.truth(value, ONE_ZERO if score["dataType"] == "BOOLEAN" else BOOLEANS)
    rater = score.get("authorUserId") or score.get("source")
    return None if label is None else Vote(rater, label, score.get("timestamp"))


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
    return {"id": _trace_id(row), "input": row_turns(row), "output": row_completion(row), "scores": scores}


LANGFUSE = Format(
    name="langfuse",
    matches=is_langfuse,
    read=read_langfuse,
    write=write_langfuse,
    holds=HOLDS,
    also_reads=("dataType", "value", "stringValue", "name", "authorUserId", "source", "timestamp"),
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

# --- LangSmith --------------------------------------------------------------------------------------------------------------


def is_langsmith(record: Record, _fields: Fields) -> bool:
    return _is_trace(record, "outputs", "feedback", single=("key", "score"))


def read_langsmith(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """LangSmith: a run (id, inputs, outputs) with its feedback, or single feedback that inputs and outputs were joined to.

    The verdict is `score`, or `value` where there is no score. A score is a number without a stated scale, so it is a label only
    where it is a JSON boolean, or where the recipe says what 1 and 0 mean, or gives `at_least`.
    """
    return _read_trace(record, ("inputs", "outputs", "feedback"), lambda feedback: _feedback_vote(feedback, fields))


def _feedback_vote(feedback: Mapping[str, Any], fields: Fields) -> Vote | None:
    if _is_other(feedback.get("key"), fields):
        return None
    score = feedback.get("score")
    label = fields.label.truth(feedback["value"] if score is None and "value" in feedback else score)
    return None if label is None else Vote(rater_name(feedback.get("feedback_source")), label, feedback.get("created_at"))


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
    return {"id": _trace_id(row), **texts, "feedback": feedback}


LANGSMITH = Format(
    name="langsmith",
    matches=is_langsmith,
    read=read_langsmith,
    write=write_langsmith,
    holds=HOLDS,
    also_reads=("key", "score", "value", "feedback_source", "created_at"),
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
