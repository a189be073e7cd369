"""Trainings that share what frozen layers give end with the same weights as alone, and run those layers once per sequence."""

import shutil

import polars as pl
import pytest
import torch
from tiny_models import random_rows

import ktodata as kd
from ktodata.models import cache_dir
from ktodata.train import reference
from ktodata.train.data.packing import Sequences
from ktodata.train.model.activation_cache import ActivationCache, current_cache, shared_activations
from ktodata.train.model.packed_model import PackedModel

ROWS = pl.DataFrame(
    {
        "row_id": [str(n) for n in range(8)],
        "prompt": [f"say {n % 4}" for n in range(8)],
        "completion": ["yes it is", "no", "it is not", "yes", "no no", "yes yes", "it is", "not"],
        "label": [True, False] * 4,
    }
)
TERMS = {"trainable_layers": 1, "max_steps": 2, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu"}


def trained(model, rows=ROWS):
    result = kd.train.fit(rows, model=model, **TERMS)
    return torch.cat([parameter.detach().flatten() for parameter in result.model.parameters()]), result.metrics[
        "activation_cache"
    ]


def test_they_end_as_they_would_alone_and_the_second_computes_only_what_is_new(model_folder, monkeypatch):
    turned = ROWS.with_columns(~pl.col("label"))
    alone = [trained(model_folder, rows)[0] for rows in (ROWS, turned)]
    tokens, lower = [], PackedModel.lower
    monkeypatch.setattr(PackedModel, "lower", lambda self, packed: (tokens.append(len(packed.ids)), lower(self, packed))[1])
    with shared_activations():
        first, facts = trained(model_folder)
        assert facts["from_earlier_trainings"] == 0
        ran = sum(tokens)
        again, facts = trained(model_folder)
        assert facts["from_earlier_trainings"] == facts["sequences"] and sum(tokens) == ran
        shutil.rmtree(cache_dir() / "reference")  # so that it would have to be computed again
        monkeypatch.setattr(reference, "shared_logps", lambda *_: pytest.fail("computed again"))
        trained(model_folder)
        monkeypatch.undo()
        second, facts = trained(model_folder, turned)
        assert 4 <= facts["from_earlier_trainings"] <= facts["sequences"]  # the rows themselves; partners may be new
    for together, apart in ((first, alone[0]), (again, alone[0]), (second, alone[1])):
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-6)
    assert "from_earlier_trainings" not in trained(model_folder)[1]


def test_other_weights_find_nothing():
    sequences, store = Sequences(random_rows()), ActivationCache(1.0)
    key = sequences.of((0, 0))
    for model, frozen in (("one", 3), ("two", 3), ("two", 4)):  # each another than the one before
        assert store.of(model, frozen).find(sequences, key) is None
        store.add(sequences, key, torch.zeros(1), torch.zeros(1))
        assert store.of(model, frozen).find(sequences, key) is not None
    assert current_cache("two", 4) is None


def test_it_holds_no_more_than_it_may(model_folder):
    with shared_activations(most_mb=0.0):
        assert trained(model_folder)[1]["from_earlier_trainings"] == 0
        assert trained(model_folder)[1]["from_earlier_trainings"] == 0
