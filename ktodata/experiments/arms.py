"""Arms on equal terms: the same model, budget and seeds, other labels. Which trainings that makes, and one such training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import DataError
from ktodata.experiments.digests import digest, digest_model, digest_rows, digest_trainer
from ktodata.train.results.train_result import TrainResult

SCORED = ("row_id", "prompt", "completion", "label", "prompt_group")  # what of a held-out row is handed to the trainer


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


@dataclass(frozen=True)
class ArmTraining:
    """One arm with one seed.

    settings : all of `kd.train.fit`. key : of all that its scores depend on; two arms may come to the same
    kept_in : where those are, once it is trained; None: nowhere
    """

    arm: Arm
    seed: int
    settings: Mapping[str, Any]
    key: str
    kept_in: Path | None

    @property
    def kept(self) -> bool:
        """Whether it was trained before, with these settings, by this code."""
        return self.kept_in is not None and self.kept_in.is_file()


def plan_arms(
    arms_of: Callable[[int], Sequence[Arm]],
    held_out: pl.DataFrame,
    *,
    model: str,
    seeds: Sequence[int],
    train: Mapping[str, Any],
    folder: Path | None = None,
) -> list[ArmTraining]:
    """Every arm with every seed, in the order in which they are trained.

    arms_of : the arms of one seed, as some of them draw rows at random
    held_out : row_id, prompt, completion, label, as shards hold them; nothing of it is trained on, and its label is not used
    train : settings of `kd.train.fit` that all arms share, the budget among them
    folder : where each arm's scores are kept

    Raises DataError for two arms of one name, or a training row that is held out as well.
    """
    planned = []
    for seed in seeds:
        arms = list(arms_of(seed))
        _check(arms, held_out)
        for arm in arms:
            settings = {**train, **arm.settings, "model": model, "seed": seed}
            key = _key(arm.rows, held_out, settings)
            planned.append(ArmTraining(arm, seed, settings, key, None if folder is None else folder / f"{key}.parquet"))
    return planned


def fit_arm(arm: Arm, held_out: pl.DataFrame, settings: Mapping[str, Any]) -> TrainResult:
    """Train on the arm's rows, and look at `held_out` when that is done. Raises what `fit` raises."""
    from ktodata.train.fit_command import fit

    wanted = [name for name in SCORED if name in held_out.columns]
    rows = pl.concat(
        [arm.rows.with_columns(part=pl.lit("train")), held_out.select(wanted).with_columns(part=pl.lit("validation"))],
        how="diagonal",
    )
    return fit(rows, **settings)


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


def _key(rows: pl.DataFrame, held_out: pl.DataFrame, settings: dict[str, Any]) -> str:
    """Names a training by all that its scores depend on."""
    scored = [name for name in SCORED if name in held_out.columns and name != "label"]
    told = (digest_trainer(), settings, digest_model(settings["model"]))
    return digest(*told, digest_rows(rows, rows.columns), digest_rows(held_out, scored))
