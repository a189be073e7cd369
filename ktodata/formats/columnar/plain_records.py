"""Records with a prompt, a completion and a label of their own in columns: rows of many at once.

A record with anything unusual in a value (another type, messages, a label without a meaning or in another spelling, a time that
cannot be read) is left to be read alone, which makes rows of it or says what is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ktodata.formats.columnar.content_ids import content_ids
from ktodata.formats.columnar.plain_forms import PlainForm
from ktodata.formats.columnar.record_columns import RecordColumns
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.format import GIVEN_PART, RATING, Fields, TextColumns
from ktodata.formats.label_rules import LabelRule, Meanings
from ktodata.formats.records import ABSENT, UnusableError
from ktodata.formats.table import CHUNK, CompleteRows, as_name, scalar, with_own_vote


def plain_rows(
    entries: Sequence[SourceRecord],
    form: PlainForm,
    about: Mapping[str, str],
    fields: Fields,
    *,
    file: str,
    time_of: Callable[[Any], datetime | None],
) -> CompleteRows:
    """Rows of the records that are plain; all have the same keys.

    about : {feedback column: column of a record}. file : the name of the source. time_of : what reads a time.
    """
    records = RecordColumns([entry.record for entry in entries])
    records.leave_nested(form.flat)
    columns: dict[str, Any] = {
        "prompt": records.joined_texts(form.texts.prompt),
        "completion": records.texts(form.texts.completion),
        **_verdicts(records, form.texts, fields),
        **_about(records, about, fields, time_of),
        "source_line": [entry.line for entry in entries],
        GIVEN_PART: _parts(records, entries, fields),
    }
    kept = {name: records.each(records.values(column), _keeper(column)) for name, column in fields.keep.items()}
    places = [place for place in range(len(entries)) if place not in records.odd] if records.odd else range(len(entries))
    given = {name: column for name, column in columns.items() if column is not None}
    frame = pl.DataFrame(given, schema={name: CHUNK[name] for name in given})
    if records.odd:
        frame = frame[places]
        kept = {name: [values[place] for place in places] for name, values in kept.items()}
    return CompleteRows(_whole(frame, file), kept, places)


def _verdicts(records: RecordColumns, texts: TextColumns, fields: Fields) -> dict[str, Any]:
    """The columns that say how each record was judged."""
    values, own = records.values(fields.label_column(texts.label)), fields.own_meanings(texts.label)
    verdicts = records.each(values, lambda value: _judge(fields, value, own))
    columns: dict[str, Any] = {"label": [verdict and verdict.label for verdict in verdicts]}
    if fields.label.threshold is not None:
        columns[RATING] = [verdict and verdict.rating for verdict in verdicts]
    if (rule := fields.trusted) is not None and records.may_have(column := rule.column or "trusted_label"):
        trusted = records.values(column)
        columns["trusted_label"] = records.each(trusted, lambda value: None if value is ABSENT else _trusted(rule, value))
    return columns


def _judge(fields: Fields, value: Any, own: Meanings) -> Any:
    if value is ABSENT:
        raise UnusableError("label_missing", "read alone, the record says which")
    verdict = fields.judge(value, own)
    _leave_respelt(fields.label)
    return verdict


def _trusted(rule: LabelRule, value: Any) -> bool | None:
    label = rule.truth(value)
    _leave_respelt(rule)
    return label


def _leave_respelt(rule: LabelRule) -> None:
    if rule.take_respelt():
        raise UnusableError("respelt", "read alone, the record counts it")


def _about(records: RecordColumns, about: Mapping[str, str], fields: Fields, time_of: Callable[[Any], Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in about.items():
        if not records.may_have(column):
            continue
        if name == "created_at":
            columns[name] = records.times(column, time_of, may_be_iso=fields.time_format is None)
        else:
            columns[name] = records.names(column, lambda value, name=name: as_name(value, name))  # type: ignore[misc]
    return columns


def _parts(records: RecordColumns, entries: Sequence[SourceRecord], fields: Fields) -> Sequence[str | None] | None:
    if not fields.keep_parts:
        return None
    values = [entry.part for entry in entries] if fields.part is None else records.values(fields.part)
    return records.each(values, lambda value: as_name(value, GIVEN_PART))


def _keeper(column: str) -> Callable[[Any], Any]:
    return lambda value: scalar(value, column)


def _whole(frame: pl.DataFrame, file: str) -> pl.DataFrame:
    """All columns of a chunk: what a plain record never has is null, each label is its own vote."""
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in CHUNK.items() if name not in frame.columns]
    frame = frame.with_columns(*missing).with_columns(file=pl.lit(file), source=pl.col("source").fill_null(pl.lit(file)))
    return with_own_vote(frame).with_columns(content_ids(frame)).select(*CHUNK)
