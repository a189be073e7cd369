"""The track "train": how well a policy ranks held-out rows that learnt from labels as given, as repaired, and as they truly are.

Prompt groups are dealt into PARTS. Each is held out once, and its truth judges policies that were trained, with a seed of their
own, on the rows of the other parts as a method repaired them: of held-out rows neither a method nor a policy has seen the prompt.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ktodata.bench.bench_cells import BenchCell
from ktodata.bench.bench_methods import BenchMethod
from ktodata.bench.bench_rows import BenchRows, Bools
from ktodata.errors import EmptyDataError
from ktodata.experiments.ablation import Ablation, plan_arms, pool
from ktodata.experiments.arms import Arm
from ktodata.experiments.treatments import CLEAN, NOISY, SOFT, labelled
from ktodata.train.model.activation_cache import shared_activations

PARTS = 3
MIN_JUDGED = 10  # held-out rows of each true label, in every part
# fixed before anything was trained: those of tests/benchmarks/ablation.py, with fewer updates and layers
TERMS: Mapping[str, Any] = {
    **{"epochs": 1000, "max_steps": 24, "batch_size": 16, "learning_rate": 1e-4, "trainable_layers": 4},
    **{"max_length": 64, "kl_pairs_per_batch": 4},
}
Repairing = Callable[[BenchRows, int, BenchMethod], BenchCell | None]  # rows, part, method; None: nothing to train on


def train_track(
    rows: BenchRows,
    methods: Sequence[BenchMethod],
    repair: Repairing,
    *,
    share: float,
    model: str,
    seeds: int,
    folder: Path,
    terms: Mapping[str, Any] | None = None,
    notify: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Ablation:
    """Every arm in every part with every seed, the base of all differences being the labels as given; AUC against the truth.

    share : of the training rows, that each method has reviewed. As many at random, nothing else changed, is the control of all:
        the method "as given"
    seeds : trainings of an arm in a part. folder : where each training's scores are kept, so that a stopped bench goes on

    Arms whose rows and labels are the same are trained once. Raises EmptyDataError where a part's rows are too few to be judged
    or the labels of what is left are all one.
    """
    settings, part_of, ablations = {**TERMS, **(terms or {})}, _part_of(rows), list[Ablation]()
    for part in range(PARTS):
        _check_part(rows, part_of == part, part)
    trains = [rows.take(part_of != part) for part in range(PARTS)]
    cells = {method.name: [repair(train, part, method) for part, train in enumerate(trains)] for method in methods}
    with shared_activations():
        for part in range(PARTS):
            answered = {name: cell for name, each in cells.items() if None not in each and (cell := each[part])}
            arms = _arms(trains[part], answered, share)
            plan = plan_arms(
                partial(_arms_of_seed, arms),
                _scored(rows.take(part_of == part)),
                model=model,
                seeds=[part + PARTS * number for number in range(seeds)],
                train=settings,
                folder=folder,
            )
            ablations.append(plan.run(notify))
    return pool(ablations)


def arm_name(method: str, share: float) -> str:
    """Of a method's labels with this share reviewed."""
    return f"{method}, {percent(share)} reviewed"


def percent(share: float) -> str:
    """As it was given: 0.2%, 5%."""
    return f"{100 * share:.12g}%"


def _part_of(rows: BenchRows) -> Any:
    """The part in which each row is held out: int [N], by a checksum of its prompt group."""
    return np.array([zlib.crc32(str(group).encode()) % PARTS for group in rows.table["prompt_group"]])


def _arms(rows: BenchRows, cells: Mapping[str, BenchCell], share: float) -> list[Arm]:
    """Of the labels as given, the true ones, and those that each method leaves. cells : by method"""
    given = _given(rows)
    arms = [
        Arm(NOISY, "labels as given, nothing reviewed", given),
        Arm(CLEAN, "every label as it truly is", labelled(given, pl.Series(rows.truth)), SOFT),
    ]
    for name, cell in cells.items():
        repaired, terms = pl.Series("label", cell.repaired), cell.trainer_terms
        if "flip_rates" in terms:  # they correct hard labels
            table = given.with_columns(repaired)
        else:
            table, terms = labelled(given, repaired), {**SOFT, **terms}
        if cell.dropped is not None:
            table = table.filter(pl.Series(~cell.dropped))
        arms.append(Arm(arm_name(name, share), f"labels as {name} leaves them", table, terms, budget=share))
    return arms


def _arms_of_seed(arms: list[Arm], seed: int) -> list[Arm]:
    return arms  # none is drawn: seeds differ in how they train


def _given(rows: BenchRows) -> pl.DataFrame:
    return rows.table.select("row_id", "prompt", "completion", "prompt_group", label=pl.Series(rows.labels))


def _scored(rows: BenchRows) -> pl.DataFrame:
    truth = pl.Series(rows.truth)
    return _given(rows).with_columns(label=truth, truth=truth)


def _check_part(rows: BenchRows, held_out: Bools, part: int) -> None:
    judged = rows.truth[held_out]
    fewest = int(min(judged.sum(), (~judged).sum()))
    if fewest < MIN_JUDGED:
        raise EmptyDataError(
            f"train: part {part + 1} of {PARTS} has {fewest} rows of one true label; {MIN_JUDGED} of each are needed to judge by."
        )
    if len(np.unique(rows.labels[~held_out])) < 2:
        raise EmptyDataError(f"train: the labels outside part {part + 1} of {PARTS} are all one.")
