"""What a result must say of itself: the machine, the versions, the command, the day."""

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch


def machine() -> dict[str, Any]:
    """Cores, memory, processor, versions and command of this run."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "processor": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": shlex.join(
            ["python", Path("tests/benchmarks", Path(sys.argv[0]).name).as_posix(), *map(_named, sys.argv[1:])]
        ),
    }


def _named(argument: str) -> str:
    """A folder of this machine by its last name alone: where it lies says nothing to anyone else."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def write_result(name: str, result: dict[str, Any]) -> Path:
    """A dated file beside the benchmark."""
    path = Path(__file__).parent / "results" / f"{name}-{result['date']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(path.relative_to(Path(__file__).parents[2]))
    return path
