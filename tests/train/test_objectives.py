import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ktodata.errors import ShapeError
from ktodata.train.objectives import Kto, kto_gradient_weight, kto_loss, reference_point

nats = st.floats(-50, 50)


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
    loss = Kto(undesirable_weight=3.0).loss(
        torch.zeros(2), torch.zeros(2), torch.tensor([True, False]), torch.tensor(0.0), torch.tensor([2.0, 1.0])
    )
    assert loss.tolist() == [1.0, 1.5]


@given(nats, st.booleans(), st.floats(0, 20))
def test_swapped_labels_with_negated_log_ratios_change_nothing_without_kl(log_ratio, label, beta):
    def at(ratio, desirable):
        return kto_loss(torch.tensor([ratio]), torch.zeros(1), torch.tensor([desirable]), torch.tensor(0.0), beta=beta)

    torch.testing.assert_close(at(log_ratio, label), at(-log_ratio, not label))


@given(nats, st.floats(0, 20))
def test_the_two_labels_of_one_row_cost_one_together(log_ratio, kl):
    both = kto_loss(torch.full((2,), log_ratio), torch.zeros(2), torch.tensor([True, False]), torch.tensor(kl))
    torch.testing.assert_close(both.sum(), torch.tensor(1.0))


@given(nats, st.floats(0, 20), st.booleans())
def test_shifting_policy_and_kl_alike_changes_nothing(log_ratio, kl, label):
    def at(shift):
        return kto_loss(torch.tensor([log_ratio + shift]), torch.zeros(1), torch.tensor([label]), torch.tensor(kl + shift))

    torch.testing.assert_close(at(0.0), at(3.0), atol=1e-5, rtol=1e-5)


def test_gradient_equals_finite_differences_and_the_reported_gradient_weight():
    logps = torch.tensor([-3.0, 0.2, 4.0, 30.0], dtype=torch.float64, requires_grad=True)
    ref, labels = torch.tensor([-1.0, 0, 1, 2], dtype=torch.float64), torch.tensor([True, False, True, False])
    kl, weight = torch.tensor(1.5, dtype=torch.float64), torch.tensor([1.0, 2, 0.5, 3], dtype=torch.float64)
    settings = {"desirable_weight": weight, "undesirable_weight": weight, "beta": 0.3}
    assert torch.autograd.gradcheck(lambda x: kto_loss(x, ref, labels, kl, **settings), (logps,))
    kto_loss(logps, ref, labels, kl, **settings).sum().backward()
    pull = kto_gradient_weight((logps - ref).detach(), kl, beta=0.3, weight=weight)
    torch.testing.assert_close(logps.grad, torch.where(labels, -pull, pull))


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


def test_lengths_that_differ_are_named():
    with pytest.raises(ShapeError, match=r"policy_logps \[2\], reference_logps \[3\], desirable \[2\]"):
        kto_loss(torch.zeros(2), torch.zeros(3), torch.ones(2, dtype=torch.bool), torch.tensor(0.0))
