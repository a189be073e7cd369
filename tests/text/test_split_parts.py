"""Dealing groups to parts, on cases that can be dealt by hand."""

import numpy as np
import polars as pl

from ktodata.text.split_parts import deal_groups, hash_parts, parts_of_groups


def deal(groups: list[str], *strata: list[int], seed: int = 0, **fractions: float) -> list[str]:
    columns = np.array(strata, dtype=np.int64).T if strata else np.zeros((len(groups), 0), np.int64)
    return deal_groups(pl.Series(groups, dtype=pl.String), columns, fractions, rest="rest", seed=seed).to_list()


def test_equal_groups_are_dealt_in_exact_shares():
    """Ten groups of two rows: 0.2 are two groups, 0.1 is one."""
    parts = deal([f"g{n // 2}" for n in range(20)], test=0.2, validation=0.1)
    assert [parts.count(part) for part in ("test", "validation", "rest")] == [4, 2, 14]
    assert all(parts[n] == parts[n + 1] for n in range(0, 20, 2))


def test_each_stratum_is_dealt_by_itself():
    """Ten rows of stratum 0 and thirty of stratum 1: a tenth is one and three."""
    stratum = [0] * 10 + [1] * 30
    parts = deal([f"g{n}" for n in range(40)], stratum, test=0.1)
    assert [sum(part == "test" and s == side for part, s in zip(parts, stratum, strict=True)) for side in (0, 1)] == [1, 3]


def test_what_one_kind_cannot_give_the_next_makes_up():
    """One group of four rows and sixteen of one, a tenth of 20 rows is two. 0.1 of the large group rounds to none, so the part is owed
    0.4 rows when the single ones are dealt: 0.4 + 1.6 = 2 of them."""
    parts = deal(["large"] * 4 + [f"g{n}" for n in range(16)], test=0.1)
    assert parts[:4] == ["rest"] * 4
    assert parts.count("test") == 2


def test_names_decide_and_not_places():
    names = [f"g{n}" for n in range(30)]
    parts = dict(zip(names, deal(names, test=0.3), strict=True))
    again = dict(zip(names[::-1], deal(names[::-1], test=0.3), strict=True))
    assert parts == again
    assert parts != dict(zip(names, deal(names, test=0.3, seed=1), strict=True))


def test_a_hash_of_the_name_and_nothing_else_says_the_part():
    names = pl.Series([f"g{n}" for n in range(500)])
    fractions = {"test": 0.2, "validation": 0.1}
    part, filled = hash_parts(names, fractions, rest="train", seed=0)
    assert filled == []
    assert part.value_counts().height == 3
    few = names.gather(range(400, 40, -3))
    again, _ = hash_parts(few, fractions, rest="train", seed=0)
    assert dict(zip(few, again, strict=True)).items() <= dict(zip(names, part, strict=True)).items()
    assert not part.equals(hash_parts(names, fractions, rest="train", seed=1)[0])
    # another fraction of validation moves no row of test
    wider, _ = hash_parts(names, {"test": 0.2, "validation": 0.3}, rest="train", seed=0)
    assert ((part == "test") == (wider == "test")).all()


def test_a_part_is_filled_only_where_it_is_due_half_a_name():
    names = pl.Series(["a", "b", "c", "d"])
    for seed in range(10):
        part, filled = hash_parts(names, {"test": 0.01}, rest="train", seed=seed)
        assert filled == [] and set(part) == {"train"}
        part, _ = hash_parts(names, {"test": 0.2}, rest="train", seed=seed)
        assert {"train", "test"} == set(part)
    assert hash_parts(pl.Series(["a"]), {"test": 0.9}, rest="train", seed=0)[0].len() == 1


def test_a_group_stands_where_most_of_its_rows_do():
    groups = pl.Series(["g", "g", "g", "h", "h", "k"])
    part = pl.Series(["test", "train", "test", "validation", "test", "train"])
    assert parts_of_groups(groups, part).to_list() == [None, "test", None, None, "validation", None]


def test_no_rows():
    assert deal([], test=0.1) == []
