"""Where each token of a pack stands, whom it sees and what it predicts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import random_rows, token_rows

from ktodata.train.data.packing import Leaves, Segment, by_prompt, continuation, pack, packed_tokens, packs_of

# three rows of prompt 1 2 3, one of prompt 4 5; the first two rows are the same
PROMPTS = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5]]
COMPLETIONS = [[6, 7], [6, 7], [8], [9, 6, 7]]


def leaves_of(prompts=PROMPTS, completions=COMPLETIONS, **settings):
    return Leaves(token_rows(prompts, completions, **settings))


def of_all(leaves, pairs):
    return list(dict.fromkeys(leaves.of(pair) for pair in pairs))


# --- what is one and the same ----------------------------------------------------------------------------------------------


def test_the_same_tokens_are_one_leaf_whichever_rows_ask_for_them():
    leaves = leaves_of()
    assert leaves.of((0, 0)) == leaves.of((1, 1)) == leaves.of((2, 1)) == (0, 0)
    assert leaves.of((0, 2)) == (0, 1)
    assert leaves.of((3, 0)) == (1, 0)
    assert (leaves.prompt((1, 0)).tolist(), leaves.completion((1, 0)).tolist()) == ([4, 5], [6, 7])


def test_a_completion_is_cut_after_a_longer_prompt_than_its_own():
    """max_length 5: of 9 6 7 two tokens fit after 1 2 3, all three after 4 5; as `sequence` cuts them"""
    leaves = leaves_of(max_length=5)
    assert leaves.completion(leaves.of((0, 3))).tolist() == [9, 6]
    assert leaves.completion(leaves.of((3, 3))).tolist() == [9, 6, 7]
    for pair in [(0, 3), (3, 3), (0, 0)]:
        assert leaves.length(leaves.of(pair)) == len(leaves.rows.sequence(*pair)[0])


# --- one pack, by hand -----------------------------------------------------------------------------------------------------


def test_two_prompts_by_hand():
    """Prompt 1 2 3 with two completions is a tree, 4 5 with one is a plain sequence:

    place     0 1 2 | 3 4 | 5 | 6 7   8 9 10
    token     1 2 3 | 6 7 | 8 | 4 5   9 6 7
    position  0 1 2 | 3 4 | 3 | 0 1   2 3 4

    6 and 8 are both predicted by the prompt's last token, at place 2; 9 by the one before it, at place 7.
    """
    leaves = leaves_of()
    one = pack(leaves, of_all(leaves, [(0, 0), (3, 3), (2, 2)]))
    assert one.leaves == ((0, 0), (0, 1), (1, 2))  # those of one prompt together
    assert one.ids.tolist() == [1, 2, 3, 6, 7, 8, 4, 5, 9, 6, 7]
    assert one.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3, 4]
    assert one.segments == (Segment(0, 3), Segment(3, 5, (0, 3)), Segment(5, 6, (0, 3)), Segment(6, 11))
    assert one.sources.tolist() == [2, 3, 2, 7, 8, 9]
    assert one.targets.tolist() == [6, 7, 8, 9, 6, 7]
    assert one.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert one.prompts == {0: (0, 3), 1: (6, 8)}
    assert one.completions == {(0, 0): (3, 5), (0, 1): (5, 6), (1, 2): (8, 11)}
    assert not one.continues
    assert any(segment.prefix is not None for segment in one.segments)


def test_a_continuation_by_hand():
    """8 after 4 5, and 9 6 7 after 1 2 3: their prompts end at places 7 and 2 of the earlier pack, -1 - 7 and -1 - 2."""
    leaves = leaves_of()
    earlier = pack(leaves, of_all(leaves, [(0, 0), (2, 2), (3, 3)]))
    later = continuation(leaves, [leaves.of((3, 2)), leaves.of((0, 3))], earlier)
    assert later.ids.tolist() == [8, 9, 6, 7]
    assert later.positions.tolist() == [2, 3, 4, 5]
    assert later.segments == (Segment(0, 1, (6, 8)), Segment(1, 4, (0, 3)))
    assert later.sources.tolist() == [-8, -3, 1, 2]
    assert later.targets.tolist() == [8, 9, 6, 7]
    assert later.owners.tolist() == [0, 1, 1, 1]
    assert later.continues


def test_one_completion_a_prompt_shares_nothing():
    leaves = leaves_of()
    one = pack(leaves, of_all(leaves, [(0, 0), (3, 3)]))
    assert one.segments == (Segment(0, 5), Segment(5, 10))
    assert all(segment.prefix is None for segment in one.segments)


def test_after_an_empty_prompt_the_first_token_is_predicted_by_nothing():
    """Completions 5 6 and 7 alone: 6 is predicted by 5, and nothing of the second is."""
    leaves = leaves_of([[], []], [[5, 6], [7]])
    one = pack(leaves, of_all(leaves, [(0, 0), (1, 1)]))
    assert one.segments == (Segment(0, 2), Segment(2, 3))
    assert (one.sources.tolist(), one.targets.tolist(), one.owners.tolist()) == ([0], [6], [0])
    later = continuation(leaves, [(0, 0)], one)
    assert (later.segments, later.sources.tolist(), later.positions.tolist()) == ((Segment(0, 2),), [0], [0, 1])


def test_a_pack_of_nothing_is_empty():
    one = pack(leaves_of(), [])
    assert (len(one.ids), one.leaves, one.segments) == (0, (), ())


@given(seed=st.integers(0, 1000), prompts=st.integers(1, 6))
def test_the_tokens_of_each_leaf_are_its_own_sequence_at_its_own_positions(seed, prompts):
    rows = random_rows(6, seed=seed, prompts=prompts, max_length=12)
    leaves, random = Leaves(rows), np.random.default_rng(seed)
    pairs = [tuple(pair) for pair in random.integers(0, 6, (8, 2)).tolist()]
    one = pack(leaves, of_all(leaves, pairs))
    assert sorted(place for segment in one.segments for place in range(segment.start, segment.end)) == list(range(len(one.ids)))
    for pair in pairs:
        leaf = leaves.of(pair)
        places = [*range(*one.prompts[leaf[0]]), *range(*one.completions[leaf])]
        ids, start = rows.sequence(*pair)
        assert one.ids[places].tolist() == ids.tolist()
        assert one.positions[places].tolist() == list(range(len(ids)))
        mine = one.owners == one.leaves.index(leaf)
        assert one.targets[mine].tolist() == ids[start:].tolist()
        assert one.positions[one.sources[mine]].tolist() == list(range(start - 1, len(ids) - 1))


# --- packs of bounded size -------------------------------------------------------------------------------------------------


def test_first_fit_by_hand():
    """Alone the prompts' trees have 3+2+1 = 6 and 2+3 = 5 tokens: 11 fit together, 10 do not."""
    leaves = leaves_of()
    wanted = of_all(leaves, [(0, 0), (2, 2), (3, 3)])
    assert packed_tokens(leaves, wanted) == 11
    assert packs_of(leaves, wanted, tokens=11) == [[(0, 0), (0, 1), (1, 2)]]
    assert packs_of(leaves, wanted, tokens=10) == [[(0, 0), (0, 1)], [(1, 2)]]


def test_leaves_of_one_prompt_part_where_they_do_not_fit():
    """At most 5 tokens: 1 2 3 with 6 7 are 5, with 8 they are 4, and 4 5 with 9 6 7 are 5."""
    leaves = leaves_of()
    wanted = of_all(leaves, [(0, 0), (2, 2), (3, 3)])
    assert sorted(packs_of(leaves, wanted, tokens=5)) == [[(0, 0)], [(0, 1)], [(1, 2)]]


@given(seed=st.integers(0, 1000), prompts=st.integers(1, 12), tokens=st.integers(1, 80))
def test_packs_lose_nothing_keep_to_their_size_and_are_the_same_again(seed, prompts, tokens):
    leaves = Leaves(random_rows(12, seed=seed, prompts=prompts, max_length=30))
    random = np.random.default_rng(seed)
    wanted = of_all(leaves, random.integers(0, 12, (20, 2)).tolist())
    parts = packs_of(leaves, wanted, tokens=tokens)
    assert sorted(leaf for part in parts for leaf in part) == sorted(wanted)
    assert all(packed_tokens(leaves, part) <= tokens or len(part) == 1 for part in parts)
    assert all(len(pack(leaves, part).ids) == packed_tokens(leaves, part) for part in parts)
    assert parts == packs_of(leaves, wanted, tokens=tokens)


@given(seed=st.integers(0, 100))
def test_a_prompt_that_fits_with_all_its_completions_is_in_one_pack(seed):
    leaves = Leaves(random_rows(9, seed=seed, prompts=3))
    wanted = of_all(leaves, [(row, row) for row in range(9)])
    largest = max(packed_tokens(leaves, group) for group in by_prompt(wanted).values())
    parts = packs_of(leaves, wanted, tokens=largest)
    assert sorted(len(by_prompt(part)) for part in parts) == [1] * len(parts)
    assert len(parts) == 3


@pytest.mark.parametrize("tokens", [1, 100])
def test_packs_of_nothing(tokens):
    assert packs_of(leaves_of(), [], tokens=tokens) == []
