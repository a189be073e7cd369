"""Attention over a pack, beside attention with a dense mask over the same tokens."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import (
    assert_same_gradients,
    gradients,
    one_by_one,
    random_rows,
    scorer_of,
    tiny_llama,
    tiny_of,
    token_rows,
)
from transformers import LlamaConfig

from ktodata.train.data.packing import Segment
from ktodata.train.model.attention import (
    NAME,
    Layout,
    Memory,
    Sight,
    attend,
    packed_attention,
    pick_kernel,
    sight_in_place_of_mask,
)

# a plain sequence of 4, then a prompt of 3 with completions of 2 and 1
SEGMENTS = (Segment(0, 4), Segment(4, 7), Segment(7, 9, (4, 7)), Segment(9, 10, (4, 7)))
LATER = (Segment(0, 2, (4, 7)), Segment(2, 5, (0, 4)))  # completions of 2 and 3 that come after these
REACH = 10
POSITIONS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4, 3])
HEADS = pytest.mark.parametrize(("heads", "key_value_heads"), [(4, 4), (4, 2), (4, 1)], ids=["mha", "gqa", "mqa"])


class Layer:
    layer_idx = 3


def random_tensors(length, heads, key_value_heads, seed=0):
    """Query, key, value: float64 [1, heads, length, 8]"""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, count, length, 8, dtype=torch.float64, generator=generator).requires_grad_()
        for count in (heads, key_value_heads, key_value_heads)
    ]


def sees(segments, length, before=0):
    """Bool [length, before + length]; `before`: tokens of an earlier pack, to which prefixes then belong."""
    mask = torch.zeros(length, before + length, dtype=torch.bool)
    for segment in segments:
        for place in range(segment.start, segment.end):
            mask[place, before + segment.start : before + place + 1] = True
            if segment.prefix is not None:
                mask[place, slice(*segment.prefix)] = True
    return mask


def dense(query, key, value, mask, scale=None):
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)


def with_gradients(out, tensors):
    weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()
    return out, *torch.autograd.grad((out * weights).sum(), tensors)


@HEADS
@pytest.mark.parametrize("scale", [None, 0.2])
def test_segments_equal_a_dense_mask_in_value_and_gradient(heads, key_value_heads, scale):
    tensors = random_tensors(10, heads, key_value_heads)
    out, weights = attend(Layer(), *tensors, None, layout=Layout(SEGMENTS, "sdpa", REACH, POSITIONS), scaling=scale)
    assert weights is None
    result = with_gradients(out, tensors)
    expected = with_gradients(dense(*tensors, sees(SEGMENTS, 10), scale), tensors)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


@HEADS
def test_a_continuation_sees_the_prompts_of_the_earlier_pack(heads, key_value_heads):
    memory = Memory()
    first = random_tensors(10, heads, key_value_heads)
    attend(Layer(), *first, None, layout=Layout(SEGMENTS, "sdpa", REACH, POSITIONS, record=memory))
    later = random_tensors(5, heads, key_value_heads, seed=1)
    out, _ = attend(Layer(), *later, None, layout=Layout(LATER, "sdpa", REACH, torch.tensor([3, 4, 4, 5, 6]), earlier=memory))
    keys, values = (torch.cat([first[number], later[number]], dim=2) for number in (1, 2))
    expected = with_gradients(dense(later[0], keys, values, sees(LATER, 5, before=10)), later)
    torch.testing.assert_close(with_gradients(out, later), expected, rtol=1e-9, atol=1e-9)


def test_what_is_remembered_carries_no_gradient_and_is_kept_by_layer():
    memory, tensors = Memory(), random_tensors(10, 4, 2)
    attend(Layer(), *tensors, None, layout=Layout(SEGMENTS, "sdpa", REACH, POSITIONS, record=memory))
    assert list(memory.keys) == list(memory.values) == [3]
    assert torch.equal(memory.keys[3], tensors[1])
    assert torch.equal(memory.values[3], tensors[2])
    assert not memory.keys[3].requires_grad


@pytest.mark.parametrize(
    "handed",
    [
        {"dropout": 0.1},
        {"position_bias": torch.zeros(1)},
        {"attention_mask": torch.ones(1, 1, 10, 10, dtype=torch.bool)},
    ],
    ids=lambda handed: next(iter(handed)),
)
def test_what_it_does_not_do_is_refused_not_ignored(handed):
    mask = handed.pop("attention_mask", None)
    with pytest.raises(NotImplementedError):
        attend(Layer(), *random_tensors(10, 4, 2), mask, layout=Layout(SEGMENTS, "sdpa", REACH, POSITIONS), **handed)


def window_of(size):
    """Bool [query, key] over places of sequences: itself and what stands less than `size` before."""
    return lambda query, key: (key <= query) & (query - key < size)


@HEADS
@pytest.mark.parametrize("spelt", [True, False], ids=["by_a_rule", "by_a_number"])
def test_a_window_shorter_than_a_sequence_is_kept_to_across_the_prompt(heads, key_value_heads, spelt):
    tensors, sees_near = random_tensors(10, heads, key_value_heads), window_of(2)
    rule = Sight(lambda _, __, query, key: sees_near(query, key)) if spelt else None
    layout = Layout(SEGMENTS, "sdpa", REACH, POSITIONS)
    out, _ = attend(Layer(), *tensors, rule, layout=layout, sliding_window=None if spelt else 2)
    mask = sees(SEGMENTS, 10) & sees_near(POSITIONS[:, None], POSITIONS[None, :])
    torch.testing.assert_close(with_gradients(out, tensors), with_gradients(dense(*tensors, mask), tensors), rtol=1e-9, atol=1e-9)


@HEADS
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize(
    "settings", [{"softcap": 0.7}, {"s_aux": True}, {"softcap": 2.0, "s_aux": True, "scaling": 0.3}], ids=str
)
def test_capped_scores_and_sinks(heads, key_value_heads, window, settings):
    """Spelt out over the whole pack: cap * tanh(score / cap), and a sink that takes a part and gives nothing."""
    query, key, value = tensors = random_tensors(10, heads, key_value_heads)
    sinks = torch.linspace(-1, 1, heads, dtype=torch.float64) if settings.get("s_aux") else None
    layout = Layout(SEGMENTS, "sdpa", REACH, POSITIONS)
    out, _ = attend(Layer(), *tensors, None, layout=layout, sliding_window=window, **(settings | {"s_aux": sinks}))
    repeats = heads // key_value_heads
    scores = query @ key.repeat_interleave(repeats, 1).transpose(2, 3) * settings.get("scaling", 8**-0.5)
    if "softcap" in settings:
        scores = settings["softcap"] * (scores / settings["softcap"]).tanh()
    mask = sees(SEGMENTS, 10) & window_of(window or REACH)(POSITIONS[:, None], POSITIONS[None, :])
    shares = scores.exp() * mask
    total = shares.sum(-1, keepdim=True) + (0 if sinks is None else sinks.exp().reshape(1, -1, 1, 1))
    expected = (shares / total @ value.repeat_interleave(repeats, 1)).transpose(1, 2)
    torch.testing.assert_close(with_gradients(out, tensors), with_gradients(expected, tensors), rtol=1e-5, atol=1e-6)


def test_what_looks_ahead_is_not_taken_for_what_looks_back():
    with pytest.raises(NotImplementedError, match="what comes later"):
        sight_in_place_of_mask(REACH, mask_function=lambda _, __, query, key: (query - key).abs() < 3)
    assert sight_in_place_of_mask(REACH, mask_function=lambda _, __, query, key: key <= query) is None
    chunks = sight_in_place_of_mask(REACH, mask_function=lambda _, __, query, key: (key <= query) & (query // 4 == key // 4))
    assert chunks.mask(2, 3, "cpu").tolist() == [[True, True, True, True, False], [False, False, False, False, True]]


def test_a_window_that_no_sequence_fills_changes_nothing():
    tensors, layout = random_tensors(10, 4, 2), Layout(SEGMENTS, "sdpa", REACH, POSITIONS)
    windowed, _ = attend(Layer(), *tensors, None, layout=layout, sliding_window=REACH, softcap=None)
    plain, _ = attend(Layer(), *tensors, None, layout=layout)
    assert torch.equal(windowed, plain)


def test_the_reach_counts_sequences_of_a_prompt_with_another_rows_completion():
    """Own sequences have 10 + 1 and 1 + 10 tokens, which a window of 12 sequences whole; the crossed one has 20."""
    long = np.random.default_rng(0).integers(0, 30, 10)
    rows, model = token_rows([long, [1], [2], [3]], [[4], long, [5], [6]]), tiny_of("Mistral", sliding_window=12)
    scorer, pairs = scorer_of(model, rows), [(0, 1), (1, 1), (2, 2)]
    torch.testing.assert_close(scorer(pairs), one_by_one(model, rows, pairs), rtol=1e-5, atol=1e-5)


def test_the_models_own_attention_is_back_afterwards_whatever_happens():
    model = tiny_llama(30)
    before = model.config._attn_implementation
    assert before != NAME
    with packed_attention(model):
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == before
    with pytest.raises(KeyError), packed_attention(model):
        raise KeyError
    assert model.config._attn_implementation == before


def test_the_model_answers_as_before_after_it_has_scored():
    model, ids = tiny_llama(30), torch.tensor([[3, 4, 5, 6]])
    before = model(ids).logits
    scorer = scorer_of(model, random_rows())
    scorer([(0, 0), (0, 1)]).sum().backward()
    result = gradients(model)
    assert torch.equal(model(ids).logits, before)
    model.zero_grad()
    scorer([(0, 0), (0, 1)]).sum().backward()
    assert_same_gradients(gradients(model), result, relative=0)


def test_the_kernel_goes_by_device_precision_and_heads(monkeypatch):
    cuda, wide, narrow = torch.device("cuda"), LlamaConfig(head_dim=64), LlamaConfig(head_dim=4)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert pick_kernel(cuda, torch.bfloat16, wide) == "varlen"
    assert pick_kernel(torch.device("cpu"), torch.bfloat16, wide) == "sdpa"
    assert pick_kernel(cuda, torch.float32, wide) == "sdpa"
    assert pick_kernel(cuda, torch.bfloat16, narrow) == "sdpa"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert pick_kernel(cuda, torch.bfloat16, wide) == "sdpa"
