"""What the formats that compare two completions have in common."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.dialects.llamafactory import with_turns_before
from ktodata.formats.format import Row
from ktodata.formats.records import CannotHoldError, LabelledCompletion, Prompt, Record, Turn, UnusableError, Verdict
from ktodata.formats.turns import completion_of, conversation, plain_turn, prompt_of, same_turns, turns_of
from ktodata.formats.unread_fields import passed_over

# where the prompt of a pair stands, beside its two sides: the first that a record has
PROMPTS = ("prompt", "messages", "conversations", "question", "instruction")


def labelled_pair(prompt: Prompt, better: str | Turn, worse: str | Turn) -> list[LabelledCompletion]:
    """The better completion as a desirable row, the worse as an undesirable one."""
    return [LabelledCompletion(prompt, better, Verdict(True)), LabelledCompletion(prompt, worse, Verdict(False))]


def same_prompt(first: Prompt, second: Prompt) -> Prompt:
    """The prompt that both sides share; sides that answer different prompts cannot be compared."""
    same = first == second if isinstance(first, str) or isinstance(second, str) else same_turns(first, second)
    if not same:
        raise UnusableError(
            "prompts_differ", f"the two sides share no prompt: {len(first)} and {len(second)} turns before the answer"
        )
    return first


def read_pair(record: Record, better_column: str, worse_column: str) -> list[LabelledCompletion]:
    """Both sides of a pair: answers to the prompt beside them, or whole conversations that share all but the last turn."""
    (before, better), (other, worse) = (read_side(record[column], column) for column in (better_column, worse_column))
    prompt_column = next((name for name in PROMPTS if record.get(name) is not None), None)
    if before or other:
        prompt: Prompt = same_prompt(before, other)
        used = _check_prompt_beside(record, before, better)
    elif prompt_column is not None:
        prompt, used = _prompt_beside(record, prompt_column, better)
    else:
        raise UnusableError(
            "no_prompt", f"{better_column} and {worse_column} are answers only, and there is no prompt beside them"
        )
    first, second = labelled_pair(prompt, better, worse)
    first.not_kept = passed_over(record, (*PROMPTS, "input", "history"), used)
    return [first, second]


def read_side(value: Any, what: str) -> tuple[list[Turn], str | Turn]:
    """(turns before, the answer) of a side that is a whole conversation; nothing is before an answer alone."""
    if not isinstance(value, list) or len(value) < 2:
        return [], completion_of(value, what)
    before, answer = conversation(value, what)
    if before and before[0]["role"] in ("assistant", "tool"):
        raise UnusableError("several_turns", f"{what} holds {len(value)} turns; which of them was judged is not said")
    return before, answer


def _prompt_beside(record: Record, column: str, better: str | Turn) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt in `column`, and the columns that it is made of."""
    if column == "instruction":
        used = ("instruction", "input") if record.get("input") else ("instruction",)
        return with_turns_before(record, prompt_of(record, used)), (*used, "history")
    if column not in ("messages", "conversations"):
        return prompt_of(record, (column,)), (column,)
    turns = turns_of(record[column], column)
    if turns[-1]["role"] == "assistant":
        if len(turns) == 1 or not _is_same_answer(turns[-1], better):
            raise UnusableError("prompts_differ", f"{column} ends with an answer that is not the better one")
        turns = turns[:-1]
    return turns, (column,)


def _check_prompt_beside(record: Record, before: list[Turn], better: str | Turn) -> tuple[str, ...]:
    """The columns that say again what both conversations begin with. Raises UnusableError where one says something else."""
    used = []
    for column in PROMPTS:
        value = record.get(column)
        if value is None:
            continue
        turns = turns_of(value, column) if isinstance(value, list) else []
        if not (turns and same_turns(turns[:-1], before) and _is_same_answer(turns[-1], better)):
            check_repeats_prompt(turns or value, before, column)
        used.append(column)
    return tuple(used)


def check_repeats_prompt(prompt: Any, before: list[Turn], column: str) -> None:
    """A prompt beside two conversations says what both begin with. Raises UnusableError where it says something else."""
    users = [turn["content"].strip() for turn in before if turn["role"] == "user"]
    is_repeat = same_turns(prompt, before) if isinstance(prompt, list) else isinstance(prompt, str) and prompt.strip() in users
    if not is_repeat:
        raise UnusableError("prompts_differ", f"{column!r} is not what both conversations begin with")


def _is_same_answer(turn: Turn, answer: str | Turn) -> bool:
    return plain_turn(turn) == (answer if isinstance(answer, str) else plain_turn(answer))


def better_and_worse(rows: Sequence[Row]) -> tuple[Row, Row]:
    """(desirable, undesirable) of the rows of one pair."""
    if len(rows) != 2:
        missing = "the other side of the pair is not there"
        raise CannotHoldError(missing if len(rows) < 2 else "raters are divided on which side of the pair is better")
    if rows[0]["label"] == rows[1]["label"]:
        raise CannotHoldError("both sides of the pair have the same label")
    if any(rows[0][name] != rows[1][name] for name in ("prompt", "turns", "tools")):
        raise CannotHoldError("the two sides of the pair have different prompts")
    return (rows[0], rows[1]) if rows[0]["label"] else (rows[1], rows[0])
