"""All that a killed training needs to go on as if nothing had happened: weights, optimizer, random state, results so far."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file

from ktodata.errors import RunError
from ktodata.files import (
    check_siblings,
    damage_speaks,
    discard,
    read_note,
    read_own_table,
    remove_leftovers,
    whole_folder,
    write_note,
)
from ktodata.train.distributed.interface import Distributed
from ktodata.train.distributed.sharded_tensors import read_shards, write_shards
from ktodata.train.distributed.sharding import shard_like
from ktodata.train.optimizers import flat_state, load_flat_state, parameters_of
from ktodata.train.state import State, Weights, trainable

SHARDS = "shards"  # the folder of a checkpoint of a model that is shared out
FILES = {"moments": "optimizer"}  # what is called otherwise in the checkpoint of one that is not


class Checkpoints:
    """Folders step-<updates made> in `folder`; one appears whole or not at all. Keeps the last, and the best by held-out AUC.

    Tensors are in safetensors files; those of a model that is shared out in a file of each process (sharded_tensors.py).

    key : names the training they belong to: its settings, rows and reference.
    """

    def __init__(self, folder: Path, key: str, distributed: Distributed) -> None:
        self.folder, self._key, self._distributed = folder, key, distributed

    def save(self, model: Any, optimizer: Any, state: State) -> None:
        """Write the checkpoint of `state.step`, then remove those that are neither the last nor the best.

        Every process must call it; the first one writes, and where weights are shared out each its own.
        """
        target = self.folder / f"step-{state.step:08d}"
        if self._distributed.is_sharded:
            self._save_sharded(target, model, optimizer, state)
        elif self._distributed.rank == 0:
            self._save_whole(target, model, optimizer, state)

    def _save_sharded(self, target: Path, model: Any, optimizer: Any, state: State) -> None:
        tensors = {"weights": trainable(model), "moments": flat_state(optimizer)}
        if state.best is not None:
            tensors["best"] = state.best.tensors
        first = self._distributed.rank == 0
        with whole_folder(target) if first else nullcontext() as own:
            scratch = self._distributed.broadcast(own)
            write_shards(scratch / SHARDS, tensors)
            if first:
                self._write_rest(scratch, state)
        if first:
            self._remove_others(target)

    def _save_whole(self, target: Path, model: Any, optimizer: Any, state: State) -> None:
        with whole_folder(target) as scratch:
            save_file(_on_host(trainable(model)), scratch / "weights.safetensors")
            save_file(_on_host(flat_state(optimizer)), scratch / "optimizer.safetensors")
            if state.best is not None:
                save_file(state.best.tensors, scratch / "best.safetensors")
            self._write_rest(scratch, state)
        self._remove_others(target)

    def _write_rest(self, scratch: Path, state: State) -> None:
        save_file(_random_state(), scratch / "random.safetensors")
        pl.concat(state.telemetry).write_parquet(scratch / "telemetry.parquet")
        progress = {
            "key": self._key,
            "step": state.step,
            "history": state.history,
            "held_out": state.held_out,
            "running": state.running.state(),
            "pass_tokens": state.pass_tokens,
            "template_day": state.template_day,
            "reference": state.reference,
            "work": state.work,
            "seconds": state.seconds_so_far,
            "has_best": state.best is not None,
        }
        write_note(scratch / "state.json", progress, sorted(scratch.iterdir()))

    def _remove_others(self, target: Path) -> None:
        remove_leftovers(self.folder)
        for folder in set(self._folders()) - {target, self._best()}:
            discard(folder)

    def restore(self, model: Any, optimizer: Any, state: State) -> bool:
        """Fill `model`, `optimizer` and `state` from the last checkpoint. False when there is none.

        Every process must call it, and read the same files. How many there are may change from one start to the next.

        A damaged one is passed over for the one before it. Raises RunError when the checkpoints belong to another training, or
        when processes find different ones.
        """
        checkpoints = self._folders()
        if not self._distributed.all_equal(str([folder.name for folder in checkpoints])):
            raise RunError(
                f"{self.folder} does not hold the same checkpoints for every process: give an out that all of them see."
            )
        if not checkpoints:
            return False
        saved = next((saved for folder in reversed(checkpoints) if (saved := self._read(folder, model, optimizer))), None)
        if saved is None:
            return False
        Weights(saved.weights).restore(model)
        load_flat_state(optimizer, _shared_out(saved.moments, optimizer))
        _set_random_state(saved.random)
        progress = saved.progress
        state.step, state.history, state.held_out = progress["step"], progress["history"], progress["held_out"]
        state.pass_tokens, state.reference = progress["pass_tokens"], progress["reference"]
        state.work, state.seconds = progress["work"], progress["seconds"]
        state.running.restore(progress["running"])
        if saved.best is not None:
            state.best = Weights(saved.best)
        state.telemetry = [saved.telemetry]
        return True

    def _read(self, folder: Path, model: Any, optimizer: Any) -> "SavedTraining | None":
        """What a checkpoint holds; None where a file of it is damaged or gone: the one before it is taken, then."""
        try:
            progress = read_note(folder / "state.json")
            if progress["key"] == self._key:
                check_siblings(folder / "state.json")
                return _read_training(folder, progress, model, optimizer)
        except (OSError, KeyError, RunError):
            return None
        raise RunError(
            f"{self.folder} holds checkpoints of another training (other settings, rows, labels, weights of rows, or reference). "
            "Give another out, or resume=False to start afresh and discard them."
        )

    def clear(self) -> None:
        """Remove them all. Every process must call it, and none goes on before they are gone."""
        if self._distributed.rank == 0:
            discard(self.folder)
        self._distributed.broadcast(None)

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _best(self) -> Path | None:
        scored: list[tuple[float, Path]] = []
        for folder in self._folders():
            try:
                saved = read_note(folder / "state.json")
                scored += [(_goodness(line), folder) for line in saved["held_out"] if line["step"] == saved["step"]]
            except (OSError, KeyError, RunError):  # damaged: it is nobody's best
                continue
        return max(scored)[1] if scored else None


def template_day_in(folder: Path) -> str | None:
    """The day that prompts of the training with checkpoints in `folder` name; None where they name none, or there are none."""
    for place in sorted(folder.glob("step-*"), reverse=True):
        try:
            day: str | None = read_note(place / "state.json").get("template_day")
        except RunError:  # damaged
            continue
        return day
    return None


@dataclass(frozen=True)
class SavedTraining:
    """The files of a checkpoint, read."""

    progress: dict[str, Any]
    weights: dict[str, Any]
    moments: dict[str, Any]
    random: dict[str, Any]
    best: dict[str, Any] | None
    telemetry: pl.DataFrame


def _read_training(folder: Path, progress: dict[str, Any], model: Any, optimizer: Any) -> SavedTraining:
    """Raises RunError or OSError where a file is damaged or gone."""
    names = ("weights", "moments", *(["best"] if progress["has_best"] else []))
    with damage_speaks(folder):
        random = load_file(folder / "random.safetensors")
        if (folder / SHARDS).is_dir():
            weights = trainable(model)
            moments = dict(enumerate(parameters_of(optimizer)))
            tensors = read_shards(folder / SHARDS, {name: moments if name == "moments" else weights for name in names})
        else:
            tensors = {name: load_file(folder / f"{FILES.get(name, name)}.safetensors") for name in names}
    telemetry = read_own_table(folder / "telemetry.parquet")
    return SavedTraining(progress, tensors["weights"], tensors["moments"], random, tensors.get("best"), telemetry)


def _on_host(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _goodness(evaluation: dict[str, Any]) -> float:
    """Of one evaluation of held-out rows, higher is better: the AUC, or the loss where a label is missing."""
    return float(evaluation["auc"]["value"]) if evaluation["auc"] is not None else -float(evaluation["loss"])


def _shared_out(flat: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """What `flat_state` names, shared out as the parameters are that it belongs to."""
    parameters = parameters_of(optimizer)
    return {name: shard_like(value, parameters[int(name.split(".")[0])]) for name, value in flat.items()}


def _random_state() -> dict[str, Any]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda.{number}": state for number, state in enumerate(devices)}


def _set_random_state(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["cpu"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            torch.cuda.set_rng_state(saved[f"cuda.{number}"], number)
