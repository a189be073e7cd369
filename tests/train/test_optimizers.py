"""Updates small enough to be lost, state in 8 bits, and a resume that goes on bit for bit."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama

from ktodata import extras
from ktodata.errors import MissingExtraError, SettingError
from ktodata.train.optimizers import check_optimizer, flat_state, load_flat_state, make_optimizer

EIGHT_BIT = pytest.param(
    "adamw_8bit", marks=pytest.mark.skipif(extras.find_spec("bitsandbytes") is None, reason="no bitsandbytes")
)


class Layers(torch.nn.Module):
    """An embedding, a matrix of 8,192 weights (enough for 8-bit state), a small one, a vector, and a frozen matrix."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(100, 64)
        self.large = torch.nn.Linear(64, 128, bias=False)
        self.small = torch.nn.Linear(128, 8)
        self.frozen = torch.nn.Linear(8, 8, bias=False).requires_grad_(False)

    def forward(self, ids):
        return self.frozen(self.small(self.large(self.embedding(ids)).tanh()))


def updates(model, optimizer, steps, *, rate=1e-2):
    for step in steps:
        ids = torch.randint(0, 100, (16,), generator=torch.Generator().manual_seed(step))
        for group in optimizer.param_groups:
            group["lr"] = rate
        (model(ids) - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def whole_loss(model):
    return float((model(torch.arange(100)) - 1).square().mean())


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_fused_adamw_steps_as_the_plain_one_does():
    fused, plain = Layers(), Layers()
    optimizer = make_optimizer(fused, "adamw", weight_decay=0.1)
    assert optimizer.defaults["fused"]
    updates(fused, optimizer, range(20))
    groups = [{**group, "lr": 0.0, "fused": None} for group in make_optimizer(plain, "adamw", weight_decay=0.1).param_groups]
    updates(plain, torch.optim.AdamW(groups, foreach=False), range(20))
    for name, value in weights(fused).items():
        torch.testing.assert_close(value, weights(plain)[name], rtol=1e-5, atol=1e-6)


def test_decay_holds_for_matrices_that_train_and_for_nothing_else():
    """No gradient at all, rate 0.1, decay 0.5: a matrix is multiplied by 1 - 0.1 * 0.5 = 0.95, a vector stays."""
    model = Layers()
    before = weights(model)
    optimizer = make_optimizer(model, "adamw", weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    undecayed = {"small.bias", "frozen.weight"}
    for name, value in weights(model).items():
        torch.testing.assert_close(value, before[name] * (1 if name in undecayed else 0.95))


@pytest.mark.parametrize("name", ["adamw", EIGHT_BIT])
def test_a_resume_from_a_file_goes_on_bit_for_bit(name, tmp_path):
    unbroken = Layers()
    updates(unbroken, make_optimizer(unbroken, name, weight_decay=0.1), range(9))

    killed = Layers()
    optimizer = make_optimizer(killed, name, weight_decay=0.1)
    updates(killed, optimizer, range(5))
    save_file(flat_state(optimizer), tmp_path / "optimizer.safetensors")
    resumed = Layers()
    resumed.load_state_dict(killed.state_dict())
    optimizer = make_optimizer(resumed, name, weight_decay=0.1)
    load_flat_state(optimizer, load_file(tmp_path / "optimizer.safetensors"))
    updates(resumed, optimizer, range(5, 9))
    for key, value in weights(resumed).items():
        assert torch.equal(value, weights(unbroken)[key]), key

    forgetful = Layers()
    forgetful.load_state_dict(killed.state_dict())
    updates(forgetful, make_optimizer(forgetful, name, weight_decay=0.1), range(5, 9))
    assert not torch.equal(forgetful.large.weight, unbroken.large.weight)  # so the state is what made them equal


@pytest.mark.parametrize("name", ["adamw", EIGHT_BIT])
def test_parameters_without_gradient_have_no_state_and_numbers_stay(name):
    model = Layers()
    optimizer = make_optimizer(model, name, weight_decay=0.0)
    model.small(torch.ones(1, 128)).sum().backward()  # neither embedding nor large
    optimizer.step()
    flat = flat_state(optimizer)
    assert {key.split(".")[0] for key in flat} == {"2", "3"}  # embedding 0, large 1, small 2, its bias 3
    fresh = make_optimizer(Layers(), name, weight_decay=0.0)
    load_flat_state(fresh, flat)
    assert flat_state(fresh).keys() == flat.keys()


def test_eight_bits_for_large_matrices_but_not_for_embeddings():
    pytest.importorskip("bitsandbytes")
    model = Layers()
    optimizer = make_optimizer(model, "adamw_8bit", weight_decay=0.0)
    updates(model, optimizer, range(1))
    dtypes = {name: optimizer.state[value]["state1"].dtype for name, value in model.named_parameters() if value.requires_grad}
    assert dtypes.pop("large.weight") == torch.uint8
    assert set(dtypes.values()) == {torch.float32}
    overrides, number = optimizer.mng.pid2config, id(model.embedding.weight)
    assert number in overrides
    del model, optimizer
    assert number not in overrides  # else the next parameter at that place would be treated as an embedding


def test_eight_bits_go_nearly_the_way_of_float32():
    """After 20 updates, while the loss still falls: the way of the matrix with 8-bit state is off by some per cent, not by none."""
    pytest.importorskip("bitsandbytes")
    losses, ways = {}, {}
    for name in ("adamw", "adamw_8bit"):
        model = Layers()
        start, before = model.large.weight.detach().clone(), whole_loss(model)
        updates(model, make_optimizer(model, name, weight_decay=0.0), range(20), rate=3e-3)
        losses[name], ways[name] = whole_loss(model), model.large.weight.detach() - start
    assert losses["adamw"] < 0.8 * before
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.01)
    assert 0.001 < (ways["adamw_8bit"] - ways["adamw"]).norm() / ways["adamw"].norm() < 0.05


@pytest.mark.parametrize(("weights_in", "share"), [(torch.float32, (0.99, 1)), (torch.bfloat16, (0, 0.05))])
def test_a_small_rate_moves_float32_weights_under_bfloat16_arithmetic(weights_in, share):
    """First update of AdamW: each weight moves by the rate, 1e-6. bfloat16 has 8 bits of precision: at 0.5 its steps are 2e-3."""
    model = tiny_llama(30).to(weights_in)
    before = weights(model)
    optimizer = make_optimizer(model, "adamw", weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=torch.randint(0, 30, (4, 12))).logits
    (-logits.float().log_softmax(-1)[..., 0].sum()).backward()
    reached = {name: value.grad != 0 for name, value in model.named_parameters()}
    optimizer.step()
    moved = sum(int((value != before[name])[reached[name]].sum()) for name, value in weights(model).items())
    low, high = share
    assert low <= moved / sum(int(mask.sum()) for mask in reached.values()) <= high


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"optimizer 'adamw_8bit' needs bitsandbytes: pip install 'ktodata\[quantize\]'"):
        make_optimizer(Layers(), "adamw_8bit", weight_decay=0.0)


def test_paged_state_is_refused_on_a_cpu_where_it_would_not_be_paged(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    with pytest.raises(SettingError, match=r"works on cuda, not on cpu\. Use 'adamw_8bit' there"):
        make_optimizer(Layers(), "adamw_paged_8bit", weight_decay=0.0)
    with pytest.raises(SettingError, match=r"works on cpu and cuda, not on mps\. Use 'adamw' there"):
        check_optimizer("adamw_8bit", "mps")
    check_optimizer("adamw", "mps")


def test_the_paged_kind_is_made_on_a_device_that_has_it(monkeypatch):
    """A stand-in for a CUDA device: which class is made, not that it works there."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr("ktodata.train.optimizers.check_optimizer", lambda name, device: None)
    optimizer = make_optimizer(Layers(), "adamw_paged_8bit", weight_decay=0.0)
    assert type(optimizer) is bitsandbytes.optim.PagedAdamW8bit
    assert optimizer.is_paged
