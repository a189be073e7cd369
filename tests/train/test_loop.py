"""A step of the loop beside the same step spelt out on single rows, and what the loop asks of the model."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tiny_models import (
    VOCABULARY,
    assert_same_gradients,
    gradients,
    job_of,
    keep_gradients,
    moved,
    one_by_one,
    random_rows,
    scorer_of,
    tiny_llama,
)

from ktodata.errors import ModelError
from ktodata.train import loop
from ktodata.train.data.batches import plan_training
from ktodata.train.loop import train, train_step
from ktodata.train.model.adapters import with_adapters
from ktodata.train.model.attention import NAME
from ktodata.train.model.frozen_layers import freeze_below
from ktodata.train.model.gradient_checkpointing import checkpoint_layers
from ktodata.train.objectives import ApoZero, Bco, Kto, KtoHoelder, KtoHybrid
from ktodata.train.results.step_metrics import StepMetrics

WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.7}


def rows_of(count=10, prompts=4):
    rows = random_rows(count, prompts=prompts)
    random = np.random.default_rng(1)
    return dataclasses.replace(rows, weight=random.uniform(0.5, 2, count), p_desirable=random.uniform(0, 1, count))


def plan_of(rows, batch_size=10, epochs=1, **settings):
    return plan_training(rows, batch_size=batch_size, epochs=epochs, max_steps=None, seed=0, **settings)


def moved_job(
    objective=None,
    *,
    layers=2,
    trainable_layers=None,
    gradient_checkpointing=False,
    method=None,
    kl_pairs_per_batch=None,
    prompts=4,
    **settings,
):
    """A job of one step on 10 rows, whose policy has left its reference."""
    rows, model = rows_of(prompts=prompts), tiny_llama(VOCABULARY, layers=layers)
    frozen = freeze_below(model, trainable_layers) if trainable_layers else 0
    if gradient_checkpointing:
        checkpoint_layers(model)
    scorer = scorer_of(model, rows, frozen_layers=frozen, activation_cache_mb=10)
    scorer.method = method or scorer.method
    job = job_of(
        scorer, plan_of(rows, kl_pairs_per_batch=kl_pairs_per_batch), objective=objective or Kto(0.3, **WEIGHTS), **settings
    )
    if frozen:
        for parameter in (p for p in model.parameters() if p.requires_grad):
            with torch.no_grad():
                parameter.mul_(1.1)
    else:
        moved(model)
    return job


def spelt_out(job):
    """(losses [10], z0, unclamped z0, gradients) of the job's step: single rows, one backward pass."""
    scorer, (step,) = job.scorer, job.plan.steps
    crossed = list(step.mismatched().values())
    with torch.no_grad():
        unclamped = (one_by_one(scorer.model, scorer.rows, crossed) - job.reference(crossed)).mean()
    examples = StepMetrics(scorer, job.reference, step).examples
    losses = job.objective.loss(one_by_one(scorer.model, scorer.rows, step.matched()), examples, unclamped.clamp(min=0))
    losses.mean().backward()
    expected_gradients = gradients(scorer.model)
    scorer.model.zero_grad()
    return losses.detach(), unclamped.clamp(min=0), unclamped, expected_gradients


def assert_step_as_spelt_out(job):
    losses, z0, unclamped, expected = spelt_out(job)
    recorded = keep_gradients(job)
    metrics = train_step(job, job.plan.steps[0])
    torch.testing.assert_close(metrics.losses, losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metrics.point.value, z0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(metrics.point.unclamped, unclamped, rtol=1e-5, atol=1e-5)
    assert_same_gradients(recorded[0], expected, relative=1e-5)
    norm = sum(gradient.square().sum() for gradient in expected.values()).sqrt()
    torch.testing.assert_close(metrics.grad_norm, norm, rtol=1e-5, atol=0)


CUTS = pytest.mark.parametrize(
    "cut",
    [
        {"micro_batch_size": 1},
        {"micro_batch_size": 3},
        {"micro_batch_tokens": 1},
        {"micro_batch_tokens": 40},
        {"micro_batch_tokens": 10_000},
    ],
    ids=lambda cut: "_".join(map(str, *cut.items())),
)
JOINED = pytest.mark.parametrize("joined", [True, False], ids=["prompts_joined", "prompts_apart"])


def joined_or_not(monkeypatch, joined):
    """Apart is what a training does whose adapters have dropout."""
    if not joined:
        monkeypatch.setattr(loop, "dropout_of_adapters", lambda model: nullcontext())


@CUTS
@JOINED
@pytest.mark.parametrize("method", ["packed", "padded", "logits"])
def test_any_cut_into_micro_batches_gives_the_step_spelt_out(cut, joined, method, monkeypatch):
    joined_or_not(monkeypatch, joined)
    assert_step_as_spelt_out(moved_job(method=method, **cut))


@CUTS
@JOINED
def test_z0_of_a_sample_is_that_of_those_pairs_alone(cut, joined, monkeypatch):
    """With 3 of 10 pairs looked at, most micro-batches of one row have none."""
    joined_or_not(monkeypatch, joined)
    job = moved_job(kl_pairs_per_batch=3, **cut)
    assert len(job.plan.steps[0].compared) == 3
    assert_step_as_spelt_out(job)


@CUTS
@pytest.mark.parametrize("activation_cache_mb", [0, 0.001, 10])
def test_the_step_under_frozen_layers(cut, activation_cache_mb):
    job = moved_job(layers=4, trainable_layers=2, **cut)
    job.scorer.cache_bytes = int(activation_cache_mb * 1e6)
    (step,) = job.plan.steps
    job.scorer.cache_activations([*step.matched(), *step.mismatched().values()])
    assert_step_as_spelt_out(job)


@CUTS
@pytest.mark.parametrize("method", ["packed", "padded"])
def test_the_step_with_activations_computed_again(cut, method):
    assert_step_as_spelt_out(moved_job(gradient_checkpointing=True, method=method, **cut))


@pytest.mark.parametrize(
    "objective", [Kto(0.3, soft_labels=True), KtoHoelder(0.3), Kto(0.3, **WEIGHTS)], ids=["soft", "hoelder", "kto"]
)
def test_every_objective_of_mismatched_pairs_goes_through_the_same_step(objective):
    assert_step_as_spelt_out(moved_job(objective, micro_batch_size=4))


@CUTS
@JOINED
@pytest.mark.parametrize("soft_labels", [False, True], ids=["labels", "soft"])
def test_siblings_in_different_micro_batches_are_set_against_each_other_all_the_same(cut, joined, soft_labels, monkeypatch):
    joined_or_not(monkeypatch, joined)
    """Of 7 prompts, in turn for 10 rows of alternating labels, 3 have both labels and 4 a single row."""
    assert_step_as_spelt_out(moved_job(KtoHybrid(0.3, **WEIGHTS, soft_labels=soft_labels), prompts=7, **cut))


# --- what the model is asked -----------------------------------------------------------------------------------------------


def requested_tokens(job):
    """Tokens of the pairs that go through the model in the job's step."""
    job.scorer.take_work()
    train_step(job, job.plan.steps[0])
    return job.scorer.take_work()["requested_tokens"]


@pytest.mark.parametrize("objective", [ApoZero(0.3), Bco(0.3)], ids=["apo_zero", "bco"])
def test_without_mismatched_pairs_in_the_loss_none_is_computed(objective):
    job = moved_job(objective, micro_batch_size=4)
    (step,) = job.plan.steps
    own = sum(job.scorer.length(pair) for pair in step.matched())
    assert requested_tokens(job) == own
    crossed = sum(job.scorer.length(pair) for pair in step.mismatched().values())
    assert requested_tokens(moved_job(Kto(0.3), micro_batch_size=4)) == own + crossed


def test_of_sampled_pairs_only_those_are_computed():
    job = moved_job(kl_pairs_per_batch=3, micro_batch_size=4)
    (step,) = job.plan.steps
    expected = sum(map(job.scorer.length, [*step.matched(), *step.mismatched().values()]))
    assert requested_tokens(job) == expected


def test_joined_prompts_are_computed_once_for_both_passes():
    """All in one micro-batch: prompts once, own completions, partners' completions."""
    job = moved_job()
    (step,) = job.plan.steps
    train_step(job, step)
    rows, sequences = job.scorer.rows, job.scorer.sequences
    prompts = sum(len(rows.prompt[row]) for row in range(4))
    crossed = {sequences.of(pair) for pair in step.mismatched().values()}
    completions = sum(map(len, rows.completion)) + sum(len(sequences.completion(sequence)) for sequence in crossed)
    job.scorer.take_work()
    train_step(job, step)
    assert job.scorer.take_work()["computed_tokens"] == prompts + completions


# --- the running mean ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [{}, {"micro_batch_size": 3}], ids=["whole", "cut"])
def test_bco_compares_with_the_mean_reward_of_the_steps_before(cut):
    rows = rows_of(12)
    scorer = scorer_of(tiny_llama(VOCABULARY), rows)
    job = job_of(scorer, plan_of(rows, batch_size=4, epochs=2), objective=Bco(0.3), log_every_steps=5, **cut)
    train(job)
    rewards = [0.3 * table["log_ratio"].to_numpy().astype(float) for table in job.state.telemetry]
    shifts = [0.0, *(np.concatenate(rewards[:number]).mean() / 0.3 for number in range(1, 6))]
    assert [line["z0"] for line in job.state.history] == pytest.approx(shifts, rel=1e-4, abs=1e-5)
    assert abs(shifts[-1]) > 0.01


# --- the loop --------------------------------------------------------------------------------------------------------------


def test_numbers_read_seldom_are_the_same_numbers():
    histories = []
    for every in (1, 4, 100):
        rows, events = rows_of(12), []
        scorer = scorer_of(tiny_llama(VOCABULARY), rows)
        job = job_of(scorer, plan_of(rows, batch_size=4, epochs=3), log_every_steps=every, report=events.append)
        train(job)
        histories.append((job.state.history, [table.to_dicts() for table in job.state.telemetry]))
        assert [event["step"] for event in events] == list(range(1, 10))
    assert histories[0] == histories[1] == histories[2]


def test_the_model_is_as_it_was_but_for_its_weights():
    job = moved_job()
    model = job.scorer.model
    before, modes = model.config._attn_implementation, [part.training for part in model.modules()]
    train(job)
    assert before != NAME
    assert model.config._attn_implementation == before
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_adapters_dropout_is_on_in_a_step_and_off_outside():
    rows = rows_of()
    model, _ = with_adapters(tiny_llama(VOCABULARY), {"r": 2, "dropout": 0.5}, None)
    scorer = scorer_of(model.eval(), rows)
    job = job_of(scorer, plan_of(rows))
    pairs = job.plan.steps[0].matched()
    modes = []
    for name, part in model.named_modules():
        if "lora_dropout" in name:
            part.register_forward_hook(lambda part, *_: modes.append(part.training))
    train_step(job, job.plan.steps[0])
    assert all(modes)
    modes.clear()
    scorer.without_gradient(pairs)
    assert not any(modes)
    assert not any(part.training for part in model.modules())


def test_a_long_gradient_is_shortened_and_told_at_its_own_length():
    free, held = moved_job(), moved_job(max_grad_norm=0.01)
    recorded = keep_gradients(held)
    norms = [train_step(job, job.plan.steps[0]).grad_norm for job in (free, held)]
    assert norms[0] > 0.01
    assert torch.equal(*norms)
    assert sum(gradient.square().sum() for gradient in recorded[0].values()).sqrt().item() == pytest.approx(0.01, rel=1e-4)


def test_a_model_without_a_backward_pass_is_refused_in_its_own_words_and_memory_is_no_such_reason():
    model = tiny_llama(VOCABULARY)
    scorer = scorer_of(model, random_rows())
    for error, expected in (
        (RuntimeError("modified by an inplace operation"), ModelError),
        (RuntimeError("CUDA out of memory"), RuntimeError),
    ):

        def fail(gradient, error=error):
            raise error

        loss = scorer([(0, 0)]).sum()
        loss.register_hook(fail)
        with pytest.raises(expected, match=str(error)) as raised:
            loop.backward(scorer, loss)
        assert raised.type is expected
