"""Chats as trees, in which a verdict is about one of the messages: Open WebUI's feedback export, and OpenAssistant's trees.

The prompt of an answer is the way to it from the beginning of the tree, whatever was asked afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import (
    ABSENT,
    CannotHoldError,
    LabelledCompletion,
    Record,
    Turn,
    UnusableError,
    clip,
    lookup,
    need_list,
    rater_name,
)
from ktodata.formats.scores import MODELS, PEOPLE, Score, UnaskedVerdictError, other_verdicts, verdict_of
from ktodata.formats.times import stamp
from ktodata.formats.turns import answer_turn, is_plain, row_turns, turns_of
from ktodata.formats.unread_fields import unread

# --- Open WebUI -------------------------------------------------------------------------------------------------------------

LINKS = ("id", "parentId", "childrenIds")
RATINGS = ("data.rating", "data.details.rating")
READ_DATA = ("rating", "details.rating", "model_id")
KIND = ("type", "version")  # of the record: a rating, in the export's version
CHAT = ("history.messages", "history.currentId", "messages", "params.system", "system")


def is_open_webui(record: Record, _fields: Fields) -> bool:
    return isinstance(record.get("snapshot"), Mapping) and lookup(record, "meta.message_id") is not ABSENT and "data" in record


def read_open_webui(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Open WebUI's "Export feedback history": a rating, the id of the message that it is about, and the chat at that time.

    Say what the ratings mean: label: {column: data.rating, 1: true, -1: false}. The rater is the user.
    """
    values = {path: lookup(record, path) for path in RATINGS}
    rater, time = rater_name(record.get("user_id") or None), record.get("updated_at") or record.get("created_at")
    scores = [Score(path, value, PEOPLE, rater, time) for path, value in values.items() if value is not ABSENT]
    verdict = verdict_of(scores, fields.label)
    chat = lookup(record, "snapshot.chat.chat")
    messages = _messages(chat)
    *before, answer = way = _way_to(lookup(record, "meta.message_id"), messages)
    if answer["role"] != "assistant":
        raise UnusableError("no_assistant_turn", f"the feedback is about a message of {clip(answer['role'], 20)!r}")
    prompt = [*_system(chat), *before]
    if not before:
        raise UnusableError("no_prompt", "nothing is before the answer")
    model = next((value for path in ("data.model_id", "meta.model_id") if isinstance(value := lookup(record, path), str)), None)
    names = [*unread(record["data"], READ_DATA, "data"), *other_verdicts(scores, fields.label)]
    tree = lookup(chat, "history.messages")
    names += [] if tree is ABSENT else unread(tree, messages, "snapshot.chat.chat.history.messages")
    names += ["messages of the chat that are not before the answer"] if len(messages) > len(way) else []
    return [LabelledCompletion(prompt, answer, verdict, {"model": model}, not_kept=names)]


def _messages(chat: Any) -> dict[str, Mapping[str, Any]]:
    """The chat's messages by id: of its tree, or, in old exports, of its list."""
    tree, in_order = lookup(chat, "history.messages"), lookup(chat, "messages")
    entries = list(tree.values()) if isinstance(tree, Mapping) and tree else in_order if isinstance(in_order, list) else []
    return {str(entry.get("id")): entry for entry in entries if isinstance(entry, Mapping)}


def _way_to(key: Any, messages: Mapping[str, Mapping[str, Any]]) -> list[Turn]:
    way: list[Mapping[str, Any]] = []
    while key is not None:
        if str(key) not in messages or len(way) > len(messages):
            raise UnusableError("no_message", f"the chat has no message {clip(key, 40)!r} that a beginning leads to")
        way.insert(0, messages[str(key)])
        key = way[0].get("parentId")
    if any(message.get("files") for message in way):
        raise UnusableError("not_text", "a message has files, which a text model cannot be shown")
    return turns_of([{name: value for name, value in message.items() if name not in LINKS} for message in way], "the chat")


def _system(chat: Any) -> list[Turn]:
    texts = (lookup(chat, path) for path in ("params.system", "system"))
    return [{"role": "system", "content": text} for text in texts if isinstance(text, str) and text][:1]


def write_open_webui(rows: Sequence[Row]) -> dict[str, Any]:
    row, turns = rows[0], [*row_turns(rows[0]), answer_turn(rows[0])]
    keys = [f"m{number}" for number in range(len(turns))]
    parents, children = [None, *keys[:-1]], [[key] for key in keys[1:]] + [[]]
    messages = {
        key: {"id": key, "parentId": parent, "childrenIds": after, **turn}
        for key, parent, after, turn in zip(keys, parents, children, turns, strict=True)
    }
    return {
        "id": row["source_id"] or row["row_id"],
        "user_id": row["rater"],
        "data": {"rating": 1 if row["label"] else -1, "model_id": row["model"]},
        "meta": {"message_id": keys[-1]},
        "snapshot": {"chat": {"chat": {"history": {"messages": messages, "currentId": keys[-1]}}}},
        "updated_at": stamp(row["created_at"]),
    }


OPEN_WEBUI = Format(
    name="open_webui",
    matches=is_open_webui,
    read=read_open_webui,
    write=write_open_webui,
    holds=("prompt", "completion", "label", "turns", "answer", "rater", "created_at", "source_id", "model"),
    reads=("data", "meta.message_id", "meta.model_id", *KIND, "created_at", *(f"snapshot.chat.chat.{path}" for path in CHAT)),
    example={
        "id": "f-1",
        "user_id": "u-1",
        "data": {"rating": 1, "model_id": "small"},
        "meta": {"message_id": "m1"},
        "snapshot": {
            "chat": {
                "chat": {
                    "history": {
                        "messages": {
                            "m0": {
                                "id": "m0",
                                "parentId": None,
                                "childrenIds": ["m1"],
                                "role": "user",
                                "content": "What colour is the sky?",
                            },
                            "m1": {"id": "m1", "parentId": "m0", "childrenIds": [], "role": "assistant", "content": "Blue."},
                        },
                        "currentId": "m1",
                    }
                }
            }
        },
        "updated_at": "2025-05-01T10:00:00Z",
    },
    settings={"label": {"column": "data.rating", 1: True, -1: False}},
    about={"source_id": "id", "rater": "user_id", "created_at": "updated_at"},
)

# --- OpenAssistant ----------------------------------------------------------------------------------------------------------

OASST_READ = ("role", "text", "content", "replies", "labels", "rank", "deleted", "synthetic", *LINKS)
OASST_ROLES = {"user": "prompter", "assistant": "assistant"}


def is_oasst(record: Record, _fields: Fields) -> bool:
    return isinstance(record.get("prompt"), Mapping) and "replies" in record["prompt"]


def read_oasst(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """OpenAssistant's trees: each reply of the assistant with the verdict asked for, its rank or a mean of labels.

    label: {column: labels.quality.value, at_least: 0.7}, or {column: rank, 0: true, 1: false}. A reply without it gives no row.
    """
    answers = list(_replies(record["prompt"], []))
    judged, verdicts = [], [score for _, _, scores in answers for score in scores]
    for before, answer, scores in answers:
        if any(score.name == fields.label.column for score in scores):
            names = other_verdicts(scores, fields.label)
            judged.append(LabelledCompletion(before, answer, verdict_of(scores, fields.label), not_kept=names))
    if not judged:
        if verdicts:
            raise UnaskedVerdictError("which verdict on the replies is the label is not said, or no reply has it", verdicts)
        raise UnusableError("unlabelled", "no reply has a verdict")
    judged[0].not_kept = [*judged[0].not_kept, *_unread_replies(record["prompt"], judged, len(answers))]
    return judged


def _unread_replies(root: Mapping[str, Any], judged: Sequence[LabelledCompletion], answers: int) -> list[str]:
    """What of a tree is in no row."""
    names = {"replies without the verdict asked for": answers > len(judged), "deleted messages": False}
    pending: list[Any] = [root]
    while pending:
        message = pending.pop()
        names["deleted messages"] |= bool(message.get("deleted"))
        pending += message.get("replies") or []
    return [name for name, is_there in names.items() if is_there]


def _replies(message: Any, before: list[Turn]) -> Iterator[tuple[list[Turn], Turn, list[Score]]]:
    """(the turns before, the reply, its verdicts) of every reply of the assistant under a message."""
    pending = [(message, before)]
    while pending:
        message, before = pending.pop()
        if not isinstance(message, Mapping):
            raise UnusableError("not_a_turn", "a reply is no object")
        if message.get("deleted"):
            continue
        (turn,) = turns_of([_oasst_turn(message)], "the tree")
        if turn["role"] == "assistant":
            if not before:
                raise UnusableError("no_prompt", "the tree begins with an answer")
            yield before, turn, _reply_scores(message)
        replies = need_list(message.get("replies") or [], "replies")
        pending += [(reply, [*before, turn]) for reply in reversed(replies)]


def _oasst_turn(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of a tree with all that is no link, flag or verdict: what no template renders is counted as a turn's."""
    labels = message.get("labels")
    rest = {key: value for key, value in message.items() if key not in OASST_READ}
    if isinstance(labels, Mapping) and message.get("role") != "assistant":
        rest["labels"] = labels
    elif unread_labels := unread(labels, ("*.value",)):
        rest |= {f"labels.{name}": True for name in unread_labels}
    return {**rest, "role": message.get("role"), "content": message.get("text")}


def _reply_scores(message: Mapping[str, Any]) -> list[Score]:
    labels = message.get("labels")
    by = MODELS if message.get("synthetic") else PEOPLE
    means = {
        f"labels.{name}.value": label.get("value")
        for name, label in (labels if isinstance(labels, Mapping) else {}).items()
        if isinstance(label, Mapping)
    }
    return [Score(name, value, by) for name, value in {**means, "rank": message.get("rank")}.items() if value is not None]


def write_oasst(rows: Sequence[Row]) -> dict[str, Any]:
    turns = [*row_turns(rows[0]), answer_turn(rows[0])]
    if any(turn["role"] not in OASST_ROLES or not is_plain(turn) for turn in turns):
        raise CannotHoldError("only texts of user and assistant have a place in it")
    tree = {"text": turns[-1]["content"], "role": "assistant", "rank": 0 if rows[0]["label"] else 1}
    for turn in reversed(turns[:-1]):
        tree = {"text": turn["content"], "role": OASST_ROLES[turn["role"]], "replies": [tree]}
    return {"prompt": tree}


OASST = Format(
    name="oasst",
    matches=is_oasst,
    read=read_oasst,
    write=write_oasst,
    holds=("prompt", "completion", "label", "turns"),
    reads=("prompt",),
    example={
        "prompt": {
            "text": "What colour is the sky?",
            "role": "prompter",
            "replies": [{"text": "Blue.", "role": "assistant", "rank": 0}],
        }
    },
    settings={"label": {"column": "rank", 0: True, 1: False}},
)
