"""The layout that the variable-length CUDA kernel is given, on a CPU: a stand-in does what the kernel's documentation says."""

import pytest
import torch
import torch.nn.functional as F
from test_scorer import VOCABULARY, random_rows
from tiny_models import assert_same_gradients, tiny_llama

from ktodata.train.model import attention
from ktodata.train.model.scorer import Scorer


def one_by_one(query, key, value, cu_q, cu_k, max_q, max_k, scale):
    """Each sequence by itself; its last query sees its last key."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert max_q == cu_q.diff().max()
    assert max_k == cu_k.diff().max()
    out = []
    for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False):
        mask = torch.ones(int(q1 - q0), int(k1 - k0), dtype=torch.bool).tril(int((k1 - k0) - (q1 - q0)))
        q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query[q0:q1], key[k0:k1], value[k0:k1]))
        out.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(out)


def newer(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
    assert window_size == (-1, 0)
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return one_by_one(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale)


def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, *, scale=None):
    assert is_causal
    assert query.shape[1] == key.shape[1]
    return one_by_one(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale)


def answers(rows, kernel, monkeypatch):
    """Log-probs with and without gradient, and the gradients, of rows with and without shared prompts."""
    if kernel is not None:
        monkeypatch.setattr(attention, "pick_kernel", lambda *_: "varlen")
        monkeypatch.setattr("ktodata.train.model.scorer.pick_kernel", lambda *_: "varlen")
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
        attention.varlen_takes.cache_clear()
    model = tiny_llama(VOCABULARY)
    scorer = Scorer(model, rows, device=torch.device("cpu"), compute_dtype=torch.float32)
    assert (scorer.method, scorer.kernel) == ("packed", "sdpa" if kernel is None else "varlen")
    own, crossed = [(row, row) for row in range(6)], [(row, (row + 1) % 6) for row in range(6)]
    logps, later = scorer.with_partners(own, crossed)
    (logps.sum() + scorer([*own, *crossed]).square().sum()).backward()
    return logps.detach(), later, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("kernel", [newer, older])
def test_packs_shared_prompts_and_continuations_equal_one_call_a_segment(kernel, monkeypatch):
    rows = random_rows()
    expected = answers(rows, None, monkeypatch)
    result = answers(rows, kernel, monkeypatch)
    attention.varlen_takes.cache_clear()
    torch.testing.assert_close(result[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result[1], expected[1], rtol=1e-5, atol=1e-5)
    assert_same_gradients(result[2], expected[2], relative=1e-5)
