"""Which records with the same keys can be read column by column, and where their texts are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ktodata.formats.dialects import FORMATS, format_of
from ktodata.formats.dialects.judged_turns import EACH
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.format import Fields, Format, TextColumns
from ktodata.formats.records import UnusableError
from ktodata.formats.table import BESIDE_TEXTS

DECIDED_BY_VALUE = frozenset(name for format in FORMATS.values() for name in format.looks_into)
RECOGNISED_BY = frozenset(name for format in FORMATS.values() for name in format.fields)


@dataclass(frozen=True)
class PlainForm:
    """Where records of one format have their texts.

    flat : keys of which none may hold an object or a list: the record could be of another format.
    """

    format: Format
    texts: TextColumns
    flat: Collection[str]


def plain_form(keys: tuple[str, ...], entries: Sequence[SourceRecord], fields: Fields, chosen: Format | None) -> PlainForm | None:
    """The form of records that all have these keys; None: each is to be read alone.

    A format is recognised by the keys, by what is nested in which of them, and by `Format.looks_into`: where none of those is
    there and nothing is nested, all have the format of the first.
    """
    if fields.transcripts or fields.votes or not all(isinstance(key, str) for key in keys) or not BESIDE_TEXTS.isdisjoint(keys):
        return None
    flat: Collection[str] = RECOGNISED_BY.intersection(keys)
    if chosen is not None and chosen.takes_columns:
        format, flat = chosen, ()
    elif not _keys_decide(keys, fields) or (first := _first_flat(entries, flat)) is None:
        return None
    else:
        try:
            format = format_of(first.record, fields, chosen)
        except UnusableError:
            return None
    texts = format.plain_texts(keys, fields)
    return None if texts is None else PlainForm(format, texts, flat)


def _keys_decide(keys: Sequence[str], fields: Fields) -> bool:
    label = fields.label.column
    return DECIDED_BY_VALUE.isdisjoint(keys) and (label is None or (label in keys and EACH not in label))


def _first_flat(entries: Sequence[SourceRecord], keys: Collection[str]) -> SourceRecord | None:
    return next((entry for entry in entries if not any(isinstance(entry.record[key], Mapping | list) for key in keys)), None)
