"""The same training on a GPU: run with `pytest -m gpu` on a machine that has one; skipped elsewhere, saying so."""

import numpy as np
import pytest
from tiny_models import assert_same_gradients, gradients, random_rows, text_rows, tiny_of

from ktodata.train import fit

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


def losses(model_folder, **settings):
    result = fit(text_rows(24), model=model_folder, batch_size=8, learning_rate=1e-3, epochs=2, **settings)
    return result, result.history["loss"].to_numpy()


def test_fp32_on_cuda_is_the_training_of_the_cpu(model_folder):
    import torch

    _, on_cpu = losses(model_folder, device="cpu", dtype="float32")
    result, on_cuda = losses(model_folder, device="cuda", dtype="float32")
    assert result.metrics["device"] == torch.cuda.get_device_name()
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-4)


def test_bf16_on_cuda_stays_near_and_moves_fp32_weights(model_folder):
    import torch

    _, on_cpu = losses(model_folder, device="cpu", dtype="float32")
    result, on_cuda = losses(model_folder)
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=0.05)
    assert abs(on_cuda[-1] - on_cuda[0]) > 1e-4


def test_packs_under_the_variable_length_kernel_are_padded_rows(model_folder):
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
