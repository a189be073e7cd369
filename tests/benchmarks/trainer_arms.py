"""One training, by TRL or by ktodata, in a process of its own: what trainer_speed.py and trainer_gpu.py compare.

Tokens per second are real ones (prompt and completion of the rows trained, no padding) of a training of `EPOCHS` epochs: an epoch's
updates, and its share of the reference pass that comes before the first of them. Left out for all arms alike: loading the model,
tokenising, the first update. TRL runs one epoch behind an update on `warm_up` rows, as its epochs repeat one another; ktodata runs
them all, as each brings new partners, which its reference pass has to cover. TRL gets its rows sorted by length inside an update.

Seconds are the clock's, and the processor's of all threads (cpu). passes_per_token: forward passes through the decoder that a real
token of an epoch costs, a backward pass counted as two, as one where the weights are frozen (LoRA); padding and the epoch's share of
the reference pass included. head_passes_per_token: the same of the vocabulary projection. product_flops: of this process's thread, in
a product of square matrices after the training.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

EPOCHS = 3
# trl_default  KTOConfig as it comes: gradient checkpointing, the reference computed in every step
# trl_tuned    reference computed before, no checkpointing, its fastest micro-batch: what a user can set
# trl_patched  trl_tuned with its vocabulary projection on completion tokens only: TRL does that with Triton and projects every
#              token elsewhere, so that on a CPU trl_tuned alone would flatter whatever is beside it
# ktodata      kd.train.fit as it comes
TRL_ARMS: dict[str, dict[str, Any]] = {
    "trl_default": {},
    "trl_tuned": {"precompute_ref_log_probs": True, "gradient_checkpointing": False},
    "trl_patched": {"precompute_ref_log_probs": True, "gradient_checkpointing": False},
}
ARMS = (*TRL_ARMS, "ktodata")

# no network, and no bars
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

Row = dict[str, Any]  # prompt, completion, label


@dataclass(frozen=True)
class Job:
    """What one process is to train. `micro_batch` is TRL's per_device_train_batch_size; ktodata finds its own."""

    arm: str
    model: str  # a folder
    rows: list[Row] = field(repr=False)
    warm_up: list[Row] = field(repr=False)  # one update of them
    max_length: int
    batch_size: int
    micro_batch: int
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 2
    attention: str = "sdpa"  # TRL's
    lora_rank: int = 0  # adapters on all linear layers; 0: all weights are trained
    settings: dict[str, Any] = field(default_factory=dict)  # more of kd.train.fit

    @property
    def gradient_passes(self) -> int:
        """Forward passes that a pass with its backward pass costs: frozen weights need no gradient of their own."""
        return 2 if self.lora_rank else 3


def run_job(job: Job) -> dict[str, Any]:
    """The job's figures; {"cannot_run": why} where a library or memory for it is missing. Caches are new and thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "job.json"
        file.write_text(json.dumps(asdict(job)))
        environment = QUIET | {"OMP_NUM_THREADS": str(job.threads), "HF_HOME": scratch}
        command = [sys.executable, __file__, str(file)]
        answer = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"{job.arm} failed:\n{answer.stderr[-4000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def best_micro_batch(
    run: Callable[[int], dict[str, Any]], candidates: list[int], speed: str
) -> tuple[int, dict[str, float | None]]:
    """(the candidate with which TRL is fastest, figure `speed` of each tried; None where it could not run).

    run : the figures of a training with so many rows at a time. Larger ones are tried as long as it becomes faster.
    """
    if len(candidates) == 1:
        return candidates[0], {}
    speeds: dict[int, float | None] = {}
    for size in sorted(candidates):
        speeds[size] = run(size).get(speed)
        if not speeds[size] or speeds[size] < max(each or 0 for each in speeds.values()):
            break
    best = max(speeds, key=lambda size: speeds[size] or 0)
    return best, {str(size): each for size, each in speeds.items()}


def token_lengths(rows: list[Row], tokenizer: Any, max_length: int) -> np.ndarray:
    """int64 [N, 2]: prompt and completion tokens of each row as both trainers count them, cut to max_length."""
    both = [_lengths(row, tokenizer) for row in rows]
    return np.array([(prompt, min(whole, max_length) - prompt) for prompt, whole in both])


def _lengths(row: Row, tokenizer: Any) -> tuple[int, int]:
    alone = tokenizer(row["prompt"])["input_ids"]
    whole = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
    # the completion starts where the two encodings part
    same = next((place for place, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    return same, len(whole)


def draw_rows(rows: list[Row], count: int, seed: int) -> list[Row]:
    """`count` rows in random order: prompts are drawn, and all rows of a prompt come with it. None has an empty completion."""
    random = np.random.default_rng(seed)
    of_prompt: dict[str, list[Row]] = {}
    for row in rows:
        of_prompt.setdefault(row["prompt"], []).append(row)
    prompts, drawn = list(of_prompt), []
    for number in random.permutation(len(prompts)):
        here = of_prompt[prompts[number]]
        fit = len(drawn) + len(here) <= count and all(row["completion"].strip() for row in here)
        drawn += here if fit else []
        if len(drawn) == count:
            return [drawn[place] for place in random.permutation(count)]
    raise ValueError(f"no {count} rows can be had of whole prompts: there are {len(rows)} rows of {len(prompts)} prompts")


def read_rows(folder: Path, data_set: str) -> list[Row]:
    """Rows of kto_<data_set>.jsonl.gz with labels as given; exact repeats of a prompt and completion are left out."""
    import ktodata as kd

    table = kd.read(folder / f"kto_{data_set}.jsonl.gz", label="label").feedback
    once = table.unique(["prompt", "completion"], keep="first", maintain_order=True)
    return once.select("prompt", "completion", "label").to_dicts()


def now() -> np.ndarray:
    """float64 [2]: seconds of the clock, and of the processor in all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Stopwatch:
    """When each update ended, and how long the reference pass took."""

    def __init__(self, job: Job) -> None:
        self._device = job.device
        self.ends: dict[int, np.ndarray] = {}  # update, counted from 1
        self.reference_seconds = np.zeros(2)

    def times_reference(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with its seconds added to the reference pass's."""

        def timed(*arguments: Any, **named: Any) -> Any:
            started = now()
            made = compute(*arguments, **named)
            self.reference_seconds += now() - started
            return made

        return timed

    def update_ended(self, number: int) -> None:
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize()  # else the clock runs ahead of the device
        self.ends.setdefault(number, now())

    def between(self) -> tuple[int, int, np.ndarray]:
        """(first timed update's predecessor, last update, seconds from the end of the one to the end of the other)."""
        first, last = min(self.ends), max(self.ends)
        return first, last, self.ends[last] - self.ends[first]


def figures(
    *, epoch_tokens: int, timed_tokens: int, seconds: np.ndarray, reference_seconds: np.ndarray, **more: Any
) -> dict[str, Any]:
    """tokens_per_second = epoch_tokens / (seconds of an epoch's updates + reference_seconds / EPOCHS), and what it is made of.

    seconds, reference_seconds : float64 [2], by the clock and of the processor
    """
    epoch_seconds = seconds * epoch_tokens / timed_tokens
    speed = epoch_tokens / (epoch_seconds + reference_seconds / EPOCHS)
    both = {"tokens_per_{}second": speed, "epoch_{}seconds": epoch_seconds, "reference_{}seconds": reference_seconds}
    by_clock, of_processor = (
        {name.format(part): float(values[place]) for name, values in both.items()} for place, part in enumerate(("", "cpu_"))
    )
    return {**by_clock, **of_processor, "epoch_tokens": epoch_tokens, **more}


def train_with_trl(job: Job) -> dict[str, Any]:
    """One update on job.warm_up, then one epoch of job.rows in the order given."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    torch.set_num_threads(job.threads)
    watch = Stopwatch(job)

    class Trainer(trl.KTOTrainer):
        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            return watch.times_reference(super()._precompute_ref_logps)(*arguments)

    class Watching(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.update_ended(state.global_step)

    by_default = trl.trainer.utils._use_triton
    compact = (lambda device: True) if job.arm == "trl_patched" else by_default
    with tempfile.TemporaryDirectory() as folder, patch.object(trl.trainer.utils, "_use_triton", compact):
        config = trl_config(job, folder, max_steps=1 + len(job.rows) // job.batch_size, **TRL_ARMS[job.arm])
        dataset = Dataset.from_list(job.warm_up + sorted_in_updates(job))
        trainer = Trainer(
            model=job.model, args=config, train_dataset=dataset, callbacks=[Watching()], peft_config=trl_adapters(job)
        )
        trainer.train()
    trained = trainer.train_dataset
    tokens = [min(len(p) + len(c), job.max_length) for p, c in zip(trained["prompt_ids"], trained["completion_ids"], strict=True)]
    own = sum(tokens[len(job.warm_up) :])
    batches = list(trainer.get_train_dataloader())[len(job.warm_up) // job.micro_batch :]
    of_decoder, of_head, padded, real = trl_passes(batches, job)
    return figures(
        epoch_tokens=own,
        timed_tokens=own,
        seconds=watch.between()[2],
        # of the rows' own: the warm-up rows were in the same pass
        reference_seconds=watch.reference_seconds * own / sum(tokens),
        padding_ratio=padded / real,
        passes_per_token=of_decoder / own,
        head_passes_per_token=of_head / own,
        micro_batch=job.micro_batch,
    )


def trl_passes(batches: list[dict[str, Any]], job: Job) -> tuple[float, float, int, int]:
    """(passes of tokens through the decoder in an epoch, through the head, padded tokens of its sequences, real ones)."""
    total = {
        name: sum(int(batch[f"{name}_mask"].sum()) for batch in batches)
        for name in ("attention", "KL_attention", "completion", "KL_completion")
    }
    size = {name: sum(batch[name].numel() for batch in batches) for name in ("input_ids", "KL_input_ids")}
    if job.arm == "trl_patched":
        head = {"": total["completion"], "KL_": total["KL_completion"]}
    else:  # every place but the last of each row
        head = {name: size[f"{name}input_ids"] - sum(len(batch[f"{name}input_ids"]) for batch in batches) for name in ("", "KL_")}
    passes = {"": job.gradient_passes + 1 / EPOCHS, "KL_": 1 + 1 / EPOCHS}  # the reference is computed once
    if job.arm == "trl_default":
        # with checkpointing the forward pass is made twice, and the reference in every step
        passes = {"": job.gradient_passes + 2, "KL_": 2}
    of_decoder = sum(passes[name] * size[f"{name}input_ids"] for name in passes)
    # its backward pass makes the logits again, in tiles
    of_head = sum(passes[name] * head[name] for name in passes) + head[""]
    return of_decoder, of_head, sum(size.values()), total["attention"] + total["KL_attention"]


def sorted_in_updates(job: Job) -> list[Row]:
    """The job's rows in the updates that they stand in, the longest first in each: micro-batches of neighbours pad least."""
    from transformers import AutoTokenizer

    lengths = token_lengths(job.rows, AutoTokenizer.from_pretrained(job.model), job.max_length).sum(1)
    update = np.arange(len(job.rows)) // job.batch_size
    return [job.rows[place] for place in np.lexsort((-lengths, update))]


def trl_adapters(job: Job) -> Any:
    """peft's settings for the adapters that ktodata puts on by default; None where all weights are trained."""
    if not job.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=job.lora_rank, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def trl_config(job: Job, folder: str, **more: Any) -> Any:
    """KTOConfig with what costs time without training switched off."""
    import trl

    options = {
        "output_dir": folder,
        "per_device_train_batch_size": job.micro_batch,
        "gradient_accumulation_steps": job.batch_size // job.micro_batch,
        "precompute_ref_batch_size": job.micro_batch,
        "max_length": job.max_length,
        "bf16": job.dtype == "bfloat16",
        "use_cpu": job.device == "cpu",
        "model_init_kwargs": {"dtype": "float32", "attn_implementation": job.attention},
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": job.device != "cpu",
    }
    return trl.KTOConfig(**{**options, **more})


def train_with_ktodata(job: Job) -> dict[str, Any]:
    """EPOCHS epochs of job.rows; the first update is not timed."""
    import polars as pl
    import torch
    from transformers import AutoTokenizer

    import ktodata as kd

    training = import_module("ktodata.train.run_training")
    torch.set_num_threads(job.threads)
    watch, passes = Stopwatch(job), Passes(job)

    def note(event: dict[str, Any]) -> None:
        if "held_out" not in event:
            watch.update_ended(event["step"])

    frame = pl.DataFrame(job.rows).with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
    watched = {
        "reference_logps": watch.times_reference(passes.counted_from(training.reference_logps)),
        "tokens_of_pass": passes.uncounted(training.tokens_of_pass),  # once in a training, before its first update
    }
    with patch.multiple(training, **watched), passes.counting():
        result = kd.train.fit(
            frame,
            model=job.model,
            epochs=EPOCHS,
            batch_size=job.batch_size,
            max_length=job.max_length,
            device=job.device,
            dtype=job.dtype,
            lora={"r": job.lora_rank} if job.lora_rank else None,
            progress=note,
            **job.settings,
        )
    lengths = token_lengths(job.rows, AutoTokenizer.from_pretrained(job.model), job.max_length).sum(1)
    counted = result.metrics["train"]["prompt_tokens"] + result.metrics["train"]["completion_tokens"]
    if counted != lengths.sum():
        raise RuntimeError(f"ktodata trained on {counted} tokens of an epoch, the rows have {lengths.sum()}")
    first, last, seconds = watch.between()
    trained = result.telemetry.filter((pl.col("part") == "train") & pl.col("step").is_between(first, last - 1))
    updates = trained.join(frame.select("row_id", "prompt"), on="row_id").group_by("step")
    meeting = updates.agg(pl.len() / pl.col("prompt").n_unique())
    took = result.metrics["seconds"]
    return figures(
        epoch_tokens=int(lengths.sum()),
        timed_tokens=int(lengths[trained["row_id"].cast(pl.Int64).to_numpy()].sum()),
        seconds=seconds,
        reference_seconds=watch.reference_seconds,
        passes_per_token=passes.of_decoder / (EPOCHS * int(lengths.sum())),
        head_passes_per_token=passes.of_head / (EPOCHS * int(lengths.sum())),
        padding_ratio=result.metrics["padding_ratio"],
        shared_ratio=result.metrics["shared_ratio"],  # tokens of all sequences asked for, by token computed without padding
        rows_per_prompt_in_an_update=meeting["len"].mean(),
        seconds_of_parts=took,
        versions=result.metrics["versions"],
    )


class Passes:
    """Passes of tokens through ktodata's decoder and head."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.of_decoder = self.of_head = 0

    def counting(self) -> AbstractContextManager[Any]:
        """Inside, they are counted."""
        from ktodata.train.model.packed_model import PackedModel

        forward = PackedModel.forward

        def counted(model: Any, pack: Any, **named: Any) -> Any:
            import torch

            passes = self._job.gradient_passes if torch.is_grad_enabled() else 1
            self.of_decoder += len(pack.ids) * passes
            self.of_head += len(pack.targets) * passes
            return forward(model, pack, **named)

        return patch.object(PackedModel, "forward", counted)

    def counted_from(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """The same; what was computed before its first call, as in checks of the model, does not count."""

        def counted(*arguments: Any, **named: Any) -> Any:
            self.of_decoder = self.of_head = 0
            return compute(*arguments, **named)

        return counted

    def uncounted(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with none of its passes counted."""

        def computed(*arguments: Any, **named: Any) -> Any:
            before = self.of_decoder, self.of_head
            made = compute(*arguments, **named)
            self.of_decoder, self.of_head = before
            return made

        return computed


def product_flops(repeats: int = 5, size: int = 1024) -> float:
    """Of a float32 product of two matrices of `size` squared, by the processor's seconds; the best of `repeats`."""
    import torch

    left, right = torch.rand(2, size, size)
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        left @ right
        seconds.append(time.process_time() - started)
    return 2 * size**3 / min(seconds)


def peak_mb(device: str) -> float:
    """Of this process: largest resident memory, or largest allocation on the GPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def run_here(job: Job) -> dict[str, Any]:
    """The job's figures, in this process: its peak memory is that of all that went before. It finds no cache, and leaves none."""
    train = train_with_ktodata if job.arm == "ktodata" else train_with_trl
    try:
        with tempfile.TemporaryDirectory() as scratch, patch.dict(os.environ, {"KTODATA_CACHE": scratch}):
            figures = train(job) | {"peak_mb": peak_mb(job.device)}
        if job.device == "cpu":
            figures["product_flops"] = product_flops()
    except ModuleNotFoundError as error:
        figures = {"cannot_run": str(error)}
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        figures = {"cannot_run": str(error).splitlines()[0]}
    return {"arm": job.arm, **figures}


def versions() -> dict[str, str]:
    """Of what the arms stand on."""
    return {name: version(name) for name in ("trl", "transformers", "accelerate", "datasets")}


if __name__ == "__main__":
    print(json.dumps(run_here(Job(**json.loads(Path(sys.argv[1]).read_text())))))
