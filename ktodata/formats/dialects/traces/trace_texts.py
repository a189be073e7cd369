"""The judged answer in what a trace logged: text, turns, or an object that holds either under a usual name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ktodata.formats.format import CONVERSATION, Row
from ktodata.formats.label_rules import LabelRule
from ktodata.formats.records import (
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    kind,
    need,
    need_list,
)
from ktodata.formats.scores import Score, other_verdicts, verdict_of
from ktodata.formats.turns import BESIDE_TEXT, completion_of, conversation, plain_text, turns_of
from ktodata.formats.unread_fields import is_empty, unread

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
BESIDE_PROMPT = ("tools", "system")
HOLDS = (*CONVERSATION, "votes", "rater", "created_at", "source_id")


def is_trace(record: Record, output: str, verdicts: str, single: Iterable[str]) -> bool:
    """Whether a record has an output, and a list of verdicts or the columns of a single one."""
    return output in record and (isinstance(record.get(verdicts), list) or all(name in record for name in single))


def verdict_entries(value: Any, what: str) -> list[Mapping[str, Any]]:
    """The verdicts in a list; an export may hold their ids alone, which say nothing of what was judged."""
    entries = need_list(value, what)
    if any(isinstance(entry, str | int) for entry in entries):
        hint = "export the verdicts themselves and join them, or pull them from the service"
        raise UnusableError("score_ids", f"{what} holds ids: {hint}")
    return [entry for entry in entries if isinstance(entry, Mapping)]


def read_trace(
    record: Record, columns: tuple[str, str], scores: list[Score], rule: LabelRule, not_kept: Sequence[str] = ()
) -> list[LabelledCompletion]:
    """The one completion of a trace. `columns`: those of its input and of its output."""
    logged, output = (need(record, column) for column in columns)
    return judged_answer(logged, output, columns, scores, rule, not_kept)


def judged_answer(
    logged: Any,
    output: Any,
    columns: tuple[str, str],
    scores: list[Score],
    rule: LabelRule,
    not_kept: Sequence[str] = (),
    tools: Any = None,
) -> list[LabelledCompletion]:
    """The one completion in what was logged as input and as output; `columns` are what errors call these."""
    prompt, completion = _conversation(logged, output, columns)
    tools = logged.get("tools") if tools is None and isinstance(logged, Mapping) else tools
    names = [
        *_unread_beside(logged, PROMPT_KEYS, (*BESIDE_PROMPT, *_history_of(logged)), columns[0]),
        *_unread_beside(output, COMPLETION_KEYS, _beside_text(output), columns[1]),
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
    if names := _beside_text(output):
        answer = {"role": "assistant", "content": answer, **{name: output[name] for name in names}}
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
    turns = turns_of(prompt, column) if isinstance(prompt, list) else plain_text(prompt, column)
    before = _turns_before(value, column) if isinstance(value, Mapping) else []
    last = [{"role": "user", "content": turns}] if isinstance(turns, str) and before else turns
    return [*before, *last] if before and not isinstance(last, str) else last


def _turns_before(value: Mapping[str, Any], column: str) -> list[Turn]:
    """The turns of a logged input's own system text and history."""
    system = value.get("system")
    entries = [] if is_empty(system) or "role" in value else [{"role": "system", "content": system}]
    for name in _history_of(value):
        entries += value[name]
    return turns_of(entries, f"history of {column}") if entries else []


def _history_of(value: Any) -> list[str]:
    """The name under which a logged input has its turns before, if it has any; a history as text is none, and is counted."""
    return [name for name in HISTORIES if isinstance(value, Mapping) and value.get(name) and isinstance(value[name], list)][:1]


def _beside_text(value: Any) -> list[str]:
    """What an output's object says beside the answer, where that is a text: calls of tools, reasoning."""
    answer = next((value[key] for key in COMPLETION_KEYS if key in value), None) if _is_wrapper(value) else None
    return [name for name in BESIDE_TEXT if value.get(name)] if isinstance(answer, str) else []


def _value_under(value: Any, keys: Sequence[str], column: str) -> Any:
    if not _is_wrapper(value):
        return value
    for key in keys:
        if key in value:
            return value[key]
    raise UnusableError("no_text", f"{column} is {kind(value)} with none of {', '.join(keys)}")


def trace_id(row: Row) -> str:
    name: str = row["source_id"] or row["row_id"]
    return name
