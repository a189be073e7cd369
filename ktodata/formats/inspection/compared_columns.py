"""Two columns of answers that are told apart by a side only, which a label compares."""

import re
from collections.abc import Sequence

from ktodata.formats.dialects.label_studio import LABEL_STUDIO
from ktodata.formats.dialects.preference import PREFERENCE
from ktodata.formats.inspection.column_profiles import ColumnProfile, column_at
from ktodata.formats.inspection.column_roles import MIN_SHARE, names_role

_SIDE = re.compile(r"(.+?)_?(a|b|1|2|left|right|first|second)(\.content|\.text)?", re.IGNORECASE)
_OTHER_SIDE = {"a": "b", "1": "2", "left": "right", "first": "second"}


def compared_columns(columns: Sequence[ColumnProfile], format: str | None) -> tuple[str, str] | None:
    """The two, as answer_a and answer_b, or response1 and response2.

    None where another format reads the records; Label Studio's knows no two answers.
    """
    if format not in (None, PREFERENCE.name, LABEL_STUDIO.name):
        return None
    sides: dict[str, dict[str, str]] = {}
    for column in columns:
        match = _SIDE.fullmatch(column.path)
        if match and "[" not in column.path and column.share_of("text", "turn", "conversation") > MIN_SHARE:
            sides.setdefault(f"{match[1]}{match[3] or ''}", {})[match[2].lower()] = column.path
    for stem, paths in sides.items():
        side = next((side for side in _OTHER_SIDE if side in paths and _OTHER_SIDE[side] in paths), None)
        if side is None:
            continue
        two = paths[side], paths[_OTHER_SIDE[side]]
        is_answer = names_role(stem.removesuffix(".content").removesuffix(".text"), "completion")
        if is_answer or all(is_conversation(columns, path) for path in two):
            return two
    return None


def is_conversation(columns: Sequence[ColumnProfile], path: str) -> bool:
    """Whether a column holds whole conversations that end with an answer."""
    column = column_at(columns, path)
    return column.share_of("conversation") > MIN_SHARE and column.n_assistant_last > MIN_SHARE * column.n_values
