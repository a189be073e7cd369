"""Two completions and which is better: response1, response2, preference (1, 2, or 0 for a tie), or columns of those kinds.

The two may be whole conversations that share all but their last turn; then no prompt is needed beside them.

A pair with several raters gives each side their votes; the label is what most raters say, ties among them. Where as many say
first as second, each side has both labels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ktodata.formats.dialects.pairs import better_and_worse, check_repeats_prompt, read_side, same_prompt
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.label_rules import SIDES, Meanings, Side
from ktodata.formats.records import (
    ABSENT,
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    Verdict,
    Vote,
    listed,
    lookup,
    need,
)
from ktodata.formats.turns import prompt_of, row_completion, row_prompt

RESPONSES = ("response1", "response2")


def matches(record: Record, fields: Fields) -> bool:
    columns = fields.completion or RESPONSES
    return all(lookup(record, column) is not ABSENT for column in columns) and fields.has_label(record, "preference")


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    prompt, *completions = _texts(record, fields)
    votes = _side_votes(record, fields)
    better = _own_side(record, fields) if not fields.votes or fields.label.column else most_say([vote.side for vote in votes])
    columns = fields.about.get("model", ())
    models = [{"model": lookup(record, column)} for column in columns] if len(columns) == 2 else [{}, {}]
    return compared(prompt, completions, better, votes, models)


class SideVote(NamedTuple):
    """What one rater says of two completions; `created_at` is still as the source gives it."""

    rater: str | None
    side: Side
    created_at: Any = None


def compared(
    prompt: Prompt,
    completions: Sequence[str | Turn],
    better: Side | None,
    votes: Sequence[SideVote],
    about: Sequence[Mapping[str, Any]] = ({}, {}),
) -> list[LabelledCompletion]:
    """Two completions with their votes. better : the desirable one; None: as many say the one as the other"""
    return [
        LabelledCompletion(prompt, completion, _side_verdict(side, better, votes), more)
        for side, completion, more in zip(("first", "second"), completions, about, strict=True)
    ]


def _texts(record: Record, fields: Fields) -> tuple[Prompt, str | Turn, str | Turn]:
    """The prompt, and what is compared."""
    columns = fields.prompt or ("prompt",)
    (before, first), (other, second) = (read_side(need(record, name), name) for name in fields.completion or RESPONSES)
    if not before and not other:
        return prompt_of(record, columns), first, second
    if fields.prompt or lookup(record, "prompt") is not ABSENT:
        check_repeats_prompt(prompt_of(record, columns), before, columns[0])
    return same_prompt(before, other), first, second


def parse_side(value: Any, fields: Fields, own: Meanings) -> Side | None:
    """What a value says of two completions. own : what the format itself says of values"""
    outcome = fields.label.outcome(value, own)
    if isinstance(outcome, bool):
        raise UnusableError("label_unmapped", "a comparison is first, second or tie, not true or false")
    return outcome


def _side_votes(record: Record, fields: Fields) -> list[SideVote]:
    sides = ((rater, parse_side(value, fields, {})) for rater, value in fields.vote_values(record))
    return [SideVote(rater, side) for rater, side in sides if side is not None]


def _own_side(record: Record, fields: Fields) -> Side:
    column = fields.label_column("preference")
    value = lookup(record, column)
    if value is ABSENT:
        raise UnusableError("label_missing", f"no column {column!r}; the record has {listed(record)}")
    # beside answers of other names 1 is the second as often as the first
    own = {} if fields.completion else fields.own_meanings("preference", SIDES)
    if (side := parse_side(value, fields, own)) is None:
        raise UnusableError("unlabelled", "the preference is null, or one that the recipe sets aside")
    if side == "tie":
        raise UnusableError("tie", "neither side is better")
    return side


def most_say(sides: Sequence[Side]) -> Side | None:
    """The side that most say is better; None: as many say the one as the other."""
    counts = Counter(sides)
    most = {side for side, count in counts.items() if count == max(counts.values())}
    if not most:
        raise UnusableError("unlabelled", "nobody has said which is better")
    if most >= {"first", "second"}:
        return None
    if "tie" in most:
        raise UnusableError("tie", "neither side is better" + (", say as many as say one is" if len(most) > 1 else ""))
    return most.pop()


def _side_verdict(side: str, better: Side | None, votes: Sequence[SideVote]) -> Verdict:
    labels = [Vote(vote.rater, vote.side == side, vote.created_at) for vote in votes if vote.side != "tie"]
    return Verdict(better and side == better, labels or None)


def write(rows: Sequence[Row]) -> dict[str, Any]:
    better, _ = better_and_worse(rows)
    first, second = rows
    completions = {"response1": row_completion(first), "response2": row_completion(second)}
    return {"prompt": row_prompt(first), **completions, "preference": 1 if better is first else 2}


PREFERENCE = Format(
    name="preference",
    matches=matches,
    read=read,
    write=write,
    takes_columns=True,
    group="pair_id",
    holds=CONVERSATION,
    texts=("prompt", *RESPONSES),
    own_label="preference",
    example={"prompt": "What colour is the sky?", "response1": "Green.", "response2": "Blue.", "preference": 2},
)
