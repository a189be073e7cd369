"""Evaluation prompts that are, nearly are, or stand inside training prompts."""

import polars as pl
import pytest

from ktodata.text.contamination import contaminated

LONG = "a farmer has seven hens and each hen lays two eggs every day how many eggs does the farmer have after a week"


def matches(prompts: list[str], evaluation: list[str]) -> dict[int, tuple[int, str]]:
    table, _ = contaminated(pl.Series(prompts, dtype=pl.String), evaluation, near_prompts=0.8, ignore_case=True, seed=0)
    return {row["prompt"]: (row["evaluation"], row["match"]) for row in table.iter_rows(named=True)}


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (LONG, "exact"),
        (LONG.replace("week", "month"), "near"),
        (
            f"question: {LONG} answer with one word and say how sure you are, then explain each of the steps that led you there",
            "contains",
        ),
        (
            "consider this . a farmer has seven hens and each hen lays two eggs every day . what would he sell ?",
            "contains",
        ),  # 13 words
        ("a farmer has seven hens and each hen lays two eggs . what would he sell ?", None),  # 11 words
        ("how many eggs are in a cake", None),
    ],
)
def test_what_counts_as_a_match(prompt, match):
    assert matches([prompt, "why is the sky blue"], ["something else", LONG]) == ({0: (1, match)} if match else {})


def test_a_short_evaluation_prompt_must_stand_there_whole_and_have_five_words():
    evaluation = ["What is 13 + 25?", "how are you"]
    prompts = ["please answer: what is 13 + 25?", "what is 13 + 26?", "tell me how are you today", "how are you"]
    assert matches(prompts, evaluation) == {0: (0, "contains"), 3: (1, "exact")}


def test_a_template_of_many_evaluation_prompts_proves_nothing():
    template = "answer the following question about the world with exactly one word and nothing else please :"
    names = [f"{first}{second}ra" for first in "bdfgklmnpr" for second in "aeiou"]
    evaluation = [f"{template} who is {name}" for name in names]
    assert matches([f"{template} where do bears sleep", f"{template} who is {names[7]}"], evaluation) == {1: (7, "exact")}


def test_nothing_to_compare():
    assert matches([], [LONG]) == {}
    assert matches([LONG], []) == {}
    assert matches(["", "..."], ["", "..."]) == {1: (1, "exact")}
