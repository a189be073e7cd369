"""Rows of one prompt are one group, whatever the column of groups says."""

import polars as pl
import pytest

from ktodata.stats.joined_groups import joined_groups


def groups(names, prompts):
    return joined_groups(pl.Series(names, dtype=pl.String), pl.Series(prompts)).to_list()


def test_groups_that_agree_with_prompts_keep_their_names():
    assert groups(["g", "g", "h"], ["a", "b", "c"]) == ["g", "g", "h"]
    assert groups([None, None, ""], ["a", "b", "a"]) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("names", "prompts", "expected"),
    [
        (["r1", "r2", "r3"], ["a", "a", "b"], ["r1", "r1", "r3"]),  # a name for each row
        ([None, "g", None], ["a", "a", "b"], ["g", "g", "b"]),  # filled in for some
        (["s2", "s2", "s1", "s1"], ["a", "b", "b", "c"], ["s1", "s1", "s1", "s1"]),  # sessions, over two steps
        (["b", None, "x"], ["a", "b", "b"], ["b", "x", "x"]),  # a name that is another row's prompt
    ],
)
def test_rows_of_one_prompt_are_together(names, prompts, expected):
    assert groups(names, prompts) == expected


def test_the_order_of_rows_changes_nothing():
    names, prompts = ["s2", None, "s1", "s1", None], ["a", "a", "b", "a", "c"]
    assert groups(names[::-1], prompts[::-1]) == groups(names, prompts)[::-1] == ["c", "s1", "s1", "s1", "s1"]
