r"""Anthropic's HH-RLHF: chosen and rejected are transcripts, "\n\nHuman: ...\n\nAssistant: ..."; the last answer is judged.

The mark-up cannot be escaped: a completion that itself holds "\n\nHuman:" would be read as a turn, so such a row is not written.
"""

import re
from collections.abc import Sequence
from typing import Any

from ktodata.formats.dialects.pairs import better_and_worse, labelled_pair, same_prompt
from ktodata.formats.format import Fields, Format, Row
from ktodata.formats.records import CannotHoldError, LabelledCompletion, Record, Turn, UnusableError, text
from ktodata.formats.turns import answer_turn, conversation, row_turns

HEADERS = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
_HEADER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def is_transcript(value: Any) -> bool:
    """Whether a value reads like an HH transcript."""
    return isinstance(value, str) and value.lstrip("\n").startswith("Human:")


def transcript_turns(transcript: str) -> list[Turn]:
    """The turns of a transcript. One space after each header belongs to the mark-up, all other white space to the text."""
    start, *parts = _HEADER.split(transcript)
    if start.strip() or not parts:
        raise UnusableError("not_a_transcript", "the text does not start with 'Human:'")
    roles = ["user" if speaker == "Human" else "assistant" for speaker in parts[::2]]
    return [{"role": role, "content": content.removeprefix(" ")} for role, content in zip(roles, parts[1::2], strict=True)]


def transcript_prompt(prompt: str) -> list[Turn]:
    """The turns of a transcript that ends with an open "Assistant:"."""
    turns = transcript_turns(prompt)
    opened = turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip()
    return turns[:-1] if opened and len(turns) > 1 else turns


def transcript(turns: Sequence[Turn]) -> str:
    """The transcript of `turns`. Raises CannotHoldError where reading it again would give other turns."""
    if unknown := {turn["role"] for turn in turns} - set(HEADERS):
        raise CannotHoldError(f"a transcript has no turns of {', '.join(sorted(unknown))}")
    written = "".join(f"{HEADERS[turn['role']]} {turn['content']}" for turn in turns)
    if transcript_turns(written) != list(turns):
        raise CannotHoldError("a text holds the mark-up of a transcript")
    return written


def matches(record: Record, _fields: Fields) -> bool:
    return "prompt" not in record and is_transcript(record.get("chosen")) and "rejected" in record


def read(record: Record, _fields: Fields) -> list[LabelledCompletion]:
    sides = (conversation(transcript_turns(text(record[side], side)), side) for side in ("chosen", "rejected"))
    (prompt, chosen), (other_prompt, rejected) = sides
    return labelled_pair(same_prompt(prompt, other_prompt), chosen, rejected)


def write(rows: Sequence[Row]) -> dict[str, Any]:
    better, worse = better_and_worse(rows)
    sides = {"chosen": better, "rejected": worse}
    return {side: transcript([*row_turns(row), answer_turn(row)]) for side, row in sides.items()}


HH_RLHF = Format(
    name="hh_rlhf",
    matches=matches,
    looks_into=("chosen",),
    read=read,
    write=write,
    group="pair_id",
    holds=("prompt", "completion", "label", "turns"),
    texts=("chosen", "rejected"),
    example={
        "chosen": "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: What colour is the sky?\n\nAssistant: Blue.",
        "rejected": "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: What colour is the sky?\n\nAssistant: Green.",
    },
)
