"""How a training went, and where its rows lie, as matplotlib figures."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import polars as pl
from matplotlib.figure import Figure

from ktodata.errors import EmptyDataError
from ktodata.stats import Z95

# blue-green against burnt orange: apart for every common kind of colour blindness; lines and markers differ as well
DESIRABLE, UNDESIRABLE, PLAIN, MUTED, RULE = "#0d7a70", "#b8501b", "#2f6da8", "#5c6670", "#d5d9dd"
MAP_POINTS = 3000
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
_Arguments = ParamSpec("_Arguments")


class Drawing(Figure):
    """A matplotlib figure that a notebook shows although pyplot, with its open windows, was never asked."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def styled(draw: Callable[_Arguments, Drawing]) -> Callable[_Arguments, Drawing]:
    """Draw with our settings of matplotlib, and leave the caller's as they were."""

    @wraps(draw)
    def drawn(*args: _Arguments.args, **settings: _Arguments.kwargs) -> Drawing:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **settings)

    return drawn


@styled
def training_figure(history: pl.DataFrame, held_out: Sequence[Mapping[str, Any]], *, beta: float) -> Drawing:
    """Six panels over updates: loss, z0, rewards of each label, held-out AUC, gradient norm, learning rate.

    history : a line per update. held_out : a dict per evaluation of the validation rows, as in `TrainResult`. A panel whose
    numbers were not measured says so.
    """
    figure = Drawing(figsize=(10.5, 5.4), layout="constrained")
    (loss, z0, rewards), (auc, norm, rate) = figure.subplots(2, 3, sharex=True)
    _draw_lines(loss, history, {"loss": {"label": "training", "color": PLAIN}})
    _draw_held_out_loss(loss, held_out)
    _label_axes(loss, "loss", "mean over the update's rows")
    _draw_z0(z0, history)
    _label_axes(z0, "z0, the reference point", "nats")
    _draw_lines(
        rewards,
        history,
        {
            "reward_desirable": {"label": "desirable", "color": DESIRABLE},
            "reward_undesirable": {"label": "undesirable", "color": UNDESIRABLE, "linestyle": "--"},
        },
    )
    _label_axes(rewards, "implicit reward", f"beta × nats, beta = {beta:g}")
    _draw_auc(auc, held_out)
    _label_axes(auc, "held-out reward AUC", "95 % interval; 0.5 is chance")
    _draw_lines(norm, history, {"grad_norm": {"color": PLAIN}})
    _label_axes(norm, "gradient norm, before clipping", "loss per unit of weight")
    _draw_lines(rate, history, {"learning_rate": {"color": PLAIN}})
    _label_axes(rate, "learning rate", "no unit")
    for axes in (auc, norm, rate):
        axes.set_xlabel("updates made")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    return figure


@styled
def row_map(per_row: pl.DataFrame) -> Drawing:
    """Each training row at its variability (across) and confidence (up), marked by its given label.

    Low: the model sided against the label; look there for wrong ones. Right: it moved far, by learning the row or by wavering,
    as every row sets out from 0.5. The map of Swayamdipta et al. 2020, arXiv:2009.10795, over KTO's value of a row. At most
    MAP_POINTS rows are drawn, evenly taken by row_id; the title says so. Raises EmptyDataError when no training row was measured
    twice.
    """
    train = per_row.filter(pl.col("part") == "train")
    moved = train.drop_nulls("variability")
    if moved.is_empty():
        raise EmptyDataError(
            f"none of {train.height:,} training rows was seen twice; how far each moved is not moved. Train two epochs or more."
        )
    shown = moved.gather_every(-(-moved.height // MAP_POINTS))
    figure = Drawing(figsize=(6.2, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    for label, colour, marker, name in ((True, DESIRABLE, "o", "desirable"), (False, UNDESIRABLE, "x", "undesirable")):
        rows = shown.filter(pl.col("label") == label)
        axes.scatter(rows["variability"], rows["confidence"], s=18, c=colour, marker=marker, alpha=0.7, linewidths=1, label=name)
    drawn = f"{moved.height:,} rows" if shown.height == moved.height else f"{shown.height:,} of {moved.height:,} rows"
    axes.set_title(f"{drawn}; below the line the model sided against the label")
    axes.set_xlabel("variability: standard deviation of sigmoid(margin) over observations")
    axes.set_ylabel("confidence: mean of sigmoid(margin)")
    axes.legend(title="given label")
    return figure


def _label_axes(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_ylabel(unit)
    if not axes.has_data():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=MUTED)
    elif len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend()


def _draw_lines(axes: Any, history: pl.DataFrame, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """One line for each column that was measured; updates where it was not are left out."""
    for name, style in styles.items():
        if name in history.columns:
            measured = history.drop_nulls(name)
            if measured.height:
                axes.plot(measured["step"], measured[name], **_markers(measured.height), **style)


def _draw_z0(axes: Any, history: pl.DataFrame) -> None:
    if {"z0_unclamped", "z0_standard_error"} <= set(history.columns):
        measured = history.filter(pl.col("z0_standard_error").is_finite())  # nan where no mismatched pairs were scored
        middle, reach = measured["z0_unclamped"].to_numpy(), Z95 * measured["z0_standard_error"].to_numpy()
        if measured.height:
            band = {"color": MUTED, "alpha": 0.25, "linewidth": 0}
            axes.fill_between(measured["step"], middle - reach, middle + reach, label="95 % of the estimate, unclamped", **band)
    _draw_lines(axes, history, {"z0": {"label": "used", "color": PLAIN}})


def _draw_held_out_loss(axes: Any, held_out: Sequence[Mapping[str, Any]]) -> None:
    if held_out:
        steps, losses = zip(*((evaluation["step"], evaluation["loss"]) for evaluation in held_out), strict=True)
        axes.plot(steps, losses, color=MUTED, linestyle="--", marker="s", markersize=3.5, label="held-out")


def _draw_auc(axes: Any, held_out: Sequence[Mapping[str, Any]]) -> None:
    measured = [
        (evaluation["step"], evaluation["auc"])
        for evaluation in held_out
        if (evaluation.get("auc") or {}).get("value") is not None
    ]
    if not measured:
        return
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.plot(*zip(*((step, auc["value"]) for step, auc in measured), strict=True), color=PLAIN, marker="o", markersize=3.5)
    known = [(step, auc["low"], auc["high"]) for step, auc in measured if None not in (auc["low"], auc["high"])]
    if known:
        axes.vlines(*zip(*known, strict=True), color=PLAIN, linewidth=1)
    axes.set_ylim(0, 1.02)


def _markers(points: int) -> dict[str, Any]:
    """Markers while single points can be told apart."""
    return {"marker": "o", "markersize": 3} if points < 30 else {}
