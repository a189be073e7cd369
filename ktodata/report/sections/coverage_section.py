"""Which prompts there are: a map, named clusters with their share of desirable rows, and what a reference set has these lack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from ktodata.report import figures
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.shares import Share
from ktodata.report.text import Excerpt, excerpt

CLUSTERS = 40
HOLES = 12


@dataclass(frozen=True)
class Cluster:
    """One group of like prompts, counted on the rows that will be trained on."""

    number: int
    name: str
    rows: int
    prompts: int | None
    desirable: Share
    differs: bool
    example: Excerpt


@dataclass(frozen=True)
class Hole:
    """A group of reference prompts that no training prompt is near to."""

    name: str
    prompts: int
    rows_needed: int | None
    example: Excerpt
    nearest: Excerpt


@dataclass(frozen=True)
class CoverageSection:
    """The findings of coverage, ready to be shown. prompts : distinct ones; dots : those with a place on the map."""

    rows: int
    prompts: int
    dots: int
    drawn: int
    clusters: list[Cluster]
    more_clusters: int
    picture: Markup | None
    shares: Markup | None
    holes: list[Hole]
    facts: Mapping[str, Any]

    @property
    def effective(self) -> Mapping[str, float] | None:
        """As many clusters of equal size would be as varied: value, low, high."""
        found = pick(self.facts, "effective_clusters")
        return found if isinstance(found, Mapping) else None

    @property
    def no_holes(self) -> str:
        """Why there is no table of holes."""
        if pick(self.facts, "reference") is None:
            return "No reference set was given (coverage: reference), so what is missing cannot be told."
        return "Every reference prompt has a training prompt near it."


def read_coverage(run: RunFiles) -> CoverageSection | None:
    """The findings; None when coverage is not part of the run."""
    placed = run.columns("coverage", "cluster", "map_x", "map_y")
    table = run.table("coverage", "clusters")
    if placed is None or table is None:
        return None
    clusters = [_cluster(row) for row in table.sort("rows", "cluster", descending=[True, False]).iter_rows(named=True)]
    dots = placed.drop_nulls()
    return CoverageSection(
        rows=sum(cluster.rows for cluster in clusters),
        prompts=sum(cluster.prompts or 0 for cluster in clusters),
        dots=dots.height,
        drawn=evenly(dots).height,
        clusters=clusters[:CLUSTERS],
        more_clusters=max(0, len(clusters) - CLUSTERS),
        picture=_picture(dots, clusters),
        shares=_shares(clusters[:CLUSTERS]),
        holes=_holes(run.table("coverage", "holes")),
        facts=run.metrics("coverage"),
    )


def evenly(dots: pl.DataFrame) -> pl.DataFrame:
    """Those that are drawn: all, or so many evenly taken from the rows as they stand, as the picture takes them."""
    most = figures.MAP_POINTS
    return dots if dots.height <= most else dots[np.unique(np.linspace(0, dots.height - 1, most).astype(int))]


def _cluster(row: Mapping[str, Any]) -> Cluster:
    return Cluster(
        number=row["cluster"],
        name=str(row.get("name") or f"cluster {row['cluster']}"),
        rows=row["rows"],
        prompts=row.get("prompts"),
        desirable=Share(row["desirable"], row["rows"]),
        differs=bool(row.get("differs")),
        example=excerpt((row.get("exemplars") or [""])[0], 160),
    )


def _picture(dots: pl.DataFrame, clusters: list[Cluster]) -> Markup | None:
    if dots.is_empty() or "map_y" not in dots.columns:
        return None
    x, y = (dots[name].cast(pl.Float64).to_numpy() for name in ("map_x", "map_y"))
    return figures.prompt_map(x, y, dots["cluster"].cast(pl.Int64).to_numpy(), {c.number: c.name for c in clusters})


def _shares(clusters: list[Cluster]) -> Markup | None:
    if not clusters:
        return None
    dots = [
        figures.Measured(
            f"{c.number} {c.name}",
            c.desirable.value,
            c.desirable.low,
            c.desirable.high,
            "undesirable" if c.differs else "kept",
        )
        for c in clusters
    ]
    everyone = Share(sum(c.desirable.hits for c in clusters), sum(c.rows for c in clusters))
    return figures.ranges(
        "clusters",
        "Desirable share by cluster",
        dots,
        axis="share of desirable rows, with its 95 % interval",
        reference=(everyone.value, "all rows"),
    )


def _holes(table: pl.DataFrame | None) -> list[Hole]:
    if table is None:
        return []
    return [
        Hole(
            str(row.get("name")),
            row["reference_prompts"],
            row.get("rows_needed"),
            excerpt((row.get("examples") or [""])[0], 160),
            excerpt(row.get("nearest"), 160),
        )
        for row in table.head(HOLES).iter_rows(named=True)
    ]
