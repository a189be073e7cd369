"""Arms trained one after the other; each scores the same held-out rows, and finished ones are kept."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from ktodata.experiments.arms import ArmTraining, fit_arm
from ktodata.experiments.arms_clock import TimeLeft, estimate_arms, estimate_text
from ktodata.files import whole_file

Notify = Callable[[dict[str, Any]], None]
SCORES = pl.Schema({"arm": pl.String(), "seed": pl.Int64(), "row_id": pl.String(), "reward": pl.Float64()})


def train_arms(trainings: Sequence[ArmTraining], held_out: pl.DataFrame, *, notify: Notify = lambda event: None) -> pl.DataFrame:
    """Train every arm with every seed and score the held-out rows: arm, seed, row_id, reward.

    Where arms have a place to be kept in, each is written there as soon as it is trained: what was stopped goes on from them.
    notify : gets kind, number, of, stage, text. First "note", with what it will cost (`estimate_arms`); before each arm "start",
        or "cached" where nothing is left to train for it; after it "done", with seconds. Those of an arm have arm, seed and
        seconds_left, by the estimate times how far it was off so far.

    reward = beta x (log p of the trained policy - log p of the untrained model), in units of beta nats; higher is more desirable.
    Raises what `fit` raises.
    """
    from ktodata.train.model.activation_cache import shared_activations

    if not trainings:
        return pl.DataFrame(schema=SCORES)
    estimate = estimate_arms(trainings, held_out)
    notify({"kind": "note", "number": 0, "of": len(trainings), "stage": "estimate", "text": estimate_text(estimate), **estimate})
    left = TimeLeft(estimate["seconds"])
    found: list[pl.DataFrame] = []
    scores: dict[str, pl.DataFrame] = {}
    with shared_activations():
        for number, training in enumerate(trainings, 1):
            known = training.kept or training.key in scores
            named = {"arm": training.arm.name, "seed": training.seed}
            event = {"number": number, "of": len(trainings), "stage": f"{training.arm.name}, seed {training.seed}", **named}
            notify({"kind": "cached" if known else "start", **event, **left.told()})
            started = time.perf_counter()
            if training.key not in scores:
                scores[training.key] = _scores(training, held_out)
            if not known:
                left.took(number - 1, seconds := time.perf_counter() - started)
                notify({"kind": "done", **event, "seconds": seconds, **left.told()})
            columns = [pl.lit(value).alias(name) for name, value in named.items()]
            found.append(scores[training.key].select(*columns, pl.all()))
    return pl.concat(found).cast(SCORES)


def _scores(training: ArmTraining, held_out: pl.DataFrame) -> pl.DataFrame:
    """row_id, reward: as they were kept, else trained for, and kept."""
    place = training.kept_in
    if place is None:
        return _train(training, held_out)
    if training.kept:
        return pl.read_parquet(place)
    scores = _train(training, held_out)
    place.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(place) as scratch:
        scores.write_parquet(scratch)
    return scores


def _train(training: ArmTraining, held_out: pl.DataFrame) -> pl.DataFrame:
    fitted = fit_arm(training.arm, held_out, training.settings)
    looks = fitted.telemetry.filter(pl.col("part") == "validation")
    last = looks.filter(pl.col("step") == looks["step"].max())
    beta = float(fitted.metrics["settings"]["beta"])
    return last.select("row_id", reward=beta * pl.col("log_ratio").cast(pl.Float64)).sort("row_id")
