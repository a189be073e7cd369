"""What a training of any family writes is read back as the model that was trained: all weights, the top layer, adapters."""

import pytest
import torch
from test_families import everything
from tiny_families import filled, tiny_config
from tiny_models import text_rows, word_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from ktodata.errors import KtodataError
from ktodata.train import fit
from ktodata.train.results.trained_folder import load_trained

SETTINGS = {"batch_size": 6, "learning_rate": 2e-2, "max_steps": 2, "max_length": 64, "device": "cpu", "dtype": "float32"}
MOST_WEIGHTS = 3_000_000  # some families have no tiny configuration


def save_base(family, folder):
    tokenizer, config = word_tokenizer(), tiny_config(CONFIG_MAPPING[family], 4)
    for part in (config, config.get_text_config()):
        for name in ("vocab_size", "vocab_size_per_layer_input"):
            if hasattr(part, name):
                setattr(part, name, max(len(tokenizer), getattr(part, name)))
    with torch.device("meta"):
        if sum(weights.numel() for weights in AutoModelForCausalLM.from_config(config).parameters()) > MOST_WEIGHTS:
            pytest.skip(f"{family} cannot be made small with this tokenizer")
    torch.manual_seed(0)
    filled(AutoModelForCausalLM.from_config(config).eval(), 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.filterwarnings("ignore::UserWarning")  # that a family is not packed is told elsewhere
@pytest.mark.parametrize("family", everything)
def test_what_is_read_back_is_what_was_trained(family, tmp_path):
    try:
        save_base(family, tmp_path / "base")
    except Exception as error:  # whatever transformers says of a configuration of its own
        pytest.skip(f"{family} cannot be made: {type(error).__name__}")
    ids = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]])
    for way in ({}, {"trainable_layers": 1}, {"lora": {"r": 4}}):
        try:
            trained = fit(text_rows(12), model=str(tmp_path / "base"), out=tmp_path / "out", **SETTINGS, **way).model
        except KtodataError:
            continue  # it says why: nothing was written
        with torch.no_grad():
            read = load_trained(str(tmp_path / "out"), str(tmp_path / "base")).eval()(input_ids=ids, use_cache=False).logits
            expected = trained.eval()(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4, msg=lambda text, way=way: f"{family} {way}: {text}")
