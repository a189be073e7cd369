"""Hidden states: those of the whole model, whatever the batch; nothing above the layer is run; nothing is computed twice."""

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import tiny_llama, word_tokenizer

import ktodata as kd
from ktodata.engines.running import running_on
from ktodata.errors import SettingError
from ktodata.train.model import layer_states as module
from ktodata.train.model.layer_states import mean_hidden_states

PROMPTS = ["What is two and two?", "Name a colour.", "What is two and two?", "Say nothing."]
COMPLETIONS = ["Four.", "Red is a colour, and so is blue, and so is green.", "Five, I believe.", ""]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))


def whole_model(folder, prompt, completion, layer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    before = tokenizer(prompt)["input_ids"]
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        before = tokenizer(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))["input_ids"]
    after = tokenizer(completion, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        states = model(torch.tensor([before + after]), output_hidden_states=True).hidden_states[layer]
    return states[0, len(before) :].mean(dim=0).numpy()


def test_they_are_the_means_that_the_whole_model_gives(model_folder):
    result = mean_hidden_states(PROMPTS, COMPLETIONS, model=model_folder, layer=1)
    for row in range(3):
        expected = whole_model(model_folder, PROMPTS[row], COMPLETIONS[row], 1)
        np.testing.assert_allclose(result.vectors[row], expected, atol=1e-5)
    assert not result.vectors[3].any() and result.metrics["zero_vectors"] == 1


def test_layers_above_are_not_run(model_folder, monkeypatch):
    ran = []
    layers = module.decoder_layers

    def watched(model):
        found_layers, above = layers(model)
        for number, layer in enumerate(found_layers, start=1):
            layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        return found_layers, above

    monkeypatch.setattr(module, "decoder_layers", watched)
    mean_hidden_states(PROMPTS, COMPLETIONS, model=model_folder, layer=1, cache=False)
    assert set(ran) == {1}


def test_the_cache_gives_the_same_and_runs_nothing(model_folder, monkeypatch):
    first = mean_hidden_states(PROMPTS, COMPLETIONS, model=model_folder)
    monkeypatch.setattr(module, "collate", lambda *_: pytest.fail("computed again"))
    again = mean_hidden_states(PROMPTS[::-1], COMPLETIONS[::-1], model=model_folder)
    np.testing.assert_array_equal(again.vectors, first.vectors[::-1])
    assert (first.metrics["from_cache"], again.metrics["from_cache"]) == (0, 4)


@pytest.mark.slow
def test_other_processes_give_the_same_bytes(model_folder, monkeypatch):
    """Parts of two rows: four that are distinct make two."""
    monkeypatch.setattr(module, "ROWS_A_PART", 2)
    here = mean_hidden_states(PROMPTS, COMPLETIONS, model=model_folder, cache=False)
    with running_on("local", workers=2):
        elsewhere = mean_hidden_states(PROMPTS, COMPLETIONS, model=model_folder, cache=False)
    np.testing.assert_array_equal(here.vectors, elsewhere.vectors)
    assert here.metrics == elsewhere.metrics


def test_long_texts_are_cut_and_counted(model_folder):
    result = mean_hidden_states(["word " * 200], ["more " * 200], model=model_folder, max_length=32)
    assert result.metrics["cut_to_max_length"] == 1
    assert np.isfinite(result.vectors).all() and result.vectors.any()


def test_texts_without_a_token_are_zero(tmp_path):
    """Without a chat template, empty texts are no tokens at all."""
    tokenizer = word_tokenizer(chat_template=None)
    for part in (tiny_llama(len(tokenizer)), tokenizer):
        part.save_pretrained(tmp_path / "bare")
    result = mean_hidden_states(["", ""], ["", ""], model=str(tmp_path / "bare"))
    assert not result.vectors.any() and result.metrics["zero_vectors"] == 2


def test_a_layer_that_is_not_there_is_refused(model_folder):
    with pytest.raises(SettingError, match="layers 1 to 2"):
        mean_hidden_states(PROMPTS, COMPLETIONS, model=model_folder, layer=3)


def test_the_stage_adds_one_vector_a_row(model_folder):
    table = pl.DataFrame({"row_id": ["a", "b"], "prompt": PROMPTS[:2], "completion": COMPLETIONS[:2]})
    result = kd.hidden_states(table, model=model_folder)
    assert result.columns["row_id"].to_list() == ["a", "b"]
    assert result.columns["hidden_state"].dtype.shape == (result.columns["hidden_state"].to_numpy().shape[1],)
    assert result.metrics["findings"][0]["status"] == "passed"
