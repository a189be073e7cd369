"""Texts and conversations to token ids, row by row: a tokenizer's part of the work, done anywhere, in any number of processes."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ktodata.errors import DataError, ModelError
from ktodata.feedback import TEMPLATE_FIELDS
from ktodata.models import texts_to_ids
from ktodata.train.data.ragged_ids import Ids, digest_of
from ktodata.train.data.template_date import dated_template
from ktodata.train.data.training_rows import is_conversational

# what `apply_chat_template` is told of its own work, with transformers' names; no template reads it
TOKENIZERS_OWN = (
    *("conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"),
    *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
)
_FORM = "tools is a list of functions, chat_template_kwargs an object of names and values; either may be JSON text."


@dataclass(frozen=True)
class EncodedRows:
    """N rows as tokens: `ids` of those that fit, int32, each row's prompt and then its completion; and what became of each row.

    rows : prompt_tokens, completion_tokens (before it was cut), kept_tokens (of both; 0 where it does not fit, or the
        completion is its end alone), moved (the prompt by itself was encoded differently), ended (the completion holds the end
        token), fields_unused (template fields that text has no place for), prompt_digest, completion_digest (of the tokens kept)
    """

    ids: Ids
    rows: pl.DataFrame


def encode(rows: pl.DataFrame, tokenizer: Any, max_length: int) -> EncodedRows:
    """Token ids of prompt, completion and template fields.

    Text is encoded as prompt, and as prompt + completion + end token; messages go through the chat template. The completion
    starts where the two encodings part, as in TRL. Raises ModelError when the tokenizer cannot do it, DataError for template
    fields that are none.
    """
    conversational = is_conversational(rows)
    encoded = _encode_messages(rows, tokenizer) if conversational else _encode_text(rows, tokenizer)
    kept, lines = [np.zeros(0, np.int32)], []
    for alone, whole in zip(*encoded, strict=True):
        ids = np.asarray(whole, dtype=np.int32)
        start = common_prefix_length(alone, whole)
        fits = start < max_length and bool((ids[start:] != tokenizer.eos_token_id).any())  # else no word of it has a token
        prompt, completion = (ids[:start], ids[start:max_length]) if fits else (ids[:0], ids[:0])
        kept += [prompt, completion]
        ended = tokenizer.eos_token_id is not None and bool((ids[start:] == tokenizer.eos_token_id).any())
        digests = digest_of(prompt), digest_of(completion)
        lines.append((start, len(ids) - start, len(prompt) + len(completion), start < len(alone), ended, *digests))
    table = pl.DataFrame(lines, schema=ROW_SCHEMA, orient="row")
    unused = [False] * rows.height if conversational else _has_template_fields(rows)
    return EncodedRows(np.concatenate(kept), table.with_columns(fields_unused=pl.Series(unused, dtype=pl.Boolean)))


ROW_SCHEMA = {
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "kept_tokens": pl.Int64,
    "moved": pl.Boolean,
    "ended": pl.Boolean,
    "prompt_digest": pl.Binary,
    "completion_digest": pl.Binary,
}


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading tokens that both have in common."""
    both = min(len(first), len(second))
    apart = np.flatnonzero(np.asarray(first[:both]) != np.asarray(second[:both]))
    return int(apart[0]) if len(apart) else both


def _encode_text(rows: pl.DataFrame, tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    end = tokenizer.eos_token
    if end is None:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path!r} has no end-of-sequence token, so a completion could not say where it ends."
        )
    prompts = rows["prompt"].to_list()
    ended = [text if text.endswith(end) else text + end for text in rows["completion"]]
    wholes = [prompt + completion for prompt, completion in zip(prompts, ended, strict=True)]
    return texts_to_ids(prompts, tokenizer), texts_to_ids(wholes, tokenizer)


def _encode_messages(rows: pl.DataFrame, tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    if not tokenizer.chat_template:
        raise ModelError(
            f"the rows are conversations, but the tokenizer {tokenizer.name_or_path!r} has no chat template. "
            "Use an instruction-tuned model, or export the rows as plain text."
        )
    prompt_ids, whole_ids = [], []
    given = [name for name in TEMPLATE_FIELDS if name in rows.columns]
    for row in rows.select("row_id", "prompt", "completion", *given).iter_rows(named=True):
        row_id, options = row["row_id"], _options_of(row)
        prompt, completion = ([message_of(turn) for turn in row[side]] for side in ("prompt", "completion"))
        try:
            prompt_ids.append(_render(tokenizer, prompt, options, add_generation_prompt=True))
            whole_ids.append(_render(tokenizer, prompt + completion, options, add_generation_prompt=False))
        except Exception as error:  # templates are programs: they raise what they like
            raise ModelError(f"the chat template of {tokenizer.name_or_path!r} refuses row_id {row_id}: {error}") from error
    return prompt_ids, whole_ids


def message_of(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of a shard as a template takes it: no nulls of a frame, calls as objects, and arguments too, where they are JSON."""
    message: dict[str, Any] = without_nulls(turn)
    if not message.get("tool_calls"):
        return message
    calls = message["tool_calls"]
    message["tool_calls"] = [_call(call) for call in (json.loads(calls) if isinstance(calls, str) else calls)]
    return {"content": ""} | message  # many templates look for it


def without_nulls(value: Any) -> Any:
    """A frame's value without the fields that are null: each struct of a column has the fields of all, null where it had none."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        with suppress(ValueError):
            function["arguments"] = json.loads(function["arguments"])
    return call | {"function": function}


def template_options(row: dict[str, Any]) -> dict[str, Any]:
    """What a row's template is given beside its messages: `tools`, and all of `chat_template_kwargs`; either may be JSON text."""
    # no tools in a list is not the same as no list, to templates that look whether there is one
    given = {name: row[name] for name in TEMPLATE_FIELDS if row.get(name) not in (None, "")}
    # a null of a frame says that this row has none: None would be an answer to `enable_thinking is defined`, as one in JSON is
    loaded = {name: json.loads(value) if isinstance(value, str) else without_nulls(value) for name, value in given.items()}
    more = loaded.pop("chat_template_kwargs", None)
    tools = {name: value for name, value in loaded.items() if value is not None}
    return tools if more is None else tools | dict(more.items())


def not_for_templates(options: dict[str, Any]) -> list[str]:
    """The names in `template_options` that are the tokenizer's own: `truncation` would cut the row."""
    return [name for name in TOKENIZERS_OWN if name in options]


def _options_of(row: dict[str, Any]) -> dict[str, Any]:
    try:
        options = template_options(row)
    except (ValueError, AttributeError) as error:
        raise DataError(f"row_id {row['row_id']}: {' or '.join(TEMPLATE_FIELDS)} cannot be read: {error}. {_FORM}") from error
    if not isinstance(options.get("tools", []), list):
        raise DataError(f"row_id {row['row_id']}: tools is {type(options['tools']).__name__}. {_FORM}")
    if own := not_for_templates(options):
        raise DataError(
            f"row_id {row['row_id']}: chat_template_kwargs holds {', '.join(own)}, which no template reads: it would change how "
            "this row is made into tokens. Leave it out."
        )
    return options


def _render(tokenizer: Any, messages: list[dict[str, Any]], options: dict[str, Any], *, add_generation_prompt: bool) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        messages,
        add_generation_prompt=add_generation_prompt,
        tokenize=True,
        return_dict=True,
        chat_template=dated_template(tokenizer, options.get("tools")),
        **options,
    )["input_ids"]
    return ids


def _has_template_fields(rows: pl.DataFrame) -> list[bool]:
    given = rows.select(name for name in TEMPLATE_FIELDS if name in rows.columns)
    if not given.width:
        return [False] * rows.height
    return [any(value and value not in ("{}", "[]", "null") for value in row) for row in given.iter_rows()]
