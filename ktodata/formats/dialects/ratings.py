"""Ratings with a threshold: UltraFeedback and HelpSteer.

A label does not give a rating back, so reading with `at_least` keeps it in the column `rating`, and only rows that have one are
written. A rating that a mapping turned into a label (4: true) is kept only if the recipe's `keep` names it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ktodata.formats.format import Fields, Format, Row, TextColumns
from ktodata.formats.records import (
    CannotHoldError,
    LabelledCompletion,
    Record,
    UnusableError,
    kind,
    need,
    need_list,
    rating_of_row,
    text,
)
from ktodata.formats.turns import completion_of, prompt_of
from ktodata.formats.unread_fields import passed_over, unread

ANSWER_LISTS = ("completions", "responses")
ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def _text_prompt(row: Row) -> str:
    if row["turns"] is not None and [turn["role"] for turn in row["turns"]] != ["user"]:
        raise CannotHoldError("a conversation of several turns has no place in it")
    prompt: str = row["prompt"]
    return prompt


def is_ultrafeedback(record: Record, _fields: Fields) -> bool:
    has_scores = isinstance(record.get("scores"), list) and "prompt" in record and any(name in record for name in ANSWER_LISTS)
    return ("instruction" in record and "completions" in record) or has_scores


def read_ultrafeedback(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """UltraFeedback: an instruction and several completions with an overall_score, read with a threshold.

    Each completion of the record is a row; one that cannot be read takes the record with it.
    """
    if isinstance(record.get("scores"), list):
        return _read_scored(record, fields)
    prompt = text(need(record, "instruction"), "instruction")
    judged = [_read_completion(prompt, item, fields) for item in need_list(record["completions"], "completions")]
    for first in judged[:1]:
        left = passed_over(record, ("prompt", "responses", "scores"), ())
        first.not_kept = [*first.not_kept, *left]
    return judged


def _read_scored(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """Answers in one list and their scores in another: label: {column: scores, at_least: ...}."""
    column = next((name for name in ANSWER_LISTS if name in record), "completions")
    answers, scores = need_list(need(record, column), column), record["scores"]
    if len(answers) != len(scores):
        raise UnusableError("scores_differ", f"{len(answers)} {column} and {len(scores)} scores")
    question = "prompt" if "prompt" in record else "instruction"
    prompt = prompt_of(record, (question,))
    left = passed_over(record, ("instruction", "prompt", *ANSWER_LISTS), (question, column))
    return [
        LabelledCompletion(prompt, completion_of(answer, column), fields.rated({"scores": score}, "scores"), not_kept=left)
        for answer, score in zip(answers, scores, strict=True)
    ]


def _read_completion(prompt: str, item: Any, fields: Fields) -> LabelledCompletion:
    if not isinstance(item, Mapping):
        raise UnusableError("not_text", f"completions holds {kind(item)} where a completion should be")
    completion = text(need(item, "response"), "response")
    left = unread(item, ("response", "model", *fields.verdict_columns("overall_score")), "completions[]")
    return LabelledCompletion(
        prompt, completion, fields.rated(item, "overall_score"), {"model": item.get("model")}, not_kept=left
    )


def write_ultrafeedback(rows: Sequence[Row]) -> dict[str, Any]:
    completions = [{"model": row["model"], "response": row["completion"], "overall_score": rating_of_row(row)} for row in rows]
    return {"instruction": _text_prompt(rows[0]), "completions": completions}


def is_helpsteer(record: Record, _fields: Fields) -> bool:
    return "prompt" in record and "response" in record and any(aspect in record for aspect in ASPECTS)


def read_helpsteer(record: Record, fields: Fields) -> list[LabelledCompletion]:
    """HelpSteer: a prompt and a response rated from 0 to 4 for helpfulness and more, read with a threshold."""
    prompt, completion = text(need(record, "prompt"), "prompt"), text(need(record, "response"), "response")
    return [LabelledCompletion(prompt, completion, fields.rated(record, "helpfulness"))]


def helpsteer_texts(_keys: Collection[str], fields: Fields) -> TextColumns | None:
    has_meaning = fields.label.is_given
    return TextColumns(("prompt",), "response", "helpfulness") if has_meaning else None


def write_helpsteer(rows: Sequence[Row]) -> dict[str, Any]:
    rating = rating_of_row(rows[0])
    score = int(rating) if rating.is_integer() else rating
    return {"prompt": _text_prompt(rows[0]), "response": rows[0]["completion"], "helpfulness": score}


ULTRAFEEDBACK = Format(
    name="ultrafeedback",
    matches=is_ultrafeedback,
    read=read_ultrafeedback,
    write=write_ultrafeedback,
    group="prompt",
    holds=("prompt", "completion", "label", "model", "rating"),
    example={
        "instruction": "What colour is the sky?",
        "completions": [
            {"model": "large", "response": "Blue.", "overall_score": 8.5},
            {"model": "small", "response": "Green.", "overall_score": 2.0},
        ],
    },
    texts=("instruction", "prompt", *ANSWER_LISTS),
    reads=("scores",),
    settings={"label": {"column": "overall_score", "at_least": 5}},
)

HELPSTEER = Format(
    name="helpsteer",
    matches=is_helpsteer,
    read=read_helpsteer,
    plain_texts=helpsteer_texts,
    write=write_helpsteer,
    holds=("prompt", "completion", "label", "rating"),
    texts=("prompt", "response"),
    own_label="helpfulness",
    example={"prompt": "What colour is the sky?", "response": "Blue.", "helpfulness": 4},
    settings={"label": {"column": "helpfulness", "at_least": 3}},
)
