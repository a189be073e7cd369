"""LLaMA-Factory's alpaca form for KTO: instruction, input, output, kto_tag, and perhaps system and history."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.fields import Fields
from ktodata.formats.format import Format, Row
from ktodata.formats.records import (
    CannotHoldError,
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    need,
    need_list,
    prompt_of,
    row_turns,
    text,
)


def matches(record: Record, fields: Fields) -> bool:
    return "instruction" in record and "output" in record and fields.has_label(record, "kto_tag")


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    # the trainer joins instruction and input with a line break, so that is what was judged
    columns = ("instruction", "input") if record.get("input") is not None else ("instruction",)
    prompt = _with_turns_before(record, prompt_of(record, columns))
    return [LabelledCompletion(prompt, text(need(record, "output"), "output"), fields.verdict(record, "kto_tag"))]


def _with_turns_before(record: Record, prompt: Prompt) -> Prompt:
    before: list[Turn] = []
    if record.get("system"):
        before.append({"role": "system", "content": text(record["system"], "system")})
    for exchange in need_list(record.get("history") or [], "history"):
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise UnusableError("not_a_turn", "history holds something that is not a pair of question and answer")
        user, assistant = (text(said, "history") for said in exchange)
        before += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    if not before or not isinstance(prompt, str):
        return prompt
    return [*before, {"role": "user", "content": prompt}]


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    turns = row_turns(row)
    system = turns[0]["content"] if turns[0]["role"] == "system" else ""
    talk = turns[1:] if turns[0]["role"] == "system" else turns
    if [turn["role"] for turn in talk] != ["user", "assistant"] * (len(talk) // 2) + ["user"]:
        raise CannotHoldError("the turns do not alternate between user and assistant, as history must")
    history = [[talk[at]["content"], talk[at + 1]["content"]] for at in range(0, len(talk) - 1, 2)]
    record = {"instruction": talk[-1]["content"], "input": "", "output": row["completion"], "kto_tag": row["label"]}
    # always all six, so that the records of a file have one shape
    return record | {"system": system, "history": history}


LLAMAFACTORY_ALPACA = Format(
    name="llamafactory_alpaca",
    matches=matches,
    read=read,
    write=write,
    holds=("prompt", "completion", "label", "turns"),
    example={
        "instruction": "What colour is the sky?",
        "input": "",
        "output": "Blue.",
        "kto_tag": True,
        "system": "Be brief.",
        "history": [["Hi!", "Hello."]],
    },
)
