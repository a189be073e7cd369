"""Models that see images as well, on rows of text: the language model alone trains, and as single rows would train it."""

from dataclasses import replace

import pytest
import torch
from tiny_families import tiny_family
from tiny_models import assert_same_gradients, moved, one_by_one, random_rows, scorer_of, token_rows, value_and_gradients

from ktodata.errors import ModelError, SettingError
from ktodata.train.model.adapters import with_adapters
from ktodata.train.model.frozen_layers import freeze_below

PAIRS = [*((row, row) for row in range(6)), (0, 5), (5, 0)]
WRAPPERS = pytest.mark.parametrize("family", ["gemma3", "gemma4", "gemma4_text", "llama4"])


def assert_as_single_rows(model):
    """Trains as single rows do; returns the names of what has a gradient."""
    scorer = scorer_of(model, random_rows(prompts=2))
    assert scorer.method == "packed"
    ours = value_and_gradients(model, lambda: scorer(PAIRS))
    expected = value_and_gradients(model, lambda: one_by_one(model, scorer.rows, PAIRS))
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-5, atol=1e-4)
    trained = {name: gradient for name, gradient in expected[1].items() if gradient.any()}
    assert_same_gradients({name: ours[1][name] for name in trained}, trained, relative=2e-4)
    return set(trained)


@WRAPPERS
def test_the_top_layer_trains_with_the_final_norm_and_nothing_else(family):
    model = tiny_family(family, window=8)
    frozen = freeze_below(model, 1)
    trained = assert_as_single_rows(model)
    assert trained and all(f"layers.{frozen}." in name or name.endswith(".norm.weight") for name in trained)
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} >= trained
    assert not any("embed" in name or "vision" in name for name, weight in model.named_parameters() if weight.requires_grad)


@WRAPPERS
def test_rows_longer_than_the_language_models_context_are_refused_and_pairs_are_cut_to_it(family):
    fits, too_long = token_rows([[1] * 40, [2]], [[3], [4] * 40]), token_rows([[1] * 50, [2]], [[3] * 15, [4]], max_length=99)
    scorer = scorer_of(tiny_family(family, window=8), replace(fits, max_length=99))
    assert scorer.length((0, 1)) == 64
    with pytest.raises(ModelError, match=r"1 of 2 rows are longer than the model's context of 64 tokens \(row_id r0\)"):
        scorer_of(tiny_family(family, window=8), too_long)


@WRAPPERS
def test_adapters_are_on_the_language_model_alone(family):
    model, _ = with_adapters(tiny_family(family, window=8), {"r": 2}, None)
    adapted = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert adapted and all("lora_" in name and "vision" not in name and "audio" not in name for name in adapted)
    assert assert_as_single_rows(moved(model.eval())) & set(adapted)


@pytest.mark.parametrize("family", ["falcon_h1", "mamba", "zamba2", "opt", "gpt2", "falcon"])
def test_adapters_are_on_all_that_they_can_be_on(family):
    """peft refuses some layers of these, or takes a name of one for that of another part; OPT's layers stand a level lower."""
    model, frozen = with_adapters(tiny_family(family, window=8), {"r": 2}, 1)
    adapted = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert adapted and all(f".{frozen}." in name for name in adapted)
    scorer = scorer_of(moved(model.eval()), random_rows(prompts=2))
    torch.testing.assert_close(scorer(PAIRS), one_by_one(model, scorer.rows, PAIRS), rtol=1e-5, atol=1e-4)


def test_adapters_that_peft_puts_on_frozen_layers_are_refused():
    """It rewrites what it is told of LongCat's experts, and adapts the frozen layers as well."""
    with pytest.raises(SettingError, match=r"the frozen layers of a longcat_flash model, too \(model\.layers\.0\."):
        with_adapters(tiny_family("longcat_flash", window=8), {"r": 2}, 1)
    assert freeze_below(tiny_family("longcat_flash", window=8), 1) == 1
