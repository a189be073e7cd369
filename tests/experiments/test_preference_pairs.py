from collections import Counter

import numpy as np
import polars as pl
import pytest
from easy_rows import easy_rows

from ktodata.experiments.methods.preference_pairs import make_pairs


def rows(*lines, **columns):
    """prompt, completion, label of each row; row_ids a, b, c, ..."""
    frame = pl.DataFrame(lines, schema={"prompt": pl.String, "completion": pl.String, "label": pl.Boolean}, orient="row")
    return frame.with_columns(row_id=pl.Series([chr(97 + number) for number in range(len(lines))]), **columns)


def as_ids(frame, pairs):
    """{(row_id of chosen, row_id of rejected)}"""
    ids = frame["row_id"]
    return {(ids[int(good)], ids[int(bad)]) for good, bad in zip(pairs.chosen, pairs.rejected, strict=True)}


def test_pairs_by_hand():
    """p: 3 desirable, 2 undesirable -> 3 pairs, the undesirable ones in 2 and 1; q has one label, s has one of each -> 1 pair."""
    frame = rows(
        ("p", "1", True), ("p", "2", True), ("p", "3", True), ("p", "4", False), ("p", "5", False),
        ("q", "1", True), ("q", "2", True),
        ("s", "1", False), ("s", "2", True),
    )  # fmt: skip
    pairs = make_pairs(frame, seed=0)
    found = as_ids(frame, pairs)
    assert len(pairs) == len(found) == 4
    assert Counter(good for good, _ in found) == {"a": 1, "b": 1, "c": 1, "i": 1}
    assert sorted(Counter(bad for _, bad in found).values()) == [1, 1, 2]
    assert ("i", "h") in found
    assert pairs.metrics == {
        "rows": 9, "desirable": 6, "undesirable": 3, "prompts": 3, "prompts_with_both_labels": 2,
        "pairs": 4, "most_pairs_of_a_row": 2, "rows_used": {"kto": 9, "kto_hybrid": 9, "sft": 6, "dpo": 7, "orpo": 7, "rlhf": 7},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_no_row_is_used_more_than_needed(seed):
    """max(d, u) pairs of every prompt that has both; of the commoner label each row once, of the other as evenly as can be."""
    random = np.random.default_rng(seed)
    lines = [(f"p{random.integers(6)}", f"c{number}", bool(random.random() < 0.3)) for number in range(60)]
    frame = pl.DataFrame(lines, schema=["prompt", "completion", "label"], orient="row").with_row_index("row_id")
    pairs = make_pairs(frame.with_columns(pl.col("row_id").cast(pl.String)), seed=seed)
    prompt, label = frame["prompt"].to_numpy(), frame["label"].to_numpy()
    assert label[pairs.chosen].all() and not label[pairs.rejected].any()
    assert (prompt[pairs.chosen] == prompt[pairs.rejected]).all()
    assert len(set(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))) == len(pairs)
    uses = Counter([*pairs.chosen.tolist(), *pairs.rejected.tolist()])
    for name in set(prompt):
        good, bad = (np.flatnonzero((prompt == name) & (label == kind)) for kind in (True, False))
        for own, other in ((good, bad), (bad, good)):
            counts = [uses[int(number)] for number in own]
            if not len(other):
                assert not any(counts)
            elif len(own):
                assert sum(counts) == max(len(own), len(other)) and max(counts) - min(counts) <= 1


def test_prompts_of_one_group_that_differ_make_no_pair():
    frame = rows(("what is two", "1", True), ("what is two ", "2", False), prompt_group=pl.lit("g"))
    pairs = make_pairs(frame, seed=0)
    assert not len(pairs) and pairs.metrics["prompts"] == 2 and pairs.metrics["rows_used"]["dpo"] == 0


def test_the_seed_decides_and_the_order_of_rows_does_not():
    frame = pl.concat([easy_rows(1).with_columns(row_id=pl.format("{}{}", pl.lit(n), "row_id"), completion=pl.lit(f"x{n}")) for n in range(9)])  # fmt: skip
    frame = frame.with_columns(completion=pl.format("{} {}", "completion", "label"))
    found = as_ids(frame, make_pairs(frame, seed=1))
    shuffled = frame.sample(fraction=1, shuffle=True, seed=5)
    assert as_ids(shuffled, make_pairs(shuffled, seed=1)) == found
    assert as_ids(frame, make_pairs(frame, seed=2)) != found


@pytest.mark.parametrize("seed", range(8))
def test_a_completion_is_never_set_against_itself(seed):
    """ "same" stands in both classes: the other two ways to pair avoid it, and with nothing else there is no pair."""
    frame = rows(("p", "same", True), ("p", "fine", True), ("p", "same", False), ("p", "poor", False))
    found = as_ids(frame, make_pairs(frame, seed=seed))
    assert found == {("a", "d"), ("b", "c")}
    assert not len(make_pairs(frame.filter(completion="same"), seed=seed))


def test_conversations_are_paired_by_role_and_content():
    frame = easy_rows(3, chat=True)
    assert len(make_pairs(frame, seed=0)) == 3
    told = pl.concat_list(pl.struct(role=pl.lit("system"), content=pl.lit("x")))
    other = frame.with_columns(prompt=pl.when("label").then(pl.col("prompt")).otherwise(told))
    assert not len(make_pairs(other, seed=0))


def test_hostile_prompts_are_told_apart_sign_for_sign():
    signs = ["a", "a\x00", "a\u200b", "A", "\u202ea", '[{"role": "user", "content": "a"}]', "{% raw %}a", "a" * 10_000]
    lines = [(sign, str(label), label) for sign in signs for label in (True, False)]
    pairs = make_pairs(rows(*lines), seed=0)
    assert len(pairs) == len(signs)
    assert [lines[good][0] for good in pairs.chosen] == [lines[bad][0] for bad in pairs.rejected]
