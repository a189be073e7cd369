"""Paired differences, the gap closed, and intervals that hold what they should, on scores that were made with a known answer."""

import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError
from ktodata.experiments.ablation import ONE_TRAINING, Ablation
from ktodata.experiments.contrast import contrast
from ktodata.experiments.treatments import CLEAN, NOISY


def made(strength, rows=400, seeds=(0, 1, 2), noise_seed=0):
    """Scores of arms that see the truth with the given strengths, and the held-out rows; all arms share each row's own luck."""
    rng = np.random.default_rng(noise_seed)
    truth = rng.random(rows) < 0.6
    luck = rng.standard_normal(rows)
    held_out = pl.DataFrame(
        {"row_id": [f"r{n:04}" for n in range(rows)], "truth": truth, "group": [f"g{n // 4}" for n in range(rows)]}
    ).with_columns(model=pl.lit(None, pl.String))
    tables = [
        held_out.select("row_id", arm=pl.lit(arm), seed=pl.lit(seed)).with_columns(
            reward=pl.Series(force * truth + luck + 0.3 * rng.standard_normal(rows))
        )
        for seed in seeds
        for arm, force in strength.items()
    ]
    return pl.concat(tables), held_out


def line(table, arm, measure="auc"):
    return table.filter(arm=arm, measure=measure).row(0, named=True)


def test_a_better_arm_is_told_from_an_equal_one_by_pairs():
    scores, held_out = made({"noisy": 0.5, "same": 0.5, "better": 0.9, "clean": 1.3})
    table = contrast(scores, held_out, baseline="noisy", ceiling="clean")
    assert table["arm"].to_list() == ["noisy", "same", "better", "clean"]
    better, same = line(table, "better"), line(table, "same")
    assert better["differs"] and better["minus_low"] > 0
    assert not same["differs"]
    assert better["minus_high"] - better["minus_low"] < better["high"] - better["low"]  # what arms share cancels
    assert 0.3 < better["gap_recovered"] < 0.8
    assert better["gap_low"] < better["gap_recovered"] < better["gap_high"]
    assert line(table, "clean")["gap_recovered"] is None and line(table, "noisy")["minus_baseline"] is None


def test_of_one_training_no_difference_is_told():
    """The interval holds the luck of the held-out prompts alone; two trainings show the other."""
    strengths = {NOISY: 0.5, "better": 1.5, CLEAN: 2.5}
    once, twice = (contrast(*made(strengths, seeds=seeds), baseline=NOISY, ceiling=CLEAN) for seeds in [(0,), (0, 1)])
    assert (line(once, "better")["differs"], line(once, "better")["gap_recovered"]) == (None, None)
    assert line(twice, "better")["differs"] and line(twice, "better")["gap_recovered"] > 0
    made_up = pl.DataFrame({"arm": [], "seed": [], "row_id": [], "reward": []})
    verdicts = [" ".join(Ablation(table, made_up, made_up, {}).verdict()) for table in (once, twice)]
    assert "better: not known" in verdicts[0] and ONE_TRAINING in verdicts[0] and "better: better" in verdicts[1]


def test_the_auc_is_the_plain_one_averaged_over_seeds():
    from sklearn.metrics import roc_auc_score

    scores, held_out = made({"noisy": 0.5})
    truth = held_out["truth"].to_numpy()
    plain = [roc_auc_score(truth, scores.filter(seed=seed).sort("row_id")["reward"]) for seed in (0, 1, 2)]
    assert line(contrast(scores, held_out, baseline="noisy"), "noisy")["value"] == pytest.approx(np.mean(plain))


def test_seeds_may_have_rows_of_their_own():
    """Cross-validation: each seed's AUC is over its own rows, and the mean is of those."""
    from sklearn.metrics import roc_auc_score

    scores, held_out = made({"noisy": 0.5, "clean": 1.5})
    parts = {0: held_out["row_id"][:100], 1: held_out["row_id"][100:250], 2: held_out["row_id"][250:]}
    own = pl.concat([scores.filter(pl.col("seed") == seed, pl.col("row_id").is_in(ids.implode())) for seed, ids in parts.items()])
    table = contrast(own, held_out, baseline="noisy", ceiling="clean")
    joined = own.join(held_out, on="row_id").filter(arm="clean")
    plain = [roc_auc_score(part["truth"], part["reward"]) for _, part in joined.group_by("seed")]
    assert line(table, "clean")["value"] == pytest.approx(np.mean(plain))
    assert line(table, "clean")["differs"]
    lacking = own.filter(~((pl.col("arm") == "clean") & (pl.col("row_id") == parts[1][0])))
    with pytest.raises(DataError, match=r"1 scores are missing \(first: arm 'clean', seed 1, row_id r0100"):
        contrast(lacking, held_out, baseline="noisy")


def test_knowing_who_wrote_an_answer_is_worth_nothing_within_a_model():
    """Rewards that only know which of two models wrote the row, one of them mostly right: AUC high, within a model a coin's."""
    rng = np.random.default_rng(1)
    model = rng.random(2000) < 0.5
    truth = rng.random(2000) < np.where(model, 0.9, 0.2)
    held_out = pl.DataFrame({"row_id": [f"r{n}" for n in range(2000)], "truth": truth, "group": [f"g{n}" for n in range(2000)]})
    held_out = held_out.with_columns(model=pl.Series(np.where(model, "good", "bad")))
    scores = held_out.select(
        "row_id", arm=pl.lit("one"), seed=pl.lit(0), reward=pl.Series(model + 0.01 * rng.standard_normal(2000))
    )
    table = contrast(scores, held_out, baseline="one", resamples=200)
    assert line(table, "one")["value"] > 0.8
    within = line(table, "one", "auc_within_model")
    assert within["low"] < 0.5 < within["high"]


def test_equal_arms_differ_one_time_in_twenty():
    found = [
        line(contrast(*made({"a": 0.5, "b": 0.5}, rows=200, noise_seed=seed), baseline="a", resamples=300), "b")["differs"]
        for seed in range(60)
    ]
    assert sum(found) <= 9  # 3 are expected; 10 or more come by chance once in a thousand


@pytest.mark.parametrize(("trainings_differ", "most"), [(0.0, 2), (0.3, 7)])
def test_equal_arms_of_a_cross_validation_seldom_differ(trainings_differ, most):
    """Five parts with a seed each: what a training adds by chance is drawn with its part. 40 draws; 1 in 20 would be 2."""
    alarms = 0
    for draw in range(40):
        rng = np.random.default_rng([draw, 3])
        prompt, truth = np.arange(600) // 5, rng.random(600) < 0.8
        seen = 0.9 * truth + rng.standard_normal(600)
        tables = [
            pl.DataFrame({"row_id": [str(row) for row in range(600)], "seed": prompt % 5, "reward": reward}).with_columns(arm=arm)
            for arm in (pl.lit("noisy"), pl.lit("other"))
            for reward in [
                seen + 0.9 * rng.standard_normal(120)[prompt] + trainings_differ * truth * rng.standard_normal(5)[prompt % 5]
            ]
        ]
        held_out = tables[0].select("row_id", truth=pl.Series(truth), group=pl.Series(prompt), model=pl.lit(None, pl.String))
        scores = pl.concat(tables)
        alarms += line(contrast(scores, held_out, baseline="noisy", resamples=200), "other")["differs"]
    assert alarms <= most


def test_a_gap_that_may_be_chance_is_not_shared_out():
    """Forty rows: true labels rank a little better, by nothing that an interval tells from none."""
    scores, held_out = made({"noisy": 0.5, "arm": 0.9, "clean": 0.6}, rows=40)
    table = contrast(scores, held_out, baseline="noisy", ceiling="clean")
    clean = line(table, "clean")
    assert clean["minus_baseline"] > 0.01 and not clean["differs"]
    assert line(table, "arm")["gap_recovered"] is None


def test_no_gap_no_share_of_it():
    scores, held_out = made({"noisy": 0.5, "arm": 0.9, "clean": 0.5})
    assert line(contrast(scores, held_out, baseline="noisy", ceiling="clean"), "arm")["gap_recovered"] is None


def test_a_missing_score_is_an_error_that_names_it():
    scores, held_out = made({"noisy": 0.5, "arm": 0.9})
    lacking = scores.filter(~((pl.col("arm") == "arm") & (pl.col("seed") == 1) & (pl.col("row_id") == "r0003")))
    with pytest.raises(DataError, match=r"1 scores are missing \(first: arm 'arm', seed 1, row_id r0003\)"):
        contrast(lacking, held_out, baseline="noisy")
    with pytest.raises(DataError, match="ceiling 'clean' must be among"):
        contrast(scores, held_out, baseline="noisy", ceiling="clean")
