"""A verdict is about one message of a conversation, a tree or a table of messages: the turns before that message are its prompt."""

import json
from typing import Any

import pytest

from ktodata.errors import FormatError, LabelError, SettingError
from ktodata.formats import read

THUMBS = {1: True, -1: False}


def rows(result: Any, *columns: str) -> list[tuple[Any, ...]]:
    return result.feedback.select(columns or ("prompt", "completion", "label")).rows()


def says(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TALK = [
    says("user", "Highest mountain?"),
    says("assistant", "K2.", score=-1, by="ann", at="2026-01-02T10:00:00Z"),
    says("user", "Really?"),
    says("assistant", "Everest.", score=1, by="bob", at="2026-01-02T10:01:00Z"),
    says("user", "thanks"),
]
LONG = "User: Highest mountain?\n\nAssistant: K2.\n\nUser: Really?"


def test_each_judged_turn_is_a_row_with_the_turns_before_it(lines):
    label = {"column": "messages[].score", **THUMBS}
    result = read(lines({"messages": TALK}), label=label, rater="messages[].by", created_at="messages[].at")
    assert rows(result) == [("Highest mountain?", "K2.", False), (LONG, "Everest.", True)]
    assert [(rater, time.minute) for rater, time in rows(result, "rater", "created_at")] == [("ann", 0), ("bob", 1)]
    assert result.metrics["not_kept"] == {}
    assert result.metrics["unparseable_times"] == 0


def test_turns_of_from_and_value_and_messages_as_text_are_judged_too(lines):
    talk = [{"from": "human", "value": "Deepest lake?"}, {"from": "gpt", "value": "Baikal.", "rating": "good"}]
    label = {"column": "conversations[].rating", "good": True, "bad": False}
    for value in (talk, json.dumps(talk)):
        assert rows(read(lines({"conversations": value}), label=label)) == [("Deepest lake?", "Baikal.", True)]
    by_setting = read(lines({"talk": json.dumps(talk)}), messages="talk", label={**label, "column": "talk[].rating"})
    assert rows(by_setting) == [("Deepest lake?", "Baikal.", True)]


def test_without_the_path_reading_stops_with_the_verdicts_that_there_are(lines):
    with pytest.raises(LabelError, match=r"messages\[\]\.score' by people \(-1 1, 1 1\).*column: 'messages\[\]\.score'"):
        read(lines({"messages": TALK}))


def test_what_is_no_answer_with_a_meaning_gives_no_row(lines):
    label = {"column": "messages[].score", **THUMBS, 0: None}
    user_judged = [says("user", "Hi", score=1), says("assistant", "Hello.", score=1)]
    first = [says("assistant", "Hello.", score=1), says("user", "Hi")]
    none = [says("user", "Hi"), says("assistant", "Hello.", score=0)]
    odd = [says("user", "Hi"), says("assistant", "Hello.", score=5)]
    result = read(lines(*({"messages": talk} for talk in (user_judged, first, none, odd))), label=label)
    assert rows(result) == [("Hi", "Hello.", True)]
    assert result.metrics["not_kept"] == {"a user turn's score": 1}
    assert result.quarantine["reason"].to_list() == ["no_prompt", "unlabelled", "label_unmapped"]
    with pytest.raises(SettingError, match="votes"):
        read(lines({"messages": TALK}), label=label, votes=["ann"])


@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_a_conversation_that_goes_on_is_judged_at_its_last_answer_where_that_is_asked_for(column, lines):
    path = lines({"messages": [says("user", "Hi"), says("assistant", "Hello."), says("user", "thanks")], column: True})
    with pytest.raises(FormatError, match="judged: last_assistant"):
        read(path)
    result = read(path, judged="last_assistant")
    assert rows(result) == [("Hi", "Hello.", True)]
    assert result.metrics["not_kept"] == {"a turn's later turns": 1}
    with pytest.raises(SettingError, match="last_assistant"):
        read(path, judged="first")


# --- trees ------------------------------------------------------------------------------------------------------------------


def feedback(number: int, rating: Any, message: str, **messages: tuple[str | None, str, str]) -> dict[str, Any]:
    chat = {key: {"id": key, "parentId": parent, "role": role, "content": text} for key, (parent, role, text) in messages.items()}
    return {
        "id": f"f{number}",
        "user_id": f"u{number}",
        "type": "rating",
        "version": 0,
        "data": {"rating": rating, "model_id": "m", "reason": "wrong", "comment": ""},
        "meta": {"message_id": message, "chat_id": "c"},
        "snapshot": {"chat": {"chat": {"params": {"system": "Be brief."}, "history": {"messages": chat}}}},
        "created_at": 1777629600,
        "updated_at": 1777629660,
    }


CHAT = {
    "a": (None, "user", "Longest river?"),
    "b": ("a", "assistant", "The Rhine."),
    "b2": ("a", "assistant", "The Nile."),
    "c": ("b", "user", "Sure?"),
    "d": ("c", "assistant", "No."),
}


def test_open_webui_judges_the_message_that_the_feedback_names(lines):
    label = {"column": "data.rating", **THUMBS}
    path = lines(feedback(1, 1, "b2", **CHAT), feedback(2, -1, "d", **CHAT))
    with pytest.raises(LabelError, match=r"'data\.rating' by people \(1 1, -1 1\)"):
        read(path)
    result = read(path, label=label)
    system = "System: Be brief.\n\nUser: Longest river?"
    assert rows(result) == [(system, "The Nile.", True), (f"{system}\n\nAssistant: The Rhine.\n\nUser: Sure?", "No.", False)]
    assert rows(result, "rater", "source_id", "model") == [("u1", "f1", "m"), ("u2", "f2", "m")]
    assert result.metrics["not_kept"] == {
        "data.reason": 2,
        "messages of the chat that are not before the answer": 2,
        "meta.chat_id": 2,
    }


def test_open_webui_feedback_that_names_no_answer_is_set_aside(lines):
    with_file = feedback(4, 1, "b", **CHAT)
    with_file["snapshot"]["chat"]["chat"]["history"]["messages"]["a"]["files"] = [{"type": "image"}]
    circle = feedback(5, 1, "b", a=("b", "user", "Hi"), b=("a", "assistant", "Hello."))
    bad = [feedback(1, 1, "z", **CHAT), feedback(2, 1, "c", **CHAT), feedback(3, None, "b", **CHAT), with_file, circle]
    result = read(lines(feedback(0, 1, "b", **CHAT), *bad), label={"column": "data.rating", **THUMBS})
    assert result.quarantine["reason"].to_list() == ["no_message", "no_assistant_turn", "unlabelled", "not_text", "no_message"]


def reply(role: str, text: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **more}


TREE = reply(
    "prompter",
    "Capital of Chad?",
    reply("assistant", "Lagos.", rank=1, labels={"quality": {"value": 0.2, "count": 3}}),
    reply(
        "assistant",
        "N'Djamena.",
        reply("prompter", "Thanks. Of Mali?", reply("assistant", "Bamako.", labels={"quality": {"value": 0.9, "count": 3}})),
        rank=0,
        labels={"quality": {"value": 0.8, "count": 3}},
    ),
    reply("assistant", "spam", rank=2, deleted=True),
)


def test_replies_of_a_tree_are_judged_by_the_verdict_asked_for(lines):
    path = lines({"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": TREE})
    with pytest.raises(LabelError, match=r"labels\.quality\.value.*'rank'"):
        read(path)
    by_rank = read(path, label={"column": "rank", 0: True, 1: False})
    assert rows(by_rank) == [("Capital of Chad?", "Lagos.", False), ("Capital of Chad?", "N'Djamena.", True)]
    by_quality = read(path, label={"column": "labels.quality.value", "at_least": 0.5})
    assert rows(by_quality, "completion", "label") == [("Lagos.", False), ("N'Djamena.", True), ("Bamako.", True)]
    assert [turn["role"] for turn in by_quality.feedback["turns"].to_list()[2]] == ["user", "assistant", "user"]


# --- one record per message ---------------------------------------------------------------------------------------------------


def message(key: str, parent: Any, text: str, *, mine: bool, rating: str | None = None, talk: str = "t") -> dict[str, Any]:
    verdict = {"feedback": {"rating": rating}} if rating else {}
    return {"messageId": key, "conversationId": talk, "parentMessageId": parent, "isCreatedByUser": mine, "text": text, **verdict}


COLUMNS = {
    "column": "conversationId",
    "id": "messageId",
    "parent": "parentMessageId",
    "role": {"column": "isCreatedByUser", True: "user", False: "assistant"},
}
RATING = {"column": "feedback.rating", "thumbsUp": True, "thumbsDown": False}
ROOT = "00000000-0000-0000-0000-000000000000"


def test_messages_of_a_table_are_joined_by_their_parents(lines):
    path = lines(
        message("b", "a", "Oslo.", mine=False, rating="thumbsUp"),
        message("a", ROOT, "Capital of Norway?", mine=True),
        message("x", ROOT, "Another talk", mine=True, talk="other"),
        message("b2", "a", "Bergen.", mine=False, rating="thumbsDown"),
        message("c", "b2", "Sure?", mine=True, rating="thumbsUp"),
        message("d", "c", "No.", mine=False),
        message("e", "gone", "Hm.", mine=False, rating="thumbsUp"),
    )
    result = read(path, conversation=COLUMNS, label=RATING, source_id="messageId")
    assert rows(result, "prompt", "completion", "label", "source_id", "source_line") == [
        ("Capital of Norway?", "Oslo.", True, "b", 1),
        ("Capital of Norway?", "Bergen.", False, "b2", 4),
    ]
    assert dict(result.quarantine.select("line", "reason").rows()) == {5: "not_an_answer", 6: "label_missing", 7: "no_parent"}
    assert result.metrics["records"] == 5


@pytest.mark.parametrize("roots_parent", [None, "", 0, "client-created-root"])
@pytest.mark.parametrize(("first", "as_read"), [(0, int), (0, float), (1, int), (1, float), (0, str)])
def test_the_first_message_is_before_the_answers_whatever_its_id(first, as_read, roots_parent):
    texts = ["My name is Ann.", "Hello Ann.", "What is my name?", "Ann."]
    messages = [
        {
            "talk": "t",
            "id": str(first + n) if as_read is str else first + n,
            "parent": as_read(first + n - 1) if n else roots_parent,
            "role": ("user", "assistant")[n % 2],
            "content": text,
            "good": True if n == 3 else None,
        }
        for n, text in enumerate(texts)
    ]
    result = read(
        messages, label={"column": "good", True: True, False: False}, conversation={"column": "talk", "parent": "parent"}
    )
    assert rows(result) == [("User: My name is Ann.\n\nAssistant: Hello Ann.\n\nUser: What is my name?", "Ann.", True)]


def test_messages_without_parents_are_in_the_order_of_their_times(lines):
    path = lines(
        {"thread": 1, "role": "assistant", "content": "Seven.", "up": True, "at": "2026-03-01T10:00:05Z"},
        {"thread": 1, "role": "user", "content": "3 + 4?", "up": None, "at": "2026-03-01T10:00:00Z"},
    )
    assert rows(read(path, conversation="thread", label={"column": "up", True: True, False: False}, created_at="at")) == [
        ("3 + 4?", "Seven.", True)
    ]
    with pytest.raises(FormatError, match="no_prompt 1"):
        read(path, conversation="thread", label={"column": "up", True: True, False: False})


@pytest.mark.parametrize("time", [None, "soon"])
def test_a_conversation_of_which_a_message_has_no_time_has_no_order(lines, time):
    """In the order of the file the answer's question would be one that came later."""
    talk = [("user", "Sky?"), ("assistant", "Blue."), ("user", "Sum?"), ("assistant", "Seven.")]
    newest_first = [
        {"thread": thread, "role": role, "content": text, "up": role == "assistant" or None, "at": f"2026-03-01T10:00:0{second}Z"}
        for thread in (1, 2)
        for second, (role, text) in reversed(list(enumerate(talk)))
    ]
    newest_first[2]["at"] = time
    newest_first[3]["up"] = True  # a verdict on a question is set aside as everywhere
    result = read(lines(*newest_first), conversation="thread", label={"column": "up", True: True, False: False}, created_at="at")
    assert result.metrics["quarantined"] == {"no_order": 2, "not_an_answer": 1}
    assert result.feedback["completion"].to_list() == ["Blue.", "Seven."]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"conversation": {"id": "a"}}, SettingError),
        ({"conversation": {"column": "thread", "colour": "a"}}, SettingError),
        ({"conversation": "thread", "prompt": "a"}, SettingError),
        ({"conversation": "thread", "format": "trl"}, SettingError),
        ({"conversation": {"column": "thread", "role": "mine"}}, FormatError),
        ({"conversation": "thred"}, FormatError),
    ],
)
def test_settings_that_name_no_conversation_are_refused(settings, error, lines):
    with pytest.raises(error, match=r"conversation|thred"):
        read(lines({"thread": 1, "role": "assistant", "mine": False, "content": "Hi", "label": True}), **settings)
