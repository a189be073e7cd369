"""What a person may say about a file that is otherwise taken from its content."""

import codecs
from dataclasses import dataclass
from typing import Literal

from ktodata.errors import SettingError

MAX_RECORD_MB = 64.0
ShapeKind = Literal[
    "json_lines",
    "json_array",
    "json_objects",
    "json_columns",
    "csv",
    "parquet",
    "arrow_file",
    "arrow_stream",
    "feather",
    "sqlite",
    "duckdb",
    "excel",
    "saved_dataset",
    "hub",
    "delta",
    "iceberg",
    "lance",
    "memory",
]


@dataclass(frozen=True)
class FileSettings:
    """Settings that override what the content of a file says.

    delimiter : one character between the fields of a CSV, e.g. ";" or a tab.
    encoding : of a text file, as Python names it: utf-8, utf-16, cp1252, ...
    table : of a database; the sheet of a workbook; the list in a JSON document, as a dotted path; the split of a saved data set.
    ask_parts : refuse a data set of several parts, as nobody has said whether they are to be kept apart.
    max_record_mb : a longer record is set aside (a line) or ends the reading (a JSON document), before it fills the memory.
    """

    delimiter: str | None = None
    encoding: str | None = None
    table: str | None = None
    max_record_mb: float = MAX_RECORD_MB
    ask_parts: bool = False

    def __post_init__(self) -> None:
        """Raise SettingError for a value that cannot be meant."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"\0'):
            raise SettingError(f'delimiter is one character, e.g. ";" or a tab; got {self.delimiter!r}.')
        if self.encoding is not None:
            _check_encoding(self.encoding)
        if isinstance(self.max_record_mb, bool) or not 0 < self.max_record_mb <= 4096:
            raise SettingError(f"max_record_mb is a size in megabytes, above 0 and at most 4096; got {self.max_record_mb!r}.")

    @property
    def max_record_bytes(self) -> int:
        """The limit in bytes."""
        return int(self.max_record_mb * 1e6)


def _check_encoding(name: str) -> None:
    try:
        "".encode(codecs.lookup(name).name)  # codecs such as base64 are no encoding of text: this raises for them
    except (LookupError, ValueError, TypeError):
        raise SettingError(f"there is no encoding {name!r}; usual ones are utf-8, utf-16, cp1252, latin-1, shift_jis.") from None
