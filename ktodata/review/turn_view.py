"""A conversation as parts that can be shown: what was said, reasoning, calls of tools with their arguments, and results.

Everything here is untrusted, calls that are no JSON among it: what cannot be read is shown as it stands, with a note. Of a long
conversation the last turns are kept, as the answer is to them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ktodata.report.text import Excerpt, count, excerpt
from ktodata.text.reasoning import split_reasoning

PartKind = Literal["text", "reasoning", "call", "result"]
PART_CHARS = 100  # that each part counts beside its text, so that a page has no more than limit / PART_CHARS of them
PARSED_CHARS = 2_000_000  # longer JSON is shown as it stands
MAX_CALLS = 1000  # of one turn
MAX_TOOLS_CHARS = 20_000


class InexactError(ValueError):
    """JSON that would read otherwise once it is written again."""


@dataclass(frozen=True)
class TurnPart:
    """A piece of a turn. name : the tool's, of a call and of a result. note : what is wrong with it; empty for nothing."""

    kind: PartKind
    text: Excerpt
    name: str = ""
    note: str = ""


@dataclass(frozen=True)
class TurnView:
    """Who speaks (`name` where one is given), and what is said; left_out : parts for which there was no room."""

    role: str
    name: str
    parts: list[TurnPart]
    left_out: int = 0


@dataclass(frozen=True)
class ConversationView:
    """The last turns of a conversation; `in_all` counts those left out too."""

    turns: list[TurnView]
    in_all: int

    @property
    def cut(self) -> bool:
        """Whether something is left out."""
        is_cut = (turn.left_out or any(part.text.cut for part in turn.parts) for turn in self.turns)
        return len(self.turns) < self.in_all or any(is_cut)


@dataclass(frozen=True)
class ToolsView:
    """The tools that a model was given: their names, as far as they have any, and their definitions."""

    names: list[str]
    text: Excerpt


def prompt_view(turns: Sequence[Mapping[str, Any]] | None, limit: int) -> ConversationView | None:
    """The turns of a prompt (feedback.TURN), in `limit` characters at most; None for a prompt that is text."""
    if not turns:
        return None
    views, names = [], dict[str, str]()
    for turn in _last_turns(turns, limit):
        calls = _calls(turn.get("tool_calls"))
        names |= {call_id: part.name for call_id, part in calls if call_id}
        views.append(_view(turn, [part for _, part in calls], names))
    return ConversationView(_within(views, limit), len(turns))


def answer_view(answer: Mapping[str, Any] | None, completion: str, limit: int) -> ConversationView | None:
    """The judged turn as a conversation of one; None where it is text and nothing else."""
    turn = answer or {"role": "assistant", "content": completion}
    view = _view(turn, [part for _, part in _calls(turn.get("tool_calls"))], {})
    if all(part.kind == "text" for part in view.parts):
        return None
    return ConversationView(_within([view], limit), 1)


def tools_view(tools: str | None) -> ToolsView | None:
    """Tools as the feedback table holds them (JSON); None for none."""
    if not tools:
        return None
    try:
        given = json.loads(tools) if len(tools) <= PARSED_CHARS else None
    except (ValueError, RecursionError):
        given = None
    functions = [tool.get("function", tool) for tool in given if isinstance(tool, Mapping)] if isinstance(given, list) else []
    names = [str(function["name"]) for function in functions if isinstance(function, Mapping) and function.get("name")]
    return ToolsView(names, excerpt(tools if given is None else _indented(given, tools), MAX_TOOLS_CHARS))


# --- a turn's parts ------------------------------------------------------------------------------------------------------


def _view(turn: Mapping[str, Any], calls: list[TurnPart], names: Mapping[str, str]) -> TurnView:
    """One turn. names : {call id: the tool that was called} so far."""
    role, content = str(turn.get("role") or "no role"), turn.get("content") or ""
    reasoning = _part("reasoning", turn.get("reasoning_content") or "")
    if role == "tool":
        parts = [_part("result", content, turn.get("name") or names.get(turn.get("tool_call_id") or "", ""))]
    else:  # what looks like reasoning in somebody else's words is no reasoning of the model
        texts = split_reasoning(content) if role == "assistant" else [("text", content)]
        parts = [part for kind, text in texts if (part := _part(kind, text)).text.text.strip()]
    name = "" if role == "tool" else str(turn.get("name") or "")
    return TurnView(role, name, [*([reasoning] if reasoning.text.text.strip() else []), *parts, *calls])


def _part(kind: Any, text: str, name: str = "", note: str = "") -> TurnPart:
    return TurnPart(kind, Excerpt(text, len(text)), name, note)


# --- calls ---------------------------------------------------------------------------------------------------------------


def _calls(stored: str | None) -> list[tuple[str | None, TurnPart]]:
    """(id, call) of each call in a turn's `tool_calls`."""
    if not stored:
        return []
    if len(stored) > PARSED_CHARS:
        return [(None, _part("call", stored, note="calls too long to be taken apart"))]
    try:
        given = json.loads(stored)
        calls = given if isinstance(given, list) else [given]
        parts = [_call(call) for call in calls[:MAX_CALLS]]
    except (ValueError, RecursionError):
        return [(None, _part("call", stored, note="these calls are not JSON"))]
    more = len(calls) - len(parts)
    return [*parts, (None, _part("call", "", note=f"{count(more)} more calls"))] if more else parts


def _call(call: Any) -> tuple[str | None, TurnPart]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None, _part("call", json.dumps(call, ensure_ascii=False), note="a call without a name")
    text, note = _arguments(function.get("arguments"))
    call_id = call.get("id")
    return call_id if isinstance(call_id, str) else None, _part("call", text, function["name"], note)


def _arguments(given: Any) -> tuple[str, str]:
    """(the arguments, what is wrong with them): indented where that changes no more than the space between tokens."""
    if given in (None, ""):
        return "", "without arguments"
    if not isinstance(given, str):
        return _indented(given, json.dumps(given, ensure_ascii=False)), ""
    try:
        value = json.loads(given, object_pairs_hook=_no_repeats, parse_float=_float, parse_int=_int, parse_constant=_no_constant)
    except InexactError:
        return given, ""
    except (ValueError, RecursionError):
        return given, "these arguments are not JSON"
    return _indented(value, given), ""


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(keys := dict(pairs)) < len(pairs):
        raise InexactError
    return keys


def _float(text: str) -> float:
    if repr(value := float(text)) != text:
        raise InexactError
    return value


def _int(text: str) -> int:
    if len(text) > 1000 or str(value := int(text)) != text:
        raise InexactError
    return value


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _indented(value: Any, otherwise: str) -> str:
    """A value as indented JSON; `otherwise` where that is far longer, as of a hundred brackets within each other."""
    parts, left = list[str](), 4 * len(otherwise) + 1000
    try:
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
            left -= len(part)
            if left < 0:
                return otherwise
            parts.append(part)
    except RecursionError:
        return otherwise
    return "".join(parts)


# --- within a limit ------------------------------------------------------------------------------------------------------


def _last_turns(turns: Sequence[Mapping[str, Any]], limit: int) -> list[Mapping[str, Any]]:
    """So many turns from the end that `limit` is reached: no more is parsed."""
    kept: list[Mapping[str, Any]] = []
    for turn in reversed(turns):
        if limit <= 0:
            break
        limit -= PART_CHARS + sum(len(turn.get(name) or "") for name in ("content", "reasoning_content", "tool_calls"))
        kept.append(turn)
    return kept[::-1]


def _within(views: Sequence[TurnView], limit: int) -> list[TurnView]:
    """The last of `views` that `limit` characters hold, the first of those cut to what is left."""
    kept: list[TurnView] = []
    for view in reversed(views):
        if limit <= 0:
            break
        parts = dict(_cut_parts(view.parts, limit))
        limit -= PART_CHARS + sum(PART_CHARS + len(part.text.text) for part in parts.values())
        left_out = len(view.parts) - len(parts)
        kept.append(replace(view, parts=[parts[number] for number in sorted(parts)], left_out=left_out))
    return kept[::-1]


def _cut_parts(parts: Sequence[TurnPart], limit: int) -> Iterator[tuple[int, TurnPart]]:
    """(number, part) within `limit`: short parts first, so that a long one hides no other, and reasoning last."""
    for number in sorted(range(len(parts)), key=lambda number: (parts[number].kind == "reasoning", parts[number].text.length)):
        if limit > 0:
            part = parts[number]
            text = Excerpt(part.text.text[:limit], part.text.length)
            limit -= PART_CHARS + len(text.text)
            yield number, replace(part, text=text)
