"""Rows that left: by step and reason, with examples; repeats with their pairs; records that never became a row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.report.examples import Example, examples
from ktodata.report.run_files import RunFiles
from ktodata.report.text import Excerpt, excerpt, number

MAX_REASONS = 40
EXAMPLES_PER_REASON = 3
MAX_REPEATS = 8
RECORDS_PER_REASON = 5
FATES = {
    "drop": "dropped",
    "quarantine": "quarantined",
    "review": "held for a person to review",
    "relabel": "kept, with the other label",
}


@dataclass(frozen=True)
class Reason:
    """One reason for which one step dropped, held or relabelled rows."""

    stage: str
    action: str
    reason: str
    rows: int
    examples: list[Example]

    @property
    def fate(self) -> str:
        """What became of the rows, in words."""
        return FATES.get(self.action, self.action)


@dataclass(frozen=True)
class RepeatPair:
    """A repeat and the row that stays in its place."""

    repeat: Example
    original: Example
    similarity: float | None


@dataclass(frozen=True)
class Unreadable:
    """One reason for which records were quarantined, with a few of them: (file, line, detail, raw text)."""

    reason: str
    records: int
    examples: list[tuple[str, int | None, str, Excerpt]]


def read_reasons(run: RunFiles, *, with_examples: bool = True) -> list[Reason]:
    """Every reason, the most frequent first; each row counts once, for the decision that settled it."""
    fate = run.fates
    counted = (
        fate.group_by("stage", "action", "reason", maintain_order=True)
        .agg(pl.len(), pl.col("row_id").sort().head(EXAMPLES_PER_REASON).alias("first"))
        .sort("len", "stage", "action", "reason", descending=[True, False, False, False])
        .head(MAX_REASONS)
    )
    first_rows = fate.filter(pl.col("row_id").is_in(counted["first"].explode().implode()))
    why = {row["row_id"]: _decision_notes(row) for row in first_rows.iter_rows(named=True)} if with_examples else {}
    examples_by_id = {example.row_id: example for example in examples(run, why)}
    return [
        Reason(stage, action, reason, rows, [examples_by_id[row_id] for row_id in first if row_id in examples_by_id])
        for stage, action, reason, rows, first in counted.iter_rows()
    ]


def _decision_notes(row: Mapping[str, Any]) -> list[str]:
    """The evidence of a decision in words, and the row that caused it."""
    return evidence_in_words(row["evidence"]) + ([f"because of row {row['caused_by']}"] if row["caused_by"] else [])


def evidence_in_words(evidence: str | None) -> list[str]:
    """The evidence of a decision, which the ledger holds as JSON: ["similarity: 0.910", ...], at most six."""
    proofs = {name: value for name, value in _parse_evidence(evidence).items() if value is not None and name != "label"}
    return [f"{name.replace('_', ' ')}: {_evidence_value(value)}" for name, value in proofs.items()][:6]


def _parse_evidence(text: str | None) -> dict[str, Any]:
    values = json.loads(text or "{}")
    return values if isinstance(values, dict) else {}


def _evidence_value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return excerpt(value if isinstance(value, str) else json.dumps(value, default=str), 120).text


def read_pairs(run: RunFiles) -> list[RepeatPair] | None:
    """A few repeats beside the row they repeat, the least alike first. None when dedupe is not part of the run."""
    table = run.columns("dedupe", "duplicate_of", "duplicate_similarity")
    if table is None or "duplicate_of" not in table.columns:
        return None
    repeats = table.filter(pl.col("duplicate_of").is_not_null())
    if "duplicate_similarity" not in repeats.columns:
        repeats = repeats.with_columns(duplicate_similarity=pl.lit(None, pl.Float64))
    near = repeats.sort("duplicate_similarity", "row_id", nulls_last=True).head(MAX_REPEATS)
    ids = [*near["row_id"], *near["duplicate_of"]]
    rows = {example.row_id: example for example in examples(run, dict.fromkeys(ids, ()))}
    return [
        RepeatPair(rows[repeat], rows[original], similarity)
        for repeat, original, similarity in near.select("row_id", "duplicate_of", "duplicate_similarity").iter_rows()
        if repeat in rows and original in rows
    ]


def read_unreadable(run: RunFiles) -> list[Unreadable]:
    """Quarantined records by reason, the most frequent first."""
    counted = (
        run.quarantine.with_row_index()
        .group_by("reason", maintain_order=True)
        .agg(pl.len(), pl.col("index").head(RECORDS_PER_REASON))
        .sort("len", "reason", descending=[True, False])
    )
    return [
        Unreadable(reason, records, _record_examples(run.quarantine[first.to_list()]))
        for reason, records, first in zip(counted["reason"], counted["len"], counted["index"], strict=True)
    ]


def _record_examples(few: pl.DataFrame) -> list[tuple[str, int | None, str, Excerpt]]:
    return [
        (row["file"], row["line"], excerpt(row.get("detail"), 200).text, _raw_excerpt(row)) for row in few.iter_rows(named=True)
    ]


def _raw_excerpt(row: Mapping[str, Any]) -> Excerpt:
    """The record as it was read; what ingest kept of it may itself be its beginning only."""
    raw = excerpt(row.get("raw"), 240)
    return Excerpt(raw.text, max(raw.length, row.get("raw_chars") or 0))
