"""TRL's data sets, unpaired (prompt, completion, label) and paired (prompt, chosen, rejected)."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.dialects.hh_rlhf import is_transcript
from ktodata.formats.dialects.pairs import PROMPTS, better_and_worse, read_pair
from ktodata.formats.format import CONVERSATION, Fields, Format, Row, TextColumns
from ktodata.formats.records import LabelledCompletion, Record, need
from ktodata.formats.turns import answer_turn, completion_of, prompt_of, row_turns


def is_trl(record: Record, _fields: Fields) -> bool:
    return "prompt" in record and "completion" in record


def read_trl(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """TRL's unpaired preference: prompt, completion, label; text, or lists of turns."""
    completion = completion_of(need(record, "completion"), "completion")
    return [LabelledCompletion(prompt_of(record, ("prompt",)), completion, fields.verdict(record))]


def write_trl(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    if row["turns"] is None:
        return {"prompt": row["prompt"], "completion": row["completion"], "label": row["label"]}
    return {"prompt": row_turns(row), "completion": [answer_turn(row)], "label": row["label"]}


TRL = Format(
    name="trl",
    matches=is_trl,
    read=read_trl,
    plain_texts=lambda _keys, _fields: TextColumns(("prompt",), "completion"),
    write=write_trl,
    holds=CONVERSATION,
    texts=("prompt", "completion"),
    own_label="label",
    example={
        "prompt": [{"role": "user", "content": "What colour is the sky?"}],
        "completion": [{"role": "assistant", "content": "Blue."}],
        "label": True,
    },
)


def is_trl_paired(record: Record, _fields: Fields) -> bool:
    # a transcript without a prompt is hh_rlhf's; with a prompt beside it, it is a completion like any other
    return "chosen" in record and "rejected" in record and ("prompt" in record or not is_transcript(record["chosen"]))


def read_trl_paired(record: Record, _fields: Fields) -> list[LabelledCompletion]:
    """Pairs: chosen and rejected, as TRL, LLaMA-Factory, axolotl and the hub's data sets have them.

    The prompt is in prompt, messages, conversations, question, or instruction with input and history; or both sides are whole
    conversations that share it. Texts, turns, or single turns.
    """
    return read_pair(record, "chosen", "rejected")


def write_trl_paired(rows: Sequence[Row]) -> dict[str, Any]:
    better, worse = better_and_worse(rows)
    if better["turns"] is None:
        return {"prompt": better["prompt"], "chosen": better["completion"], "rejected": worse["completion"]}
    return {"prompt": row_turns(better), "chosen": [answer_turn(better)], "rejected": [answer_turn(worse)]}


TRL_PAIRED = Format(
    name="trl_paired",
    matches=is_trl_paired,
    read=read_trl_paired,
    looks_into=("chosen",),
    write=write_trl_paired,
    group="pair_id",
    holds=CONVERSATION,
    texts=("chosen", "rejected", *PROMPTS, "input", "history"),
    example={"prompt": "What colour is the sky?", "chosen": "Blue.", "rejected": "Green."},
)
