"""Which rows are asked about: those of one cluster, source or rater, doubted for one reason, or judged by another reviewer."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlencode

import numpy as np
import polars as pl
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
MAX_CHOICES = 200  # of a column, the most frequent
OTHERS, DIFFER = "others", "differ"


@dataclass(frozen=True)
class Filters:
    """What is asked for; an empty text is everything.

    judged : "others" for rows that another reviewer has judged, "differ" for those on which reviewers differ, also with one's own
    """

    cluster: str = ""
    source: str = ""
    rater: str = ""
    reason: str = ""
    judged: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filters":
        """From a query string; other names are passed over."""
        return cls(**{field.name: query[field.name] for field in fields(cls) if field.name in query})

    @property
    def chosen(self) -> dict[str, str]:
        """Those that are set, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}

    def query(self) -> str:
        """As a query string, with its question mark; empty when nothing is set."""
        return f"?{urlencode(self.chosen, errors='replace')}" if self.chosen else ""


class FilterColumns:
    """The columns that rows are chosen by. Masks are kept: one is asked for again with every row."""

    def __init__(self, table: pl.DataFrame, reasons: pl.Series, drawn: Bools) -> None:
        """`table` : cluster, source and rater, where they are there. reasons : lists [N]. drawn : bool [N], drawn at random."""
        names = [name for name in ("cluster", "source", "rater") if name in table.columns]
        self._table = table.select(pl.col(name).cast(pl.String) for name in names)
        measures = pl.when(pl.Series(drawn)).then(pl.lit(["measures"])).otherwise(pl.lit([], pl.List(pl.String)))
        self._reasons = pl.select(pl.concat_list(measures, reasons.fill_null([]))).to_series()
        self._masks: dict[tuple[str, str], Bools] = {}
        self.choices = self._count_choices()

    def mask(self, filters: Filters) -> Bools:
        """Rows that every filter but `judged` lets through: bool [N]."""
        mask = np.ones(len(self._reasons), bool)
        for name, value in filters.chosen.items():
            if name != "judged":
                mask = mask & self._mask_of(name, value)
        return mask

    def _count_choices(self) -> dict[str, list[tuple[str, int]]]:
        """What can be chosen in each column, most frequent first, with its rows; columns without a choice are left out."""
        counted = {name: self._table[name].drop_nulls() for name in self._table.columns} | {
            "reason": self._reasons.explode().drop_nulls()
        }
        frequent = {name: values.value_counts(sort=True).head(MAX_CHOICES).rows() for name, values in counted.items()}
        return {name: rows for name, rows in frequent.items() if len(rows) > 1}

    def _mask_of(self, name: str, value: str) -> Bools:
        if (name, value) not in self._masks:
            if name != "reason" and name not in self._table.columns:
                return np.zeros(len(self._reasons), bool)
            matches = self._reasons.list.contains(value) if name == "reason" else self._table[name] == value
            if len(self._masks) >= MAX_CHOICES:
                self._masks.clear()
            self._masks[name, value] = matches.fill_null(False).to_numpy()
        return self._masks[name, value]
