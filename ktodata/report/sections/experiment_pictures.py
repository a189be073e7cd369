"""The pictures of what was trained side by side: differences with their intervals, what reviews buy, rewards by class."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure

from ktodata.experiments.arm_figures import ACROSS, ForestDot, Rewards, draw_forest, draw_review_curve, draw_rewards
from ktodata.report.figures import COLOUR, WIDTH, styled, svg
from ktodata.report.sections.experiment_rows import Value
from ktodata.report.text import one_line, signed

NAME = 60  # signs of an arm's name
Panels = Sequence[tuple[str, Sequence[ForestDot]]]  # (what was measured, differences)


def forest(key: str, title: str, panels: Panels) -> Markup | None:
    """A picture for each: dots with intervals about zero; filled where zero lies outside. None without any."""
    panels = [(axis, [dot._replace(name=one_line(dot.name, NAME)) for dot in dots]) for axis, dots in panels]
    names = list(dict.fromkeys(dot.name for _, dots in panels for dot in dots))

    def draw(figure: Figure) -> None:
        draw_forest(figure, panels, names, COLOUR)
        for axes in figure.axes:
            axes.tick_params(axis="y", labelcolor=COLOUR["ink"])

    text = ". ".join(f"{axis.replace(chr(10), ' ')}: {'; '.join(map(_difference_text, dots))}" for axis, dots in panels)
    return _arm_picture(draw, 0.65 + 0.27 * len(names), key, title, f"{text}.") if panels else None


def _difference_text(dot: ForestDot) -> str:
    word = "more than chance" if dot.proven else "no difference that this can show"
    value, ends = Value(dot.value, dot.low, dot.high).signed
    return f"{dot.name} {value} ({ends}), {word}"


def review_curve(key: str, lines: dict[str, pl.DataFrame], ceiling: float | None, *, measure: str) -> Markup | None:
    """What is gained over the labels as given against the share of rows reviewed; a line for each way to choose them."""
    texts = []
    for family, points in lines.items():
        gains = [f"{signed(gain)} ({signed(low)} to {signed(high)}) at {share:.3g}" for share, gain, low, high in points.rows()]
        texts.append(f"{family}: {', '.join(gains)}")
    if ceiling is not None:
        texts.append(f"true labels: {signed(ceiling)}")
    text = f"Gain in AUC by share of rows reviewed. {'; '.join(texts)}."

    def draw(figure: Figure) -> None:
        draw_review_curve(figure, lines, ceiling, COLOUR, measure=measure)

    return _arm_picture(draw, 3.2, key, "What reviewed rows buy", text) if lines else None


def rewards(key: str, arms: Sequence[Rewards], *, shared: bool) -> Markup | None:
    """How rewards are spread among truly desirable rows (above the line) and undesirable ones (below it), for each arm."""
    arms = [arm._replace(arm=one_line(arm.arm, NAME)) for arm in arms]
    medians = [(arm.arm, _median_text(arm.desirable), _median_text(arm.undesirable)) for arm in arms]
    texts = "; ".join(f"{name}: {up} desirable, {down} undesirable" for name, up, down in medians)
    text = f"Median rewards on held-out rows. {texts}."

    def draw(figure: Figure) -> None:
        draw_rewards(figure, arms, COLOUR, shared=shared)

    return _arm_picture(draw, 0.6 + 1.15 * -(-len(arms) // ACROSS), key, "Rewards by class", text) if arms else None


def _median_text(values: Any) -> str:
    return f"{np.median(values):.3g}" if len(values) else "no rows that are"


@styled
def _arm_picture(draw: Callable[[Figure], None], height: float, key: str, title: str, text: str) -> Markup:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    draw(figure)
    return svg(figure, key, title, text)
