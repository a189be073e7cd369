"""Rows on both sides of a length at which a model changes never share a pass; windows that only the mask knows of are seen."""

from types import SimpleNamespace

import pytest
import torch
from tiny_families import tiny_config
from tiny_models import (
    assert_same_gradients,
    job_of,
    keep_gradients,
    moved,
    one_by_one,
    random_rows,
    scorer_of,
    tiny_of,
    token_rows,
    value_and_gradients,
)

from ktodata.errors import ModelError
from ktodata.train import loop
from ktodata.train.data.batches import plan_training
from ktodata.train.model import layer_states
from ktodata.train.model.frozen_layers import freeze_below
from ktodata.train.model.length_regimes import length_limits, regime
from ktodata.train.objectives import Kto

LIMIT = 16  # rows have 3 to 24 tokens
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 4.0, 16.0],
    "original_max_position_embeddings": LIMIT,
}
PHI = {"original_max_position_embeddings": LIMIT, "max_position_embeddings": 64, "rope_parameters": LONGROPE}
ROBERTA = {"max_position_embeddings": 34, "pad_token_id": 1}
MSCALES = {"short_mscale": 1.0, "long_mscale": 1.3}
KINDS = {
    "phi3": ("Phi3", PHI),
    "llama": ("Llama", {"max_position_embeddings": 64, "rope_parameters": LONGROPE}),
    "phimoe": ("Phimoe", {"max_position_embeddings": 64, "num_local_experts": 2, "rope_parameters": LONGROPE | MSCALES}),
}
PAIRS = [*((row, row) for row in range(10)), (0, 9), (9, 0), (2, 9), (8, 1)]


def rows_of_both_sides():
    rows = random_rows(10, prompts=2)
    lengths = {len(rows.sequence(*pair)[0]) for pair in PAIRS}
    assert min(lengths) < LIMIT < max(lengths) and LIMIT in lengths
    return rows


def sides(scorer, pairs):
    return {scorer.length(pair) > LIMIT for pair in pairs}


@pytest.mark.parametrize("method", ["packed", "padded", "logits"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_equals_single_rows_on_both_sides(kind, method):
    """Packed together, short rows took the long rows' frequencies."""
    name, settings = KINDS[kind]
    model = tiny_of(name, **settings)
    scorer = scorer_of(model, rows_of_both_sides())
    assert scorer.method == "packed"
    scorer.method = method
    ours = value_and_gradients(model, lambda: scorer(PAIRS))
    values, expected = value_and_gradients(model, lambda: one_by_one(model, scorer.rows, PAIRS))
    torch.testing.assert_close(ours[0], values, rtol=1e-5, atol=1e-5)
    untrained = {parameter for parameter, gradient in expected.items() if not gradient.any()}  # PhiMoE's router, in evaluation
    assert not any(ours[1][parameter].any() for parameter in untrained) and len(untrained) <= 2
    reached = [{p: g for p, g in of.items() if p not in untrained} for of in (ours[1], expected)]
    assert_same_gradients(*reached, relative=1e-4)
    torch.testing.assert_close(scorer.without_gradient(PAIRS), ours[0], rtol=1e-5, atol=1e-5)
    own, crossed = PAIRS[:10], [(9, 0), (0, 9), (8, 1)]
    both = torch.cat(scorer.with_partners(own, crossed)).detach()
    torch.testing.assert_close(both, one_by_one(model, scorer.rows, [*own, *crossed]).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["packed", "padded"])
def test_no_pass_holds_both_sides(method):
    scorer = scorer_of(tiny_of("Phi3", **PHI), rows_of_both_sides())
    scorer.method = method
    parts = scorer.micro_batches(PAIRS, tokens=10_000)
    assert len(parts) == 2 and sorted(place for part in parts for place in part) == list(range(len(PAIRS)))
    assert all(len(sides(scorer, [PAIRS[place] for place in part])) == 1 for part in parts)
    plain = scorer_of(tiny_of("Phi3", max_position_embeddings=64), rows_of_both_sides())
    assert len(plain.micro_batches(PAIRS, tokens=10_000)) == 1


def test_a_whole_update_equals_one_of_single_rows():
    """Reference, z0, losses and gradients, as an update of rows one by one has them."""
    model = tiny_of("Phi3", **PHI)
    scorer = scorer_of(model, rows_of_both_sides())
    plan = plan_training(scorer.rows, batch_size=10, epochs=1, max_steps=1, seed=0)
    (step,) = plan.steps
    own, crossed = step.matched(), list(step.mismatched().values())
    assert sides(scorer, own) == sides(scorer, crossed) == {True, False}
    job = job_of(scorer, plan, objective=Kto(0.3), micro_batch_tokens=10_000)
    with torch.no_grad():
        reference = one_by_one(model, scorer.rows, own), one_by_one(model, scorer.rows, crossed)
    moved(model)
    gradients, metrics = keep_gradients(job), loop.train_step(job, step)
    model.zero_grad()
    with torch.no_grad():
        z0 = (one_by_one(model, scorer.rows, crossed) - reference[1]).mean().clamp(min=0)
    sign = torch.where(torch.tensor(scorer.rows.label[step.rows]), 1.0, -1.0)
    losses = 1 - torch.sigmoid(sign * 0.3 * (one_by_one(model, scorer.rows, own) - reference[0] - z0))
    losses.mean().backward()
    assert float(z0) > 0.01
    assert float(metrics.point.value) == pytest.approx(float(z0), rel=1e-4)
    torch.testing.assert_close(metrics.losses, losses.detach(), rtol=1e-4, atol=1e-5)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_gradients(gradients[0], expected, relative=1e-4)


def test_frozen_layers_are_not_kept_for_prompts_of_both_sides():
    model, rows = tiny_of("Llama", max_position_embeddings=64, rope_parameters=LONGROPE), rows_of_both_sides()
    scorer = scorer_of(model, rows, frozen_layers=freeze_below(model, 1), activation_cache_mb=10)
    assert scorer.frozen_layers == 0
    scorer.cache_activations(PAIRS)
    torch.testing.assert_close(scorer(PAIRS), one_by_one(model, rows, PAIRS), rtol=1e-5, atol=1e-5)


def test_dynamic_frequencies_beyond_the_context_are_refused_by_row():
    dynamic = {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}}
    fits = scorer_of(tiny_of("Llama", max_position_embeddings=24, **dynamic), rows_of_both_sides())
    torch.testing.assert_close(fits(PAIRS), one_by_one(fits.model, fits.rows, PAIRS), rtol=1e-5, atol=1e-4)
    with pytest.raises(ModelError, match=r"1 of 10 rows are longer than the model's context of 23 tokens \(row_id r9\)"):
        scorer_of(tiny_of("Llama", max_position_embeddings=23, **dynamic), rows_of_both_sides())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_window_that_only_the_mask_knows_of_is_kept_to_though_no_row_alone_is_as_long(dtype):
    """Rows of 14 and 13 tokens fit into a window of 20; the prompt of the one before the completion of the other does not."""
    rows = token_rows([[number % 30 for number in range(12)], [7]], [[1, 2], list(range(12))])
    for window in (20, 24):
        model = tiny_of("Phimoe", sliding_window=window, num_local_experts=2)
        scorer = scorer_of(model, rows, compute_dtype=dtype)
        assert scorer.method == "packed"
        if dtype == torch.float32:
            pairs = [(0, 0), (1, 1), (0, 1), (1, 0)]
            torch.testing.assert_close(scorer(pairs), one_by_one(model, rows, pairs), rtol=1e-5, atol=1e-5)


def llama4():
    import transformers
    from tiny_models import SHAPE

    torch.manual_seed(0)
    scaled = {"attn_temperature_tuning": True, "floor_scale": 64, "attn_scale": 1.0, "no_rope_layers": [1, 0]}
    experts = {"num_local_experts": 2, "intermediate_size_mlp": 32, "head_dim": 8, "attention_chunk_size": 4096}
    return transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**SHAPE, **scaled, **experts)).eval()


def test_attention_scaled_by_the_place_in_the_pass_is_scaled_by_that_in_the_row():
    """Llama 4 counts places over the pass: two rows of 40 tokens reach the next step at 64, which no row alone does."""
    rows = token_rows([[1, 2]] * 4, [[(number + k) % 30 for k in range(40 + 20 * number)] for number in range(4)], max_length=128)
    scorer = scorer_of(llama4(), rows)
    assert scorer.method == "packed"
    pairs = [(row, row) for row in range(4)]
    ours = value_and_gradients(scorer.model, lambda: scorer(pairs))
    values, expected = value_and_gradients(scorer.model, lambda: one_by_one(scorer.model, rows, pairs))
    torch.testing.assert_close(ours[0], values, rtol=1e-5, atol=1e-4)
    assert_same_gradients(ours[1], expected, relative=1e-4)
    partners = torch.cat(scorer.with_partners(pairs, [(0, 3), (3, 0)])).detach()
    torch.testing.assert_close(partners[4:], one_by_one(scorer.model, rows, [(0, 3), (3, 0)]).detach(), rtol=1e-5, atol=1e-4)


def test_hidden_states_of_both_sides_are_those_of_single_rows():
    model = tiny_of("Phi3", **PHI)
    rows = [layer_states._Encoded(rows_of_both_sides().sequence(row, row)[0], 2, False) for row in (0, 3, 8, 9)]
    layer = model.model.layers[0]
    together = layer_states._run_batches(model, layer, rows, torch.device("cpu"))
    for vector, row in zip(together, rows, strict=True):
        alone = layer_states._run_batch(model, layer, [row], torch.device("cpu"))[0]
        torch.testing.assert_close(torch.tensor(vector), torch.tensor(alone), rtol=1e-5, atol=1e-5)


def test_limits_of_every_layout_of_a_config():
    by_layer = {"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default"}}
    assert length_limits(SimpleNamespace(rope_parameters=by_layer)) == (LIMIT,)
    yarn = {"rope_type": "yarn", "original_max_position_embeddings": 16, "factor": 4.0}
    assert length_limits(SimpleNamespace(rope_parameters=yarn)) == ()  # the same for every length
    old = {"type": "su", "long_factor": [1.0]}
    assert length_limits(SimpleNamespace(rope_scaling=old, original_max_position_embeddings=4096)) == (4096,)
    assert [regime(length, (16, 32)) for length in (16, 17, 32, 33)] == [0, 1, 1, 2]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("family", "settings", "context"), [("mpt", {"max_seq_len": 32}, 32), ("roberta", ROBERTA, 32)])
def test_mismatched_pairs_are_cut_to_a_context_by_any_name_and_without_what_is_left_to_padding(family, settings, context):
    """A long prompt with a long completion ended in an error of torch, where no row was too long."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = tiny_config(CONFIG_MAPPING[family], 64)
    config.update(settings)
    rows = token_rows([[3] * 20, [4] * 4, [5] * 4], [[6, 7, 8, 9], [6, 7] * 13, [8, 9, 3, 4]], max_length=200)
    scorer = scorer_of(AutoModelForCausalLM.from_config(config).eval(), rows)
    assert scorer.rows.max_length == context
    assert scorer.without_gradient([(0, 1), (1, 0)]).isfinite().all()
    with pytest.raises(ModelError, match=f"longer than the model's context of {context} tokens"):
        scorer_of(scorer.model, token_rows([[3] * 20], [[4] * 13], max_length=200))
