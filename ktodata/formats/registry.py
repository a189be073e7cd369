"""Every dialect by name, the more particular before the more general: the first that matches a record reads it."""

from difflib import get_close_matches

from ktodata.errors import SettingError
from ktodata.formats.argilla import ARGILLA
from ktodata.formats.axolotl import AXOLOTL
from ktodata.formats.dialect import Dialect
from ktodata.formats.fields import Fields
from ktodata.formats.halos import HALOS
from ktodata.formats.hh_rlhf import HH_RLHF
from ktodata.formats.label_studio import LABEL_STUDIO
from ktodata.formats.langfuse import LANGFUSE
from ktodata.formats.langsmith import LANGSMITH
from ktodata.formats.llamafactory_alpaca import LLAMAFACTORY_ALPACA
from ktodata.formats.llamafactory_sharegpt import LLAMAFACTORY_SHAREGPT
from ktodata.formats.mapping import MAPPING
from ktodata.formats.ms_swift import MS_SWIFT
from ktodata.formats.preference import PREFERENCE
from ktodata.formats.ratings import HELPSTEER, ULTRAFEEDBACK
from ktodata.formats.records import Record
from ktodata.formats.trl import TRL
from ktodata.formats.trl_paired import TRL_PAIRED

DIALECTS: dict[str, Dialect] = {
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


def dialect_named(name: str) -> Dialect:
    """The dialect of that name. Raises SettingError with the nearest name."""
    if name not in DIALECTS:
        close = get_close_matches(name, DIALECTS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SettingError(f"there is no format {name!r}.{hint} The formats are {', '.join(DIALECTS)}.")
    return DIALECTS[name]


def detect(record: Record, fields: Fields) -> Dialect | None:
    """The first dialect that a record looks like; mapping, which takes anything, is only used when it is asked for."""
    return next((dialect for dialect in DIALECTS.values() if dialect is not MAPPING and dialect.matches(record, fields)), None)
