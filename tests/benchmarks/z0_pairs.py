"""How far z0 from few mismatched pairs moves an update, beside what the pairs cost.

    python tests/benchmarks/z0_pairs.py DATA_FOLDER [--cases ...] [--steps 12] [--draws 400]

A training with a mismatched pair for every row. At each update z0 is estimated again from subsets of its pairs, and with it the pull
of each row, beta x weight x sigmoid(margin) x sigmoid(-margin): what its gradient is multiplied with, and the only place where z0
comes in. moved_by is the root mean square of a row's change in pull over the root mean square of the pulls, over subsets and rows, in
the last half of the updates: how far the gradient can be off by the pairs left out, 0 for all of them. Rows whose prompt fills
max_length are left out. Learning rates are high, so that the model leaves its reference within few updates: at step 0 every log-ratio
is 0, and z0 too.
"""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
from machine import machine, write_result
from numpy.typing import NDArray
from trainer_arms import draw_rows, read_rows

import ktodata as kd

MODEL = "packaged:smollm2-135m-instruct"
BETA = 0.1
TERMS = {
    "trainable_layers": 6,
    "max_length": 64,
    "batch_size": 16,
    "kl_pairs_per_batch": None,
    "beta": BETA,
    "schedule": "constant",
    "warmup_fraction": 0.0,
}
# (rows, learning rate)
CASES = {"hh": ("hh_harmless", 1e-4), "hh, fast": ("hh_harmless", 5e-4), "xstest": ("xstest", 1e-4)}
PAIRS = (2, 4, 8, 12, 16)
Floats = NDArray[np.float64]


def pulls(log_ratios: Floats, z0: Floats) -> Floats:
    """[draws, B]: of rows with log-ratios [B], nats, at reference points [draws]; without weights, which are the same for all z0."""
    margin = BETA * (log_ratios[None, :] - z0[:, None])
    return BETA / (2 + np.exp(margin) + np.exp(-margin))


def moved_by(log_ratios: Floats, mismatched: Floats, pairs: int, draws: int, random: np.random.Generator) -> Floats:
    """[draws]: mean square of the change in pull over the mean square of pulls, with z0 from `pairs` of the mismatched [P] alone."""
    subsets = random.permuted(np.tile(mismatched, (draws, 1)), axis=1)[:, :pairs]
    whole = pulls(log_ratios, np.array([max(0.0, mismatched.mean())]))
    some = pulls(log_ratios, np.maximum(0.0, subsets.mean(1)))
    return ((some - whole) ** 2).mean(1) / (whole**2).mean()


def train(folder: Path, data_set: str, learning_rate: float, steps: int) -> tuple[list[Floats], list[Floats]]:
    """(log-ratios of each update's rows, of its mismatched pairs): nats."""
    loop, seen = import_module("ktodata.train.loop"), []
    point = loop.reference_point

    def noted(log_ratios: Any) -> Any:
        seen.append(log_ratios.double().numpy())
        return point(log_ratios)

    rows = draw_rows(read_rows(folder, data_set), steps * TERMS["batch_size"], seed=0)
    frame = pl.DataFrame(rows).with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
    with patch.object(loop, "reference_point", noted):
        result = kd.train.fit(frame, model=MODEL, device="cpu", dtype="float32", learning_rate=learning_rate, **TERMS)
    matched = result.telemetry.filter(part="train").sort("step").partition_by("step", maintain_order=True)
    return [step["log_ratio"].to_numpy().astype(float) for step in matched], seen


def measure(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One case's figures."""
    matched, mismatched = train(folder, *CASES[name], options.steps)
    random, late = np.random.default_rng(0), range(len(matched) // 2, len(matched))
    figures = {
        pairs: float(np.sqrt(np.mean([moved_by(matched[n], mismatched[n], pairs, options.draws, random).mean() for n in late])))
        for pairs in PAIRS
    }
    return {
        "moved_by": figures,
        "z0_of_all": [float(max(0.0, each.mean())) for each in mismatched],
        "deviation_of_pairs": [float(each.std(ddof=1)) for each in mismatched],
        "deviation_of_rows": [float(each.std(ddof=1)) for each in matched],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--draws", type=int, default=400)
    options = parser.parse_args()
    cases = {}
    for name in options.cases:
        cases[name] = measure(options.folder, name, options)
        print(name, cases[name], flush=True)
    write_result("z0_pairs", {"model": MODEL, **TERMS, "steps": options.steps, "cases": cases, **machine()})


if __name__ == "__main__":
    main()
