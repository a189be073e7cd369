"""`fit` as a user calls it, on a two-layer model: what it writes, what it refuses, and that nothing is silently wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from tiny_models import TEMPLATE, chat_rows, text_rows, tiny_gpt2, tiny_llama, tiny_of, word_tokenizer

from ktodata.errors import (
    DataError,
    EmptyDataError,
    FormatError,
    KtodataError,
    LabelError,
    MissingColumnError,
    MissingExtraError,
    ModelError,
    OneClassError,
    RunError,
    SettingError,
)
from ktodata.train import fit, run_training
from ktodata.train.data.batches import plan_held_out
from ktodata.train.objectives import OBJECTIVES

FAST = {"batch_size": 4, "learning_rate": 1e-3, "warmup_fraction": 0.0, "device": "cpu"}


def weights_of(result):
    return {name: value.clone() for name, value in result.model.state_dict().items()}


def assert_same_weights(first, second, **tolerance):
    torch.testing.assert_close(weights_of(first), weights_of(second), **(tolerance or {"rtol": 0, "atol": 0}))


def shards(folder, train, validation=None):
    folder.mkdir()
    half = train.height // 2
    train[:half].write_parquet(folder / "train-00000-of-00002.parquet")
    train[half:].write_parquet(folder / "train-00001-of-00002.parquet")
    if validation is not None:
        validation.write_parquet(folder / "validation-00000-of-00001.parquet")
    return folder


# --- what comes out ------------------------------------------------------------------------------------------------------


def test_a_training_writes_a_model_that_loads_its_log_and_its_telemetry(model_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, out = shards(tmp_path / "shards", text_rows(12), text_rows(6, start=12)), tmp_path / "out"
    result = fit(folder, model=model_folder, out=out, epochs=2, eval_every_steps=2, save_every_steps=2, **FAST)
    assert {path.name for path in out.iterdir()} >= {"model.safetensors", "tokenizer.json", "training.json", "telemetry.parquet"}
    assert not (out / "checkpoints").exists()
    loaded = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(dict(loaded.state_dict()), weights_of(result), rtol=0, atol=0)
    assert len(AutoTokenizer.from_pretrained(out)) == len(result.tokenizer)
    training = json.loads((out / "training.json").read_text())
    assert [line["step"] for line in training["history"]] == list(range(6))
    assert [evaluation["step"] for evaluation in training["held_out"]] == [2, 4, 6]
    assert training["attention"] == "sdpa"
    assert training["settings"]["learning_rate"] == 1e-3
    assert training["padding_ratio"] >= 1
    telemetry = pl.read_parquet(out / "telemetry.parquet")
    assert telemetry.filter(part="train")["row_id"].value_counts()["count"].to_list() == [2] * 12
    assert telemetry.filter(part="validation")["row_id"].value_counts()["count"].to_list() == [3] * 6


def test_the_telemetry_is_the_loss_row_by_row(model_folder):
    """loss = weight * sigmoid(-/+ beta (log_ratio - z0)); before the first update every log-ratio is 0."""
    weighted = text_rows(12).with_columns(weight=pl.int_range(1, 13).cast(pl.Float64))
    result = fit(weighted, model=model_folder, epochs=2, beta=0.5, undesirable_weight=2.0, **FAST)
    first = result.telemetry.filter(step=0)
    torch.testing.assert_close(first["log_ratio"].to_torch(), torch.zeros(4), atol=1e-5, rtol=0)
    by_row = result.telemetry.join(weighted.select("row_id", "weight"), on="row_id")
    sign = pl.when("label").then(1.0).otherwise(-1.0)
    weight = pl.col("weight") * pl.when("label").then(1.0).otherwise(2.0)
    expected = weight / (1 + (sign * 0.5 * (pl.col("log_ratio") - pl.col("z0"))).exp())
    assert by_row.select((expected - pl.col("loss")).abs().max()).item() < 1e-4
    by_step = result.telemetry.group_by("step").agg(pl.col("loss").mean()).sort("step")["loss"].to_list()
    assert by_step == pytest.approx(result.history["loss"].to_list(), rel=1e-5)


def test_per_row_sums_up_by_hand(model_folder):
    """beta 0.5; margins of a desirable row: 0.5 (2 - 0) = 1, 0.5 (-1 - 1) = -1: mean 0, forgotten once."""
    from ktodata.train.data.tokens import tokenize
    from ktodata.train.data.training_rows import check_rows
    from ktodata.train.results.telemetry import observed, summarise

    rows, _ = tokenize(check_rows(text_rows(3), part="train", both_classes=True), word_tokenizer(), max_length=64, part="train")
    zero = {"loss": [0.5], "gradient_weight": [0.1], "ref_logp": [-5.0]}
    observations = [
        observed(rows, [1], part="train", epoch=0, step=2, z0=0.0, logp=[-3.0], **zero),
        observed(rows, [1], part="train", epoch=1, step=6, z0=1.0, logp=[-6.0], **zero),
    ]
    line = summarise(pl.concat(observations), beta=0.5).row(0, named=True)
    assert (line["row_id"], line["observations"], line["mean_margin"], line["last_margin"]) == ("r1", 2, 0.0, -1.0)
    assert (line["forgotten"], line["mean_log_ratio"]) == (1, 0.5)
    assert line["std_margin"] == pytest.approx(2**0.5)


def test_training_raises_desirable_and_lowers_undesirable_rows(model_folder):
    margins = fit(text_rows(12), model=model_folder, epochs=15, **FAST).per_row()
    assert margins["last_margin"].min() > 0


def test_parameters_move_at_a_learning_rate_of_a_millionth(model_folder):
    before = tiny_llama(len(word_tokenizer())).state_dict()
    result = fit(text_rows(12), model=model_folder, max_steps=1, **{**FAST, "learning_rate": 1e-6})
    for name, value in weights_of(result).items():
        assert not torch.equal(value, before[name]), name


def test_rows_of_weight_zero_do_not_pull(model_folder):
    rows = text_rows(12).with_columns(weight=pl.when(pl.int_range(12) < 6).then(0.0).otherwise(1.0))
    telemetry = fit(rows, model=model_folder, max_steps=2, **FAST).telemetry.join(rows.select("row_id", "weight"), on="row_id")
    assert telemetry.filter((pl.col("gradient_weight") > 0) != (pl.col("weight") > 0)).is_empty()


# --- the same whichever way ------------------------------------------------------------------------------------------------


BIG = {**FAST, "batch_size": 6}


def assert_same_history(result, expected):
    """Later losses see the earlier updates; grad_norm is that of the whole step's gradient."""
    for name in ("loss", "z0", "z0_unclamped", "z0_standard_error", "grad_norm"):
        assert result.history[name].is_null().equals(expected.history[name].is_null()), name  # nothing estimated, in both
        wanted = pytest.approx(expected.history[name].drop_nulls().to_list(), rel=1e-4, abs=1e-5)
        assert result.history[name].drop_nulls().to_list() == wanted, name


def assert_same_training(result, expected):
    """A tenth of one update's length apart at most: AdamW makes much of a gradient's rounding where it is nearly 0."""
    assert_same_history(result, expected)
    assert_same_weights(result, expected, rtol=0, atol=0.1 * FAST["learning_rate"])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "cut", [{"micro_batch_size": 1}, {"micro_batch_size": 3}, {"micro_batch_tokens": 1}, {"micro_batch_tokens": 20}], ids=str
)
def test_accumulation_equals_the_big_batch(model_folder, cut, objective):
    settings = {"model": model_folder, "objective": objective, **BIG}
    big = fit(text_rows(12), micro_batch_size=6, micro_batch_tokens=10_000, **settings)
    assert_same_training(fit(text_rows(12), **cut, **settings), big)


@pytest.mark.parametrize("cut", [{"micro_batch_size": 1}, {"micro_batch_size": 2}, {}], ids=str)
def test_accumulation_equals_the_big_batch_with_a_sample_for_z0(model_folder, cut):
    settings = {"model": model_folder, "kl_pairs_per_batch": 2, **BIG}
    assert_same_training(fit(text_rows(12), **cut, **settings), fit(text_rows(12), micro_batch_tokens=10_000, **settings))


@pytest.mark.parametrize("extra", [{}, {"trainable_layers": 1}, {"lora": {"r": 2}}, {"micro_batch_size": 2}], ids=str)
def test_activations_computed_again_give_the_same_training(model_folder, extra):
    again, stored = (
        fit(text_rows(12), model=model_folder, epochs=2, gradient_checkpointing=flag, **extra, **BIG) for flag in (True, False)
    )
    assert_same_training(again, stored)


@pytest.mark.parametrize("group_by_prompt", [True, False])
def test_rows_dealt_by_prompt_or_singly_are_each_used_once_an_epoch_in_the_same_mix(model_folder, group_by_prompt):
    """text_rows: 8 of 24 rows undesirable, so 2 of each 6; two rows a prompt, computed once where they meet"""
    rows = text_rows(24)
    result = fit(rows, model=model_folder, epochs=3, group_by_prompt=group_by_prompt, **{**BIG, "batch_size": 8})
    counts = result.telemetry.group_by("row_id", "epoch").len()
    assert (counts.height, counts["len"].unique().to_list()) == (24 * 3, [1])
    undesirable = result.telemetry.group_by("step").agg((~pl.col("label")).sum())["label"]
    assert undesirable.min() >= 2
    assert undesirable.max() <= 3
    assert (result.metrics["plan"]["rows_per_prompt"] == 2.0) is group_by_prompt


def test_siblings_dealt_singly_are_refused_where_they_are_to_be_set_against_each_other(model_folder):
    with pytest.raises(SettingError, match="kto_hybrid sets rows of one prompt against each other: it needs group_by_prompt"):
        fit(text_rows(12), model=model_folder, objective="kto_hybrid", group_by_prompt=False, **FAST)


def test_rows_that_are_set_against_each_other_are_dealt_together(model_folder, monkeypatch):
    """4 prompts of 4 rows, 8 rows an update: kto takes a quarter of it from one prompt, kto_hybrid the whole prompt; held out too."""
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    rows = text_rows(32).with_columns(
        prompt=pl.Series([f"what is {word} " for word in words for _ in range(4)]),
        label=pl.Series([True, True, True, False] * 8),
        part=pl.Series(["train"] * 16 + ["validation"] * 16),
    )
    held_out = []

    def planned(*rows, **settings):
        held_out.append(plan_held_out(*rows, **settings))
        return held_out[-1]

    monkeypatch.setattr("ktodata.train.data.preparation.plan_held_out", planned)
    settings = {**FAST, "batch_size": 8, "max_steps": 2}
    siblings = [
        fit(rows, model=model_folder, objective=name, **settings).metrics["plan"]["rows_with_siblings"]
        for name in ("kto", "kto_hybrid")
    ]
    assert siblings[0] < siblings[1] == 16
    parted, together = (plan.metrics["rows_with_siblings"] for plan in held_out)
    assert parted < together == 16


def test_numbers_read_seldom_are_the_same_numbers(model_folder):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    every, seldom = (
        fit(rows, model=model_folder, epochs=3, eval_every_steps=4, log_every_steps=steps, **FAST) for steps in (1, 5)
    )
    assert every.history.equals(seldom.history)
    assert every.telemetry.equals(seldom.telemetry)
    assert every.held_out == seldom.held_out
    assert_same_weights(every, seldom)


@pytest.mark.parametrize("log_every_steps", [1, 5])
def test_the_log_has_a_line_for_every_update_and_look(model_folder, tmp_path, log_every_steps):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    result = fit(rows, model=model_folder, out=tmp_path, epochs=2, eval_every_steps=3, log_every_steps=log_every_steps, **FAST)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "held_out" not in line]
    assert [line["step"] for line in updates] == list(range(1, 9))
    assert [line["loss"] for line in updates] == result.history["loss"].to_list()
    assert [line["held_out"]["loss"] for line in lines if "held_out" in line] == [
        evaluation["loss"] for evaluation in result.held_out
    ]
    assert {line["steps"] for line in lines} == {8}


def test_without_mismatched_pairs_fewer_tokens_go_through_the_model(model_folder):
    tokens = {}
    for objective in ("kto", "apo_zero", "bco"):
        result = fit(text_rows(12), model=model_folder, objective=objective, **FAST)
        tokens[objective] = result.metrics["requested_tokens"]
        assert (tokens[objective] == result.history["tokens"].sum()) is (objective != "kto")
    assert tokens["apo_zero"] == tokens["bco"] < tokens["kto"]


def test_the_models_attention_is_as_it_was_read(model_folder):
    model = fit(text_rows(12), model=model_folder, **FAST).model
    assert model.config._attn_implementation == "sdpa"
    assert model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=2, do_sample=False).shape[1] > 3


def test_bfloat16_trains_nearly_as_float32(model_folder):
    """A loss lies in [0, 1]; rounding moves it by less than 0.01."""
    exact, rounded = (fit(text_rows(12), model=model_folder, dtype=dtype, **FAST) for dtype in ("float32", "bfloat16"))
    assert rounded.metrics["dtype"] == "bfloat16"
    assert rounded.history["loss"].to_list() == pytest.approx(exact.history["loss"].to_list(), abs=0.01)
    assert {value.dtype for value in weights_of(rounded).values()} == {torch.float32}


def test_cached_reference_equals_live_one_and_is_used_again(model_folder):
    first = fit(text_rows(12), model=model_folder, epochs=2, **FAST)
    again = fit(text_rows(12), model=model_folder, epochs=2, **FAST)
    assert (first.metrics["reference"]["source"], again.metrics["reference"]["source"]) == ("computed", "cache")
    assert_same_weights(first, again)
    assert first.telemetry.equals(again.telemetry)


def test_a_reference_made_again_is_the_same_and_serves_any_micro_batch_size(model_folder, tmp_path):
    settings = {"model": model_folder, "epochs": 2, **FAST}
    first = fit(text_rows(12), **settings)
    cut = fit(text_rows(12), micro_batch_size=1, **settings)
    assert cut.metrics["reference"]["source"] == "cache"
    (file,) = (tmp_path / "cache" / "reference").rglob("*.parquet")
    file.unlink()
    again = fit(text_rows(12), **settings)
    assert again.metrics["reference"]["source"] == "computed"
    assert_same_weights(first, again)
    assert first.telemetry.equals(again.telemetry)
    by_row = ["row_id", "epoch"]
    ours, theirs = (call.telemetry.sort(by_row)["ref_logp"].to_list() for call in (cut, first))
    assert ours == theirs


def test_another_model_does_not_meet_the_cached_reference(model_folder, tmp_path, tokenizer):
    tiny_llama(len(tokenizer), seed=1).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    first = fit(text_rows(12), model=model_folder, **FAST)
    other = fit(text_rows(12), model=str(tmp_path / "other"), **FAST)
    assert other.metrics["reference"]["source"] == "computed"
    assert other.metrics["reference"]["key"] != first.metrics["reference"]["key"]


def test_a_damaged_cache_file_is_made_again(model_folder, tmp_path):
    first = fit(text_rows(12), model=model_folder, **FAST)
    (file,) = (tmp_path / "cache" / "reference").rglob("*.parquet")
    file.write_bytes(b"PAR1 but no more")
    assert fit(text_rows(12), model=model_folder, **FAST).metrics["reference"]["source"] == "computed"
    assert first.metrics["reference"]["key"] == f"{file.parent.name}/{file.stem}"


def test_frozen_layers_stay_and_run_apart_they_give_the_whole_models_result(model_folder, monkeypatch):
    from ktodata.train.model import scorer

    before = tiny_llama(len(word_tokenizer())).state_dict()
    settings = {"model": model_folder, "epochs": 2, "trainable_layers": 1, **FAST}
    apart = fit(text_rows(12), **settings)
    nothing_kept = fit(text_rows(12), activation_cache_mb=0, **settings)
    monkeypatch.setattr(scorer, "can_split", lambda model: False)
    whole = fit(text_rows(12), **settings)
    cached = [result.metrics["activation_cache"]["sequences"] for result in (apart, nothing_kept, whole)]
    assert cached == [apart.metrics["activation_cache"]["of_sequences"], 0, 0]
    for other in (nothing_kept, whole):
        assert other.metrics["method"] == "packed"
        assert apart.history["loss"].to_list() == pytest.approx(other.history["loss"].to_list(), abs=1e-5)
    moved = {name.split(".")[2] for name, value in weights_of(apart).items() if not torch.equal(value, before[name])}
    assert moved == {"1", "weight"}  # layer 1 and the final norm


def test_lora_trains_adapters_only_and_saves_them(model_folder, tmp_path):
    from peft import AutoPeftModelForCausalLM

    out = tmp_path / "out"
    result = fit(text_rows(12), model=model_folder, out=out, epochs=3, lora={"r": 2, "dropout": 0.1}, **FAST)
    base = tiny_llama(len(word_tokenizer())).state_dict()
    frozen = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value for name, value in weights_of(result).items()
    }
    assert all(torch.equal(frozen[name], value) for name, value in base.items())
    assert (out / "adapter_config.json").exists()
    assert not (out / "model.safetensors").exists()
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(AutoPeftModelForCausalLM.from_pretrained(out).eval()(ids).logits, result.model(ids).logits)


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.filterwarnings("ignore:a .* model is scored by method")
@pytest.mark.parametrize("kind", ["gpt2", "mistral_with_a_short_window", "gemma2"])
def test_other_architectures_train(kind, tmp_path, tokenizer):
    size = {"vocab_size": len(tokenizer)}
    model = {
        "gpt2": lambda: tiny_gpt2(**size),
        "mistral_with_a_short_window": lambda: tiny_of("Mistral", sliding_window=3, **size),
        "gemma2": lambda: tiny_of("Gemma2", head_dim=8, **size),
    }[kind]()
    settings = {"model": saved(model, tokenizer, tmp_path / "model"), "epochs": 2, **BIG}
    big, small = (fit(text_rows(12), micro_batch_size=rows, **settings) for rows in (None, 1))
    assert_same_history(small, big)
    metrics = big.metrics
    assert {"packed": [], "padded": ["packed"], "logits": ["packed", "padded"]}[metrics["method"]] == [
        *metrics["rejected_methods"]
    ]
    assert all(metrics["rejected_methods"].values())


def test_a_mismatched_pair_longer_than_the_models_context_is_cut_to_it(tmp_path, tokenizer):
    """64 positions; rows of 60 + 1 and 1 + 60 tokens fit, the prompt of one with the completion of the other does not."""
    rows = text_rows(12).with_columns(
        prompt=pl.when(pl.col("row_id") == "r1").then(pl.lit("one " * 60)).otherwise("prompt"),
        completion=pl.when(pl.col("row_id") == "r2").then(pl.lit("two " * 50)).otherwise("completion"),
        prompt_group="row_id",
    )
    model = saved(tiny_gpt2(vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    result = fit(rows, model=model, epochs=4, **FAST)
    assert result.history["loss"].is_finite().all()


def test_conversations_train_and_no_pad_token_is_needed(model_folder):
    result = fit(chat_rows(12), model=model_folder, **FAST)
    assert result.tokenizer.pad_token is None
    assert result.metrics["train"]["without_end_token"] == 0


def test_a_frame_with_parts_trains_on_train_and_looks_at_validation(model_folder):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 10 + ["validation"] * 4 + ["test"] * 4))
    telemetry = fit(rows, model=model_folder, **FAST).telemetry
    assert set(telemetry.filter(part="train")["row_id"]) == {f"r{number}" for number in range(10)}
    assert set(telemetry.filter(part="validation")["row_id"]) == {f"r{number}" for number in range(10, 14)}


def test_one_validation_label_has_no_gap_but_a_loss(model_folder):
    rows = pl.concat(
        [
            text_rows(12).with_columns(part=pl.lit("train")),
            text_rows(12, start=12).filter("label").with_columns(part=pl.lit("validation")),
        ]
    )
    (evaluation,) = fit(rows, model=model_folder, **FAST).held_out
    assert evaluation["reward_gap"] is None
    assert "8 desirable and 0 undesirable" in evaluation["not_applicable"]
    assert evaluation["loss"] > 0


# --- killed and resumed ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import polars as pl
from ktodata.train import fit, run_training
from ktodata.train.objectives import OBJECTIVES

def at_step(event):
    if event["step"] == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

fit(pl.read_parquet(sys.argv[1]), model=sys.argv[2], out=sys.argv[3], progress=at_step, **eval(sys.argv[5]))
"""


def killed_at(step, rows_file, model, out, settings):
    command = [sys.executable, "-c", KILLED, str(rows_file), model, str(out), str(step), repr(settings)]
    assert (
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False).returncode
        == -signal.SIGKILL
    )


@pytest.mark.parametrize(
    ("step", "extra"),
    [
        pytest.param(5, {}, id="full"),
        pytest.param(7, {"lora": {"dropout": 0.3}}, id="lora", marks=pytest.mark.slow),
        pytest.param(1, {"trainable_layers": 1}, id="before_a_save", marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_resumes_bit_identically(model_folder, tmp_path, step, extra):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    rows.write_parquet(tmp_path / "rows.parquet")
    settings = {**FAST, "epochs": 2, "save_every_steps": 2, "eval_every_steps": 2, **extra}
    torch.set_num_threads(1)
    killed_at(step, tmp_path / "rows.parquet", model_folder, tmp_path / "killed", settings)
    saved = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").glob("step-*"))
    assert saved[-1:] == ([f"step-{step - step % 2:08d}"] if step > 1 else [])
    resumed_at = []
    resumed = fit(rows, model=model_folder, out=tmp_path / "killed", progress=lambda e: resumed_at.append(e["step"]), **settings)
    unbroken = fit(rows, model=model_folder, out=tmp_path / "unbroken", **settings)
    assert resumed_at[0] == step - step % 2 + 1
    assert_same_weights(resumed, unbroken)
    assert resumed.telemetry.equals(unbroken.telemetry)
    assert resumed.history.equals(unbroken.history)
    assert resumed.held_out == unbroken.held_out
    for file in Path(tmp_path / "unbroken").glob("*.safetensors"):
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes()


class KilledError(Exception):
    """Ends a training from within, as it stands."""


def interrupted_at(step, rows, **settings):
    def at_step(event):
        if event["step"] == step:
            raise KilledError

    with pytest.raises(KilledError):
        fit(rows, progress=at_step, **settings)


def facts_beside_time(result):
    """training.json without the time that it took, and what hangs on that."""
    return {name: value for name, value in result.metrics.items() if name not in ("seconds", "tokens_per_second", "reference")}


def assert_same_result(resumed, unbroken):
    assert_same_weights(resumed, unbroken)
    assert resumed.telemetry.equals(unbroken.telemetry)
    assert resumed.history.equals(unbroken.history)
    assert resumed.held_out == unbroken.held_out
    assert facts_beside_time(resumed) == facts_beside_time(unbroken)


@pytest.mark.parametrize("log_every_steps", [1, 3])
@pytest.mark.parametrize("objective", ["kto", "bco"])
def test_an_interrupted_training_goes_on_with_its_running_mean_and_its_log(model_folder, tmp_path, objective, log_every_steps):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    settings = {"model": model_folder, "objective": objective, "epochs": 3, "save_every_steps": 4, "eval_every_steps": 4, **FAST}
    settings |= {"log_every_steps": log_every_steps}
    interrupted_at(7 if log_every_steps == 1 else 6, rows, out=tmp_path / "broken", **settings)
    resumed = fit(rows, out=tmp_path / "broken", **settings)
    unbroken = fit(rows, out=tmp_path / "unbroken", **settings)
    assert_same_result(resumed, unbroken)
    if objective == "bco":
        assert unbroken.history["z0"][5:].abs().min() > 0
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("broken", "unbroken")
    ]
    for line in (*logs[0], *logs[1]):
        line.pop("tokens_per_second", None)
    assert logs[0] == logs[1]


def test_a_training_that_is_resumed_on_another_day_keeps_the_day_in_its_prompts(tmp_path, monkeypatch):
    tokenizer = word_tokenizer("{{ strftime_now('%d')|replace('30', 'one')|replace('01', 'two three') }}" + TEMPLATE)
    for part in (tiny_llama(len(tokenizer)), tokenizer):
        part.save_pretrained(tmp_path / "model")
    settings = {"model": str(tmp_path / "model"), "save_every_steps": 1, **FAST}
    monkeypatch.setattr(run_training, "today", lambda: "2026-11-30")
    interrupted_at(2, chat_rows(12), out=tmp_path / "broken", **settings)
    unbroken = fit(chat_rows(12), **settings)
    monkeypatch.setattr(run_training, "today", lambda: "2026-12-01")
    assert_same_result(fit(chat_rows(12), out=tmp_path / "broken", **settings), unbroken)
    assert unbroken.metrics["template_day"] == "2026-11-30"
    afresh = fit(chat_rows(12), **settings)
    assert afresh.metrics["template_day"] == "2026-12-01"
    assert afresh.metrics["train"]["prompt_tokens"] > unbroken.metrics["train"]["prompt_tokens"]
    assert fit(text_rows(12), **settings).metrics["template_day"] is None


def test_a_training_that_was_resumed_twice_reports_all_that_was_done(model_folder, tmp_path, monkeypatch):
    """Before, tokens and seconds were those of the last process, the reference that of a cache."""
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    settings = {"model": model_folder, "epochs": 3, "save_every_steps": 2, "eval_every_steps": 2, **FAST}
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "one"))
    unbroken = fit(rows, out=tmp_path / "unbroken", **settings)
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "other"))
    for step in (5, 8):
        interrupted_at(step, rows, out=tmp_path / "broken", **settings)
    earlier = json.loads((tmp_path / "broken" / "checkpoints" / "step-00000006" / "state.json").read_text())
    resumed = fit(rows, out=tmp_path / "broken", **settings)
    assert_same_result(resumed, unbroken)
    assert resumed.metrics["reference"] == unbroken.metrics["reference"]
    assert resumed.metrics["reference"]["source"] == "computed"
    assert resumed.metrics["requested_tokens"] > earlier["work"]["requested"] > 0
    assert resumed.metrics["seconds"]["training"] > earlier["seconds"] > 0
    tokens, seconds = resumed.history["tokens"].sum(), resumed.metrics["seconds"]["training"]
    assert resumed.metrics["tokens_per_second"] == pytest.approx(tokens / seconds, rel=0.2)  # seconds are to the hundredth


# --- stopped early ---------------------------------------------------------------------------------------------------------


def with_aucs(monkeypatch, *aucs):
    """The looks at held-out rows find these AUCs, in this order."""
    from ktodata.train.results import step_metrics

    values = iter(aucs)
    monkeypatch.setattr(
        step_metrics,
        "reward_gap",
        lambda rewards, desirable, groups: {"reward_gap": None, "auc": {"value": next(values), "low": 0.0, "high": 1.0}},
    )


EARLY = {
    **FAST,
    "epochs": 4,
    "schedule": "constant",
    "eval_every_steps": 2,
    "early_stop": {"patience": 2},
}


def held_out_rows():
    """14 training rows, 4 updates an epoch at 4 a batch; two desirable and two undesirable held-out rows."""
    return (
        text_rows(20)
        .filter(~pl.col("row_id").is_in(["r14", "r16"]))
        .with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    )


def weights_after(steps, model_folder):
    return fit(held_out_rows(), model=model_folder, max_steps=steps, **{**EARLY, "early_stop": None})


def test_a_training_stops_early_with_the_weights_of_its_best_look(model_folder, monkeypatch, tmp_path):
    """Looks at 2, 4, 6 and 8 of 16 updates: the second is the best, and two without a better one follow."""
    from safetensors.torch import load_file

    best = weights_after(4, model_folder)
    with_aucs(monkeypatch, 0.5, 0.7, 0.6, 0.7)
    stopped = fit(held_out_rows(), model=model_folder, out=tmp_path, **EARLY)
    assert stopped.metrics["stopped_early"]
    assert stopped.history.height == 8
    assert [evaluation["step"] for evaluation in stopped.held_out] == [2, 4, 6, 8]
    assert_same_weights(stopped, best)
    written = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(weights_of(best)[name], value) for name, value in written.items())


def test_a_training_that_does_not_stop_early_has_its_best_looks_weights_too(model_folder, monkeypatch):
    best = weights_after(6, model_folder)
    with_aucs(monkeypatch, 0.5, 0.6, 0.8, 0.7)
    whole = fit(held_out_rows(), model=model_folder, max_steps=8, **EARLY)
    assert not whole.metrics["stopped_early"]
    assert whole.history.height == 8
    assert_same_weights(whole, best)


@pytest.mark.parametrize(("at", "seen_before"), [(6, 2), (4, 1)], ids=["after_the_best_look", "before_it"])
def test_interrupted_it_stops_at_the_same_place_with_the_same_weights(model_folder, monkeypatch, tmp_path, at, seen_before):
    """Saved after every third update: interrupted at 6 it goes on from 3, with the look at 2 behind it; saved every fifth, from 5."""
    aucs = (0.5, 0.7, 0.6, 0.65)
    settings = {"model": model_folder, "save_every_steps": 5 if at == 6 else 3, **EARLY}
    with_aucs(monkeypatch, *aucs)
    interrupted_at(at, held_out_rows(), out=tmp_path / "broken", **settings)
    with_aucs(monkeypatch, *aucs[seen_before:])
    resumed = fit(held_out_rows(), out=tmp_path / "broken", **settings)
    with_aucs(monkeypatch, *aucs)
    unbroken = fit(held_out_rows(), out=tmp_path / "unbroken", **settings)
    assert resumed.history.height == 8
    assert_same_result(resumed, unbroken)


def test_the_last_and_the_best_checkpoint_are_kept(model_folder, tmp_path):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    often = {"save_every_steps": 1, "eval_every_steps": 1, "keep_checkpoints": True}
    result = fit(rows, model=model_folder, out=tmp_path, epochs=3, **often, **FAST)
    evaluations = [evaluation for evaluation in result.held_out if evaluation["step"] < result.history.height]
    best = min(evaluations, key=lambda evaluation: evaluation["loss"])["step"]
    steps = {int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {best, result.history.height - 1}


def test_checkpoints_of_another_training_are_not_resumed_from(model_folder, tmp_path):
    keep = {"model": model_folder, "out": tmp_path, "save_every_steps": 1, "keep_checkpoints": True}
    fit(text_rows(12), **keep, **FAST)
    with pytest.raises(RunError, match=r"checkpoints of another training.*resume=False"):
        fit(text_rows(12), **keep, **{**FAST, "learning_rate": 2e-3})
    fit(text_rows(12), resume=False, **keep, **{**FAST, "learning_rate": 2e-3})


def _of(*row_ids):
    return pl.col("row_id").is_in(row_ids)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"label": pl.col("label") ^ _of("r0", "r1")}, id="labels that are as many of each"),
        pytest.param({"label": pl.col("label") ^ _of("r15", "r16")}, id="labels of validation rows"),
        pytest.param({"weight": pl.when(_of("r1")).then(20.0).otherwise(1.0)}, id="weight"),
        pytest.param({"p_desirable": pl.when("label").then(0.6).otherwise(0.3)}, id="p_desirable"),
        pytest.param({"row_id": pl.col("row_id") + "x"}, id="row_id"),
        pytest.param({"prompt_group": pl.lit("one")}, id="prompt_group"),
    ],
)
def test_a_training_on_the_same_texts_with_other_columns_is_another(model_folder, tmp_path, other):
    rows = text_rows(18).with_columns(part=pl.Series(["train"] * 14 + ["validation"] * 4))
    settings = {**FAST, "model": model_folder, "out": tmp_path, "save_every_steps": 1, "soft_labels": "p_desirable" in other}
    interrupted_at(2, rows, **settings)
    with pytest.raises(RunError, match=r"checkpoints of another training \(other settings, rows, labels.*resume=False"):
        fit(rows.with_columns(**other), **settings)
    assert fit(rows, **settings).history.height > 2


# --- what is refused -------------------------------------------------------------------------------------------------------


def with_first(column, value, count=1):
    rows = text_rows(12).to_dicts()
    for row in rows[:count]:
        row[column] = value
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        (text_rows(12).drop("label"), MissingColumnError, "needs column 'label'"),
        (text_rows(12).drop("row_id"), MissingColumnError, "needs column 'row_id'"),
        (with_first("label", None, 2), LabelError, r"2 of 12 labels are null \(row_id r0, r1\)"),
        (text_rows(12).with_columns(label=pl.lit(-1)), LabelError, r"'label' is Int32 in all 12 rows \(-1; first: row_id r0\)"),
        (text_rows(12).with_columns(label=pl.lit(0.3)), LabelError, "'label' is Float64"),
        (text_rows(12).with_columns(label=pl.lit("False")), LabelError, r"'label' is String in all 12 rows \('False'"),
        (with_first("completion", " \n", 2), DataError, r"2 of 12 rows have an empty completion \(row_id r0, r1\)"),
        (with_first("prompt", ""), DataError, r"1 of 12 rows have an empty prompt \(row_id r0\)"),
        (with_first("completion", None), DataError, r"1 of 12 rows have an empty completion \(row_id r0\)"),
        (text_rows(12).with_columns(label=pl.lit(True)), OneClassError, "all 12 rows are desirable; KTO needs both"),
        (text_rows(12).with_columns(row_id=pl.lit("a")), DataError, "12 of 12 rows have no row_id of their own"),
        (text_rows(12).with_columns(weight=pl.lit(float("nan"))), DataError, "12 of 12 weights are null, negative or not finite"),
        (text_rows(12).with_columns(weight=pl.lit(-1.0)), DataError, "12 of 12 weights"),
        (text_rows(12).with_columns(weight=pl.lit("heavy")), DataError, "'weight' is String"),
        (text_rows(12).with_columns(prompt=pl.lit(7)), FormatError, "must be text, or both|it must be text"),
        (text_rows(12).clear(), EmptyDataError, "there are no rows"),
    ],
)
def test_bad_rows_are_refused_before_a_model_is_read(rows, error, says):
    with pytest.raises(error, match=says):
        fit(rows, model="no/such-model")


def test_empty_assistant_message_is_refused():
    rows = chat_rows(12).with_columns(completion=pl.lit([[{"role": "assistant", "content": ""}]]).list.first())
    with pytest.raises(DataError, match="12 of 12 rows have an empty completion"):
        fit(rows, model="no/such-model")


def test_one_class_left_after_long_prompts_are_skipped(model_folder):
    rows = text_rows(12).with_columns(prompt=pl.when("label").then("prompt").otherwise(pl.lit("one " * 30)))
    with pytest.raises(OneClassError, match="of 12 rows, 8 fit max_length 20, and all of those are desirable"):
        fit(rows, model=model_folder, max_length=20)


def test_skipped_rows_are_listed(model_folder, tmp_path):
    rows = text_rows(12).with_columns(prompt=pl.when(pl.col("row_id") == "r3").then(pl.lit("one " * 30)).otherwise("prompt"))
    fit(rows, model=model_folder, out=tmp_path, max_length=20, **FAST)
    training = json.loads((tmp_path / "training.json").read_text())
    assert training["train"]["skipped_row_ids"] == ["r3"]
    assert training["train"]["skipped_over_long_prompt"] == {"desirable": 0, "undesirable": 1}


def test_rows_longer_than_the_models_context(model_folder):
    rows = text_rows(12).with_columns(completion=pl.col("completion") + pl.lit(" one" * 200))
    with pytest.raises(ModelError, match=r"12 of 12 rows are longer than the model's context of 128 tokens.*row_id r0"):
        fit(rows, model=model_folder)


@pytest.mark.parametrize("log_every_steps", [1, 100])
def test_a_loss_that_is_not_finite_names_step_and_rows(model_folder, monkeypatch, log_every_steps):
    from ktodata.train.objectives import Kto

    plain = Kto.loss

    def broken(self, policy_logps, examples, shift):
        losses = plain(self, policy_logps, examples, shift)
        return torch.where(examples.weight == 7, torch.nan, losses)

    monkeypatch.setattr(Kto, "loss", broken)
    rows = text_rows(12).with_columns(weight=pl.when(pl.col("row_id") == "r3").then(7.0).otherwise(1.0))
    with pytest.raises(ModelError, match=r"step \d: the loss is not finite for 1 of 4 rows \(row_id r3\)"):
        fit(rows, model=model_folder, log_every_steps=log_every_steps, **FAST)


@pytest.mark.parametrize("log_every_steps", [1, 100])
def test_a_gradient_that_is_not_finite_is_seen_although_the_losses_are(model_folder, monkeypatch, log_every_steps):
    from ktodata.train.objectives import Kto

    plain = Kto.loss

    def broken(self, policy_logps, examples, shift):
        losses = plain(self, policy_logps, examples, shift)
        if losses.requires_grad:
            losses.register_hook(lambda gradient: gradient * torch.inf)
        return losses

    monkeypatch.setattr(Kto, "loss", broken)
    with pytest.raises(ModelError, match="step 0: the gradient is not finite"):
        fit(text_rows(12), model=model_folder, log_every_steps=log_every_steps, **FAST)


def test_a_broken_reference_is_seen_before_training(tmp_path, tokenizer):
    model = tiny_llama(len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="the reference model gives 12 of 12 rows a log-prob that is not finite"):
        fit(text_rows(12), model=str(tmp_path), **FAST)


def test_a_tokenizer_of_another_model(tmp_path, tokenizer):
    tiny_llama(5).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="the model has 5 embeddings"):
        fit(text_rows(12), model=str(tmp_path), **FAST)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("batch_size", 1, "batch_size: it should be greater than or equal to 2; got 1"),
        ("learning_rate", 0, "learning_rate"),
        ("schedule", "cosin", "schedule: it should be 'linear', 'constant' or 'cosine'; got 'cosin'"),
        ("lora", {"rank": 8}, "lora.*rank"),
        ("warmup_fraction", 10, "warmup_fraction"),
    ],
)
def test_bad_settings_are_refused_with_their_value(setting, value, says):
    with pytest.raises(SettingError, match=says):
        fit(text_rows(12), model="no/such-model", **{setting: value})


def test_unknown_device(model_folder):
    with pytest.raises(SettingError, match="device 'warp' cannot be used"):
        fit(text_rows(12), model=model_folder, device="warp")


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="cannot read the model"):
        fit(text_rows(12), model=str(tmp_path / "nowhere"))


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(EmptyDataError, match=r"holds no train-\*.parquet"):
        fit(tmp_path, model="no/such-model")


def test_lora_without_peft_says_what_to_install(monkeypatch):
    from ktodata import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(MissingExtraError, match=r"needs peft: pip install 'ktodata\[train\]'"):
        fit(text_rows(12), model="no/such-model", lora={})


def test_importing_the_package_and_its_signature_loads_no_torch():
    code = "import sys, ktodata.train; ktodata.train.fit; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_refusal_is_a_ktodata_error():
    assert issubclass(ModelError, KtodataError)
