"""The map of the prompts as data, for the map that can be moved, coloured and asked; the same dots as in the picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ktodata.report.map.payload import encode_payload
from ktodata.report.map.prefixes import read_prefixes
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.coverage_section import evenly_sampled
from ktodata.report.sections.dropped_rows import FATES
from ktodata.report.text import one_line
from ktodata.report.without_text import WithoutText
from ktodata.visible_text import clean

GRID = 10_000  # steps along the map's longer side
EXCERPT = 160
# as much of a prompt as coverage keeps of the training prompt nearest to a hole
NEAREST = 300


@dataclass(frozen=True)
class MapData:
    """encoded : as the page's script decodes them. colourings : what the dots can be coloured by, besides cluster."""

    encoded: str
    colourings: tuple[str, ...]


def read_map_data(run: RunFiles) -> MapData | None:
    """The map; None when coverage has placed nothing. Of WithoutText a dot has its row_id and numbers, and no prompt."""
    placed, clusters = run.columns("coverage", "cluster", "map_x", "map_y"), run.table("coverage", "clusters")
    if placed is None or clusters is None or "map_y" not in placed.columns or (placed := placed.drop_nulls()).is_empty():
        return None
    points = evenly_sampled(placed)
    values = _grid_places(points) | _clusters(run, placed, clusters, points)
    values |= {
        "row_id": points["row_id"].to_list(),
        "label": _column_of_points(run, "ingest", "label", points).cast(pl.Int8).to_list(),
    }
    quality = _column_of_points(run, "label_noise", "label_quality", points)
    if quality.count():
        values["quality"] = quality.cast(pl.Float64).fill_nan(None).round(3).to_list()
    fate = _fates(run, points)
    values["fates"] = fate.unique(maintain_order=True).to_list()
    values["fate"] = [values["fates"].index(name) for name in fate]
    if not isinstance(run, WithoutText):
        prompts = read_prefixes(run, points["row_id"], limit=NEAREST)["prompt"].fill_null("")
        values["prompt"] = [clean(prompt[:EXCERPT]) for prompt in prompts]
        values["nearest_hole"] = _nearest_holes(run, prompts)
    return MapData(encode_payload(values), tuple(name for name, there in _colourings(values).items() if there))


def _colourings(values: dict[str, Any]) -> dict[str, bool]:
    thin = any(thin for *_, thin in values["clusters"])
    return {
        "label": True,
        "doubt": "quality" in values,
        "fate": len(values["fates"]) > 1,
        "coverage": thin or any(number is not None for number in values.get("nearest_hole", ())),
    }


def _grid_places(points: pl.DataFrame) -> dict[str, list[int]]:
    """Both axes on one scale: the longer side is GRID steps."""
    place = points.select("map_x", "map_y").cast(pl.Float64).to_numpy()
    place = place - place.min(axis=0)
    steps = np.rint(place * (GRID / max(place.max(), 1e-9))).astype(int)
    return {"x": steps[:, 0].tolist(), "y": steps[:, 1].tolist()}


def _clusters(run: RunFiles, placed: pl.DataFrame, table: pl.DataFrame, points: pl.DataFrame) -> dict[str, Any]:
    """Clusters in the picture's order, so that the colours are the same; "beyond" are dots of a cluster without a name."""
    count = dict(placed.group_by("cluster").len().iter_rows())
    by_number = {row["cluster"]: row for row in table.iter_rows(named=True)}
    order = sorted(by_number, key=lambda number: (-count.get(number, 0), number))
    named = [
        [number, _cluster_name(by_number[number]), by_number[number]["rows"], bool(by_number[number].get("thin"))]
        for number in order
    ]
    place = {number: at for at, number in enumerate(order)}
    return {"clusters": named, "cluster": [place.get(number) for number in points["cluster"]]}


def _cluster_name(row: dict[str, Any]) -> str:
    return one_line(row.get("name") or f"cluster {row['cluster']}", 60)


def _column_of_points(run: RunFiles, stage: str, name: str, points: pl.DataFrame) -> pl.Series:
    """A stage's column for the dots; null where there is none."""
    table = run.columns(stage, name)
    if table is None or name not in table.columns:
        return pl.Series(name, [None] * points.height, dtype=pl.Float64)
    return points.select("row_id").join(table, on="row_id", how="left", maintain_order="left")[name]


def _fates(run: RunFiles, points: pl.DataFrame) -> pl.Series:
    """What became of each dot's row, in words."""
    action = points.select("row_id").join(run.fates.select("row_id", "action"), on="row_id", how="left", maintain_order="left")
    return action["action"].replace_strict(FATES, default="kept as it came")


def _nearest_holes(run: RunFiles, prompts: pl.Series) -> list[int | None]:
    """For each dot the place in the table of holes of the hole that it is nearest to, from 1."""
    holes = run.table("coverage", "holes")
    if holes is None or "nearest" not in holes.columns:
        return [None] * len(prompts)
    number = {nearest: at for at, nearest in reversed(list(enumerate(holes["nearest"], start=1)))}
    return [number.get(prompt) for prompt in prompts]
