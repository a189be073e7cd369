"""Does ktodata's KTO learn as much as TRL's from the same rows? Held-out reward AUC of both, seed by seed.

    python tests/benchmarks/trainer_quality.py DATA_FOLDER [--seeds 5] [--steps 12] [--arms ...] [--lines FILE]

Rows: XSTest (kto_xstest.jsonl.gz), people's verdict as label, without exact repeats. A prompt and its contrasting twin (same kind,
same place in it) are on one side: a part of them is held out, the same for all seeds. A seed draws the training rows and their
order; all arms get the same rows once, in updates of 16, and the same settings: the top 6 layers and the final norm train in fp32,
AdamW at a constant rate, gradients cut at norm 1, labels weighted so that both count the same. TRL computes its reference before the first update and takes 16 rows at once, so
that its z0 too is estimated from the whole update. The rest differs as the trainers do: which rows meet, and who is whose partner. Two more arms show what ktodata's own ways
to save cost: rows of a prompt dealt singly instead of together, and z0 from 4 pairs of an update instead of all.

reward = beta x (log p under the policy - log p under the untrained model), both summed over completion tokens by one plain function;
its AUC is P(a desirable held-out row has the higher reward), 0.5 for a policy that has learnt nothing. Every trained policy adds a
line to FILE; a run that was stopped goes on from there.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from machine import machine, write_result
from scipy.stats import t as student
from trainer_arms import QUIET, Job, Row, token_lengths, trl_config, versions

import ktodata as kd
from ktodata.models import load_causal_lm
from ktodata.stats.bootstrap import Statistic, bootstrap, weighted_auc

MODEL = "packaged:smollm2-135m-instruct"
TERMS = {"trainable_layers": 6, "max_length": 64, "batch_size": 16, "learning_rate": 1e-4, "beta": 0.1}
HELD_OUT, SPLIT_SEED = 0.3, 0
SCORED_TOGETHER = 16  # rows


def read_sides(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(training rows, held-out rows): prompt, completion, label, twins (equal for a prompt and its contrast)."""
    table = kd.read(folder / "kto_xstest.jsonl.gz", label="label", keep={"kind": "type", "place": "index_in_type"}).feedback
    rows = table.unique(["prompt", "completion"], keep="first", maintain_order=True)
    family = pl.col("kind").str.replace("contrast_", "").str.replace(r".*discr.*", "discr").str.replace(r"privacy.*", "privacy")
    rows = rows.select("row_id", "prompt", "completion", "label", twins=pl.concat_str(family, "place", separator=" "))
    twins = rows["twins"].unique().sort()
    held_out = np.random.default_rng(SPLIT_SEED).choice(len(twins), round(HELD_OUT * len(twins)), replace=False)
    is_held_out = pl.col("twins").is_in(twins[held_out].to_list())
    return rows.filter(~is_held_out), rows.filter(is_held_out)


def train_trl(rows: list[Row], seed: int, steps: int) -> Any:
    """The policy after one pass over `rows`, in that order."""
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback

    # on a CPU TRL projects every token on the vocabulary; told to do it for completions only, it gives the same, sooner
    trl.trainer.utils._use_triton = lambda device: True
    model, tokenizer = load_causal_lm(MODEL)
    top = model.model.layers[-TERMS["trainable_layers"] :]
    model.requires_grad_(False)
    for part in (top, model.model.norm):
        part.requires_grad_(True)
    size = TERMS["batch_size"]
    job = Job("trl_tuned", "", [], [], TERMS["max_length"], size, micro_batch=size)
    with tempfile.TemporaryDirectory() as folder:
        config = trl_config(
            job,
            folder,
            # computed with the model handed over; else TRL would read a reference of its own from the model's folder
            precompute_ref_log_probs=True,
            gradient_checkpointing=False,
            model_init_kwargs=None,
            max_steps=steps,
            beta=TERMS["beta"],
            learning_rate=TERMS["learning_rate"],
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=seed,
            # both trainers let both labels count the same; ktodata does so unasked
            **even_weights(rows),
        )
        trainer = trl.KTOTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if trainer.state.global_step != steps or len(trainer.train_dataset) != len(rows):
        raise RuntimeError(f"TRL made {trainer.state.global_step} updates from {len(trainer.train_dataset)} rows")
    return trainer.model


def even_weights(rows: list[Row]) -> dict[str, float]:
    """Loss weights under which both labels count the same, the commoner one's at 1."""
    desirable = sum(row["label"] for row in rows)
    undesirable = len(rows) - desirable
    return {"desirable_weight": max(1.0, undesirable / desirable), "undesirable_weight": max(1.0, desirable / undesirable)}


def train_ktodata(rows: list[Row], seed: int, steps: int, **changed: Any) -> Any:
    """The policy after one pass over `rows`."""
    frame = pl.DataFrame(rows).with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
    result = kd.train.fit(frame, model=MODEL, schedule="constant", warmup_fraction=0, device="cpu", seed=seed, **TERMS, **changed)
    used = {name: result.metrics["balance"][name] for name in even_weights(rows)}
    if any(abs(used[name] - wanted) > 1e-4 for name, wanted in even_weights(rows).items()):
        raise RuntimeError(f"ktodata weighted the labels {used}")
    if result.history.height != steps or result.metrics["train"]["rows"] != len(rows):
        raise RuntimeError(f"ktodata made {result.history.height} updates from {result.metrics['train']['rows']} rows")
    return result.model


TRAIN: dict[str, Callable[[list[Row], int, int], Any]] = {
    "trl": train_trl,
    "ktodata": train_ktodata,
    # what its ways to save cost: rows of one prompt dealt singly, and z0 from a quarter of the pairs
    "ktodata_dealt_singly": partial(train_ktodata, group_by_prompt=False),
    "ktodata_z0_of_4": partial(train_ktodata, kl_pairs_per_batch=4),
}


def score(model: Any, tokenizer: Any, rows: list[Row]) -> np.ndarray:
    """log p(completion | prompt) of each row in nats, summed over its tokens, cut at max_length: float64 [N]."""
    logps = np.zeros(len(rows))
    whole = [tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"] for row in rows]
    starts = token_lengths(rows, tokenizer, TERMS["max_length"])[:, 0]
    by_length = sorted(range(len(rows)), key=lambda number: len(whole[number]))
    for begin in range(0, len(rows), SCORED_TOGETHER):
        here = by_length[begin : begin + SCORED_TOGETHER]
        ids = [torch.tensor(whole[number][: TERMS["max_length"]]) for number in here]
        batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        with torch.no_grad():
            # nothing real looks right, where the padding is
            each = torch.log_softmax(model.eval()(input_ids=batch).logits[:, :-1].float(), -1)
        each = each.gather(-1, batch[:, 1:, None])[..., 0]
        for line, number in enumerate(here):
            logps[number] = float(each[line, starts[number] - 1 : len(ids[line]) - 1].double().sum())
    return logps


def run_all_seeds(train: pl.DataFrame, held_out: pl.DataFrame, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One line for every seed and arm: from the file of an earlier run, or trained now."""
    terms = {**TERMS, "model": MODEL, "steps": options.steps, "held_out": held_out["row_id"].to_list()}
    done = [json.loads(line) for line in options.lines.read_text().splitlines()] if options.lines.exists() else []
    finished = {(line["seed"], line["arm"]): line for line in done if line["terms"] == terms}
    wanted = [(seed, arm) for seed in range(options.seeds) for arm in options.arms]
    missing = [turn for turn in wanted if turn not in finished]
    if missing:
        untrained, tokenizer = load_causal_lm(MODEL)
        rows = held_out.to_dicts()
        started = time.perf_counter()
        base = score(untrained, tokenizer, rows)
        estimate(time.perf_counter() - started, len(rows), len(missing), options.steps)
        for seed, arm in missing:
            started = time.perf_counter()
            policy = TRAIN[arm](drawn(train, seed, options.steps), seed, options.steps)
            took = time.perf_counter() - started
            rewards = TERMS["beta"] * (score(policy, tokenizer, rows) - base)
            line = {"seed": seed, "arm": arm, "terms": terms, "training_seconds": took, "rewards": rewards.tolist()}
            with options.lines.open("a") as file:
                file.write(json.dumps(line) + "\n")
            finished[seed, arm] = line
            print(f"  seed {seed} {arm:<8} AUC {_auc(line, held_out):.4f}  {took:5.0f} s of training", flush=True)
    return [finished[turn] for turn in wanted]


def estimate(scoring_seconds: float, scored_rows: int, trainings: int, steps: int) -> None:
    """Say how long the rest takes, from one scoring of the held-out rows."""
    # four forward passes for policy and reference, matched and mismatched, and the backward pass of a fifth of the layers
    as_forward_passes = 4.5
    trained_rows = steps * TERMS["batch_size"]
    seconds = trainings * scoring_seconds * (1 + as_forward_passes * trained_rows / scored_rows)
    print(f"{trainings} trainings to go: about {seconds / 60:.0f} minutes at most", flush=True)


def drawn(train: pl.DataFrame, seed: int, steps: int) -> list[Row]:
    """The rows of a seed, in the order in which TRL trains on them."""
    count = steps * TERMS["batch_size"]
    return train.sample(count, shuffle=True, seed=seed).select("prompt", "completion", "label").to_dicts()


def _auc(line: dict[str, Any], held_out: pl.DataFrame) -> float:
    return float(weighted_auc(line["rewards"], held_out["label"])(np.ones((1, held_out.height)))[0])


def compare(lines: list[dict[str, Any]], held_out: pl.DataFrame) -> dict[str, Any]:
    """AUC by seed and arm, and ktodata's minus every other's with an interval over seeds and one over held-out prompts."""
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    auc = {arm: [_auc(line, held_out) for line in lines if line["arm"] == arm] for arm in arms}
    each = {arm: [weighted_auc(line["rewards"], held_out["label"]) for line in lines if line["arm"] == arm] for arm in arms}
    means: dict[str, Statistic] = {arm: _mean(each[arm]) for arm in arms}
    others = [arm for arm in arms if arm != "ktodata"]
    means |= {f"ktodata - {arm}": partial(_difference, means["ktodata"], means[arm]) for arm in others}
    over_prompts = bootstrap(means, held_out["twins"].to_numpy(), resamples=2000, seed=0)
    return {
        "auc": auc,
        "difference": {arm: _gap(auc, arm, over_prompts[f"ktodata - {arm}"].as_dict()) for arm in others},
        "mean_auc": {arm: over_prompts[arm].as_dict() for arm in arms},
    }


def _gap(auc: dict[str, list[float]], arm: str, over_prompts: dict[str, Any]) -> dict[str, Any]:
    """ktodata's AUC minus this arm's: seed by seed, and with a t interval over seeds."""
    gaps = np.array(auc["ktodata"]) - np.array(auc[arm])
    over_seeds = None
    if len(gaps) > 1:
        reach = float(student.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
        over_seeds = {"low": float(gaps.mean()) - reach, "high": float(gaps.mean()) + reach}
    return {
        "each": gaps.tolist(),
        "mean": float(gaps.mean()),
        "interval_over_seeds": over_seeds,
        "interval_over_prompts": over_prompts,
    }


def _difference(first: Statistic, second: Statistic, weights: np.ndarray) -> np.ndarray:
    return first(weights) - second(weights)


def _mean(statistics: list[Statistic]) -> Statistic:
    return lambda weights: np.mean([run(weights) for run in statistics], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", default=list(TRAIN), choices=list(TRAIN))
    parser.add_argument("--steps", type=int, default=12, help="updates of 16 rows")
    parser.add_argument("--held-out-rows", type=int, default=240, help="score so many of them only")
    parser.add_argument("--lines", type=Path, default=Path(tempfile.gettempdir()) / "trainer_quality.jsonl")
    options = parser.parse_args()
    os.environ.update(QUIET)
    train, held_out = read_sides(options.folder)
    held_out = held_out if options.held_out_rows is None else held_out.sample(options.held_out_rows, seed=SPLIT_SEED)
    if options.steps * TERMS["batch_size"] > train.height:
        parser.error(
            f"--steps {options.steps} needs {options.steps * TERMS['batch_size']} training rows, there are {train.height}"
        )
    print(f"{train.height} rows to train on, {held_out.height} held out; lines in {options.lines}", flush=True)
    comparison = compare(run_all_seeds(train, held_out, options), held_out)
    print(json.dumps(comparison["difference"]))
    sizes = {"training_rows": train.height, "held_out_rows": held_out.height, "held_out_twins": held_out["twins"].n_unique()}
    terms = {"model": MODEL, "data_set": "xstest", **TERMS, "steps": options.steps, **sizes}
    write_result("trainer_quality", {**terms, **comparison, "versions": versions(), **machine()})


if __name__ == "__main__":
    main()
