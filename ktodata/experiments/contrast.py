"""What arms are worth beside each other: held-out AUC, differences and the share of a gap closed, paired by seed and by prompt.

Uncertainty has two sources, and both are drawn: which prompts were held out (whole groups are resampled) and what a seed did
(seeds are resampled, the same ones for all arms). A difference is always taken within a draw.

Where each of five seeds holds out rows of its own (cross-validation), the part of the prompts is drawn twice. Simulated, equal
arms are then called different in 1 of 100 draws where trainings add no luck, in 6 where that spreads twice as far as the luck of
the prompts, and in 17 where five times as far, of which five seeds show too little.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import DataError
from ktodata.stats import Interval
from ktodata.stats.bootstrap import Statistic, group_weights, percentile_interval, weighted_auc, weighted_auc_within

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RESAMPLES = 2000
SMALLEST_GAP = 0.01  # AUC between baseline and ceiling, below which a share of it says nothing
SCHEMA = pl.Schema(
    {"arm": pl.String(), "measure": pl.String()}
    | dict.fromkeys(("value", "low", "high", "minus_baseline", "minus_low", "minus_high"), pl.Float64())
    | {"differs": pl.Boolean()}
    | dict.fromkeys(("gap_recovered", "gap_low", "gap_high"), pl.Float64())
    | {"seeds": pl.Int64()}
)


def contrast(
    scores: pl.DataFrame,
    held_out: pl.DataFrame,
    *,
    baseline: str,
    ceiling: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pl.DataFrame:
    """One line for each arm and measure, in the order of `scores`.

    scores : arm, seed, row_id, reward, as `KtoPlan.rewards` gives them
    held_out : row_id, truth (bool), group (rows drawn together), model (null where it is not known)

    All arms of a seed have scored the same rows; seeds may have rows of their own (cross-validation: one seed for each part).

    measures: "auc", P(a truly desirable row has the higher reward); "auc_within_model", the same among the rows of one generating
    model, averaged over models by their number of pairs. Each is the mean over seeds. minus_baseline is paired; differs: its 95 %
    interval does not hold 0; null for one seed, of which nobody knows what the luck of a training adds to that interval.
    gap_recovered = (arm - baseline) / (ceiling - baseline), 1 is all of it; null without a ceiling, for one seed, or where the
    ceiling is not above the baseline by SMALLEST_GAP and beyond chance: a share of nothing.
    Raises DataError when an arm lacks a seed or a row that another has.
    """
    arms, seeds, rewards, scored, rows = _reward_cube(scores, held_out)
    if baseline not in arms or (ceiling is not None and ceiling not in arms):
        raise DataError(
            f"contrast: the arms are {', '.join(arms)}; baseline {baseline!r} and ceiling {ceiling!r} must be among them."
        )
    truth = rows["truth"].to_numpy()
    draws, picks = _bootstrap_draws(rows["group"], len(seeds), resamples, seed)
    lines: list[dict[str, Any]] = []
    parts = _rows_of_models(rows["model"])
    measures: dict[str, Callable[[Floats, Bools], Statistic | None]] = {
        "auc": lambda reward, here: weighted_auc(reward[here], truth[here]),
        "auc_within_model": lambda reward, here: weighted_auc_within(reward[here], truth[here], [part[here] for part in parts]),
    }
    for measure, statistic_of in measures.items():
        statistics = [statistic_of(reward, here) for of_arm in rewards for reward, here in zip(of_arm, scored, strict=True)]
        drawn = [statistic(draws[:, scored[n % len(seeds)]]) for n, statistic in enumerate(statistics) if statistic is not None]
        if len(drawn) < len(statistics):  # a measure that some seed's rows do not have
            continue
        each = np.array(drawn).reshape(len(arms), len(seeds), -1)  # 1 + resamples in the last
        mean = np.einsum("asr,rs->ar", each, picks)
        lines += _contrast_lines(arms, measure, mean, baseline, ceiling, len(seeds))
    return pl.DataFrame(lines, schema=SCHEMA)


def _reward_cube(scores: pl.DataFrame, held_out: pl.DataFrame) -> tuple[list[str], list[int], Floats, Bools, pl.DataFrame]:
    """Arms, seeds, rewards [arms, seeds, rows], which rows a seed has scored [seeds, rows], and the rows known and scored."""
    arms, seeds = scores["arm"].unique(maintain_order=True).to_list(), sorted(scores["seed"].unique())
    rows = held_out.filter(pl.col("truth").is_not_null()).join(scores, on="row_id", how="semi").sort("row_id")
    cube = np.full((len(arms), len(seeds), rows.height), np.nan)
    for a, arm in enumerate(arms):
        for s, seed in enumerate(seeds):
            own = scores.filter(arm=arm, seed=seed).select("row_id", "reward")
            cube[a, s] = rows.select("row_id").join(own, on="row_id", how="left", maintain_order="left")["reward"].to_numpy()
    scored = ~np.isnan(cube).all(0)
    missing = np.argwhere(np.isnan(cube) & scored)
    if len(missing):
        a, s, row = missing[0]
        raise DataError(
            f"contrast: {len(missing):,} scores are missing (first: arm {arms[a]!r}, seed {seeds[s]}, row_id "
            f"{rows['row_id'][int(row)]})."
        )
    return arms, seeds, cube, scored, rows


def _bootstrap_draws(groups: pl.Series, seeds: int, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Weights of rows [1 + R, n] and of seeds [1 + R, S]; the first line is the data as it is."""
    random = np.random.default_rng(seed)
    rows = list(group_weights(groups.rank("dense"), resamples, random))  # before the seeds, by one generator
    picks = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    return np.vstack([np.ones((1, len(groups))), *rows]), np.vstack([np.full((1, seeds), 1 / seeds), picks])


def _rows_of_models(model: pl.Series) -> list[NDArray[np.bool_]]:
    """The rows of each generating model; rows of an unknown one are in none."""
    return [(model == name).fill_null(False).to_numpy() for name in model.drop_nulls().unique().sort()]


def _contrast_lines(
    arms: Sequence[str], measure: str, mean: Floats, baseline: str, ceiling: str | None, seeds: int
) -> list[dict[str, Any]]:
    base = mean[arms.index(baseline)]
    gap = None if ceiling is None else mean[arms.index(ceiling)] - base
    if gap is not None and (seeds == 1 or gap[0] < SMALLEST_GAP or _mean_interval(gap).includes_zero is not False):
        gap = None
    lines = []
    for number, arm in enumerate(arms):
        value, minus = _mean_interval(mean[number]), _mean_interval(mean[number] - base)
        line: dict[str, Any] = {"arm": arm, "measure": measure, "seeds": seeds}
        line |= {"value": value.value, "low": value.low, "high": value.high}
        if arm != baseline:
            line |= {"minus_baseline": minus.value, "minus_low": minus.low, "minus_high": minus.high}
            line["differs"] = minus.includes_zero is False if seeds > 1 else None
        if gap is not None and arm not in (baseline, ceiling):
            # where a draw has hardly a gap, a share of it would be anything
            share = np.where(gap >= SMALLEST_GAP, (mean[number] - base) / np.maximum(gap, SMALLEST_GAP), np.nan)
            share_recovered = _mean_interval(share)
            line |= {"gap_recovered": share_recovered.value, "gap_low": share_recovered.low, "gap_high": share_recovered.high}
        lines.append(line)
    return lines


def _mean_interval(values: Floats) -> Interval:
    return percentile_interval(float(values[0]), values[1:])
