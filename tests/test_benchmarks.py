"""The benchmarks that compare trainers: what they draw and count, and that the one for GPUs works before a GPU is at hand."""

import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def a_row(prompt, completion, label=True):
    return {"prompt": prompt, "completion": completion, "label": label}


def test_prompts_are_drawn_with_all_their_rows():
    from trainer_arms import draw_rows

    rows = [a_row(f"p{number // 4}", str(number)) for number in range(40)]
    drawn = draw_rows(rows, 16, seed=0)
    assert len({row["completion"] for row in drawn}) == 16
    assert len({row["prompt"] for row in drawn}) == 4
    assert [row["prompt"] for row in drawn] != sorted(row["prompt"] for row in drawn)
    assert drawn == draw_rows(rows, 16, seed=0) != draw_rows(rows, 16, seed=1)
    assert {row["prompt"] for row in draw_rows([*rows, a_row("p9", " ")], 36, seed=0)} == {f"p{number}" for number in range(9)}
    with pytest.raises(ValueError, match="no 15 rows"):
        draw_rows(rows, 15, seed=0)


def test_an_epoch_is_charged_its_share_of_the_reference_pass():
    """600 tokens timed in 20 s: an epoch of 300 takes 10 s. Reference 15 s / 3 epochs = 5 s. 300 / (10 + 5) = 20 tokens/s.

    Of the processor twice as many seconds.
    """
    from trainer_arms import figures

    seen = figures(
        epoch_tokens=300, timed_tokens=600, seconds=np.array([20.0, 40.0]), reference_seconds=np.array([15.0, 30.0]), peak_mb=1
    )
    assert seen == {
        **{"tokens_per_second": 20, "epoch_seconds": 10, "reference_seconds": 15},
        **{"tokens_per_cpu_second": 10, "epoch_cpu_seconds": 20, "reference_cpu_seconds": 30},
        **{"epoch_tokens": 300, "peak_mb": 1},
    }


def a_run(repeat, arm, speed, **more):
    """Figures of a training with 3 passes of the decoder and 1 of the head a token."""
    passes = {"passes_per_token": 3.0, "head_passes_per_token": 1.0, "padding_ratio": 1.0, "peak_mb": 1.0, "product_flops": 1e9}
    seconds = {"epoch_cpu_seconds": 1.0, "reference_cpu_seconds": 1.0}
    return {"repeat": repeat, "arm": arm, "tokens_per_second": speed, "tokens_per_cpu_second": speed, **passes, **seconds, **more}


def test_the_arms_take_turns_and_are_compared_within_a_repeat():
    from trainer_speed import ratios, turns

    assert list(turns(["a", "b"], 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    speeds = {"trl_tuned": [10, 20, 10], "ktodata": [20, 30, 30]}
    runs = [a_run(repeat, arm, speed, gflops_per_token=1) for arm, each in speeds.items() for repeat, speed in enumerate(each)]
    assert ratios(runs, "trl_tuned")["tokens_per_cpu_second"] == {"each": [2, 1.5, 3], "median": 2}


def test_what_the_arithmetic_allows_by_hand():
    """A decoder of 10 M weights, a head of 5 M: 2 x (10 x 3 + 5 x 1) = 70 MFLOP a token, at 4 tokens/s 0.28 of 1 GFLOP/s.

    At the peak ktodata's 2 x (10 x 2 + 5 x 1) = 50 MFLOP would be 20 tokens/s, five times the other's 4.
    """
    from trainer_speed import compared

    runs = [a_run(0, "trl_patched", 4.0), a_run(0, "ktodata", 5.0, passes_per_token=2.0)]
    seen = compared(runs, ["trl_patched", "ktodata"], (10_000_000, 5_000_000))
    assert seen["medians"]["trl_patched"]["gflops_per_token"] == pytest.approx(0.07)
    assert seen["medians"]["trl_patched"]["share_of_peak"] == pytest.approx(0.28)
    assert seen["even_at_peak"] == {"trl_patched": pytest.approx(5)}
    assert seen["ktodata_over"]["trl_patched"]["gflops_per_token"]["median"] == pytest.approx(5 / 7)


def test_gradients_alone_by_hand():
    """Prompts of 4 (twice) and 2 tokens, completions of 1, 2, 3: 3 passes over 6 + 6 of 16 tokens, 3 of the head over 6."""
    from trainer_counts import gradients_alone

    rows = [a_row("a", "x"), a_row("a", "y"), a_row("b", "z")]
    least = gradients_alone(np.array([[4, 1], [4, 2], [2, 3]]), rows, 3)
    assert least == {"passes_per_token": 36 / 16, "head_passes_per_token": 18 / 16, "padding_ratio": 1.0}


def test_a_training_is_kept_and_none_is_begun_after_the_time(tmp_path, monkeypatch):
    import time

    import trainer_speed
    from trainer_arms import Job

    done = []
    monkeypatch.setattr(trainer_speed, "run_job", lambda job: done.append(job) or a_run(0, job.arm, 1.0))
    kept = trainer_speed.KeptRuns(tmp_path / "kept", time.monotonic() + 60)
    job = Job("ktodata", "a folder", [a_row("a ", "b")], [], max_length=8, batch_size=8, micro_batch=8)
    first = kept.figures("hh", 0, job)
    assert kept.figures("hh", 0, replace(job, model="the same, written anew")) == first and len(done) == 1
    for other in (replace(job, micro_batch=4), replace(job, rows=[a_row("a ", "c")]), replace(job, arm="trl_tuned")):
        kept.figures("hh", 0, other)
    kept.figures("tulu", 0, job)
    assert len(done) == 5
    late = replace(kept, ends=time.monotonic() - 1, begun=0)
    assert late.figures("hh", 0, job) == first
    late.figures("hh", 1, job)  # a call of the benchmark makes one at least
    with pytest.raises(trainer_speed.OutOfTime):
        late.figures("hh", 1, replace(job, lora_rank=4))
    monkeypatch.setattr(trainer_speed, "run_job", lambda job: {"cannot_run": "out of memory"})
    with pytest.raises(RuntimeError, match="out of memory"):
        kept.figures("hh", 2, job)


def test_larger_micro_batches_are_tried_as_long_as_they_are_faster():
    from trainer_arms import best_micro_batch

    def sweep(speeds):
        return best_micro_batch(
            lambda size: {"speed": speeds[size]} if size in speeds else {"cannot_run": "no"}, [8, 2, 4], "speed"
        )

    assert sweep({2: 5.0, 4: 6.0, 8: 7.0}) == (8, {"2": 5.0, "4": 6.0, "8": 7.0})
    assert sweep({2: 5.0, 4: 4.0, 8: 7.0}) == (2, {"2": 5.0, "4": 4.0})
    assert sweep({2: 5.0}) == (2, {"2": 5.0, "4": None})
    assert sweep({}) == (2, {"2": None})


def test_cases_have_the_rows_that_they_name():
    from trainer_speed import lengthened, some_of_each_prompt

    rows = [a_row(f"p{number // 3}", "yes " * (number + 1), label=number % 3 == 0) for number in range(6)]
    some = some_of_each_prompt(rows, 2)
    assert [row["completion"] for row in some] == ["yes " * count for count in (1, 2, 6, 4)]
    assert {row["label"] for row in some_of_each_prompt(rows, 1)} == {True, False}

    def tokenizer(text):
        return {"input_ids": text.split()}

    longer = lengthened(rows, 8, tokenizer)
    assert [row["prompt"] for row in longer] == [row["prompt"] for row in rows]
    assert all(8 <= len(row["completion"].split()) < 8 + 6 for row in longer)
    assert all(long["completion"].startswith(row["completion"]) for long, row in zip(longer, rows, strict=True))


def test_flops_by_hand():
    """width 4, 2 heads of 2, 1 of keys: attention 2 x 16 + 2 x 4 x 2 = 48, inner 3 x 4 x 8 = 96, so 144 parameters in a layer.

    Two rows of 2 + 2 and 1 + 3 tokens, 3 layers, vocabulary 10: attention 6 x 3 x 4 x (16 + 16) = 2304,
    head 6 x 4 x 10 x 5 = 1200; over 8 tokens, + 6 x 432: 2592 + 438 = 3030.
    """
    from trainer_gpu import Shape, flops_per_token

    shape = Shape("llama", layers=3, width=4, heads=2, key_value_heads=1, inner=8, vocabulary=10, tied=True)
    assert flops_per_token(shape, np.array([[2, 2], [1, 3]])) == 3030


def test_made_up_rows_have_the_lengths_asked_for(tmp_path):
    from trainer_arms import token_lengths
    from trainer_gpu import SHAPES, drawn_lengths, made_up, write_model
    from transformers import AutoTokenizer

    write_model(SHAPES["smoke"], tmp_path)
    drawn = drawn_lengths("hh_harmless", None, 8, 200, seed=0)
    rows = made_up(drawn, SHAPES["smoke"].vocabulary, seed=0)
    assert len({row["prompt"] for row in rows}) == 4
    assert sum(row["label"] for row in rows) == 4
    found = token_lengths(rows, AutoTokenizer.from_pretrained(tmp_path), 10_000)
    # a completion is its text and the end token: two at least
    assert found.tolist() == [[prompt, max(2, completion)] for _, prompt, completion, _ in drawn]


def test_a_trainer_that_learns_more_is_seen_in_the_paired_difference():
    from trainer_quality import compare

    random = np.random.default_rng(0)
    label = random.random(200) < 0.7
    held_out = pl.DataFrame({"label": label, "twins": [f"t{number // 4}" for number in range(200)]})
    lines = [
        {"seed": seed, "arm": arm, "training_seconds": 1.0, "rewards": (strength * label + random.normal(size=200)).tolist()}
        for seed in range(3)
        for arm, strength in (("trl", 0.0), ("ktodata", 2.0))
    ]
    told = compare(lines, held_out)["difference"]["trl"]
    assert told["mean"] == pytest.approx(0.42, abs=0.08)  # 0.92 of two normals two deviations apart, less chance
    assert told["interval_over_seeds"]["low"] > 0.2
    assert told["interval_over_prompts"]["low"] > 0.2


@pytest.mark.shared
def test_a_prompt_and_its_twin_are_on_one_side(shared):
    from trainer_quality import read_sides

    train, held_out = read_sides(shared)
    assert not set(train["twins"]) & set(held_out["twins"])
    assert not set(train["prompt"]) & set(held_out["prompt"])
    assert train.height + held_out.height == 1343
    assert held_out.height / 1343 == pytest.approx(0.3, abs=0.03)
    # ten kinds of safe prompts in eight families, fifteen places in each
    assert train["twins"].n_unique() + held_out["twins"].n_unique() == 8 * 15


def test_the_patched_peer_trains_the_same_way_as_trl_does(tmp_path, monkeypatch):
    """trl_patched leaves out work on prompt and padding tokens, and nothing else."""
    trl = pytest.importorskip("trl")
    import torch
    from datasets import Dataset
    from trainer_arms import Job, trl_config
    from trainer_gpu import SHAPES, drawn_lengths, made_up, write_model

    write_model(SHAPES["smoke"], tmp_path)
    rows = made_up(drawn_lengths("hh_harmless", None, 8, 40, seed=0), SHAPES["smoke"].vocabulary, seed=0)
    job = Job("trl_patched", str(tmp_path), rows, [], max_length=64, batch_size=8, micro_batch=8)
    trainer = trl.KTOTrainer(job.model, args=trl_config(job, str(tmp_path / "out")), train_dataset=Dataset.from_list(rows))
    batch = next(iter(trainer.get_train_dataloader()))

    def loss_and_gradient():
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        return loss.detach(), trainer.model.lm_head.weight.grad.clone()

    expected = loss_and_gradient()
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", lambda device: True)
    torch.testing.assert_close(loss_and_gradient(), expected)


def product_counter():
    """Of FLOPs, those of products that are added where they stand included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, addmm_flop

    addmm_flop._get_raw = True  # it takes shapes already
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_flop})


def products(counter):
    """FLOPs of matrix products that torch counted; attention's kernels are other operations."""
    seen = counter.get_flop_counts()["Global"]
    return sum(flops for operation, flops in seen.items() if str(operation) in ("aten.mm", "aten.addmm", "aten.addmm_"))


@pytest.fixture
def smoke_model(tmp_path):
    from trainer_gpu import SHAPES, write_model

    write_model(SHAPES["smoke"], tmp_path)
    return str(tmp_path)


def counted_job(arm, model):
    from trainer_arms import Job
    from trainer_gpu import drawn_lengths, made_up

    rows = made_up(drawn_lengths("hh_harmless", None, 8, 40, seed=0), 64, seed=0)
    return Job(arm, model, rows, rows, max_length=64, batch_size=8, micro_batch=4)


@pytest.mark.parametrize("arm", ["trl_tuned", "trl_patched"])
def test_the_passes_of_the_peer_are_those_that_torch_counts(arm, smoke_model, tmp_path, monkeypatch):
    trl = pytest.importorskip("trl")
    import trainer_arms
    from datasets import Dataset
    from trainer_speed import parameters

    job = counted_job(arm, smoke_model)
    monkeypatch.setattr(trainer_arms, "EPOCHS", 1)
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", lambda device: arm == "trl_patched")
    config = trainer_arms.trl_config(job, str(tmp_path / "out"), **trainer_arms.TRL_ARMS[arm])
    with product_counter() as counter:
        trainer = trl.KTOTrainer(model=smoke_model, args=config, train_dataset=Dataset.from_list(job.rows))
        batches = list(trainer.get_train_dataloader())
        for batch in batches:
            trainer.compute_loss(trainer.model, batch).backward()
    of_decoder, of_head, *_ = trainer_arms.trl_passes(batches, job)
    decoder, head = parameters(smoke_model)
    assert products(counter) == pytest.approx(2 * (decoder * of_decoder + head * of_head), rel=0.01)


def test_the_passes_of_ktodata_are_those_that_torch_counts(smoke_model, monkeypatch, tmp_path):
    from importlib import import_module

    import trainer_arms
    from trainer_speed import parameters

    training, loop = import_module("ktodata.train.run_training"), import_module("ktodata.train.loop")
    counters = []

    def counted(compute):
        def computed(*arguments, **named):
            with product_counter() as counter:
                made = compute(*arguments, **named)
            counters.append(counter)
            return made

        return computed

    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "reference_logps", counted(training.reference_logps))
    monkeypatch.setattr(loop, "train_step", counted(loop.train_step))
    job = counted_job("ktodata", smoke_model)
    seen = trainer_arms.train_with_ktodata(replace(job, threads=1))
    decoder, head = parameters(smoke_model)
    expected = 2 * trainer_arms.EPOCHS * seen["epoch_tokens"]
    expected *= decoder * seen["passes_per_token"] + head * seen["head_passes_per_token"]
    assert len(counters) == 1 + trainer_arms.EPOCHS
    assert sum(map(products, counters)) == pytest.approx(expected, rel=0.01)


def test_the_gpu_benchmark_runs_on_a_cpu_at_a_tiny_size(monkeypatch, capsys):
    pytest.importorskip("trl")
    import trainer_gpu

    monkeypatch.setattr(sys, "argv", ["trainer_gpu.py", "--smoke"])
    trainer_gpu.main()
    told = capsys.readouterr().out
    for arm in ("trl_default", "trl_tuned", "trl_patched", "ktodata"):
        assert f"  {arm}: {{'tokens_per_second'" in told


def test_an_arm_without_its_library_says_so(tmp_path, monkeypatch):
    import trainer_arms

    (tmp_path / "trl.py").write_text("raise ModuleNotFoundError(\"No module named 'trl'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rows = [a_row("a ", "b")]
    told = trainer_arms.run_job(trainer_arms.Job("trl_tuned", "none", rows, rows, max_length=8, batch_size=8, micro_batch=8))
    assert told == {"arm": "trl_tuned", "cannot_run": "No module named 'trl'"}


def noisy(rows=400, seed=11):
    """A table as label_noise's benchmark has it: truth, label, prompt_group, embeddings that show the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.6
    vectors = rng.standard_normal((rows, 8)).astype(np.float32)
    vectors[:, 0] += np.where(truth, 2, -2)
    embedding = pl.Series(vectors, dtype=pl.Array(pl.Float32, 8))
    table = pl.DataFrame(
        {"row_id": [f"r{n}" for n in range(rows)], "prompt": [f"p{n // 2}" for n in range(rows)], "truth": truth}
    )
    return table.with_columns(label="truth", prompt_group="prompt", prompt_embedding=embedding, completion_embedding=embedding)


@pytest.mark.parametrize("kind", ["uniform", "class-conditional", "instance-dependent"])
def test_flips_are_as_many_as_said_and_where_said(kind):
    from label_noise import flipped

    table = flipped(noisy(4000), 0.2, kind)
    wrong = (table["label"] != table["truth"]).to_numpy()
    assert wrong.mean() == pytest.approx(0.2, abs=0.02)
    of_desirable, of_undesirable = (wrong[(table["truth"] == side).to_numpy()].mean() for side in (True, False))
    if kind == "class-conditional":
        assert of_desirable / of_undesirable == pytest.approx(3, rel=0.3)
    else:
        assert of_desirable == pytest.approx(of_undesirable, abs=0.06)
    unsure = np.abs(table["prompt_embedding"].to_numpy()[:, 0]) < 0.5
    more_where_unsure = wrong[unsure].mean() / wrong[~unsure].mean()
    assert more_where_unsure > 2 if kind == "instance-dependent" else more_where_unsure == pytest.approx(1, abs=0.4)


def test_a_ranking_by_class_scores_a_half_and_the_truth_one():
    from label_noise import by_class, flipped, scored

    table, everything = flipped(noisy(), 0.2, "uniform"), np.ones(400, bool)
    told = scored(table, by_class(table), everything)
    assert told["average"] == told["desirable"] == told["undesirable"] == 0.5
    perfect = (table["label"] == table["truth"]).to_numpy().astype(float)
    told = scored(table, perfect, everything)
    assert told["average"] == told["low"] == told["average_precision"] == told["p_auc"] == 1


def test_reviewed_rows_are_a_twentieth_and_hold_the_truth():
    from label_noise import flipped, with_reviews

    table = with_reviews(flipped(noisy(), 0.2, "uniform"), seed=1)
    reviewed = table.drop_nulls("trusted_label")
    assert reviewed.height == 20 and (reviewed["trusted_label"] == reviewed["truth"]).all()
    assert not with_reviews(table.drop("trusted_label"), seed=2)["trusted_label"].equals(table["trusted_label"])


@pytest.mark.parametrize("kind", ["rows that fool all", "an adversarial majority", "a topic that raters favour"])
def test_what_acts_on_drawn_label_sources_is_right(kind):
    """A small part of beliefs.py: labels that may be turned are wrong, soft labels are not surer than right."""
    from beliefs import simulated, summary

    found = summary(simulated(kind, range(4)))
    assert found["rightly"] >= 0.8 * found["turned"]
    assert found["draws over 0.03 surer"] <= 1


def test_rows_after_the_queue_by_hand():
    """Six rows nobody reviewed and one that was: what is left, with nothing turned, and with every likelier label taken."""
    from label_noise import _after_queue

    p = np.array([0.9, 0.6, 0.2, 0.7, 0.1, 0.3, 0.5])
    wrong, labels = np.array([1, 0, 1, 1, 0, 0, 1], bool), np.array([1, 1, 1, 0, 0, 0, 1], bool)
    reviewed = np.arange(7) == 6
    fitted = SimpleNamespace(p_wrong=p, turned=np.arange(7) == 0, least_sure=np.where(p > 0.8, p, 0.0))
    found = _after_queue(fitted, reviewed, labels, wrong)
    assert (found["caught"], found["left"], found["left_after_turning"], found["turned"], found["turned_rightly"]) == (
        1,
        3,
        2,
        1,
        1,
    )
    assert (found["likelier_wrong"], found["left_if_all_took_the_likelier"]) == (3, 2)
    assert found["wrong_of_those"] == pytest.approx(2 / 3) and found["expected_wrong_of_those"] == pytest.approx(2.2 / 3)
    assert found["auroc"] == pytest.approx((1 / 2 + 1) / 2) and found["soft_error_left"] == pytest.approx(0.01 + 2)


def test_the_queue_is_measured_on_rows_that_nobody_reviewed(monkeypatch):
    import label_noise
    from label_noise import flipped, measure_queue

    quick = partial(label_noise.kd.label_noise, noise_injection=0, repeats=1)
    monkeypatch.setattr(label_noise.kd, "label_noise", quick)
    vote = pl.struct(pl.lit(None, pl.String).alias("rater"), "label", created_at=pl.lit(None, pl.Datetime("us", "UTC")))
    table = flipped(noisy(820), 0.2, "uniform").with_columns(completion="prompt")
    found = measure_queue(table.with_columns(votes=pl.concat_list(vote)), 1)
    assert found["wrong"] == found["caught"] + found["left"] > 100 and found["draws"] == 1
    assert found["auroc"] > 0.9 and found["left_after_turning"] <= found["left"]
    assert found["turned_rightly"] <= found["turned"] and found["draws_that_turn"] <= 1


def test_drift_is_named_by_either_test_and_nothing_is_where_nothing_was_planted():
    from drift_power import TABLES, drawn, measured, plain, searched

    assert searched(drawn(0, strict=1.5)) == plain(drawn(0, strict=1.5)) & {("source", "s2")} == {("source", "s2")}
    found = measured(searched, "a source 1.2 stricter", 2)
    assert found["all planted named"] == 1 and found["others named"] == 0
    assert "all planted named" not in measured(plain, "nothing", 1)
    shuffled = TABLES["shuffled"][0](3)
    assert not searched(shuffled) and shuffled["label"].n_unique() == 2


def test_peers_of_votes_by_hand():
    """Three voters, of whom two are right; a tie is desirable. What turns a label is counted against the truth."""
    from votes_peers import crowdlab, figures, majority, snorkel

    cells = np.array([[1, 1, -1], [-1, -1, 1], [1, -1, 0], [0, 0, 0]])
    p = majority(cells, None)
    assert (p > 0.5).tolist() == [True, False, True, True] and p[0] == pytest.approx(3 / 5, abs=1e-5)
    found = figures(p, np.array([True, False, False, True]), np.array([False, False, True, True]))
    assert (found["accuracy"], found["turned"], found["rightly"], found["auroc"]) == (0.75, 1, 1, None)
    with pytest.raises(ValueError, match="no texts"):
        crowdlab(cells, None)
    pytest.importorskip("snorkel")
    with pytest.raises(ValueError, match="three voters"):
        snorkel(cells[:, :2], None)


def test_a_forecast_agrees_with_what_came_of_it():
    from forecast import agreement, pulls

    table = pl.DataFrame({"forecast": [0.1, 0.2, -0.1, 0.3], "kto": [0.0, 0.1, -0.2, 0.2], "linear": [None, None, 0.1, 0.1]})
    found = agreement(table, "kto")
    assert (found["cells"], found["sign_right"], found["realised_above_zero"]) == (4, 3, 2)
    assert found["rank_correlation"] == pytest.approx(1) and agreement(table, "linear") == {"cells": 2}
    chances = SimpleNamespace(p_wrong_low=np.array([0.9, 0.4, 0.1, 0.9]), least_sure=np.array([0.8, 0.4, 0.1, 0.9]))
    each = pulls(np.array([True, True, False, True]), np.arange(4) == 3, chances)
    assert each["relabel"].tolist() == [-1, 1, -1, 1] and each["drop"].tolist() == [0, 0, -1, 1]
    assert each["drop_and_relabel"].tolist() == [-1, 0, -1, 1] and each["soften"] == pytest.approx([-0.6, 0.2, -0.8, 1])


def test_every_benchmark_can_be_run_as_make_bench_runs_it():
    """What a script must be given is the data or nothing; the others are named as apart."""
    from run_all import scripts

    arguments = re.compile(r'add_argument\("([^"]+)"([^\n]*)')
    needs = {}
    for path, given in scripts():
        required = [name for name, rest in arguments.findall(path.read_text()) if "required=True" in rest or (name[0] != "-" and "nargs" not in rest)]  # fmt: skip
        needs[path.name] = [name for name in required if not (given and name in ("data", "folder"))]
    assert len(needs) > 30 and {name: of for name, of in needs.items() if of} == {}


def test_the_normal_test_of_one_stratum_is_wilsons_and_a_cut_leaves_least_variance():
    from error_rates import cut, score
    from scipy.stats import binomtest

    ends = score(*(np.array([[value]]) for value in (3.0, 40.0, 1e12)))
    wilson = binomtest(3, 40).proportion_ci(method="wilson")
    assert [float(end[0]) for end in ends] == pytest.approx([wilson.low, wilson.high], abs=1e-6)
    assert cut(np.array([0.8, 0.1, 0.2, 0.9, 0.1]), 2).tolist() == [1, 0, 0, 1, 0]
