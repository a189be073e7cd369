"""LLaMA-Factory's two forms of KTO data: alpaca (instruction, input, output) and ShareGPT (messages), both with kto_tag."""

from collections.abc import Collection, Sequence
from typing import Any

from ktodata.formats.format import CONVERSATION, Fields, Format, Row, TextColumns
from ktodata.formats.records import (
    CannotHoldError,
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    need,
    need_list,
    text,
)
from ktodata.formats.turns import answer_turn, conversation, prompt_of, row_turns
from ktodata.formats.unread_fields import passed_over


def is_alpaca(record: Record, fields: Fields) -> bool:
    return "instruction" in record and "output" in record and fields.has_label(record, "kto_tag")


def read_alpaca(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """LLaMA-Factory's alpaca form for KTO: instruction, input, output, kto_tag, and perhaps system and history."""
    # the trainer joins instruction and input with a line break, so that is what was judged
    columns = ("instruction", "input") if record.get("input") is not None else ("instruction",)
    prompt = with_turns_before(record, prompt_of(record, columns))
    return [LabelledCompletion(prompt, text(need(record, "output"), "output"), fields.verdict(record, "kto_tag"))]


def alpaca_texts(keys: Collection[str], _fields: Fields) -> TextColumns | None:
    if "system" in keys or "history" in keys:
        return None
    return TextColumns(("instruction", "input") if "input" in keys else ("instruction",), "output", "kto_tag")


def with_turns_before(record: Record, prompt: Prompt) -> Prompt:
    """The prompt after the record's system text and its history."""
    before: list[Turn] = []
    if record.get("system"):
        before.append({"role": "system", "content": text(record["system"], "system")})
    before += history_turns(record.get("history"))
    if not before or not isinstance(prompt, str):
        return prompt
    return [*before, {"role": "user", "content": prompt}]


def history_turns(history: Any) -> list[Turn]:
    """The turns of [[question, answer], ...]."""
    turns: list[Turn] = []
    for exchange in need_list(history or [], "history"):
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise UnusableError("not_a_turn", "history holds something that is not a pair of question and answer")
        user, assistant = (text(turn, "history") for turn in exchange)
        turns += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return turns


def write_alpaca(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    turns = row_turns(row)
    system = turns[0]["content"] if turns[0]["role"] == "system" else ""
    dialogue = turns[1:] if turns[0]["role"] == "system" else turns
    if [turn["role"] for turn in dialogue] != ["user", "assistant"] * (len(dialogue) // 2) + ["user"]:
        raise CannotHoldError("the turns do not alternate between user and assistant, as history must")
    history = [[dialogue[at]["content"], dialogue[at + 1]["content"]] for at in range(0, len(dialogue) - 1, 2)]
    record = {"instruction": dialogue[-1]["content"], "input": "", "output": row["completion"], "kto_tag": row["label"]}
    # always all six, so that the records of a file have one shape
    return record | {"system": system, "history": history}


LLAMAFACTORY_ALPACA = Format(
    name="llamafactory_alpaca",
    matches=is_alpaca,
    read=read_alpaca,
    plain_texts=alpaca_texts,
    write=write_alpaca,
    holds=("prompt", "completion", "label", "turns"),
    texts=("instruction", "input", "output", "history"),
    reads=("system",),
    own_label="kto_tag",
    example={
        "instruction": "What colour is the sky?",
        "input": "",
        "output": "Blue.",
        "kto_tag": True,
        "system": "Be brief.",
        "history": [["Hi!", "Hello."]],
    },
)


def _turns_column(record: Record) -> str:
    return "messages" if "messages" in record else "conversations"


def is_sharegpt(record: Record, fields: Fields) -> bool:
    return "conversations" in record or ("messages" in record and fields.has_label(record, "kto_tag"))


def read_sharegpt(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """LLaMA-Factory's ShareGPT form for KTO: messages (or conversations) that end with the judged answer, and kto_tag."""
    column = _turns_column(record)
    turns, completion = conversation(need(record, column), column, fields.judged)
    left = passed_over(record, ("messages", "conversations"), (column,))
    return [LabelledCompletion(turns, completion, fields.verdict(record, "kto_tag"), not_kept=left)]


def write_sharegpt(rows: Sequence[Row]) -> dict[str, Any]:
    return {"messages": [*row_turns(rows[0]), answer_turn(rows[0])], "kto_tag": rows[0]["label"]}


LLAMAFACTORY_SHAREGPT = Format(
    name="llamafactory_sharegpt",
    matches=is_sharegpt,
    read=read_sharegpt,
    write=write_sharegpt,
    holds=CONVERSATION,
    texts=("messages", "conversations"),
    own_label="kto_tag",
    example={
        "messages": [{"role": "user", "content": "What colour is the sky?"}, {"role": "assistant", "content": "Blue."}],
        "kto_tag": True,
    },
)
