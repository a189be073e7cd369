"""The same training on a GPU: run with `pytest -m gpu` on a machine that has one; skipped elsewhere, saying so.

What can be tried on a CPU as well is, at the same tiny size: so that a test is known to work before a GPU is at hand.
"""

from importlib import import_module

import numpy as np
import polars as pl
import pytest
from family_outcomes import agrees, outcome_of
from test_families import ALWAYS
from test_length_regimes import KINDS, PAIRS, rows_of_both_sides
from tiny_models import assert_same_gradients, gradients, one_by_one, random_rows, scorer_of, text_rows, tiny_of

from ktodata.train import fit


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return request.param


@pytest.fixture
def cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


def losses(model_folder, **settings):
    result = fit(text_rows(24), model=model_folder, batch_size=8, learning_rate=1e-3, epochs=2, **settings)
    return result, result.history["loss"].to_numpy()


def test_the_reference_of_another_precision_is_not_taken(model_folder, device):
    """Nor is the policy anything but the reference at step 0."""
    for dtype, source in (("float32", "computed"), ("bfloat16", "computed"), ("float32", "cache"), ("bfloat16", "cache")):
        result, _ = losses(model_folder, device=device, dtype=dtype)
        assert result.metrics["reference"]["source"] == source
        first = result.telemetry.filter(pl.col("step") == 0)
        assert first["log_ratio"].abs().max() < (1e-3 if dtype == "float32" else 0.1 + 0.01 * first["logp"].abs().max())


def test_the_ways_through_the_model_are_checked_in_float32(model_folder, device):
    result, _ = losses(model_folder, device=device, dtype="bfloat16")
    assert (result.metrics["method"], result.metrics["rejected_methods"]) == ("packed", {})
    assert {trial["dtype"] for trial in result.metrics["self_check"]["trials"]} == {"float32"}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_on_both_sides_of_a_length_are_single_rows(kind, device):
    import torch

    name, settings = KINDS[kind]
    model = tiny_of(name, **settings).to(device)
    scorer = scorer_of(model, rows_of_both_sides(), device=torch.device(device))
    torch.testing.assert_close(scorer(PAIRS), one_by_one(model, scorer.rows, PAIRS), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", [*ALWAYS, "granite", "cohere", "minicpm3"])
def test_an_update_of_a_family_is_that_of_single_rows_on_cuda(cuda, family, dtype):
    """As test_families.py has it on a CPU; logits that are capped or scaled, windows, recurrent layers, mixtures of experts."""
    outcome = outcome_of(family, window="beyond", dtype=dtype, device="cuda")
    assert agrees(outcome, dtype), outcome


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_group_of_one_process_trains_as_none_does(model_folder, device, parallel, monkeypatch):
    """NCCL on a GPU, gloo on a CPU: gradients are summed, weights shared out, and put together again."""
    import torch
    import torch.distributed as dist

    from ktodata.train.distributed.processes import Processes

    _, alone = losses(model_folder, device=device, dtype="float32")
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        processes = Processes(parallel, torch.device(device))
        monkeypatch.setattr(import_module("ktodata.train.run_training"), "current_processes", lambda *_: processes)
        result, together = losses(model_folder, device=device, dtype="float32")
    finally:
        dist.destroy_process_group()
    assert result.metrics["parallel"] == parallel
    np.testing.assert_allclose(together, alone, rtol=1e-4)


@pytest.mark.gpu
def test_fp32_on_cuda_is_the_training_of_the_cpu(cuda, model_folder):
    import torch

    _, on_cpu = losses(model_folder, device="cpu", dtype="float32")
    result, on_cuda = losses(model_folder, device="cuda", dtype="float32")
    assert result.metrics["device"] == torch.cuda.get_device_name()
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-4)


@pytest.mark.gpu
def test_bf16_on_cuda_stays_near_and_moves_fp32_weights(cuda, model_folder):
    import torch

    _, on_cpu = losses(model_folder, device="cpu", dtype="float32")
    result, on_cuda = losses(model_folder)
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=0.05)
    assert abs(on_cuda[-1] - on_cuda[0]) > 1e-4


@pytest.mark.gpu
def test_packs_under_the_variable_length_kernel_are_padded_rows(cuda, model_folder):
    import torch

    from ktodata.train.model.scorer import Scorer

    rows = random_rows()
    own, crossed = [(row, row) for row in range(6)], [(row, (row + 1) % 6) for row in range(6)]
    results = {}
    for method in ("packed", "padded"):
        model = tiny_of("Llama", hidden_size=64, num_attention_heads=4, num_key_value_heads=2).cuda()
        scorer = Scorer(model, rows, device=torch.device("cuda"), compute_dtype=torch.bfloat16)
        assert (scorer.method, scorer.kernel) == ("packed", "varlen")
        scorer.method = method
        logps, later = scorer.with_partners(own, crossed)
        logps.sum().backward()
        results[method] = logps.detach(), later, gradients(model)
    torch.testing.assert_close(results["packed"][0], results["padded"][0], rtol=2e-2, atol=0.5)
    torch.testing.assert_close(results["packed"][1], results["padded"][1], rtol=2e-2, atol=0.5)
    assert_same_gradients(results["packed"][2], results["padded"][2], relative=0.05)
