import numpy as np
import pytest

from ktodata.train.batches import derange, micro_batches, plan_training
from ktodata.train.tokens import TokenRows


def rows_of(labels, *, groups=None, completions=None):
    count = len(labels)
    completions = completions or [[10 + number] * (1 + number % 7) for number in range(count)]
    return TokenRows(
        row_id=tuple(f"r{number}" for number in range(count)),
        label=np.array(labels),
        weight=np.ones(count),
        group=tuple(groups or (f"g{number}" for number in range(count))),
        prompt=tuple(np.array([1, 2], dtype=np.int32) for _ in range(count)),
        completion=tuple(np.array(ids, dtype=np.int32) for ids in completions),
        max_length=64,
    )


def plan(rows, batch_size=8, epochs=1, max_steps=None, seed=0):
    return plan_training(rows, batch_size=batch_size, epochs=epochs, max_steps=max_steps, seed=seed)


@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (65, 16), (17, 16), (7, 3), (9, 2), (2, 16)])
def test_each_epoch_uses_every_row_once_in_batches_of_nearly_one_size(count, batch_size):
    made = plan(rows_of([number % 2 == 0 for number in range(count)]), batch_size, epochs=2)
    for epoch in (0, 1):
        rows = np.concatenate([step.rows for step in made.steps if step.epoch == epoch])
        assert sorted(rows) == list(range(count))
    sizes = {len(step.rows) for step in made.steps}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3)


@pytest.mark.parametrize("rare", [True, False])
def test_every_batch_holds_both_labels_when_there_are_enough(rare):
    made = plan(rows_of([rare] * 10 + [not rare] * 90), batch_size=10)
    labels = np.array([rare] * 10 + [not rare] * 90)
    assert [int((labels[step.rows] == rare).sum()) for step in made.steps] == [1] * 10
    assert made.facts["one_class_batches"] == 0


def test_batches_that_lack_a_label_are_counted():
    assert plan(rows_of([True] * 3 + [False] * 97), batch_size=10).facts["one_class_batches"] == 7


def test_partners_are_the_steps_own_completions_each_used_once_never_the_own():
    made = plan(rows_of([number % 3 == 0 for number in range(50)]), batch_size=7, epochs=3)
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


def test_impossible_partners_are_counted_and_never_the_own_row():
    """Four rows, three with one completion: two of the three must meet an equal one, in either direction at least two times."""
    made = plan(rows_of([True, False, True, False], completions=[[5], [5], [5], [6]]), batch_size=4)
    assert made.facts["partners_with_equal_completion"] == 2
    assert not (made.steps[0].partners == made.steps[0].rows).any()


def test_the_seed_decides_everything():
    rows = rows_of([number % 2 == 0 for number in range(40)])
    first, again, other = plan(rows, seed=1, epochs=2), plan(rows, seed=1, epochs=2), plan(rows, seed=2, epochs=2)
    assert all(
        (a.rows == b.rows).all() and (a.partners == b.partners).all() for a, b in zip(first.steps, again.steps, strict=True)
    )
    assert any((a.rows != b.rows).any() for a, b in zip(first.steps, other.steps, strict=True))
    assert any((a.rows != b.rows).any() for a, b in zip(first.steps[:5], first.steps[5:], strict=True))  # epochs differ


def test_fewer_steps_are_the_first_ones_of_the_same_plan():
    rows = rows_of([number % 2 == 0 for number in range(40)])
    short, long = plan(rows, max_steps=3), plan(rows)
    assert [step.rows.tolist() for step in short.steps] == [step.rows.tolist() for step in long.steps[:3]]


def test_rows_stand_longest_first_so_that_neighbours_pad_little():
    rows = rows_of([number % 2 == 0 for number in range(40)])
    for step in plan(rows).steps:
        lengths = [len(rows.completion[row]) for row in step.rows]
        assert lengths == sorted(lengths, reverse=True)


def test_micro_batches_cover_all():
    assert micro_batches(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
