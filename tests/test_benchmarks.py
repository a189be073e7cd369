"""The benchmarks that compare trainers: what they draw and count, and that the one for GPUs works before a GPU is at hand."""

import os
import subprocess
import sys
from pathlib import Path

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
    with pytest.raises(ValueError, match="no 15 rows"):
        draw_rows(rows, 15, seed=0)


def test_an_epoch_is_charged_its_share_of_the_reference_pass():
    """600 tokens timed in 20 s: an epoch of 300 takes 10 s. Reference 15 s / 3 epochs = 5 s. 300 / (10 + 5) = 20 tokens/s."""
    from trainer_arms import figures

    assert figures(epoch_tokens=300, timed_tokens=600, seconds=20.0, reference_seconds=15.0)["tokens_per_second"] == 20


def test_the_arms_take_turns_and_are_compared_within_a_repeat():
    from trainer_speed import ratios, turns

    assert list(turns(["a", "b"], 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    speeds = {"trl_tuned": [10, 20, 10], "ktodata": [20, 30, 30]}
    runs = [
        {"repeat": repeat, "arm": arm, "tokens_per_second": speed, "peak_mb": 1}
        for arm, each in speeds.items()
        for repeat, speed in enumerate(each)
    ]
    assert ratios(runs, "trl_tuned")["tokens_per_second"] == {"each": [2, 1.5, 3], "median": 2}


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


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_at_a_tiny_size():
    command = [sys.executable, str(BENCHMARKS / "trainer_gpu.py"), "--smoke"]
    told = subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    for arm in ("trl_default", "trl_tuned", "ktodata"):
        assert f"  {arm}: {{'tokens_per_second'" in told.stdout


def test_an_arm_without_its_library_says_so(tmp_path, monkeypatch):
    import trainer_arms

    (tmp_path / "trl.py").write_text("raise ModuleNotFoundError(\"No module named 'trl'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rows = [a_row("a ", "b")]
    told = trainer_arms.run_job(trainer_arms.Job("trl_tuned", "none", rows, rows, max_length=8, batch_size=8, micro_batch=8))
    assert told == {"arm": "trl_tuned", "cannot_run": "No module named 'trl'"}
    assert trainer_arms.best_micro_batch(trainer_arms.Job("trl_tuned", "none", rows, rows, 8, 8, 8), [4]) == (4, {})


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
