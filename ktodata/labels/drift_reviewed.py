"""What drawn rows say of a group whose labels depart: whether labels are wrong as often as another criterion would make them."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ktodata.labels.actions import LEVEL
from ktodata.labels.people.drift import OTHERS, OVER_TIME
from ktodata.stats import share_of_draw

DRAWN_WRONG = pl.col("drawn") & pl.col("wrong")  # rows that were picked say nothing of others


def reviewed_groups(group: Mapping[str, Any], rows: pl.DataFrame) -> dict[str, Any]:
    """Rows of the draw on either side: wrong ones, judged ones; and whether they rule another criterion out.

    reviewed : (wrong, judged) of the group, and of those beside it. ruled_out : so few are wrong that the answers must differ
    group : column, value, counterpart, kind, since (null: at all times), effect_points with its ends
    rows : label, wrong, drawn, undecided, and the group's column, of the rows that are compared

    Another criterion by which fewer rows are desirable makes labels wrong: where it is the group's, some of its undesirable ones,
    where it is the reviewers', some of the others' desirable ones; where theirs is between, both together as often.
    """
    parties = list(_parties(group, rows))
    counts = [(int(own["wrong"].sum()), own.height) for own in (of.filter("drawn") for of in parties)]
    lowest = [abs(group[f"effect_points_{end}"] or 0.0) for end in ("low", "high")]
    one_sided = (
        group["kind"] in ("offset", "change") and (group["effect_points_low"] or 0.0) * (group["effect_points_high"] or 0.0) > 0
    )
    too_many_up = (group["effect_points_low"] or 0.0) > 0
    most = sum(_most_wrong(of, given=given) for of, given in zip(parties, (too_many_up, not too_many_up), strict=True))
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


def _most_wrong(rows: pl.DataFrame, *, given: bool) -> float:
    """The most that the draw leaves open (95 % to one side) of the share of all these rows that wrongly have this label."""
    own = rows.filter(pl.col("label") == given)
    wrong, drawn, undecided = (int(own.select(of.sum()).item()) for of in (DRAWN_WRONG, pl.col("drawn"), pl.col("undecided")))
    high = share_of_draw(wrong, drawn, undecided, own.height, level=2 * LEVEL - 1).high
    return (1.0 if high is None else high) * own.height / max(rows.height, 1)
