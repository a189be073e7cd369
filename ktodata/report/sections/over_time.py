"""The share of desirable labels over time, as a picture: for all rows, and for whoever was found to have changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.report.figures import COLOUR, WIDTH, styled, svg
from ktodata.report.shares import Share
from ktodata.report.text import one_line

MAX_PERIODS = 12  # at most
MIN_ROWS = 20  # rows of a period
DAY = "%Y-%m-%d"
HOUR = "%m-%d %H:%M"
FEW_DAYS = timedelta(days=4)  # under which ticks of whole days would be the same


@dataclass(frozen=True)
class Change:
    """The date from which labels are given otherwise, and the 95 % interval of that date."""

    since: datetime
    low: datetime
    high: datetime


@dataclass(frozen=True)
class Panel:
    """One picture: the middle of each period, and the share of desirable labels in it."""

    title: str
    at: Sequence[datetime]
    shares: Sequence[Share]
    change: Change | None = None


def panel(title: str, rows: pl.DataFrame, change: Change | None = None) -> Panel | None:
    """Periods of about as many rows each, in order of time; None where there are too few rows, or dates, for two.

    rows : created_at, label; rows of one time stay together
    """
    dated = rows.drop_nulls(["created_at", "label"])
    parts = min(MAX_PERIODS, dated.height // MIN_ROWS)
    if parts < 2:
        return None
    place = (pl.col("created_at").rank("min").cast(pl.Int64) - 1) * parts // pl.len()
    counted = (
        dated.with_columns(place=place)
        .group_by("place")
        .agg(pl.col("created_at").median(), pl.col("label").sum().cast(pl.Int64), pl.len())
        .sort("place")
    )
    if counted.height < 2:
        return None
    shares = [Share(hits, total) for hits, total in counted.select("label", "len").iter_rows()]
    return Panel(title, counted["created_at"].to_list(), shares, change)


@styled
def over_time(key: str, title: str, panels: Sequence[Panel]) -> Markup:
    """A picture for each panel, side by side: the share with its 95 % interval, and the date of a change with its own."""
    from matplotlib.dates import AutoDateLocator, DateFormatter
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
    for axes, each_panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        if each_panel.change:
            _mark_change(axes, each_panel.change)
        ends = [[share.low for share in each_panel.shares], [share.high for share in each_panel.shares]]
        axes.fill_between(each_panel.at, *ends, color=COLOUR["kept"], alpha=0.2, linewidth=0)
        axes.plot(each_panel.at, [share.value for share in each_panel.shares], color=COLOUR["kept"], marker="o", markersize=3.5)
        axes.set_title(one_line(each_panel.title, 40), pad=14 if any(each.change for each in panels) else None)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        dates = AutoDateLocator(minticks=2, maxticks=6 // len(panels))
        axes.xaxis.set_major_locator(dates)
        axes.xaxis.set_major_formatter(DateFormatter(DAY if each_panel.at[-1] - each_panel.at[0] > FEW_DAYS else HOUR))
        axes.grid(axis="y")
    return svg(figure, key, title, f"Share of desirable labels. {'; '.join(map(_panel_description, panels))}.")


def _mark_change(axes: Any, change: Change) -> None:
    axes.axvspan(change.low, change.high, color=COLOUR["doubt"], alpha=0.18, linewidth=0)
    axes.axvline(change.since, color=COLOUR["doubt"], linewidth=1.2, linestyle=(0, (3, 2)))
    axes.annotate(
        f"since {change.since:{DAY}}",
        (change.since, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=7,
        color=COLOUR["doubt"],
        ha="center",
    )


def _panel_description(panel: Panel) -> str:
    ends = (f"{100 * share.value:.3g} % ({100 * share.low:.3g} to {100 * share.high:.3g} %)" for share in panel.shares)
    shares = ", ".join(f"{at:{DAY}} {share}" for at, share in zip(panel.at, ends, strict=True))
    marked = f", changed since {panel.change.since:{DAY}}" if panel.change else ""
    return f"{one_line(panel.title, 40)}: {shares}{marked}"
