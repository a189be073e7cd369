"""Which columns are answers of several raters to one question: seen by how far they agree, record by record."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import polars as pl

from ktodata.formats.inspection.column_roles import as_number, is_number
from ktodata.formats.inspection.label_choices import LabelChoice
from ktodata.formats.records import ABSENT, lookup

CHANCE = 0.05  # that of unrelated columns any two seem to agree, or to be contrary
CONTRARY = -2.0  # standard errors from which a name counts no more
FEW = 20  # records below which agreement that is near chance says nothing
VARIANCE_FLOOR = 3.0  # below it one or two records with a rare value would decide

BY_NAME = "their names differ in one word; that they answer one question their values do not show"

Group = tuple[int, ...]  # places of columns


@dataclass(frozen=True)
class SameQuestion:
    """choices : columns that may be raters' answers to one question; evidence : in words, why they may be. aside : columns with
    the same values of which these do not show that they answer it, too.
    """

    choices: tuple[LabelChoice, ...]
    evidence: str
    aside: tuple[str, ...] = ()


class PairAgreement(NamedTuple):
    """Of two columns, or summed over pairs: records in which both have a value, in how many it is the same, in how many it would
    be by chance, how much more they agree, and the variance of that in unrelated columns (0 where one never differs).
    """

    records: float
    same: float
    by_chance: float
    excess: float
    variance: float

    @property
    def errors(self) -> float:
        """By how many standard errors they agree more than by chance."""
        return self.excess / sqrt(max(self.variance, VARIANCE_FLOOR))


def same_questions(choices: Sequence[LabelChoice], records: Sequence[Mapping[str, Any]]) -> list[SameQuestion]:
    """The groups of these columns that agree more than by chance; where values do not tell, names decide."""
    columns = [choice for choice in choices if not choice.by]
    compared = _AnswerColumns(columns, [[_comparable(lookup(record, choice.path)) for record in records] for choice in columns])
    by_value = _merged([(at,) for at in range(len(columns))], compared.likeness)
    questions = [group for group in _merged(by_value, compared.likeness_of_names) if len(group) > 1]
    others = sorted(set(range(len(columns))).difference(*questions))
    return [compared.question(group, others, BY_NAME if group not in by_value else "") for group in questions]


def _merged(groups: Sequence[Group], likeness: Callable[[Group, Group], float]) -> list[Group]:
    """The groups; again and again the two that are most alike become one, while two are alike (above 0)."""
    groups = list(groups)
    while alike := {two: value for two in combinations(groups, 2) if (value := likeness(*two)) > 0}:
        one, other = max(alike, key=alike.__getitem__)
        groups = sorted([*(group for group in groups if group not in (one, other)), tuple(sorted(one + other))])
    return groups


class _AnswerColumns:
    """Columns, each with each. Groups are compared by all pairs between them, as two raters may share few records."""

    def __init__(self, columns: Sequence[LabelChoice], answers: Sequence[Sequence[Any]]) -> None:
        self.columns, self.answers = columns, answers
        self._values = [{_comparable(value) for value, _ in choice.values} for choice in columns]
        self._pairs = {two: _agreement(*(answers[at] for at in two)) for two in combinations(range(len(columns)), 2)}
        n_compared = sum(pair.variance > 0 for pair in self._pairs.values())
        self._line = NormalDist().inv_cdf(1 - CHANCE / 2 / max(n_compared, 1))

    def likeness(self, one: Group, other: Group) -> float:
        """By how much two groups agree more than any two of so many columns would by chance."""
        return self._pooled(product(one, other)).errors - self._line if self._can_be_one(one, other) else 0.0

    def likeness_of_names(self, one: Group, other: Group) -> float:
        """1 where values do not tell, and the names of two groups differ in one word."""
        names = all(_differ_in_one_word(*(self.columns[at].column for at in pair)) for pair in product(one, other))
        pooled = self._pooled(product(one, other))
        is_open = pooled.variance == 0 or (pooled.records < FEW and pooled.errors > CONTRARY)
        return float(names and is_open and self._can_be_one(one, other))

    def question(self, group: Group, others: Sequence[int], evidence: str) -> SameQuestion:
        """What is said of a group; without other evidence, how far it agrees."""
        same_values = self._values_of(group)
        aside = tuple(self.columns[at].column for at in others if self._values[at] == same_values)
        pooled = self._pooled(combinations(group, 2))
        n = sum(len(row) - row.count(None) > 1 for row in zip(*(self.answers[at] for at in group), strict=True))
        shares = [f"{count / max(pooled.records, 1):.0%}" for count in (pooled.same, pooled.by_chance)]
        seen = f"two of them say the same in {shares[0]} of cases, {shares[1]} would by chance; in {n:,} records"
        return SameQuestion(tuple(self.columns[at] for at in group), evidence or seen, aside)

    def _pooled(self, pairs: Iterable[tuple[int, int]]) -> PairAgreement:
        return PairAgreement(*map(sum, zip(*(self._pairs[min(two), max(two)] for two in pairs), strict=True)))

    def _can_be_one(self, one: Group, other: Group) -> bool:
        is_scale = [self.columns[group[0]].is_scale for group in (one, other)]
        return is_scale[0] == is_scale[1] and not self._values_of(one).isdisjoint(self._values_of(other))

    def _values_of(self, group: Group) -> set[Any]:
        return set().union(*(self._values[at] for at in group))


def _comparable(value: Any) -> Any:
    """A short value as it is compared; None where there is none."""
    if value is ABSENT or value is None or isinstance(value, list | Mapping):
        return None
    return as_number(value) if is_number(value) else str(value).strip().casefold() or None


def _agreement(one: Sequence[Any], other: Sequence[Any]) -> PairAgreement:
    """Of numbers their ranks are compared. The variance: Fleiss, Cohen, Everitt 1969, of kappa's numerator."""
    both = [pair for pair in zip(one, other, strict=True) if None not in pair]
    same, n = sum(left == right for left, right in both), len(both)
    left, right = (Counter(side) for side in zip(*both, strict=True)) if both else (Counter(), Counter())
    chance = sum(count * right[value] for value, count in left.items()) / n**2 if n else 0.0
    if min(len(left), len(right)) < 2:
        return PairAgreement(n, same, chance * n, 0.0, 0.0)
    if len({*left, *right}) > 2 and all(is_number(value) for value in (*left, *right)):
        ranks = pl.DataFrame(both, schema=["left", "right"], orient="row")
        likeness = ranks.select(pl.corr("left", "right", method="spearman")).item()
        return PairAgreement(n, same, chance * n, likeness * (n - 1), n - 1)
    apart = sum(count * right[value] * (count + right[value]) for value, count in left.items()) / n**3
    return PairAgreement(n, same, chance * n, same - chance * n, n * max(chance + chance**2 - apart, 0.0))


def _differ_in_one_word(*names: str) -> bool:
    one, other = (name.split("_") for name in names)
    return len(one) == len(other) > 1 and sum(left != right for left, right in zip(one, other, strict=True)) == 1
