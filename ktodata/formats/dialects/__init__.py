"""Every dialect by name, the more particular before the more general: the first that matches a record reads it."""

from difflib import get_close_matches

from ktodata.errors import SettingError
from ktodata.formats.dialects.argilla import ARGILLA
from ktodata.formats.dialects.axolotl import AXOLOTL
from ktodata.formats.dialects.halos import HALOS
from ktodata.formats.dialects.hh_rlhf import HH_RLHF
from ktodata.formats.dialects.label_studio import LABEL_STUDIO
from ktodata.formats.dialects.langfuse import LANGFUSE
from ktodata.formats.dialects.langsmith import LANGSMITH
from ktodata.formats.dialects.llamafactory_alpaca import LLAMAFACTORY_ALPACA
from ktodata.formats.dialects.llamafactory_sharegpt import LLAMAFACTORY_SHAREGPT
from ktodata.formats.dialects.mapping import MAPPING
from ktodata.formats.dialects.ms_swift import MS_SWIFT
from ktodata.formats.dialects.preference import PREFERENCE
from ktodata.formats.dialects.ratings import HELPSTEER, ULTRAFEEDBACK
from ktodata.formats.dialects.trl import TRL
from ktodata.formats.dialects.trl_paired import TRL_PAIRED
from ktodata.formats.fields import Fields
from ktodata.formats.format import Format
from ktodata.formats.records import Record

FORMATS: dict[str, Format] = {
    dialect.name: dialect
    for dialect in (
        HALOS,
        LABEL_STUDIO,
        ARGILLA,
        LANGSMITH,
        LANGFUSE,
        ULTRAFEEDBACK,
        HELPSTEER,
        AXOLOTL,
        TRL,
        HH_RLHF,
        TRL_PAIRED,
        PREFERENCE,
        LLAMAFACTORY_ALPACA,
        MS_SWIFT,
        LLAMAFACTORY_SHAREGPT,
        MAPPING,
    )
}


def format_named(name: str) -> Format:
    """The dialect of that name. Raises SettingError with the nearest name."""
    if name not in FORMATS:
        close = get_close_matches(name, FORMATS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SettingError(f"there is no format {name!r}.{hint} The formats are {', '.join(FORMATS)}.")
    return FORMATS[name]


def detect_format(record: Record, fields: Fields) -> Format | None:
    """The first dialect that a record looks like; mapping, which takes anything, is only used when it is asked for."""
    return next((dialect for dialect in FORMATS.values() if dialect is not MAPPING and dialect.matches(record, fields)), None)
