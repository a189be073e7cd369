"""Conversations as parts: every shape of call, reasoning wherever a model writes it, and limits that hold."""

import json
import time

import pytest

from ktodata.report.examples import in_short
from ktodata.review.turn_view import MAX_CALLS, answer_view, prompt_view, tools_view


def turn(role, content="", **more):
    return dict.fromkeys(("name", "tool_call_id", "tool_calls", "reasoning_content")) | {"role": role, "content": content, **more}


def calls_of(*calls):
    return json.dumps([{"id": f"c{place}", "function": {"name": "f", "arguments": call}} for place, call in enumerate(calls)])


def parts(text, **more):
    view = answer_view(turn("assistant", text, **more), text, 10_000)
    return view and [(part.kind, part.text.text) for part in view.turns[0].parts]


def test_turns_are_named_and_results_know_their_call():
    turns = [
        turn("user", "hi", name="Bob"),
        turn("assistant", tool_calls=calls_of('{"x":1}')),
        turn("tool", "", tool_call_id="c0"),
        turn("critic", "no"),
    ]
    view = prompt_view(turns, 10_000)
    assert [(shown.role, shown.name) for shown in view.turns] == [
        ("user", "Bob"),
        ("assistant", ""),
        ("tool", ""),
        ("critic", ""),
    ]
    (call,), (result,) = view.turns[1].parts, view.turns[2].parts
    assert (call.kind, call.name, call.text.text, call.note) == ("call", "f", '{\n  "x": 1\n}', "")
    assert (result.kind, result.name, result.text.text) == ("result", "f", "")
    assert not view.cut and prompt_view(None, 10) is None and prompt_view([], 10) is None


@pytest.mark.parametrize(
    ("arguments", "text", "note"),
    [
        ('{"a":[1,2.5,"ü\\n"]}', '{\n  "a": [\n    1,\n    2.5,\n    "ü\\n"\n  ]\n}', ""),
        ({"b": 2, "a": None}, '{\n  "b": 2,\n  "a": null\n}', ""),
        # what indenting would change stands as it was written
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}', ""),
        ('{"a": 1.10}', '{"a": 1.10}', ""),
        ('{"a": -0, "b": 1e400}', '{"a": -0, "b": 1e400}', ""),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}", ""),
        ('{"a": NaN}', '{"a": NaN}', "these arguments are not JSON"),
        ("{a: 1}", "{a: 1}", "these arguments are not JSON"),
        ("[" * 5000, "[" * 5000, "these arguments are not JSON"),
        ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300, ""),
        ("", "", "without arguments"),
        (None, "", "without arguments"),
    ],
)  # fmt: skip
def test_arguments_are_readable_and_say_what_was_written(arguments, text, note):
    view = answer_view(turn("assistant", tool_calls=calls_of(arguments)), "", 20_000)
    (call,) = view.turns[0].parts
    assert (call.text.text, call.note) == (text, note)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("no JSON", ("", "no JSON", "these calls are not JSON")),
        ("[" * 3000, ("", "[" * 3000, "these calls are not JSON")),
        ("[3]", ("", "3", "a call without a name")),
        ('{"function": {"name": 1}}', ("", '{"function": {"name": 1}}', "a call without a name")),
        ('{"function": {"name": "f", "arguments": 5}, "id": []}', ("f", "5", "")),
        ('["' + "x" * 2_000_000 + '"]', ("", '["' + "x" * 9998, "calls too long to be taken apart")),
    ],
)
def test_calls_of_any_shape_are_shown(stored, shown):
    (part,) = answer_view(turn("assistant", tool_calls=stored), "", 10_000).turns[0].parts
    assert (part.name, part.text.text, part.note) == shown


def test_of_very_many_calls_the_first_are_shown_and_the_rest_are_counted():
    view = answer_view(turn("assistant", tool_calls=calls_of(*["{}"] * (MAX_CALLS + 5))), "", 10**6)
    (last,) = [part for part in view.turns[0].parts if not part.name]
    assert last.note == "5 more calls" and len(view.turns[0].parts) == MAX_CALLS + 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", None),
        ("it writes <think> and </think> in a line", None),
        ("<think>a\nb</think>\n\nc", [("reasoning", "a\nb"), ("text", "c")]),
        ("\n <think>a</think>b\n<think>c</think>d", [("reasoning", "a"), ("text", "b"), ("reasoning", "c"), ("text", "d")]),
        ("a\n</think>\nb", [("reasoning", "a"), ("text", "b")]),  # the template wrote the first tag
        ("<think>cut short", [("reasoning", "cut short")]),
        ("first\n<think>never closed", None),
        ("<think>\n\n</think>\n\nb", None),  # none was wanted
        ("<thinking>a</thinking>b", [("reasoning", "a"), ("text", "b")]),
        ("<reasoning>a</think></reasoning>b", [("reasoning", "a</think>"), ("text", "b")]),
    ],
)
def test_reasoning_is_set_apart(text, shown):
    assert parts(text) == shown


def test_reasoning_beside_the_text_and_in_others_words():
    assert parts("No.", reasoning_content="Hm.") == [("reasoning", "Hm."), ("text", "No.")]
    (asked,) = prompt_view([turn("user", "<think>my own words</think>")], 1000).turns
    assert [part.kind for part in asked.parts] == ["text"]


@pytest.mark.parametrize(
    "text", ["<think>\n" * 40_000, "<think></think>\n" * 20_000, "</think>" * 40_000, "\n" * 300_000 + "<think>"]
)
def test_no_text_takes_long(text):
    began = time.thread_time()
    answer_view(None, text, 200_000)
    in_short(text, 280)
    assert time.thread_time() - began < 1.0


def test_a_limit_holds_and_says_what_it_leaves_out():
    turns = [turn("user", f"{number} " + "x" * 2000) for number in range(500)]
    view = prompt_view(turns, 20_000)
    texts = [part.text for shown in view.turns for part in shown.parts]
    assert view.cut and view.in_all == 500 and 8 <= len(view.turns) <= 10
    assert sum(len(text.text) for text in texts) <= 20_000 and texts[-1].text.startswith("499 ") and not texts[-1].cut
    many = prompt_view([turn("user", "x") for _ in range(100_000)], 20_000)
    assert len(many.turns) <= 200 and many.in_all == 100_000


def test_a_long_part_hides_no_other():
    view = answer_view(turn("assistant", "x" * 9000, reasoning_content="y" * 9000, tool_calls=calls_of("{}")), "", 5000)
    (answer,) = view.turns
    assert [(part.kind, part.text.cut) for part in answer.parts] == [("text", True), ("call", False)]
    assert answer.left_out == 1 and view.cut


def test_a_completion_in_short_says_how_long_its_reasoning_is():
    assert in_short("<think>" + "x" * 5000 + "</think>\nNo.", 280).text == "[reasoning, 5,000 characters]\nNo."
    assert in_short('<tool_call>f({"a": 1})</tool_call>', 280).text == '[calls f({"a": 1})]'
    plain = in_short("a < b" * 100, 280)
    assert (plain.text, plain.length) == (("a < b" * 100)[:280], 500) and in_short(None, 280).text == ""


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        (json.dumps([{"function": {"name": "a"}}, {"name": "b"}, {"x": 1}, 3]), ["a", "b"]),
        ("3", []),
        ("no JSON", []),
        (json.dumps({"function": {"name": "a"}}), []),
    ],
)
def test_tools_are_named_where_they_have_names(tools, names):
    assert tools_view(tools).names == names and tools_view(tools).text.text
    assert tools_view(None) is None
