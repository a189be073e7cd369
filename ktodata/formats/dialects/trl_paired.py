"""TRL's preference: prompt, chosen, rejected; text or turns. Without a prompt both are whole conversations that share it."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.dialects.hh_rlhf import is_transcript
from ktodata.formats.dialects.two_sides import better_and_worse, same_prompt, two_sides
from ktodata.formats.fields import Fields
from ktodata.formats.format import Format, Row
from ktodata.formats.records import LabelledCompletion, Record, UnusableError, answer, completion_of, conversation, prompt_of


def matches(record: Record, _fields: Fields) -> bool:
    # a transcript without a prompt is hh_rlhf's; with a prompt beside it, it is a completion like any other
    return "chosen" in record and "rejected" in record and ("prompt" in record or not is_transcript(record["chosen"]))


def read(record: Record, _fields: Fields) -> list[LabelledCompletion]:
    if "prompt" in record:
        prompt = prompt_of(record, ("prompt",))
        return two_sides(prompt, completion_of(record["chosen"], "chosen"), completion_of(record["rejected"], "rejected"))
    if isinstance(record["chosen"], str):
        raise UnusableError("no_prompt", "chosen and rejected are text, and there is no column 'prompt'")
    chosen, rejected = (conversation(record[side], side) for side in ("chosen", "rejected"))
    return two_sides(same_prompt(chosen[0], rejected[0]), chosen[1], rejected[1])


def write(rows: Sequence[Row]) -> dict[str, Any]:
    better, worse = better_and_worse(rows)
    if better["turns"] is None:
        return {"prompt": better["prompt"], "chosen": better["completion"], "rejected": worse["completion"]}
    return {"prompt": better["turns"], "chosen": [answer(better["completion"])], "rejected": [answer(worse["completion"])]}


TRL_PAIRED = Format(
    name="trl_paired",
    matches=matches,
    read=read,
    write=write,
    group="pair_id",
    holds=("prompt", "completion", "label", "turns"),
    example={"prompt": "What colour is the sky?", "chosen": "Blue.", "rejected": "Green."},
)
