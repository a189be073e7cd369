"""Where prompt and completion are, as settings of a recipe: a format that knows, or columns."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ktodata.formats.dialects import FORMATS
from ktodata.formats.dialects.argilla import ARGILLA
from ktodata.formats.dialects.judged_turns import EACH, JUDGED_TURNS
from ktodata.formats.dialects.preference import PREFERENCE
from ktodata.formats.inspection.column_profiles import ColumnProfile, column_at
from ktodata.formats.inspection.column_roles import Role, RoleCandidate
from ktodata.formats.inspection.compared_columns import is_conversation
from ktodata.formats.inspection.draft_lines import UNDECIDED, setting_line, with_comment
from ktodata.formats.inspection.message_table import table_lines
from ktodata.formats.records import clip

if TYPE_CHECKING:
    from ktodata.formats.inspection.inspection import Inspection

TEXT_ROLES: tuple[Role, ...] = ("prompt", "completion")


def text_lines(inspection: "Inspection") -> Iterator[str]:
    """The lines of `ingest:` that say where the texts are."""
    if compared := inspection.compared:
        yield setting_line("format", PREFERENCE.name, "two answers, and which is better")
        if not all(is_conversation(inspection.columns, path) for path in compared):
            yield from _column_lines(inspection, "prompt")
        yield setting_line("completion", list(compared), "the two answers; the label says which is better")
    elif inspection.format is not None and not inspection.has_json_text:
        yield from _format_lines(inspection)
    elif inspection.message_table is not None:
        yield from _message_lines(inspection)
    elif (best := _conversation_with_answer(inspection)) is not None:
        yield setting_line("messages", best.column, best.evidence)
        yield from _judged_lines(inspection, best.column)
    else:
        yield from _column_lines(inspection, "prompt")
        yield from _column_lines(inspection, "completion")


def _conversation_with_answer(inspection: "Inspection") -> RoleCandidate | None:
    """The column of conversations that hold the judged answer: they end with one, or hold one and no other column does."""
    if inspection.roles["messages"]:
        return inspection.roles["messages"][0]
    prompts = [each for each in inspection.roles["prompt"] if _is_conversation_column(column_at(inspection.columns, each.column))]
    others = {each.column for each in inspection.roles["completion"]} - {each.column for each in prompts}
    holds_answer = prompts and column_at(inspection.columns, prompts[0].column).n_with_answer > 0
    return prompts[0] if holds_answer and not others else None


def _is_conversation_column(column: ColumnProfile) -> bool:
    """Whether a value of it is a conversation."""
    return column.share_of("conversation", "conversation as JSON text") > 0


def _format_lines(inspection: "Inspection") -> Iterator[str]:
    """The format; auto where the records look like several, or where the label may stand on the turns."""
    formats = inspection.format_shares
    is_on_turns = any(EACH in choice.column for choice in inspection.labels) and inspection.format != JUDGED_TURNS.name
    if len(formats) > 1 or is_on_turns:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in formats.items())
        yield setting_line("format", "auto", f"each record is read in the first format that it looks like: {listed}")
    else:
        summary = clip(FORMATS[str(inspection.format)].summary, 90)
        share = f"{inspection.format_share:.0%} of the records look like it"
        yield setting_line("format", inspection.format, f"{share}: {summary}")
        if inspection.format == ARGILLA.name:
            yield from _field_lines(inspection)
    by_turns = is_on_turns or inspection.format == JUDGED_TURNS.name
    candidate = next(iter(inspection.roles["messages"]), None) if by_turns else _conversation_with_answer(inspection)
    if candidate is not None and not is_paired(inspection):
        yield from _judged_lines(inspection, candidate.column)


def _field_lines(inspection: "Inspection") -> Iterator[str]:
    """The fields of Argilla's records that hold the texts, where they are not called prompt and completion."""
    paths = {column.path for column in inspection.columns}
    place = "fields." if any(path.startswith("fields.") for path in paths) else ""
    for role in TEXT_ROLES if not {f"{place}{role}" for role in TEXT_ROLES} <= paths else ():
        of_role = [candidate for candidate in inspection.roles[role] if candidate.column.startswith(place)]
        named = next((candidate for candidate in of_role if candidate.is_named), None)
        fields = ", ".join(clip(candidate.column.removeprefix(place), 40) for candidate in of_role)
        if named is not None:
            yield setting_line(role, named.column.removeprefix(place), named.evidence)
        else:
            yield setting_line(role, UNDECIDED, f"which field? {fields or 'none looks like it'}")


def is_paired(inspection: "Inspection") -> bool:
    """Whether the format of every record says itself which of two answers is better."""
    names = inspection.format_shares
    return bool(names) and all(FORMATS[name].group == "pair_id" and name != PREFERENCE.name for name in names)


def _judged_lines(inspection: "Inspection", path: str) -> Iterator[str]:
    """Conversations that go on after their last answer are set aside, unless it is said that this answer is judged: where all
    go on, it can be no other.
    """
    column = column_at(inspection.columns, path)
    n_on = column.types["conversation"] + column.types["conversation as JSON text"] - column.n_assistant_last
    if n_on and not column.n_assistant_last:
        yield setting_line(
            "judged", "last_assistant", "no conversation ends with an answer: the last one in it; what follows is not kept"
        )
    elif n_on:
        go_on = "1 conversation goes" if n_on == 1 else f"{n_on:,} conversations go"
        yield with_comment("  # judged: last_assistant", f"{go_on} on after the last answer: set aside, unless it is judged")


def _message_lines(inspection: "Inspection") -> Iterator[str]:
    assert inspection.message_table is not None
    yield "  # Each record is one message. Each answer becomes a row with what was said before it."
    yield "  conversation:"
    for name, value, evidence in table_lines(inspection.message_table):
        yield setting_line(name, value, evidence, 4)


def _column_lines(inspection: "Inspection", role: Role) -> Iterator[str]:
    candidates = inspection.roles[role]
    taken = {candidate.column for candidate in inspection.roles["prompt"][:1] if role == "completion"}
    best = next((candidate for candidate in candidates if candidate.column not in taken), None)
    if best is not None and role == "prompt" and _holds_json_text(inspection, best.column):
        yield setting_line("messages", best.column, f"{best.evidence}: the turns before the judged answer")
    elif best is not None and best.is_named:
        yield setting_line(role, best.column, best.evidence)
    else:
        options = ", ".join(clip(each.column, 40) + (f" ({each.place})" if each.place else "") for each in candidates)
        yield setting_line(role, UNDECIDED, f"which column? {options or 'none looks like it'}")


def _holds_json_text(inspection: "Inspection", path: str) -> bool:
    column = column_at(inspection.columns, path)
    return column.share_of("conversation as JSON text") > 0
