"""Arms on equal terms: the same model, budget and seeds, other labels; each is trained once and scores the same held-out rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import DataError
from ktodata.evaluate.digests import digest, digest_model, digest_rows, digest_trainer
from ktodata.files import whole_file

Notify = Callable[[dict[str, Any]], None]
SCORED = ("row_id", "prompt", "completion", "label", "prompt_group")  # what of a held-out row is handed to the trainer
SCORES = pl.Schema({"arm": pl.String(), "seed": pl.Int64(), "row_id": pl.String(), "reward": pl.Float64()})


@dataclass(frozen=True)
class Arm:
    """One way to treat the labels.

    rows : training rows as shards hold them (row_id, prompt, completion, label; weight, p_desirable, prompt_group)
    settings : of `kd.train.fit`, beside those that all arms share. says : what it is, in a sentence.
    family : what kind of treatment; budget : the share of the rows that it reviews, if any
    """

    name: str
    says: str
    rows: pl.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    budget: float | None = None


def run_arms(
    arms_of: Callable[[int], Sequence[Arm]],
    held_out: pl.DataFrame,
    *,
    model: str,
    seeds: Sequence[int],
    train: Mapping[str, Any],
    folder: Path | None = None,
    notify: Notify = lambda event: None,
) -> pl.DataFrame:
    """Train every arm with every seed and score the held-out rows: arm, seed, row_id, reward.

    arms_of : the arms of one seed, as some of them draw rows at random
    held_out : row_id, prompt, completion, label, as shards hold them; nothing of it is trained on, and its label is not used
    train : settings of `kd.train.fit` that all arms share, the budget among them
    folder : where each arm's scores are kept as soon as they are there; a comparison that was stopped goes on from them
    notify : called before each arm with arm, seed, done, of, and seconds_left: at most, by the mean of those trained so far; None
        before the first, and less where some of the rest are kept already

    reward = beta x (log p of the trained policy - log p of the untrained model), in units of beta nats; higher is more desirable.
    Raises DataError for two arms of one name, or a training row that is held out as well; otherwise what `fit` raises.
    """
    from ktodata.train.kept import shared_states

    found: list[pl.DataFrame] = []
    spent: list[float] = []
    with shared_states():
        for place, seed in enumerate(seeds):
            arms = list(arms_of(seed))
            _check(arms, held_out)
            for number, arm in enumerate(arms):
                done, of = place * len(arms) + number, len(seeds) * len(arms)
                left = sum(spent) / len(spent) * (of - done) if spent else None
                notify({"arm": arm.name, "seed": seed, "done": done, "of": of, "seconds_left": left})
                scores = _scores(arm, held_out, {**train, **arm.settings, "model": model, "seed": seed}, folder, spent)
                found.append(scores.select(pl.lit(arm.name).alias("arm"), pl.lit(seed).cast(pl.Int64).alias("seed"), pl.all()))
    return pl.concat(found).cast(SCORES) if found else pl.DataFrame(schema=SCORES)


def _check(arms: Sequence[Arm], held_out: pl.DataFrame) -> None:
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two arms are named {twice[0]!r}; each needs a name of its own.")
    for arm in arms:
        both = arm.rows.join(held_out, on="row_id", how="semi")
        if both.height:
            raise DataError(
                f"arm {arm.name!r}: {both.height:,} of its {arm.rows.height:,} training rows are held out as well (first: "
                f"{both['row_id'][0]}). Hold out whole prompts with the step `split`."
            )


def _scores(arm: Arm, held_out: pl.DataFrame, settings: dict[str, Any], folder: Path | None, spent: list[float]) -> pl.DataFrame:
    """row_id, reward: from `folder` if this very arm was trained before; else the seconds of its training join those `spent`."""
    place = None if folder is None else folder / f"{_key(arm.rows, held_out, settings)}.parquet"
    if place is not None and place.is_file():
        return pl.read_parquet(place)
    start = time.perf_counter()
    scores = _train(arm, held_out, settings)
    spent.append(time.perf_counter() - start)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as scratch:
            scores.write_parquet(scratch)
    return scores


def _train(arm: Arm, held_out: pl.DataFrame, settings: dict[str, Any]) -> pl.DataFrame:
    from ktodata.train.fitting import fit

    wanted = [name for name in SCORED if name in held_out.columns]
    rows = pl.concat(
        [arm.rows.with_columns(part=pl.lit("train")), held_out.select(wanted).with_columns(part=pl.lit("validation"))],
        how="diagonal",
    )
    fitted = fit(rows, **settings)
    looks = fitted.telemetry.filter(pl.col("part") == "validation")
    last = looks.filter(pl.col("step") == looks["step"].max())
    beta = float(fitted.facts["settings"]["beta"])
    return last.select("row_id", reward=beta * pl.col("log_ratio").cast(pl.Float64)).sort("row_id")


def _key(rows: pl.DataFrame, held_out: pl.DataFrame, settings: dict[str, Any]) -> str:
    """Names a training by all that its scores depend on."""
    scored = [name for name in SCORED if name in held_out.columns and name != "label"]
    told = (digest_trainer(), settings, digest_model(settings["model"]))
    return digest(*told, digest_rows(rows, rows.columns), digest_rows(held_out, scored))
