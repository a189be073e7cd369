"""Where each token of a pack stands, whom it sees and what it predicts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import random_rows, token_rows

from ktodata.train.data.packing import Segment, Sequences, by_prompt, continuation, pack, packed_tokens, packs_of

# three rows of prompt 1 2 3, one of prompt 4 5; the first two rows are the same
PROMPTS = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5]]
COMPLETIONS = [[6, 7], [6, 7], [8], [9, 6, 7]]


def sequences_of(prompts=PROMPTS, completions=COMPLETIONS, **settings):
    return Sequences(token_rows(prompts, completions, **settings))


def of_all(sequences, pairs):
    return list(dict.fromkeys(sequences.of(pair) for pair in pairs))


# --- what is one and the same ----------------------------------------------------------------------------------------------


def test_the_same_tokens_are_one_leaf_whichever_rows_ask_for_them():
    sequences = sequences_of()
    assert sequences.of((0, 0)) == sequences.of((1, 1)) == sequences.of((2, 1)) == (0, 0)
    assert sequences.of((0, 2)) == (0, 1)
    assert sequences.of((3, 0)) == (1, 0)
    assert (sequences.prompt((1, 0)).tolist(), sequences.completion((1, 0)).tolist()) == ([4, 5], [6, 7])


def test_a_completion_is_cut_after_a_longer_prompt_than_its_own():
    """max_length 5: of 9 6 7 two tokens fit after 1 2 3, all three after 4 5; as `sequence` cuts them"""
    sequences = sequences_of(max_length=5)
    assert sequences.completion(sequences.of((0, 3))).tolist() == [9, 6]
    assert sequences.completion(sequences.of((3, 3))).tolist() == [9, 6, 7]
    for pair in [(0, 3), (3, 3), (0, 0)]:
        assert sequences.length(sequences.of(pair)) == len(sequences.rows.sequence(*pair)[0])


# --- one pack, by hand -----------------------------------------------------------------------------------------------------


def test_two_prompts_by_hand():
    """Prompt 1 2 3 with two completions is a prompt_group, 4 5 with one is a plain sequence:

    place     0 1 2 | 3 4 | 5 | 6 7   8 9 10
    token     1 2 3 | 6 7 | 8 | 4 5   9 6 7
    position  0 1 2 | 3 4 | 3 | 0 1   2 3 4

    6 and 8 are both predicted by the prompt's last token, at place 2; 9 by the one before it, at place 7.
    """
    sequences = sequences_of()
    packed = pack(sequences, of_all(sequences, [(0, 0), (3, 3), (2, 2)]))
    assert packed.sequences == ((0, 0), (0, 1), (1, 2))  # those of one prompt together
    assert packed.ids.tolist() == [1, 2, 3, 6, 7, 8, 4, 5, 9, 6, 7]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3, 4]
    assert packed.segments == (Segment(0, 3), Segment(3, 5, (0, 3)), Segment(5, 6, (0, 3)), Segment(6, 11))
    assert packed.sources.tolist() == [2, 3, 2, 7, 8, 9]
    assert packed.targets.tolist() == [6, 7, 8, 9, 6, 7]
    assert packed.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert packed.prompts == {0: (0, 3), 1: (6, 8)}
    assert packed.completions == {(0, 0): (3, 5), (0, 1): (5, 6), (1, 2): (8, 11)}
    assert not packed.continues
    assert any(segment.prefix is not None for segment in packed.segments)


def test_a_continuation_by_hand():
    """8 after 4 5, and 9 6 7 after 1 2 3: their prompts end at places 7 and 2 of the earlier pack, -1 - 7 and -1 - 2."""
    sequences = sequences_of()
    earlier = pack(sequences, of_all(sequences, [(0, 0), (2, 2), (3, 3)]))
    later = continuation(sequences, [sequences.of((3, 2)), sequences.of((0, 3))], earlier)
    assert later.ids.tolist() == [8, 9, 6, 7]
    assert later.positions.tolist() == [2, 3, 4, 5]
    assert later.segments == (Segment(0, 1, (6, 8)), Segment(1, 4, (0, 3)))
    assert later.sources.tolist() == [-8, -3, 1, 2]
    assert later.targets.tolist() == [8, 9, 6, 7]
    assert later.owners.tolist() == [0, 1, 1, 1]
    assert later.continues


def test_one_completion_a_prompt_shares_nothing():
    sequences = sequences_of()
    packed = pack(sequences, of_all(sequences, [(0, 0), (3, 3)]))
    assert packed.segments == (Segment(0, 5), Segment(5, 10))
    assert all(segment.prefix is None for segment in packed.segments)


def test_after_an_empty_prompt_the_first_token_is_predicted_by_nothing():
    """Completions 5 6 and 7 alone: 6 is predicted by 5, and nothing of the second is."""
    sequences = sequences_of([[], []], [[5, 6], [7]])
    packed = pack(sequences, of_all(sequences, [(0, 0), (1, 1)]))
    assert packed.segments == (Segment(0, 2), Segment(2, 3))
    assert (packed.sources.tolist(), packed.targets.tolist(), packed.owners.tolist()) == ([0], [6], [0])
    later = continuation(sequences, [(0, 0)], packed)
    assert (later.segments, later.sources.tolist(), later.positions.tolist()) == ((Segment(0, 2),), [0], [0, 1])


def test_a_pack_of_nothing_is_empty():
    packed = pack(sequences_of(), [])
    assert (len(packed.ids), packed.sequences, packed.segments) == (0, (), ())


@given(seed=st.integers(0, 1000), prompts=st.integers(1, 6))
def test_each_sequence_has_its_own_tokens_at_its_own_positions(seed, prompts):
    rows = random_rows(6, seed=seed, prompts=prompts, max_length=12)
    sequences, random = Sequences(rows), np.random.default_rng(seed)
    pairs = [tuple(pair) for pair in random.integers(0, 6, (8, 2)).tolist()]
    packed = pack(sequences, of_all(sequences, pairs))
    assert sorted(place for segment in packed.segments for place in range(segment.start, segment.end)) == list(
        range(len(packed.ids))
    )
    for pair in pairs:
        sequence = sequences.of(pair)
        places = [*range(*packed.prompts[sequence[0]]), *range(*packed.completions[sequence])]
        ids, start = rows.sequence(*pair)
        assert packed.ids[places].tolist() == ids.tolist()
        assert packed.positions[places].tolist() == list(range(len(ids)))
        mine = packed.owners == packed.sequences.index(sequence)
        assert packed.targets[mine].tolist() == ids[start:].tolist()
        assert packed.positions[packed.sources[mine]].tolist() == list(range(start - 1, len(ids) - 1))


# --- packs of bounded size -------------------------------------------------------------------------------------------------


def test_first_fit_by_hand():
    """Alone the prompts' prompt_groups have 3+2+1 = 6 and 2+3 = 5 tokens: 11 fit together, 10 do not."""
    sequences = sequences_of()
    wanted = of_all(sequences, [(0, 0), (2, 2), (3, 3)])
    assert packed_tokens(sequences, wanted) == 11
    assert packs_of(sequences, wanted, tokens=11) == [[(0, 0), (0, 1), (1, 2)]]
    assert packs_of(sequences, wanted, tokens=10) == [[(0, 0), (0, 1)], [(1, 2)]]


def test_leaves_of_one_prompt_part_where_they_do_not_fit():
    """At most 5 tokens: 1 2 3 with 6 7 are 5, with 8 they are 4, and 4 5 with 9 6 7 are 5."""
    sequences = sequences_of()
    wanted = of_all(sequences, [(0, 0), (2, 2), (3, 3)])
    assert sorted(packs_of(sequences, wanted, tokens=5)) == [[(0, 0)], [(0, 1)], [(1, 2)]]


@given(seed=st.integers(0, 1000), prompts=st.integers(1, 12), tokens=st.integers(1, 80))
def test_packs_lose_nothing_keep_to_their_size_and_are_the_same_again(seed, prompts, tokens):
    sequences = Sequences(random_rows(12, seed=seed, prompts=prompts, max_length=30))
    random = np.random.default_rng(seed)
    wanted = of_all(sequences, random.integers(0, 12, (20, 2)).tolist())
    parts = packs_of(sequences, wanted, tokens=tokens)
    assert sorted(sequence for part in parts for sequence in part) == sorted(wanted)
    assert all(packed_tokens(sequences, part) <= tokens or len(part) == 1 for part in parts)
    assert all(len(pack(sequences, part).ids) == packed_tokens(sequences, part) for part in parts)
    assert parts == packs_of(sequences, wanted, tokens=tokens)


@given(seed=st.integers(0, 100))
def test_a_prompt_that_fits_with_all_its_completions_is_in_one_pack(seed):
    sequences = Sequences(random_rows(9, seed=seed, prompts=3))
    wanted = of_all(sequences, [(row, row) for row in range(9)])
    largest = max(packed_tokens(sequences, group) for group in by_prompt(wanted).values())
    parts = packs_of(sequences, wanted, tokens=largest)
    assert sorted(len(by_prompt(part)) for part in parts) == [1] * len(parts)
    assert len(parts) == 3


@pytest.mark.parametrize("tokens", [1, 100])
def test_packs_of_nothing(tokens):
    assert packs_of(sequences_of(), [], tokens=tokens) == []
