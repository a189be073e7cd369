"""The router loss of mixtures of experts: the model's own for a batch, and of an update however that is cut."""

import warnings

import pytest
import torch
from tiny_families import tiny_family
from tiny_models import (
    VOCABULARY,
    assert_same_gradients,
    gradients,
    job_of,
    keep_gradients,
    moved,
    random_rows,
    scorer_of,
    text_rows,
    tiny_llama,
    word_tokenizer,
)

from ktodata.errors import SettingError
from ktodata.train import fit, loop
from ktodata.train.data.batches import plan_training
from ktodata.train.model import router_loss
from ktodata.train.model.frozen_layers import freeze_below
from ktodata.train.model.gradient_checkpointing import checkpoint_layers
from ktodata.train.model.router_loss import RouterLoss, coefficient_of, over_processes, total, watch_routers
from ktodata.train.objectives import Kto

COEFFICIENT = 0.5  # large, so that it is most of the gradient
FAMILIES = ["mixtral", "qwen3_moe", "gpt_oss", "granitemoe", "jamba", "qwen3_next", "jetmoe", "olmoe"]
SLOW = pytest.mark.slow
CAST = [family if family in ("mixtral", "jamba") else pytest.param(family, marks=SLOW) for family in FAMILIES]


def watching(model, rows, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scorer = scorer_of(model, rows, **settings)
    assert watch_routers(scorer, COEFFICIENT) is None
    return scorer


def own_loss(model, rows, order):
    """The model's own, of these rows padded to one length, each whole."""
    width = max(map(int, rows.lengths))
    ids, mask = torch.zeros(len(order), width, dtype=torch.int64), torch.zeros(len(order), width, dtype=torch.int64)
    for line, row in enumerate(order):
        tokens = torch.tensor(rows.sequence(row, row)[0].astype("int64"))
        ids[line, : len(tokens)], mask[line, : len(tokens)] = tokens, 1
    return model(input_ids=ids, attention_mask=mask, use_cache=False, output_router_logits=True).aux_loss


def update(model, rows, **settings):
    """(router loss, gradients) of one update by a policy that has left its reference, KTO's own part left out."""
    model.requires_grad_(True)
    plan = plan_training(rows, batch_size=len(rows), epochs=1, max_steps=1, seed=0)
    job = job_of(watching(model, rows), plan, objective=Kto(0.3, desirable_weight=0, undesirable_weight=0), **settings)
    moved(model)
    recorded = keep_gradients(job)
    metrics = loop.train_step(job, plan.steps[0])
    return float(metrics.router_loss), recorded[0], plan.steps[0].rows.tolist()


@pytest.mark.parametrize("family", CAST)
@pytest.mark.parametrize("cut", [{"micro_batch_tokens": 10_000}, {"micro_batch_tokens": 60}, {"micro_batch_size": 1}])
def test_an_update_has_the_models_own_loss_of_all_its_rows_however_it_is_cut(family, cut):
    """Twelve rows of two prompts, which packs hold once: a prompt's token counts for every row that has it."""
    rows = random_rows(12, prompts=2)
    model = tiny_family(family, window=64)
    ours, of_ours, order = update(model, rows, **cut)
    model.zero_grad()
    theirs = own_loss(model, rows, order)
    (COEFFICIENT * theirs).backward()
    assert ours == pytest.approx(float(theirs), rel=1e-5)
    expected = {name: gradient for name, gradient in gradients(model).items() if gradient.abs().max() > 1e-7}
    assert expected
    assert_same_gradients({name: of_ours[name] for name in expected}, expected, relative=2e-4)


def test_halves_have_another_loss_than_the_whole():
    """Why it is counted over the update first: the mean over passes, as TRL has it, depends on how they are cut."""
    rows, model = random_rows(12, prompts=2), tiny_family("mixtral", window=64)
    whole, first, second = (float(own_loss(model, rows, part)) for part in (range(12), range(6), range(6, 12)))
    assert abs((first + second) / 2 - whole) > 1e-3


@pytest.mark.parametrize("change", ["checkpointed", "frozen_below"])
def test_recomputed_and_frozen_layers_change_nothing(change):
    rows, kept = random_rows(8, prompts=2), {}
    for changed in (False, True):
        model = tiny_family("mixtral", window=64)
        model.requires_grad_(True)
        if changed and change == "checkpointed":
            checkpoint_layers(model)
        plan = plan_training(rows, batch_size=8, epochs=1, max_steps=1, seed=0)
        job = job_of(watching(model, rows), plan, micro_batch_tokens=60)
        moved(model)
        if changed and change == "frozen_below":
            freeze_below(model, 1)
        recorded = keep_gradients(job)
        metrics = loop.train_step(job, plan.steps[0])
        kept[changed] = recorded[0], float(metrics.router_loss)
    assert kept[True][1] == pytest.approx(kept[False][1], rel=1e-6)
    assert_same_gradients(
        kept[True][0], {name: gradient for name, gradient in kept[False][0].items() if name in kept[True][0]}, relative=1e-5
    )


def test_no_gradient_of_ktos_own_loss_is_lost():
    """With both, gradients are the sum of each alone."""
    rows, parts = random_rows(8, prompts=2), []
    for coefficient, weight in ((0.0, 1.0), (COEFFICIENT, 0.0), (COEFFICIENT, 1.0)):
        model = tiny_family("mixtral", window=64)
        model.requires_grad_(True)
        scorer = watching(model, rows)
        scorer.routers.coefficient = coefficient
        plan = plan_training(rows, batch_size=8, epochs=1, max_steps=1, seed=0)
        job = job_of(scorer, plan, objective=Kto(0.3, desirable_weight=weight, undesirable_weight=weight), micro_batch_tokens=60)
        moved(model)
        parts.append(keep_gradients(job))
        loop.train_step(job, plan.steps[0])
    kto, routers, both = (part[0] for part in parts)
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, kto.get(name, 0) + routers.get(name, 0), rtol=1e-4, atol=1e-6)


def test_passes_made_for_other_processes_count_nothing():
    model, rows = tiny_family("mixtral", window=64), random_rows(4)
    scorer = watching(model, rows)
    with scorer.routers.watched() as passes:
        scorer([])
        assert passes == []
        scorer([(0, 0)])
    assert passes[0].tokens == 2 * rows.lengths[0]  # of two layers
    assert not scorer.routers.is_watched
    scorer([(0, 0)])
    assert len(passes) == 1
    nothing = over_processes([], scorer.routers.experts, Alone(), torch.device("cpu"))
    assert nothing.tokens == 0 and nothing.chosen.shape == passes[0].chosen.shape


class Alone:
    def sum(self, tensor):
        return tensor


def test_evenly_used_experts_have_the_least_loss():
    """All alike: E x E x (k / E) x (1 / E) = k = 2. All tokens to two of four: 4 x 2 x (1 x 1/2) = 4."""
    loss = RouterLoss(tiny_llama(VOCABULARY), coefficient=1.0, top_k=2)
    with loss.watched() as passes:
        far, rows = 1e4, torch.ones(2)
        loss._caught.append(torch.tensor([[far, far, 0, 0], [0, 0, far, far]]))
        loss.add(rows)
        loss._caught.append(torch.tensor([[far, far, 0, 0], [far, far, 0, 0]]))
        loss.add(rows)
    assert [float(loss.of_update(total([part]))) for part in passes] == pytest.approx([2, 4])


@pytest.mark.parametrize(
    ("family", "setting", "expected"),
    [("mixtral", None, 0.001), ("mixtral", 0.0, 0.0), ("mixtral", 0.2, 0.2), ("deepseek_v3", None, 0.0), ("llama", None, 0.0)],
)
def test_it_is_there_where_trl_has_it(family, setting, expected):
    """TRL 1.16: where the config knows output_router_logits, true or not, and its own or the set coefficient is not 0."""
    assert coefficient_of(tiny_family(family, window=64).config, setting) == expected


def saved(family, folder):
    tokenizer = word_tokenizer()

    model = tiny_family(family, window=64)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


SETTINGS = {"batch_size": 6, "device": "cpu", "learning_rate": 1e-2, "warmup_fraction": 0.0, "epochs": 4}


def finding(result):
    return next(each for each in result.metrics["findings"] if each["code"] == "KD067")


def test_a_training_with_it_uses_experts_more_evenly(tmp_path):
    model = saved("mixtral", tmp_path / "mixtral")
    plain, light, heavy = (fit(text_rows(12), model=model, router_aux_loss_coef=coef, **SETTINGS) for coef in (0.0, None, 1.0))
    assert "router_loss" not in plain.history.columns
    assert finding(plain)["status"] == "not_applicable"
    assert light.metrics["router_loss"] == {"coefficient": 0.001}
    assert finding(light)["status"] == "passed"
    assert light.history["router_loss"].is_finite().all()
    assert heavy.history["router_loss"][-1] < heavy.history["router_loss"][0]
    assert heavy.history["router_loss"][-1] < light.history["router_loss"][-1]


def test_all_layers_are_watched_although_lower_ones_are_frozen(tmp_path):
    """Before them, frozen layers ran once and their routers were seen never again."""
    model = saved("mixtral", tmp_path / "mixtral")
    frozen, whole = (
        fit(text_rows(12), model=model, router_aux_loss_coef=1.0, trainable_layers=layers, max_steps=1, **SETTINGS)
        for layers in (1, None)
    )
    assert frozen.history["router_loss"][0] == pytest.approx(whole.history["router_loss"][0], rel=1e-6)
    adapter = fit(text_rows(12), model=model, router_aux_loss_coef=1.0, lora={"r": 2}, max_steps=1, **SETTINGS)
    assert adapter.history["router_loss"][0] == pytest.approx(whole.history["router_loss"][0], rel=1e-6)


def test_a_loss_that_cannot_be_had_is_never_left_out_in_silence(tmp_path, monkeypatch):
    model = saved("mixtral", tmp_path / "mixtral")
    monkeypatch.setattr(RouterLoss, "of_update", lambda self, routed: torch.tensor(7.0))
    result = fit(text_rows(12), model=model, max_steps=1, **SETTINGS)
    assert finding(result)["status"] == "issue"
    assert "asks for a router loss (router_aux_loss_coef 0.001), and it was trained without" in finding(result)["text"]
    assert "and the formula 7" in finding(result)["text"]
    assert ">KD067<" in result._repr_html_()
    with pytest.raises(
        SettingError, match=r"router_aux_loss_coef is 0\.5, which this mixtral model cannot have: its own code gives"
    ):
        fit(text_rows(12), model=model, router_aux_loss_coef=0.5, **SETTINGS)
    monkeypatch.setattr(router_loss, "_routers", lambda model: iter(()))
    assert "not where transformers records them" in finding(fit(text_rows(12), model=model, max_steps=1, **SETTINGS))["text"]


def test_it_is_refused_where_there_are_no_experts(model_folder):
    with pytest.raises(SettingError, match=r"router_aux_loss_coef is 0\.1, and a llama model is no mixture of experts"):
        fit(text_rows(12), model=model_folder, router_aux_loss_coef=0.1, **SETTINGS)


def test_llama_4_has_routers_and_its_code_no_loss():
    scorer = scorer_of(tiny_family("llama4_text", window=64), random_rows(4))
    assert watch_routers(scorer, 0.001) == "its own code gives no such loss"
    assert scorer.routers is None


def test_a_kind_with_routers_of_which_this_model_has_none():
    scorer = scorer_of(tiny_family("flint", window=64), random_rows(4))
    assert watch_routers(scorer, 0.001) is None
    assert scorer.routers is None


def test_routers_that_give_something_else_are_a_reason_not_a_crash(monkeypatch):
    monkeypatch.setattr(router_loss, "_routers", lambda model: iter([(model.model.norm, 0)]))
    reason = watch_routers(scorer_of(tiny_family("mixtral", window=64), random_rows(4)), 0.001)
    assert "its own code gives" in reason
    monkeypatch.setattr(router_loss, "_routers", lambda model: iter([(model.model, 0)]))
    assert watch_routers(scorer_of(tiny_family("mixtral", window=64), random_rows(4)), 0.001)
