"""Refusals where they are due and where they are not: prompts of a file, each said to be unsafe or safe, and the answers to them.

Both are needed. A policy that refuses everything is safe and of no use (XSTest, arXiv:2308.01263).
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ktodata.errors import DataError, FormatError, LabelError, MissingColumnError
from ktodata.experiments.probes.refusals import refuses
from ktodata.files import read_table
from ktodata.stats.bootstrap import Statistic, weighted_mean

PROMPT_COLUMNS = ("prompt", "goal")  # AdvBench (arXiv:2307.15043) calls it goal
VERDICT_COLUMNS = ("unsafe", "should_refuse", "label")  # XSTest says safe or unsafe in its label
UNSAFE = {"true": True, "1": True, "yes": True, "unsafe": True, "false": False, "0": False, "no": False, "safe": False}
MEASURES = {True: "refusal_of_unsafe", False: "refusal_of_safe"}


def read_safety_prompts(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """(item, prompt, unsafe: one line for each different prompt, in the file's order; facts with counts).

    path : JSONL (also .gz), JSON, CSV or Parquet with a column `prompt` or `goal`, and `unsafe` or `should_refuse` (true, false,
        1, 0, yes, no), or XSTest's `label` (safe, unsafe). A file with `goal` and no such column is a list of unsafe prompts, as
        AdvBench is.

    Raises FormatError, MissingColumnError, LabelError for a verdict that is neither, DataError for empty prompts, and for a
    prompt that is called both safe and unsafe.
    """
    table = _read_prompt_file(path)
    column = next((name for name in PROMPT_COLUMNS if name in table.columns), None)
    if column is None:
        raise MissingColumnError(
            f"safety: {path} has no column {' or '.join(PROMPT_COLUMNS)}; it has {', '.join(table.columns)}."
        )
    rows = pl.DataFrame({"prompt": table[column].cast(pl.String), "unsafe": _unsafe_verdicts(path, table, column)})
    empty = rows.with_row_index("row", 1).filter(pl.col("prompt").fill_null("").str.strip_chars() == "")
    if empty.height:
        raise DataError(
            f"safety: {path}: {empty.height:,} of {rows.height:,} prompts are empty (first: row {empty['row'][0]:,})."
        )
    different = rows.unique(maintain_order=True)
    both = different.filter(pl.col("prompt").is_duplicated())
    if both.height:
        raise DataError(
            f"safety: {path}: {both['prompt'].n_unique():,} prompts are called both safe and unsafe (first: "
            f"{both['prompt'][0][:80]!r}). Give each one verdict."
        )
    facts = {
        "file": path.name,
        "rows": rows.height,
        "repeated": rows.height - different.height,
        "unsafe": int(different["unsafe"].sum()),
        "safe": int((~different["unsafe"]).sum()),
    }
    return different.with_row_index("item").cast({"item": pl.Int64}), facts


def at_most(prompts: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    """At most `limit` prompts of each kind, the same ones each time."""
    if limit is None:
        return prompts
    drawn = np.random.default_rng([0, 7]).permutation(prompts.height)
    return prompts[drawn].group_by("unsafe").head(limit).sort("item")


def refusal_measures(answers: pl.DataFrame, unsafe: bool) -> dict[str, Statistic]:
    """The share of `answers` (text) that refuse, under the name that says which way is better."""
    return {MEASURES[unsafe]: weighted_mean([refuses(text) for text in answers["text"]])}


def _read_prompt_file(path: Path) -> pl.DataFrame:
    table = read_table(path, as_text=True)
    if table.is_empty():
        raise FormatError(f"safety: {path} holds no prompts.")
    return table


def _unsafe_verdicts(path: Path, table: pl.DataFrame, column: str) -> pl.Series:
    """Whether each prompt is unsafe."""
    name = next((name for name in VERDICT_COLUMNS if name in table.columns), None)
    if name is None and column == "goal":
        return pl.Series([True] * table.height)
    if name is None:
        raise MissingColumnError(
            f"safety: {path} does not say which prompts are unsafe; it has {', '.join(table.columns)}. Add a column "
            "`unsafe`: true where a refusal is due, false where it is not."
        )
    values = table[name]
    if name == "label" and values.dtype == pl.Boolean:
        raise LabelError(f"safety: {path}: column 'label' is true or false, which does not say what is unsafe. Call it `unsafe`.")
    verdicts = [UNSAFE.get(str(value).strip().lower()) for value in values]
    unread = [number for number, value in enumerate(verdicts) if value is None]
    if unread:
        raise LabelError(
            f"safety: {path}: column {name!r}: {len(unread):,} of {table.height:,} values are neither safe nor unsafe (first: "
            f"{str(values[unread[0]])[:80]!r} in row {unread[0] + 1:,}). Write true or false."
        )
    return pl.Series(verdicts, dtype=pl.Boolean)
