import pytest

from ktodata.train.schedule import learning_rate_at


def rates(schedule, steps=10, warmup_fraction=0.2):
    return [
        learning_rate_at(step, steps=steps, peak=8.0, warmup_fraction=warmup_fraction, schedule=schedule) for step in range(steps)
    ]


def test_linear_by_hand():
    """2 of 10 steps warm up: 4, 8; then 8/8, 7/8, ... 1/8 of the peak"""
    assert rates("linear") == [4, 8, 8, 7, 6, 5, 4, 3, 2, 1]


def test_constant_by_hand():
    assert rates("constant") == [4, 8, 8, 8, 8, 8, 8, 8, 8, 8]


def test_cosine_falls_from_the_peak_through_its_half():
    """after the warm-up of 2, half way (step 6) the cosine stands at one half"""
    rate = rates("cosine")
    assert rate[2] == 8.0
    assert rate[6] == pytest.approx(4.0)
    assert rate[2:] == sorted(rate[2:], reverse=True)


@pytest.mark.parametrize("schedule", ["linear", "constant", "cosine"])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.1, 1.0])
def test_every_step_moves_even_the_only_one(schedule, warmup_fraction):
    for steps in (1, 2, 9):
        assert all(0 < rate <= 8 for rate in rates(schedule, steps, warmup_fraction))
