"""How many tokens go through the model at once: no more than memory has room for, by a probe pass.

Losses are summed over the whole update and divided once (loop.py), so how it is cut into passes changes memory and speed only.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from ktodata.errors import is_out_of_memory
from ktodata.train.data.packing import Pair
from ktodata.train.model.scorer import Scorer, Work
from ktodata.train.state import trainable

Tensor = Any
# of the memory that is free: what else a pass needs for a moment, and what lies in pieces too small to be used
USED_SHARE = 0.6
# of each number that trains, in float32: its gradient and AdamW's two moments
BYTES_OF_TRAINED = 12
PROBED_ROWS = 4


def tokens_of_pass(scorer: Scorer, *, most: int, sharded: bool) -> int:
    """`most`, or as many tokens as there is room for.

    Weights that are shared out over processes are not probed: all processes would have to agree. The probe has no more than
    `most` tokens, or a row: else it would take more memory than the training after it.
    """
    if sharded:
        return most
    longest = np.argsort(-scorer.rows.lengths, kind="stable")[:PROBED_ROWS]
    longest = longest[: max(1, int((np.cumsum(scorer.rows.lengths[longest]) <= most).sum()))].tolist()
    trained = sum(tensor.numel() for tensor in trainable(scorer.model).values())
    room = USED_SHARE * (free_bytes(scorer.device) - BYTES_OF_TRAINED * trained)
    try:
        fitting = fitting_tokens(scorer, [(row, row) for row in longest], room)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fitting = int(scorer.rows.lengths.max())  # the probe was too large already: a row at a time
    return max(1, min(most, fitting))


def fitting_tokens(scorer: Scorer, pairs: Sequence[Pair], room: float) -> int:
    """Tokens of a pass that keeps no more than `room` bytes for its backward pass, by two passes over few and more of `pairs`."""
    (few, first), (more, second) = (kept_for_backward(scorer, part) for part in (pairs[:1], pairs))
    if more <= few or second <= first:  # one row, or all of one text
        return int(room * few / max(1, first))
    each = (second - first) / (more - few)
    return int((room - max(0.0, first - each * few)) / each)


def kept_for_backward(scorer: Scorer, pairs: Sequence[Pair]) -> tuple[int, int]:
    """(tokens computed in one pass, bytes that it keeps for its backward pass, weights left out)."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in scorer.model.parameters()}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    work, scorer.work = scorer.work, Work()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scorer(pairs)
    tokens, scorer.work = scorer.work.computed, work
    return tokens, sum(held.values())


def free_bytes(device: Any) -> int:
    """Memory that a training may still have: of the GPU with what torch holds unused, or of the host and its container."""
    if device.type != "cuda":
        return min(int(psutil.virtual_memory().available), *left_in_groups())
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


def left_in_groups(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes that may still be had in each control group around this process that has a limit, as a container's has; else [].

    What files of it are held in memory counts as free where nothing has used it for a while, as it is let go first.
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    left = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        inner = root / path.strip("/")  # outside of what a container sees of them, its own stands at the root
        for group in (inner, *(place for place in inner.parents if place.is_relative_to(root))):
            with suppress(OSError, ValueError):  # absent, or "max"
                limit, used = (int((group / name).read_text()) for name in names)
                left.append(max(0, limit - used + _idle_files(group)))
    return left


def _idle_files(group: Path) -> int:
    lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
