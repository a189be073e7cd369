"""A bfloat16 base gives a bfloat16 model, and every number in the folder is that model's; what is resumed stays float32."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from test_trainer import FAST, KilledError, assert_same_weights, interrupted_at
from tiny_models import text_rows, tiny_llama, tiny_of, word_tokenizer

from ktodata.evaluate import evaluate
from ktodata.models import load_causal_lm
from ktodata.train import fit
from ktodata.train.model.stored_dtype import SavedAs, as_stored, held_as, round_weights, rounded_weights
from ktodata.train.results.train_result import TrainResult


def base(folder, dtype):
    tokenizer = word_tokenizer()
    tiny_llama(len(tokenizer)).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    return base(tmp_path_factory.mktemp("base") / "bfloat16", torch.bfloat16)


def rows():
    return text_rows(18).with_columns(part=pl.Series(["train"] * 12 + ["validation"] * 6))


def dtypes_in(folder):
    return {tensor.dtype for tensor in load_file(Path(folder) / "model.safetensors").values()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_that_are_no_safetensors_are_counted_too(tmp_path, dtype):
    """A bfloat16 base in pytorch_model.bin was saved as float32."""
    model = tiny_llama(30).to(dtype)
    for zipped in (True, False):
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        assert as_stored(str(tmp_path), None, ()).dtype == dtype


@pytest.mark.parametrize("extra", [{}, {"trainable_layers": 1}, {"early_stop": {"patience": 1}, "eval_every_steps": 2}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_model_is_saved_as_its_base_is_and_the_folders_numbers_are_the_saved_models(tmp_path, dtype, extra):
    from transformers import AutoModelForCausalLM

    result = fit(rows(), model=base(tmp_path / "base", dtype), out=tmp_path / "out", **FAST, **extra)
    assert dtypes_in(tmp_path / "out") == {dtype}
    assert result.metrics["saved_dtype"] == str(dtype).removeprefix("torch.")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == result.metrics["saved_dtype"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == dtype
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert_same_weights(TrainResult.load(tmp_path / "out").with_model(), result)
    moved = load_file(tmp_path / "base" / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert any(not torch.equal(tensor, moved[1][name]) for name, tensor in moved[0].items())
    # the held-out rows as training scored them last are those of a model that is read from the folder
    last = result.telemetry.filter((pl.col("part") == "validation") & (pl.col("step") == result.metrics["weights_of_step"]))
    held_out = rows().filter(part="validation").with_columns(part=pl.lit("test"))
    again = evaluate(held_out, model=str(tmp_path / "out"), generate=0, bootstrap=100, device="cpu").per_row
    compared = last.join(again, on="row_id")
    assert compared.height == 6
    assert compared["logp"].to_list() == pytest.approx(compared["policy_logp"].to_list(), abs=1e-4)
    assert compared["ref_logp"].to_list() == pytest.approx(compared["reference_logp"].to_list(), abs=1e-4)


def test_rounding_would_have_shown(narrow, tmp_path):
    """Unrounded, the last evaluation is up to 1e-3 nats and more off that of the saved model: what the test above compares."""
    kept, rounded = (fit(rows(), model=narrow, save_dtype=dtype, **FAST) for dtype in ("float32", "base"))
    off = kept.telemetry.filter(part="validation")["logp"] - rounded.telemetry.filter(part="validation")["logp"]
    assert off.abs().max() > 1e-3
    assert kept.telemetry.filter(part="train").equals(rounded.telemetry.filter(part="train"))  # training knows nothing of it
    kept.save(tmp_path / "float32")
    assert dtypes_in(tmp_path / "float32") == {torch.float32}


@pytest.mark.parametrize("claimed", ["bfloat16", None])
def test_a_float32_base_stays_float32_whatever_its_config_says(tmp_path, claimed):
    model = base(tmp_path / "base", torch.float32)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"dtype": claimed}))
    result = fit(rows(), model=model, out=tmp_path / "out", **FAST)
    assert (result.metrics["saved_dtype"], dtypes_in(tmp_path / "out")) == ("float32", {torch.float32})
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert any(not torch.equal(tensor.bfloat16().float(), tensor) for tensor in saved.values())
    torch.testing.assert_close(saved, {name: result.model.state_dict()[name] for name in saved}, rtol=0, atol=0)


def test_an_adapter_is_float32_beside_its_base_and_merges_into_its_dtype(narrow, tmp_path):
    from peft import PeftModel

    result = fit(rows(), model=narrow, lora={"r": 4}, out=tmp_path / "out", **FAST)
    assert result.metrics["saved_dtype"] == "float32"
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    stored = load_causal_lm(narrow, dtype="auto")[0]
    merged = PeftModel.from_pretrained(stored, str(tmp_path / "out")).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert dtypes_in(tmp_path / "merged") == {torch.bfloat16}
    assert as_stored(str(tmp_path / "merged"), None, ()).dtype == torch.bfloat16


def test_a_resumed_training_goes_on_from_float32_weights(narrow, tmp_path):
    """Killed after an evaluation and a save: from rounded weights its next steps would be others."""
    settings = {"model": narrow, "save_every_steps": 1, "eval_every_steps": 1, "epochs": 2, **FAST}
    interrupted_at(3, rows(), out=tmp_path / "killed", **settings)
    checkpoint = max((tmp_path / "killed" / "checkpoints").glob("step-*"))
    weights = load_file(checkpoint / "weights.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert any(not torch.equal(tensor.bfloat16().float(), tensor) for tensor in weights.values())
    resumed = fit(rows(), out=tmp_path / "killed", **settings)
    unbroken = fit(rows(), out=tmp_path / "unbroken", **settings)
    assert_same_weights(resumed, unbroken)
    assert resumed.history.equals(unbroken.history)
    assert resumed.held_out == unbroken.held_out
    assert fit(rows(), **{**settings, "save_every_steps": None, "eval_every_steps": None}).history.equals(unbroken.history)
    read, written = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "unbroken"))
    assert read == written


def test_what_a_dtype_has_no_room_for_stays_float32(tmp_path):
    """float16 ends at 65,504. A weight beyond it would be saved as infinity."""
    model = tiny_llama(30)
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6
    before = model.model.norm.weight.clone()
    round_weights(model, SavedAs(torch.float16))
    assert torch.equal(model.model.norm.weight, before)
    with held_as(model, SavedAs(torch.float16)):
        model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {name for name, tensor in saved.items() if tensor.dtype == torch.float32} == {"model.norm.weight"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_outside_of_it_no_bit_of_a_weight_has_changed():
    model = tiny_of("Qwen2")
    model.lm_head.weight.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(KilledError), rounded_weights(model, SavedAs(torch.bfloat16)):
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert "model.layers.0.mlp.up_proj.weight" in changed
        assert "lm_head.weight" not in changed  # frozen: it is as it was read
        raise KilledError
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


# --- a base that holds two dtypes ------------------------------------------------------------------------------------------------

MAMBA = {"hidden_size": 16, "state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4, "vocab_size": 30}
KEPT_WIDE = {
    "norms": ("Llama", {}, "norm"),
    "state_matrices": ("Mamba2", MAMBA, ("A_log", "D", "dt_bias")),
    "routers_that_files_call_otherwise": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, "mlp.gate.weight"),
    "head": ("Llama", {}, "lm_head"),
}


def mixed(folder, kind, settings, wide, *, drawn):
    """A bfloat16 base whose weights of these names are stored in float32; drawn : values that bfloat16 does not hold"""
    tokenizer = word_tokenizer()
    model = tiny_of(kind, **{**settings, "vocab_size": len(tokenizer)})
    model.resize_token_embeddings(len(tokenizer))
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.bfloat16()
        if any(part in name for part in ([wide] if isinstance(wide, str) else wide)):
            parameter.data = parameter.data.float() + (0.3 * torch.rand(parameter.shape) if drawn else 0)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return str(folder)


def dtype_of_each(folder):
    return {name: tensor.dtype for name, tensor in load_file(Path(folder) / "model.safetensors").items()}


@pytest.mark.filterwarnings("ignore:a mamba2 model is scored")
@pytest.mark.parametrize("drawn", [True, False], ids=["trained", "as_initialised"])
@pytest.mark.parametrize("case", KEPT_WIDE)
def test_each_weight_is_saved_as_it_is_stored_and_an_unmoved_model_is_its_reference(case, drawn, tmp_path):
    """All were narrowed to what most are: held-out rows were 0.16 nats off their reference before the first update."""
    model = mixed(tmp_path / "base", *KEPT_WIDE[case], drawn=drawn)
    dtypes = dtype_of_each(model)
    assert set(dtypes.values()) == {torch.bfloat16, torch.float32}
    result = fit(rows(), model=model, out=tmp_path / "out", **FAST | {"learning_rate": 1e-12, "max_steps": 1})
    assert dtype_of_each(tmp_path / "out") == dtypes
    assert result.telemetry["log_ratio"].abs().max() < 1e-4
    base, saved = (load_file(place / "model.safetensors") for place in (tmp_path / "base", tmp_path / "out"))
    torch.testing.assert_close(saved, base, rtol=0, atol=1e-9)
    assert result.metrics["saved_dtype"] == "bfloat16"
    TrainResult.load(tmp_path / "out").with_model().save(tmp_path / "again")
    assert dtype_of_each(tmp_path / "again") == dtypes
    assert fit(rows(), model=model, lora={"r": 2}, **FAST).metrics["saved_float32"] == []


def test_what_a_dtype_does_not_hold_stays_float32_under_any_name(tmp_path):
    """Names of files may not be those of the model; values say it, too."""
    name = mixed(tmp_path, "Llama", {}, "norm", drawn=True)
    model = load_causal_lm(name)[0]
    model.base_model_prefix = "other"
    model._weight_conversions = None
    values = [(f"renamed.{place}", value) for place, value in model.named_parameters()]
    assert {place for place, _ in values if "norm" in place} == as_stored(name, model, values).wide


def test_most_of_the_numbers_say_how_a_base_is_stored(tmp_path):
    model = tiny_llama(30).bfloat16()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = parameter.data.float()
    model.save_pretrained(tmp_path)
    assert as_stored(str(tmp_path), model, ()).dtype == torch.bfloat16
    assert as_stored("some-owner/a-model-that-is-not-here", None, ()).dtype == torch.float32
    (tmp_path / "empty").mkdir()
    assert as_stored(str(tmp_path / "empty"), None, ()).dtype == torch.float32
