"""Whose labels follow other criteria, in words: a name alone is named only where the labels show who departs from whom."""

from collections.abc import Mapping
from typing import Any

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.people.drift import MIN_PROMPTS, MIN_ROWS, OTHERS, OVER_TIME
from ktodata.stats import Interval

DEPARTURES_SHOWN = 5
KINDS = {
    "none": "nothing",
    "offset": "another threshold",
    "slope": "follows the content otherwise",
    "inverted": "up and down look swapped",
    "change": "changed at a date",
}
ANSWERS_DIFFER = "its answers differ, not the criterion"
NOT_KNOWN = "the labels cannot show which of the two is off"


def drift_sentence(drift: Mapping[str, Any]) -> str:
    """Each departure: which group and how far, or which two differ. drift : metrics of label_noise with a significant group"""
    groups = sorted(drift["significant_groups"], key=lambda group: group.get("ruled_out", False))
    each = "; ".join(_departure_in_words(group) for group in groups[:DEPARTURES_SHOWN])
    more = f", and {len(groups) - DEPARTURES_SHOWN:,} more" if len(groups) > DEPARTURES_SHOWN else ""
    text = f"Labels differ by more than the text explains: {each}{more}. See table drift."
    if not may_be_criterion(drift):
        return text
    return (
        f"{text} Other answers than any that the text here resembles, of a new model or to harder questions, look like that, too."
    )


def may_be_criterion(drift: Mapping[str, Any]) -> int:
    """Groups whose departure may be another criterion: too few drawn rows rule that out."""
    return sum(not group.get("ruled_out") for group in drift["significant_groups"])


def beside_in_words(counterpart: str | None) -> str:
    """Beside whom a group departs, where nobody can say which of the two is off; empty where that can be said."""
    if counterpart is None:
        return ""
    return f"beside {'all others' if counterpart == OTHERS else counterpart}: {NOT_KNOWN}"


def _departure_in_words(group: Mapping[str, Any]) -> str:
    """One departure. Each name stands before a bracket, where a page without names finds it."""
    since = f", since {group['since']}" if group["since"] else ""
    kind = ANSWERS_DIFFER if group.get("ruled_out") else KINDS.get(group["kind"], group["kind"])
    how = f"{kind}{since}, {_points_in_words(group)}{_only_in_words(group['only'])}"
    first = f"{group['column']} {group['value']} ({how}"
    if (counterpart := group.get("counterpart")) is None:
        both = ("since then", "before") if group["since"] else ("by it", "by the others")
        return f"{first}{_reviews_in_words(group, both)})"
    other = "all others" if counterpart == OTHERS else f"{group['column']} {counterpart}"
    known = f"{_only_in_words(group.get('counterpart_only'))}{_reviews_in_words(group, ('by the first', 'by the second'))}"
    unknown = f"{NOT_KNOWN}{known}".removeprefix(f"{NOT_KNOWN}; ") if group.get("ruled_out") else f"{NOT_KNOWN}{known}"
    return f"{first}) beside {other} ({unknown})"


def _reviews_in_words(group: Mapping[str, Any], both: tuple[str, str]) -> str:
    """How many labels of either a random draw of reviews found wrong: counts, and no rates, as classes are drawn apart."""
    (wrong, rows), (other_wrong, other_rows) = group.get("reviewed", ((0, 0), (0, 0)))
    if not rows and not other_rows:
        return ""
    other = f"{other_wrong:,} of {other_rows:,} {both[1]}"
    return f"; of rows drawn and reviewed {wrong:,} of {rows:,} {both[0]} are wrong, {other}"


def _points_in_words(group: Mapping[str, Any]) -> str:
    """How many more or fewer rows are called desirable; where the interval holds 0 no direction is named."""
    effect = Interval(*(group.get(f"effect_points{end}") for end in ("", "_low", "_high")))
    value, low, high = effect
    if value is None or effect.includes_zero:
        return "by how many points is unknown"
    span = "" if low is None or high is None else f", {100 * low:+.0f} to {100 * high:+.0f}"
    return f"{100 * value:+.0f} points desirable{span}"


def _only_in_words(only: bool | None) -> str:
    return "" if only is None else f"; its labels are all {LABEL_NAMES[only]}, which may be how it collects, and no criterion"


def nothing_compared(drift: Mapping[str, Any], voters: int) -> str:
    """Why no group was compared with another, column by column. voters : named raters of all votes, those of repeats as well"""
    columns = drift.get("columns", {})
    if not columns:
        return "Nothing could be compared."
    why = "; ".join(f"{name}: {_why_not(name, counts, voters)}" for name, counts in columns.items())
    return f"No groups could be compared. {why}."


def _no_change_seen(counts: Mapping[str, int]) -> str:
    if not counts["rows"]:
        return "no row has a time"
    if counts["values"] == 1:
        return f"one and the same time for all {counts['rows']:,} rows that have one"
    few = counts["rows"] < MIN_ROWS
    return f"{counts['rows']:,} rows have a time, {'too few' if few else 'and no time parts them into enough'} to see a change"


def _why_not(name: str, counts: Mapping[str, int], voters: int) -> str:
    if name == OVER_TIME:
        return _no_change_seen(counts)
    own = name == "rater" and voters > counts["values"]
    also = f"; {voters:,} raters voted, but a text that several judged is one row, which counts for none of them" if own else ""
    if not counts["rows"]:
        return f"named on no row{' that one alone judged' if own else ''}{also}"
    if counts["values"] == 1:
        return f"one and the same for all {counts['rows']:,} rows that name one{also}"
    if counts["with_enough_rows"] == 0:
        return f"none of {counts['values']:,} has {MIN_ROWS} rows on {MIN_PROMPTS} prompts{also}"
    if counts["with_enough_rows"] == 1:
        return f"of {counts['values']:,} one alone has {MIN_ROWS} rows on {MIN_PROMPTS} prompts, the others too few{also}"
    return f"the labels of {counts['with_enough_rows']:,} say too little to compare them{also}"
