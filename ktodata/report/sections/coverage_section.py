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

MAX_CLUSTERS_SHOWN = 40
MAX_HOLES = 12


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
    """The findings of coverage, ready to be shown. prompts : distinct ones; on_map : those with a place on the map."""

    rows: int
    prompts: int
    on_map: int
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
        measure = pick(self.facts, "effective_clusters")
        return measure if isinstance(measure, Mapping) else None

    @property
    def lacks(self) -> int:
        """Groups of reference prompts that the training prompts lack; 0 where no more are uncovered than by chance."""
        passes = any(each["code"] == "KD084" and each["status"] == "passed" for each in pick(self.facts, "findings", default=[]))
        return 0 if passes else len(self.holes)

    @property
    def no_holes(self) -> str:
        """Why there is no table of holes."""
        if pick(self.facts, "reference") is None:
            return "No reference set was given (coverage: reference), so what is missing is not known."
        return "Every reference prompt has a training prompt near it."


def read_coverage(run: RunFiles) -> CoverageSection | None:
    """The findings; None when coverage is not part of the run."""
    placed = run.columns("coverage", "cluster", "map_x", "map_y")
    table = run.table("coverage", "clusters")
    if placed is None or table is None:
        return None
    clusters = [_cluster(row) for row in table.sort("rows", "cluster", descending=[True, False]).iter_rows(named=True)]
    points = placed.drop_nulls()
    return CoverageSection(
        rows=sum(cluster.rows for cluster in clusters),
        prompts=sum(cluster.prompts or 0 for cluster in clusters),
        on_map=points.height,
        drawn=evenly_sampled(points).height,
        clusters=clusters[:MAX_CLUSTERS_SHOWN],
        more_clusters=max(0, len(clusters) - MAX_CLUSTERS_SHOWN),
        picture=_map_picture(points, clusters),
        shares=_cluster_shares(clusters[:MAX_CLUSTERS_SHOWN]),
        holes=_holes(run.table("coverage", "holes")),
        facts=run.metrics("coverage"),
    )


def evenly_sampled(points: pl.DataFrame) -> pl.DataFrame:
    """Those that are drawn: all, or so many evenly taken from the rows as they stand, as the picture takes them."""
    most = figures.MAP_POINTS
    return points if points.height <= most else points[np.unique(np.linspace(0, points.height - 1, most).astype(int))]


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


def _map_picture(points: pl.DataFrame, clusters: list[Cluster]) -> Markup | None:
    if points.is_empty() or "map_y" not in points.columns:
        return None
    x, y = (points[name].cast(pl.Float64).to_numpy() for name in ("map_x", "map_y"))
    return figures.cluster_map(x, y, points["cluster"].cast(pl.Int64).to_numpy(), {c.number: c.name for c in clusters})


def _cluster_shares(clusters: list[Cluster]) -> Markup | None:
    if not clusters:
        return None
    points = [
        figures.RangePoint(
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
        points,
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
        for row in table.head(MAX_HOLES).iter_rows(named=True)
    ]
