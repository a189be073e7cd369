"""What is trained is a whole model whose weights all come from its files; anything else is refused before training."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from tiny_families import tiny_config
from tiny_models import save_tiny_llama, text_rows, word_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from ktodata.errors import ModelError, SettingError
from ktodata.experiments.methods.trl_trainers import fresh_model
from ktodata.models import load_causal_lm
from ktodata.train import TrainResult, fit
from ktodata.train.distributed.mapped_weights import load_mapped
from ktodata.train.results.trained_folder import load_trained

FAST = {"batch_size": 6, "learning_rate": 2e-2, "max_steps": 1, "device": "cpu"}


@pytest.mark.parametrize("lost", ["model.layers.1.mlp.down_proj.weight", "model.norm.weight", "model.embed_tokens.weight"])
def test_weights_that_no_file_holds_are_refused_wherever_a_model_is_read(tmp_path, lost):
    base = save_tiny_llama(tmp_path / "base")
    file = Path(base) / "model.safetensors"
    weights = load_file(file)
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    for read in (load_causal_lm, load_mapped, lambda name: fit(text_rows(12), model=name, **FAST)):
        with pytest.raises(ModelError, match=r"do not hold all of its weights: .* would be random numbers"):
            read(base)


def test_a_config_that_wants_tuples_trains_as_one_that_does_not(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "tuples")
    file = tmp_path / "tuples" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"return_dict": False}))
    plain, tuples = (fit(text_rows(12), model=str(model), **FAST) for model in (model_folder, tmp_path / "tuples"))
    assert plain.history.equals(tuples.history)
    assert load_mapped(str(tmp_path / "tuples"))[0].config.return_dict is True


def test_adapters_that_would_not_be_read_back_are_refused_before_training(tmp_path):
    config = tiny_config(CONFIG_MAPPING["laguna"], 4)
    config.vocab_size = max(config.vocab_size, len(tokenizer := word_tokenizer()))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    settings = {"model": str(tmp_path / "base"), "out": tmp_path / "out", **FAST}
    with pytest.raises(SettingError, match=r"on down_proj, gate_proj, up_proj of a laguna model cannot be read back"):
        fit(text_rows(12), lora={"r": 4}, **settings)
    trained = fit(text_rows(12), lora={"r": 4, "target_modules": ["q_proj", "v_proj"]}, **settings)
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        read = load_trained(str(tmp_path / "out"), settings["model"]).eval()(ids, use_cache=False).logits
        torch.testing.assert_close(read, trained.model.eval()(ids, use_cache=False).logits)


def test_an_adapter_that_lacks_weights_is_not_evaluated(model_folder, tmp_path):
    fit(text_rows(12), model=model_folder, out=tmp_path, lora={"r": 4}, **FAST)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[min(weights)]
    save_file(weights, file)
    with pytest.raises(ModelError, match=r"do not hold all of its weights: .*lora_A.* would be random numbers"):
        load_trained(str(tmp_path), model_folder)


@pytest.mark.parametrize("kind", ["fp8", "bitsandbytes"])
def test_weights_that_are_quantized_already_are_not_trained_themselves(tmp_path, monkeypatch, kind):
    """It ended in "only Tensors of floating point dtype can require gradients"."""
    base = save_tiny_llama(tmp_path / "base")
    model, tokenizer = load_causal_lm(base)
    model.config.quantization_config = {"quant_method": kind}
    monkeypatch.setattr("ktodata.train.run_training.load_causal_lm", lambda name, **_: (model, tokenizer))
    for way in ({}, {"trainable_layers": 1}):
        with pytest.raises(ModelError, match=rf"are quantized already \({kind}\).*Give the model as it was before that; or lora"):
            fit(text_rows(12), model=base, **way, **FAST)


def test_an_adapter_is_no_model_to_train_and_merged_it_is_one(model_folder, tmp_path):
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    trained = fit(text_rows(12), model=model_folder, out=adapter, lora={"r": 4}, **FAST)
    for way in ({}, {"trainable_layers": 1}, {"lora": {"r": 4}}):
        with pytest.raises(ModelError, match=r"holds an adapter \(LoRA\), not a whole model.*merge_and_unload"):
            fit(text_rows(12), model=str(adapter), **way, **FAST)
    with pytest.raises(ModelError, match=r"holds an adapter \(LoRA\)"):
        load_mapped(str(adapter))
    with pytest.raises(ModelError, match=r"holds an adapter \(LoRA\)"):
        fresh_model(SimpleNamespace(model=str(adapter)))
    AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(merged)
    again = fit(text_rows(12), model=str(merged), out=tmp_path / "again", lora={"r": 4}, **FAST)
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad(), again.model.disable_adapter():
        torch.testing.assert_close(again.model(ids).logits, trained.model(ids).logits)
        read = TrainResult.load(tmp_path / "again").with_model().model.eval()(ids).logits
    torch.testing.assert_close(read, again.model(ids).logits)
