"""Host memory of the processes of a training under `parallel: fsdp`: while the model is loaded, at a checkpoint, at the end.

    python tests/benchmarks/sharded_memory.py [--processes 2] [--layers 12] [--width 1024]

A Llama of random weights, stored in bfloat16, trains on CPUs over gloo for three updates, with a checkpoint before the last. Memory is what
only the process itself can give back (RssAnon, every 10 ms), above what it had when torch was loaded; files that are mapped are not in
it: the system takes those back. In MB, and in bytes a parameter.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
from machine import machine, write_result
from trainer_speed import measured_commit

TOKENIZER = "packaged:smollm2-135m-instruct"


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


def write_model(folder: Path, layers: int, width: int) -> int:
    """A Llama in bfloat16, in files of at most 100 MB; returns its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ktodata.models import load_tokenizer

    tokenizer = load_tokenizer(TOKENIZER)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=layers, tie_word_embeddings=False, **sizes)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100MB")
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def process(rank: int, processes: int, folder: Path) -> None:
    """One of them; its peaks go into a file."""
    import torch
    import torch.distributed as dist

    import ktodata as kd
    from ktodata.train import checkpoints, run_training

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=processes)
    texts = [f"what is {number} and {number}? " for number in range(8)]
    rows = pl.DataFrame(
        {"row_id": list("abcdefgh"), "prompt": texts, "completion": ["It is so."] * 8, "label": [True, False] * 4}
    )
    watch = Watch()
    watch.phase = "loading"
    changes = {
        "make_scorer": watch.during("sharing out", "training", run_training.make_scorer),
        "gathered_model": watch.during("at the end", "after", run_training.gathered_model),
    }
    saving = watch.during("at a checkpoint", "training", checkpoints.Checkpoints.save)
    with patch.multiple(run_training, **changes), patch.object(checkpoints.Checkpoints, "save", saving):
        kd.train.fit(
            *(rows,),
            model=str(folder / "model"),
            out=folder / "out",
            parallel="fsdp",
            device="cpu",
            batch_size=4,
            epochs=2,
            max_steps=3,
            save_every_steps=2,
        )
    pl.DataFrame([{"rank": rank, **watch.peaks}]).write_ndjson(folder / f"peaks-{rank}.jsonl")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=1024)
    options = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as scratch, patch.dict("os.environ", {"KTODATA_CACHE": f"{scratch}/cache"}):
        folder = Path(scratch)
        parameters = write_model(folder / "model", options.layers, options.width)
        torch.multiprocessing.spawn(process, (options.processes, folder), nprocs=options.processes)
        peaks = [pl.read_ndjson(folder / f"peaks-{rank}.jsonl").to_dicts()[0] for rank in range(options.processes)]
    for line in peaks:
        rank = line.pop("rank")
        print(rank, {phase: f"{mb:,.0f} MB, {mb * 2**20 / parameters:.1f} B a parameter" for phase, mb in line.items()})
    write_result("sharded_memory", {**machine(), "parameters": parameters, "commit": measured_commit(), "peaks_mb": peaks})


if __name__ == "__main__":
    main()
