"""`kd.prompt_map`: the map of prompts to pan, zoom and choose from, in a notebook. What is chosen comes back as rows."""

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from ktodata.errors import EmptyDataError, MissingColumnError, SettingError
from ktodata.extras import require
from ktodata.feedback import check_columns
from ktodata.report.text import one_line
from ktodata.visible_text import clean

if TYPE_CHECKING:
    import jscatter

ColorBy = Literal["cluster", "label", "label_quality", "distance"]
MAPPED = ("cluster", "map_x", "map_y")  # what coverage adds
NEEDS: dict[ColorBy, tuple[str, ...]] = {
    "cluster": (),
    "label": ("label",),
    "label_quality": ("label_quality",),
    "distance": ("prompt_embedding",),
}
COLUMN: dict[ColorBy, str] = {"cluster": "cluster", "label": "desirable_share", "label_quality": "doubt", "distance": "distance"}
UNDESIRABLE_TO_DESIRABLE = ("#b8501b", "#d8d3c8", "#0d7a70")
POINT_SIZE = 7  # pixels
MAX_IN_LEGEND = 12  # clusters; a longer legend hides the map
HOVER_CHARS = 400


def prompt_map(
    feedback: pl.DataFrame,
    *,
    color_by: ColorBy = "cluster",
    clusters: pl.DataFrame | None = None,
    height: int = 480,
) -> "PromptMap":
    """An interactive map of the prompts: one point a prompt, near in meaning is near on the map, far means little.

    feedback : with map_x, map_y and cluster, as `kd.add_columns(feedback, kd.coverage(feedback))` gives it
    color_by : "cluster"; "label", the share of desirable rows of the prompt; "label_quality", 1 - it of the most doubtful row
        (column doubt); "distance", 1 - cosine to the nearest other prompt on the map, 0 where there is one just like it
    clusters : `kd.coverage(feedback).tables["clusters"]`, for their names. height : of the picture, pixels

    Hovering shows the prompt; the lasso chooses points, and `.selected` holds their rows.
    Raises MissingColumnError, SettingError, MissingExtraError, and EmptyDataError when no prompt has both a place on the map and
    what it is to be coloured by.
    """
    require("jscatter", what="the interactive map", extra="notebook")
    if color_by not in get_args(ColorBy):
        raise SettingError(f"prompt_map: color_by is one of {', '.join(get_args(ColorBy))}; got {color_by!r}.")
    is_table = isinstance(feedback, pl.DataFrame)
    if missing := [name for name in MAPPED if not is_table or name not in feedback.columns]:
        what = f"a table without {', '.join(missing)}" if is_table else type(feedback).__name__
        raise MissingColumnError(
            "prompt_map takes feedback with cluster, map_x and map_y, which kd.coverage adds: "
            f"kd.add_columns(feedback, kd.coverage(feedback)), of embedded feedback; got {what}. Of a run: run.feedback."
        )
    check_columns(feedback, ("prompt", *NEEDS[color_by]), who=f"prompt_map (coloured by {color_by})")
    points = _map_points(feedback, color_by, clusters)
    if points.is_empty():
        raise EmptyDataError(
            f"prompt_map: none of {feedback.height:,} rows has a place on the map and what it is to be coloured by. "
            "kd.coverage gives places to the prompts of rows that will be trained on."
        )
    return PromptMap(feedback, points, _scatter(points, color_by, height))


class PromptMap:
    """A map on the page. `scatter` is jupyter-scatter's own object, for all that it can do; `widget` is what marimo wraps."""

    def __init__(self, feedback: pl.DataFrame, points: pl.DataFrame, scatter: "jscatter.Scatter") -> None:
        self.feedback, self.points, self.scatter = feedback, points, scatter

    def __repr__(self) -> str:
        return f"PromptMap: {self.points.height:,} of {self.feedback['prompt'].n_unique():,} prompts have a point"

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return self.scatter._repr_mimebundle_(**settings)

    @property
    def widget(self) -> Any:
        """The widget itself."""
        return self.scatter.widget

    @property
    def selected(self) -> pl.DataFrame:
        """Every row of `feedback` whose prompt is among the chosen points, in the frame's order; empty when none is chosen."""
        chosen = np.asarray(self.scatter.selection(), dtype=np.int64)
        return self.feedback.join(self.points[chosen].select("prompt"), on="prompt", how="semi", maintain_order="left")


def _map_points(feedback: pl.DataFrame, color_by: ColorBy, clusters: pl.DataFrame | None) -> pl.DataFrame:
    """prompt, map_x, map_y, rows, shown (the prompt, fit to be shown) and the column to colour by, one line a prompt."""
    measured = {
        "desirable_share": pl.col("label").mean(),
        "doubt": (1 - pl.col("label_quality").cast(pl.Float64)).max(),
    }
    measured_column = {name: measured[name] for name in measured if name == COLUMN[color_by]}
    of_prompt = feedback.group_by("prompt").agg(rows=pl.len(), **measured_column)
    placed = feedback.filter(pl.col("map_x").is_not_null() & pl.col("map_y").is_not_null())
    placed = placed.unique("prompt", keep="first", maintain_order=True)
    points = placed.join(of_prompt, on="prompt", maintain_order="left")
    if color_by == "distance":
        points = points.with_columns(distance=pl.Series(_distances(points["prompt_embedding"].to_numpy()), dtype=pl.Float64))
    names = {} if clusters is None else {row["cluster"]: f": {row['name']}" for row in clusters.iter_rows(named=True)}
    return points.select(
        "prompt",
        "map_x",
        "map_y",
        "rows",
        shown=pl.Series([_hover(text) for text in points["prompt"]], dtype=pl.String),
        cluster=pl.Series([one_line(f"{cluster}{names.get(cluster, '')}") for cluster in points["cluster"]], dtype=pl.String),
        **{COLUMN[color_by]: pl.col(COLUMN[color_by])} if color_by != "cluster" else {},
    ).drop_nulls(COLUMN[color_by])


def _hover(text: str) -> str:
    return clean(text[:HOVER_CHARS]) + (" …" if len(text) > HOVER_CHARS else "")


def _distances(vectors: np.ndarray) -> np.ndarray:
    """1 - cosine of each vector to the nearest other: float [n]; embed makes vectors of length 1. Nothing for a single one."""
    if len(vectors) < 2:
        return np.zeros(len(vectors))
    similarity: np.ndarray = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(np.maximum(1 - similarity.max(axis=1), 0.0))


def _scatter(points: pl.DataFrame, color_by: ColorBy, height: int) -> "jscatter.Scatter":
    import jscatter
    from matplotlib.colors import LinearSegmentedColormap

    # one category a cluster, in the order of their numbers: the largest first
    kinds = sorted(points["cluster"].unique(), key=lambda name: int(name.split(":")[0]))
    data = points.drop("prompt").with_columns(pl.col("cluster").cast(pl.Enum(kinds)), pl.col("map_x", "map_y").cast(pl.Float64))
    scatter = jscatter.Scatter(x="map_x", y="map_y", data=data, height=height, aspect_ratio=1)
    column = COLUMN[color_by]
    if color_by == "label":
        ends = LinearSegmentedColormap.from_list("label", UNDESIRABLE_TO_DESIRABLE)
        scatter.color(by=column, map=ends, norm=(0, 1), labeling=("undesirable", "desirable"))
    elif color_by == "label_quality":
        scatter.color(by=column, norm=(0, 1), labeling=("sound", "doubtful"))
    else:
        scatter.color(by=column)
    scatter.axes(False)  # only what is near means something
    scatter.size(default=POINT_SIZE)
    scatter.legend(color_by != "cluster" or len(kinds) <= MAX_IN_LEGEND)
    properties = [*dict.fromkeys(("cluster", column)), "rows"]
    # no histograms: jupyter-scatter 1.0 fails on that of a column with one value, and then shows no text either
    scatter.tooltip(True, properties=properties, histograms=False, preview="shown", preview_type="text")
    return scatter
