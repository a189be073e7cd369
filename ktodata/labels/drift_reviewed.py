"""What drawn rows say of a group whose labels depart: whether labels are wrong as often as another criterion would make them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.people.drift import OTHERS, OVER_TIME
from ktodata.stats import share_with_unknown

Bools = NDArray[np.bool_]


def reviewed_groups(group: Mapping[str, Any], rows: pl.DataFrame) -> dict[str, Any]:
    """Rows of the draw on either side: wrong ones, judged ones; and whether they rule another criterion out.

    reviewed : (wrong, judged) of the group, and of those beside it. ruled_out : so few are wrong that the answers must differ
    group : column, value, counterpart, since (null: at all times), effect_points with its ends
    rows : label, wrong, drawn, undecided, and the group's column, of the rows that are compared

    Were the criterion of either that of the reviews, the labels of the other would be wrong as often as the two differ; were it
    between them, both together would.
    """
    parties = list(_parties(group, rows))
    counts = [(int(own["wrong"].sum()), own.height) for own in (of.filter("drawn") for of in parties)]
    lowest = [abs(group[f"effect_points_{end}"] or 0.0) for end in ("low", "high")]
    one_sided = (group["effect_points_low"] or 0.0) * (group["effect_points_high"] or 0.0) > 0
    most = sum(_most_wrong(of) for of in parties)
    return {"reviewed": counts, "ruled_out": bool(one_sided and most < min(lowest))}


def _parties(group: Mapping[str, Any], rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of the group, and those beside it: its own before the date, or of its counterpart, or all others that have one."""
    column, other, since = group["column"], group.get("counterpart"), group["since"]
    named, value = rows.filter(pl.col(column).is_not_null()), pl.col(column).cast(pl.String)
    own = named if column == OVER_TIME else named.filter(value == group["value"])
    if since is not None:
        yield own.filter(pl.col(OVER_TIME) >= since)
        yield own.filter(pl.col(OVER_TIME) < since)
        return
    yield own
    yield named.filter(value != group["value"] if other in (None, OTHERS) else value == other)


def _most_wrong(rows: pl.DataFrame) -> float:
    """The most that the draw leaves open of the share of wrong labels; 1 where nothing of it was judged."""

    def of_classes(counted: pl.Expr) -> tuple[int, int]:
        each = [int(rows.filter(pl.col("label") == given).select(counted.sum()).item()) for given in (False, True)]
        return each[0], each[1]

    drawn, sizes = of_classes(pl.col("drawn")), of_classes(pl.col("label").is_not_null())
    high = share_with_unknown(of_classes(pl.col("drawn") & pl.col("wrong")), drawn, of_classes(pl.col("undecided")), sizes).high
    return 1.0 if high is None else high
