"""Traces of an application with the verdicts on them: Langfuse's scores and LangSmith's feedback.

A record is a trace that holds all its verdicts, or a single verdict that the trace's texts were joined to.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.label_rules import LabelRule
from ktodata.formats.records import (
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    clip,
    kind,
    lookup,
    need,
    rater_name,
    text,
    votes_of_row,
)
from ktodata.formats.scores import MODELS, PEOPLE, Score, other_verdicts, verdict_of
from ktodata.formats.times import stamp
from ktodata.formats.turns import completion_of, conversation, row_completion, row_turns, turns_of
from ktodata.formats.unread_fields import is_empty, passed_over, unread, unread_of_rater

PROMPT_KEYS = ("messages", "input", "question", "query", "prompt", "text", "contents")
COMPLETION_KEYS = (
    "generations",
    "choices",
    "messages",
    "output",
    "answer",
    "result",
    "response",
    "completion",
    "content",
    "text",
)
HISTORIES = ("chat_history", "history")
BESIDE_PROMPT = ("tools", "system", *HISTORIES)
HOLDS = (*CONVERSATION, "votes", "rater", "created_at", "source_id")

# --- what both have in common -------------------------------------------------------------------------------------------


def _is_trace(record: Record, output: str, verdicts: str, single: Iterable[str]) -> bool:
    """Whether a record has an output, and a list of verdicts or the columns of a single one."""
    return output in record and (isinstance(record.get(verdicts), list) or all(name in record for name in single))


def _read_trace(
    record: Record, columns: tuple[str, str], scores: list[Score], rule: LabelRule, not_kept: Sequence[str] = ()
) -> list[LabelledCompletion]:
    """The one completion of a trace. `columns`: those of its input and of its output."""
    logged, output = (need(record, column) for column in columns)
    prompt, completion = _conversation(logged, output, columns)
    tools = logged.get("tools") if isinstance(logged, Mapping) else None
    names = [
        *_unread_beside(logged, PROMPT_KEYS, BESIDE_PROMPT, columns[0]),
        *_unread_beside(output, COMPLETION_KEYS, (), columns[1]),
    ]
    verdict = verdict_of(scores, rule)
    return [
        LabelledCompletion(prompt, completion, verdict, tools=tools, not_kept=[*names, *other_verdicts(scores, rule), *not_kept])
    ]


def _unread_beside(value: Any, keys: Sequence[str], more: Sequence[str], column: str) -> list[str]:
    """What a logged object holds beside the value that `_value_under` takes."""
    if not _is_wrapper(value):
        return []
    return unread(value, (*more, next((key for key in keys if key in value), "")), column)


def _is_wrapper(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" not in value and "lc" not in value


def _conversation(logged: Any, output: Any, columns: tuple[str, str]) -> tuple[Prompt, str | Turn]:
    """(the prompt, the judged answer); an output that repeats the whole conversation, as LangGraph's does, says both."""
    answer = _value_under(output, COMPLETION_KEYS, columns[1])
    while isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], list):
        answer = answer[0]
    if isinstance(answer, list) and len(answer) > 1:
        return conversation(answer, columns[1])
    return _trace_prompt(logged, columns[0]), completion_of(answer, columns[1])


def _trace_prompt(value: Any, column: str) -> Prompt:
    """The prompt in a logged input: text, turns, or an object that holds either under a usual name, after its history."""
    prompt = _value_under(value, PROMPT_KEYS, column)
    while isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list):
        prompt = prompt[0]
    turns = turns_of(prompt, column) if isinstance(prompt, list) else text(prompt, column)
    before = _turns_before(value, column) if isinstance(value, Mapping) else []
    last = [{"role": "user", "content": turns}] if isinstance(turns, str) and before else turns
    return [*before, *last] if before and not isinstance(last, str) else last


def _turns_before(value: Mapping[str, Any], column: str) -> list[Turn]:
    """The turns of a logged input's own system text and history."""
    system = value.get("system")
    entries = [] if is_empty(system) or "role" in value else [{"role": "system", "content": system}]
    for name in HISTORIES:
        entries += value[name] if isinstance(value.get(name), list) and not entries[1:] else []
    return turns_of(entries, f"history of {column}") if entries else []


def _value_under(value: Any, keys: Sequence[str], column: str) -> Any:
    if not _is_wrapper(value):
        return value
    for key in keys:
        if key in value:
            return value[key]
    raise UnusableError("no_text", f"{column} is {kind(value)} with none of {', '.join(keys)}")


def _trace_id(row: Row) -> str:
    name: str = row["source_id"] or row["row_id"]
    return name


# --- Langfuse ---------------------------------------------------------------------------------------------------------------

SCORE = ("dataType", "value", "stringValue", "name", "authorUserId", "source", "timestamp")
JUDGING = ("BOOLEAN", "NUMERIC", "CATEGORICAL")  # TEXT and CORRECTION are comments
FLATTENED = ("sessionId", "userId", "latency")  # of an exported trace whose scores stand in columns of their names


def is_langfuse(record: Record, fields: Fields) -> bool:
    flattened = "output" in record and any(name in record for name in FLATTENED) and fields.has_label(record)
    return flattened or _is_trace(record, "output", "scores", single=("dataType", "value"))


def read_langfuse(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Langfuse: a trace (id, input, output) with its scores, or single scores that input and output were joined to.

    Say which score is the label, and what its values mean: label: {column: thumb, 1: true, 0: false}. A score without an author
    is the user's, whom the trace names; one of source EVAL is a model's.
    """
    column = fields.label.column
    if "scores" not in record and "dataType" not in record and column is not None:
        values = lookup(record, column)
        scores = [Score(column, value, PEOPLE, _user(record)) for value in (values if isinstance(values, list) else [values])]
        return _read_trace(record, ("input", "output"), scores, fields.label)
    entries = record.get("scores", [record])
    scores = [_langfuse_score(score, record) for score in entries if _is_judging(score)]
    comments = [f"scores[name={clip(score.get('name'), 40)}]" for score in entries if not _is_judging(score)]
    of_trace = passed_over(record, SCORE, ()) if "scores" in record else []
    return _read_trace(record, ("input", "output"), scores, fields.label, [*comments, *of_trace])


def _is_judging(score: Any) -> bool:
    if isinstance(score, str):
        raise UnusableError(
            "score_ids", "scores holds ids: export the scores themselves and join them, or pull them from Langfuse"
        )
    return isinstance(score, Mapping) and score.get("dataType", "NUMERIC") in JUDGING


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
    return {"id": _trace_id(row), "input": row_turns(row), "output": row_completion(row), "scores": scores}


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

# --- LangSmith --------------------------------------------------------------------------------------------------------------


FEEDBACK = ("key", "score", "value", "created_at", "feedback_source")


def is_langsmith(record: Record, _fields: Fields) -> bool:
    return ("outputs" in record and "feedback_stats" in record) or _is_trace(
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
        return _read_trace(record, ("inputs", "outputs"), _summarised_scores(record), fields.label, names)
    scores = [_langsmith_score(score) for score in record.get("feedback", [record]) if isinstance(score, Mapping)]
    not_read = passed_over(record, (*(FEEDBACK if "feedback" in record else ()), "feedback_stats"), ())
    for score in record.get("feedback", [record]):
        source = score.get("feedback_source") if isinstance(score, Mapping) else None
        not_read += unread_of_rater(source, "feedback[].feedback_source")
    return _read_trace(record, ("inputs", "outputs"), scores, fields.label, not_read)


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
    return {"id": _trace_id(row), **texts, "feedback": feedback}


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
