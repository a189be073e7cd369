"""Groups of prompts that belong together, and the search for those that a split has torn apart."""

import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError, MissingColumnError
from ktodata.text.prompt_groups import components, different, find_leaks, first_of, leaders

BREAD = "how do I bake a good loaf of white bread at home in a small oven without a stone"


def split_table(*rows: tuple[str, str | None]) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema={"prompt": pl.String, "part": pl.String}, orient="row")
    return table.with_columns(row_id=pl.int_range(1, pl.len() + 1).cast(pl.String))


def test_components_follow_links_over_any_number_of_steps():
    assert components(np.array([0, 1, 4]), np.array([1, 2, 5]), 7).tolist() == [0, 0, 0, 3, 4, 4, 6]
    assert components(np.array([], dtype=int), np.array([], dtype=int), 0).tolist() == []


def test_a_line_begins_with_the_eldest_and_nothing_later_changes_it():
    """0 - 1 - 4 is a line; 2 begins another, and 5 links both: it follows the elder, 2 stays its own."""
    left, right = np.array([0, 1, 1, 2]), np.array([1, 4, 5, 5])
    assert leaders(left, right, 6).tolist() == [0, 0, 2, 3, 0, 0]
    assert leaders(left[:2], right[:2], 5).tolist() == [0, 0, 2, 3, 0]
    assert leaders(np.array([], dtype=int), np.array([], dtype=int), 0).tolist() == []


def test_first_of_and_different_number_values_by_first_appearance():
    first = first_of(pl.Series(["b", "a", "b", "c", "a"]))
    assert first.tolist() == [0, 1, 0, 3, 1]
    places, which = different(first)
    assert (places.tolist(), which.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1])


def test_leaks_are_equal_and_nearly_equal_prompts_on_two_sides():
    """Near: one of 19 words is put at the end, 37 shingles (18 different words, `a` thrice in pairs) against 39."""
    table = split_table(
        (BREAD, "train"),
        (BREAD, "train"),
        (BREAD.upper(), "test"),  # the same but for its case
        (BREAD + " today", "validation"),
        ("why is the sky blue", "test"),
        ("why is the sky blue", "test"),
        (BREAD, None),
    )
    leaks = find_leaks(table)
    lines = leaks.select("row_id", "part", "other_row_id", "other_part").rows()
    assert lines == [
        ("3", "test", "1", "train"),
        ("3", "test", "4", "validation"),
        ("4", "validation", "1", "train"),
    ]
    assert leaks["similarity"].to_list() == [1.0, pytest.approx(0.9444, abs=0.02), pytest.approx(0.9444, abs=0.02)]


def test_case_matters_when_asked():
    table = split_table((BREAD, "train"), (BREAD.upper(), "test"))
    assert find_leaks(table).height == 1
    assert find_leaks(table, ignore_case=False).height == 0


def test_other_numbers_are_no_leak():
    assert find_leaks(split_table((BREAD + " at 200 degrees", "train"), (BREAD + " at 250 degrees", "test"))).is_empty()


def test_an_unknown_part_is_an_error():
    with pytest.raises(DataError, match="part holds 'dev'; it may hold train, validation, test"):
        find_leaks(split_table((BREAD, "dev")))
    with pytest.raises(MissingColumnError, match="find_leaks needs column 'part'"):
        find_leaks(split_table((BREAD, "test")).drop("part"))


def test_no_rows_no_leaks():
    assert find_leaks(split_table()).is_empty()
