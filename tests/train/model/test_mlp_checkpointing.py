import pytest
import torch
from tiny_models import assert_same_gradients, gradients, tiny_gpt2, tiny_llama, tiny_of

from ktodata.train.model.adapters import with_adapters
from ktodata.train.model.mlp_checkpointing import checkpoint_mlps

IDS = torch.arange(24).reshape(2, 12)


def answers(model, *, lean, dtype=torch.float32):
    """(hidden states, gradients, bytes kept for the backward pass beside the weights)"""
    stored, weights = {}, {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.zero_grad()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), hooks:
        if lean:
            with checkpoint_mlps(model):
                hidden = model(input_ids=IDS).logits
        else:
            hidden = model(input_ids=IDS).logits
    hidden.float().square().mean().backward()
    return hidden.detach(), gradients(model), sum(stored.values())


@pytest.mark.parametrize(
    "make", [tiny_llama, lambda size: tiny_of("Qwen2", vocab_size=size), lambda size: tiny_of("Mistral", vocab_size=size)]
)
def test_values_and_gradients_stay_and_less_is_kept(make):
    model = make(30)
    plain, lean = answers(model, lean=False), answers(model, lean=True)
    torch.testing.assert_close(lean[0], plain[0], rtol=1e-6, atol=1e-6)
    assert_same_gradients(lean[1], plain[1], relative=1e-5)
    assert lean[2] < 0.85 * plain[2]


def test_in_bfloat16_it_is_as_close_to_float32_as_the_plain_way():
    model = tiny_llama(30)
    exact = answers(model, lean=False)
    plain, lean = (answers(model, lean=flag, dtype=torch.bfloat16) for flag in (False, True))
    torch.testing.assert_close(lean[0], plain[0], rtol=1e-2, atol=1e-2)
    for name, gradient in exact[1].items():
        off = [(result[1][name] - gradient).norm() / gradient.norm() for result in (plain, lean)]
        assert off[1] < 2 * off[0] + 1e-3, name


def test_afterwards_and_for_other_blocks_nothing_is_changed():
    llama, gpt2 = tiny_llama(30), tiny_gpt2(30)
    adapted = with_adapters(tiny_llama(30), {"target_modules": ["down_proj"]}, None)[0]
    for model, replaced in ((llama, 2), (gpt2, 0), (adapted, 0)):
        with checkpoint_mlps(model):
            assert sum("forward" in vars(part) for part in model.modules()) == replaced
        assert not any("forward" in vars(part) for part in model.modules())


def test_a_frozen_block_still_passes_gradients_down():
    model = tiny_llama(30)
    model.model.layers[1].requires_grad_(False)
    plain, lean = answers(model, lean=False), answers(model, lean=True)
    assert_same_gradients(lean[1], plain[1], relative=1e-5)
