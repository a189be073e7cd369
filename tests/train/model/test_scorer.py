"""Every faster way to a log-prob gives what the model's own logits give, in value and in gradient."""

import dataclasses
import re
from functools import partial

import pytest
import torch
from tiny_families import tiny_family
from tiny_models import (
    VOCABULARY,
    assert_same,
    one_by_one,
    random_rows,
    scorer_of,
    tiny_gpt2,
    tiny_llama,
    tiny_of,
    token_rows,
    value_and_gradients,
)

from ktodata.errors import ModelError, SettingError
from ktodata.train.data.ragged_ids import RaggedIds
from ktodata.train.model import logprobs, packed_model
from ktodata.train.model.adapters import with_adapters
from ktodata.train.model.frozen_layers import freeze_below
from ktodata.train.model.gradient_checkpointing import checkpoint_layers, keep_activations
from ktodata.train.model.logprobs import collate, full_logit_logps, summed, token_logps
from ktodata.train.reference import adapters_off

CPU = torch.device("cpu")


def pairs_of(rows):
    """Every row's own pair, and two rows that swap their completions."""
    return [(row, row) for row in range(len(rows))] + [(0, 5), (5, 0)]


def shared_rows():
    """Six rows of two prompts."""
    return random_rows(prompts=2)


def scorer_by(method, model, rows, **settings):
    scorer = scorer_of(model, rows, **settings)
    scorer.method = method
    return scorer


def as_single_rows(scorer, pairs):
    """Value and gradient of `scorer`'s pairs are those of single unpadded rows."""
    result = value_and_gradients(scorer.model, lambda: scorer(pairs))
    assert_same(result, value_and_gradients(scorer.model, lambda: one_by_one(scorer.model, scorer.rows, pairs)))


# --- one architecture, every way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["packed", "padded", "logits"])
@pytest.mark.parametrize("rows", [random_rows(), shared_rows()], ids=["no_prompt_twice", "shared_prompts"])
def test_every_method_equals_single_rows_in_value_and_gradient(method, rows):
    as_single_rows(scorer_by(method, tiny_llama(VOCABULARY), rows), pairs_of(rows))


@pytest.mark.parametrize("key_value_heads", [1, 2, 4], ids=["mqa", "gqa", "mha"])
def test_heads_that_share_keys_and_values(key_value_heads):
    scorer = scorer_of(tiny_llama(VOCABULARY, key_value_heads=key_value_heads), shared_rows())
    assert scorer.method == "packed"
    as_single_rows(scorer, pairs_of(scorer.rows))


# logits squeezed into a range: no projection alone gives them
NO_CAP_ON_SCORES = {"attn_logit_softcapping": None, "query_pre_attn_scalar": 8}
SOFT_CAPPED = {"head_dim": 8, "final_logit_softcapping": 0.5}
RECURRENT = {"head_dim": 8, "lru_width": 16, "num_hidden_layers": 3}  # a state that runs on from token to token


@pytest.mark.parametrize(
    ("make", "method"),
    [
        pytest.param(lambda: tiny_of("Qwen2"), "packed", id="qwen2"),  # biases
        pytest.param(lambda: tiny_of("Qwen3", head_dim=8), "packed", id="qwen3"),  # norms of queries and keys
        pytest.param(lambda: tiny_of("SmolLM3", no_rope_layer_interval=2), "packed", id="smollm3"),  # a layer without positions
        pytest.param(lambda: tiny_of("Phi3"), "packed", id="phi3"),
        pytest.param(lambda: tiny_of("Mistral", sliding_window=None), "packed", id="mistral"),
        pytest.param(lambda: tiny_of("Mistral", sliding_window=40), "packed", id="a_window_longer_than_every_row"),
        pytest.param(lambda: tiny_of("Mistral", sliding_window=4), "packed", id="a_short_window"),
        pytest.param(lambda: tiny_of("Gemma2", **SOFT_CAPPED), "packed", id="capped_logits_and_scores"),
        pytest.param(lambda: tiny_of("Gemma2", **SOFT_CAPPED, **NO_CAP_ON_SCORES), "packed", id="capped_logits_alone"),
        pytest.param(lambda: tiny_of("RecurrentGemma", **RECURRENT), "padded", id="recurrent"),
        pytest.param(lambda: tiny_of("Granite", logits_scaling=3.0), "packed", id="scaled_logits"),
        pytest.param(tiny_gpt2, None, id="gpt2"),  # whatever agrees
    ],
)
@pytest.mark.parametrize("trainable_layers", [None, 1])
def test_other_architectures_have_the_same_result_by_the_fastest_method_that_agrees(make, method, trainable_layers):
    model, rows = make(), shared_rows()
    frozen = freeze_below(model, trainable_layers) if trainable_layers else 0
    scorer = scorer_of(model, rows, frozen_layers=frozen, activation_cache_mb=10)
    assert method in (None, scorer.method)
    scorer.cache_activations(pairs_of(rows))
    as_single_rows(scorer, pairs_of(rows))


def test_a_slower_method_says_why_the_faster_ones_cannot_be_used(monkeypatch):
    with pytest.warns(UserWarning, match="recurrent_gemma .*'padded'.*packed: its log-probs are up to"):
        scorer = scorer_of(tiny_of("RecurrentGemma", **RECURRENT), shared_rows())
    assert list(scorer.self_check.rejected) == ["packed"]
    monkeypatch.setattr(packed_model, "possible_forms", lambda config: [])  # a form that nobody knows of
    with pytest.warns(UserWarning, match="gemma2 .*'logits'"):
        scorer = scorer_of(tiny_of("Gemma2", **SOFT_CAPPED), shared_rows())
    assert list(scorer.self_check.rejected) == ["packed", "padded"]
    assert re.search(r"up to [\d.]+ nats a token off those of the model's own logits", scorer.self_check.rejected["padded"])


def test_the_fastest_method_has_nothing_to_say(recwarn):
    assert scorer_of(tiny_llama(VOCABULARY), shared_rows()).self_check.rejected == {}
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory left"), AssertionError("a mistake of ours")])
def test_an_error_that_says_nothing_of_the_architecture_is_not_swallowed(error, monkeypatch):
    def fail(*_, **__):
        raise error

    model = tiny_llama(VOCABULARY)
    plain = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, layout=None, **k: plain(*a, **k) if layout is None else fail())
    with pytest.raises(type(error), match=str(error)):
        scorer_of(model, shared_rows())


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3"])
def test_frozen_layers_of_these_are_run_apart(kind):
    windowless = {"sliding_window": None} if kind == "Mistral" else {}
    model = tiny_of(kind, **windowless)
    assert scorer_of(model, random_rows(), frozen_layers=freeze_below(model, 1)).frozen_layers == 1


def test_padded_full_logits_equal_single_rows():
    rows, model = random_rows(), tiny_llama(VOCABULARY)
    batch = collate([rows.sequence(*pair) for pair in pairs_of(rows)], CPU)
    logps = summed(*full_logit_logps(model, batch), len(pairs_of(rows)))
    torch.testing.assert_close(logps, one_by_one(model, rows, pairs_of(rows)), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_close_to_float32():
    """A product keeps 8 bits: a completion's log-prob is off by less than 2 % of itself or half a nat."""
    rows, model = shared_rows(), tiny_llama(VOCABULARY)
    exact = scorer_of(model, rows)(pairs_of(rows))
    for method in ("packed", "padded"):
        rounded = scorer_by(method, model, rows, compute_dtype=torch.bfloat16)(pairs_of(rows))
        assert rounded.dtype == torch.float32
        assert not torch.equal(rounded, exact)
        torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.5)


# --- edges -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["packed", "padded"])
def test_empty_prompts_and_completions_of_one_token(method):
    """Where there is no prompt nothing predicts the first token: a completion of that token alone has log-prob 0."""
    rows = token_rows([[], [], [3, 4], [3, 4], [5]], [[6], [7, 8, 9], [6], [7, 8, 9], [7, 8, 9]])
    scorer = scorer_by(method, tiny_llama(VOCABULARY), rows)
    pairs = [(row, partner) for row in range(5) for partner in range(3)]
    as_single_rows(scorer, pairs)
    assert scorer([(0, 0)]).item() == 0
    assert_same_continuation(scorer, [(1, 1), (3, 3), (4, 4)], [(0, 2), (2, 0), (4, 0)])


def test_a_batch_of_empty_prompts_alone():
    rows = token_rows([[], []], [[6], [7, 8, 9]])
    as_single_rows(scorer_by("packed", tiny_llama(VOCABULARY), rows), [(0, 0), (1, 1)])


@pytest.mark.parametrize("method", ["packed", "padded"])
def test_completions_cut_after_a_long_prompt(method):
    rows = dataclasses.replace(random_rows(prompts=3), max_length=12)
    as_single_rows(scorer_by(method, tiny_llama(VOCABULARY), rows), [(row, partner) for row in range(3) for partner in range(6)])


def test_the_same_leaf_twice_is_computed_once_and_its_gradient_adds_up():
    """Rows 0 and 1 are the same tokens, asked for as (0, 0), (1, 1), (0, 1) and once more: of 4 x 5 tokens, 5 are computed."""
    rows = token_rows([[1, 2], [1, 2], [3]], [[4, 5, 6], [4, 5, 6], [7]])
    scorer, pairs = scorer_of(tiny_llama(VOCABULARY), rows), [(0, 0), (1, 1), (0, 1), (0, 0)]
    as_single_rows(scorer, pairs)
    scorer.take_work()
    logps = scorer(pairs)
    assert torch.equal(logps, logps[:1].expand(4))
    work = scorer.take_work()
    assert (work["requested_tokens"], work["computed_tokens"], work["shared_ratio"]) == (20, 5, 4.0)


def test_a_shared_prompt_is_computed_once_and_padding_is_counted():
    """Prompt 1 2 3 with completions of 2 and 1 tokens, prompt 4 with 1: 6 + 2 packed; 3 x 5 padded, of which 11 are asked for."""
    rows = token_rows([[1, 2, 3], [1, 2, 3], [4]], [[5, 6], [7], [8]])
    packed, padded = (scorer_by(method, tiny_llama(VOCABULARY), rows) for method in ("packed", "padded"))
    for scorer in (packed, padded):
        scorer([(0, 0), (1, 1), (2, 2)])
    assert packed.take_work() == {"requested_tokens": 11, "computed_tokens": 8, "padding_ratio": 1.0, "shared_ratio": 1.375}
    assert padded.take_work() == {"requested_tokens": 11, "computed_tokens": 15, "padding_ratio": 1.3636, "shared_ratio": 1.0}


def test_without_gradient_in_several_passes_equals_one():
    rows, model = shared_rows(), tiny_llama(VOCABULARY)
    for method in ("packed", "padded"):
        scorer, pairs = scorer_by(method, model, rows), pairs_of(rows)
        scorer.no_grad_tokens = 20
        assert len(scorer.micro_batches(pairs, tokens=20)) > 2
        result = scorer.without_gradient(pairs)
        assert not result.requires_grad
        torch.testing.assert_close(result, scorer(pairs).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["packed", "padded"])
@pytest.mark.parametrize(("tokens", "rows"), [(1, None), (20, None), (20, 2), (10_000, 3), (10_000, None)])
def test_micro_batches_hold_every_pair_once_within_their_bounds(method, tokens, rows):
    scorer = scorer_by(method, tiny_llama(VOCABULARY), shared_rows())
    pairs = [*pairs_of(scorer.rows), (0, 0)]
    parts = scorer.micro_batches(pairs, tokens=tokens, rows=rows)
    assert sorted(place for part in parts for place in part) == list(range(len(pairs)))
    assert all(len(part) <= (rows or len(pairs)) for part in parts)
    for part in parts:
        scorer.take_work()
        scorer([pairs[place] for place in part])
        distinct = {scorer.sequences.of(pairs[place]) for place in part}
        assert scorer.take_work()["computed_tokens"] <= tokens or len(distinct) == 1


def test_no_pairs_are_no_log_probs():
    scorer = scorer_of(tiny_llama(VOCABULARY), shared_rows())
    assert scorer.without_gradient([]).shape == (0,)
    assert scorer.micro_batches([], tokens=10) == []
    own, none = scorer.with_partners([(0, 0), (1, 1)], [])
    assert (own.shape, none.shape) == ((2,), (0,))


# --- the output head -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("tile_mb", "stored_mb"), [(1e-6, 0), (1e-6, 1), (0.0005, 0), (0.0005, 1), (256, 0)])
def test_the_heads_tiles_give_the_whole_heads_values_and_gradients(monkeypatch, bias, tile_mb, stored_mb):
    """11 x 30 logits in tiles of one row or of 4 (the last one ragged), kept or computed again."""
    monkeypatch.setattr(logprobs, "TILE_MB", tile_mb)
    monkeypatch.setattr(logprobs, "MAX_STORED_LOGITS_MB", stored_mb)
    torch.manual_seed(0)
    head, states = torch.nn.Linear(16, VOCABULARY, bias=bias), torch.randn(11, 16, requires_grad=True)
    targets, upstream = torch.randint(0, VOCABULARY, (11,)), torch.randn(11)
    wanted = (states, *head.parameters())
    result = token_logps(states, head, targets)
    expected = head(states).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(result, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("stored_mb", [0, 1024])
def test_tiles_within_a_training_pass(monkeypatch, stored_mb):
    monkeypatch.setattr(logprobs, "TILE_MB", 7 * 4 * VOCABULARY / 1e6)  # 7 tokens, the last tile ragged
    monkeypatch.setattr(logprobs, "MAX_STORED_LOGITS_MB", stored_mb)
    as_single_rows(scorer_of(tiny_llama(VOCABULARY), shared_rows()), pairs_of(shared_rows()))


def test_a_frozen_head_has_no_gradient_and_passes_one_on():
    head, states = torch.nn.Linear(16, VOCABULARY).requires_grad_(False), torch.randn(4, 16, requires_grad=True)
    token_logps(states, head, torch.arange(4)).sum().backward()
    assert head.weight.grad is None
    assert states.grad.abs().max() > 0


# --- completions that continue a pass --------------------------------------------------------------------------------------


def assert_same_continuation(scorer, own, partners):
    """`with_partners` gives `own` with its gradient and `partners` without one, as single rows do."""
    model, rows = scorer.model, scorer.rows
    result = {}

    def compute():
        logps, result["partners"] = scorer.with_partners(own, partners)
        return logps

    ours = value_and_gradients(model, compute)
    assert_same(ours, value_and_gradients(model, lambda: one_by_one(model, rows, own)))
    assert not result["partners"].requires_grad
    torch.testing.assert_close(result["partners"], one_by_one(model, rows, partners).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["packed", "padded", "logits"])
@pytest.mark.parametrize("rows", [random_rows(), shared_rows()], ids=["no_prompt_twice", "shared_prompts"])
def test_continued_equals_plain(method, rows):
    own = [(row, row) for row in range(6)]
    partners = [(row, (row + 1) % 6) for row in range(6)]
    assert_same_continuation(scorer_by(method, tiny_llama(VOCABULARY), rows), own, partners)


def test_a_continuation_takes_the_completions_only():
    """Prompts of 2 and 5 tokens; own completions 1, 3, ... 11 = 36 tokens, and the same 36 once more for the partners."""
    rows = shared_rows()
    scorer = scorer_of(tiny_llama(VOCABULARY), rows)
    scorer.with_partners([(row, row) for row in range(6)], [(row, (row + 1) % 6) for row in range(6)])
    assert scorer.take_work()["computed_tokens"] == 2 + 5 + 36 + 36


def test_partners_of_some_rows_and_the_same_partner_twice():
    scorer = scorer_of(tiny_llama(VOCABULARY), shared_rows())
    # rows 0, 2 and 4 have one prompt
    assert_same_continuation(scorer, [(row, row) for row in range(6)], [(4, 1), (0, 1), (3, 2), (2, 1)])


@pytest.mark.parametrize("activation_cache_mb", [0, 0.001, 100], ids=["none_kept", "some_kept", "all_kept"])
def test_continued_under_frozen_layers_equals_plain(activation_cache_mb):
    rows, model = shared_rows(), tiny_llama(VOCABULARY, layers=4)
    scorer = scorer_of(model, rows, frozen_layers=freeze_below(model, 2), activation_cache_mb=activation_cache_mb)
    own = [(row, row) for row in range(6)]
    partners = [(row, (row + 1) % 6) for row in range(6)]
    cached = scorer.cache_activations([*own, *partners])["sequences"]
    assert {0: cached == 0, 0.001: 0 < cached < 6, 100: cached == 12}[activation_cache_mb]
    assert_same_continuation(scorer, own, partners)
    for places in ([0, 1], [4, 5], [0, 5]):  # own rows that are kept, or not, or both
        assert_same_continuation(scorer, [own[place] for place in places], [partners[place] for place in places])


# --- frozen layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation_cache_mb", [0, 0.001, 100], ids=["none_kept", "some_kept", "all_kept"])
def test_frozen_layers_apart_equal_the_whole_model_in_value_and_gradient(activation_cache_mb):
    rows, pairs = random_rows(), pairs_of(random_rows())
    results = []
    for apart in (True, False):
        model = tiny_llama(VOCABULARY, layers=4)
        frozen = freeze_below(model, 2)
        scorer = scorer_of(model, rows, frozen_layers=frozen if apart else 0, activation_cache_mb=activation_cache_mb)
        cached = scorer.cache_activations(pairs)
        assert (scorer.method, scorer.frozen_layers) == ("packed", 2 if apart else 0)
        assert cached["of_sequences"] == len(pairs)
        assert cached["sequences"] == ({0: 0, 0.001: 2, 100: len(pairs)}[activation_cache_mb] if apart else 0)
        results.append(value_and_gradients(model, lambda scorer=scorer: scorer(pairs)))
        assert len(model.model.layers) == 4  # whole again
    assert_same(*results)


@pytest.mark.parametrize("tokens", [4096, 12])
def test_cached_activations_of_rows_that_share_a_prompt_equal_their_own(tokens):
    """Three rows of one prompt (5 tokens), one of another (2), two completions each, of 1 3, 3 5, 5 7 and 7 1 tokens.

    Four different completions after the first prompt, two after the second: 5+1+3+5+7 and 2+7+1 tokens of 16 numbers, each kept once,
    although with 12 tokens a pass the first prompt is computed several times.
    """
    plain = random_rows(4)
    rows = dataclasses.replace(plain, prompt=RaggedIds.of([plain.prompt[1]] * 3 + [plain.prompt[3]]))
    pairs = [(row, partner) for row in range(4) for partner in (row, (row + 1) % 4)]
    model = tiny_llama(VOCABULARY, layers=4)
    scorer = scorer_of(model, rows, frozen_layers=freeze_below(model, 1), activation_cache_mb=10)
    scorer.no_grad_tokens = tokens
    cached = scorer.cache_activations(pairs)
    assert (cached["sequences"], cached["of_sequences"]) == (6, 6)
    assert scorer.cached_mb == pytest.approx((21 + 10) * 16 * 4 / 1e6)
    as_single_rows(scorer, pairs)


def test_cached_activations_do_not_pass_what_they_may_take():
    """Prompts of 2 and 5 tokens, completions of 1, 3, 5: (2+1), (5+3), 5 tokens of 16 x 4 bytes; 1,023 bytes hold 15 tokens."""
    rows, model = shared_rows(), tiny_llama(VOCABULARY, layers=4)
    scorer = scorer_of(model, rows, frozen_layers=freeze_below(model, 2), activation_cache_mb=1023e-6)
    assert scorer.cache_activations([(row, row) for row in range(6)])["sequences"] == 2
    assert scorer.cached_mb == pytest.approx(11 * 64 / 1e6)


def test_only_top_layers_and_final_norm_train():
    model = tiny_llama(VOCABULARY, layers=4)
    assert freeze_below(model, 1) == 3
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad} == {"layers", "norm"}
    assert {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad and "layers" in name} == {"3"}


def test_more_layers_than_there_are():
    with pytest.raises(SettingError, match="trainable_layers is 5, but the model has 4"):
        freeze_below(tiny_llama(VOCABULARY, layers=4), 5)


@pytest.mark.parametrize(
    "make",
    [tiny_gpt2, lambda: tiny_of("Mistral", sliding_window=4), lambda: tiny_of("Gemma2", **SOFT_CAPPED)],
    ids=["gpt2", "short_window", "gemma2"],
)
def test_layers_of_other_kinds_are_never_run_apart(make):
    model = make()
    assert scorer_of(model, random_rows(), frozen_layers=freeze_below(model, 1)).frozen_layers == 0


def test_a_model_without_layers_to_tell_apart():
    with pytest.raises(ModelError, match="cannot tell the layers of a opt model apart"):
        from transformers import OPTConfig, OPTForCausalLM

        config = OPTConfig(
            vocab_size=VOCABULARY, hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
        )
        model = OPTForCausalLM(config)
        model.config.num_hidden_layers = 7  # of which no list of layers is
        freeze_below(model, 1)


# --- activations computed again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["packed", "padded"])
def test_activations_computed_again_give_the_same_gradients(method):
    rows, results = shared_rows(), []
    for again in (False, True):
        model = tiny_llama(VOCABULARY)
        if again:
            checkpoint_layers(model)
        scorer = scorer_by(method, model, rows)
        results.append(value_and_gradients(model, lambda scorer=scorer: scorer(pairs_of(rows))))
        assert_same_continuation(scorer, [(row, row) for row in range(6)], [(row, (row + 1) % 6) for row in range(6)])
    assert_same(*results)


def test_layers_are_as_they_were_once_activations_are_kept_again():
    model = tiny_family("opt", window=64)
    checkpoint_layers(model)
    assert not any(part.training for part in model.modules())  # what else a layer does in training mode stays off
    keep_activations(model)
    assert not any(isinstance(vars(part).get("forward"), partial) for part in model.modules())


def test_activations_computed_again_under_frozen_layers():
    rows, model = shared_rows(), tiny_llama(VOCABULARY, layers=4)
    frozen = freeze_below(model, 2)
    checkpoint_layers(model)
    as_single_rows(scorer_of(model, rows, frozen_layers=frozen, activation_cache_mb=10), pairs_of(rows))


def test_a_model_that_cannot_compute_activations_again_says_so():
    model = tiny_llama(VOCABULARY)
    model.supports_gradient_checkpointing = False
    with pytest.raises(SettingError, match="a llama model cannot recompute its activations: leave gradient_checkpointing out"):
        checkpoint_layers(model)


# --- adapters --------------------------------------------------------------------------------------------------------------


def learnt_adapters(model, trainable_layers=None):
    """Adapters that have learnt something; and the number of layers below them."""
    torch.manual_seed(1)
    model, frozen = with_adapters(model, {"r": 4}, trainable_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.eval(), frozen


@pytest.mark.parametrize("rows", [random_rows(), shared_rows()], ids=["no_prompt_twice", "shared_prompts"])
def test_adapters_are_packed_and_off_they_leave_a_frozen_copy(rows):
    model, _ = learnt_adapters(tiny_llama(VOCABULARY))
    scorer, pairs = scorer_of(model, rows), pairs_of(rows)
    assert scorer.method == "packed"
    as_single_rows(scorer, pairs)
    expected = one_by_one(tiny_llama(VOCABULARY), rows, pairs)
    assert (scorer.without_gradient(pairs) - expected).abs().min() > 1e-3
    with adapters_off(model):
        torch.testing.assert_close(scorer.without_gradient(pairs), expected, rtol=1e-5, atol=1e-5)


def test_below_adapters_on_top_layers_the_others_are_run_apart():
    rows, pairs = random_rows(), pairs_of(random_rows())
    model, frozen = learnt_adapters(tiny_llama(VOCABULARY, layers=4), 1)
    scorer = scorer_of(model, rows, frozen_layers=frozen, activation_cache_mb=10)
    assert (frozen, scorer.method, scorer.frozen_layers) == (3, "packed", 3)
    assert {name.split("layers.")[1][0] for name, p in model.named_parameters() if p.requires_grad} == {"3"}
    assert scorer.cache_activations(pairs)["sequences"] == len(pairs)
    as_single_rows(scorer, pairs)
    with adapters_off(model):
        expected = one_by_one(tiny_llama(VOCABULARY, layers=4), rows, pairs)
        torch.testing.assert_close(scorer.without_gradient(pairs), expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_on_the_head_is_refused():
    with pytest.raises(
        SettingError, match="lm_head is no linear layer inside the decoder layers; those are down_proj, gate_proj"
    ):
        with_adapters(tiny_llama(VOCABULARY), {"target_modules": ["lm_head"]}, None)
