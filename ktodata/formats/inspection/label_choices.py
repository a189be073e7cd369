"""The columns that may be the label, each value with its count: what a person needs to say what the values mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ktodata.formats.format import ENTRIES
from ktodata.formats.inspection.column_profiles import ColumnProfile
from ktodata.formats.inspection.column_roles import MAX_NAMED_VALUES, RoleCandidate, as_number, is_number
from ktodata.formats.inspection.list_places import is_vote_list
from ktodata.formats.label_rules import by_sense, commonest_first, records_of, yaml_value
from ktodata.formats.records import clip

MAX_MEANINGS = 11
MAX_FRACTIONS = 3  # more different numbers are a scale, which needs a threshold; up to MAX_MEANINGS whole and half ones are not
ONE_VALUE = "; one value only: all rows would get one label"


@dataclass(frozen=True)
class LabelChoice:
    """One column that may be the label.

    column : what the recipe's label.column must say. path : where its values are.
    values : each value with its count, the commonest first; `is_scale`: numbers that need a threshold and no meaning each.
    by : who gave it, people or models, where the format says so.
    """

    column: str
    path: str
    values: Sequence[tuple[Any, int]]
    n_values: int
    n_null: int
    is_scale: bool
    is_named: bool
    evidence: str
    by: tuple[str, ...] = ()

    def text(self) -> str:
        """The values with their counts, on one line."""
        groups = by_sense(self.values)
        listed = ", ".join(map(_group_text, groups[: self.max_shown]))
        rest = groups[self.max_shown :]
        more = f" and {len(rest):,} more in {sum(map(records_of, rest)):,} records" if rest else ""
        empty = f", empty {self.n_null:,}" if self.n_null else ""
        votes = " (records that have the value in their list)" if self.is_list else ""
        return f"{clip(self.column, 60)}: {listed}{more}{empty}{votes}{ONE_VALUE if self.has_one_value else ''}"

    @property
    def is_list(self) -> bool:
        """Whether each entry of a list is a value, and a vote; a record is counted under each that it has."""
        return is_vote_list(self.column)

    @property
    def max_shown(self) -> int:
        """How many values are listed: of a scale its beginning shows what it is."""
        return MAX_MEANINGS if self.is_scale else MAX_NAMED_VALUES

    @property
    def has_one_value(self) -> bool:
        """Whether whatever the value means, all rows get one label."""
        return len(by_sense(self.values)) == 1

    def as_dict(self) -> dict[str, Any]:
        """The choice as JSON values."""
        values = [{"value": value, "count": count} for value, count in self.values[: self.max_shown]]
        return {
            "column": self.column,
            "values": values,
            "empty": self.n_null,
            "is_scale": self.is_scale,
            "evidence": self.evidence,
        }


def _group_text(group: Sequence[tuple[Any, int]]) -> str:
    spellings = f" in {len(group):,} spellings" if len(group) > 1 else ""
    return f"{yaml_value(group[0][0])} {records_of(group):,}{spellings}"


def label_choices(
    columns: Sequence[ColumnProfile], candidates: Sequence[RoleCandidate], format_name: str | None
) -> list[LabelChoice]:
    """A choice for each candidate."""
    by_path = {column.path: column for column in columns}
    return [
        _choice(_label_column(candidate.column, format_name), by_path[candidate.column], candidate) for candidate in candidates
    ]


def _label_column(path: str, format_name: str | None) -> str:
    if format_name == "langfuse":  # a flattened trace: each column holds a list of the values of one name
        return path.removesuffix(".0").removesuffix(ENTRIES)
    return path.rpartition(".")[2] if format_name == "ultrafeedback" else path


def is_a_scale(values: Sequence[Any]) -> bool:
    """Whether values are numbers, perhaps as text, of which more differ than a meaning could be said for each."""
    numbers = {as_number(value) for value in values if is_number(value)}
    most = MAX_MEANINGS if all((2 * number).is_integer() for number in numbers) else MAX_FRACTIONS
    return len(numbers) > most and all(is_number(value) for value in values)


def are_many_numbers(values: Sequence[Any]) -> bool:
    """Whether values are numbers, more than two or three: they are listed in their order, not by how often they come."""
    return len(values) > MAX_FRACTIONS and all(map(is_number, values))


def _choice(name: str, column: ColumnProfile, candidate: RoleCandidate) -> LabelChoice:
    counts = ((value, count) for (_, value), count in column.counts.most_common())
    values = [pair for group in commonest_first(counts) for pair in group]
    is_scale = column.n_distinct is None and column.share_of("number") == 1
    is_scale = is_scale or is_a_scale([value for value, _ in values])
    if is_scale or are_many_numbers([value for value, _ in values]):
        values.sort(key=lambda pair: as_number(pair[0]))
    return LabelChoice(
        column=name,
        path=column.path,
        values=values,
        n_values=column.n_holders,
        n_null=column.n_null,
        is_scale=is_scale,
        is_named=candidate.is_named,
        evidence=candidate.evidence,
    )
