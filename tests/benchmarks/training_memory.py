"""Host memory of all that a training needs before its first pass, by rows: checks, tokens, plan, pairs, keys.

    python tests/benchmarks/training_memory.py [--rows 10000 100000 1000000] [--words 15]

Rows are synthetic, two a prompt, of one and of three sentences of so many words, in Parquet files. Each size is prepared twice, each time in a process of
its own: without its tokens in the cache, and with them. Memory is that of the process and all that it starts, every 0.1 s: `anonymous`
is what only they can give back; `resident` has mapped files in it, which the system takes back when it needs the room. Bytes a row are
above what the process had when its libraries and the tokenizer were loaded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
from machine import machine, write_result

SETTINGS = {
    "max_length": 1024,
    "batch_size": 32,
    "seed": 0,
    "epochs": 1,
    "max_steps": None,
    "group_by_prompt": True,
    "objective": "kto",
    "kl_pairs_per_batch": None,
    "soft_labels": False,
    "flip_rates": None,
}
FILE_ROWS = 50_000
TOKENIZER = "packaged:smollm2-135m-instruct"
UNPACK = f"from ktodata.models import load_tokenizer; load_tokenizer({TOKENIZER!r})"


def write_rows(folder: Path, rows: int, words: int) -> int:
    """Shards of synthetic rows with sentences of so many words, a file at a time; returns the bytes of their texts."""
    random = np.random.default_rng(0)
    syllables = np.array([a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ai", "or", "en")])
    vocabulary = np.array(["".join(pair) for pair in random.choice(syllables, size=(5000, 2))])
    sentences = np.array([" ".join(chosen) for chosen in random.choice(vocabulary, size=(20_000, words))], dtype=object)
    written = 0
    for start in range(0, rows, FILE_ROWS):
        numbers = np.arange(start, min(rows, start + FILE_ROWS))
        prompts = [f"question {number // 2}: {sentences[number // 2 % len(sentences)]}? " for number in numbers]
        answers = sentences[random.integers(len(sentences), size=(len(numbers), 3))]
        frame = pl.DataFrame(
            {
                "row_id": [f"row-{number:09d}" for number in numbers],
                "prompt": prompts,
                "completion": [". ".join(answer) for answer in answers],
                "label": numbers % 2 == 0,
            }
        )
        frame.write_parquet(folder / f"train-{start // FILE_ROWS:05d}.parquet")
        written += int(frame.select(pl.col("prompt", "completion").str.len_bytes().sum()).sum_horizontal().item())
    return written


class Meter:
    """MB of a process and its children, at most, while it is entered."""

    def __init__(self) -> None:
        self.anonymous = self.resident = 0.0
        self._stop = threading.Event()

    def __enter__(self) -> "Meter":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            anonymous, resident = memory()
            self.anonymous, self.resident = max(self.anonymous, anonymous), max(self.resident, resident)


def memory() -> tuple[float, float]:
    """(anonymous, resident) MB of this process and all that it started."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sums = [0, 0]
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmRSS"))}
        sums[0] += sizes.get("RssAnon", 0)
        sums[1] += sizes.get("VmRSS", 0)
    return sums[0] / 1024, sums[1] / 1024


def one(folder: Path) -> None:
    """Prepare the rows in `folder` and print the figures as JSON; called in a process of its own."""
    import torch

    from ktodata.models import load_tokenizer
    from ktodata.train.data.packing import Sequences
    from ktodata.train.data.preparation import prepare
    from ktodata.train.data.training_rows import check_part, open_part
    from ktodata.train.objectives import make_objective
    from ktodata.train.reference import ReferenceLogps

    tokenizer = load_tokenizer(TOKENIZER)
    objective = make_objective("kto", beta=0.1, desirable_weight=1.0, undesirable_weight=1.0)
    base = memory()
    seconds = {}
    clock = time.perf_counter()
    with Meter() as meter:
        rows = check_part(open_part(folder, "train"), part="train", both_classes=True)
        seconds["checks"] = time.perf_counter() - clock
        prepared = prepare(rows, None, tokenizer, SETTINGS)
        seconds["tokens_and_plan"] = time.perf_counter() - clock - seconds["checks"]
        pairs = prepared.pairs(objective)
        reference = ReferenceLogps(pairs, np.zeros(len(pairs), np.float32), torch.device("cpu"))
        sequences = Sequences(prepared.rows)
        seconds["pairs"] = time.perf_counter() - clock - seconds["checks"] - seconds["tokens_and_plan"]
    assert len(reference(pairs[:10])) == 10
    tokens, count = int(sequences.lengths(np.stack([np.arange(len(prepared.rows))] * 2, axis=1)).sum()), len(prepared.rows)
    times = [psutil.Process().cpu_times()]
    peaks = {"anonymous": meter.anonymous, "resident": meter.resident}
    print(
        json.dumps(
            {
                "rows": count,
                "tokens": tokens,
                "pairs": len(pairs),
                "seconds": {name: round(value, 1) for name, value in seconds.items()},
                "cpu_seconds": round(sum(t.user + t.system + t.children_user + t.children_system for t in times), 1),
                "base_mb": [round(value) for value in base],
                "peak_mb": {name: round(value) for name, value in peaks.items()},
                "kb_a_row": {
                    name: round((peak - at_first) * 1024 / count, 2)
                    for (name, peak), at_first in zip(peaks.items(), base, strict=True)
                },
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--words", type=int, default=15, help="of a sentence")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    runs = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as scratch:
            shards = Path(scratch) / "shards"
            shards.mkdir()
            text = write_rows(shards, rows, options.words)
            environment = os.environ | {"KTODATA_CACHE": f"{scratch}/cache"}
            # unpacking the model that the tokenizer comes with is not to be measured
            subprocess.run([sys.executable, "-c", UNPACK], check=True, env=environment)
            for kept in (False, True):
                command = [sys.executable, __file__, "--one", str(shards)]
                answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                runs.append(
                    {
                        "tokens_kept": kept,
                        "words": options.words,
                        "text_mb": round(text / 1e6),
                        **json.loads(answer.stdout.splitlines()[-1]),
                    }
                )
                print(runs[-1], flush=True)
    write_result("training_memory", {"runs": runs, **machine()})


if __name__ == "__main__":
    main()
