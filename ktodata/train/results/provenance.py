"""What training.json says of a training beside its numbers: what was requested, what it ran on, and how it ended."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ktodata.train.data.batches import BatchPlan
from ktodata.train.distributed.interface import Distributed
from ktodata.train.early_stop import best
from ktodata.train.model.device import device_name
from ktodata.train.model.scorer import Scorer
from ktodata.train.state import State, trainable

# what a training may be resumed under although it differs
NOT_IN_KEY = ("out", "progress", "resume", "keep_checkpoints", "save_every_steps", "log_every_steps", "logs", "parallel")
LIBRARIES = ("ktodata", "torch", "transformers", "safetensors", "polars", "numpy")


def recorded_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that say what is trained, as JSON can hold them."""
    recorded = {name: value for name, value in settings.items() if name not in NOT_IN_KEY}
    return {name: str(value) if isinstance(value, Path) else value for name, value in recorded.items()}


def circumstances(settings: dict[str, Any], scorer: Scorer, distributed: Distributed) -> dict[str, Any]:
    """Settings, versions, devices, and which of several ways was taken."""
    used = [*LIBRARIES, *(["peft"] if settings["lora"] is not None else []), *_quantization_library(settings)]
    return {
        "settings": recorded_settings(settings),
        "versions": {name: version(name) for name in used} | {"python": platform.python_version()},
        "device": device_name(scorer.device),
        "threads": torch.get_num_threads(),
        "processes": distributed.size,
        "parallel": distributed.parallel,
        "dtype": str(scorer.compute_dtype).removeprefix("torch."),
        "attention": scorer.kernel if scorer.method == "packed" else scorer.model.config._attn_implementation,
        "method": scorer.method,
        "rejected_methods": scorer.self_check.rejected,
        "self_check": scorer.self_check.as_dict(),
        "trainable_parameters": sum(tensor.numel() for tensor in trainable(scorer.model).values()),
    }


def outcome(state: State, plan: BatchPlan, seconds: dict[str, float]) -> dict[str, Any]:
    """How long it took, how fast it was, and which step's weights it left.

    seconds : of "training" those of all processes that went on from one another, up to the checkpoint that the next began at
    """
    trained = sum(line["tokens"] for line in state.history)
    return {
        "seconds": {part: round(spent, 2) for part, spent in seconds.items()},
        "tokens_per_second": round(trained / seconds["training"], 1),
        "pass_tokens": state.pass_tokens,  # at most, in a pass with gradients; fewer than were meant where memory ran out
        # of the best evaluation where early_stop is set, else the last
        "weights_of_step": state.step if state.best is None else best(state.held_out),
        "stopped_early": state.step < len(plan.steps),
    }


def _quantization_library(settings: dict[str, Any]) -> list[str]:
    quantized = settings["lora"] is not None and "quantize" in settings["lora"]
    return ["bitsandbytes"] if quantized or settings["optimizer"] != "adamw" else []
