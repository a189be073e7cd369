"""Two completions and which is better: response1, response2, preference (1, 2, or 0 for a tie), or columns of those kinds.

The two may be whole conversations that share all but their last turn; then no prompt is needed beside them.

A pair with several raters gives each side their votes; the label is what most raters say, ties among them. Where as many say
first as second, each side has both labels.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ktodata.formats.dialects.pairs import better_and_worse, check_repeats_prompt, read_side, same_prompt
from ktodata.formats.format import CONVERSATION, Fields, Format, Row
from ktodata.formats.label_rules import SIDES, Side
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
    better = _better_side(record, fields, votes)
    columns = fields.about.get("model", ())
    models = [{"model": lookup(record, column)} for column in columns] if len(columns) == 2 else [{}, {}]
    return [
        LabelledCompletion(prompt, completion, _side_verdict(side, better, votes), model)
        for side, completion, model in zip(("first", "second"), completions, models, strict=True)
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


def _parse_side(value: Any, fields: Fields) -> Side | None:
    # what 1 means in a column of another name, or beside answers of other names, its file alone knows: often answers are 0 and 1
    own = {} if fields.votes or fields.completion or fields.label.column not in (None, "preference") else SIDES
    outcome = fields.label.outcome(value, own)
    if isinstance(outcome, bool):
        raise UnusableError("label_unmapped", "a comparison is first, second or tie, not true or false")
    return outcome


def _side_votes(record: Record, fields: Fields) -> list[tuple[str | None, Side]]:
    sides = ((rater, _parse_side(value, fields)) for rater, value in fields.vote_values(record))
    return [(rater, side) for rater, side in sides if side is not None]


def _better_side(record: Record, fields: Fields, votes: list[tuple[str | None, Side]]) -> Side | None:
    """The better side; None: as many votes say the one as the other."""
    if not fields.votes or fields.label.column:
        column = fields.label_column("preference")
        value = lookup(record, column)
        if value is ABSENT:
            raise UnusableError("label_missing", f"no column {column!r}; the record has {listed(record)}")
        most = {_parse_side(value, fields)}
    else:
        counts = Counter(side for _, side in votes)
        most = {side for side, count in counts.items() if count == max(counts.values())} or {None}
    if most == {None}:
        raise UnusableError("unlabelled", "the preference is null, or nobody has voted")
    if most >= {"first", "second"}:
        return None
    if "tie" in most:
        raise UnusableError("tie", "neither side is better" + (", say as many as say one is" if len(most) > 1 else ""))
    return most.pop()


def _side_verdict(side: str, better: Side | None, votes: list[tuple[str | None, Side]]) -> Verdict:
    labels = [Vote(rater, vote == side) for rater, vote in votes if vote != "tie"]
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
