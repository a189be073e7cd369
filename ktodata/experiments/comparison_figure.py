"""A comparison as a forest plot: a row for each method, a panel for each measure, KTO's value as a line through it."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import polars as pl

from ktodata.experiments.comparison_measures import KTO
from ktodata.experiments.comparison_verdict import NAMES, proven
from ktodata.train.results.training_figures import MUTED, PLAIN, RULE, Drawing

PANELS = {
    "auc": "AUC of the reward\n0.5 is chance",
    "auc_within_model": "AUC within a model\n0.5 is chance",
    "policy_auc": "AUC of log p per token\nlike for like with the base",
    "brier": "Brier score\nlower is better, 0.25 knows nothing",
    "retention": "desirable log p per token\nminus the base's, nats",
    "length_bias": "reward and length\nrank correlation, 0 is none",
}
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": MUTED,
}


def forest(table: pl.DataFrame) -> Drawing:
    """Points with 95 % intervals, against the truth where it is known. Filled: differs from KTO by more than chance."""
    against = "truth" if (table["against"] == "truth").any() else "label"
    shown = table.filter((pl.col("against") == against) & pl.col("value").is_not_null())
    panels = [name for name in PANELS if (shown["measure"] == name).any()]
    methods = [name for name in NAMES if (shown["method"] == name).any()]
    with matplotlib.rc_context(_STYLE):
        figure = Drawing(figsize=(2.6 * len(panels) + 1.4, 0.42 * len(methods) + 1.7), layout="constrained")
        for place, (axes, name) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
            _panel(axes, shown.filter(pl.col("measure") == name), methods, named=place == 0)
            axes.set_title(PANELS[name], loc="left", fontsize=9)
        figure.supxlabel(
            f"against the {against}; 95 % intervals; filled: differs from KTO (dashed) by more than chance",
            fontsize=8,
            color=MUTED,
        )
    return figure


def _panel(axes: Any, lines: pl.DataFrame, methods: Sequence[str], *, named: bool) -> None:
    for line in lines.iter_rows(named=True):
        height = -methods.index(line["method"])
        is_kto = line["method"] == KTO
        if is_kto:
            axes.axvline(line["value"], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
        axes.plot([line["low"], line["high"]], [height, height], color=PLAIN, linewidth=1.6)
        filled = is_kto or proven(line)
        axes.plot(line["value"], height, marker="D" if is_kto else "o", color=PLAIN, mfc=PLAIN if filled else "white", ms=5.5)
    axes.set_yticks([-number for number in range(len(methods))], [NAMES[name] for name in methods] if named else [])
    axes.set_ylim(-len(methods) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
