"""Tensors of several processes in one folder: each writes what it holds, and any number of processes reads what it needs.

torch.distributed.checkpoint (DCP): a file of each process, and `.metadata`, a pickle, which says where what is. Only folders that
this package wrote are read; go on from checkpoints of others as from code of others.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

Tensor = Any


def write_shards(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write tensors, {kind: {name: tensor}}, shared out or the same in all. Every process must call it, and sees the folder."""
    dcp.save(
        {f"{kind}/{name}": tensor for kind, named in tensors.items() for name, tensor in named.items()}, checkpoint_id=folder
    )


def read_shards(folder: Path, like: Mapping[str, Mapping[Any, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """What `write_shards` wrote of each kind in `like`, shared out over the processes of now. Every process must call it.

    like : {kind: {name, or number that names begin with: a tensor of this training}}. What has that tensor's size is read as far
        as this process holds the tensor, onto its device; anything else is read whole.
    """
    stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    places = {}
    for key, facts in stored.items():
        kind, name = key.split("/", 1)
        if kind in like:
            known = like[kind]
            places[key] = _place(known[name] if name in known else known[int(name.split(".")[0])], facts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is meant
        dcp.load(places, checkpoint_id=folder)
    return {kind: {key.split("/", 1)[1]: place for key, place in places.items() if key.startswith(f"{kind}/")} for kind in like}


def _place(like: Tensor, facts: Any) -> Tensor:
    if like.shape == facts.size:
        return torch.empty_like(like, dtype=facts.properties.dtype)
    return torch.empty(facts.size, dtype=facts.properties.dtype)
