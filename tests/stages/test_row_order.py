"""The planned order of training rows, held to its rules by a checker that is itself tested on orders known to be bad."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ktodata.stages.row_order import check_order, plan_order


def planned(labels, groups, completions, *, block, seed=0):
    labels = np.asarray(labels, bool)
    groups, completions = np.asarray(groups), np.asarray(completions)
    order = plan_order(labels, groups, completions, block=block, seed=seed)
    return order, check_order(order, labels, groups, completions, block=block)


def test_check_order_counts_what_is_wrong_by_hand():
    """Blocks of 3:  [0 1 2] [3 4 5] [6]

    labels       T T T | T F F | F     block 0 is one class; 4 of 7 desirable: 12/7 = 1.71 in a block, 3 - 1.71 > 1: off
    groups       a a b | c d c | e     one repeat in block 0, one in block 1; neighbours 0-1; 5-3 by the wrap
    completions  x y y | z x z | z     neighbours 1-2, 5-6; 5-3 by the wrap
    """
    labels = np.array([1, 1, 1, 1, 0, 0, 0], bool)
    check = check_order(np.arange(7), labels, np.array([0, 0, 1, 2, 3, 2, 4]), np.array([0, 1, 1, 2, 0, 2, 2]), block=3)
    assert check.as_dict() == {
        "rows": 7,
        "blocks": 3,
        "single_class_blocks": 2,  # the lone last row is a block of one class too
        "blocks_off_ratio": 1,
        "same_group_in_block": 2,
        "unavoidable_same_group_in_block": 0,
        "same_group_neighbours": 2,
        "equal_completion_neighbours": 3,
        "lone_last_row": True,
    }


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [0, 1, 3], [0, 1, 2, 3]])
def test_check_order_refuses_what_is_no_permutation(order):
    with pytest.raises(ValueError, match=r"0 \.\. 2 once"):
        check_order(np.array(order), np.ones(3, bool), np.arange(3), np.arange(3), block=2)


def test_pairs_in_file_order_are_mended():
    """1,000 desirable rows, then their 1,000 undesirable siblings: how TRL unpairs. Every block is of one class before."""
    labels, groups = np.repeat([True, False], 1000), np.tile(np.arange(1000), 2)
    completions = np.arange(2000)
    before = check_order(np.arange(2000), labels, groups, completions, block=16)
    _, after = planned(labels, groups, completions, block=16)
    assert before.single_class_blocks == 124
    assert (after.single_class_blocks, after.blocks_off_ratio, after.same_group_in_block) == (0, 0, 0)


def test_a_group_with_half_of_the_rows_is_spread_evenly_and_what_is_left_is_counted():
    """800 rows, 50 blocks of 16, one group of 400: 8 in each block, 7 too many each, but never two next to each other."""
    groups = np.where(np.arange(800) < 400, 0, np.arange(800))
    order, check = planned(np.arange(800) % 2 == 0, groups, np.arange(800), block=16)
    assert check.same_group_in_block == check.unavoidable_same_group_in_block == 350
    assert check.same_group_neighbours == 0
    assert {int((groups[rows] == 0).sum()) for rows in order.reshape(50, 16)} == {8}


def test_two_completions_alternate():
    """Half of the rows say yes, half say no: only strict alternation keeps equal ones apart, in every block and across blocks."""
    _, check = planned(np.arange(320) % 4 == 0, np.arange(320), np.arange(320) % 2, block=16)
    assert check.equal_completion_neighbours == 0


def test_a_completion_of_three_quarters_cannot_be_kept_apart_but_the_label_ratio_holds():
    """12 of 16 in each block are equal: on a ring at least 2 * 12 - 16 = 8 pairs of neighbours are, in each of 20 blocks."""
    completions = np.where(np.arange(320) % 4 == 0, np.arange(320), -1)
    _, check = planned(np.arange(320) % 5 == 0, np.arange(320), completions, block=16)
    assert check.blocks_off_ratio == 0
    assert 8 * 20 <= check.equal_completion_neighbours <= 8 * 20 + 19  # a ring's seam may clash with the block before it


def test_rare_label_is_in_as_many_blocks_as_it_has_rows():
    """10 desirable rows for 20 blocks: 10 blocks must do without, none may hold two."""
    _, check = planned(np.arange(320) < 10, np.arange(320), np.arange(320), block=16)
    assert (check.single_class_blocks, check.blocks_off_ratio) == (10, 0)


@st.composite
def feedback(draw):
    """Rows whose groups and completions repeat now and then, or often."""
    rows = draw(st.integers(0, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.random(rows) < draw(st.sampled_from([0.03, 0.2, 0.5, 0.8, 1.0]))
    groups = rng.integers(0, max(1, int(rows * draw(st.sampled_from([0.02, 0.3, 1.0])))), rows)
    completions = rng.integers(0, max(1, int(rows * draw(st.sampled_from([0.02, 0.3, 1.0])))), rows)
    return labels, groups, completions, draw(st.integers(2, 33)), draw(st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(feedback())
def test_no_row_is_lost_and_every_block_has_the_label_ratio(data):
    labels, groups, completions, block, seed = data
    order, check = planned(labels, groups, completions, block=block, seed=seed)  # raises unless it is a permutation
    assert check.blocks_off_ratio == 0
    assert check.same_group_in_block >= check.unavoidable_same_group_in_block
    if len(labels) and min(labels.mean(), 1 - labels.mean()) * block >= 1:
        full = len(labels) // block
        held = [len(set(rows)) for rows in labels[order[: full * block]].reshape(full, block)]
        assert set(held) <= {2}
    assert np.array_equal(order, plan_order(labels, groups, completions, block=block, seed=seed))


@settings(max_examples=100, deadline=None)
@given(
    groups=st.lists(st.integers(1, 4), min_size=60, max_size=120),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    block=st.integers(4, 12),
    seed=st.integers(0, 2**16),
)
def test_small_groups_and_rare_repeats_leave_nothing_broken(groups, share, block, seed):
    """Groups of at most 4 rows, completions repeated at most 4 times, blocks of 4 or more: a perfect order is found."""
    codes = np.repeat(np.arange(len(groups)), groups)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(len(codes)) < share * len(codes)
    completions = rng.permutation(len(codes)) // 4
    order, check = planned(labels, codes, completions, block=block, seed=seed)
    assume(check.blocks >= 4 * max(groups))
    assert (check.same_group_in_block, check.same_group_neighbours, check.equal_completion_neighbours) == (0, 0, 0), order


def test_200k_rows_are_ordered_in_seconds():
    rng = np.random.default_rng(0)
    rows = 200_000
    labels, groups = rng.random(rows) < 0.8, rng.integers(0, rows // 3, rows)
    start = time.perf_counter()
    _, check = planned(labels, groups, np.minimum(rng.zipf(1.5, rows), 50_000), block=16)
    assert time.perf_counter() - start < 30  # 2 s alone; the rest is for a busy machine
    assert (check.same_group_in_block, check.single_class_blocks) == (0, 0)
