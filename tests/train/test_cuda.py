"""The same training on a GPU: run with `pytest -m gpu` on a machine that has one; skipped elsewhere, saying so."""

import numpy as np
import pytest
from tiny_models import text_rows

from ktodata.train import fit

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


def losses(model_folder, **settings):
    told = fit(text_rows(24), model=model_folder, batch_size=8, learning_rate=1e-3, epochs=2, **settings)
    return told, told.history["loss"].to_numpy()


def test_fp32_on_cuda_is_the_training_of_the_cpu(model_folder):
    _, on_cpu = losses(model_folder, device="cpu", dtype="float32")
    told, on_cuda = losses(model_folder, device="cuda", dtype="float32")
    assert told.facts["device"].startswith("cuda")
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-4)


def test_bf16_on_cuda_stays_near_and_moves_fp32_weights(model_folder):
    import torch

    _, on_cpu = losses(model_folder, device="cpu", dtype="float32")
    told, on_cuda = losses(model_folder)
    assert {parameter.dtype for parameter in told.policy.parameters()} == {torch.float32}
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=0.05)
    assert abs(on_cuda[-1] - on_cuda[0]) > 1e-4
