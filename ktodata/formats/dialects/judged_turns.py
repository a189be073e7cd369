"""A conversation whose verdicts stand on its turns: each judged answer becomes a row with the turns before it.

Where they stand is said by the label's column: `label: {column: "messages[].rating", 1: true, -1: false}`. A turn without a
verdict gives no row. Rater, time and model may stand on the turns too: `rater: "messages[].user"`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ktodata.formats.file_types.strict_json import parse_json_text
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.records import (
    ABSENT,
    LabelledCompletion,
    Record,
    Turn,
    UnusableError,
    Verdict,
    Vote,
    lookup,
    need,
    need_list,
    place_in,
)
from ktodata.formats.scores import PEOPLE, Score, UnaskedVerdictError
from ktodata.formats.times import time_reader
from ktodata.formats.turns import answer_turn, row_turns, turns_of

EACH = "[]."
LISTS = ("messages", "conversations")
# what a verdict on a turn is called in known exports: enough to ask which it is, never to read it
USUAL_VERDICTS = ("rating", "score", "label", "feedback", "vote", "thumb", "thumbs", "annotation", "reaction", "liked")
OTHER_LABELS = ("label", "kto_tag", "chosen")


def matches(record: Record, fields: Fields) -> bool:
    column = fields.label.column or ""
    if EACH in column:
        return isinstance(lookup(record, column.partition(EACH)[0]), list | str)
    is_labelled = any(name in record for name in OTHER_LABELS) or fields.has_label(record)
    return not is_labelled and any(True for _ in _turn_verdicts(record))


def _turn_verdicts(record: Record) -> Iterable[Score]:
    for column in LISTS:
        entries = record.get(column)
        for entry in entries if isinstance(entries, list) else ():
            for name in USUAL_VERDICTS if isinstance(entry, Mapping) else ():
                if (value := entry.get(name)) not in (None, "", [], {}):
                    yield Score(f"{column}{EACH}{name}", value, PEOPLE)


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """A conversation whose verdicts stand on its turns, asked for by a path: label: {column: "messages[].rating", ...}."""
    if EACH not in (fields.label.column or ""):
        raise UnaskedVerdictError(
            "the verdicts stand on the turns, and which is the label is not said", list(_turn_verdicts(record))
        )
    column, _, field = str(fields.label.column).partition(EACH)
    named = {
        name: paths[0].removeprefix(column + EACH) for name, paths in fields.about.items() if paths[0].startswith(column + EACH)
    }
    turns: list[Turn] = []
    judged: list[LabelledCompletion] = []
    not_kept: list[str] = []
    for item in need_list(parse_json_text(need(record, column), column), column):
        verdict = _verdict(item, field, named, fields)
        *before, turn = turns_of([_without(item, [field, *named.values()])], column)
        turns += before
        if verdict is not None and turn["role"] != "assistant":
            not_kept.append(f"a {turn['role']} turn's {field}")
        elif verdict is not None:
            if not turns:
                raise UnusableError("no_prompt", f"{column} begins with an answer that is judged")
            about = {name: _value(item, path) for name, path in named.items() if name != "created_at"}
            judged.append(LabelledCompletion(list(turns), turn, verdict, about))
        turns.append(turn)
    if not judged:
        raise UnusableError("unlabelled", f"no answer in {column} has a {field}")
    judged[0].not_kept = not_kept
    return judged


def _verdict(item: Any, field: str, named: Mapping[str, str], fields: Fields) -> Verdict | None:
    value = _value(item, field)
    if value is None or value == "" or (label := fields.label.truth(value, {})) is None:
        return None
    verdict = Verdict(label, rating=None if fields.label.threshold is None else fields.label.rating(value))
    if "created_at" not in named:
        return verdict
    rater = _value(item, named["rater"]) if "rater" in named else None
    vote = Vote(None if rater is None else str(rater), label, _time(item, named["created_at"], fields))
    return verdict._replace(votes=[vote])


def _time(item: Any, path: str, fields: Fields) -> Any:
    value = _value(item, path)
    return value if value is None or fields.time_format is None else time_reader(fields.time_format)(value) or value


def _value(item: Any, path: str) -> Any:
    value = lookup(item, path)
    return None if value is ABSENT else value


def _without(item: Any, paths: Sequence[str]) -> Any:
    """A turn without what the settings have read of it, so that it is not counted as lost."""
    if not isinstance(item, Mapping):
        return item
    left = dict(item)
    for path in paths:
        if path in left:
            left.pop(path)
            continue
        name, _, rest = path.partition(".")
        inside = left.pop(name, None)
        if rest and isinstance(inside, Mapping):
            left |= {f"{name}.{key}": value for key, value in _without(inside, [rest]).items()}
        if rest and isinstance(inside, list):  # one entry of several: what the others say is read by nothing
            place = place_in(inside, rest.partition(".")[0])
            left[name] = [entry for at, entry in enumerate(inside) if at != place]
    return left


def write(rows: Sequence[Row]) -> dict[str, Any]:
    answer = answer_turn(rows[0])
    return {"messages": [*row_turns(rows[0]), {**answer, "rating": 1 if rows[0]["label"] else -1}]}


JUDGED_TURNS = Format(
    name="judged_turns",
    matches=matches,
    read=read,
    write=write,
    holds=CONVERSATION,
    example={
        "messages": [
            {"role": "user", "content": "What colour is the sky?"},
            {"role": "assistant", "content": "Blue.", "rating": 1},
        ],
    },
    settings={"label": {"column": "messages[].rating", 1: True, -1: False}},
)
