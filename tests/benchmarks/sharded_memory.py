"""Host memory of the processes of a training under `parallel: fsdp`: while the model is loaded, at a checkpoint, at the end.

    python tests/benchmarks/sharded_memory.py [--processes 2] [--layers 24] [--width 1024] [--load-only]

A Llama of random weights, stored in bfloat16, trains on CPUs over gloo for three updates, with a checkpoint before the last; with
--load-only it ends when each process has its share. Memory is what
only the process itself can give back (RssAnon, every 10 ms), above what it had when torch was loaded; files that are mapped are not in
it: the system takes those back. glibc is told to return freed blocks of over 1 MB at once, as it does those of over 32 MB, which the
matrices of a large model are. In MB, and in bytes a parameter.
"""

import argparse
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
from trainer_gpu import Shape, made_up, write_model
from trainer_speed import add_case, measured_commit

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


class Watch:
    """Peaks of this process's memory, by what it is at. Nothing is said of the time before `begin`."""

    def __init__(self) -> None:
        self.phase, self.peaks, self._before = "", defaultdict(float), anonymous_mb()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self.peaks[self.phase] = max(self.peaks[self.phase], anonymous_mb() - self._before)
            time.sleep(0.01)

    def during(self, phase: str, then: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with its peak under the phase's name."""

        def watched(*arguments: Any, **named: Any) -> Any:
            self.phase = phase
            made = compute(*arguments, **named)
            self.phase = then
            return made

        return watched


def anonymous_mb() -> float:
    """What this process alone can give back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def write_narrow(shape: Shape, folder: Path) -> int:
    """A model of random weights in bfloat16, in files of at most 100 MB; returns its parameters."""
    import torch
    from transformers import AutoModelForCausalLM

    write_model(shape, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100MB")
    return sum(parameter.numel() for parameter in model.parameters())


class LoadedError(Exception):
    """The model is shared out, and no more is wanted."""


def process(rank: int, processes: int, folder: Path, load_only: bool) -> None:
    """One of them; its peaks go into a file."""
    import torch
    import torch.distributed as dist

    import ktodata as kd
    from ktodata.train import checkpoints, run_training
    from ktodata.train.model import scorer

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=processes)
    rows = pl.DataFrame(made_up([(number // 2, 8, 4, number % 2 == 0) for number in range(8)], 256, 0))
    rows = rows.with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
    watch = Watch()
    watch.phase = "loading"

    def checked(*arguments: Any, **named: Any) -> Any:
        if load_only:
            raise LoadedError
        return check(*arguments, **named)

    check = scorer.check_methods
    changes = {
        "shard": watch.during("sharing out", "self-check and reference", run_training.shard),
        "train_all": watch.during("training", "after", run_training.train_all),
        "gathered_model": watch.during("at the end", "after", run_training.gathered_model),
    }
    saving = watch.during("at a checkpoint", "training", checkpoints.Checkpoints.save)
    settings = {"batch_size": 4, "epochs": 2, "max_steps": 3, "save_every_steps": 2}
    with (
        patch.multiple(run_training, **changes),
        patch.object(checkpoints.Checkpoints, "save", saving),
        patch.object(scorer, "check_methods", checked),
        suppress(LoadedError),
    ):
        kd.train.fit(
            rows, model=str(folder / "model"), out=folder / "out", parallel="fsdp", device="cpu", dtype="bfloat16", **settings
        )
    watch.peaks.pop("", None)
    pl.DataFrame([{"rank": rank, **watch.peaks}]).write_ndjson(folder / f"peaks-{rank}.jsonl")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--load-only", action="store_true")
    options = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as scratch, patch.dict("os.environ", ENVIRONMENT):
        folder = Path(scratch)
        os.environ["KTODATA_CACHE"] = f"{scratch}/cache"
        shape = Shape("llama", options.layers, options.width, 8, 4, 11 * options.width // 4, 256, tied=False)
        parameters = write_narrow(shape, folder / "model")
        torch.multiprocessing.spawn(process, (options.processes, folder, options.load_only), nprocs=options.processes)
        peaks = [pl.read_ndjson(folder / f"peaks-{rank}.jsonl").to_dicts()[0] for rank in range(options.processes)]
    for line in peaks:
        rank = line.pop("rank")
        print(rank, {phase: f"{mb:,.0f} MB, {mb * 2**20 / parameters:.1f} B a parameter" for phase, mb in line.items()})
    case = f"{options.processes} processes, {options.layers} layers{', loading' if options.load_only else ''}"
    add_case("sharded_memory", case, {"parameters": parameters, "commit": measured_commit(), "peaks_mb": peaks}, {})


if __name__ == "__main__":
    main()
