"""The pictures of what was trained side by side: differences with their intervals, what reviews buy, rewards by class."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from ktodata.evaluate.ablation_figures import ACROSS, Rewards, draw_review_curve, draw_rewards
from ktodata.report.arms import Value
from ktodata.report.figures import COLOUR, WIDTH, styled, svg
from ktodata.report.text import one_line, signed

NAME, NAME_LINE = 60, 32  # signs of an arm's name, and of one line of it


@dataclass(frozen=True)
class Gap:
    """How much one arm differs from the one it is set against; `proven`: by more than chance."""

    name: str
    by: Value
    proven: bool


@styled
def forest(key: str, title: str, panels: Sequence[tuple[str, Sequence[Gap]]]) -> Markup:
    """A picture for each (what was measured, differences): dots with intervals about zero; filled where zero lies outside."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(gap.name for _, gaps in panels for gap in gaps))
    figure = Figure(figsize=(WIDTH, 0.65 + 0.27 * len(names)), layout="constrained")
    for place, (axes, (axis, gaps)) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
        axes.grid(axis="x")
        axes.axvline(0, color=COLOUR["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
        for gap in gaps:
            height = -names.index(gap.name)
            axes.plot([gap.by.low, gap.by.high], [height, height], color=COLOUR["kept"], linewidth=1.8)
            fill = COLOUR["kept" if gap.proven else "paper"]
            axes.plot([gap.by.value], [height], "o", color=COLOUR["kept"], markerfacecolor=fill, markersize=5.4)
        axes.set_yticks([-number for number in range(len(names))], [_name(name) for name in names] if place == 0 else [])
        axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
        axes.set_ylim(-len(names) + 0.3, 0.7)
        axes.xaxis.get_major_locator().set_params(nbins=6)
        axes.set_xlabel(axis)
    told = ". ".join(f"{axis.replace(chr(10), ' ')}: {'; '.join(map(_tell, gaps))}" for axis, gaps in panels)
    return svg(figure, key, title, f"{told}.")


def _name(name: str) -> str:
    return "\n".join(textwrap.wrap(one_line(name, NAME), NAME_LINE, max_lines=2, placeholder=" …"))


def _tell(gap: Gap) -> str:
    word = "more than chance" if gap.proven else "no difference that this can show"
    value, ends = gap.by.signed
    return f"{one_line(gap.name, NAME)} {value} ({ends}), {word}"


@styled
def review_curve(key: str, lines: dict[str, pl.DataFrame], ceiling: float | None, *, measure: str) -> Markup:
    """What is gained over the labels as given against the share of rows reviewed; a line for each way to choose them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    draw_review_curve(figure.subplots(), lines, ceiling, COLOUR, measure=measure)
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
