import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError, MissingColumnError, ShapeError
from ktodata.labels.evidence.training_dynamics import (
    join_dynamics,
    training_dynamics,
)


def telemetry(*looks):
    """(row_id, part, epoch, step, log_ratio), with z0 = 0 and completions of 10 tokens."""
    names = ("row_id", "part", "epoch", "step", "log_ratio")
    table = pl.DataFrame([dict(zip(names, look, strict=True)) for look in looks])
    return table.with_columns(log_ratio=pl.col("log_ratio").cast(pl.Float32), z0=pl.lit(0.0), completion_tokens=pl.lit(10))


def training(rows=1200, *, flipped=0.1, seed=0, spread_by_length=0.0, batch=8):
    """One epoch, then a second in which every label is remembered. (telemetry, row_ids, labels, flipped: bool [rows]).

    What is known of a row grows with the step, from nothing to 4 nats in favour of its true label; the mean of all log-ratios falls.
    """
    rng = np.random.default_rng(seed)
    truth, wrong = rng.random(rows) < 0.6, rng.random(rows) < flipped
    labels, tokens = truth ^ wrong, rng.integers(5, 200, rows)
    order = rng.permutation(rows)
    step = np.empty(rows, int)
    step[order] = np.arange(rows) // batch
    noise = rng.normal(size=rows) * (1 + spread_by_length * np.sqrt(tokens))
    first = np.where(truth, 1, -1) * 4 * step / step.max() - 10 * step / step.max() + noise
    again = np.where(labels, 20, -20) + rng.normal(size=rows)
    ids = [f"r{row}" for row in range(rows)]
    epochs = [
        pl.DataFrame({"row_id": ids, "epoch": epoch, "step": at, "log_ratio": ratio})
        for epoch, at, ratio in ((0, step, first), (1, step + step.max() + 1, again))
    ]
    table = pl.concat(epochs).with_columns(part=pl.lit("train"), z0=pl.lit(0.0))
    return table.join(pl.DataFrame({"row_id": ids, "completion_tokens": tokens}), on="row_id"), ids, labels, wrong


def auroc(quality, wrong):
    """Chance that a wrong row's quality is below a sound one's."""
    return (quality[wrong][:, None] < quality[~wrong]).mean()


def test_ranks_by_hand():
    """Three desirable rows at one evaluation: log-ratios 3, 1, 2. Plain and per token agree, mid-ranks are 5/6, 1/6, 3/6.
    The undesirable row's -5 is told apart from all three, so the policy's word counts: alone of its label, its rank is 1/2.
    """
    looks = telemetry(*((f"r{k}", "validation", 0, 5, ratio) for k, ratio in enumerate((3, 1, 2, -5))))
    labels = np.array([True, True, True, False])
    quality = training_dynamics(looks, ["r0", "r1", "r2", "r3"], labels).quality(labels)
    np.testing.assert_allclose(quality, [5 / 6, 1 / 6, 3 / 6, 1 / 2])


def test_flipped_rows_rank_low_within_each_label():
    looks, ids, labels, wrong = training()
    signal = training_dynamics(looks, ids, labels)
    quality = signal.quality(labels)
    for given in (True, False):
        of_label = signal.known & (labels == given)
        assert auroc(quality[of_label], wrong[of_label]) > 0.8
        assert abs(quality[of_label].mean() - 0.5) < 0.01


def test_memorised_rows_do_not_vouch_for_themselves():
    """In the second epoch every row, right or wrong, has a margin of 20: over all looks the flips look sound, before theirs not."""
    looks, ids, labels, _ = training()
    both = training_dynamics(looks, ids, labels)
    first = training_dynamics(looks.filter(pl.col("epoch") == 0), ids, labels)
    np.testing.assert_array_equal(both.log_odds, first.log_odds)
    assert both.metrics["observations_used"] < both.metrics["observations"] / 2 + 1


def test_early_looks_stay_near_the_middle():
    looks, ids, labels, _ = training()
    quality = training_dynamics(looks, ids, labels).quality(labels)
    step = looks.filter(pl.col("epoch") == 0)["step"].to_numpy()
    seen = np.isfinite(quality)
    early, late = seen & (step < 30), seen & (step > 110)
    assert np.abs(quality[early] - 0.5).mean() < np.abs(quality[late] - 0.5).mean()


def test_the_drift_of_all_log_ratios_is_no_evidence():
    """All log-ratios fall by 10 nats over the epoch; yet a desirable row seen late is not doubted for it."""
    looks, ids, labels, _ = training(flipped=0.0)
    quality = training_dynamics(looks, ids, labels).quality(labels)
    step = looks.filter(pl.col("epoch") == 0)["step"].to_numpy()
    late = np.isfinite(quality) & labels & (step > 75)
    assert abs(quality[late].mean() - 0.5) < 0.05


def test_neither_long_nor_short_rows_crowd_the_ends():
    looks, ids, labels, _ = training(spread_by_length=1.0)
    spread = training_dynamics(looks, ids, labels).metrics["rank_spread_by_length"]
    assert spread["plain"] > 0.2
    assert spread["per_token"] < -0.2
    assert abs(spread["mean"]) < 0.1


def test_what_does_not_count():
    """r0: step 0 only. r1: first look at step 4; its evaluation at step 9 came after its update. r2 was never looked at."""
    looks = telemetry(("r0", "train", 0, 0, 0.0), ("r1", "train", 0, 4, 1.0), ("r1", "validation", 0, 9, 9.0))
    signal = training_dynamics(looks, ["r0", "r1", "r2"], np.array([True, True, False]))
    assert signal.known.tolist() == [False, True, False]
    assert signal.metrics["observations_used"] == 1


def test_a_policy_that_learnt_nothing_says_nothing():
    """Alike log-ratios for both labels: AUC 1/2, weight 0, every quality 1/2."""
    looks = telemetry(*((f"r{k}", "validation", 0, 5, ratio) for k, ratio in enumerate((1, 2, 1, 2))))
    labels = np.array([True, True, False, False])
    quality = training_dynamics(looks, [f"r{k}" for k in range(4)], labels).quality(labels)
    assert quality.tolist() == [0.5] * 4


def test_the_order_of_the_looks_and_beta_change_nothing():
    looks, ids, labels, _ = training(300)
    expected = training_dynamics(looks, ids, labels, beta=0.1).log_odds
    found = training_dynamics(looks.sample(fraction=1, shuffle=True, seed=1), ids, labels, beta=0.5).log_odds
    np.testing.assert_array_equal(found, expected)


def test_errors_say_what_is_wrong():
    looks, label = telemetry(("r0", "train", 0, 1, 1.0)), np.array([True])
    with pytest.raises(MissingColumnError, match="'z0'"):
        training_dynamics(looks.drop("z0"), ["r0"], label)
    with pytest.raises(ShapeError, match="2 row_ids and 1 labels"):
        training_dynamics(looks, ["r0", "r1"], label)
    with pytest.raises(DataError, match="1 of 2 row_ids are repeated"):
        training_dynamics(looks, ["r0", "r0"], np.array([True, False]))
    with pytest.raises(DataError, match="none of the 1 rows"):
        training_dynamics(looks, ["x"], label)


def test_joined_rows_without_a_look_are_null_and_counted():
    """r0 and r1 were looked at by one evaluation, r1 under another label than it now has; r2 was not."""
    looks = telemetry(("r0", "validation", 0, 5, 2.0), ("r1", "validation", 0, 5, -2.0))
    looks = looks.with_columns(label=pl.Series([True, True]))
    table = pl.DataFrame({"row_id": ["r2", "r1", "r0"], "label": [True, False, True]})
    joined = join_dynamics(table, looks)
    assert joined.columns.to_dict(as_series=False) == {"row_id": ["r2", "r1", "r0"], "training_dynamics": [None, 0.5, 0.5]}
    counted = {
        name: joined.metrics[name]
        for name in ("rows", "rows_observed", "rows_without_observation", "labels_other_than_trained_on")
    }
    assert counted == {"rows": 3, "rows_observed": 2, "rows_without_observation": 1, "labels_other_than_trained_on": 1}


def test_rows_of_another_table_are_refused():
    looks = telemetry(("r0", "train", 0, 5, 2.0), ("r0", "train", 1, 9, 2.0), ("x" * 99, "train", 0, 5, 2.0))
    with pytest.raises(DataError, match=r"1 of 2 rows that were trained on are not in the data \(first: row_id 'x{40}'\)"):
        join_dynamics(pl.DataFrame({"row_id": ["r0"], "label": [True]}), looks)
