import json
import math
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ktodata.errors import SettingError, ShapeError
from ktodata.settings import check_settings, settings_of
from ktodata.train import fit
from ktodata.train.objectives import (
    OBJECTIVES,
    ApoZero,
    Bco,
    Examples,
    Kto,
    KtoHoelder,
    KtoHybrid,
    Objective,
    RunningMean,
    kto_gradient_weight,
    kto_loss,
    make_objective,
    reference_point,
)

nats = st.floats(-50, 50)
rates = st.tuples(st.floats(0, 0.49), st.floats(0, 0.49)).map(lambda pair: {"desirable": pair[0], "undesirable": pair[1]})
FLIPS = {"desirable": 0.1, "undesirable": 0.3}
SHIFT = torch.tensor(1.5, dtype=torch.float64)


def has_a_limit(kind):
    """Whether no row costs more than a number: where one may, flip rates are refused."""
    return math.isfinite(kind().max_cost) and not kind.contrasts


def every_way(kind):
    """Objectives of one class with every way to take a label, and with another value of each setting of its own."""
    own = [field for field in fields(kind) if field not in fields(Objective)]
    ways = {"": {}, ", soft labels": {"soft_labels": True}, ", flip rates": {"flip_rates": FLIPS}}
    ways |= {f", other {field.name}": {field.name: 1.75 * field.default} for field in own}
    if not has_a_limit(kind):
        del ways[", flip rates"]  # refused: see test_flip_rates_are_refused_where_the_cost_has_no_limit
    return {kind.name + way: kind(0.3, 1.5, 0.7, **settings) for way, settings in ways.items()}


# whatever is in OBJECTIVES is tested by being there
EVERY_WAY = {name: objective for kind in OBJECTIVES.values() for name, objective in every_way(kind).items()}
each_objective = pytest.mark.parametrize("objective", EVERY_WAY.values(), ids=EVERY_WAY.keys())
each_kind = pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def examples_of(labels, *, p_desirable=None, weight=None, reference=None, prompt=None):
    """Rows in float64; what is not given is the label itself, weight 1, reference log-prob 0, a prompt of its own."""
    labels = torch.tensor(labels)
    filled = labels.double() if p_desirable is None else torch.tensor(p_desirable, dtype=torch.float64)
    ones, zeros = torch.ones(len(labels), dtype=torch.float64), torch.zeros(len(labels), dtype=torch.float64)
    return Examples(
        desirable=labels,
        p_desirable=filled,
        weight=ones if weight is None else torch.tensor(weight, dtype=torch.float64),
        reference_logps=zeros if reference is None else torch.tensor(reference, dtype=torch.float64),
        prompt=torch.arange(len(labels)) if prompt is None else torch.tensor(prompt),
    )


def five_rows():
    logps = torch.tensor([-3.0, 0.2, 4.0, 30.0, -12.0], dtype=torch.float64, requires_grad=True)
    rows = examples_of(
        [True, False, True, False, False],
        p_desirable=[0.9, 0.4, 0.0, 1.0, 0.25],
        weight=[1.0, 2.0, 0.5, 3.0, 1.0],
        reference=[-1.0, 0.0, 1.0, 2.0, -2.0],
        prompt=[0, 0, 1, 1, 1],
    )
    return logps, rows


def loss_at(objective, log_ratio, desirable, shift=0.0, **row):
    """The loss of one row with reference log-prob 0."""
    row = {name: [value] for name, value in row.items()}
    logps = torch.tensor([log_ratio], dtype=torch.float64)
    return objective.loss(logps, examples_of([desirable], **row), torch.tensor(shift, dtype=torch.float64)).item()


def pull_at(objective, log_ratio, desirable):
    logps = torch.tensor([log_ratio], dtype=torch.float64)
    return objective.gradient_weight(logps, examples_of([desirable]), torch.tensor(0.0, dtype=torch.float64)).item()


# every objective


@each_objective
def test_gradient_equals_finite_differences(objective):
    logps, rows = five_rows()
    assert torch.autograd.gradcheck(lambda x: objective.loss(x, rows, SHIFT), (logps,))


@each_kind
def test_a_soft_label_that_is_sure_is_the_label(kind):
    """What treatments that turn labels are trained with: the labels as given, and soft ones that say otherwise and are sure."""
    logps, rows = five_rows()
    meant = torch.tensor([False, False, True, True, False])
    sure = replace(rows, p_desirable=meant.double())
    plain = replace(rows, desirable=meant)
    losses = [kind(0.3, 1.5, 0.7, soft_labels=soft).loss(logps, of, SHIFT) for soft, of in ((True, sure), (False, plain))]
    assert torch.equal(*losses)


@each_objective
def test_gradient_weight_is_the_gradient_signed_and_carries_none_itself(objective):
    logps, rows = five_rows()
    objective.loss(logps, rows, SHIFT).sum().backward()
    weight = objective.gradient_weight(logps, rows, SHIFT)
    torch.testing.assert_close(weight, logps.grad, rtol=1e-12, atol=1e-15)
    assert not weight.requires_grad


@each_objective
def test_rows_weight_scales_loss_and_gradient_weight(objective):
    logps, rows = five_rows()
    thrice = Examples(rows.desirable, rows.p_desirable, 3 * rows.weight, rows.reference_logps, rows.prompt)
    torch.testing.assert_close(objective.loss(logps, thrice, SHIFT), 3 * objective.loss(logps, rows, SHIFT))
    expected = 3 * objective.gradient_weight(logps, rows, SHIFT)
    torch.testing.assert_close(objective.gradient_weight(logps, thrice, SHIFT), expected)


@each_objective
def test_whole_prompts_of_a_batch_cost_what_they_cost_in_it(objective):
    logps, rows = five_rows()
    whole = objective.loss(logps, rows, SHIFT)
    for part in (slice(0, 2), slice(2, 5), [4, 2, 3], *([] if objective.contrasts else [[4, 0, 3]])):
        assert torch.equal(objective.loss(logps[part], rows[part], SHIFT), whole[part])


@each_objective
def test_lengths_that_differ_are_named(objective):
    logps, rows = five_rows()
    with pytest.raises(ShapeError, match=r"policy_logps \[5\], reference_logps \[3\], desirable \[3\]"):
        objective.loss(logps, rows[:3], SHIFT)
    with pytest.raises(ShapeError, match=r"policy_logps \[3\], reference_logps \[5\], desirable \[5\]"):
        objective.gradient_weight(logps[:3], rows, SHIFT)


@each_objective
@pytest.mark.parametrize("log_ratio", [-3e4, 3e4])
def test_far_away_loss_and_gradient_stay_finite_in_float32(objective, log_ratio):
    labels = torch.tensor([True, False])
    rows = Examples(labels, labels.float(), torch.ones(2), torch.zeros(2), torch.arange(2))
    logps = torch.full((2,), log_ratio, requires_grad=True)
    loss = objective.loss(logps, rows, torch.tensor(0.0))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all() and logps.grad.isfinite().all()
    assert objective.gradient_weight(logps, rows, torch.tensor(0.0)).isfinite().all()


@each_kind
@given(log_ratio=nats, label=st.booleans(), shift=st.floats(0, 20), beta=st.floats(0.01, 2))
def test_turning_labels_log_ratios_and_shift_round_changes_nothing(kind, log_ratio, label, shift, beta):
    there, back = loss_at(kind(beta), log_ratio, label, shift), loss_at(kind(beta), -log_ratio, not label, -shift)
    assert there == pytest.approx(back, rel=1e-12, abs=1e-12)


@each_kind
@given(log_ratio=nats, label=st.booleans(), shift=st.floats(0, 20), more=st.floats(-10, 10))
def test_only_the_log_ratio_over_the_shift_counts(kind, log_ratio, label, shift, more):
    """An objective whose shift is always 0 takes no notice of the one that it is given."""
    moved_ratio = log_ratio if kind.point == "zero" else log_ratio + more
    there, moved = loss_at(kind(), log_ratio, label, shift), loss_at(kind(), moved_ratio, label, shift + more)
    assert there == pytest.approx(moved, rel=1e-9, abs=1e-9)


@each_kind
@given(log_ratio=nats, more=st.floats(0.5, 10))
def test_the_loss_falls_towards_the_label_and_its_gradient_points_there(kind, log_ratio, more):
    assert loss_at(kind(), log_ratio + more, True) < loss_at(kind(), log_ratio, True)
    assert loss_at(kind(), log_ratio + more, False) > loss_at(kind(), log_ratio, False)
    assert pull_at(kind(), log_ratio, True) < 0 < pull_at(kind(), log_ratio, False)


@each_objective
@given(margin=st.floats(-700, 700))
def test_a_cost_lies_between_zero_and_its_limit(objective, margin):
    cost = objective.cost(torch.tensor([margin], dtype=torch.float64)).item()
    assert -1e-12 <= cost <= objective.max_cost * (1 + 1e-12)


@each_objective
def test_the_limit_of_a_cost_is_reached_by_rows_that_contradict_their_label_and_zero_by_rows_that_fit(objective):
    costs = objective.cost(torch.tensor([-700.0, 700.0], dtype=torch.float64)).tolist()
    assert costs[0] == pytest.approx(objective.max_cost) if math.isfinite(objective.max_cost) else costs[0] >= 700
    assert costs[1] == pytest.approx(0, abs=1e-12)


@each_kind
@pytest.mark.parametrize("label", [True, False])
def test_the_weight_of_a_label_scales_its_rows_and_no_other(kind, label):
    plain, heavy = kind(0.3), kind(0.3, **{"desirable_weight" if label else "undesirable_weight": 3.0})
    assert loss_at(heavy, 2.0, label, 1.0) == pytest.approx(3 * loss_at(plain, 2.0, label, 1.0))
    assert loss_at(heavy, 2.0, not label, 1.0) == loss_at(plain, 2.0, not label, 1.0)


@each_kind
@given(log_ratio=nats, shift=st.floats(0, 20), flips=rates, weights=st.tuples(st.floats(0, 5), st.floats(0, 5)))
def test_the_mean_over_flips_is_the_clean_loss(kind, log_ratio, shift, flips, weights):
    if not has_a_limit(kind):
        return
    clean, corrected = kind(0.1, *weights), kind(0.1, *weights, flip_rates=flips)
    for truly, rate in ((True, flips["desirable"]), (False, flips["undesirable"])):
        as_given, flipped = (loss_at(corrected, log_ratio, given, shift) for given in (truly, not truly))
        assert (1 - rate) * as_given + rate * flipped == pytest.approx(loss_at(clean, log_ratio, truly, shift), abs=1e-9)


@each_kind
def test_without_flips_the_correction_changes_nothing(kind):
    if not has_a_limit(kind):
        return
    logps, rows = five_rows()
    corrected = kind(flip_rates={"desirable": 0.0, "undesirable": 0.0})
    assert torch.equal(corrected.loss(logps, rows, SHIFT), kind().loss(logps, rows, SHIFT))


@each_kind
def test_flip_rates_are_refused_where_the_cost_has_no_limit(kind):
    if has_a_limit(kind):
        assert kind(flip_rates=FLIPS).flip_rates == FLIPS
        return
    with pytest.raises(SettingError, match=f"loss of {kind.name}.*-infinity.*soft_labels"):
        kind(flip_rates=FLIPS)


# KTO


def test_kto_loss_by_hand():
    """kl = 10, beta = 0.1
    desirable,   log ratio  10:  0.1 * ( 10 - 10) = 0   ->  1 - sigmoid(0) = 0.5
    undesirable, log ratio -10:  0.1 * ( 10 + 10) = 2   ->  1 - sigmoid(2) = 0.1192
    """
    loss = kto_loss(torch.tensor([10.0, -10.0]), torch.zeros(2), torch.tensor([True, False]), torch.tensor(10.0))
    torch.testing.assert_close(loss, torch.tensor([0.5, 0.1192]), atol=1e-4, rtol=0)


def test_weights_may_be_one_number_or_one_for_each_row():
    logps, labels, kl = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True]), torch.tensor(0.5)
    plain = kto_loss(logps, torch.zeros(3), labels, kl)
    by_class = kto_loss(logps, torch.zeros(3), labels, kl, desirable_weight=2.0, undesirable_weight=3.0)
    by_row = kto_loss(
        logps,
        torch.zeros(3),
        labels,
        kl,
        desirable_weight=torch.tensor([2.0, 9, 4]),
        undesirable_weight=torch.tensor([9.0, 3, 9]),
    )
    torch.testing.assert_close(by_class, plain * torch.tensor([2.0, 3, 2]))
    torch.testing.assert_close(by_row, plain * torch.tensor([2.0, 3, 4]))


def test_before_training_every_row_costs_half_its_weight():
    rows = examples_of([True, False], weight=[2.0, 1.0])
    loss = Kto(undesirable_weight=3.0).loss(torch.zeros(2, dtype=torch.float64), rows, torch.tensor(0.0))
    assert loss.tolist() == [1.0, 1.5]


@given(nats, st.floats(0, 20))
def test_the_two_labels_of_one_row_cost_one_together(log_ratio, kl):
    both = kto_loss(torch.full((2,), log_ratio), torch.zeros(2), torch.tensor([True, False]), torch.tensor(kl))
    torch.testing.assert_close(both.sum(), torch.tensor(1.0))


def test_kto_gradient_weight_by_hand():
    """beta 0.1, log-ratio 30, kl 10, weight 2: sigmoid(2) = 0.8808; 2 x 0.1 x 0.8808 x 0.1192 = 0.0210, up or down"""
    logps, labels, kl = torch.tensor([30.0, 30.0]), torch.tensor([True, False]), torch.tensor(10.0)
    pulls = kto_gradient_weight(logps, torch.zeros(2), labels, kl, desirable_weight=2.0, undesirable_weight=2.0)
    torch.testing.assert_close(pulls, torch.tensor([-0.0210, 0.0210]), atol=1e-4, rtol=0)


def test_reference_point_by_hand():
    """ratios 1, 2, 6: mean 3, standard deviation sqrt((4 + 1 + 9) / 2) = 2.6458, error 2.6458 / sqrt(3) = 1.5275"""
    z0 = reference_point(torch.tensor([1.0, 2.0, 6.0], requires_grad=True))
    assert (z0.value.item(), z0.unclamped.item()) == (3.0, 3.0)
    assert z0.standard_error.item() == pytest.approx(1.5275, abs=1e-4)
    assert not z0.value.requires_grad


def test_reference_point_is_clamped_after_pooling():
    """micro-batches (4, 4) and (-6, -6): pooled mean -1 -> 0; clamping each first would give (4 + 0) / 2 = 2"""
    z0 = reference_point(torch.tensor([4.0, 4.0, -6.0, -6.0]))
    assert (z0.value.item(), z0.unclamped.item()) == (0.0, -1.0)


# flip rates


def test_flip_rates_by_hand():
    """d = 0.1, u = 0.3, Z = 0.6; log-ratio 0: both labels cost 0.5 x weight, D = 2, U = 1
    desirable:   q = (1 - 0.3) / 0.6 =  7/6:   7/6 x 2 x 0.5 - 1/6 x 1 x 0.5 = 1.0833
    undesirable: q =     - 0.3 / 0.6 = -1/2:  -1/2 x 2 x 0.5 + 3/2 x 1 x 0.5 = 0.25
    """
    corrected = Kto(desirable_weight=2.0, flip_rates=FLIPS)
    assert loss_at(corrected, 0.0, True) == pytest.approx(13 / 12)
    assert loss_at(corrected, 0.0, False) == pytest.approx(0.25)


@given(flips=rates, weights=st.tuples(st.floats(0, 5), st.floats(0, 5)))
def test_for_kto_flip_rates_are_other_weights_of_the_labels(flips, weights):
    (big, small), (d, u) = weights, flips.values()
    z = 1 - d - u
    logps, rows = five_rows()
    corrected = Kto(0.3, big, small, flip_rates=flips)
    reweighted = Kto(0.3, ((1 - u) * big + d * small) / z, ((1 - d) * small + u * big) / z)
    expected = reweighted.gradient_weight(logps, rows, SHIFT)
    torch.testing.assert_close(corrected.gradient_weight(logps, rows, SHIFT), expected, rtol=1e-9, atol=1e-12)


def test_equal_flip_rates_and_weights_only_rescale_ktos_gradient():
    """d = u = 0.2: 1 / (1 - 0.4) = 1.6667"""
    logps, rows = five_rows()
    corrected = Kto(flip_rates={"desirable": 0.2, "undesirable": 0.2}).gradient_weight(logps, rows, SHIFT)
    torch.testing.assert_close(corrected, Kto().gradient_weight(logps, rows, SHIFT) / 0.6)


# Hoelder


def test_hoelder_by_hand():
    """gamma 2, margin 0, m = 1/2: cost 4 x (1/6 - 1/8 + 1/24) = 1/3; pull 4 x 1/4 x 1/4 = 1/4, as KTO's there"""
    assert loss_at(KtoHoelder(1.0), 0.0, True) == pytest.approx(1 / 3)
    assert pull_at(KtoHoelder(1.0), 0.0, True) == pytest.approx(-0.25)
    assert pull_at(Kto(1.0), 0.0, True) == pytest.approx(-0.25)


@given(margin=st.floats(-30, 30))
def test_hoelder_of_gamma_two_pulls_as_four_times_ktos_pull_squared(margin):
    assert pull_at(KtoHoelder(1.0), margin, False) == pytest.approx(4 * pull_at(Kto(1.0), margin, False) ** 2)


@pytest.mark.parametrize("gamma", [1.5, 2.0, 3.0, 5.0])
def test_hoelder_lets_go_of_rows_that_contradict_their_label_faster_than_kto(gamma):
    """Pull against KTO's, for margins -2, -4, ..., -30: falls at every step, and in the end by e^-2(gamma - 1) a step."""
    share = [pull_at(KtoHoelder(1.0, holder_gamma=gamma), u, True) / pull_at(Kto(1.0), u, True) for u in range(-2, -31, -2)]
    assert all(later < earlier for earlier, later in pairwise(share))
    assert share[-1] / share[-2] == pytest.approx(math.exp(-2 * (gamma - 1)), rel=1e-3)
    assert abs(pull_at(KtoHoelder(1.0, holder_gamma=gamma), -30.0, True)) < 1e-18


def test_bco_does_not_let_go():
    assert pull_at(Bco(1.0), -30.0, True) == pytest.approx(-1.0)


# APO-zero


def test_apo_zero_by_hand_whatever_the_shift():
    """beta 0.5: desirable, log-ratio 2: 1 - sigmoid(1) = 0.2689; undesirable: sigmoid(1) = 0.7311"""
    for shift in (0.0, 7.0):
        assert loss_at(ApoZero(0.5), 2.0, True, shift) == pytest.approx(0.2689, abs=1e-4)
        assert loss_at(ApoZero(0.5), 2.0, False, shift) == pytest.approx(0.7311, abs=1e-4)


def test_apo_zero_is_kto_with_its_reference_point_at_zero():
    logps, rows = five_rows()
    zero = torch.tensor(0.0)
    assert torch.equal(ApoZero(0.3).loss(logps, rows, SHIFT), Kto(0.3).loss(logps, rows, zero))
    assert torch.equal(ApoZero(0.3).gradient_weight(logps, rows, SHIFT), Kto(0.3).gradient_weight(logps, rows, zero))


# BCO


def test_bco_by_hand():
    """beta 0.5, delta 1, so shift 2 nats; log-ratio 4: reward 2, margin 1
    desirable: -ln sigmoid(1) = 0.3133;   undesirable: -ln sigmoid(-1) = 1.3133
    """
    assert loss_at(Bco(0.5), 4.0, True, shift=2.0) == pytest.approx(0.3133, abs=1e-4)
    assert loss_at(Bco(0.5), 4.0, False, shift=2.0) == pytest.approx(1.3133, abs=1e-4)


def test_running_mean_by_hand():
    """rewards 1, 3 then 5: 0 before any, then (1 + 3) / 2 = 2, then (1 + 3 + 5) / 3 = 3"""
    mean = RunningMean()
    values = [mean.value]
    for rewards in ([1.0, 3.0], [], [5.0]):
        mean.update(torch.tensor(rewards, requires_grad=True))
        values.append(mean.value)
    assert values == [0.0, 2.0, 2.0, 3.0]


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20))
def test_running_mean_goes_on_from_a_checkpoint_to_the_last_bit(rewards):
    mean, resumed = RunningMean(), RunningMean()
    mean.update(torch.tensor(rewards))
    resumed.restore(json.loads(json.dumps(mean.state())))
    assert resumed.value == mean.value
    for each in (mean, resumed):
        each.update(torch.tensor([0.1]))
    assert resumed.state() == mean.state()


# the hybrid


def test_without_siblings_the_hybrid_is_kto_to_the_last_bit():
    logps, rows = five_rows()
    apart = replace(rows, prompt=torch.arange(5))
    for way in ("loss", "gradient_weight"):
        assert torch.equal(*(getattr(kind(0.3, 1.5, 0.7), way)(logps, apart, SHIFT) for kind in (Kto, KtoHybrid)))


def test_with_siblings_of_one_label_only_the_hybrid_is_kto():
    logps, rows = five_rows()
    alike = replace(rows, desirable=torch.tensor([True, True, False, False, False]))
    assert torch.equal(*(kind(0.3).loss(logps, alike, SHIFT) for kind in (Kto, KtoHybrid)))


def test_of_pairs_only_the_hybrid_is_dpo():
    """Mean over the rows = mean over all pairs of -log sigmoid(beta x (log-ratio of the better - that of the worse))."""
    logps = torch.tensor([-3.0, 0.2, 4.0, 30.0, -12.0, 1.0], dtype=torch.float64, requires_grad=True)
    reference = [-1.0, 0.0, 1.0, 2.0, -2.0, 0.5]
    rows = examples_of([True, False, False, True, True, False], reference=reference, prompt=[7, 7, 2, 2, 2, 2])
    ratio = logps - torch.tensor(reference, dtype=torch.float64)
    pairs = [[(0, 1)], [(3, 2), (3, 5), (4, 2), (4, 5)]]  # of a prompt of two rows, of one of four
    dpo = [torch.stack([-torch.nn.functional.logsigmoid(0.3 * (ratio[i] - ratio[j])) for i, j in of]).mean() for of in pairs]
    expected = (2 * dpo[0] + 4 * dpo[1]) / 6
    pairs_alone = KtoHybrid(0.3, row_weight=0.0)
    loss = pairs_alone.loss(logps, rows, SHIFT).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for gradient, wanted in zip(
        *(torch.autograd.grad(value, logps, retain_graph=True) for value in (loss, expected)), strict=True
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-15)
    twice = KtoHybrid(0.3, pair_weight=2.0, row_weight=0.0).loss(logps, rows, SHIFT)
    torch.testing.assert_close(twice.mean(), 2 * expected)


def test_the_hybrid_is_kto_of_every_row_and_the_pairs_beside_it():
    """Also in its gradient, and by either weight."""
    logps, rows = five_rows()
    rows = replace(rows, prompt=torch.tensor([0, 0, 2, 3, 4]))
    for way in ("loss", "gradient_weight"):
        kto, pairs, both = (
            getattr(objective, way)(logps, rows, SHIFT)
            for objective in (Kto(0.3), KtoHybrid(0.3, row_weight=0.0), KtoHybrid(0.3, row_weight=0.5))
        )
        alone = kto == pairs  # those without siblings
        assert 0 < alone.sum() < 5
        torch.testing.assert_close(both, torch.where(alone, kto, pairs + 0.5 * kto))


def test_a_pair_of_the_hybrid_weighs_as_the_mean_of_its_sides():
    """Soft labels 0.9 and 0.4: a pull of beta / 2 x (0.8 + 0.2) on either, up and down."""
    rows = examples_of([False, True], p_desirable=[0.9, 0.4], prompt=[3, 3])
    pull = KtoHybrid(0.3, row_weight=0.0, soft_labels=True).gradient_weight(torch.zeros(2, dtype=torch.float64), rows, SHIFT)
    torch.testing.assert_close(pull, torch.tensor([-0.15, 0.15], dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"undesirable_weight": 0.0}, {}),
        ({"desirable_weight": 0.0, "row_weight": 0.5}, {}),
        ({}, {"weight": [1.0, 0.0, 2.0, 0.0, 0.5]}),
        ({"row_weight": 0.0}, {"weight": [0.0, 0.0, 2.0, 1.0, 0.0]}),
        ({"soft_labels": True}, {"p_desirable": [0.9, 0.5, 0.5, 0.2, 0.4]}),
    ],
)
def test_the_gradient_of_the_hybrid_holds_where_siblings_weigh_nothing(settings, terms):
    """By autograd: a row of weight 0 has no loss, and is pulled by what its siblings lose."""
    logps = torch.tensor([-3.0, 0.2, 4.0, 3.0, -2.0], dtype=torch.float64, requires_grad=True)
    rows = examples_of([True, False, True, False, False], prompt=[0, 0, 1, 1, 1])
    rows = replace(rows, **{name: torch.tensor(values, dtype=torch.float64) for name, values in terms.items()})
    objective = KtoHybrid(**settings)
    (expected,) = torch.autograd.grad(objective.loss(logps, rows, SHIFT).sum(), logps)
    assert expected.any()
    torch.testing.assert_close(objective.gradient_weight(logps, rows, SHIFT), expected, rtol=1e-9, atol=1e-12)


def test_what_is_wrong_about_a_whole_prompt_cancels_in_the_hybrid():
    logps, rows = five_rows()
    beside = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64) * 17
    pairs = KtoHybrid(0.3, row_weight=0.0)
    torch.testing.assert_close(pairs.loss(logps + beside, rows, SHIFT), pairs.loss(logps, rows, SHIFT))


# settings


@each_kind
def test_make_objective_hands_its_settings_on(kind):
    made = make_objective(kind.name, beta=0.2, desirable_weight=2.0, undesirable_weight=3.0, soft_labels=True, flip_rates=None)
    assert made == kind(0.2, 2.0, 3.0, soft_labels=True)


def test_fit_takes_the_names_of_all_objectives_and_no_other():
    for name in OBJECTIVES:
        assert check_settings(fit, {"model": "m", "objective": name}, where="fit")["objective"] == name
    with pytest.raises(SettingError, match=r"fit: objective: it should be 'kto', .*got 'dpo'"):
        check_settings(fit, {"model": "m", "objective": "dpo"}, where="fit")


@each_kind
def test_every_setting_of_an_objective_is_a_setting_of_fit(kind):
    assert {field.name for field in fields(kind)} <= set(settings_of(fit))


def test_where_the_shift_of_an_objective_comes_from():
    points = {
        "kto": "mismatched",
        "kto_hoelder": "mismatched",
        "kto_hybrid": "mismatched",
        "apo_zero": "zero",
        "bco": "running_mean",
    }
    assert {name: OBJECTIVES[name].point for name in points} == points


def test_make_objective_hands_flip_rates_and_holder_gamma_on():
    made = make_objective("kto_hoelder", flip_rates=FLIPS, holder_gamma=3.0)
    assert made == KtoHoelder(flip_rates=FLIPS, holder_gamma=3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dpo"}, f"objective is one of {', '.join(OBJECTIVES)}; got 'dpo'"),
        ({"name": "kto", "beta": 0.0}, "beta is a number > 0; got 0.0"),
        ({"name": "kto", "beta": math.nan}, "beta is a number > 0; got nan"),
        ({"name": "bco", "desirable_weight": -1.0}, "desirable_weight is a number >= 0; got -1.0"),
        ({"name": "kto", "undesirable_weight": math.inf}, "undesirable_weight is a number >= 0; got inf"),
        ({"name": "kto_hoelder", "holder_gamma": -1.0}, r"holder_gamma is a number > 1 .*; got -1.0"),
        ({"name": "kto_hoelder", "holder_gamma": 1.0}, r"no row is let go faster than by kto.*; got 1.0"),
        ({"name": "kto_hybrid", "pair_weight": 0.0}, "pair_weight is a number > 0; got 0.0"),
        ({"name": "kto_hybrid", "row_weight": -1.0}, "row_weight is a number >= 0; got -1.0"),
        ({"name": "kto", "pair_weight": 2.0}, "pair_weight is a setting of kto_hybrid, and the objective is kto"),
        ({"name": "kto", "holder_gamma": 2.0}, "holder_gamma is a setting of kto_hoelder, and the objective is kto"),
        (
            {"name": "kto", "flip_rates": {"desirable": 0.5, "undesirable": 0.5}},
            "is 1; it must be below 1. At 1 the labels say nothing",
        ),
        ({"name": "kto", "flip_rates": {"desirable": 0.9, "undesirable": 0.3}}, "is 1.2; it must be below 1"),
        ({"name": "kto", "flip_rates": {"desirable": -0.1, "undesirable": 0.3}}, r"desirable is a share in \[0, 1\).*got -0.1"),
        (
            {"name": "kto", "flip_rates": {"desirable": 0.1, "undesirable": math.nan}},
            r"undesirable is a share in \[0, 1\).*got nan",
        ),
        ({"name": "kto", "flip_rates": {"desirable": 0.1}}, "flip_rates holds desirable and undesirable, a rate each; got"),
        ({"name": "kto", "flip_rates": FLIPS, "soft_labels": True}, "Give one"),
        ({"name": "bco", "flip_rates": FLIPS}, "driven to -infinity. Use objective: kto or apo_zero"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        make_objective(**settings)


def test_lengths_that_differ_are_named_by_the_pure_loss():
    with pytest.raises(ShapeError, match=r"policy_logps \[2\], reference_logps \[3\], desirable \[2\]"):
        kto_loss(torch.zeros(2), torch.zeros(3), torch.ones(2, dtype=torch.bool), torch.tensor(0.0))
