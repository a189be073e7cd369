"""Which arithmetic is picked, and what is said of one that a processor is slow in."""

import warnings

import pytest
import torch

from ktodata.train.model import device as devices


@pytest.mark.parametrize(("cost", "warned"), [(0.5, False), (60.0, True)])
def test_bfloat16_that_is_only_emulated_is_warned_of(monkeypatch, cost, warned):
    monkeypatch.setattr(devices, "cost_of_bfloat16", lambda: cost)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert devices.pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
        assert devices.pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert [str(each.message).startswith("dtype bfloat16: on this processor a product takes 60 times") for each in given] == (
        [True] if warned else []
    )


def test_the_cost_is_a_ratio_of_times(monkeypatch):
    monkeypatch.setattr(devices, "_seconds", lambda dtype: {torch.bfloat16: 6.0, torch.float32: 0.1}[dtype])
    devices.cost_of_bfloat16.cache_clear()
    assert devices.cost_of_bfloat16() == pytest.approx(60)
    devices.cost_of_bfloat16.cache_clear()
