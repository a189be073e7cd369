"""Open WebUI: the feedback of all its users, each with the chat as it was when it was given.

A record is a feedback {id, user_id, type, data: {rating: 1 | -1, model_id, reason, comment}, meta: {chat_id, message_id, arena},
snapshot: {chat: {chat: {history: {messages: {id: {role, content, parentId, childrenIds}}}}}}, created_at, updated_at}, as "Export
feedback history" gives it and the format `open_webui` reads it. Feedback whose snapshot lacks the message is left out.

Asked: GET /api/v1/evaluations/feedbacks/all/export, which has no pages and needs an admin's key (and, there, API keys enabled).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ktodata.formats.sources.held_items import Feed, HeldItems, Item
from ktodata.formats.sources.service import Query, Service
from ktodata.formats.sources.source import Joined, PullSource, bearer
from ktodata.formats.times import moment

Messages = Mapping[str, Mapping[str, Any]]


def fetch(service: Service, query: Query) -> None:
    service.get("feedback", "/api/v1/evaluations/feedbacks/all/export")


def join(items: HeldItems, query: Query) -> Joined:
    records, left_out = [], Counter[str]()
    for item in items.of("feedback").values():
        changed = moment(item.get("updated_at") or item.get("created_at"))
        if query.since is not None and changed is not None and changed < query.since:
            left_out["before since"] += 1
        elif _message_id(item) not in _messages(item):
            left_out["message not in the snapshot"] += 1
        else:
            records.append(dict(item))
    return Joined(records, left_out)


def _message_id(record: Item) -> Any:
    return (record.get("meta") or {}).get("message_id")


def _messages(record: Item) -> Messages:
    """The chat's messages by id; none where the snapshot has another shape."""
    inside: Any = record.get("snapshot")
    for name in ("chat", "chat", "history", "messages"):
        inside = inside.get(name) if isinstance(inside, Mapping) else None
    return inside if isinstance(inside, Mapping) else {}


OPEN_WEBUI_SOURCE = PullSource(
    name="open_webui",
    needs=("OPEN_WEBUI_API_KEY",),
    headers=bearer,
    feeds={"feedback": Feed(list, updated=("updated_at", "created_at"))},
    fetch=fetch,
    join=join,
    takes_none="open_webui takes feedback from the user of the chat alone",
)
