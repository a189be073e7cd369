"""Arms drawn: their measures and differences, what reviewed rows buy, how far the rewards of the two classes lie apart.

`forest`, `method_forest`, `review_curve` and `reward_distributions` give a matplotlib figure, which a notebook shows. What they
draw with (`draw_...`) takes its colours from the caller, as those of the page follow the reader's light or dark theme.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import EmptyDataError
from ktodata.experiments.contrast import SMALLEST_GAP
from ktodata.experiments.measures import KTO
from ktodata.experiments.method_verdict import NAMES, proven
from ktodata.feedback import check_columns
from ktodata.train.results.training_figures import DESIRABLE, MUTED, PLAIN, UNDESIRABLE, Drawing, styled

Floats = NDArray[np.float64]

MINUS = ("minus_baseline", "minus_low", "minus_high")
TRUE = "true"  # the family of the true labels, as `kd.ablate` names it
COLOURS = {"desirable": DESIRABLE, "undesirable": UNDESIRABLE, "kept": PLAIN, "doubt": "#b07a12", "gone": "#8d949c"}
COLOURS |= {"muted": MUTED, "paper": "white"}
# told apart without colour as well
_LINES = (("kept", "o", "-"), ("doubt", "s", "--"), ("undesirable", "^", ":"), ("desirable", "D", "-."), ("gone", "v", "-"))
MEASURES = {"auc": "AUC", "auc_within_model": "AUC within a model"}
# what a comparison draws of each method, as far as it was measured
PANELS = {
    "auc": "AUC of the reward\n0.5 is chance",
    "auc_within_model": "AUC within a model\n0.5 is chance",
    "policy_auc": "AUC of log p per token\nlike for like with the base",
    "brier": "Brier score\nlower is better, 0.25 knows nothing",
    "retention": "desirable log p per token\nminus the base's, nats",
    "length_bias": "reward and length\nrank correlation, 0 is none",
}
ACROSS, BINS, WIDEST = 3, 25, 32  # pictures in a row, bars of a class, signs in a line of a title
BEYOND = 0.005  # share of the rewards at either end that the outermost bars hold


class Rewards(NamedTuple):
    """Of the held-out rows, by class: float [desirable rows], float [undesirable rows]; beta x nats."""

    arm: str
    desirable: Floats
    undesirable: Floats


class ForestDot(NamedTuple):
    """A number of one arm, mostly its difference from another, with a 95 % interval; `proven`: differs by more than chance."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    proven: bool


def forest(table: pl.DataFrame, *, measure: str = "auc") -> Drawing:
    """A figure: each arm's difference from the labels as given, 95 % intervals; filled dots differ by more than chance.

    table : of `kd.ablate` (`.table`): arm, measure, minus_baseline, minus_low, minus_high, differs
    Raises MissingColumnError, and EmptyDataError when no arm has a difference.
    """
    check_columns(table, ("arm", "measure", *MINUS, "differs"), who="forest")
    dots = difference_dots(table, measure)
    if not dots:
        raise EmptyDataError(f"forest: no arm of the table has a difference in {measure}.")
    names = [dot.name for dot in dots]
    axis = f"held-out {MEASURES.get(measure, measure)}, minus that of the labels as given; right is better"
    return _drawing(lambda figure: draw_forest(figure, [(axis, dots)], names, COLOURS), (7, 0.7 + 0.3 * len(dots)))


def method_forest(table: pl.DataFrame) -> Drawing:
    """A figure: each method by each of PANELS, 95 % intervals; filled: differs from KTO (dashed) by more than chance.

    table : of `kd.compare` (`.table()`); against the truth where it is known
    """
    against = "truth" if (table["against"] == "truth").any() else "label"
    known = table.filter((pl.col("against") == against) & pl.col("value").is_not_null())
    panels: list[tuple[str, list[ForestDot]]] = []
    at: dict[str, float] = {}
    for measure, axis in PANELS.items():
        dots = []
        for line in known.filter(pl.col("measure") == measure).iter_rows(named=True):
            is_kto = line["method"] == KTO
            dots.append(ForestDot(NAMES[line["method"]], line["value"], line["low"], line["high"], is_kto or proven(line)))
            if is_kto:
                at[axis] = line["value"]
        panels += [(axis, dots)] if dots else []
    names = [name for method, name in NAMES.items() if (known["method"] == method).any()]

    def draw(figure: Drawing) -> None:
        draw_forest(figure, panels, names, COLOURS, at=at)
        note = f"against the {against}; 95 % intervals; filled: differs from KTO (dashed) by more than chance"
        figure.supxlabel(note, fontsize=8, color=MUTED)

    return _drawing(draw, (2.6 * len(panels) + 1.4, 0.42 * len(names) + 1.7))


def review_curve(table: pl.DataFrame, *, measure: str = "auc") -> Drawing:
    """A figure: what is gained over the labels as given, against the share of rows that was reviewed; 95 % intervals.

    table : of `kd.ablate` (`.table`): family, budget, measure, minus_baseline, minus_low, minus_high. A line for each family that
    has budgets: by the audit's queue, at random, ...
    Raises MissingColumnError, and EmptyDataError when no arm of the table was reviewed.
    """
    check_columns(table, ("family", "budget", "measure", "minus_baseline", "minus_low", "minus_high"), who="review_curve")
    lines = review_lines(table, measure)
    if not lines:
        raise EmptyDataError(
            f"review_curve: no arm has both a budget and {measure}; reviews are played only where truth is known."
        )
    ceiling = ceiling_of(table, measure)
    return _drawing(lambda figure: draw_review_curve(figure, lines, ceiling, COLOURS, measure=measure), (7, 3.4))


def reward_distributions(rewards: pl.DataFrame, *, shared: bool = True) -> Drawing:
    """A figure: for each arm, how its rewards are spread among desirable rows (above the line) and undesirable ones (below).

    rewards : arm, row_id, reward, truth (bool; rows of null are left out); several seeds of a row count as their mean
    shared : one scale for all arms; otherwise each has its own, as methods move a policy by different amounts
    Raises MissingColumnError, and EmptyDataError when no row has a known truth.
    """
    check_columns(rewards, ("arm", "row_id", "reward", "truth"), who="reward_distributions")
    arms = rewards_by_class(rewards)
    if not arms:
        raise EmptyDataError(f"reward_distributions: none of {rewards.height:,} lines has a reward and a known truth.")
    height = 0.6 + 1.25 * -(-len(arms) // ACROSS)
    return _drawing(lambda figure: draw_rewards(figure, arms, COLOURS, shared=shared), (7.6, height))


@styled
def _drawing(draw: Callable[[Drawing], None], size: tuple[float, float]) -> Drawing:
    figure = Drawing(figsize=size, layout="constrained")
    draw(figure)
    return figure


def difference_dots(table: pl.DataFrame, measure: str) -> list[ForestDot]:
    """Each arm's difference from the labels as given, where it has one."""
    known = table.filter(pl.col("measure") == measure).drop_nulls(MINUS)
    return [ForestDot(*line) for line in known.select("arm", *MINUS, pl.col("differs").fill_null(False)).iter_rows()]


def review_lines(table: pl.DataFrame, measure: str) -> dict[str, pl.DataFrame]:
    """Of each family that has budgets: budget, minus_baseline, minus_low, minus_high, by rising budget; empty without any."""
    known = table.filter(
        pl.col("measure") == measure, *(pl.col(name).is_not_null() for name in ("budget", "family", "minus_baseline"))
    )
    picked = known.select("family", "budget", "minus_baseline", "minus_low", "minus_high")
    return {
        str(family): lines.drop("family").sort("budget") for (family,), lines in picked.group_by("family", maintain_order=True)
    }


def ceiling_of(table: pl.DataFrame, measure: str) -> float | None:
    """What the true labels gain; None where they were not tried."""
    true = table.filter(pl.col("measure") == measure, pl.col("family") == TRUE)["minus_baseline"].drop_nulls()
    return float(true[0]) if len(true) else None


def rewards_by_class(rewards: pl.DataFrame) -> list[Rewards]:
    """Of each arm, in the order of `rewards`; a row's reward is its mean over seeds."""
    known = rewards.filter(pl.col("truth").is_not_null(), pl.col("reward").is_finite())
    each = known.group_by("arm", "row_id", "truth", maintain_order=True).agg(pl.col("reward").mean())
    return [
        Rewards(str(arm), *(rows.filter(truth=truth)["reward"].to_numpy() for truth in (True, False)))
        for (arm,), rows in each.group_by("arm", maintain_order=True)
    ]


def draw_forest(
    figure: Any,
    panels: Sequence[tuple[str, Sequence[ForestDot]]],
    names: Sequence[str],
    colours: Mapping[str, str],
    *,
    at: Mapping[str, float] | None = None,
) -> None:
    """A panel for each (axis, dots): a dot with its interval in the line of its name, and a dashed line through zero.

    at : axis -> where its dashed line goes instead
    """
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, (axes, (axis, dots)) in enumerate(zip(grid, panels, strict=True)):
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.axvline(0 if at is None else at.get(axis, np.nan), color=colours["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
        for dot in dots:
            height, fill = -names.index(dot.name), colours["kept" if dot.proven else "paper"]
            axes.plot([dot.low, dot.high], [height, height], color=colours["kept"], linewidth=1.8)
            axes.plot([dot.value], [height], "o", color=colours["kept"], markerfacecolor=fill, markersize=5.4)
        axes.set_yticks([-number for number in range(len(names))], ["\n".join(_wrapped(name)) for name in names])
        axes.tick_params(axis="y", length=0, labelleft=place == 0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-len(names) + 0.3, 0.7)
        axes.xaxis.get_major_locator().set_params(nbins=6)
        axes.set_xlabel(axis)


def draw_review_curve(
    figure: Any, lines: Mapping[str, pl.DataFrame], ceiling: float | None, colours: Mapping[str, str], *, measure: str
) -> None:
    """Every line sets out from no review and no gain. Right: the same as a share of what the true labels gain."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import PercentFormatter

    axes = figure.subplots()
    axes.grid(visible=False)
    furthest = max(float(points["budget"][-1]) for points in lines.values())
    axes.axhline(0, color=colours["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
    _note_at(axes, 0, "labels as given", colours, above=False)
    keys = []
    for number, points in enumerate(lines.values()):
        colour, marker, stroke = _LINES[number % len(_LINES)]
        # side by side, so that no interval hides another
        at = points["budget"].to_numpy() + (number - (len(lines) - 1) / 2) * 0.012 * furthest
        gain = points["minus_baseline"].to_numpy()
        axes.plot([0, *at], [0, *gain], color=colours[colour], linestyle=stroke, linewidth=1.4)
        axes.vlines(at, points["minus_low"], points["minus_high"], color=colours[colour], linewidth=1.2, alpha=0.6)
        axes.plot(at, gain, color=colours[colour], marker=marker, linestyle="none", markersize=5)
        keys.append(Line2D([], [], color=colours[colour], marker=marker, linestyle=stroke, linewidth=1.4, markersize=5))
    if ceiling is not None:
        axes.axhline(ceiling, color=colours["muted"], linewidth=0.9, linestyle=(0, (1, 2)))
        _note_at(axes, ceiling, "true labels", colours, above=ceiling >= 0)
        if ceiling >= SMALLEST_GAP:
            share = axes.secondary_yaxis("right", functions=(lambda gain: gain / ceiling, lambda part: part * ceiling))
            share.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            share.set_ylabel("share of the gap to true labels")
            share.spines["right"].set_visible(False)
    axes.set_xlim(-0.02 * furthest, 1.06 * furthest)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xticks(sorted({0.0, *(float(share) for points in lines.values() for share in points["budget"])}))
    axes.set_xlabel("rows reviewed")
    axes.set_ylabel(f"held-out {MEASURES.get(measure, measure)}, minus as given")
    axes.legend(keys, list(lines), loc="lower left", bbox_to_anchor=(0, 1), ncols=len(lines), borderaxespad=0)


def _note_at(axes: Any, height: float, text: str, colours: Mapping[str, str], *, above: bool) -> None:
    where = {"xycoords": ("axes fraction", "data"), "xytext": (2, 3 if above else -3), "textcoords": "offset points"}
    axes.annotate(text, (0, height), va="bottom" if above else "top", fontsize=7, color=colours["muted"], **where)


def draw_rewards(figure: Any, arms: Sequence[Rewards], colours: Mapping[str, str], *, shared: bool) -> None:
    """Small pictures: bars are shares of their class, so that a rare class is as tall as a common one; ticks are medians."""
    grid = figure.subplots(-(-len(arms) // ACROSS), ACROSS, squeeze=False)
    ends = _axis_ends(arms)
    for axes, arm in zip(grid.flat, arms, strict=False):
        axes.grid(visible=False)
        _draw_reward_panel(axes, arm, ends if shared else _axis_ends([arm]), colours)
        axes.set_title("\n".join(_wrapped(arm.arm)))
    for number, axes in enumerate(grid.flat):
        if number >= len(arms):
            axes.set_axis_off()
        elif shared and number + ACROSS < len(arms):
            axes.set_xticklabels([])
    figure.supxlabel("reward (beta × nats); above: desirable, below: undesirable", fontsize=8, color=colours["muted"])


def _wrapped(name: str) -> Sequence[str]:
    return textwrap.wrap(name, WIDEST, max_lines=2, placeholder=" …") or [""]


def _draw_reward_panel(axes: Any, arm: Rewards, ends: tuple[float, float], colours: Mapping[str, str]) -> None:
    edges = np.linspace(*ends, BINS + 1)
    sides = [(arm.desirable, 1, colours["desirable"]), (arm.undesirable, -1, colours["undesirable"])]
    shares = [np.histogram(np.clip(values, *ends), bins=edges)[0] / max(len(values), 1) for values, _, _ in sides]
    highest = max(float(share.max()) for share in shares)
    for (values, sign, colour), share in zip(sides, shares, strict=True):
        axes.stairs(sign * share, edges, baseline=0, fill=True, color=colour, linewidth=0)
        if len(values):
            middle = float(np.clip(np.median(values), *ends))
            axes.plot([middle, middle], [0, sign * 1.15 * highest], color=colour, linewidth=1.4)
    axes.axhline(0, color=colours["muted"], linewidth=0.6)
    if ends[0] < 0 < ends[1]:
        axes.axvline(0, color=colours["muted"], linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    axes.set_xlim(*ends)
    axes.set_ylim(-1.2 * highest, 1.2 * highest)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.get_major_locator().set_params(nbins=4)


def _axis_ends(arms: Sequence[Rewards]) -> tuple[float, float]:
    """Of an axis that holds all but the outermost rewards; never without width."""
    low, high = np.quantile(np.concatenate([np.concatenate(arm[1:]) for arm in arms]), [BEYOND, 1 - BEYOND])
    room = 0.03 * (high - low) or 1.0
    return float(low - room), float(high + room)
