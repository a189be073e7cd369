"""Every faster way to a log-prob gives what the model's own logits give."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_models import assert_same_gradients, tiny_llama

from ktodata.errors import ModelError, SettingError
from ktodata.train import logprobs
from ktodata.train.adapters import with_adapters
from ktodata.train.logprobs import collate, full_logit_logps
from ktodata.train.reference import adapters_off
from ktodata.train.scorer import Scorer
from ktodata.train.tokens import TokenRows
from ktodata.train.trunk import freeze_below

VOCABULARY = 30
CPU = torch.device("cpu")


def random_rows(count=6, seed=0):
    random = np.random.default_rng(seed)

    def ids(size):
        return random.integers(0, VOCABULARY, size).astype(np.int32)

    return TokenRows(
        row_id=tuple(map(str, range(count))),
        label=np.arange(count) % 2 == 0,
        weight=np.ones(count),
        group=tuple(map(str, range(count))),
        prompt=tuple(ids(2 + 3 * (number % 3)) for number in range(count)),
        completion=tuple(ids(1 + 2 * number) for number in range(count)),
        max_length=64,
    )


def scorer_of(model, rows, **settings):
    return Scorer(model, rows, device=CPU, compute_dtype=torch.float32, **settings)


def pairs_of(rows):
    return [(row, row) for row in range(len(rows))] + [(0, 5), (5, 0)]


def one_by_one(model, rows, pairs):
    """log p(completion | prompt) of unpadded single rows, spelt out."""
    found = []
    for pair in pairs:
        ids, start = rows.sequence(*pair)
        tokens = torch.tensor(ids.astype(np.int64))
        logps = model(tokens[None]).logits[0].log_softmax(-1)
        found.append(sum(logps[place - 1, tokens[place]] for place in range(start, len(ids))))
    return torch.stack(found)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_completion_only_head_equals_full_logits_in_value_and_gradient(monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_TOKENS", 7)  # several chunks, the last one ragged
    rows, model = random_rows(), tiny_llama(VOCABULARY)
    scorer, pairs = scorer_of(model, rows), pairs_of(random_rows())
    weights = torch.arange(1.0, len(pairs) + 1)
    ours = scorer(pairs)
    (ours * weights).sum().backward()
    found = gradients(model)
    model.zero_grad()
    expected = one_by_one(model, rows, pairs)
    (expected * weights).sum().backward()
    assert scorer.method == "hidden"
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert_same_gradients(found, gradients(model), relative=1e-5)


def test_padded_full_logits_equal_single_rows():
    rows, model = random_rows(), tiny_llama(VOCABULARY)
    batch = collate([rows.sequence(*pair) for pair in pairs_of(rows)], CPU)
    torch.testing.assert_close(full_logit_logps(model, batch), one_by_one(model, rows, pairs_of(rows)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep_states_mb", [0, 0.001, 100])  # none kept, some kept, all kept
def test_trunk_path_equals_plain_path_in_value_and_gradient(keep_states_mb):
    rows, pairs = random_rows(), pairs_of(random_rows())
    results = []
    for split in (True, False):
        model = tiny_llama(VOCABULARY, layers=4)
        frozen = freeze_below(model, 2)
        scorer = scorer_of(model, rows, frozen_layers=frozen if split else 0, keep_states_mb=keep_states_mb)
        kept = scorer.keep_states(pairs)
        assert scorer.method == ("split" if split else "hidden")
        assert kept["kept_sequences"] == ({0: 0, 0.001: 2, 100: len(pairs)}[keep_states_mb] if split else 0)
        logps = scorer(pairs)
        logps.square().sum().backward()
        results.append((logps.detach(), gradients(model)))
        assert len(model.model.layers) == 4  # whole again
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    assert_same_gradients(results[0][1], results[1][1], relative=1e-5)


def test_kept_states_of_rows_that_share_a_prompt_equal_their_own(monkeypatch):
    """Three rows of one prompt (5 tokens), one of another (2), two completions each, of 1 3, 3 5, 5 7 and 7 1 tokens.

    At most 12 tokens a sequence: 5+1+3+3, 5+5, 5+5, 5+7 and 2+7+1, so 5 sequences.
    """
    from ktodata.train import shared_prompts

    plain = random_rows(4)
    rows = dataclasses.replace(plain, prompt=(plain.prompt[1],) * 3 + (plain.prompt[3],))
    pairs = [(row, partner) for row in range(4) for partner in (row, (row + 1) % 4)]
    for longest, sequences in ((1024, 2), (12, 5)):
        monkeypatch.setattr(shared_prompts, "LONGEST", longest)
        shared = shared_prompts.share_prompts(rows, pairs)
        assert sorted(pair for one in shared for pair in one.pairs) == sorted(pairs)
        assert len(shared) == sequences
        model = tiny_llama(VOCABULARY, layers=4)
        scorer = scorer_of(model, rows, frozen_layers=freeze_below(model, 1), keep_states_mb=10)
        scorer.keep_states(pairs)
        torch.testing.assert_close(scorer(pairs), one_by_one(model, rows, pairs), rtol=1e-5, atol=1e-5)


def test_only_top_layers_and_final_norm_train():
    model = tiny_llama(VOCABULARY, layers=4)
    assert freeze_below(model, 1) == 3
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad} == {"layers", "norm"}
    assert {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad and "layers" in name} == {"3"}


def test_more_layers_than_there_are():
    with pytest.raises(SettingError, match="trainable_layers is 5, but the model has 4"):
        freeze_below(tiny_llama(VOCABULARY, layers=4), 5)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=64)).eval()


def soft_capped():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    # a low cap: no projection alone gives these logits
    config = Gemma2Config(vocab_size=VOCABULARY, head_dim=8, final_logit_softcapping=0.5, initializer_range=0.5, **shape)
    return Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize(("make", "method"), [(gpt2, "hidden"), (soft_capped, "logits")])
def test_other_architectures_fall_back_with_the_same_result(make, method):
    rows, model = random_rows(), make()
    frozen = freeze_below(model, 1)
    scorer = scorer_of(model, rows, frozen_layers=frozen, keep_states_mb=10)
    assert scorer.method == method
    torch.testing.assert_close(scorer(pairs_of(rows)), one_by_one(model, rows, pairs_of(rows)), rtol=1e-5, atol=1e-5)


def test_a_sliding_window_is_never_split():
    from transformers import MistralConfig, MistralForCausalLM

    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    model = MistralForCausalLM(MistralConfig(vocab_size=VOCABULARY, sliding_window=4, **shape)).eval()
    rows = random_rows()
    scorer = scorer_of(model, rows, frozen_layers=freeze_below(model, 1))
    assert scorer.method == "hidden"
    torch.testing.assert_close(scorer(pairs_of(rows)), one_by_one(model, rows, pairs_of(rows)), rtol=1e-5, atol=1e-5)


def test_lora_with_adapters_off_equals_a_frozen_copy():
    rows, pairs = random_rows(), pairs_of(random_rows())
    frozen_copy = tiny_llama(VOCABULARY)
    model, _ = with_adapters(tiny_llama(VOCABULARY), {"r": 4}, None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # an adapter that has learnt something
    scorer = scorer_of(model.eval(), rows)
    expected = one_by_one(frozen_copy, rows, pairs)
    assert (scorer.without_gradient(pairs) - expected).abs().min() > 1e-3
    with adapters_off(model):
        torch.testing.assert_close(scorer.without_gradient(pairs), expected, rtol=1e-5, atol=1e-5)


def test_lora_on_top_layers_may_be_split():
    rows, pairs = random_rows(), pairs_of(random_rows())
    model, frozen = with_adapters(tiny_llama(VOCABULARY, layers=4), {}, 1)
    scorer = scorer_of(model.eval(), rows, frozen_layers=frozen, keep_states_mb=10)
    assert (frozen, scorer.method) == (3, "split")
    assert {name.split("layers.")[1][0] for name, p in model.named_parameters() if p.requires_grad} == {"3"}
    torch.testing.assert_close(scorer(pairs), one_by_one(tiny_llama(VOCABULARY, layers=4), rows, pairs), rtol=1e-5, atol=1e-5)


def test_an_adapter_on_the_head_is_refused():
    with pytest.raises(
        SettingError, match="lm_head is no linear layer inside the decoder layers; those are down_proj, gate_proj"
    ):
        with_adapters(tiny_llama(VOCABULARY), {"target_modules": ["lm_head"]}, None)


def test_batched_without_gradient_equals_one_batch(monkeypatch):
    from ktodata.train import scorer as module

    monkeypatch.setattr(module, "NO_GRAD_TOKENS", 20)
    rows, model = random_rows(), tiny_llama(VOCABULARY)
    scorer = scorer_of(model, rows)
    torch.testing.assert_close(scorer.without_gradient(pairs_of(rows)), scorer(pairs_of(rows)).detach(), rtol=1e-5, atol=1e-5)


def test_a_model_without_layers_to_tell_apart():
    with pytest.raises(ModelError, match="cannot tell the layers of a opt model apart"):
        from transformers import OPTConfig, OPTForCausalLM

        config = OPTConfig(
            vocab_size=VOCABULARY, hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
        )
        freeze_below(OPTForCausalLM(config), 1)
