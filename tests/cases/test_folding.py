"""Case and white space are folded where they mean nothing, each by a switch of its own, and never in code."""

import pytest

from ktodata.feedback import feedback_table
from ktodata.stages.dedupe import dedupe

LOOP = "Here it is:\n\n```python\nfor row in rows:\n    {}\n{}total += 1\n```\nAsk if you need more."


def judged(text, other):
    return dedupe(feedback_table(("How many rows?", text, True), ("How many rows?", other, False)))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (LOOP.format("print(row)", "    "), LOOP.format("print(row)", "")),  # counts every row, or one
        (LOOP.format("print(Row)", ""), LOOP.format("print(row)", "")),
    ],
)
def test_answers_that_differ_in_code_are_different_answers(text, other):
    assert judged(text, other).metrics["texts"] == 2 and judged(text, other).actions() == {}


def test_words_around_code_are_folded():
    text = LOOP.format("print(row)", "")
    other = text.replace("Here it is:\n\n", "here  it is:\n").replace("Ask", "ASK")
    assert judged(text, other).metrics["texts"] == 1
    assert judged(text, other).metrics["contradicted_texts"] == 1


def test_case_and_white_space_have_a_switch_each():
    table = feedback_table(
        ("p", "Two words", True), ("p", "two  words", True), ("p", "two words", True), ("p", "TWO WORDS", True)
    )
    texts = {
        (case, space): dedupe(table, near=None, ignore_case=case, ignore_space=space).metrics["texts"]
        for case in (True, False)
        for space in (True, False)
    }
    assert texts == {(True, True): 1, (True, False): 2, (False, True): 3, (False, False): 4}
