"""The pictures of what was trained side by side: differences with their intervals, what reviews buy, rewards by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from ktodata.experiments.arm_figures import ACROSS, ForestDot, Rewards, draw_forest, draw_review_curve, draw_rewards
from ktodata.report.figures import COLOUR, WIDTH, styled, svg
from ktodata.report.sections.experiment_rows import Value
from ktodata.report.text import one_line, signed

NAME = 60  # signs of an arm's name


@styled
def forest(key: str, title: str, panels: Sequence[tuple[str, Sequence[ForestDot]]]) -> Markup:
    """A picture for each (what was measured, differences): dots with intervals about zero; filled where zero lies outside."""
    from matplotlib.figure import Figure

    panels = [(axis, [gap._replace(name=one_line(gap.name, NAME)) for gap in gaps]) for axis, gaps in panels]
    names = list(dict.fromkeys(gap.name for _, gaps in panels for gap in gaps))
    figure = Figure(figsize=(WIDTH, 0.65 + 0.27 * len(names)), layout="constrained")
    draw_forest(figure, panels, names, COLOUR)
    for axes in figure.axes:
        axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
    told = ". ".join(f"{axis.replace(chr(10), ' ')}: {'; '.join(map(_tell, gaps))}" for axis, gaps in panels)
    return svg(figure, key, title, f"{told}.")


def _tell(gap: ForestDot) -> str:
    word = "more than chance" if gap.proven else "no difference that this can show"
    value, ends = Value(gap.value, gap.low, gap.high).signed
    return f"{gap.name} {value} ({ends}), {word}"


@styled
def review_curve(key: str, lines: dict[str, pl.DataFrame], ceiling: float | None, *, measure: str) -> Markup:
    """What is gained over the labels as given against the share of rows reviewed; a line for each way to choose them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    draw_review_curve(figure, lines, ceiling, COLOUR, measure=measure)
    told = [
        f"{family}: "
        + ", ".join(
            f"{signed(gain)} ({signed(low)} to {signed(high)}) at {share:.3g}" for share, gain, low, high in points.rows()
        )
        for family, points in lines.items()
    ]
    if ceiling is not None:
        told.append(f"true labels: {signed(ceiling)}")
    return svg(figure, key, "What reviewed rows buy", f"Gain in AUC by share of rows reviewed. {'; '.join(told)}.")


@styled
def rewards(key: str, arms: Sequence[Rewards], *, shared: bool) -> Markup:
    """How rewards are spread among truly desirable rows (above the line) and undesirable ones (below it), for each arm."""
    from matplotlib.figure import Figure

    shown = [arm._replace(arm=one_line(arm.arm, NAME)) for arm in arms]
    figure = Figure(figsize=(WIDTH, 0.6 + 1.15 * -(-len(shown) // ACROSS)), layout="constrained")
    draw_rewards(figure, shown, COLOUR, shared=shared)
    told = "; ".join(f"{arm.arm}: {_middle(arm.desirable)} desirable, {_middle(arm.undesirable)} undesirable" for arm in shown)
    return svg(figure, key, "Rewards by class", f"Median rewards on held-out rows. {told}.")


def _middle(values: Any) -> str:
    return f"{np.median(values):.3g}" if len(values) else "no rows that are"
