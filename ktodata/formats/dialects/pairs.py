"""What the formats that compare two completions have in common."""

from collections.abc import Sequence

from ktodata.formats.format import Row
from ktodata.formats.records import CannotHoldError, LabelledCompletion, Prompt, Turn, UnusableError, Verdict


def labelled_pair(prompt: Prompt, better: str | Turn, worse: str | Turn) -> list[LabelledCompletion]:
    """The better completion as a desirable row, the worse as an undesirable one."""
    return [LabelledCompletion(prompt, better, Verdict(True)), LabelledCompletion(prompt, worse, Verdict(False))]


def same_prompt(first: Prompt, second: Prompt) -> Prompt:
    """The prompt that both sides share; sides that answer different prompts cannot be compared."""
    if first != second:
        raise UnusableError(
            "prompts_differ", f"the two sides share no prompt: {len(first)} and {len(second)} turns before the answer"
        )
    return first


def better_and_worse(rows: Sequence[Row]) -> tuple[Row, Row]:
    """(desirable, undesirable) of the rows of one pair."""
    if len(rows) != 2:
        raise CannotHoldError("the other side of the pair is not there")
    if rows[0]["label"] == rows[1]["label"]:
        raise CannotHoldError("both sides of the pair have the same label")
    if any(rows[0][name] != rows[1][name] for name in ("prompt", "turns", "tools")):
        raise CannotHoldError("the two sides of the pair have different prompts")
    return (rows[0], rows[1]) if rows[0]["label"] else (rows[1], rows[0])
