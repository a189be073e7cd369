import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import token_rows

from ktodata.train.data.batches import Batch, derange, plan_held_out, plan_training, shifted

BOTH_WAYS = pytest.mark.parametrize("group_by_prompt", [True, False], ids=["shared", "singly"])


def rows_of(labels, *, groups=None, completions=None, prompts=None):
    """Rows with completions of 1 to 7 tokens; prompts of their own unless numbers of `prompts` say otherwise."""
    count = len(labels)
    completions = completions or [[100 + number] * (1 + number % 7) for number in range(count)]
    prompts = range(count) if prompts is None else prompts
    groups = groups or [f"g{number}" for number in prompts]
    return token_rows([[1, 2 + number] for number in prompts], completions, labels=labels, groups=groups)


def plan(rows, batch_size=8, epochs=1, max_steps=None, seed=0, **settings):
    return plan_training(rows, batch_size=batch_size, epochs=epochs, max_steps=max_steps, seed=seed, **settings)


def alternating(count, every=2):
    return [number % every == 0 for number in range(count)]


def of_each_label(made, labels):
    """(desirable, undesirable) rows of each step."""
    return [(int(np.array(labels)[step.rows].sum()), int((~np.array(labels)[step.rows]).sum())) for step in made.steps]


# --- which rows ------------------------------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("rows_a_prompt", [1, 3, 1000])
@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (65, 16), (17, 16), (7, 3), (9, 2), (2, 16)])
def test_each_epoch_uses_every_row_once_in_batches_of_nearly_one_size(count, batch_size, rows_a_prompt, group_by_prompt):
    prompts = [number // rows_a_prompt for number in range(count)]
    made = plan(rows_of(alternating(count), prompts=prompts), batch_size, epochs=2, group_by_prompt=group_by_prompt)
    for epoch in (0, 1):
        rows = np.concatenate([step.rows for step in made.steps if step.epoch == epoch])
        assert sorted(rows) == list(range(count))
    sizes = {len(step.rows) for step in made.steps}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3)


@given(
    labels=st.lists(st.booleans(), min_size=2, max_size=120),
    batch_size=st.integers(2, 40),
    prompts=st.integers(1, 120),
    group_by_prompt=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_the_prompts_no_row_is_lost_and_none_is_alone(labels, batch_size, prompts, group_by_prompt, seed):
    of = np.random.default_rng(seed).integers(0, prompts, len(labels)).tolist()
    made = plan(rows_of(labels, prompts=of), batch_size, seed=seed, group_by_prompt=group_by_prompt)
    assert sorted(np.concatenate([step.rows for step in made.steps])) == list(range(len(labels)))
    sizes = [len(step.rows) for step in made.steps]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    for step in made.steps:
        assert sorted(step.partners) == sorted(step.rows)
        assert not (step.partners == step.rows).any()


@BOTH_WAYS
@pytest.mark.parametrize("rare", [True, False])
def test_every_batch_holds_both_labels_when_there_are_enough(rare, group_by_prompt):
    labels = [rare] * 10 + [not rare] * 90
    made = plan(rows_of(labels), batch_size=10, group_by_prompt=group_by_prompt)
    assert [min(counts) for counts in of_each_label(made, labels)] == [1] * 10
    assert made.metrics["one_class_batches"] == 0


@BOTH_WAYS
def test_every_batch_has_the_mix_of_all_rows_although_prompts_stay_together(group_by_prompt):
    """20 prompts of 4 rows, of which every second one is undesirable only: 40 of 80, so 8 of each 16, give or take a row or two."""
    prompts = [number // 4 for number in range(80)]
    labels = [prompt % 2 == 0 for prompt in prompts]
    made = plan(rows_of(labels, prompts=prompts), batch_size=16, epochs=3, group_by_prompt=group_by_prompt)
    assert all(abs(desirable - 8) <= 2 for desirable, _ in of_each_label(made, labels))


@BOTH_WAYS
@given(seed=st.integers(0, 200), batches=st.integers(2, 8))
def test_no_batch_goes_without_a_label_of_which_there_is_one_for_each(group_by_prompt, seed, batches):
    random = np.random.default_rng(seed)
    labels = random.permutation([True] * batches + [False] * (7 * batches)).tolist()
    prompts = random.integers(0, 3 * batches, len(labels)).tolist()
    made = plan(rows_of(labels, prompts=prompts), batch_size=8, seed=seed, group_by_prompt=group_by_prompt)
    assert made.metrics["one_class_batches"] == 0


@BOTH_WAYS
@pytest.mark.parametrize("size", [2, 3, 5, 16])
@pytest.mark.parametrize("rare", [True, False])
def test_no_batch_has_one_label_while_each_label_has_a_row_for_every_batch(size, rare, group_by_prompt):
    """Sizes that differ by a row, nearly as many of both labels, heavy prompts: the smaller batches were filled with one label."""
    for seed in range(30):
        random = np.random.default_rng([seed, size])
        count = int(random.integers(max(4, size), 120))
        batches = min(-(-count // size), count // 2)
        rarer = int(random.integers(batches, count // 2 + 1))
        labels = random.permutation([rare] * rarer + [not rare] * (count - rarer)).tolist()
        prompts = (random.zipf(1.5, count) % (1 + count // 3)).tolist()
        made = plan(rows_of(labels, prompts=prompts), batch_size=size, seed=seed, group_by_prompt=group_by_prompt)
        assert made.metrics["one_class_batches"] == 0, (seed, count, rarer)


def test_batches_that_lack_a_label_are_counted():
    assert plan(rows_of([True] * 3 + [False] * 97), batch_size=10).metrics["one_class_batches"] == 7


def test_rows_of_one_prompt_meet_in_one_batch_up_to_a_quarter_of_it():
    """32 prompts of 4 rows in batches of 16: a quarter is 4, so a batch is 4 whole prompts; dealt singly, rows hardly meet."""
    prompts = [number % 32 for number in range(128)]
    rows = rows_of([number // 32 % 2 == 0 for number in range(128)], prompts=prompts)
    shared, singly = (plan(rows, batch_size=16, group_by_prompt=share).metrics for share in (True, False))
    assert shared["rows_per_prompt"] == 4.0
    assert singly["rows_per_prompt"] < 1.5
    assert shared["rows_with_siblings"] == 128 > 2 * singly["rows_with_siblings"]


def test_siblings_stay_together_up_to_half_a_batch():
    """15 prompts of 4 rows of one label and 1 of the other, 15 rows a batch: cut at a quarter, most rows of a prompt lose theirs."""
    prompts = [number // 5 for number in range(75)]
    rows = rows_of([number % 5 > 0 for number in range(75)], prompts=prompts)
    together, parted = (plan(rows, batch_size=15, siblings_together=half).metrics for half in (True, False))
    assert together["rows_with_siblings"] == 75
    assert parted["rows_with_siblings"] <= 15 * 3
    held_out = plan_held_out(rows, batch_size=15, seed=0, siblings_together=True)
    assert held_out.metrics["rows_with_siblings"] == 75


def test_a_prompt_with_many_rows_does_not_fill_a_batch_while_there_are_others():
    """40 rows of one prompt, 60 of their own, 5 batches of 20: 8 pieces of a quarter, 5 rows, are one or two a batch."""
    prompts = [0] * 40 + list(range(1, 61))
    made = plan(rows_of(alternating(100), prompts=prompts), batch_size=20)
    assert sorted(int((step.rows < 40).sum()) for step in made.steps) == [5, 5, 10, 10, 10]


def test_rows_stand_longest_first_so_that_neighbours_pad_little():
    rows = rows_of(alternating(40))
    for step in plan(rows).steps:
        lengths = [len(rows.completion[row]) for row in step.rows]
        assert lengths == sorted(lengths, reverse=True)


def test_the_seed_decides_everything():
    rows = rows_of(alternating(40))
    first, again, other = plan(rows, seed=1, epochs=2), plan(rows, seed=1, epochs=2), plan(rows, seed=2, epochs=2)
    assert all(
        (a.rows == b.rows).all() and (a.partners == b.partners).all() for a, b in zip(first.steps, again.steps, strict=True)
    )
    assert any((a.rows != b.rows).any() for a, b in zip(first.steps, other.steps, strict=True))
    assert any((a.rows != b.rows).any() for a, b in zip(first.steps[:5], first.steps[5:], strict=True))  # epochs differ


def test_fewer_steps_are_the_first_ones_of_the_same_plan():
    rows = rows_of(alternating(40))
    short, long = plan(rows, max_steps=3), plan(rows)
    assert [step.rows.tolist() for step in short.steps] == [step.rows.tolist() for step in long.steps[:3]]
    assert len(plan(rows, epochs=2, max_steps=7).steps) == 7


def test_held_out_rows_are_passed_once_and_numbered_behind_the_training_rows():
    rows = rows_of(alternating(20))
    made = plan_held_out(rows, batch_size=8, seed=0)
    behind = shifted(made, 100)
    assert sorted(np.concatenate([step.rows for step in behind.steps])) == list(range(100, 120))
    for before, after in zip(made.steps, behind.steps, strict=True):
        assert (after.partners == before.partners + 100).all()
        assert (after.compared == before.compared).all()


# --- with whose completion -------------------------------------------------------------------------------------------------


@BOTH_WAYS
def test_partners_are_the_steps_own_completions_each_used_once_never_the_own(group_by_prompt):
    made = plan(rows_of(alternating(50, every=3)), batch_size=7, epochs=3, group_by_prompt=group_by_prompt)
    for step in made.steps:
        assert sorted(step.partners) == sorted(step.rows)
        assert not (step.partners == step.rows).any()


def test_partners_share_neither_prompt_group_nor_completion():
    """Six rows in three groups of two; the completion 'x' twice, across groups: the only ways out avoid both."""
    groups, texts = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 2, 3, 4])
    for seed in range(50):
        partners = derange(groups, texts, np.random.default_rng(seed))
        assert not (groups[partners] == groups).any()
        assert not (texts[partners] == texts).any()


@BOTH_WAYS
def test_rows_of_one_prompt_are_never_each_others_partners(group_by_prompt):
    """At most a quarter of a batch is dealt as one prompt: three quarters are left to choose from."""
    prompts = [number // 4 for number in range(64)]
    made = plan(rows_of(alternating(64), prompts=prompts), batch_size=16, epochs=2, group_by_prompt=group_by_prompt)
    assert made.metrics["partners_sharing_prompt_group"] == 0
    assert made.metrics["partners_with_equal_completion"] == 0


def test_impossible_partners_are_counted_and_never_the_own_row():
    """Four rows, three with one completion: two of the three must meet an equal one, in either direction at least two times."""
    made = plan(rows_of([True, False, True, False], completions=[[5], [5], [5], [6]]), batch_size=4)
    assert made.metrics["partners_with_equal_completion"] == 2
    assert not (made.steps[0].partners == made.steps[0].rows).any()


def test_pairs_of_a_step_by_hand():
    step = Batch(0, np.array([4, 7, 5]), np.array([7, 5, 4]), np.array([0, 2]))
    assert step.matched() == [(4, 4), (7, 7), (5, 5)]
    assert step.mismatched() == {0: (4, 7), 2: (5, 4)}


@pytest.mark.parametrize(("kl_pairs_per_batch", "looked_at"), [(None, 8), (3, 3), (8, 8), (100, 8)])
def test_z0_is_estimated_from_so_many_pairs_of_each_step(kl_pairs_per_batch, looked_at):
    made = plan(rows_of(alternating(32)), batch_size=8, epochs=2, kl_pairs_per_batch=kl_pairs_per_batch)
    for step in made.steps:
        assert len(step.compared) == len(step.mismatched()) == looked_at
        assert sorted(set(step.compared)) == step.compared.tolist()
    samples = {tuple(step.compared) for step in made.steps}
    assert (len(samples) > 1) == (looked_at < 8)  # drawn anew


def test_sampled_pairs_change_no_batch_of_the_first_epoch_but_the_sample():
    rows = rows_of(alternating(8))
    some, every = (plan(rows, batch_size=8, kl_pairs_per_batch=kl_pairs_per_batch).steps[0] for kl_pairs_per_batch in (3, None))
    assert (some.rows == every.rows).all()
    assert (some.partners == every.partners).all()


def test_long_names_of_groups_take_no_more_than_their_own_length():
    """One name of 32,000 characters among 500 rows: an array of strings as long as the longest would take 64 MB."""
    names = ["x" * 32_000, *(str(number // 2) for number in range(499))]
    rows = token_rows([[number % 29] for number in range(500)], [[number % 28] for number in range(500)], groups=names)
    tracemalloc.start()
    made = plan_training(rows, batch_size=20, epochs=1, max_steps=None, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6
    assert made.metrics["partners_sharing_prompt_group"] == 0
    assert rows.group_numbers.tolist()[:4] == [0, 1, 1, 2]
