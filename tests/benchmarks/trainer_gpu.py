"""KTO on one GPU in bf16: real tokens per second, share of the device's peak, peak memory. `make bench-gpu`

    python tests/benchmarks/trainer_gpu.py [DATA_FOLDER] [--shapes ...] [--rows 256] [--repeats 2] [--smoke]

Models have the shapes below and random weights (a speed does not depend on them), written to a scratch folder: fp32 weights, arithmetic
in bf16 by autocast in all arms. Rows have the lengths of real ones and random tokens: every word of a row is one token. With
DATA_FOLDER the lengths of a draw of its rows (prompts with all their rows) are taken, without it lengths from tables of their quantiles.
trainer_arms.py says what the arms are and what is timed; here the untimed first update is of a full batch.

MFU = tokens per second x FLOPs per real token / peak. The FLOPs are those of a forward and a backward pass over the rows trained, with
no padding, no recomputation: 6 x non-embedding parameters, + 6 x layers x width x length for causal attention, + 6 x width x vocabulary
for each completion token. What KTO does on top (mismatched pairs, the reference) is not counted: an epoch of KTO cannot reach the
MFU of supervised training. Peak: 989e12, dense bf16 of an H100 SXM or H200; of no other device a share is given.

An arm that cannot run there (TRL not installed, out of memory) is named with the reason. Needed: CUDA's wheel of torch 2.10 or newer in
place of the CPU's, and what pyproject.toml names under "dev"; nothing is downloaded. As it comes it makes some dozen trainings, each in a
process of its own, and has to be done in ten minutes with the tests before it; --data-sets and --repeats make more of them. --smoke: tiny
shapes in fp32 on a CPU, all in one process, to see that all of this works; its figures mean nothing.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import machine, write_result
from trainer_arms import ARMS, EPOCHS, Job, Row, best_micro_batch, draw_rows, read_rows, run_here, run_job, token_lengths

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12}
END = "<|end|>"


@dataclass(frozen=True)
class Shape:
    """A decoder: what its config says."""

    family: str  # "qwen2" or "llama"
    layers: int
    width: int
    heads: int
    key_value_heads: int
    inner: int
    vocabulary: int
    tied: bool


SHAPES = {
    "qwen-0.36b": Shape("qwen2", 24, 896, 14, 2, 4864, 151_936, tied=True),
    "llama-1.3b": Shape("llama", 24, 2048, 16, 16, 5504, 32_000, tied=False),
    "smoke": Shape("llama", 2, 32, 4, 2, 64, 64, tied=True),
}


@dataclass(frozen=True)
class Lengths:
    """Tokens at the quantiles 0, 0.05, ... 1 of a data set's prompts and completions, and how its rows share prompts."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    rows_per_prompt: int
    desirable: float  # share


# SmolLM2's tokenizer, exact repeats left out
LENGTHS = {
    "hh_harmless": Lengths(
        (13, 17, 19, 22, 25, 34, 47, 62, 73, 84, 97, 110, 122, 136, 151, 170, 194, 226, 271, 352, 835),
        (1, 7, 10, 12, 14, 17, 19, 22, 25, 28, 31, 35, 40, 45, 51, 59, 68, 80, 96, 132, 557),
        rows_per_prompt=2,
        desirable=0.5,
    ),
    "tulu1_human": Lengths(
        (10, 12, 14, 16, 18, 19, 22, 23, 25, 27, 29, 32, 35, 39, 43, 52, 66, 87, 125, 182, 394),
        (2, 6, 10, 17, 25, 40, 56, 72, 87, 102, 118, 143, 169, 195, 224, 253, 280, 300, 337, 427, 1025),
        rows_per_prompt=4,
        desirable=0.77,
    ),
}


def drawn_lengths(data_set: str, folder: Path | None, count: int, limit: int, seed: int) -> list[tuple[int, int, int, bool]]:
    """(prompt's number, prompt tokens, completion tokens, label) of `count` rows in random order; prompts are under `limit` tokens."""
    if folder is not None:
        return _of_real_rows(folder, data_set, count, limit, seed)
    random, table = np.random.default_rng(seed), LENGTHS[data_set]
    prompts = -(-count // table.rows_per_prompt)
    at = np.linspace(0, 1, len(table.prompt))
    prompt_tokens = np.interp(random.random(prompts), at, table.prompt).astype(int).clip(1, limit - 2)
    completion_tokens = np.interp(random.random(count), at, table.completion).astype(int).clip(1)
    labels = np.arange(count) < round(count * table.desirable)
    of_prompt = random.permutation(np.repeat(np.arange(prompts), table.rows_per_prompt)[:count])
    random.shuffle(labels)
    return [
        (int(prompt), int(prompt_tokens[prompt]), int(completion), bool(label))
        for prompt, completion, label in zip(of_prompt, completion_tokens, labels, strict=True)
    ]


def _of_real_rows(folder: Path, data_set: str, count: int, limit: int, seed: int) -> list[tuple[int, int, int, bool]]:
    from transformers import AutoTokenizer

    from ktodata.models import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("packaged:smollm2-135m-instruct"))
    rows = [row for row in read_rows(folder, data_set) if len(tokenizer(row["prompt"])["input_ids"]) < limit]
    rows = draw_rows(rows, count, seed)
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(row["prompt"] for row in rows))}
    lengths = token_lengths(rows, tokenizer, limit)
    return [
        (numbers[row["prompt"]], int(prompt), int(completion), row["label"])
        for row, (prompt, completion) in zip(rows, lengths, strict=True)
    ]


def made_up(lengths: list[tuple[int, int, int, bool]], vocabulary: int, seed: int) -> list[Row]:
    """Rows of random tokens with those lengths; rows with one prompt number have one prompt. The end token is the completion's last."""
    random = np.random.default_rng([seed, 1])

    def text(tokens: int) -> str:
        return "".join(f"t{token} " for token in random.integers(0, vocabulary - 1, tokens))

    prompts = {number: text(tokens) for number, tokens, _, _ in lengths}
    return [
        {"prompt": prompts[number], "completion": text(max(1, completion - 1)), "label": label}
        for number, _, completion, label in lengths
    ]


def write_model(shape: Shape, folder: Path) -> None:
    """Random fp32 weights, and a tokenizer in which t0, t1, ... are words of one token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        shape.family,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.inner,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=2048,
        eos_token_id=shape.vocabulary - 1,
        bos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    words = {f"t{number}": number for number in range(shape.vocabulary - 1)} | {END: shape.vocabulary - 1}
    core = Tokenizer(models.WordLevel(words, unk_token=END))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END, unk_token=END).save_pretrained(folder)


def flops_per_token(shape: Shape, lengths: np.ndarray) -> float:
    """Of a forward and a backward pass over rows of `lengths` [N, 2], by real token; the module's docstring says what counts."""
    head = shape.width // shape.heads
    attention = 2 * shape.width**2 + 2 * shape.width * head * shape.key_value_heads
    parameters = shape.layers * (attention + 3 * shape.width * shape.inner)
    whole = lengths.sum(1).astype(float)
    of_attention = 6 * shape.layers * shape.width * (whole**2).sum()
    of_head = 6 * shape.width * shape.vocabulary * lengths[:, 1].sum()
    return float(6 * parameters + (of_attention + of_head) / whole.sum())


def measure(name: str, data_set: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every arm on one shape and one data set's lengths."""
    shape, run = SHAPES[name], run_here if options.smoke else run_job
    with tempfile.TemporaryDirectory() as scratch:
        write_model(shape, Path(scratch))
        size = options.batch_size
        rows, warm_up = (
            made_up(drawn_lengths(data_set, options.folder, count, options.max_length, seed), shape.vocabulary, seed)
            for count, seed in ((options.rows, options.seed), (size, options.seed + 1))
        )
        about = {
            "model": scratch,
            "warm_up": warm_up,
            "rows": rows,
            "max_length": options.max_length,
            "batch_size": size,
            "dtype": "float32" if options.smoke else "bfloat16",
            "device": "cpu" if options.smoke else "cuda",
            "threads": options.threads,
            "attention": options.attention,
        }
        tuned, sweep = size, {}
        if {"trl_tuned", "trl_patched"} & set(options.arms):
            tuned, sweep = best_micro_batch(
                lambda rows: run(Job(arm="trl_tuned", micro_batch=rows, **about)),
                [rows for rows in options.micro_batches if size % rows == 0],
                "tokens_per_second",
            )
        runs = []
        for repeat in range(options.repeats):
            for arm in options.arms:
                # 8 is TRL's own default
                micro_batch = 8 if arm == "trl_default" else tuned
                runs.append({"repeat": repeat, **run(Job(arm=arm, micro_batch=micro_batch, **about))})
                print(f"  {repeat} {runs[-1]}", flush=True)
        from transformers import AutoTokenizer

        lengths = token_lengths(rows, AutoTokenizer.from_pretrained(scratch), options.max_length)
    flops = flops_per_token(shape, lengths)
    return {
        "mean_prompt_tokens": float(lengths[:, 0].mean()),
        "mean_completion_tokens": float(lengths[:, 1].mean()),
        "gflops_per_token": flops / 1e9,
        "micro_batch_sweep": sweep,
        "runs": runs,
        "medians": {arm: medians([run for run in runs if run["arm"] == arm], flops) for arm in options.arms},
    }


def medians(runs: list[dict[str, Any]], flops: float) -> dict[str, Any]:
    """Of an arm's repeats, or why it could not run."""
    refused = [run["cannot_run"] for run in runs if "cannot_run" in run]
    if refused:
        return {"cannot_run": refused[0]}
    figures = {name: median(run[name] for run in runs) for name in ("tokens_per_second", "padding_ratio", "peak_mb")}
    peak = next(
        (value for name, value in PEAK_FLOPS.items() if torch.cuda.is_available() and name in torch.cuda.get_device_name()), None
    )
    return figures | {"mfu": figures["tokens_per_second"] * flops / peak if peak else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["qwen-0.36b", "llama-1.3b"])
    parser.add_argument("--data-sets", nargs="+", choices=list(LENGTHS), default=["hh_harmless"])
    # trl_patched is trl_tuned where there is Triton
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["trl_tuned", "ktodata"])
    parser.add_argument("--rows", type=int, default=256, help="a multiple of --batch-size")
    parser.add_argument("--batch-size", type=int, default=32, help="effective")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[16, 32], help="that TRL may choose from")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--attention", default="sdpa", help="TRL's: sdpa, flash_attention_2, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="tiny, on a CPU; writes no result")
    options = parser.parse_args()
    if options.smoke:
        options.shapes, options.arms, options.repeats, options.micro_batches = ["smoke"], list(ARMS), 1, [8]
        options.rows, options.batch_size, options.max_length, options.threads = 16, 8, 64, 1
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device; --smoke runs on a CPU")
    if options.rows % options.batch_size or options.batch_size % 8:
        parser.error("--rows must be a multiple of --batch-size, and that one of 8")
    figures = {}
    for name in options.shapes:
        for data_set in options.data_sets:
            print(f"{name}, lengths of {data_set}", flush=True)
            figures[f"{name}, {data_set}"] = measure(name, data_set, options)
            for arm, line in figures[f"{name}, {data_set}"]["medians"].items():
                print(f"  {arm}: {line}", flush=True)
    if not options.smoke:
        terms = {"dtype": "bfloat16", "batch_size": options.batch_size, "max_length": options.max_length, "epochs": EPOCHS}
        write_result("trainer_gpu", {**terms, "peak_flops": PEAK_FLOPS, "runs": figures, **machine()})


if __name__ == "__main__":
    main()
