"""Arms drawn: the points are those of the table, and what cannot be drawn is refused with a reason."""

import numpy as np
import polars as pl
import pytest

from ktodata.errors import EmptyDataError, MissingColumnError
from ktodata.experiments.arm_figures import (
    ceiling_of,
    forest,
    review_curve,
    review_lines,
    reward_distributions,
    rewards_by_class,
)


def table(**changed):
    lines = [
        ("as given", None, None),
        ("true", None, 0.2),
        ("reviewed", 0.2, 0.16),
        ("reviewed", 0.1, 0.1),
        ("reviewed at random", 0.1, 0.05),
    ]
    frame = pl.DataFrame(lines, schema={"family": pl.String, "budget": pl.Float64, "minus_baseline": pl.Float64}, orient="row")
    ends = {"minus_low": pl.col("minus_baseline") - 0.1, "minus_high": pl.col("minus_baseline") + 0.1}
    return frame.with_columns(measure=pl.lit("auc"), **ends).with_columns(**changed)


def test_the_curve_goes_from_nothing_through_every_budget():
    axes = review_curve(table()).axes[0]
    drawn = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 1 and line.get_marker() == "None"]
    gains = [line[:, 1].tolist() for line in drawn]
    assert [0, 0.1, 0.16] in gains and [0, 0.05] in gains  # by rising budget, from no review and no gain
    assert [0.2, 0.2] in gains and [0, 0] in gains  # the true labels, and the labels as given
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["reviewed", "reviewed at random"]
    assert axes.get_xticks().tolist() == [0, 0.1, 0.2]
    spans = sorted((round(low, 3), round(high, 3)) for lines in axes.collections for (_, low), (_, high) in lines.get_segments())
    assert spans == [(-0.05, 0.15), (0, 0.2), (0.06, 0.26)]
    (share,) = axes.child_axes
    assert "share of the gap" in share.get_ylabel()


def test_without_true_labels_no_share_is_drawn():
    few = table().filter(pl.col("family") != "true")
    assert ceiling_of(few, "auc") is None and ceiling_of(table(), "auc") == 0.2
    assert review_curve(few).axes[0].child_axes == []
    level = table(minus_baseline=pl.when(pl.col("family") == "true").then(0.001).otherwise("minus_baseline"))
    assert review_curve(level).axes[0].child_axes == []  # of hardly a gap, a share would be anything


def test_a_curve_without_budgets_is_refused():
    assert review_lines(table(budget=pl.lit(None, pl.Float64)), "auc") == {}
    with pytest.raises(EmptyDataError, match="no arm has both a budget and auc_within_model"):
        review_curve(table(), measure="auc_within_model")
    with pytest.raises(MissingColumnError, match="review_curve needs column 'family', 'budget'"):
        review_curve(table().drop("family", "budget"))


def rewards():
    rows = [(arm, f"r{n}", seed, float(n) + seed, n % 2 == 0) for arm in ("one", "two $x$") for seed in (0, 2) for n in range(4)]
    return pl.DataFrame(rows, schema=["arm", "row_id", "seed", "reward", "truth"], orient="row")


def test_rewards_are_means_over_seeds_by_class():
    """Rows 0 to 3 are given their number, and 2 more with the other seed: means 1, 2, 3, 4; the even ones are desirable."""
    one, two = rewards_by_class(rewards())
    assert (one.arm, two.arm) == ("one", "two $x$")
    assert one.desirable.tolist() == [1, 3] and one.undesirable.tolist() == [2, 4]


def test_unknown_truth_and_broken_rewards_are_left_out():
    broken = rewards().with_columns(
        truth=pl.when(pl.col("row_id") != "r0").then("truth"),
        reward=pl.when(pl.col("row_id") != "r1").then("reward").otherwise(np.nan),
    )
    assert rewards_by_class(broken)[0].desirable.tolist() == [3]
    with pytest.raises(EmptyDataError, match="none of 16 lines"):
        reward_distributions(rewards().with_columns(truth=pl.lit(None, pl.Boolean)))
    with pytest.raises(MissingColumnError, match="reward_distributions needs column 'truth'"):
        reward_distributions(rewards().drop("truth"))


@pytest.mark.parametrize("shared", [True, False])
def test_each_arm_has_a_picture_and_classes_are_shares(shared):
    wide = rewards().with_columns(reward=pl.col("reward") * pl.when(pl.col("arm") == "one").then(1).otherwise(100))
    panels = reward_distributions(wide, shared=shared).axes
    assert [axes.get_title(loc="left") for axes in panels[:2]] == ["one", "two $x$"]
    assert (panels[0].get_xlim() == panels[1].get_xlim()) is shared
    for axes in panels[:2]:
        above, below = (patch.get_data().values for patch in axes.patches)
        assert above.sum() == pytest.approx(1) and below.sum() == pytest.approx(-1)


def test_rewards_that_are_all_equal_or_of_one_class_are_drawn():
    """The untrained base, or a part without undesirable rows."""
    flat = rewards().with_columns(reward=pl.lit(0.0), truth=pl.lit(True))
    low, high = reward_distributions(flat).axes[0].get_xlim()
    assert low < 0 < high


def arms():
    lines = [
        ("labels as given", "auc", None, None, None, None),
        ("helps", "auc", 0.1, 0.05, 0.15, True),
        ("unsure $x$", "auc", 0.02, -0.03, 0.07, False),
        ("not judged", "auc", -0.1, -0.2, -0.05, None),
        ("helps", "auc_within_model", 0.3, 0.2, 0.4, True),
    ]
    names = ["arm", "measure", "minus_baseline", "minus_low", "minus_high", "differs"]
    return pl.DataFrame(lines, schema=names, orient="row")


def test_the_forest_has_a_line_for_each_difference_from_the_top_down():
    axes = forest(arms()).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["helps", "unsure $x$", "not judged"]
    spans = {tuple(line.get_xdata()): line.get_ydata()[0] for line in axes.lines if line.get_marker() == "None"}
    assert [spans[one] for one in ((0.05, 0.15), (-0.03, 0.07), (-0.2, -0.05))] == [0, -1, -2]
    assert (0, 0) in spans  # the labels as given
    assert "minus that of the labels as given" in axes.get_xlabel() and "AUC" in axes.get_xlabel()


def test_only_what_differs_by_more_than_chance_is_filled():
    dots = [line for line in forest(arms()).axes[0].lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_markerfacecolor() == "white") for dot in dots] == [
        (0.1, False),
        (0.02, True),
        (-0.1, True),
    ]


def test_a_forest_of_another_measure_or_of_nothing():
    within = forest(arms(), measure="auc_within_model").axes[0]
    assert [text.get_text() for text in within.get_yticklabels()] == ["helps"] and "within a model" in within.get_xlabel()
    with pytest.raises(EmptyDataError, match="no arm of the table has a difference in brier"):
        forest(arms(), measure="brier")
    with pytest.raises(EmptyDataError, match="difference in auc"):
        forest(arms().head(1))
    with pytest.raises(MissingColumnError, match="forest needs column 'differs'"):
        forest(arms().drop("differs"))
