"""What a KTO training costs on a CPU beside TRL: real tokens per second and peak memory, in the cases of CASES.

    python tests/benchmarks/trainer_speed.py DATA_FOLDER [--updates 1] [--repeats 3] [--arms ...] [--cases ...] [--threads 1 --clock cpu]

fp32, the rows of one update or several; trainer_arms.py says what the arms are and what is timed. Every repeat draws its own rows:
prompts by seed with all their rows, in random order, without exact repeats, labels as given. The arms take turns in an order that
moves on by one each repeat, each in a new process; ratios are within a repeat. TRL's micro-batch is found before, on rows of the
first repeat. Cases that are run on one day, a few at a time, stand in one result.

Rows of one prompt meet in an update more often among few rows than in a large file, which helps a trainer that shares prompts. With
one update's rows they always do: rows_per_prompt_in_an_update is 1 where none meets, and --updates 4 shows what is left of it.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import machine, write_result
from trainer_arms import (
    ARMS,
    CLOCKS,
    EPOCHS,
    Job,
    Row,
    best_micro_batch,
    draw_rows,
    read_rows,
    run_job,
    token_lengths,
    versions,
)

from ktodata.models import load_causal_lm, resolve_model

MODEL = "packaged:smollm2-135m-instruct"
MICRO_BATCHES = [2, 4, 8, 16]


@dataclass(frozen=True)
class Case:
    """What is trained, on which rows."""

    data_set: str = "hh_harmless"
    rows_a_prompt: int | None = None  # at most; None: all
    completion_tokens: int | None = None  # at least, by joining completions of other rows to each; None: as they are
    lora_rank: int = 0
    granite: bool = False  # the same weights in Granite's form: logits, embeddings and residuals are scaled
    max_length: int = 512
    batch_size: int = 16


CASES = {
    "hh": Case(),
    "tulu": Case("tulu1_human"),
    "one_row_a_prompt": Case(rows_a_prompt=1),
    "lora_r16": Case(lora_rank=16),
    "long_completions": Case(completion_tokens=1000, max_length=1536, batch_size=4),
    "granite": Case(granite=True),
}


def rows_of(case: Case, folder: Path, tokenizer: Any) -> list[Row]:
    """The case's rows to draw from, without those whose prompt leaves no room for a completion: both trainers skip them."""
    rows = read_rows(folder, case.data_set)
    if case.rows_a_prompt is not None:
        rows = first_of_each_prompt(rows, case.rows_a_prompt)
    if case.completion_tokens is not None:
        rows = lengthened(rows[:400], case.completion_tokens, tokenizer)
    return [row for row in rows if len(tokenizer(row["prompt"])["input_ids"]) < case.max_length]


def first_of_each_prompt(rows: list[Row], most: int) -> list[Row]:
    """At most so many rows of each prompt."""
    seen: dict[str, int] = {}
    kept = []
    for row in rows:
        seen[row["prompt"]] = seen.get(row["prompt"], 0) + 1
        kept += [row] if seen[row["prompt"]] <= most else []
    return kept


def lengthened(rows: list[Row], tokens: int, tokenizer: Any) -> list[Row]:
    """The rows with the completions of those after them joined to theirs, until each has so many tokens."""
    longer = []
    for number, row in enumerate(rows):
        text, place = row["completion"], number
        while len(tokenizer(text)["input_ids"]) < tokens:
            place += 1
            text += " " + rows[place % len(rows)]["completion"]
        longer.append({**row, "completion": text})
    return longer


def model_of(case: Case, scratch: Path) -> str:
    """The folder of the case's model."""
    if not case.granite:
        return str(resolve_model(MODEL))
    from transformers import GraniteConfig, GraniteForCausalLM

    plain, tokenizer = load_causal_lm(MODEL)
    shape = {name: value for name, value in plain.config.to_dict().items() if name not in ("model_type", "architectures")}
    # the residuals' and attention's scales are Llama's own, so that the trained model makes sense
    scales = {"logits_scaling": 8.0, "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1 / 8}
    model = GraniteForCausalLM(GraniteConfig(**{**shape, **scales}))
    model.load_state_dict(plain.state_dict())
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    return str(scratch)


def shortened(rows: list[Row], count: int) -> list[Row]:
    """The first update's rows: it warms the machine up and is not timed, so it need not be long."""
    return [{**row, "prompt": row["prompt"][:16] + " ", "completion": row["completion"][:16]} for row in rows[:count]]


def described(rows: list[Row], tokenizer: Any, max_length: int) -> dict[str, Any]:
    """How long the rows are, in tokens, and how many share a prompt."""
    lengths = token_lengths(rows, tokenizer, max_length)
    return {
        "rows": len(rows),
        "rows_per_prompt": len(rows) / len({row["prompt"] for row in rows}),
        "desirable": sum(row["label"] for row in rows),
        **{
            f"{part}_tokens": {"mean": float(lengths[:, place].mean()), "median": float(np.median(lengths[:, place]))}
            for place, part in enumerate(("prompt", "completion"))
        },
    }


def compare(case: Case, model: str, options: argparse.Namespace, tokenizer: Any) -> dict[str, Any]:
    """All repeats of all arms on rows of one case."""
    rows = rows_of(case, options.folder, tokenizer)
    count = options.updates * case.batch_size
    drawn = [draw_rows(rows, count, options.seed + repeat) for repeat in range(options.repeats)]
    about = {
        "model": model,
        "max_length": case.max_length,
        "batch_size": case.batch_size,
        "threads": options.threads,
        "lora_rank": case.lora_rank,
        "clock": options.clock,
    }
    sweep: dict[str, float | None] = {}
    tuned = 2
    if {"trl_tuned", "trl_patched"} & set(options.arms):
        first = draw_rows(rows, case.batch_size, options.seed)
        arm = "trl_patched" if "trl_patched" in options.arms else "trl_tuned"
        sizes = [size for size in options.micro_batches if size <= case.batch_size]
        trial = Job(arm=arm, rows=first, warm_up=shortened(first, case.batch_size), micro_batch=tuned, **about)
        tuned, sweep = best_micro_batch(trial, sizes)
        print(f"  micro-batch: {tuned} of {sweep} tokens/s", flush=True)
    runs = []
    for repeat, arm in turns(options.arms, options.repeats):
        here = drawn[repeat]
        # TRL's own default
        micro_batch = 8 if arm == "trl_default" else tuned
        figures = run_job(Job(arm=arm, rows=here, warm_up=shortened(here, case.batch_size), micro_batch=micro_batch, **about))
        if "cannot_run" in figures:
            raise RuntimeError(f"{arm}: {figures['cannot_run']}")
        runs.append({"repeat": repeat, **figures})
        print(f"  {repeat} {arm:<12} {figures['tokens_per_second']:7.1f} tokens/s {figures['peak_mb']:7.0f} MB", flush=True)
    return {
        "case": asdict(case),
        "rows": [described(each, tokenizer, case.max_length) for each in drawn],
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
    names = ("tokens_per_second", "epoch_seconds", "reference_seconds", "padding_ratio", "passes_per_token", "peak_mb")
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
    parser.add_argument("--updates", type=int, default=1, help="of an epoch: that many times the case's rows an update are drawn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--micro-batches", type=int, nargs="+", default=MICRO_BATCHES, help="that TRL may choose from")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(MODEL))
    for name in options.cases:
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            result = compare(CASES[name], model_of(CASES[name], Path(scratch)), options, tokenizer)
        for arm, ratio in result["ktodata_over"].items():
            speed, memory = (ratio[figure]["median"] for figure in ("tokens_per_second", "peak_mb"))
            print(f"  ktodata / {arm}: {speed:.2f} x tokens/s, {memory:.2f} x memory")
        write_case(name, {**result, "threads": options.threads, "clock": options.clock})


def write_case(name: str, result: dict[str, Any]) -> None:
    """Into the day's result, beside the cases that stand there."""
    here = machine()
    written = Path(__file__).parent / "results" / f"trainer_speed-{here['date']}.json"
    before = json.loads(written.read_text())["cases"] if written.is_file() else {}
    result["command"] = here.pop("command")
    terms = {"model": MODEL, "dtype": "float32", "epochs": EPOCHS, "versions": versions()}
    write_result("trainer_speed", {**terms, **here, "cases": {**before, name: result}})


if __name__ == "__main__":
    main()
