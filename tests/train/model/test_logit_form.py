"""Factors and soft-caps behind the head are part of the completion-only head: such models are packed, with the same gradients."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import (
    VOCABULARY,
    assert_same,
    one_by_one,
    random_rows,
    scorer_of,
    tiny_of,
    value_and_gradients,
)

from ktodata.train.model import logprobs
from ktodata.train.model.logit_form import LogitForm, nearest_form, possible_forms
from ktodata.train.model.logprobs import token_logps

MLA = {
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
KINDS = {
    "granite_divides": ("Granite", {"logits_scaling": 3.0}, LogitForm(1 / 3.0)),
    "hyperclovax_multiplies": ("HyperCLOVAX", {"logits_scaling": 0.5}, LogitForm(0.5)),
    "cohere": ("Cohere", {"logit_scale": 0.0625}, LogitForm(0.0625)),
    "gemma2": ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": None}, LogitForm(1.0, 2.0)),
    "minicpm3": ("MiniCPM3", MLA, None),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_such_models_are_packed_and_equal_single_rows(kind, dtype):
    """Before, their own logits were made of every token, in padded rows."""
    name, settings, form = KINDS[kind]
    model, rows = tiny_of(name, **settings), random_rows(prompts=2)
    scorer = scorer_of(model, rows, compute_dtype=dtype)
    assert scorer.method == "packed"
    assert form in (None, scorer.packed_model.form)
    pairs = [*((row, row) for row in range(6)), (0, 5), (5, 0)]
    if dtype == torch.float32:
        ours = value_and_gradients(model, lambda: scorer(pairs))
        assert_same(ours, value_and_gradients(model, lambda: one_by_one(model, rows, pairs)), relative=3e-5)


@pytest.mark.parametrize(("tile_mb", "stored_mb"), [(0.0005, 0), (0.0005, 1), (256, 0), (256, 1024)])
@pytest.mark.parametrize("form", [LogitForm(0.3), LogitForm(1.0, 2.0), LogitForm(4.0, 3.0)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_spelt_out_form(monkeypatch, form, bias, tile_mb, stored_mb):
    monkeypatch.setattr(logprobs, "TILE_MB", tile_mb)
    monkeypatch.setattr(logprobs, "MAX_STORED_LOGITS_MB", stored_mb)
    torch.manual_seed(0)
    head, states = torch.nn.Linear(16, VOCABULARY, bias=bias), torch.randn(11, 16, requires_grad=True)
    targets, upstream = torch.randint(0, VOCABULARY, (11,)), torch.randn(11)
    logits = form.factor * head(states)
    logits = logits if form.cap is None else form.cap * torch.tanh(logits / form.cap)
    expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    wanted = (states, *head.parameters())
    result = token_logps(states, head, targets, form=form)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(result, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_cap_that_a_sample_does_not_show_is_kept_all_the_same():
    """Of logits up to 0.01 a cap of 30 takes 4e-10: it is in the config, and larger logits may come."""
    config = SimpleNamespace(final_logit_softcapping=30.0)
    small = 0.01 * torch.rand(3, 5)
    assert nearest_form(possible_forms(config), small, small.clone()) == LogitForm(1.0, 30.0)
    large = 100 * torch.rand(3, 5)
    assert nearest_form(possible_forms(config), large, large.clone()) == LogitForm()  # it is not used at all
    assert possible_forms(SimpleNamespace(final_logit_softcapping=None, logit_scale=1.0)) == [LogitForm()]
