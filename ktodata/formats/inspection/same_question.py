"""Which columns are answers of several raters to one question: seen by how far they agree, record by record."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import Any, NamedTuple

import polars as pl

from ktodata.formats.inspection.column_roles import as_number, is_number
from ktodata.formats.inspection.label_choices import LabelChoice
from ktodata.formats.records import ABSENT, lookup

SURE = 2.0  # standard errors above chance from which two columns agree, and below it from which they are contrary
FEW = 20  # records below which agreement that is near chance says nothing


@dataclass(frozen=True)
class SameQuestion:
    """choices : columns that may be raters' answers to one question; evidence : in words, why they may be. aside : columns with
    the same values that do not agree with them: another question, or a rater who guesses or errs.
    """

    choices: tuple[LabelChoice, ...]
    evidence: str
    aside: tuple[str, ...] = ()


class ColumnAgreement(NamedTuple):
    """Of two columns: records in which both have a value, in how many it is the same, how many would be by chance, and by how
    many standard errors they agree more than that; None where one of them never differs.
    """

    records: int
    same: int
    by_chance: float
    errors: float | None

    @property
    def is_open(self) -> bool:
        """Whether the values do not tell."""
        return self.errors is None or (self.records < FEW and abs(self.errors) < SURE)


def same_questions(choices: Sequence[LabelChoice], records: Sequence[Mapping[str, Any]]) -> list[SameQuestion]:
    """The groups of these columns in which each agrees with each more than by chance; where values do not tell, names decide."""
    columns = [choice for choice in choices if not choice.by]
    values = {choice.path: [_comparable(lookup(record, choice.path)) for record in records] for choice in columns}
    columns = [choice for choice in columns if any(value is not None for value in values[choice.path])]
    pairs = {
        (one.path, other.path): _column_agreement(values[one.path], values[other.path]) for one, other in combinations(columns, 2)
    }
    groups: list[list[LabelChoice]] = []
    for choice in columns:
        fitting = (group for group in groups if all(_are_alike(one, choice, pairs[one.path, choice.path]) for one in group))
        if (group := next(fitting, None)) is None:
            groups.append([choice])
        else:
            group.append(choice)
    questions = [group for group in groups if len(group) > 1 and _share_values(group)]
    grouped = {choice.path for group in questions for choice in group}
    others = [choice for choice in columns if choice.path not in grouped]
    return [SameQuestion(tuple(group), _evidence(group, pairs), _with_the_same_values(group, others)) for group in questions]


def _share_values(group: Sequence[LabelChoice]) -> bool:
    """Whether each has a value that another has, too."""
    values = [_values_of(choice) for choice in group]
    return all(of_one & set().union(*values[:at], *values[at + 1 :]) for at, of_one in enumerate(values))


def _values_of(choice: LabelChoice) -> set[Any]:
    return {_comparable(value) for value, _ in choice.values}


def _with_the_same_values(group: Sequence[LabelChoice], others: Sequence[LabelChoice]) -> tuple[str, ...]:
    values = set[Any]().union(*map(_values_of, group))
    return tuple(choice.column for choice in others if _values_of(choice) == values)


def _comparable(value: Any) -> Any:
    """A short value as it is compared; None where there is none."""
    if value is ABSENT or value is None or isinstance(value, list | Mapping):
        return None
    return as_number(value) if is_number(value) else str(value).strip().casefold() or None


def _column_agreement(one: Sequence[Any], other: Sequence[Any]) -> ColumnAgreement:
    both = [pair for pair in zip(one, other, strict=True) if None not in pair]
    same, n = sum(left == right for left, right in both), len(both)
    left, right = (Counter(side) for side in zip(*both, strict=True)) if both else (Counter(), Counter())
    chance = sum(count * right[value] for value, count in left.items()) / n**2 if n else 0.0
    if min(len(left), len(right)) < 2:
        return ColumnAgreement(n, same, chance, None)
    if len({*left, *right}) > 2 and all(is_number(value) for value in (*left, *right)):
        ranks = pl.DataFrame(both, schema=["left", "right"], orient="row")
        likeness = ranks.select(pl.corr("left", "right", method="spearman")).item()
        return ColumnAgreement(n, same, chance, likeness * sqrt(n - 1))
    return ColumnAgreement(n, same, chance, (same / n - chance) / sqrt(chance * (1 - chance) / n) if 0 < chance < 1 else None)


def _are_alike(one: LabelChoice, other: LabelChoice, agreement: ColumnAgreement) -> bool:
    if one.is_scale != other.is_scale:
        return False
    if agreement.is_open:
        return _differ_in_one_word(one.column, other.column)
    return agreement.errors is not None and agreement.errors >= SURE


def _differ_in_one_word(*names: str) -> bool:
    one, other = (name.split("_") for name in names)
    return len(one) == len(other) > 1 and sum(left != right for left, right in zip(one, other, strict=True)) == 1


def _evidence(group: Sequence[LabelChoice], pairs: Mapping[tuple[str, str], ColumnAgreement]) -> str:
    compared = [pairs[one.path, other.path] for one, other in combinations(group, 2)]
    if any(pair.is_open for pair in compared):
        return "their names differ in one word; that they answer one question their values do not show"
    n = sum(pair.records for pair in compared)
    chance = sum(pair.by_chance * pair.records for pair in compared) / n
    return f"two of them say the same in {sum(pair.same for pair in compared) / n:.0%} of cases, {chance:.0%} would by chance"
