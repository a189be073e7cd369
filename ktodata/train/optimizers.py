"""AdamW in the precisions that it comes in, and its state as plain tensors."""

import weakref
from typing import Any

import torch

from ktodata.errors import SettingError
from ktodata.extras import require
from ktodata.train.setting_tables import OptimizerName

Tensor = Any

# where torch has a kernel that updates all parameters in one pass; elsewhere it loops over them, with the same result
FUSED = ("cpu", "cuda")


def make_optimizer(model: Any, name: OptimizerName, *, weight_decay: float) -> Any:
    """AdamW over what trains in `model`, at a learning rate of 0: the loop sets the rate at every step.

    name : "adamw" keeps two float32 numbers a weight. "adamw_8bit" keeps two bytes, with scales for every 256 weights (Dettmers
        et al. 2022, arXiv:2110.02861), on cpu or cuda; embeddings, as in the paper, and tensors of fewer than 4,096 weights
        stay in float32. "adamw_paged_8bit" also lets that state move to the host's memory when the device's is full: cuda.
    weight_decay : fraction of a weight, times the learning rate, taken off at every update; matrices only, as decaying norms
        and biases shrinks what is not redundant.

    Raises SettingError for a device that `name` does not work on, MissingExtraError when bitsandbytes is not installed.
    """
    groups = _parameter_groups(model, weight_decay)
    device = groups[0]["params"][0].device.type
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=device in FUSED)
    check_optimizer(name, device)
    import bitsandbytes

    kind = bitsandbytes.optim.PagedAdamW8bit if name == "adamw_paged_8bit" else bitsandbytes.optim.AdamW8bit
    optimizer = kind(groups, lr=0.0)
    _keep_embeddings_in_float32(optimizer, model)
    return optimizer


def check_optimizer(name: OptimizerName, device: str) -> None:
    """Raise SettingError or MissingExtraError when `name` cannot work on a `device` of this type ("cpu", "cuda", ...)."""
    if name == "adamw":
        return
    require("bitsandbytes", what=f"optimizer {name!r}", extra="quantize")
    works_on = ("cuda",) if name == "adamw_paged_8bit" else ("cpu", "cuda")
    if device not in works_on:
        instead = "adamw_8bit" if device in ("cpu", "cuda") else "adamw"
        raise SettingError(f"optimizer {name!r} works on {' and '.join(works_on)}, not on {device}. Use {instead!r} there.")


def flat_state(optimizer: Any) -> dict[str, Tensor]:
    """What the optimizer has gathered, as "<number of the parameter>.<name>": tensor. Numbers count over all groups."""
    return {
        f"{number}.{name}": value.contiguous() if torch.is_tensor(value) else torch.tensor(value)
        for number, parameter in enumerate(parameters_of(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if not name.startswith("qmap")  # what each byte stands for: the same in every 8-bit optimizer, and shared in memory
    }


def load_flat_state(optimizer: Any, flat: dict[str, Tensor]) -> None:
    """Give a fresh optimizer over the same parameters what `flat_state` of another returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    if hasattr(optimizer, "init_state"):
        _fill_buffers(optimizer, state)
    else:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def parameters_of(optimizer: Any) -> list[Any]:
    """What it trains, over all groups, as `flat_state` numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _keep_embeddings_in_float32(optimizer: Any, model: Any) -> None:
    """Keep the state of embeddings in float32: their gradients are too uneven for bytes."""
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            weight = module.weight
            optimizer.mng.override_config(weight, "optim_bits", 32)
            # bitsandbytes keeps this for the whole process by id, and ids are given again once a parameter is gone
            weakref.finalize(weight, optimizer.mng.pid2config.pop, id(weight), None)


def _fill_buffers(optimizer: Any, state: dict[int, dict[str, Tensor]]) -> None:
    """Copy into buffers that bitsandbytes makes itself: its own loading would leave paged state unpaged."""
    places = [
        (group, parameter, first, second)
        for first, group in enumerate(optimizer.param_groups)
        for second, parameter in enumerate(group["params"])
    ]
    for number, saved in state.items():
        group, parameter, first, second = places[number]
        optimizer.init_state(group, parameter, first, second)
        own = optimizer.state[parameter]
        for name, value in saved.items():
            if torch.is_tensor(own[name]):
                own[name].copy_(value)
            else:
                own[name] = int(value)
