"""Answers to prompts that begin alike: the same tokens as `generate` writes, and only for models that this is true of."""

from types import SimpleNamespace

import numpy as np
import pytest

from ktodata.evaluate.generation import answer_all, write_greedily
from ktodata.evaluate.shared_beginning import can_share_beginning, common_beginning, write_with_shared_beginning


@pytest.fixture(scope="module")
def llama():
    from tiny_families import tiny_family

    return tiny_family("llama", window=64)


def prompts(*rests: int, beginning: int = 6) -> list[np.ndarray]:
    """Token ids that begin alike, then `rests` tokens of their own."""
    rng = np.random.default_rng(0)
    first = rng.integers(8, 28, beginning)
    return [np.concatenate([first, rng.integers(8, 28, rest)]).astype(np.int32) for rest in rests]


@pytest.mark.parametrize("beginning", [0, 6])
def test_it_writes_what_generate_writes_also_where_some_answers_end_early(llama, beginning):
    many = prompts(2, 9, 5, 1, 7, beginning=beginning)
    free = write_greedily(llama, SimpleNamespace(eos_token_id=None, pad_token_id=0), many, max_new_tokens=12, device="cpu")
    end = free[1][3]  # a token that one answer has as its fourth
    tokenizer = SimpleNamespace(eos_token_id=end, pad_token_id=0)
    expected = write_greedily(llama, tokenizer, many, max_new_tokens=12, device="cpu")
    assert len({len(ids) for ids in expected}) > 1
    assert write_with_shared_beginning(llama, many, end=end, max_new_tokens=12, device="cpu") == expected


def test_a_token_is_left_to_each_prompt():
    assert common_beginning(prompts(2, 3)) == 6
    assert common_beginning(prompts(2)) == 7
    assert common_beginning([np.array([5, 6]), np.array([5, 6])]) == 1
    assert common_beginning([np.array([5]), np.array([6, 5])]) == 0


def test_a_model_that_keeps_or_writes_otherwise_is_left_to_generate(llama, monkeypatch):
    from tiny_families import tiny_family

    assert can_share_beginning(llama)
    assert not any(can_share_beginning(tiny_family(family, window=64)) for family in ("gemma2", "mamba"))
    monkeypatch.setattr(llama.generation_config, "repetition_penalty", 1.1)
    assert not can_share_beginning(llama)


def test_the_faster_way_is_not_taken_where_it_answers_otherwise(llama, monkeypatch):
    tokenizer = SimpleNamespace(eos_token_id=None, pad_token_id=0, decode=lambda ids, **_: str(list(ids)))
    many = prompts(2, 9, 5)
    expected = answer_all(llama, tokenizer, many, max_new_tokens=3, device="cpu")
    monkeypatch.setattr("ktodata.evaluate.generation.write_with_shared_beginning", lambda model, few, **_: [[1] for _ in few])
    assert answer_all(llama, tokenizer, many, max_new_tokens=3, device="cpu").equals(expected)
