"""The pictures, as inline SVG: the same bytes for the same data, and colours that follow the page's light or dark theme.

matplotlib draws with stand-in colours, one for each role, and each is then replaced by a CSS variable of the page (style.css).
Text stays text, so it can be selected, searched and read aloud. Names from the data are never parsed as mathematics.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from html import escape
from itertools import pairwise
from typing import Any, ParamSpec

import numpy as np
from markupsafe import Markup

from ktodata.report.text import count, one_line
from ktodata.visible_text import clean

# role -> (the colour matplotlib is given, the page's own colour)
_ROLES = {
    "ink": ("#010101", "currentColor"),
    "muted": ("#020202", "var(--muted)"),
    "rule": ("#030303", "var(--rule)"),
    "paper": ("#040404", "var(--paper)"),
    "desirable": ("#050505", "var(--desirable)"),
    "undesirable": ("#060606", "var(--undesirable)"),
    "doubt": ("#070707", "var(--doubt)"),
    "kept": ("#080808", "var(--kept)"),
    "gone": ("#090909", "var(--gone)"),
    "stream": ("#0a0a0a", "var(--stream)"),
}
_CLUSTERS = 10
COLOUR = {role: stand_in for role, (stand_in, _) in _ROLES.items()}
CLUSTER_COLOUR = [f"#{0x10 + number:02x}0101" for number in range(_CLUSTERS)]
_CSS = dict(_ROLES.values()) | {stand_in: f"var(--c{number})" for number, stand_in in enumerate(CLUSTER_COLOUR)}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.parse_math": False,
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["rule"],
    "axes.labelcolor": COLOUR["muted"],
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": COLOUR["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": COLOUR["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOUR["rule"],
    "ytick.color": COLOUR["rule"],
    "xtick.labelcolor": COLOUR["muted"],
    "ytick.labelcolor": COLOUR["muted"],
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
WIDTH = 7.6  # inches; the page scales the drawing to its column
MAP_POINTS = 3000

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Markup]) -> Callable[Arguments, Markup]:
    """Draw with our settings of matplotlib, and leave the caller's as they were."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **settings: Arguments.kwargs) -> Markup:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **settings)

    return drawn


@dataclass(frozen=True)
class FlowLoss:
    """Rows that leave the flow at one step."""

    step: str
    dropped: int
    review: int
    left: int


@styled
def flow(what: str, first: int, leaving: Sequence[FlowLoss], parts: Sequence[tuple[str, int]]) -> Markup:
    """How many rows came in, where some left, and what the rest became. Widths are to scale.

    what : came in, in words; first : how many
    leaving : in order, with how many were left after each step. parts : ("train", 804), ...
    """
    figure, axes = canvas(height=2.2)
    axes.axis("off")
    lines = 2 if any(step.dropped and step.review for step in leaving) else 1  # under a step's name
    scale, end = max(first, 1), len(leaving) + 0.2
    words = -0.36 * scale - max((step.dropped + step.review for step in leaving), default=0)  # below the deepest band
    axes.set_xlim(-0.05, end + 1.5)
    axes.set_ylim(words - (0.16 + 0.13 * lines) * scale, 1.16 * scale)
    axes.text(0, 1.05 * scale, f"{what} in", fontsize=8.5, fontweight="bold", va="bottom")
    base, edge = 0.0, [(0.0, 0.0)]
    for position, step in enumerate(leaving):
        start = position + 0.2
        edge += [(start, base), (start + 0.7, float(first - step.left))]
        depth = -0.3 * scale
        for lost, colour in ((step.review, COLOUR["doubt"]), (step.dropped, COLOUR["gone"])):
            if lost:
                upper = float(first - step.left) - (step.review if colour == COLOUR["gone"] else 0)
                _band(axes, (start, start + 0.6), (upper, depth), (upper - lost, depth - lost), colour)
                depth -= lost + 0.02 * scale
        counts = [f"{count(step.dropped)} out" if step.dropped else "", f"{count(step.review)} to review" if step.review else ""]
        under = {"ha": "center", "va": "top", "linespacing": 1.35}
        axes.text(start + 0.6, words, one_line(step.step, 16), fontsize=8, **under)
        axes.text(start + 0.6, words - 0.13 * scale, "\n".join(filter(None, counts)), fontsize=7, color=COLOUR["muted"], **under)
        base = float(first - step.left)
    edge.append((end, base))
    _stream(axes, edge, float(first))
    _fan_out(axes, end, float(first), base, parts, scale)
    losses = "; ".join(f"{step.step}: {step.dropped} out, {step.review} to review, {step.left} left" for step in leaving)
    ends = ", ".join(f"{name} {rows}" for name, rows in parts) or f"{count(first - base)} rows"
    return svg(figure, "flow", "Flow of the rows", f"{what} in. {losses}. In the end: {ends}.")


def _stream(axes: Any, edge: Sequence[tuple[float, float]], top: float) -> None:
    """What stays, as one shape: level above, and below it the edge that rises where rows leave."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners, codes = [edge[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(edge):
        corners += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1)]
        codes += [Path.CURVE4] * 3
    corners += [(edge[-1][0], top), (edge[0][0], top), edge[0]]
    codes += [Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    axes.add_patch(PathPatch(Path(corners, codes), facecolor=COLOUR["stream"], edgecolor="none"))


def _fan_out(axes: Any, x: float, top: float, base: float, parts: Sequence[tuple[str, int]], scale: int) -> None:
    """The rows that stay, divided among the parts."""
    gap = 0.1 * scale
    upper, target = top, top
    for name, rows in parts or [("left", round(top - base))]:
        _band(axes, (x, x + 0.6), (upper, target), (upper - rows, target - rows), COLOUR["stream"])
        axes.text(x + 0.66, target - rows / 2, f"{count(rows)} {name}", va="center", fontsize=8, fontweight="bold")
        upper, target = upper - rows, target - rows - gap


def _band(axes: Any, xs: tuple[float, float], tops: tuple[float, float], bottoms: tuple[float, float], colour: str) -> None:
    """A ribbon from the left edge to the right one, with level ends."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (x0, x1), middle = xs, sum(xs) / 2
    corners = [
        (x0, tops[0]), (middle, tops[0]), (middle, tops[1]), (x1, tops[1]),
        (x1, bottoms[1]), (middle, bottoms[1]), (middle, bottoms[0]), (x0, bottoms[0]), (x0, tops[0]),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, edgecolor="none", linewidth=0))


@dataclass(frozen=True)
class RangePoint:
    """One named share or score with its interval; `low` and `high` are None where none is known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    role: str = "kept"


@styled
def ranges(
    key: str,
    title: str,
    rows: Sequence[RangePoint],
    *,
    axis: str,
    limits: tuple[float, float] = (0.0, 1.0),
    as_percent: bool = True,
    reference: tuple[float, str] | None = None,
) -> Markup:
    """A dot with its interval for each row, on one axis. `reference`: a value to compare with, and its name."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = canvas(height=0.75 + 0.2 * len(rows))
    heights = np.arange(len(rows))[::-1]
    axes.grid(axis="x")
    if reference:
        axes.axvline(reference[0], color=COLOUR["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
        axes.annotate(
            reference[1],
            (reference[0], 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize=7,
            color=COLOUR["muted"],
            ha="left" if reference[0] < sum(limits) / 2 else "right",
        )
    for height, row in zip(heights, rows, strict=True):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [height, height], color=COLOUR[row.role], linewidth=2.4, alpha=0.45)
        axes.plot([row.value], [height], "o", color=COLOUR[row.role], markersize=4.6, clip_on=False)
    axes.set_yticks(heights, [one_line(row.name, 40) for row in rows])
    axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(*limits)
    axes.set_xlabel(axis)
    if as_percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    values = "; ".join(_range_description(row, as_percent) for row in rows)
    return svg(figure, key, title, f"{axis}. {values}.")


def _range_description(row: RangePoint, as_percent: bool) -> str:
    scale, unit = (100, " %") if as_percent else (1, "")
    span = "" if row.low is None or row.high is None else f" ({scale * row.low:.3g} to {scale * row.high:.3g}{unit})"
    return f"{one_line(row.name, 40)}: {scale * row.value:.3g}{unit}{span}"


@styled
def histogram(key: str, title: str, desirable: np.ndarray, undesirable: np.ndarray, *, axis: str) -> Markup:
    """How a score in [0, 1] is spread among rows given as desirable (above the line) and as undesirable (below it)."""
    figure, axes = canvas(height=2.1)
    edges = np.linspace(0, 1, 41)
    above, below = (np.histogram(values, bins=edges)[0] for values in (desirable, undesirable))
    axes.bar(edges[:-1], above, width=0.022, align="edge", color=COLOUR["desirable"])
    axes.bar(edges[:-1], -below, width=0.022, align="edge", color=COLOUR["undesirable"])
    axes.axhline(0, color=COLOUR["muted"], linewidth=0.6)
    axes.set_xlim(0, 1)
    highest, lowest = max(above.max(initial=0), 1), max(below.max(initial=0), 1)
    axes.set_ylim(-1.1 * lowest, 1.1 * highest)
    axes.yaxis.set_major_formatter(lambda value, _: count(abs(value)))
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes.grid(axis="y")
    axes.set_xlabel(axis)
    axes.set_ylabel("rows")
    above_axes = {"transform": axes.transAxes, "va": "bottom", "fontweight": "bold"}  # where no bar can be
    axes.text(0.0, 1.03, "above: given as desirable", color=COLOUR["desirable"], **above_axes)
    axes.text(0.35, 1.03, "below: given as undesirable", color=COLOUR["undesirable"], **above_axes)
    low = int((desirable < 0.5).sum()), int((undesirable < 0.5).sum())
    description = (
        f"{axis}. Below one half: {low[0]} of {len(desirable)} rows given as desirable, "
        f"{low[1]} of {len(undesirable)} given as undesirable."
    )
    return svg(figure, key, title, description)


@styled
def cluster_map(x: np.ndarray, y: np.ndarray, cluster: np.ndarray, names: dict[int, str]) -> Markup:
    """Every prompt as a dot, near prompts near each other, coloured by cluster; names at the middle of their cluster.

    At most MAP_POINTS dots are drawn, evenly taken from the rows as they stand; the caller says so beside the picture.
    """
    figure, axes = canvas(height=4.6)
    axes.set_axis_off()
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAP_POINTS)).astype(int)) if len(x) else np.array([], int)
    size = 15 if len(keep) < 400 else 8 if len(keep) < 1500 else 4
    order = sorted(names, key=lambda number: (-int((cluster == number).sum()), number))
    for rank, number in enumerate(order):
        here = keep[cluster[keep] == number]
        axes.scatter(x[here], y[here], s=size, color=CLUSTER_COLOUR[rank % _CLUSTERS], alpha=0.75, linewidths=0)
    others = keep[~np.isin(cluster[keep], order)]
    axes.scatter(x[others], y[others], s=size, color=COLOUR["gone"], alpha=0.6, linewidths=0)
    named = [(float(np.median(x[cluster == number])), float(np.median(y[cluster == number])), number) for number in order]
    for rank, (at_x, at_y, text) in enumerate(
        _spread_labels(axes, [(a, b, f"{n} {one_line(names[n], 30)}") for a, b, n in named[:24]])
    ):
        axes.text(at_x, at_y, text, ha="center", va="center", fontsize=7.5, fontweight="bold", gid=f"halo_{rank}")
    sizes = "; ".join(f"{number} {one_line(names[number], 40)}: {int((cluster == number).sum())} rows" for number in order)
    return svg(figure, "map", "Map of the prompts", f"Each dot is a row; near dots are like prompts. Clusters: {sizes}.")


def _spread_labels(axes: Any, labels: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """The labels, moved down by as little as keeps each clear of those above it."""
    if not labels:
        return []
    axes.autoscale_view()
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    # estimated from the figure's size: a 7.5 point bold letter is about 4.9 points wide, a line 10 points high
    letter = max((x1 - x0) / (WIDTH * 72), (y1 - y0) / (4.6 * 72)) * 4.9
    line = letter * 2.1
    placed: list[tuple[float, float, str]] = []
    for at_x, at_y, text in sorted(labels, key=lambda label: (-label[1], label[0], label[2])):
        half, low = letter * len(text) / 2, at_y
        for other_x, other_y, other in sorted(placed, key=lambda label: -label[1]):
            close = abs(at_x - other_x) < half + letter * len(other) / 2
            if close and abs(low - other_y) < line:
                low = other_y - line
        placed.append((at_x, low, text))
    return placed


@dataclass(frozen=True)
class Curve:
    """One quantity over training steps."""

    title: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    reference: float | None = None


@styled
def curves(key: str, title: str, series: Sequence[Curve], *, across: str = "step", top: float | None = None) -> Markup:
    """Small pictures side by side, one for each quantity. across: what runs along the foot; top: where all scales end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.0), layout="constrained")
    for axes, curve in zip(np.atleast_1d(figure.subplots(1, len(series))), series, strict=True):
        steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
        if curve.reference is not None:
            axes.axhline(curve.reference, color=COLOUR["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
        if curve.low is not None and curve.high is not None:
            axes.fill_between(steps, curve.low, curve.high, color=COLOUR["kept"], alpha=0.2, linewidth=0)
        few = {"marker": "o", "markersize": 3.5} if len(steps) < 12 else {}
        axes.plot(steps, values, color=COLOUR["kept"], **few)
        axes.set_title(curve.title)
        axes.set_xlabel(across)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        axes.yaxis.get_major_locator().set_params(nbins=5)
        if top is not None:
            axes.set_ylim(0, top)
        axes.grid(axis="y")
    changes = "; ".join(f"{c.title}: from {c.values[0]:.4g} to {c.values[-1]:.4g}" for c in series if len(c.values))
    return svg(figure, key, title, f"{changes}.")


def canvas(*, height: float) -> tuple[Any, Any]:
    """A figure of the page's width with one pair of axes; no global state of matplotlib is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Any, key: str, title: str, description: str) -> Markup:
    """The figure as an <svg> that says what it shows; ids are the figure's own, so many fit on one page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser draws the text, with its own fonts
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    body = buffer.getvalue()
    body = body[body.index("<svg") :]
    view_box = re.search(r'viewBox="([^"]+)"', body)
    inner = body[body.index(">") + 1 : body.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>|<!--.*?-->", "", inner, flags=re.S)
    inner = re.sub(r'<g id="halo_\d+">', '<g class="halo">', inner)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', inner))
    inner = re.sub(r' id="([^"]+)"', lambda match: f' id="{key}-{match[1]}"' if match[1] in used else "", inner)
    inner = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", inner).replace("xlink:href", "href")
    inner = re.sub("|".join(_CSS), lambda match: _CSS[match[0]], inner)
    inner = re.sub(r"\n\s*", "\n", inner)
    return Markup(
        f'<svg class="figure" role="img" aria-labelledby="{key}-title {key}-desc" viewBox="{view_box[1] if view_box else ""}">'
        f'<title id="{key}-title">{escape(clean(title))}</title><desc id="{key}-desc">{escape(clean(description))}</desc>'
        f"{inner}</svg>"
    )
