"""All that a killed training needs to go on as if nothing had happened: weights, optimizer, random state, what was seen."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file

from ktodata.errors import RunError
from ktodata.files import whole_folder
from ktodata.train.state import State


class Checkpoints:
    """Folders step-<updates made> in `folder`; a folder appears whole or not at all. Keeps the last, and the best held-out loss.

    key : names the training they belong to: its settings, rows and reference.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key = folder, key

    def save(self, model: Any, optimizer: Any, state: State) -> None:
        """Write the checkpoint of `state.step`, then remove those that are neither the last nor the best."""
        target = self.folder / f"step-{state.step:08d}"
        with whole_folder(target) as scratch:
            save_file(_trainable(model), scratch / "weights.safetensors")
            save_file(_flat_state(optimizer), scratch / "optimizer.safetensors")
            save_file(_random_state(), scratch / "random.safetensors")
            pl.concat(state.telemetry).write_parquet(scratch / "telemetry.parquet")
            told = {"key": self._key, "step": state.step, "history": state.history, "held_out": state.held_out}
            (scratch / "state.json").write_text(json.dumps(told))
        for folder in set(self._all()) - {target, self._best()}:
            shutil.rmtree(folder)

    def restore(self, model: Any, optimizer: Any, state: State) -> bool:
        """Fill `model`, `optimizer` and `state` from the last checkpoint. False when there is none.

        Raises RunError when the checkpoints belong to another training.
        """
        checkpoints = self._all()
        if not checkpoints:
            return False
        last = checkpoints[-1]
        told = self._told(last)
        if told["key"] != self._key:
            raise RunError(
                f"{self.folder} holds checkpoints of another training (other settings, rows or reference weights). "
                "Give another out, or resume=False to start afresh and discard them."
            )
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in load_file(last / "weights.safetensors").items():
                parameters[name].copy_(value)
        _load_flat_state(optimizer, load_file(last / "optimizer.safetensors"))
        _set_random_state(load_file(last / "random.safetensors"))
        state.step, state.history, state.held_out = told["step"], told["history"], told["held_out"]
        state.telemetry = [pl.read_parquet(last / "telemetry.parquet")]
        return True

    def clear(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _told(self, folder: Path) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((folder / "state.json").read_text())
        return told

    def _best(self) -> Path | None:
        losses: list[tuple[float, Path]] = []
        for folder in self._all():
            told = self._told(folder)
            losses += [(seen["loss"], folder) for seen in told["held_out"] if seen["step"] == told["step"]]
        return min(losses)[1] if losses else None


def _trainable(model: Any) -> dict[str, Any]:
    # frozen weights come from the base model again
    return {name: parameter.detach().contiguous() for name, parameter in model.named_parameters() if parameter.requires_grad}


def _flat_state(optimizer: Any) -> dict[str, Any]:
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value.contiguous() for number, values in state.items() for name, value in values.items()}


def _load_flat_state(optimizer: Any, flat: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_state() -> dict[str, Any]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda.{number}": state for number, state in enumerate(devices)}


def _set_random_state(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["cpu"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            torch.cuda.set_rng_state(saved[f"cuda.{number}"], number)
