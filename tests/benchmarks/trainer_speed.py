"""Real tokens per second and peak memory of a KTO training on a CPU: TRL as it comes, TRL tuned, and ktodata.

    python tests/benchmarks/trainer_speed.py DATA_FOLDER [--rows 16] [--repeats 3] [--arms ...] [--data-sets ...]

Full training in fp32, effective batch 16, max_length 512; trainer_arms.py says what the arms are and what is timed. Every repeat
draws its own rows: prompts by seed with all their rows, in random order, without exact repeats, labels as given. The arms take
turns in an order that moves on by one each repeat, each in a new process; ratios are within a repeat. TRL's micro-batch is
found before, on rows of the first repeat, by trl_tuned.

Rows of one prompt meet in an update more often among few rows than in a large file, which helps a trainer that shares prompts. With
16 rows, one update's, they always do: rows_per_prompt_in_an_update is 1 where none meets, and --rows 64 shows what is left of it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import machine, write_result
from trainer_arms import ARMS, EPOCHS, Job, Row, best_micro_batch, draw_rows, read_rows, run_job, token_lengths, versions

from ktodata.models import resolve_model

MODEL = "packaged:smollm2-135m-instruct"
DATA_SETS = ("hh_harmless", "tulu1_human")
MAX_LENGTH, BATCH_SIZE = 512, 16
MICRO_BATCHES = [2, 4, 8, 16]


def usable(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Rows whose prompt leaves room for a completion: both trainers skip the others."""
    return [row for row in rows if len(tokenizer(row["prompt"])["input_ids"]) < MAX_LENGTH]


def shortened(rows: list[Row]) -> list[Row]:
    """The first update's rows: it warms the machine up and is not timed, so it need not be long."""
    return [{**row, "prompt": row["prompt"][:16] + " ", "completion": row["completion"][:16]} for row in rows[:BATCH_SIZE]]


def described(rows: list[Row], tokenizer: Any) -> dict[str, Any]:
    """How long the rows are, in tokens, and how many share a prompt."""
    lengths = token_lengths(rows, tokenizer, MAX_LENGTH)
    return {
        "rows": len(rows),
        "rows_per_prompt": len(rows) / len({row["prompt"] for row in rows}),
        "desirable": sum(row["label"] for row in rows),
        **{
            f"{part}_tokens": {"mean": float(lengths[:, place].mean()), "median": float(np.median(lengths[:, place]))}
            for place, part in enumerate(("prompt", "completion"))
        },
    }


def compare(rows: list[Row], options: argparse.Namespace, tokenizer: Any) -> dict[str, Any]:
    """All repeats of all arms on rows of one data set."""
    drawn = [draw_rows(rows, options.rows, options.seed + repeat) for repeat in range(options.repeats)]
    about = {
        "model": str(resolve_model(MODEL)),
        "max_length": MAX_LENGTH,
        "batch_size": BATCH_SIZE,
        "threads": options.threads,
    }
    sweep: dict[str, float | None] = {}
    tuned = MICRO_BATCHES[-1]
    if {"trl_tuned", "trl_patched"} & set(options.arms):
        first = draw_rows(rows, BATCH_SIZE, options.seed)
        trial = Job(arm="trl_tuned", rows=first, warm_up=shortened(first), micro_batch=tuned, **about)
        tuned, sweep = best_micro_batch(trial, options.micro_batches)
        print(f"  micro-batch: {tuned} of {sweep} tokens/s", flush=True)
    runs = []
    for repeat, arm in turns(options.arms, options.repeats):
        here = drawn[repeat]
        # TRL's own default
        micro_batch = 8 if arm == "trl_default" else tuned
        figures = run_job(Job(arm=arm, rows=here, warm_up=shortened(here), micro_batch=micro_batch, **about))
        if "cannot_run" in figures:
            raise RuntimeError(f"{arm}: {figures['cannot_run']}")
        runs.append({"repeat": repeat, **figures})
        print(f"  {repeat} {arm:<12} {figures['tokens_per_second']:7.1f} tokens/s {figures['peak_mb']:7.0f} MB", flush=True)
    return {
        "rows": [described(each, tokenizer) for each in drawn],
        "micro_batch": tuned,
        "micro_batch_sweep": sweep,
        "runs": runs,
        "medians": {arm: medians(runs, arm) for arm in options.arms},
        "ktodata_over": {arm: ratios(runs, arm) for arm in options.arms if arm != "ktodata" and "ktodata" in options.arms},
    }


def turns(arms: list[str], repeats: int) -> Iterator[tuple[int, str]]:
    """(repeat, arm), the first arm of a repeat being the second of the one before."""
    for repeat in range(repeats):
        shift = repeat % len(arms)
        yield from ((repeat, arm) for arm in arms[shift:] + arms[:shift])


def medians(runs: list[dict[str, Any]], arm: str) -> dict[str, float]:
    """Of an arm's repeats."""
    names = ("tokens_per_second", "epoch_seconds", "reference_seconds", "padding_ratio", "peak_mb")
    return {name: median(run[name] for run in runs if run["arm"] == arm) for name in names}


def ratios(runs: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    """ktodata's figure / the arm's in the same repeat: each, and their median. Speed: more is better; memory: less."""
    ours, theirs = ({run["repeat"]: run for run in runs if run["arm"] == name} for name in ("ktodata", arm))
    medians = {}
    for name in ("tokens_per_second", "peak_mb"):
        each = [ours[repeat][name] / theirs[repeat][name] for repeat in sorted(ours)]
        medians[name] = {"each": each, "median": median(each)}
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=16, help="a multiple of the effective batch of 16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--data-sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--micro-batches", type=int, nargs="+", default=MICRO_BATCHES, help="that TRL may choose from")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.rows % BATCH_SIZE:
        parser.error(f"--rows must be a multiple of {BATCH_SIZE}: a smaller last batch would weigh differently in each trainer")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(MODEL))
    results = {}
    for data_set in options.data_sets:
        print(data_set, flush=True)
        results[data_set] = compare(usable(read_rows(options.folder, data_set), tokenizer), options, tokenizer)
        for arm, ratio in results[data_set]["ktodata_over"].items():
            print(
                f"  ktodata / {arm}: {ratio['tokens_per_second']['median']:.2f} x tokens/s, {ratio['peak_mb']['median']:.2f} x memory"
            )
    terms = {"model": MODEL, "dtype": "float32", "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE, "epochs": EPOCHS}
    write_result("trainer_speed", {**terms, "threads": options.threads, "versions": versions(), "sets": results, **machine()})


if __name__ == "__main__":
    main()
