"""Rows on one side of every split: prompt groups, the texts of a group that is too large for a fold, and else each row."""

import numpy as np
import polars as pl

from ktodata.labels.row_groups import row_groups


def rows(*groups, completion=lambda row: f"answer {'abcdefghijklmnopqrstuvwxyz'[row % 26]}{row // 26 * 'x'}"):
    """A table of so many rows of each prompt group, each with words of its own."""
    group = np.repeat(np.arange(len(groups)), groups)
    return pl.DataFrame(
        {"prompt": [f"prompt {of}" for of in group], "completion": [completion(row) for row in range(len(group))]}
    ).with_columns(prompt_group=pl.Series(group).cast(pl.String))


def test_a_prompt_group_stays_together_up_to_a_fold_and_is_dealt_by_row_beyond():
    """10 rows are one in five of 50, 11 are more."""
    assert len(np.unique(row_groups(rows(10, *[1] * 40)))) == 41
    assert len(np.unique(row_groups(rows(11, *[1] * 39)))) == 50
    assert len(np.unique(row_groups(rows(11, *[1] * 39), folds=4))) == 40


def test_one_prompt_and_nearly_one_are_dealt_alike():
    for others in (0, 1, 3, 10):
        assert len(np.unique(row_groups(rows(100 - others, *[1] * others)))) == 100


def test_completions_that_differ_in_numbers_or_case_stay_together_in_a_large_group():
    table = rows(40, *[1] * 10, completion=lambda row: f"{'It' if row % 2 else 'it'} holds {row}: {'abcdefghij'[row // 4 % 10]}.")
    code = row_groups(table)
    assert all(len(np.unique(code[start : start + 4])) == 1 for start in range(0, 40, 4))
    assert len(np.unique(code)) == 10 + 10


def test_texts_that_would_fill_a_fold_themselves_are_dealt_by_row():
    assert len(np.unique(row_groups(rows(50, completion=lambda row: f"The answer is {row}.")))) == 50
    assert len(np.unique(row_groups(rows(50, completion=lambda row: f"{row}")))) == 50, "no words: numbers are all there is"


def test_rows_that_are_not_learnt_from_make_no_group_large():
    table = rows(100, *[1] * 60).with_columns(trained=pl.int_range(pl.len()) >= 95)
    assert len(np.unique(row_groups(table))) == 61
