"""What training saw of each row, and that it points at labels known to be wrong."""

import math

import numpy as np
import polars as pl
import pytest

from ktodata.errors import DataError, MissingColumnError
from ktodata.stats import auroc
from ktodata.train import fit
from ktodata.train.results.group_margins import by_group
from ktodata.train.results.telemetry import SCHEMA, summarise


def looks(*lines, part="train", label=True):
    """Telemetry of looks (row_id, epoch, step, log_ratio, z0)."""
    table = [
        {"row_id": row_id, "epoch": epoch, "step": step, "log_ratio": ratio, "z0": z0, "part": part, "label": label}
        | {"logp": ratio - 5, "ref_logp": -5.0, "loss": 0.5, "gradient_weight": 0.1 * (step + 1), "completion_tokens": 3}
        for row_id, epoch, step, ratio, z0 in lines
    ]
    return pl.DataFrame(table, schema=SCHEMA)


def line_of(telemetry, beta=0.5):
    return summarise(telemetry, beta=beta).row(0, named=True)


# --- by hand ---------------------------------------------------------------------------------------------------------------


def test_a_rows_looks_sum_up_by_hand():
    """beta 0.5; margins 0.5 (-2 - 0) = -1, 0.5 (3 - 1) = 1, 0.5 (1 - 3) = -1, 0.5 (4 - 2) = 1
    their mean 0; sigmoid(1) = 0.7311, sigmoid(-1) = 0.2689: mean 0.5, standard deviation 0.2311
    positive in 2 of 4 looks, first in epoch 1, turned negative once
    """
    line = line_of(looks(("a", 0, 1, -2, 0), ("a", 1, 3, 3, 1), ("a", 2, 5, 1, 3), ("a", 3, 7, 4, 2)))
    assert (line["observations"], line["mean_margin"], line["last_margin"]) == (4, 0.0, 1.0)
    assert (line["confidence"], line["correctness"]) == (pytest.approx(0.5), 0.5)
    assert line["variability"] == pytest.approx(0.2311, abs=1e-4)
    assert line["std_margin"] == pytest.approx(math.sqrt(4 / 3))
    assert (line["forgotten"], line["first_learnt_epoch"]) == (1, 1)
    assert (line["mean_log_ratio"], line["completion_tokens"]) == (1.5, 3)
    assert line["mean_gradient_weight"] == pytest.approx(0.1 * (2 + 4 + 6 + 8) / 4)


def test_an_undesirable_row_has_the_margins_of_the_other_side():
    both = [line_of(looks(("a", 0, 1, 2, 1), ("a", 1, 3, -4, 0), label=label)) for label in (True, False)]
    assert [line["mean_margin"] for line in both] == [-0.75, 0.75]
    assert both[0]["confidence"] + both[1]["confidence"] == pytest.approx(1)
    assert both[0]["variability"] == pytest.approx(both[1]["variability"])
    assert [line["forgotten"] for line in both] == [1, 0]


def test_what_one_look_cannot_tell_is_null():
    line = line_of(looks(("a", 0, 1, 2, 0)))
    assert (line["mean_margin"], line["correctness"]) == (1.0, 1.0)
    assert [line[name] for name in ("std_margin", "variability", "forgotten", "first_learnt_epoch")] == [None] * 4


def test_rounding_before_the_first_update_is_not_taken_for_a_margin():
    """At step 0 the policy is its reference: 1e-7 nats are neither learnt, nor forgotten at the next look."""
    line = line_of(looks(("a", 0, 0, 1e-7, 0), ("a", 1, 4, -2, 0)))
    assert (line["forgotten"], line["first_learnt_epoch"], line["correctness"]) == (0, None, 0.0)


def test_training_and_validation_looks_are_kept_apart():
    per_row = pl.concat([looks(("a", 0, 1, 2, 0)), looks(("v", 0, 2, -2, 0), ("v", 1, 4, -2, 0), part="validation")])
    assert summarise(per_row, beta=1).select("row_id", "part", "observations").rows() == [
        ("a", "train", 1),
        ("v", "validation", 2),
    ]


def test_no_looks_give_no_rows():
    assert summarise(pl.DataFrame(schema=SCHEMA), beta=0.1).is_empty()


def test_the_order_in_which_looks_arrive_changes_no_bit():
    draw = np.random.default_rng(0)
    telemetry = looks(
        *[(f"r{row}", epoch, 50 * epoch + row % 50, draw.normal(), 0.1) for epoch in range(7) for row in range(300)]
    )
    in_pieces = pl.concat(
        [piece for _, piece in telemetry.sample(fraction=1, shuffle=True, seed=1).group_by("epoch")], rechunk=False
    )
    assert summarise(in_pieces, beta=0.1).equals(summarise(telemetry, beta=0.1))


# --- groups ----------------------------------------------------------------------------------------------------------------


def seen_rows(*lines):
    """(row_id, label, mean_margin)"""
    table = pl.DataFrame(lines, schema=["row_id", "label", "mean_margin"], orient="row")
    return table.with_columns(part=pl.lit("train"))


def test_a_group_is_compared_with_its_labels_elsewhere():
    """x: margins 1, 2, 3: mean 2, standard deviation 1, error 1 / sqrt(3) = 0.5774, t of 2 degrees 4.3027: 2 -/+ 2.4842
    expected of x: all desirable rows, (1 + 2 + 3 - 4) / 4 = 0.5; of y: one desirable 0.5 and one undesirable row 6: 3.25
    """
    rows = seen_rows(("a", True, 1.0), ("b", True, 2.0), ("c", True, 3.0), ("d", True, -4.0), ("e", False, 6.0))
    feedback = pl.DataFrame({"row_id": list("abcdez"), "rater": ["x", "x", "x", "y", "y", "z"]})
    groups = {line["group"]: line for line in by_group(rows, feedback, "rater").to_dicts()}
    assert list(groups) == ["y", "x"]
    assert (groups["x"]["n"], groups["x"]["mean"], groups["x"]["expected"]) == (3, 2.0, 0.5)
    assert (groups["x"]["low"], groups["x"]["high"]) == (pytest.approx(2 - 2.4842, abs=1e-4), pytest.approx(2 + 2.4842, abs=1e-4))
    assert (groups["y"]["mean"], groups["y"]["expected"]) == (1.0, 3.25)


def test_one_row_has_no_interval_and_no_rater_is_a_group():
    groups = by_group(seen_rows(("a", True, 1.0)), pl.DataFrame({"row_id": ["a"], "rater": [None]}), "rater")
    assert groups.rows() == [(None, 1, 1.0, None, None, 1.0)]


def test_labels_are_groups_too():
    groups = by_group(
        seen_rows(("a", True, 1.0), ("b", False, 3.0)), pl.DataFrame({"row_id": ["a", "b"], "label": [True, False]}), "label"
    )
    assert groups.select("group", "mean", "expected").rows() == [(False, 3.0, 3.0), (True, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("feedback", "column", "error", "says"),
    [
        ({"row_id": ["a"]}, "rater", MissingColumnError, "needs column 'rater'; the table has row_id"),
        ({"row_id": ["a"], "votes": [[1]]}, "votes", DataError, "'votes' is List"),
        ({"row_id": ["a", "a"], "rater": ["x", "y"]}, "rater", DataError, "1 of 2 rows of feedback share their row_id"),
        ({"row_id": ["other"], "rater": ["x"]}, "rater", DataError, "holds none of the 1 rows that training saw"),
    ],
)
def test_feedback_that_does_not_fit_is_refused(feedback, column, error, says):
    with pytest.raises(error, match=says):
        by_group(seen_rows(("a", True, 1.0)), pl.DataFrame(feedback), column)


# --- on labels known to be wrong -------------------------------------------------------------------------------------------

GOOD, BAD = ("one two three four five six".split(), "sky sea red blue green maybe".split())  # noqa: SIM905


def learnable_feedback(count, *, wrong, seed):
    """Rows whose completions are numbers (sound label: desirable) or colours (undesirable). `wrong`: bool [count], flipped."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        good = number % 2 == 0
        prompt = " ".join(draw.choice(["seven", "eight", "nine", "ten"], size=draw.integers(1, 4)))
        completion = " ".join(draw.choice(GOOD if good else BAD, size=draw.integers(3, 6)))
        label = good != bool(wrong[number])
        rows.append({"row_id": f"r{number}", "prompt": f"what is {prompt} ", "completion": completion, "label": label})
    return pl.DataFrame(rows)


def trained(rows, model_folder, **settings):
    return fit(rows, model=model_folder, batch_size=16, learning_rate=3e-3, warmup_fraction=0.0, device="cpu", **settings)


def separation(per_row, marked, name="mean_margin"):
    """For each given label, P(a marked row's value is below an unmarked one's)."""
    rows = per_row.with_columns(marked=pl.col("row_id").is_in(marked))
    sides = {label: rows.filter(pl.col("label") == label).partition_by("marked", as_dict=True) for label in (True, False)}
    return [auroc(side[True,][name].to_numpy(), side[False,][name].to_numpy()).value for side in sides.values()]


@pytest.fixture(scope="module")
def with_flips(model_folder, tmp_path_factory):
    """A training on 240 rows, 36 of them flipped; which; and as many that are not."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path_factory.mktemp("cache")))
    order = np.random.default_rng(3).permutation(240)
    wrong = np.isin(np.arange(240), order[:36])
    result = trained(learnable_feedback(240, wrong=wrong, seed=0), model_folder, epochs=6)
    monkeypatch.undo()
    return result, [f"r{number}" for number in order[:36]], [f"r{number}" for number in order[36:72]]


@pytest.mark.parametrize(
    ("name", "least"), [("mean_margin", 0.85), ("confidence", 0.85), ("last_margin", 0.85), ("correctness", 0.65)]
)
def test_flipped_rows_rank_below_sound_ones_of_the_same_given_label(with_flips, name, least):
    """Over other seeds the lowest value seen was 0.92 for margins, and 0.76 for correctness with its many ties."""
    result, flipped, _ = with_flips
    assert min(separation(result.per_row(), flipped, name)) > least


def test_rows_marked_at_random_do_not_rank_below_the_others(with_flips):
    """The measure can fail: 36 sound rows against the other sound ones stay near 0.5."""
    result, flipped, others = with_flips
    sound = result.per_row().filter(~pl.col("row_id").is_in(flipped))
    assert all(0.3 < value < 0.7 for value in separation(sound, others))


def test_epochs_after_the_first_tell_more_than_the_first_alone(with_flips):
    result, flipped, _ = with_flips
    first = summarise(result.telemetry.filter(epoch=0), beta=0.1)
    assert np.mean(separation(result.per_row(), flipped)) > np.mean(separation(first, flipped))


def test_a_rater_who_fights_the_rest_comes_first(model_folder):
    """Three raters of 60 rows each; two in three labels of `contrary` are wrong."""
    wrong = np.array([number < 60 and number % 3 != 0 for number in range(180)])
    rows = learnable_feedback(180, wrong=wrong, seed=1).with_columns(rater=pl.Series(["contrary"] * 60 + ["x"] * 60 + ["y"] * 60))
    groups = trained(rows, model_folder, epochs=4).by_group(rows, "rater").to_dicts()
    assert groups[0]["group"] == "contrary"
    assert groups[0]["high"] < groups[0]["expected"]
    assert all(line["high"] > line["expected"] for line in groups[1:])
