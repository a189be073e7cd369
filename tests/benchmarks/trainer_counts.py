"""What KTO costs by count: forward passes that a real token of an epoch needs, with TRL and with ktodata, and FLOPs of matrix products.

    python tests/benchmarks/trainer_counts.py DATA_FOLDER [--cases ...] [--updates 16] [--repeats 3]

Cases and arms are those of trainer_speed.py, with more updates in an epoch. How many passes there are depends on the rows' lengths and on
which of them share a prompt, not on the model or the words: they are counted on a single narrow layer and random tokens, in rows
as long as the case's. Tests hold such counts against torch's own of FLOPs. FLOPs are those that so many passes take in
SmolLM2-135M: 2 x (decoder's parameters x its passes + head's x its); attention and adapters are left out.

trl_over is TRL's FLOPs / those of the arm: how many times as fast it is if both get the same FLOPs a second out of the machine.
VARIANTS are settings of ktodata, among them what it did until 2026-11-29. gradients_alone: a forward and a backward pass over every prompt
once and every completion, and no reference and no mismatched pair: no exact way to share prompts costs less.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from trainer_arms import EPOCHS, Job, Row, draw_rows, run_here, token_lengths
from trainer_gpu import Shape, made_up, write_model
from trainer_speed import CASES, MODEL, add_case, described, parameters, rows_of, shortened

from ktodata.models import resolve_model

# settings of kd.train.fit
EVERY_PAIR, WHOLE = {"kl_pairs_per_batch": None}, {"micro_batch_tokens": 100_000}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "an update in one pass": WHOLE,
    "a mismatched pair for every row": EVERY_PAIR,
    "a pair for every row, an update in one pass": EVERY_PAIR | WHOLE,
    "a pair for every row, passes of 1,024 tokens": EVERY_PAIR | {"micro_batch_tokens": 1024},
}
NARROW = Shape("llama", layers=1, width=16, heads=2, key_value_heads=1, inner=16, vocabulary=256, tied=True)


def as_long(rows: list[Row], tokenizer: Any, max_length: int, seed: int) -> list[Row]:
    """Rows of random tokens, as long as these, with one prompt where these have one."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(row["prompt"] for row in rows))}
    lengths = token_lengths(rows, tokenizer, max_length)
    return made_up(
        [(numbers[row["prompt"]], int(p), int(c), row["label"]) for row, (p, c) in zip(rows, lengths, strict=True)],
        NARROW.vocabulary,
        seed,
    )


def count(name: str, options: argparse.Namespace, tokenizer: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Medians over the repeats of one case's arms and variants. size: of `parameters`, of the real model"""
    case = CASES[name] if options.batch_size is None else replace(CASES[name], batch_size=options.batch_size)
    rows = rows_of(case, options.folder, tokenizer)
    drawn = [draw_rows(rows, options.updates * case.batch_size, options.seed + repeat) for repeat in range(options.repeats)]
    counts: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_model(replace(NARROW, family="granite" if case.granite else NARROW.family), Path(folder))
        terms = {"model": folder, "max_length": case.max_length, "batch_size": case.batch_size, "lora_rank": case.lora_rank}
        for seed, each in enumerate(drawn):
            long = as_long(each, tokenizer, case.max_length, seed)
            about = {**terms, "rows": long, "warm_up": shortened(long, case.batch_size), "micro_batch": options.micro_batch}
            jobs = {"trl_patched": Job("trl_patched", threads=1, **about)} | {
                f"ktodata, {variant}": Job("ktodata", threads=1, settings=settings, **about)
                for variant, settings in VARIANTS.items()
            }
            for arm, job in jobs.items():
                counts.setdefault(arm, []).append(counted(run_here(job), size))
            least = gradients_alone(token_lengths(each, tokenizer, case.max_length), each, jobs["trl_patched"].gradient_passes)
            counts.setdefault("gradients_alone", []).append(counted(least, size))
    for lines in counts.values():
        for line, theirs in zip(lines, counts["trl_patched"], strict=True):
            line["trl_over"] = theirs["gflops_per_token"] / line["gflops_per_token"]
    return {
        "rows": [described(each, tokenizer, case.max_length) for each in drawn],
        "medians": {
            arm: {figure: median(line[figure] for line in lines) for figure in lines[0]} for arm, lines in counts.items()
        },
        "repeats": counts,
    }


def gradients_alone(lengths: np.ndarray, rows: list[Row], passes: int) -> dict[str, float]:
    """Passes by real token; lengths [N, 2], prompt and completion tokens of each row, passes of a forward and a backward pass."""
    prompts = {row["prompt"]: int(tokens) for row, tokens in zip(rows, lengths[:, 0], strict=True)}
    completions, own = int(lengths[:, 1].sum()), int(lengths.sum())
    decoder = passes * (sum(prompts.values()) + completions) / own
    return {"passes_per_token": decoder, "head_passes_per_token": passes * completions / own, "padding_ratio": 1.0}


def counted(figures: dict[str, Any], size: tuple[int, int]) -> dict[str, float]:
    """What of a training's figures is a count, and the FLOPs that it stands for in a model of `size`."""
    passes = {name: figures[name] for name in ("passes_per_token", "head_passes_per_token", "padding_ratio")}
    return passes | {
        "gflops_per_token": 2e-9 * float(np.dot(size, [figures["passes_per_token"], figures["head_passes_per_token"]]))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--updates", type=int, default=16, help="of an epoch")
    parser.add_argument("--batch-size", type=int, help="rows of an update, in place of the case's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, default=2, help="TRL's; the smallest that it takes pads least")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from transformers import AutoTokenizer

    folder = resolve_model(MODEL)
    tokenizer, size = AutoTokenizer.from_pretrained(folder), parameters(str(folder))
    terms = {"counted_for": MODEL, "parameters": size, "epochs": EPOCHS, "micro_batch": options.micro_batch, "variants": VARIANTS}
    for name in options.cases:
        result = count(name, options, tokenizer, size)
        print(name, flush=True)
        for arm, line in result["medians"].items():
            print(f"  {arm:<55}" + ", ".join(f"{figure} {value:.3f}" for figure, value in line.items()), flush=True)
        other = "" if options.batch_size is None else f", {options.batch_size} rows an update"
        add_case("trainer_counts", name + other, result, terms)


if __name__ == "__main__":
    main()
