"""What is trained is a whole model whose weights all come from its files; anything else is refused before training."""

from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_llama, text_rows
from transformers import AutoTokenizer

from ktodata.errors import ModelError
from ktodata.models import load_causal_lm
from ktodata.train import TrainResult, fit
from ktodata.train.distributed.mapped_weights import load_mapped

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


def test_an_adapter_is_no_model_to_train_and_merged_it_is_one(model_folder, tmp_path):
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    trained = fit(text_rows(12), model=model_folder, out=adapter, lora={"r": 4}, **FAST)
    for way in ({}, {"trainable_layers": 1}, {"lora": {"r": 4}}):
        with pytest.raises(ModelError, match=r"holds an adapter \(LoRA\), not a whole model.*merge_and_unload"):
            fit(text_rows(12), model=str(adapter), **way, **FAST)
    with pytest.raises(ModelError, match=r"holds an adapter \(LoRA\)"):
        load_mapped(str(adapter))
    AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(merged)
    again = fit(text_rows(12), model=str(merged), out=tmp_path / "again", lora={"r": 4}, **FAST)
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad(), again.model.disable_adapter():
        torch.testing.assert_close(again.model(ids).logits, trained.model(ids).logits)
        read = TrainResult.load(tmp_path / "again").with_model().model.eval()(ids).logits
    torch.testing.assert_close(read, again.model(ids).logits)
