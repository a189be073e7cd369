"""Turns in the shapes of chat APIs: all that a template can render is kept, what it cannot is refused or counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktodata.formats.records import UnusableError
from ktodata.formats.turns import NOT_KEPT, is_plain, loaded_turn, plain_turn, stored_turn, turns_of

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}
ASKS = {"role": "user", "content": "Rain?"}

# the same exchange as each vendor writes it: a question, a call, its result, an answer
EXCHANGES = {
    "openai": [
        ASKS,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", **CALL}]},
        {"role": "tool", "tool_call_id": "c1", "content": "wet"},
        {"role": "assistant", "content": "Yes."},
    ],
    "anthropic": [
        {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bonn"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "wet"}]}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ],
    "langchain": [
        {"type": "human", "content": "Rain?", "id": "m1", "response_metadata": {}},
        {"type": "ai", "content": "", "tool_calls": [{"id": "c1", "name": "weather", "args": {"city": "Bonn"}}]},
        {"type": "tool", "content": "wet", "tool_call_id": "c1"},
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "messages", "AIMessage"],
            "kwargs": {"content": "Yes.", "type": "ai"},
        },
    ],
    "gemini": [
        {"role": "user", "parts": [{"text": "Rain?"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Bonn"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": "wet"}}]},
        {"role": "model", "parts": [{"text": "Yes."}]},
    ],
    "llamafactory": [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bonn"}}'},
        {"from": "observation", "value": "wet"},
        {"from": "gpt", "value": "Yes."},
    ],
}


@pytest.mark.parametrize("vendor", EXCHANGES)
def test_every_vendor_says_the_same_exchange(vendor):
    turns = turns_of(EXCHANGES[vendor], "messages")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert [turn["content"] for turn in turns] == ["Rain?", "", "wet", "Yes."]
    (call,) = turns[1]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": {"city": "Bonn"}}
    assert plain_turn(turns[1]) == '<tool_call>weather({"city": "Bonn"})</tool_call>'


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_kept_whatever_it_is_called(key):
    (turn,) = turns_of([{"role": "assistant", "content": "No.", key: "13 x 17"}], "completion")
    assert turn["reasoning_content"] == "13 x 17"
    assert plain_turn(turn) == "<think>13 x 17</think>\nNo."
    (part,) = turns_of(
        [{"role": "assistant", "content": [{"type": "thinking", "thinking": "13 x 17"}, {"type": "text", "text": "No."}]}],
        "completion",
    )
    assert part == turn


def test_a_turn_of_content_alone_is_its_content():
    (turn,) = turns_of([{"role": "assistant", "content": "Blue."}], "completion")
    assert turn == {"role": "assistant", "content": "Blue."}
    assert is_plain(turn)
    assert plain_turn(turn) == "Blue."


def test_the_same_call_is_the_same_text_however_its_arguments_are_written():
    texts = {
        plain_turn(
            turns_of([{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": a}}]}], "m")[0]
        )
        for a in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, '{"b":2,"a":1}')
    }
    assert len(texts) == 1
    other = turns_of(
        [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 2}}}]}], "m"
    )
    assert plain_turn(other[0]) not in texts


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "input_audio"},
        {"inlineData": {"mimeType": "image/png"}},
        {"type": "file"},
        3,
    ],
)
def test_what_is_not_text_is_refused(part):
    with pytest.raises(UnusableError) as refused:
        turns_of([{"role": "user", "content": [{"type": "text", "text": "See:"}, part]}], "messages")
    assert refused.value.reason == "not_text"


def test_an_unknown_key_is_named():
    turns = turns_of(
        [{"role": "user", "content": "a", "mood": "cross", "empty": None}, {"role": "user", "content": "b", "id": "m2"}], "m"
    )
    assert [turn.get(NOT_KEPT) for turn in turns] == [["a turn's mood"], None]


@given(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "tool"]),
            "content": st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        },
        optional={
            "name": st.text("ab", min_size=1),
            "tool_call_id": st.text("ab", min_size=1),
            "reasoning_content": st.text("ab ", min_size=1),
            "tool_calls": st.lists(st.just({"id": "c", **CALL}), min_size=1),
        },
    )
)
def test_what_is_stored_is_loaded(turn):
    assert loaded_turn(stored_turn(turn)) == turn


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no_turns"),
        (["text"], "not_a_turn"),
        ([{"content": "no role"}], "not_a_turn"),
        ([{"role": "user", "content": None}], "not_text"),
        ([{"role": "user", "content": 3}], "not_text"),
        ([{"role": "assistant", "content": "", "tool_calls": ["call"]}], "not_a_call"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}], "not_a_call"),
        ([{"from": "function_call", "value": "not json"}], "not_a_call"),
        ([{"role": "user", "content": "a\0b"}], "nul"),
        ([{"role": "assistant", "content": "a", "reasoning": "\ud800"}], "lone_surrogate"),
    ],
)
def test_what_is_no_turn_has_a_reason(turns, reason):
    with pytest.raises(UnusableError) as refused:
        turns_of(turns, "messages")
    assert refused.value.reason == reason
