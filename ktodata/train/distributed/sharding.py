"""Weights shared out over processes (FSDP2): each holds a part of every matrix; they are put together layer by layer when used.

Zhao et al. 2023, arXiv:2304.11277; torch.distributed.fsdp.fully_shard. Weights, gradients and AdamW's numbers then take a
process 1/size of the memory that a training alone needs.
"""

import os
from typing import Any

import torch
import torch.distributed as dist

from ktodata.errors import SettingError
from ktodata.train.distributed.mapped_weights import MappedWeights
from ktodata.train.model.frozen_layers import decoder_layers

Tensor = Any


def check_can_shard(settings: dict[str, Any]) -> None:
    """Raise SettingError for settings that sharded weights do not go with."""
    lora, instead = settings["lora"], "or give parallel='ddp'."
    if settings["optimizer"] != "adamw":
        raise SettingError(f"optimizer {settings['optimizer']!r} cannot be shared out over processes: use 'adamw', {instead}")
    if lora is not None and "quantize" in lora:
        raise SettingError(f"a model held in 4 bits cannot be shared out over processes: leave lora.quantize out, {instead}")
    if settings["trainable_layers"] is not None and settings["activation_cache_mb"] > 0:
        raise SettingError(
            "parallel fsdp runs every layer in every pass, so it keeps no states of frozen layers: give activation_cache_mb=0 "
            f"with trainable_layers, {instead}"
        )


def shard(packed_model: Any, *, weights: MappedWeights, device: Any, compute_dtype: Any, each_machine: bool = False) -> Any:
    """`packed_model` (a PackedModel) with each decoder layer, and then the rest, shared out over the default process group.

    each_machine : shared out over the processes of each machine, so that every machine has all of it once (HSDP): layers are put
        together within a machine, and between machines only gradients travel

    A layer gets its values from `weights`, and is shared out before the next one does: none but it is whole in float32. They go
    to `device` and stay float32; matrices of layers travel in `compute_dtype`, those outside of layers (embeddings, head) in
    float32: each product is that of a training alone. Gradients are float32 sums over all processes. Norms and biases, few as
    they are, every process has whole, in float32: their gradients are for `Distributed.sum_gradients` to sum.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = _mesh(device.type, each_machine=each_machine)
    # inputs are left alone: autocast rounds what each product takes, and the residual stream stays float32
    in_layers = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    elsewhere = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    vectors = {parameter for parameter in packed_model.parameters() if parameter.ndim < 2}
    weights.fill(vectors)
    for vector in vectors:
        vector.data = vector.data.to(device)
    for layer in decoder_layers(packed_model.model)[0]:
        weights.fill(layer.parameters())
        fully_shard(layer, mesh=mesh, mp_policy=in_layers, ignored_params=vectors)
    weights.fill(packed_model.parameters())
    # by itself the root would keep its weights whole after a pass, and an optimizer made then would hold those
    fully_shard(packed_model, mesh=mesh, mp_policy=elsewhere, reshard_after_forward=True, ignored_params=vectors)
    for name in ("padded", "plain", "measure_form", "own_router_loss"):
        register_fsdp_forward_method(packed_model, name)
    for part in packed_model.modules():
        if isinstance(part, FSDPModule):
            # a plain sum: the loss is already divided by the rows of the whole step
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    return packed_model


def _mesh(device_type: str, *, each_machine: bool) -> Any:
    """The processes in a row; or a row for each machine."""
    from torch.distributed.device_mesh import init_device_mesh

    size = dist.get_world_size()
    if not each_machine:
        return init_device_mesh(device_type, (size,))
    here = processes_here()
    return init_device_mesh(device_type, (size // here, here), mesh_dim_names=("machines", "processes"))


def processes_here() -> int:
    """How many processes torchrun started on this machine; 0 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "0"))


def clip_gradients(parameters: list[Tensor], longest: float) -> Tensor:
    """Scale all gradients down where their joint norm is above `longest`. Returns the norm before: float [], the same in all."""
    parameters = [parameter for parameter in parameters if parameter.grad is not None]  # an expert that no token went to
    shared = [parameter for parameter in parameters if is_sharded(parameter)]
    own = [parameter for parameter in parameters if not is_sharded(parameter)]
    kinds = [kind for kind in (shared, own) if kind]
    norms = [whole(torch.nn.utils.get_total_norm([parameter.grad for parameter in kind])) for kind in kinds]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, longest, norm)
    return norm


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of the tensor only."""
    return hasattr(tensor, "full_tensor")


def recover(packed_model: Any) -> None:
    """Make a model usable again after a pass through it has failed; of no effect on one that is not sharded."""
    if hasattr(packed_model, "reset_iter_state"):
        packed_model.reset_iter_state()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out, put together; any other as it is. Every process must call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that is shared out; all of any other."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, whole and the same in every process, on the device of `like` and shared out as that is; a share stays."""
    if is_sharded(tensor):
        return tensor
    tensor = tensor.to(like.device)
    if not is_sharded(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
