"""The folder that a model was saved into holds that model's files, whatever was saved there before."""

import shutil

import polars as pl
import pytest
import torch
from tiny_models import text_rows

from ktodata.errors import RunError, SettingError
from ktodata.evaluate import evaluate
from ktodata.files import read_note, write_note
from ktodata.models import load_causal_lm
from ktodata.train import TrainResult, fit
from ktodata.train.results.trained_folder import check_one_training, load_trained

FAST = {"batch_size": 6, "learning_rate": 2e-2, "warmup_fraction": 0.0, "device": "cpu"}
WAYS = {"full": {}, "top": {"trainable_layers": 1}, "lora": {"lora": {"r": 4}}}


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[3, 4, 5, 6, 7, 8, 9]]), use_cache=False).logits


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_what_is_read_is_what_was_trained_last(model_folder, tmp_path, first, second):
    out = tmp_path / "out"
    fit(text_rows(12), model=model_folder, out=out, **FAST, **WAYS[first])
    trained = fit(text_rows(12), model=model_folder, out=out, epochs=2, **FAST, **WAYS[second])
    ways = {
        "evaluate": load_trained(str(out), model_folder),
        "with_model": TrainResult.load(out).with_model().model,
        "transformers": load_causal_lm(str(out))[0],
    }
    for name, model in ways.items():
        torch.testing.assert_close(logits(model), logits(trained.model), msg=lambda text, name=name: f"{name}: {text}")
    assert (out / "adapter_config.json").exists() == (second == "lora")


@pytest.mark.parametrize(
    "left", ["adapter_config.json", "pytorch_model.bin", "model.safetensors.index.json", "chat_template.jinja"]
)
def test_what_would_be_read_with_a_model_leaves_its_folder(model_folder, tmp_path, left):
    """Also where no training.json speaks of it: a killed save, parts of a larger model, another template."""
    trained = fit(text_rows(12), model=model_folder, **FAST)
    trained.tokenizer.chat_template = None
    tmp_path.joinpath(left).write_text("{}")
    tmp_path.joinpath("notes.txt").write_text("mine")
    trained.save(tmp_path)
    assert not (tmp_path / left).exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_templates_in_a_folder_of_their_own_are_replaced(model_folder, tmp_path):
    trained = fit(text_rows(12), model=model_folder, **FAST)
    trained.tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }}"}
    for _ in range(2):
        trained.save(tmp_path)
        assert set(TrainResult.load(tmp_path).with_model().tokenizer.chat_template) == {"default", "tools"}


@pytest.mark.parametrize("from_the_hub", [False, True])
def test_a_folder_with_two_trainings_is_refused_by_all_who_read_it(model_folder, tmp_path, from_the_hub):
    """Earlier releases left such folders. What is from the Hub has no list of its files."""
    adapter, out = tmp_path / "adapter", tmp_path / "out"
    fit(text_rows(12), model=model_folder, out=adapter, lora={"r": 4}, **FAST)
    fit(text_rows(12), model=model_folder, out=out, **FAST)
    check_one_training(out)
    check_one_training(adapter)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, out)
    if from_the_hub:
        write_note(out / "training.json", read_note(out / "training.json"))
    says = "files of another training beside the model that training.json speaks of: adapter_config.json"
    with pytest.raises(RunError, match=says):
        TrainResult.load(out).with_model() if not from_the_hub else check_one_training(out)
    with pytest.raises(RunError, match=says):
        fit(text_rows(12), model=str(out), **FAST)
    with pytest.raises(RunError, match=says):
        evaluate(text_rows(12).with_columns(part=pl.lit("test")), model=str(out), reference=model_folder, device="cpu")


def test_a_trained_model_never_takes_the_place_of_its_base(model_folder, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    before = sorted(file.name for file in base.iterdir())
    with pytest.raises(SettingError, match="the folder of the model that is trained: give another"):
        fit(text_rows(12), model=str(base), out=tmp_path / "x" / ".." / "base", **FAST)
    trained = fit(text_rows(12), model=str(base), lora={"r": 4}, **FAST)
    with pytest.raises(SettingError, match="the folder of the model that is trained: give another"):
        trained.save(base)
    assert sorted(file.name for file in base.iterdir()) == before
