"""All that a killed training needs to go on as if nothing had happened: weights, optimizer, random state, results so far."""

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
from ktodata.train.distributed.sharding import gathered, shard_like
from ktodata.train.optimizers import flat_state, load_flat_state
from ktodata.train.state import State, Weights, trainable


class Checkpoints:
    """Folders step-<updates made> in `folder`; one appears whole or not at all. Keeps the last, and the best by held-out AUC.

    key : names the training they belong to: its settings, rows and reference.
    """

    def __init__(self, folder: Path, key: str, distributed: Distributed) -> None:
        self.folder, self._key, self._distributed = folder, key, distributed

    def save(self, model: Any, optimizer: Any, state: State) -> None:
        """Write the checkpoint of `state.step`, then remove those that are neither the last nor the best.

        Every process must call it; the first one writes.
        """
        writes = self._distributed.rank == 0
        weights = gathered(trainable(model).items(), keep=writes)
        moments = gathered(flat_state(optimizer).items(), keep=writes)
        if writes:
            self._write_checkpoint(weights, moments, state)

    def _write_checkpoint(self, weights: dict[str, Any], moments: dict[str, Any], state: State) -> None:
        target = self.folder / f"step-{state.step:08d}"
        with whole_folder(target) as scratch:
            save_file(weights, scratch / "weights.safetensors")
            save_file(moments, scratch / "optimizer.safetensors")
            save_file(_random_state(), scratch / "random.safetensors")
            if state.best is not None:
                save_file(state.best.tensors, scratch / "best.safetensors")
            pl.concat(state.telemetry).write_parquet(scratch / "telemetry.parquet")
            progress = {
                "key": self._key,
                "step": state.step,
                "history": state.history,
                "held_out": state.held_out,
                "running": state.running.state(),
                "pass_tokens": state.pass_tokens,
                "reference": state.reference,
                "work": state.work,
                "seconds": state.seconds_so_far,
                "has_best": state.best is not None,
            }
            write_note(scratch / "state.json", progress, sorted(scratch.iterdir()))
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
        saved = next(filter(None, map(self._read_whole, reversed(checkpoints))), None)
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

    def _read_whole(self, folder: Path) -> "SavedTraining | None":
        """What a checkpoint holds; None where a file of it is damaged or gone: the one before it is taken, then."""
        try:
            progress = read_note(folder / "state.json")
            if progress["key"] == self._key:
                check_siblings(folder / "state.json")
                return _read_training(folder, progress)
        except (OSError, KeyError, RunError):
            return None
        raise RunError(
            f"{self.folder} holds checkpoints of another training (other settings, rows or reference weights). "
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


@dataclass(frozen=True)
class SavedTraining:
    """The files of a checkpoint, read."""

    progress: dict[str, Any]
    weights: dict[str, Any]
    moments: dict[str, Any]
    random: dict[str, Any]
    best: dict[str, Any] | None
    telemetry: pl.DataFrame


def _read_training(folder: Path, progress: dict[str, Any]) -> SavedTraining:
    """Raises RunError or OSError where a file is damaged or gone."""
    with damage_speaks(folder):
        names = ("weights", "optimizer", "random", *(["best"] if progress["has_best"] else []))
        tensors = {name: load_file(folder / f"{name}.safetensors") for name in names}
    telemetry = read_own_table(folder / "telemetry.parquet")
    return SavedTraining(progress, tensors["weights"], tensors["optimizer"], tensors["random"], tensors.get("best"), telemetry)


def _goodness(evaluation: dict[str, Any]) -> float:
    """Of one evaluation of held-out rows, higher is better: the AUC, or the loss where a label is missing."""
    return float(evaluation["auc"]["value"]) if evaluation["auc"] is not None else -float(evaluation["loss"])


def _shared_out(flat: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """What `flat_state` names, shared out as the parameters are that it belongs to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {name: shard_like(value, parameters[int(name.split(".")[0])]) for name, value in flat.items()}


def _random_state() -> dict[str, Any]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda.{number}": state for number, state in enumerate(devices)}


def _set_random_state(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["cpu"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            torch.cuda.set_rng_state(saved[f"cuda.{number}"], number)
