"""The rows of a table put to drift.py: groups and dates at which the label given the content changes."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.embeddings.vectors import of_unit_length
from ktodata.labels.drift_reviewed import reviewed_groups
from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.drift import (
    EXAMPLES_SCHEMA,
    MIN_PROMPTS,
    MIN_ROWS,
    OVER_TIME,
    SCHEMA,
    Drift,
    Likeness,
    criteria_drift,
)
from ktodata.text.scripts import scripts_of

COLUMNS = ("source", "rater", "model")


def find_drift(rows: LabelRows, from_text: NDArray[np.float64]) -> Drift:
    """Look among training rows. from_text : float [N], P(desirable) by the text alone, out of fold"""
    table = (
        _of_one_rater(rows.table)
        .select("row_id", "label", *COLUMNS, "created_at", "prompt")
        .with_columns(
            p_desirable=pl.Series(from_text), prompt_group=pl.Series(rows.groups), script=scripts_of(rows.table["prompt"])
        )
    )
    return criteria_drift(table.filter(pl.Series(rows.trained)).drop("prompt"), (*COLUMNS, "script"), likeness=_likeness(rows))


def _of_one_rater(table: pl.DataFrame) -> pl.DataFrame:
    """With no rater on a text that several judged: whose row it is the votes decided, so that those rows say nothing of a rater.

    Of two who agree the first keeps the row, and the second keeps those alone on which the first was outvoted.
    """
    raters = (pl.col(name).list.eval(pl.element().struct.field("rater")) for name in ("pooled_votes", "judge_votes"))
    people = [names.list.n_unique().fill_null(0) for names in raters]
    return table.with_columns(rater=pl.when(people[0] - people[1] <= 1).then("rater"))


def _likeness(rows: LabelRows) -> Likeness:
    """How alike two trained rows are, by their places among those: the cosine of their prompts and of their answers, averaged."""
    trained, sides = np.flatnonzero(rows.trained), rows.vectors

    def cosine(row: int, compared: NDArray[np.int64]) -> NDArray[np.float64]:
        prompts, answers = (of_unit_length(side[trained[compared]]) @ of_unit_length(side[trained[[row]]])[0] for side in sides)
        return np.asarray((prompts + answers) / 2, float)

    return cosine


def drift_metrics(drift: Drift | None, rows: LabelRows) -> dict[str, Any]:
    """As JSON values; nothing where nobody looked.

    significant_groups : `only`, the one label that a group's rows have; null: both; `counterpart_only`, of the one beside it;
    `reviewed` and `ruled_out` as `reviewed_groups` gives them
    columns : of each column rows that name a value, how many values, and how many of them have enough rows to be compared
    """
    if drift is None:
        return {}
    effect = ("effect_points", "effect_points_low", "effect_points_high")
    groups = drift.table.filter("significant").select("column", "value", "counterpart", "kind", "since", *effect)
    trained = _of_one_rater(rows.table).filter(pl.Series(rows.trained))
    if "script" in groups["column"]:  # of no other is it asked, and every prompt would be read for it
        trained = trained.with_columns(script=scripts_of(trained["prompt"]))
    lines = [
        group
        | {"since": group["since"] and f"{group['since']:%Y-%m-%d %H:%M}"}
        | {"only": _only_label(trained, group["column"], group["value"])}
        | {"counterpart_only": _only_label(trained, group["column"], group["counterpart"])}
        | reviewed_groups(group, trained)
        for group in groups.to_dicts()
    ]
    columns = {name: _column_counts(trained, name) for name in (*COLUMNS, OVER_TIME)}
    return {"drift": drift.metrics | {"columns": columns, "significant_groups": lines}}


def _column_counts(rows: pl.DataFrame, column: str) -> dict[str, int]:
    named = rows.filter(pl.col(column).is_not_null())
    sizes = named.group_by(column).agg(pl.len(), prompts=pl.col("prompt_group").n_unique())
    enough = sizes.filter((pl.col("len") >= MIN_ROWS) & (pl.col("prompts") >= MIN_PROMPTS))
    return {"rows": named.height, "values": sizes.height, "with_enough_rows": enough.height}


def _only_label(rows: pl.DataFrame, column: str, value: str | None) -> bool | None:
    if column not in COLUMNS or value is None:
        return None
    labels = rows.filter(pl.col(column).cast(pl.String) == value)["label"].unique()
    return bool(labels[0]) if len(labels) == 1 else None


def drift_tables(drift: Drift | None) -> dict[str, pl.DataFrame]:
    """The tables drift and drift_examples, empty where nobody looked."""
    if drift is None:
        return {"drift": pl.DataFrame(schema=SCHEMA), "drift_examples": pl.DataFrame(schema=EXAMPLES_SCHEMA)}
    return {"drift": drift.table, "drift_examples": drift.examples}
