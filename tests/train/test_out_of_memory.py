"""Where memory runs out an update is cut into smaller passes, and stays the same; memory is simulated by a limit on a pass's tokens."""

import warnings

import pytest
import torch
from tiny_models import (
    VOCABULARY,
    assert_same_gradients,
    job_of,
    keep_gradients,
    moved,
    random_rows,
    scorer_of,
    text_rows,
    tiny_llama,
)

from ktodata.train import fit
from ktodata.train.data.batches import plan_training
from ktodata.train.loop import train_step
from ktodata.train.model.packed_model import PackedModel
from ktodata.train.model.scorer import Scorer
from ktodata.train.out_of_memory import within_memory
from ktodata.train.pass_size import fitting_tokens, free_bytes, kept_for_backward, left_in_groups, tokens_of_pass

ERRORS = {
    "cuda": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "host": MemoryError,
}
EVERY_KIND = pytest.mark.parametrize("kind", ERRORS)


def refuse_above(monkeypatch, tokens, kind, *, gradients_only=False, after=False):
    """Passes of more tokens than that run out of memory; those with gradients only, or `after` all was computed."""
    forward, refused = PackedModel.forward, []

    def limited(self, packed, **rest):
        too_much = len(packed.ids) > tokens and (torch.is_grad_enabled() or not gradients_only)
        if too_much and not after:
            refused.append(len(packed.ids))
            raise ERRORS[kind]()
        passed = forward(self, packed, **rest)
        if too_much and passed.logps.requires_grad:
            passed.logps.register_hook(lambda gradient: refuse(len(packed.ids)))
        return passed

    def refuse(size):
        refused.append(size)
        raise ERRORS[kind]()

    monkeypatch.setattr(PackedModel, "forward", limited)
    return refused


def a_job(**settings):
    rows = random_rows(10, prompts=5)
    plan = plan_training(rows, batch_size=10, epochs=1, max_steps=None, seed=0)
    job = job_of(scorer_of(tiny_llama(VOCABULARY, layers=2), rows), plan, **settings)
    moved(job.scorer.model)
    return job


def step_of(job):
    """(gradients of the update, its losses, z0)"""
    recorded = keep_gradients(job)
    metrics = train_step(job, job.plan.steps[0])
    return recorded[0], metrics.losses, metrics.point.value


@pytest.mark.parametrize(
    ("kind", "limit", "tokens"),
    [
        ("cuda", {}, 60),
        ("cpu", {}, 30),
        ("host", {"gradients_only": True}, 60),
        ("cpu", {"after": True}, 60),
        ("cuda", {"after": True}, 30),
    ],
    ids=["any_pass", "any_small_pass", "gradients", "backward", "backward_of_small_ones"],
)
def test_an_update_is_the_same_when_its_passes_are_halved(kind, limit, tokens, monkeypatch):
    expected = step_of(a_job(micro_batch_tokens=1000))
    job = a_job(micro_batch_tokens=1000)
    refused = refuse_above(monkeypatch, tokens, kind, **limit)
    with pytest.warns(UserWarning, match=r"memory ran out .* passes have \d+ tokens at most from now on, not"):
        gradients, losses, z0 = step_of(job)
    assert refused
    assert job.state.pass_tokens < 100
    assert_same_gradients(gradients, expected[0], relative=1e-5)
    torch.testing.assert_close(losses, expected[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(z0, expected[2], rtol=1e-5, atol=1e-5)


def test_the_next_update_starts_with_what_fitted_and_says_nothing(monkeypatch):
    job = a_job(micro_batch_tokens=1000)
    refused = refuse_above(monkeypatch, 40, "cuda")
    with pytest.warns(UserWarning, match="memory ran out"):
        train_step(job, job.plan.steps[0])
    refused.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_step(job, job.plan.steps[0])
    assert refused == []


@EVERY_KIND
def test_a_row_that_does_not_fit_alone_is_an_error(kind, monkeypatch):
    job = a_job(micro_batch_tokens=1000)
    refused = refuse_above(monkeypatch, 5, kind)
    with pytest.raises(type(ERRORS[kind]())):
        train_step(job, job.plan.steps[0])
    assert len(refused) < 16  # it gives up when passes hold one row each


def test_another_error_is_raised_as_it_is():
    def fails(tokens):
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        within_memory(fails, 1000, lengths=[1])


def test_a_whole_training_under_a_limit_is_the_same_and_says_so_in_its_facts(model_folder, monkeypatch):
    settings = {"model": model_folder, "batch_size": 12, "epochs": 3, "learning_rate": 1e-3, "device": "cpu"}
    free = fit(text_rows(12), **settings)
    refuse_above(monkeypatch, 60, "cpu", gradients_only=True)
    with pytest.warns(UserWarning, match="memory ran out"):
        limited = fit(text_rows(12), **settings)
    assert free.metrics["pass_tokens"] == 1024
    assert limited.metrics["pass_tokens"] < 100
    for name, weight in free.model.named_parameters():
        torch.testing.assert_close(dict(limited.model.named_parameters())[name], weight, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_cuts_its_updates_as_before(model_folder, tmp_path, monkeypatch):
    settings = {"model": model_folder, "batch_size": 12, "epochs": 5, "learning_rate": 1e-3, "device": "cpu"}
    refuse_above(monkeypatch, 60, "cpu", gradients_only=True)
    with pytest.warns(UserWarning, match="memory ran out"):
        unbroken = fit(text_rows(12), **settings)

    def killed(event):
        if event["step"] == 4:
            raise KeyboardInterrupt

    keep = {"out": tmp_path / "out", "save_every_steps": 3}
    with pytest.warns(UserWarning, match="memory ran out"), pytest.raises(KeyboardInterrupt):
        fit(text_rows(12), progress=killed, **keep, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        resumed = fit(text_rows(12), **keep, **settings)
    assert resumed.telemetry.equals(unbroken.telemetry)
    assert resumed.metrics["pass_tokens"] == unbroken.metrics["pass_tokens"]


def test_where_the_probe_does_not_fit_passes_begin_with_a_row_each(model_folder, monkeypatch):
    refuse_above(monkeypatch, 20, "cpu", gradients_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = fit(text_rows(12), model=model_folder, batch_size=12, device="cpu")
    assert result.metrics["pass_tokens"] <= 20


# --- how large a pass may be, before any has failed ----------------------------------------------------------------------------


def test_a_probe_foretells_what_larger_passes_keep():
    scorer = scorer_of(tiny_llama(VOCABULARY, layers=3), random_rows(40))
    pairs = [(row, row) for row in range(40)]
    tokens, kept = kept_for_backward(scorer, pairs)
    assert fitting_tokens(scorer, pairs[-4:], kept) == pytest.approx(tokens, rel=0.25)
    assert fitting_tokens(scorer, pairs[-4:], kept / 2) == pytest.approx(tokens / 2, rel=0.25)


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_a_probe_takes_no_more_than_a_pass_would(most, monkeypatch):
    scorer: Scorer = scorer_of(tiny_llama(VOCABULARY, layers=3), random_rows(40))
    passed = []
    monkeypatch.setattr(scorer.packed_model, "forward", lambda pack, **_: passed.append(len(pack.ids)) or forward(pack, **_))
    forward = type(scorer.packed_model).forward.__get__(scorer.packed_model)
    tokens_of_pass(scorer, most=most, sharded=False)
    assert passed and max(passed) <= max(most, int(scorer.rows.lengths.max()))


@pytest.mark.parametrize("share", [1.0, 0.1, 0.0])
def test_a_pass_has_no_more_than_memory_holds_and_no_more_than_is_useful(share, monkeypatch):
    scorer: Scorer = scorer_of(tiny_llama(VOCABULARY, layers=3), random_rows(40))
    trained = 12 * sum(parameter.numel() for parameter in scorer.model.parameters())
    tokens, kept = kept_for_backward(scorer, [(row, row) for row in range(40)])
    monkeypatch.setattr("ktodata.train.pass_size.free_bytes", lambda device: trained + share * kept / 0.6)
    assert tokens_of_pass(scorer, most=10_000, sharded=False) == pytest.approx(max(1, share * tokens), rel=0.3)
    assert tokens_of_pass(scorer, most=1, sharded=False) == 1
    assert scorer.take_work()["computed_tokens"] == 0
    assert all(parameter.grad is None for parameter in scorer.model.parameters())


def control_group(folder, names, limit, used, idle):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {idle}\n")


V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


@pytest.mark.parametrize(
    ("line", "place", "names"),
    [
        ("0::/", "", V2),
        ("0::/pod/box", "pod", V2),
        ("0::/system/docker/1f", "", V2),  # as the host names it, in a container that sees no more than its own
        ("9:cpu,memory:/docker/1f", "memory", V1),
    ],
)
def test_memory_is_what_a_container_has_left_and_not_what_its_host_has(line, place, names, tmp_path, monkeypatch):
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text(f"3:cpu:/other\n{line}\n")
    assert left_in_groups(groups, own) == []
    control_group(groups / place, names, "max", 9, 0)
    assert left_in_groups(groups, own) == []
    control_group(groups / place, names, 5000, 3000, 500)
    assert left_in_groups(groups, own) == [2500]
    monkeypatch.setattr("ktodata.train.pass_size.left_in_groups", lambda: left_in_groups(groups, own))
    assert free_bytes(torch.device("cpu")) == 2500
    assert left_in_groups(groups, tmp_path / "absent") == []
