"""Verdicts that a format keeps by name, or on its turns: what it would ask for is what there is to choose from."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ktodata.formats.dialects import detect_format
from ktodata.formats.format import Fields
from ktodata.formats.inspection.column_roles import as_number
from ktodata.formats.inspection.label_choices import LabelChoice, are_many_numbers, is_a_scale
from ktodata.formats.records import UnusableError
from ktodata.formats.scores import Score, UnaskedVerdictError


def verdict_choices(records: Sequence[Mapping[str, Any]]) -> list[LabelChoice]:
    """A choice for each name of a verdict in records whose formats ask which of them is the label."""
    counts: dict[str, Counter[tuple[type, Any]]] = defaultdict(Counter)
    givers: dict[str, set[str]] = defaultdict(set)
    holders: Counter[str] = Counter()
    for record in records:
        scores = [score for score in _scores(record) if isinstance(score.value, str | bool | int | float)]
        holders.update({score.name for score in scores})
        for score in scores:
            counts[score.name][type(score.value), score.value] += 1
            givers[score.name].add(score.by)
    return [_choice(name, of_name, sorted(givers[name]), len(records) - holders[name]) for name, of_name in counts.items()]


def _scores(record: Mapping[str, Any]) -> Iterable[Score]:
    """What the format of a record would list of it, were no label named."""
    format = detect_format(record, Fields())
    try:
        if format is not None:
            format.read(record, Fields())
    except UnaskedVerdictError as unasked:
        return unasked.scores
    except UnusableError:
        pass
    return ()


def _choice(name: str, counts: Counter[tuple[type, Any]], by: list[str], n_null: int) -> LabelChoice:
    values = [(value, count) for (_, value), count in counts.most_common()]
    is_scale = is_a_scale([value for value, _ in values])
    if are_many_numbers([value for value, _ in values]):
        values.sort(key=lambda pair: as_number(pair[0]))
    given = f"given by {' and '.join(by)}; {len(values):,} different value{'s' * (len(values) != 1)}"
    return LabelChoice(name, name, values, counts.total(), n_null, is_scale, True, given, tuple(by))
