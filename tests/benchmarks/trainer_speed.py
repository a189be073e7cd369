"""What a KTO training costs on a CPU beside TRL: real tokens per second and peak memory, in the cases of CASES.

    python tests/benchmarks/trainer_speed.py DATA_FOLDER [--cases ...] [--arms ...] [--repeats 3] [--updates 1] [--threads 1] [--minutes 6]

fp32, the rows of one update or several; trainer_arms.py says what the arms are and what is timed. Every repeat draws its own rows:
prompts by seed with all their rows, in random order, without exact repeats, labels as given. The arms take turns in an order that
moves on by one each repeat, each in a new process; ratios are within a repeat, of the processor's seconds and of the clock's. TRL's
micro-batch is found on the rows of the first repeat. Each training is kept as it ends, under the commit of ktodata/: the same command
goes on where one was stopped, or where its --minutes were up. Cases of one day stand in one result.

Rows of one prompt meet in an update more often among few rows than in a large file, which helps a trainer that shares prompts. With
one update's rows they always do: rows_per_prompt_in_an_update is 1 where none meets, and --updates 4 shows what is left of it.

What the arithmetic allows (`count`): FLOPs of matrix products of an epoch by real token, 2 x (decoder's parameters x its passes +
head's x its); attention and adapters are left out. share_of_peak is what part of the speed of a plain matrix product, measured in the
same process, an arm gets out of them. even_at_peak is how many times as fast as the other arm ktodata would be, by the processor's
seconds, if its products ran at that speed and nothing else took time.
"""

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import machine, write_result
from trainer_arms import ARMS, EPOCHS, Job, Row, best_micro_batch, draw_rows, read_rows, run_job, token_lengths, versions

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
        rows = some_of_each_prompt(rows, case.rows_a_prompt)
    if case.completion_tokens is not None:
        rows = lengthened(rows[:400], case.completion_tokens, tokenizer)
    return [row for row in rows if len(tokenizer(row["prompt"])["input_ids"]) < case.max_length]


def some_of_each_prompt(rows: list[Row], most: int) -> list[Row]:
    """At most so many rows of each prompt, from another place of each: where pairs begin with the desirable one, both labels stay."""
    of_prompt: dict[str, list[Row]] = {}
    for row in rows:
        of_prompt.setdefault(row["prompt"], []).append(row)
    return [row for turn, here in enumerate(of_prompt.values()) for row in np.roll(here, turn)[:most]]


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


class OutOfTime(Exception):
    """Another training would begin after the time that was given."""


@dataclass
class KeptRuns:
    """Trainings that are done, each in a file named by what it was: none is done twice."""

    folder: Path
    ends: float  # seconds of time.monotonic() after which none is begun but a first one: each call of the benchmark gets on
    begun: int = 0

    def figures(self, case: str, repeat: int, job: Job) -> dict[str, Any]:
        """Of the job, as they were kept, or from running it. Raises OutOfTime; RuntimeError where it cannot run here."""
        # the model of a case is written anew each time, to another folder
        what = hashlib.sha256(json.dumps(asdict(replace(job, model=case)), sort_keys=True).encode()).hexdigest()[:12]
        file = self.folder / f"{case}-{repeat}-{job.arm}-{what}.json"
        if not file.is_file():
            if self.begun and time.monotonic() > self.ends:
                raise OutOfTime
            self.begun += 1
            figures = run_job(job)
            if "cannot_run" in figures:
                raise RuntimeError(f"{job.arm}: {figures['cannot_run']}")
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(figures))
            speeds = (f"{figures[name]:7.1f}" for name in ("tokens_per_cpu_second", "tokens_per_second"))
            print(f"  {repeat} {job.arm:<12} {' '.join(speeds)} tokens/s, {figures['peak_mb']:7.0f} MB", flush=True)
        return json.loads(file.read_text())


def compare(name: str, model: str, options: argparse.Namespace, tokenizer: Any, kept: KeptRuns) -> dict[str, Any]:
    """All repeats of all arms on rows of one case. Raises OutOfTime."""
    case = CASES[name] if options.batch_size is None else replace(CASES[name], batch_size=options.batch_size)
    rows = rows_of(case, options.folder, tokenizer)
    drawn = [draw_rows(rows, options.updates * case.batch_size, options.seed + repeat) for repeat in range(options.repeats)]

    def run(arm: str, repeat: int, micro_batch: int) -> dict[str, Any]:
        job = Job(
            arm=arm,
            model=model,
            rows=drawn[repeat],
            warm_up=shortened(drawn[repeat], case.batch_size),
            max_length=case.max_length,
            batch_size=case.batch_size,
            micro_batch=micro_batch,
            threads=options.threads,
            lora_rank=case.lora_rank,
        )
        return kept.figures(name, repeat, job)

    tuned, sweep = 2, {}
    if {"trl_tuned", "trl_patched"} & set(options.arms):
        swept = "trl_patched" if "trl_patched" in options.arms else "trl_tuned"
        sizes = [size for size in options.micro_batches if size <= case.batch_size]
        tuned, sweep = best_micro_batch(lambda size: run(swept, 0, size), sizes, "tokens_per_cpu_second")
    # 8 is TRL's own default
    micro_batches = {"trl_default": min(8, case.batch_size)}
    runs = [
        {"repeat": repeat, **run(arm, repeat, micro_batches.get(arm, tuned))}
        for repeat, arm in turns(options.arms, options.repeats)
    ]
    return {
        "case": asdict(case),
        "rows": [described(each, tokenizer, case.max_length) for each in drawn],
        "micro_batch": tuned,
        "micro_batch_sweep": sweep,
        **compared(runs, options.arms, parameters(model)),
    }


def compared(runs: list[dict[str, Any]], arms: list[str], size: tuple[int, int]) -> dict[str, Any]:
    """The runs, with what the arithmetic of each was, and what they say. size: of `parameters`."""
    for run in runs:
        run["gflops_per_token"] = 2e-9 * (size[0] * run["passes_per_token"] + size[1] * run["head_passes_per_token"])
        run["share_of_peak"] = 1e9 * run["gflops_per_token"] * run["tokens_per_cpu_second"] / run["product_flops"]
    others = [arm for arm in arms if arm != "ktodata" and "ktodata" in arms]
    return {
        "runs": runs,
        "medians": {arm: medians(runs, arm) for arm in arms},
        "ktodata_over": {arm: ratios(runs, arm) for arm in others},
        "even_at_peak": {arm: at_peak(runs, arm) for arm in others},
    }


def parameters(model: str) -> tuple[int, int]:
    """(weights of the decoder's matrices, of the head's) of the model in a folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    inside = sum(part.weight.numel() for part in empty.base_model.modules() if isinstance(part, torch.nn.Linear))
    return inside, empty.get_output_embeddings().weight.numel()


def turns(arms: list[str], repeats: int) -> Iterator[tuple[int, str]]:
    """(repeat, arm), the first arm of a repeat being the second of the one before."""
    for repeat in range(repeats):
        shift = repeat % len(arms)
        yield from ((repeat, arm) for arm in arms[shift:] + arms[:shift])


FIGURES = (
    *("tokens_per_cpu_second", "tokens_per_second", "epoch_cpu_seconds", "reference_cpu_seconds", "peak_mb"),
    *("padding_ratio", "passes_per_token", "head_passes_per_token", "gflops_per_token", "share_of_peak"),
)


def medians(runs: list[dict[str, Any]], arm: str) -> dict[str, float]:
    """Of an arm's repeats."""
    return {name: median(run[name] for run in runs if run["arm"] == arm) for name in FIGURES}


def ratios(runs: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    """ktodata's figure / the arm's in the same repeat: each, and their median. Speed: more is better; memory, FLOPs: less."""
    figures = {}
    for name in ("tokens_per_cpu_second", "tokens_per_second", "peak_mb", "gflops_per_token"):
        each = [ours[name] / theirs[name] for ours, theirs in in_repeats(runs, arm)]
        figures[name] = {"each": each, "median": median(each)}
    return figures


def at_peak(runs: list[dict[str, Any]], arm: str) -> float:
    """How many times as fast as the arm ktodata would be if its matrix products took all its time, at the peak; the median."""
    return median(
        ours["product_flops"] / (1e9 * ours["gflops_per_token"] * theirs["tokens_per_cpu_second"])
        for ours, theirs in in_repeats(runs, arm)
    )


def in_repeats(runs: list[dict[str, Any]], arm: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(ktodata's run, the arm's) of each repeat."""
    ours, theirs = ({run["repeat"]: run for run in runs if run["arm"] == name} for name in ("ktodata", arm))
    return [(ours[repeat], theirs[repeat]) for repeat in sorted(ours)]


def measured_commit() -> str:
    """Of the last change to the package; it must have none that is in no commit."""
    here = Path(__file__).parents[2]
    if subprocess.run(["git", "status", "--porcelain", "--", "ktodata"], cwd=here, capture_output=True, check=True).stdout:
        raise SystemExit(
            "ktodata/ has changes that are in no commit: commit them first, so that the result can say what was measured"
        )
    log = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "ktodata"], cwd=here, capture_output=True, text=True, check=True
    )
    return log.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=1, help="of an epoch: that many times the case's rows an update are drawn")
    parser.add_argument("--batch-size", type=int, help="rows of an update, in place of the case's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["trl_patched", "ktodata"])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--micro-batches", type=int, nargs="+", default=MICRO_BATCHES, help="that TRL may choose from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=np.inf, help="after which no further training is begun")
    parser.add_argument(
        "--kept", type=Path, default=Path(tempfile.gettempdir()) / "trainer_speed", help="where trainings are kept"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from transformers import AutoTokenizer

    commit, tokenizer = measured_commit(), AutoTokenizer.from_pretrained(resolve_model(MODEL))
    kept = KeptRuns(options.kept / commit, time.monotonic() + 60 * options.minutes)
    for name in options.cases:
        print(name, flush=True)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                result = compare(name, model_of(CASES[name], Path(scratch)), options, tokenizer, kept)
        except OutOfTime:
            raise SystemExit("the time is up: the same command goes on") from None
        for arm, ratio in result["ktodata_over"].items():
            told = {figure: f"{each['median']:.2f}" for figure, each in ratio.items()}
            print(f"  ktodata / {arm}: {told}, at peak {result['even_at_peak'][arm]:.2f}")
        other = "" if options.batch_size is None else f", {options.batch_size} rows an update"
        write_case(name + other, {**result, "threads": options.threads, "commit": commit})


def write_case(name: str, result: dict[str, Any]) -> None:
    """Into the day's result, beside the cases that stand there."""
    terms = {"model": MODEL, "dtype": "float32", "epochs": EPOCHS, "versions": versions()}
    add_case("trainer_speed", name, result, terms)


def add_case(benchmark: str, name: str, result: dict[str, Any], terms: dict[str, Any]) -> None:
    """One case, with its command, into the day's result of a benchmark."""
    here = machine()
    written = Path(__file__).parent / "results" / f"{benchmark}-{here['date']}.json"
    before = json.loads(written.read_text())["cases"] if written.is_file() else {}
    result["command"] = here.pop("command")
    write_result(benchmark, {**terms, **here, "cases": {**before, name: result}})


if __name__ == "__main__":
    main()
