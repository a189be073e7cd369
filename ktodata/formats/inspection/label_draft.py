"""What the label may be, as settings of a recipe: each value with its count, and a meaning for a person to put in."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ktodata.formats.inspection.column_roles import MAX_NAMED_VALUES
from ktodata.formats.inspection.draft_lines import UNDECIDED, setting_line, with_comment, yaml_value
from ktodata.formats.inspection.label_choices import ONE_VALUE, LabelChoice
from ktodata.formats.inspection.list_places import MAX_LIST_ITEMS
from ktodata.formats.inspection.text_draft import is_paired
from ktodata.formats.label_rules import by_sense, records_of
from ktodata.formats.records import clip

if TYPE_CHECKING:
    from ktodata.formats.inspection.inspection import Inspection

MEANINGS = "true (desirable), false (undesirable) or null (no label)"
SIDES = "first, second, tie or null (no label)"


def drafted_label(inspection: "Inspection") -> LabelChoice | None:
    """The only column that may be the label, or the only one whose name speaks for it; else a person says which."""
    named = [choice for choice in inspection.labels if choice.is_named]
    clear = next((choices for choices in (named, inspection.labels) if len(choices) == 1), None)
    return None if clear is None else clear[0]


def label_lines(inspection: "Inspection") -> Iterator[str]:
    """The lines of `ingest:` about the label: the likeliest column, and the others as comments."""
    if is_paired(inspection):
        yield "  # label: none is needed; the format itself says which of two answers is better"
        return
    if not inspection.labels:
        yield "  label:"
        yield setting_line("column", UNDECIDED, "which column is the verdict? None has the few values of one", 4)
        return
    best = drafted_label(inspection)
    yield f"  # What does each value mean? Put {SIDES if inspection.compared else MEANINGS} in place of {UNDECIDED}."
    yield "  # No meaning is taken from a name or a type; the run refuses the recipe until it is said."
    if best is not None:
        yield from _choice_lines(best)
    else:
        yield "  label:"
        yield setting_line("column", UNDECIDED, "several columns may be the verdict; take one of these", 4)
    for choice in inspection.labels:
        if choice is not best:
            yield f"  # or, from the column {clip(choice.column, 60)} ({choice.evidence}):"
            yield from (f"  # {line[2:]}" for line in _choice_lines(choice))
    if len(inspection.labels) > 1 and not any(choice.by for choice in inspection.labels):
        yield "  # or, where you trust one of these more than the label, as people beside a judge: trusted in place of label"
    yield from _vote_lines(inspection)


def _choice_lines(choice: LabelChoice) -> Iterator[str]:
    indent = "    "
    if choice.is_list:
        which = f"{choice.evidence}; {choice.n_null:,} empty. Most decide: right where all answer one question"
        yield setting_line("votes", [choice.column], which)
        yield "  label:"
        yield from _meaning_lines(choice, indent)
        return
    yield "  label:"
    yield setting_line(
        "column",
        choice.column,
        f"{choice.evidence}; {choice.n_null:,} empty{ONE_VALUE if choice.has_one_value else ''}",
        len(indent),
    )
    if len(choice.by) > 1:
        yield setting_line("by", UNDECIDED, "people and models have both given it: people, models or both", len(indent))
    yield from _meaning_lines(choice, indent)


def _meaning_lines(choice: LabelChoice, indent: str) -> Iterator[str]:
    """A meaning for each value, or a threshold. What is one key to YAML (1 and true) stands in a list of pairs."""
    if choice.is_scale:
        counts = ", ".join(f"{value}: {count:,}" for value, count in _spread(choice))
        yield setting_line("at_least", UNDECIDED, f"the lowest number that is desirable; values: {counts}", len(indent))
        yield with_comment(f"{indent}# desirable_at_most: {UNDECIDED}", "in its place, where low is good")
        return
    groups = by_sense(choice.values)
    merged = [(group[0][0], group) for group in groups[:MAX_NAMED_VALUES]]
    is_one_key = len({value for value, _ in merged}) < len(merged)
    if is_one_key:
        yield with_comment(f"{indent}values:", "in pairs: 1 and true are one key in YAML")
    for value, of_value in merged:
        text = _counts_text(of_value)
        if is_one_key:
            yield with_comment(f"{indent}  - {yaml_value([value, UNDECIDED])}", text)
        else:
            yield setting_line(yaml_value(value), UNDECIDED, text, len(indent))
    if rest := groups[MAX_NAMED_VALUES:]:
        yield f"{indent}# and {len(rest):,} more values in {sum(map(records_of, rest)):,} records"


def _counts_text(counts: Sequence[tuple[Any, int]]) -> str:
    total = records_of(counts)
    kinds = f", {' and '.join(f'{yaml_value(value)} {count:,}' for value, count in counts)}" if len(counts) > 1 else ""
    return f"{total:,} {'record' if total == 1 else 'records'}{kinds}"


def _spread(choice: LabelChoice) -> list[tuple[Any, int]]:
    """All values of a short scale; of a long one, some from end to end."""
    step = max(len(choice.values) // 10, 1)
    return [choice.values[at] for at in range(0, len(choice.values), step)]


def _vote_lines(inspection: "Inspection") -> Iterator[str]:
    """Columns that may be raters' answers to one question."""
    for question in inspection.questions:
        columns = [choice.column for choice in question.choices]
        yield "  # or, where each of these columns is one rater's answer to one question, as votes, of which most decide"
        yield f"  # ({question.evidence}):"
        if any(str(MAX_LIST_ITEMS - 1) in choice.path.split(".") for choice in question.choices):
            yield f"  # of a list {MAX_LIST_ITEMS} entries were looked at: where it has more, add theirs"
        if question.aside:
            names = ", ".join(clip(name, 60) for name in question.aside)
            yield f"  # not among them: {names}, with the same values, which do not show that the question is the same;"
            yield "  # a rater of it may be added"
        yield f"  # votes: {yaml_value(columns)}"
        yield "  # label:"
        counts: Counter[tuple[type, Any]] = Counter()
        for choice in question.choices:
            counts.update({(type(value), value): count for value, count in choice.values})
        pooled = [(value, count) for (_, value), count in counts.most_common()]
        yield from (f"  # {line[2:]}" for line in _meaning_lines(replace(question.choices[0], values=pooled), "    "))
