"""Pairs in the shapes in which they are published and tuned with: each gives a desirable row and an undesirable one."""

from pathlib import Path
from typing import Any

import pytest

from ktodata.errors import FormatError
from ktodata.formats import read

ASKED = {"role": "user", "content": "Largest planet?"}
GOOD, BAD = {"role": "assistant", "content": "Jupiter."}, {"role": "assistant", "content": "Mars."}
BOTH = [("Largest planet?", "Jupiter.", True), ("Largest planet?", "Mars.", False)]


def read_rows(path: Path, **settings: Any) -> list[tuple[Any, ...]]:
    return read(path, **settings).feedback.select("prompt", "completion", "label").rows()


WHOLE = {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}
FROM_HUMAN = {"from": "human", "value": "Largest planet?"}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Largest planet?", **WHOLE},
        {"prompt": " Largest planet?\n", "messages": [ASKED, GOOD], **WHOLE},
        {"prompt": [ASKED], **WHOLE},
        {"prompt": None, **WHOLE},
        {"messages": [ASKED], "chosen": GOOD, "rejected": BAD},
        {"messages": [ASKED, GOOD], "chosen": GOOD, "rejected": BAD},
        {
            "conversations": [FROM_HUMAN],
            "chosen": {"from": "gpt", "value": "Jupiter."},
            "rejected": {"from": "gpt", "value": "Mars."},
        },
        {"instruction": "Largest planet?", "input": "", "chosen": "Jupiter.", "rejected": "Mars."},
        {"question": "Largest planet?", "chosen": "Jupiter.", "rejected": "Mars."},
        {"messages": [ASKED, GOOD], "rejected_response": "Mars."},
        {"messages": [ASKED, GOOD], "rejected_messages": [ASKED, BAD]},
        {"query": "Largest planet?", "response": "Jupiter.", "rejected_response": "Mars."},
        {"input": {"messages": [ASKED]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {
            "contents": [{"role": "user", "parts": [{"text": "Largest planet?"}]}],
            "completions": [
                {"score": 0.2, "completion": {"role": "model", "parts": [{"text": "Mars."}]}},
                {"score": 0.9, "completion": {"role": "model", "parts": [{"text": "Jupiter."}]}},
            ],
        },
    ],
)
def test_every_shape_of_a_pair_gives_the_same_two_rows(record, lines):
    result = read(lines(record))
    assert sorted(result.feedback.select("prompt", "completion", "label").rows()) == BOTH
    assert result.feedback["pair_id"].n_unique() == 1
    assert result.feedback["pair_id"].null_count() == 0
    assert result.metrics["not_kept"] == {}


def test_a_system_text_beside_whole_conversations_is_the_first_turn(lines):
    turns = read(lines({"system": "One word.", "prompt": "Largest planet?", **WHOLE})).feedback["turns"].to_list()
    assert [[(turn["role"], turn["content"]) for turn in row] for row in turns] == [
        [("system", "One word."), ("user", "Largest planet?")]
    ] * 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "Smallest planet?", **WHOLE}, "prompts_differ"),
        ({"prompt": "Largest planet?", "messages": [ASKED, BAD], **WHOLE}, "prompts_differ"),
        ({"prompt": "Largest planet?", "chosen": [ASKED, GOOD], "rejected": [BAD]}, "prompts_differ"),
        ({"prompt": "Largest planet?", "chosen": [GOOD, ASKED, GOOD], "rejected": [GOOD, ASKED, BAD]}, "several_turns"),
        ({"messages": [ASKED, BAD], "chosen": GOOD, "rejected": BAD}, "prompts_differ"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no_prompt"),
    ],
)
def test_what_contradicts_itself_is_set_aside(record, reason, lines):
    with pytest.raises(FormatError, match=f"{reason} 1"):
        read(lines(record))


def test_scores_of_the_sides_are_kept_where_asked_and_counted_where_not(lines):
    path = lines({"prompt": "Largest planet?", "score_chosen": 9.0, "score_rejected": 2.0, **WHOLE})
    assert read(path).metrics["not_kept"] == {"score_chosen": 1, "score_rejected": 1}
    kept = read(path, keep=["score_chosen", "score_rejected"])
    assert kept.feedback.select("score_chosen", "score_rejected").rows() == [(9.0, 2.0)] * 2
    assert kept.metrics["not_kept"] == {}


def test_what_a_pair_says_beside_its_prompt_is_counted(lines):
    record = {"prompt": "Largest planet?", "messages": [ASKED], "chosen": "Jupiter.", "rejected": "Mars."}
    assert read(lines(record)).metrics["not_kept"] == {"messages": 1}


def test_a_providers_tools_go_with_the_rows_and_its_switches_are_counted(lines):
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    given = {"messages": [ASKED], "tools": tools, "parallel_tool_calls": True}
    result = read(lines({"input": given, "preferred_output": [GOOD], "non_preferred_output": [BAD]}))
    assert ["look_up" in tools for tools in result.feedback["tools"].to_list()] == [True, True]
    assert result.metrics["not_kept"] == {"input.parallel_tool_calls": 1}


def scored(*scores: Any) -> dict[str, Any]:
    completions = [
        {"score": score, "completion": {"role": "model", "parts": [{"text": f"no. {at}"}]}} for at, score in enumerate(scores)
    ]
    system = {"systemInstruction": {"parts": [{"text": "One word."}]}}
    return {**system, "contents": [{"role": "user", "parts": [{"text": "Largest planet?"}]}], "completions": completions}


def test_scored_completions_are_a_pair_by_score_or_labelled_by_a_threshold(lines):
    result = read(lines(scored(1, 0), scored(1, 1), scored(1, 0, 0.5), scored(True, False)))
    assert result.feedback["label"].to_list() == [True, False]
    assert result.feedback["prompt"].to_list() == ["System: One word.\n\nUser: Largest planet?"] * 2
    assert result.quarantine["reason"].to_list() == ["tie", "needs_threshold", "label_unmapped"]
    rated = read(lines(scored(1, 0), scored(1, 0, 0.5)), label={"column": "score", "at_least": 0.5})
    assert rated.feedback["label"].to_list() == [True, False, True, False, True]


def test_a_history_is_read_as_turns_with_and_without_a_label(lines):
    row = {"query": "Largest planet?", "response": "Jupiter.", "system": "One word.", "history": [["Hi", "Hello"]], "label": True}
    result = read(lines(row, {**row, "images": ["a.png"]}))
    assert read_rows(lines(row)) == [
        ("System: One word.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Largest planet?", "Jupiter.", True)
    ]
    assert result.quarantine["reason"].to_list() == ["not_text"]


@pytest.mark.parametrize("given", [None, 1.5, True, "Largest planet?", {"text": "Largest planet?"}])
def test_an_input_without_messages_is_set_aside(given, lines):
    good = {"input": {"messages": [ASKED]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    assert read(lines(good, {**good, "input": given})).quarantine.height == 1


@pytest.mark.parametrize("instruction", [True, 7, ["x", 1], {"parts": 3}])
def test_an_instruction_that_is_no_text_is_set_aside(instruction, lines):
    assert read(lines(scored(1, 0), {**scored(1, 0), "systemInstruction": instruction})).quarantine.height == 1
