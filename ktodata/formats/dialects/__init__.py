"""Every format by name, the more particular before the more general: the first that matches a record reads it."""

from difflib import get_close_matches

from ktodata.errors import SettingError
from ktodata.formats.dialects.argilla import ARGILLA
from ktodata.formats.dialects.axolotl import AXOLOTL
from ktodata.formats.dialects.halos import HALOS
from ktodata.formats.dialects.hh_rlhf import HH_RLHF
from ktodata.formats.dialects.judged_turns import JUDGED_TURNS
from ktodata.formats.dialects.label_studio import LABEL_STUDIO
from ktodata.formats.dialects.llamafactory import LLAMAFACTORY_ALPACA, LLAMAFACTORY_SHAREGPT
from ktodata.formats.dialects.mapping import MAPPING
from ktodata.formats.dialects.ms_swift import MS_SWIFT, MS_SWIFT_PAIRED
from ktodata.formats.dialects.preference import PREFERENCE
from ktodata.formats.dialects.provider_pairs import OPENAI_PREFERENCE, VERTEX_PREFERENCE
from ktodata.formats.dialects.ratings import HELPSTEER, ULTRAFEEDBACK
from ktodata.formats.dialects.traces.langfuse import LANGFUSE
from ktodata.formats.dialects.traces.langsmith import LANGSMITH
from ktodata.formats.dialects.traces.mlflow import MLFLOW
from ktodata.formats.dialects.traces.phoenix import PHOENIX
from ktodata.formats.dialects.trees import OASST, OPEN_WEBUI
from ktodata.formats.dialects.trl import TRL, TRL_PAIRED
from ktodata.formats.format import Fields, Format
from ktodata.formats.records import Record, UnusableError, listed

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        HALOS,
        OPEN_WEBUI,
        OASST,
        LABEL_STUDIO,
        ARGILLA,
        PHOENIX,
        MLFLOW,
        LANGSMITH,
        LANGFUSE,
        OPENAI_PREFERENCE,
        VERTEX_PREFERENCE,
        MS_SWIFT_PAIRED,
        ULTRAFEEDBACK,
        HELPSTEER,
        AXOLOTL,
        TRL,
        HH_RLHF,
        TRL_PAIRED,
        PREFERENCE,
        LLAMAFACTORY_ALPACA,
        JUDGED_TURNS,
        MS_SWIFT,
        LLAMAFACTORY_SHAREGPT,
        MAPPING,
    )
}


def format_named(name: str) -> Format:
    """The format of that name. Raises SettingError with the nearest name."""
    if name not in FORMATS:
        close = get_close_matches(name, FORMATS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SettingError(f"there is no format {name!r}.{hint} The formats are {', '.join(FORMATS)}.")
    return FORMATS[name]


def detect_format(record: Record, fields: Fields) -> Format | None:
    """The first format that a record looks like; mapping, which takes anything, is only used when it is asked for."""
    return next((format for format in FORMATS.values() if format is not MAPPING and format.matches(record, fields)), None)


def format_of(record: Record, fields: Fields, format: Format | None) -> Format:
    """The format of a record: the first that it looks like, or the one that was chosen. Raises UnusableError where it is not."""
    if format is None:
        if (detected := detect_format(record, fields)) is None:
            raise UnusableError("unknown_format", f"the record looks like no known format; it has {listed(record)}")
        return detected
    # where the user names the columns, the format's own `read` says which of them is missing
    if not format.takes_columns and not format.matches(record, fields):
        other = detect_format(record, fields)
        like = f"looks like {other.name}" if other else f"has {listed(record)}"
        raise UnusableError("other_format", f"not {format.name}: the record {like}")
    return format
