"""The columns that may be the label, each value with its count: what a person needs to say what the values mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ktodata.formats.inspection.column_profiles import ColumnProfile
from ktodata.formats.inspection.column_roles import RoleCandidate, is_number_text
from ktodata.formats.label_rules import yaml_value
from ktodata.formats.records import clip

MAX_MEANINGS = 11
MAX_NUMBERS_AS_WORDS = 3  # more different numbers are a scale, which needs a threshold
# formats whose verdicts are named entries: label.column is the entry's name, not a path
ENTRY_FORMATS = ("langfuse", "langsmith", "label_studio")
_ENTRY = re.compile(r"\[(?:name|key|from_name)=([^\]]*)\]")
_QUESTION = re.compile(r"^responses\.([^.]+)\.")


@dataclass(frozen=True)
class LabelChoice:
    """One column that may be the label.

    column : what the recipe's label.column must say. path : where its values are.
    values : each value with its count, the commonest first; `is_scale`: numbers that need a threshold and no meaning each.
    """

    column: str
    path: str
    values: Sequence[tuple[Any, int]]
    n_values: int
    n_null: int
    is_scale: bool
    is_named: bool
    evidence: str

    def text(self) -> str:
        """The values with their counts, on one line."""
        listed = ", ".join(f"{yaml_value(value)} {count:,}" for value, count in self.values[:MAX_MEANINGS])
        more = ", ..." if len(self.values) > MAX_MEANINGS else ""
        empty = f", empty {self.n_null:,}" if self.n_null else ""
        return f"{clip(self.column, 60)}: {listed}{more}{empty}"

    def as_dict(self) -> dict[str, Any]:
        """The choice as JSON values."""
        values = [{"value": value, "count": count} for value, count in self.values[:MAX_MEANINGS]]
        return {
            "column": self.column,
            "values": values,
            "empty": self.n_null,
            "is_scale": self.is_scale,
            "evidence": self.evidence,
        }


def label_choices(
    columns: Sequence[ColumnProfile], candidates: Sequence[RoleCandidate], format_name: str | None
) -> list[LabelChoice]:
    """A choice for each candidate; in formats of named verdicts, one for each name."""
    by_path = {column.path: column for column in columns}
    choices: dict[str, LabelChoice] = {}
    for candidate in candidates:
        column = by_path[candidate.column]
        name = _label_column(candidate.column, format_name)
        # a Langfuse score has its value twice; a category is the text, anything else the number
        if name not in choices or (
            choices[name].path.endswith(".value") and column.share_of("text") == 1 and _is_category(by_path, column)
        ):
            choices[name] = _choice(name, column, candidate)
    return list(choices.values())


def _is_category(by_path: dict[str, ColumnProfile], column: ColumnProfile) -> bool:
    entry, _, last = column.path.rpartition(".")
    types = by_path.get(f"{entry}.dataType")
    return last == "stringValue" and types is not None and (str, "CATEGORICAL") in types.counts


def _label_column(path: str, format_name: str | None) -> str:
    if format_name in ENTRY_FORMATS and (entry := _ENTRY.search(path)) is not None:
        return entry[1]
    if format_name == "argilla" and (question := _QUESTION.match(path)) is not None:
        return question[1]
    if format_name == "ultrafeedback":
        return path.rpartition(".")[2]
    return path


def _choice(name: str, column: ColumnProfile, candidate: RoleCandidate) -> LabelChoice:
    values = [(value, count) for (_, value), count in column.counts.most_common()]
    is_number = column.share_of("number") == 1 or is_number_text(column)
    is_scale = is_number and (column.n_distinct is None or column.n_distinct > MAX_NUMBERS_AS_WORDS)
    if is_scale:
        values.sort(key=lambda pair: float(str(pair[0]).replace(",", ".")))
    return LabelChoice(
        column=name,
        path=column.path,
        values=values,
        n_values=column.n_values,
        n_null=column.n_null,
        is_scale=is_scale,
        is_named=candidate.is_named,
        evidence=candidate.evidence,
    )
