"""Axolotl's `rl: kto` data: its types argilla, intel, ultra and argilla_chat; user_defined is read with the settings of `read`.

The prompt's column is instruction (argilla), question (intel) or prompt (ultra, prompt_pairs), with an optional system beside it;
argilla_chat holds question and answer as the two turns of completion. What is written is type ultra, which has room for one
system text and one user turn, no more.
"""

from collections.abc import Collection, Sequence
from typing import Any

from ktodata.formats.format import Fields, Format, Row, TextColumns
from ktodata.formats.records import CannotHoldError, LabelledCompletion, Prompt, Record, UnusableError, need, text
from ktodata.formats.turns import conversation, row_turns
from ktodata.formats.unread_fields import passed_over

QUESTIONS = ("instruction", "question", "prompt")


def _is_chat(record: Record) -> bool:
    completion = record.get("completion")
    return isinstance(completion, list) and len(completion) > 1


def matches(record: Record, _fields: Fields) -> bool:
    # prompt and completion alone are TRL's; a system text makes them type ultra
    has_question = "instruction" in record or "question" in record or ("system" in record and "prompt" in record)
    return "completion" in record and (has_question or ("prompt" not in record and _is_chat(record)))


def read(record: Record, fields: Fields) -> list[LabelledCompletion]:
    if _is_chat(record):
        turns, answer = conversation(record["completion"], "completion", fields.judged)
        left = passed_over(record, (*QUESTIONS, "system"), ())
        return [LabelledCompletion(turns, answer, fields.verdict(record), not_kept=left)]
    completion = text(need(record, "completion"), "completion")
    left = passed_over(record, QUESTIONS, [name for name in QUESTIONS if name in record][:1])
    return [LabelledCompletion(_question_prompt(record), completion, fields.verdict(record), not_kept=left)]


def _question_prompt(record: Record) -> Prompt:
    column = next((name for name in QUESTIONS if name in record), None)
    if column is None:
        raise UnusableError("missing_column", f"none of the columns {', '.join(QUESTIONS)}")
    question = text(record[column], column)
    if not record.get("system"):
        return question
    return [{"role": "system", "content": text(record["system"], "system")}, {"role": "user", "content": question}]


def plain_texts(keys: Collection[str], _fields: Fields) -> TextColumns | None:
    questions = [name for name in QUESTIONS if name in keys]
    return TextColumns((questions[0],), "completion") if len(questions) == 1 and "system" not in keys else None


def write(rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[0]
    turns = row_turns(row)
    roles = [turn["role"] for turn in turns]
    if roles not in (["user"], ["system", "user"]):
        raise CannotHoldError("a conversation of several turns has no place in it")
    system = turns[0]["content"] if len(turns) == 2 else ""
    return {"system": system, "prompt": turns[-1]["content"], "completion": row["completion"], "label": row["label"]}


AXOLOTL = Format(
    name="axolotl",
    matches=matches,
    read=read,
    plain_texts=plain_texts,
    write=write,
    holds=("prompt", "completion", "label"),
    texts=(*QUESTIONS, "completion"),
    reads=("system",),
    own_label="label",
    example={"system": "Be brief.", "prompt": "What colour is the sky?", "completion": "Blue.", "label": True},
)
