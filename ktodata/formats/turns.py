"""A conversation's turns, from the shapes in which chat APIs write them, with all that a chat template can render.

A turn is a dict of role and content, and, where it has them, name, tool_call_id, tool_calls (OpenAI's form: id, type,
function {name, arguments}) and reasoning_content. Read are OpenAI's, Anthropic's and Gemini's messages, LangChain's (as dicts
and as constructors), ShareGPT's {from, value}, and LLaMA-Factory's function_call and observation. What a text model cannot be
shown makes the record unusable: a verdict on an answer to a picture must not become one on the words around it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ktodata.formats.file_types.strict_json import parse_json_text
from ktodata.formats.records import Prompt, Record, Turn, UnusableError, checked, clip, kind, need, need_list, text
from ktodata.formats.unread_fields import NOT_KEPT, unread

# which turn of a conversation the verdict is about: the last, or the last of the assistant, whatever follows it
JudgedTurn = Literal["last", "last_assistant"]
STANDARD_ROLES = ("user", "assistant", "system", "tool")
ROLES = {
    **{"human": "user", "prompter": "user", "HumanMessage": "user"},
    **dict.fromkeys(
        ("gpt", "bot", "model", "ai", "AIMessage", "AIMessageChunk", "function_call", "chatbot", "chatgpt"), "assistant"
    ),
    **dict.fromkeys(("observation", "function", "ToolMessage", "FunctionMessage", "function_response", "ipython"), "tool"),
    **{"developer": "system", "SystemMessage": "system"},
}
# keys that are carried under their own name; `thinking` and `reasoning` are other names of the same thing
CARRIED = ("name", "tool_call_id")
STORED = (*CARRIED, "tool_calls", "reasoning_content")  # of a turn in the feedback table, beside role and content
REASONING = ("reasoning_content", "thinking", "reasoning")
TEXTS = ("content", "value", "parts")
BESIDE_TEXT = (*REASONING, "tool_calls", "function_call")  # what a turn says beside its text
# what names a turn's role or the turn itself; of other keys, those that are read are taken out before the rest is counted
UNDERSTOOD = frozenset(("role", "from", "type", "id", "lc", *CARRIED))
TEXT_PARTS = ("text", "input_text", "output_text")
REASONING_PARTS = ("thinking", "reasoning")
CIPHERS = ("redacted_thinking",)  # reasoning that its API shows to nobody
CALL_PARTS = ("tool_use", "tool_call", "function_call", "functionCall")
# what wraps the answer in a response of an API: lists of candidates, of which there is to be one
CANDIDATES = ("choices", "candidates", "generations")
THOUGHTS = ("thinking", "reasoning", "text")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")  # what no text model can be shown
MEDIA_OF_TURN = (*MEDIA, "image_url", "files", "attachments", "experimental_attachments")
ARGUMENTS = ("arguments", "args", "input", "parameters")
RESULT_PARTS = ("tool_result", "functionResponse")
_SAYINGS = frozenset((*TEXTS, "text", "tool_calls", "function_call", "data"))
# the beginning of an object, or of a list of such, whose first key is one of a turn's or a response's
_FIRST_KEYS = "role|from|type|content|id|messages|choices|candidates|generations|object|model"
_MESSAGES_START = re.compile(rf"""\s*(?:\[\s*)?\{{\s*(?P<quote>["'])(?:{_FIRST_KEYS})\1""")


def turns_of(value: Any, what: str) -> list[Turn]:
    """A conversation as turns. NOT_KEPT of a turn names what of it no template could be shown: to be counted, not stored.

    Raises UnusableError for an empty list, an entry that is no turn, or a part that is not text (an image, a file).
    """
    turns = [turn for item in need_list(value, what) for turn in _turns(item, what)]
    if not turns:
        raise UnusableError("no_turns", f"{what} is an empty list")
    return turns


def _turns(item: Any, what: str) -> Iterator[Turn]:
    """The turns of one entry: one, or, as Anthropic puts tool results into the user's, one for each result before it."""
    lost: list[str] = []
    item = _unwrapped(item, lost)
    if not isinstance(item, Mapping):
        raise UnusableError("not_a_turn", f"{what} holds {kind(item)} where a turn (role, content) should be")
    role = _role(item, what)
    if media := [name for name in MEDIA_OF_TURN if item.get(name)]:
        raise UnusableError("not_text", f"a {clip(role, 20)} turn of {what} has {media[0]}, which no text stands for")
    turn: Turn = {"role": role, "content": ""}
    texts: list[str] = []
    results: list[Turn] = []
    # some write an empty content beside the parts that hold the text
    key = next((key for key in TEXTS if item.get(key)), next((key for key in TEXTS if item.get(key) is not None), "content"))
    content = item.get(key)
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        results += _add_part(turn, texts, part, f"a {clip(role, 20)} turn of {what}", lost)
    turn["content"] = "".join(texts) if isinstance(content, list) else texts[0] if texts else ""
    if len(item) > 2 or "role" not in item or key not in item:
        _add_fields(turn, item, what, lost)
        lost += _unread_keys(turn, item, key)
    if item.get("from") == "function_call" or item.get("role") == "function_call":
        turn |= {"tool_calls": _sharegpt_calls(turn["content"], what, lost), "content": ""}
    if content is None and not turn.get("tool_calls"):
        raise UnusableError("not_text", f"a {clip(role, 20)} turn of {what} is null, not text")
    is_turn = bool(turn["content"] or turn.get("tool_calls") or turn.get("reasoning_content") or not results)
    if not is_turn:  # Anthropic's user turn that holds results of tools alone
        results[-1] = _with_lost(results[-1], lost)
    yield from results
    if is_turn:
        yield _with_lost(turn, lost)


def _with_lost(turn: Turn, lost: Sequence[str]) -> Turn:
    """The turn, with the names of what it held and no template can be shown."""
    names = [*turn.get(NOT_KEPT, ()), *(f"a turn's {name}" for name in dict.fromkeys(lost))]
    return turn | {NOT_KEPT: names} if names else turn


def _unwrapped(item: Any, lost: list[str]) -> Any:
    """LangChain's constructor {lc, id, kwargs} and {type, data}, and {message: {...}}, as the message in them.

    `lost` takes the names of what stands beside it.
    """
    if not isinstance(item, Mapping) or "role" in item:
        return item
    if isinstance(item.get("kwargs"), Mapping) and "lc" in item:
        names = item.get("id")
        lost += unread(item, ("lc", "id", "type", "kwargs"))
        return {"type": names[-1] if isinstance(names, list) and names else None, **item["kwargs"]}
    if isinstance(item.get("data"), Mapping) and "content" in item["data"] and "type" in item:
        lost += unread(item, ("type", "data"))
        return {"type": item["type"], **item["data"]}
    if isinstance(item.get("message"), Mapping):
        lost += unread(item, ("id", "message"))
        return _unwrapped(item["message"], lost)
    return item


def _unread_keys(turn: Turn, item: Mapping[str, Any], text_key: str) -> list[str]:
    """What a turn holds beside its text, and says nowhere in `turn`."""
    read = [name for name in REASONING if item.get(name) == turn.get("reasoning_content")]
    if turn.get("tool_calls"):
        read += ["additional_kwargs.tool_calls", "tool_calls" if item.get("tool_calls") else "function_call"]
    return unread(item, (*UNDERSTOOD, "author.role", "author.name", text_key, *read))


def _role(item: Mapping[str, Any], what: str) -> str:
    author = item.get("author")
    role = item.get("role") or item.get("from") or (author.get("role") if isinstance(author, Mapping) else item.get("type"))
    if not isinstance(role, str):
        raise UnusableError("not_a_turn", f"{what} holds a turn without a role")
    known = role if role in ROLES else role.lower()
    return ROLES.get(known, known if known in STANDARD_ROLES else checked(role, "a role"))


def _part_kind(part: Any) -> str | None:
    """What a part of a content list is: its `type`, or the key that Gemini names it by."""
    if isinstance(part, str):
        return "text"
    if not isinstance(part, Mapping):
        return None
    if isinstance(part.get("type"), str):
        return str(part["type"])
    return next((key for key in ("text", *CALL_PARTS, *RESULT_PARTS) if key in part), None)


def _add_part(turn: Turn, texts: list[str], part: Any, where: str, lost: list[str]) -> list[Turn]:
    """Put one part into the turn; a tool's result is a turn of its own, which is returned."""
    part_kind = _part_kind(part)
    if part_kind in CIPHERS:
        lost += unread(part, ("type",), "content[]")
    elif part_kind in REASONING_PARTS or (isinstance(part, Mapping) and part.get("thought") is True):  # Gemini's are texts
        key = next((key for key in THOUGHTS if part.get(key)), "text")
        turn["reasoning_content"] = turn.get("reasoning_content", "") + _text(part.get(key) or "", where)
        lost += unread(part, ("type", "id", "thought", key), "content[]")
    elif part_kind in TEXT_PARTS:
        texts.append(_text(part if isinstance(part, str) else part.get("text"), where))
        if not isinstance(part, str) and len(part) > 1 + ("type" in part):
            lost += unread(part, ("type", "text"), "content[]")
    elif part_kind in CALL_PARTS:
        call = part.get(part_kind, part)
        lost += unread(part, ("type", part_kind), "content[]") if call is not part else ()
        turn.setdefault("tool_calls", []).append(_call(call, where, "content[]", lost))
    elif part_kind in RESULT_PARTS:
        result = part.get(part_kind, part)
        lost += unread(part, ("type", part_kind), "content[]") if result is not part else ()
        return [_result(result, where)]
    else:
        raise UnusableError("not_text", f"{where} is {_part_name(part, part_kind)}, not text")
    return []


def _part_name(part: Any, part_kind: str | None) -> str:
    if isinstance(part, Mapping):
        return f"a part of type {clip(part_kind, 40)!r}" if part_kind else f"a part with {clip(', '.join(map(str, part)), 60)}"
    return kind(part)


def _result(part: Any, where: str) -> Turn:
    if not isinstance(part, Mapping):
        raise UnusableError("not_a_turn", f"{where} holds a tool's result that is {kind(part)}, not an object")
    key = "content" if "content" in part else "response"
    content = part.get(key, "")
    names = unread(part, ("type", "id", "tool_use_id", "name", key))
    if isinstance(content, list):
        names += unread(content, ("[].type", "[].text"), key) if not all(isinstance(one, str) for one in content) else []
        content = "".join(_text(one.get("text") if isinstance(one, Mapping) else one, where) for one in content)
    turn: Turn = {"role": "tool", "content": content if isinstance(content, str) else _json(content, where)}
    named = {"tool_call_id": part.get("tool_use_id") or part.get("id"), "name": part.get("name")}
    turn |= {key: _text(value, where) for key, value in named.items() if value is not None}
    return _with_lost(turn, names)


def _add_fields(turn: Turn, item: Mapping[str, Any], what: str, lost: list[str]) -> None:
    more = item.get("additional_kwargs")
    calls = item.get("tool_calls") or (more.get("tool_calls") if isinstance(more, Mapping) else None)
    if calls is None and isinstance(item.get("function_call"), Mapping):
        calls = [item["function_call"]]
    if calls:
        turn["tool_calls"] = [_call(call, what, "tool_calls[]", lost) for call in need_list(calls, f"tool_calls of {what}")]
    thought = next((item[key] for key in REASONING if item.get(key)), None)
    if thought is not None and "reasoning_content" not in turn:
        turn["reasoning_content"] = _text(thought, f"reasoning of {what}")
    author = item.get("author")
    if isinstance(author, Mapping) and author.get("name"):
        turn["name"] = _text(author["name"], f"the author's name of {what}")
    turn |= {key: _text(item[key], f"{key} of {what}") for key in CARRIED if item.get(key)}


def _call(call: Any, what: str, path: str, lost: list[str]) -> dict[str, Any]:
    """One call in OpenAI's form, its arguments as they were given: an object, or the text that a model wrote."""
    if not isinstance(call, Mapping):
        raise UnusableError("not_a_call", f"a tool call of {what} is {kind(call)}, not an object")
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    name = function.get("name")
    if not isinstance(name, str):
        raise UnusableError("not_a_call", f"a tool call of {what} has no name")
    key = next((key for key in ARGUMENTS if key in function), "arguments")
    arguments: Any = function.get(key, {})
    _json(arguments, what)
    inside = "" if function is call else "function."
    lost += unread(call, ("type", "id", "call_id", f"{inside}name", f"{inside}{key}"), path)
    made = {"type": "function", "function": {"name": checked(name, "a tool's name"), "arguments": arguments}}
    return {"id": _text(call["id"], f"a tool call's id of {what}"), **made} if call.get("id") else made


def _sharegpt_calls(content: str, what: str, lost: list[str]) -> list[dict[str, Any]]:
    """LLaMA-Factory's function_call turn, whose text is one call as JSON, or a list of them."""
    try:
        calls = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableError("not_a_call", f"a function_call turn of {what} is not JSON") from None
    return [_call(call, what, "tool_calls[]", lost) for call in (calls if isinstance(calls, list) else [calls])]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UnusableError("not_text", f"{where} is {kind(value)}, not text")
    return checked(value, where)


def _json(value: Any, where: str) -> str:
    """A value as JSON text that can be stored. Raises UnusableError where it cannot, as NaN and Infinity cannot."""
    try:
        return checked(json.dumps(value, ensure_ascii=False, allow_nan=False), where)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableError("not_json", f"{where} cannot be written as JSON: {clip(str(error))}") from None


def plain_turn(turn: Turn) -> str:
    """All that a turn says, as text: its reasoning, its content and its calls. A turn of content alone is that content."""
    calls = [f"{call['function']['name']}({_arguments(call)})" for call in turn.get("tool_calls") or ()]
    thought = turn.get("reasoning_content")
    parts = [
        f"<think>{thought}</think>" if thought else "",
        turn["content"],
        *(f"<tool_call>{call}</tool_call>" for call in calls),
    ]
    return "\n".join(part for part in parts if part) if thought or calls else str(turn["content"])


def _arguments(call: Mapping[str, Any]) -> str:
    """As JSON whose keys are in order, so that the same call is the same text however it was written."""
    arguments = call["function"]["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return str(arguments)
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True)


def is_plain(turn: Turn) -> bool:
    """Whether a turn is its role and content and nothing else."""
    return not any(turn.get(key) for key in STORED)


def stored_turn(turn: Turn) -> dict[str, str | None]:
    """A turn as the feedback table holds it: a text or null for each field of `feedback.TURN`, the calls as JSON."""
    calls = turn.get("tool_calls")
    texts = {key: turn.get(key) for key in STORED} | {"tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None}
    return {"role": turn["role"], "content": turn["content"], **texts}


def loaded_turn(stored: Mapping[str, Any]) -> Turn:
    """What `stored_turn` stored, as a chat template takes it: no nulls, the calls as objects."""
    turn = {key: value for key, value in stored.items() if value is not None or key == "content"}
    return turn | {"tool_calls": json.loads(turn["tool_calls"])} if "tool_calls" in turn else turn


def prompt_of(record: Record, columns: Sequence[str]) -> Prompt:
    """The prompt: text or turns from one column, or the texts of several, each on its own line, empty ones left out."""
    if len(columns) == 1:
        value = need(record, columns[0])
        return turns_of(value, columns[0]) if isinstance(value, list) else plain_text(value, columns[0])
    parts = [text(need(record, column), column) for column in columns]
    return "\n".join(part for part in parts if part)


def holds_messages(value: Any) -> bool:
    """Whether a text is messages, or the response of an API, as JSON or as Python prints a list: what an export to CSV or from a
    warehouse makes of them.
    """
    if not isinstance(value, str) or (start := _MESSAGES_START.match(value)) is None:
        return False
    if start["quote"] == "'":
        return True
    try:
        held = json.loads(value)
    except (ValueError, RecursionError):
        return False
    if isinstance(held, dict):
        return _is_turn(held) or any(_are_turns(held.get(name)) for name in ("messages", *CANDIDATES))
    return _are_turns(held)


def _are_turns(items: Any) -> bool:
    """Whether all of a list are turns, or candidates that hold one."""
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return False
    return all(_is_turn(item) or _is_turn(item.get("message")) or _is_turn(item.get("content")) for item in items)


def _is_turn(item: Any) -> bool:
    return isinstance(item, dict) and not {"role", "from", "type"}.isdisjoint(item) and not _SAYINGS.isdisjoint(item)


def plain_text(value: Any, what: str) -> str:
    """`value` if it is text. Messages as JSON are not what was said: they are read where the column is asked for as messages."""
    if holds_messages(value):
        raise UnusableError(
            "messages_as_text", f"{what} is messages as text: say messages: {clip(what, 40)}, or write them as JSON"
        )
    return text(value, what)


def completion_of(value: Any, what: str) -> str | Turn:
    """The completion: text, one assistant turn, alone or in a list, or the response of an API that holds one answer."""
    lost: list[str] = []
    value = _answer_in(value, what, lost)
    if not isinstance(value, list | Mapping):
        answer = plain_text(value, what)
        return {"role": "assistant", "content": answer, NOT_KEPT: lost} if lost else answer
    turns = turns_of(value if isinstance(value, list) else [value], what)
    _check_ends_with_answer(turns, what)
    if len(turns) > 1:
        raise UnusableError("several_turns", f"{what} holds {len(turns)} turns; which of them was judged is not said")
    return turns[0] | {NOT_KEPT: [*lost, *turns[0].get(NOT_KEPT, ())]} if lost else turns[0]


def _answer_in(value: Any, what: str, lost: list[str]) -> Any:
    """The answer in a response: of OpenAI (both APIs), Gemini, LangChain, Ollama; any other value as it is.

    `lost` takes the names of what the response holds beside it: why it ended, what it cost.
    """
    if isinstance(value, list) and _is_responses_output(value):
        return _unwrapped_answer({"output": value}, what, lost)
    if isinstance(value, list) and len(value) == 1:
        inside = value[0]
        is_wrapper = isinstance(inside, list) or (isinstance(inside, Mapping) and not _has_role(inside))
        return _answer_in(inside, what, lost) if is_wrapper else value
    if not isinstance(value, Mapping) or _has_role(value):
        return value
    if (wrapper := next((key for key in CANDIDATES if key in value), None)) is None:
        return _unwrapped_answer(value, what, lost)
    entries = need_list(value[wrapper], f"{wrapper} of {what}")
    if len(entries) != 1:
        raise UnusableError("several_answers", f"{what} holds {len(entries)} {wrapper}; which of them was judged is not said")
    lost += unread(value, (wrapper,), what)
    return _answer_in(entries[0], f"{what}.{wrapper}[]", lost)


def _unwrapped_answer(value: Mapping[str, Any], what: str, lost: list[str]) -> Any:
    """One candidate as a turn, or as its text."""
    if isinstance(value.get("output"), list):
        messages = sum(isinstance(item, Mapping) and item.get("type") == "message" for item in value["output"])
        if messages > 1:
            raise UnusableError("several_answers", f"{what} holds {messages} messages; which of them was judged is not said")
        lost += unread(value, ("output",), what)
        return {"role": "assistant", "content": [part for item in value["output"] for part in _response_parts(item, what, lost)]}
    key = "message" if "message" in value else "content"
    if isinstance(inside := value.get(key), Mapping):
        lost += unread(value, (key,), what)
        return inside if _has_role(inside) else {"role": "assistant", **inside}
    if isinstance(value.get("content"), str | list) and "type" not in value:
        return {"role": "assistant", **value}
    if not isinstance(value.get("text"), str) or "type" in value:
        return value
    if any(value.get(name) for name in (*BESIDE_TEXT, *MEDIA_OF_TURN)):
        return {"role": "assistant", "content": value["text"], **{name: of for name, of in value.items() if name != "text"}}
    lost += unread(value, ("text",), what)
    return value["text"]


def _is_responses_output(items: list[Any]) -> bool:
    """Whether a list is the `output` of OpenAI's Responses API: one answer, its reasoning and calls beside its message."""
    marks = {"reasoning": "summary", "function_call": "call_id"}
    if not all(isinstance(item, Mapping) and item.get("role", "assistant") == "assistant" for item in items):
        return False
    return any(marks.get(str(item.get("type")), "type") in item and item.get("type") in marks for item in items)


def _has_role(value: Mapping[str, Any]) -> bool:
    return any(key in value for key in ("role", "from", "author", "lc"))


def _response_parts(item: Any, what: str, lost: list[str]) -> list[Any]:
    """The parts of one item of OpenAI's `output`: its message's, its reasoning, its call; what else there is, as it is."""
    if not isinstance(item, Mapping):
        return [item]
    if item.get("type") == "message" and isinstance(item.get("content"), list):
        lost += unread(item, ("type", "role", "id", "content"), f"{what}.output[]")
        return list(item["content"])
    if item.get("type") == "reasoning":
        lost += unread(item, ("type", "id", "summary[].type", "summary[].text"), f"{what}.output[]")
        parts = need_list(item.get("summary") or [], "a summary of reasoning")
        summary = [part.get("text", "") for part in parts if isinstance(part, Mapping)]
        return [{"type": "reasoning", "text": "\n".join(map(str, summary))}] if summary else []
    return [{**item, "id": item.get("call_id")} if item.get("type") == "function_call" else item]


def conversation(value: Any, what: str, judged: JudgedTurn = "last") -> tuple[list[Turn], Turn]:
    """(the turns before, the answer) of a conversation that ends with the judged assistant turn, or, if asked for, goes on."""
    turns = turns_of(value, what)
    if judged == "last_assistant":
        turns = _up_to_last_answer(turns)
    _check_ends_with_answer(turns, what)
    if len(turns) == 1:
        raise UnusableError("no_prompt", f"{what} holds the assistant's turn only")
    return turns[:-1], turns[-1]


def _up_to_last_answer(turns: list[Turn]) -> list[Turn]:
    after = next((number for number, turn in enumerate(reversed(turns)) if turn["role"] == "assistant"), 0)
    if not after:
        return turns
    *before, answer = turns[:-after]
    return [*before, _with_lost(answer, ["later turns"])]


def _check_ends_with_answer(turns: Sequence[Turn], what: str) -> None:
    if (last := turns[-1]["role"]) != "assistant":
        raise UnusableError(
            "no_assistant_turn",
            f"{what} ends with a turn of {clip(last, 20)!r}, not of the assistant; "
            "judged: last_assistant judges the answer before it",
        )


def plain(prompt: Prompt | Sequence[Mapping[str, Any]]) -> str:
    """The prompt as text: a single user turn is its content, several turns stand under role headers."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return plain_turn(dict(prompt[0]))
    return "\n\n".join(f"{turn['role'].capitalize()}: {plain_turn(dict(turn))}" for turn in prompt)


def same_turns(first: Sequence[Turn], second: Sequence[Turn]) -> bool:
    """Whether two conversations say the same; what no template could be shown of them makes no difference."""
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all({**one, NOT_KEPT: ()} == {**other, NOT_KEPT: ()} for one, other in pairs)


def row_turns(row: Record) -> list[Turn]:
    """The prompt of a feedback row as turns; a plain prompt is one user turn."""
    return [loaded_turn(turn) for turn in row["turns"]] if row["turns"] else [{"role": "user", "content": row["prompt"]}]


def answer_turn(row: Record) -> Turn:
    """The judged answer of a feedback row as a turn."""
    return loaded_turn(row["answer"]) if row.get("answer") else {"role": "assistant", "content": row["completion"]}


def row_prompt(row: Record) -> Prompt:
    """The prompt of a feedback row as it was read: text, or turns."""
    return row_turns(row) if row["turns"] else str(row["prompt"])


def row_completion(row: Record) -> str | list[Turn]:
    """The judged answer of a feedback row: text, or, where it is more than that, a list of its one turn."""
    return [answer_turn(row)] if row.get("answer") else str(row["completion"])


def json_field(value: Any, what: str) -> str | None:
    """A field of a record that a template is given (tools, chat_template_kwargs) as JSON text; null where it is empty.

    Raises UnusableError for text that is not JSON.
    """
    value = None if isinstance(value, str) and not value.strip() else parse_json_text(value, what)
    return _json(value, what) if value not in (None, [], {}) else None
