"""What a chat template renders of a row beside its texts: the roles, names, reasoning, calls and links of its turns.

Two rows are one text only where this is the same, too. Ids of calls are made anew for each conversation, so only which result
belongs to which call is compared.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ktodata.feedback import TEMPLATE_FIELDS

_FIELD, _TURN, _PART = "\x1f", "\x1e", "\x1d"
_PLAIN = _FIELD.join(("user", "", "false", "false"))


def rendered_form(feedback: pl.DataFrame) -> pl.Series:
    """A text for each row that is equal where all is equal that a template renders beside prompt and completion.

    feedback : with any of the columns turns, answer, tools, chat_template_kwargs; a prompt that is text and one plain turn of the
    user are the same. Keys of JSON are in order.
    """
    parts = [pl.Series([""] * feedback.height, dtype=pl.String)]
    parts += [_in_order(feedback[name]) for name in TEMPLATE_FIELDS if name in feedback.columns]
    if {"turns", "answer"} <= set(feedback.columns):
        parts += [feedback.select(_turns_form()).to_series(), feedback.select(_answer_form()).to_series(), _links(feedback)]
    return pl.select(pl.concat_str(parts, separator=_PART)).to_series()


def _in_order(texts: pl.Series) -> pl.Series:
    different_texts = texts.drop_nulls().unique()
    ordered = [json.dumps(json.loads(text), sort_keys=True) for text in different_texts]
    return texts.replace(different_texts, pl.Series(ordered, dtype=pl.String)).fill_null("")


def _form(turn: pl.Expr) -> pl.Expr:
    """Role, name, and whether there are reasoning and calls: what they say is in the text."""
    field = turn.struct.field
    there = ((field(name).fill_null("") != "").cast(pl.String) for name in ("reasoning_content", "tool_calls"))
    return pl.concat_str([field("role"), field("name").fill_null(""), *there], separator=_FIELD)


def _turns_form() -> pl.Expr:
    form = pl.col("turns").list.eval(_form(pl.element())).list.join(_TURN)
    return pl.when(form == _PLAIN).then(pl.lit("")).otherwise(form).fill_null("").alias("turns")


def _answer_form() -> pl.Expr:
    return pl.when(pl.col("answer").is_not_null()).then(_form(pl.col("answer"))).otherwise(pl.lit("")).alias("answer")


def _links(feedback: pl.DataFrame) -> pl.Series:
    """Which result answers which call, where a row has results."""
    has_results = (
        pl.col("turns").list.eval(pl.element().struct.field("tool_call_id").is_not_null()).list.any().fill_null(value=False)
    )
    turns = feedback.select(pl.when(has_results).then("turns")).to_series()
    return pl.Series(
        "links", [_links_of(conversation) if conversation else "" for conversation in turns.to_list()], dtype=pl.String
    )


def _links_of(turns: Iterable[Mapping[str, Any]]) -> str:
    ids = [(_call_ids(turn["tool_calls"]), turn["tool_call_id"]) for turn in turns]
    uses = Counter(name for calls, result in ids for name in (*calls, result) if name)
    numbers = {name: number for number, name in enumerate(name for name, count in uses.items() if count > 1)}
    return json.dumps([[[numbers.get(name) for name in calls], numbers.get(result)] for calls, result in ids])


def _call_ids(calls: str | None) -> list[str | None]:
    return [call.get("id") for call in json.loads(calls)] if calls else []
