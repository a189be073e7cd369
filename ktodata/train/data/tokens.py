"""Prompt and completion as token ids. A completion's first token and its end token count; the prompt's tokens do not."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from ktodata.errors import DataError, EmptyDataError, ModelError
from ktodata.feedback import TEMPLATE_FIELDS
from ktodata.train.data.training_rows import is_conversational, named

Ids = NDArray[np.int32]
_FORM = "tools is a list of functions, chat_template_kwargs an object of names and values; either may be JSON text."


@dataclass(frozen=True)
class TokenRows:
    """N rows, ready to be paired and batched. Completions are already cut so that prompt + completion fit max_length."""

    row_id: tuple[str, ...]
    label: NDArray[np.bool_]
    weight: NDArray[np.float64]
    p_desirable: NDArray[np.float64]  # P(truly desirable); the label itself where none was given
    group: tuple[str, ...]  # rows of one group share their prompt, or nearly
    prompt: tuple[Ids, ...]
    completion: tuple[Ids, ...]
    max_length: int

    def __len__(self) -> int:
        return len(self.row_id)

    def first(self, count: int) -> "TokenRows":
        """The first `count` rows prompt_ids."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return TokenRows(**{name: value if name == "max_length" else value[:count] for name, value in parts.items()})

    @property
    def group_numbers(self) -> NDArray[np.int64]:
        """The number of each row's group, in order of appearance: int64 [N]. An array of names is as wide as the longest."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(name, len(numbers)) for name in self.group], dtype=np.int64)

    def sequence(self, row: int, partner: int) -> tuple[Ids, int]:
        """(token ids of row's prompt + partner's completion, cut to max_length; where the completion starts)."""
        ids = np.concatenate([self.prompt[row], self.completion[partner]])[: self.max_length]
        return ids, len(self.prompt[row])


def tokenize(rows: pl.DataFrame, tokenizer: Any, *, max_length: int, part: str) -> tuple[TokenRows, dict[str, Any]]:
    """Token ids of every row that fits, and metrics: what was skipped (with row_id), cut, or does not end.

    Text is encoded as prompt, and as prompt + completion + end token; messages go through the chat template. The completion
    starts where the two encodings part, as in TRL. A row whose prompt alone fills max_length, or whose completion has no token,
    is skipped; a completion that does not fit is cut at its end. Raises EmptyDataError when no row is left, ModelError when the
    tokenizer cannot do it.
    """
    conversational = is_conversational(rows)
    prompt_ids, whole_ids = _encode_messages(rows, tokenizer) if conversational else _encode_text(rows, tokenizer)
    starts = [common_prefix_length(short, long) for short, long in zip(prompt_ids, whole_ids, strict=True)]
    prompts = [np.array(ids[:start], dtype=np.int32) for ids, start in zip(whole_ids, starts, strict=True)]
    completions = [np.array(ids[start:], dtype=np.int32) for ids, start in zip(whole_ids, starts, strict=True)]
    fitting = [number for number, prompt in enumerate(prompts) if len(prompt) < max_length and len(completions[number])]
    metrics = _token_metrics(rows, prompt_ids, prompts, completions, fitting, max_length, tokenizer.eos_token_id)
    if not fitting:
        full, empty = (sum(metrics[f"skipped_{why}"].values()) for why in ("over_long_prompt", "without_completion"))
        raise EmptyDataError(
            f"{part}: none of {rows.height:,} rows has room for a completion: {full:,} prompts have {max_length:,} or more "
            f"tokens, {empty:,} completions have none (row_id {named(rows['row_id'])}). Raise max_length, or drop long prompts."
        )
    chosen = rows[fitting]
    groups = chosen["prompt_group"].to_list()
    return TokenRows(
        row_id=tuple(chosen["row_id"]),
        label=chosen["label"].to_numpy(),
        weight=chosen["weight"].to_numpy(),
        p_desirable=chosen["p_desirable"].to_numpy(),
        # without groups from dedupe, rows with exactly the same prompt tokens are a group
        group=tuple(
            group or xxhash.xxh3_128_hexdigest(prompts[number].tobytes()) for group, number in zip(groups, fitting, strict=True)
        ),
        prompt=tuple(prompts[number] for number in fitting),
        completion=tuple(completions[number][: max_length - len(prompts[number])] for number in fitting),
        max_length=max_length,
    ), metrics


def joined(first: TokenRows, second: TokenRows) -> TokenRows:
    """The rows of both in one table, those of `second` numbered after those of `first`."""
    return TokenRows(
        row_id=first.row_id + second.row_id,
        label=np.concatenate([first.label, second.label]),
        weight=np.concatenate([first.weight, second.weight]),
        p_desirable=np.concatenate([first.p_desirable, second.p_desirable]),
        group=first.group + second.group,
        prompt=first.prompt + second.prompt,
        completion=first.completion + second.completion,
        max_length=first.max_length,
    )


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading tokens that both have in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _encode_text(rows: pl.DataFrame, tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    end = tokenizer.eos_token
    if end is None:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path!r} has no end-of-sequence token, so a completion could not say where it ends."
        )
    prompts = rows["prompt"].to_list()
    ended = [text if text.endswith(end) else text + end for text in rows["completion"]]
    wholes = [prompt + completion for prompt, completion in zip(prompts, ended, strict=True)]
    return tokenizer(prompts)["input_ids"], tokenizer(wholes)["input_ids"]


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
    """A turn of a shard as a template takes it: no nulls, calls as objects, and their arguments too, where they are JSON."""
    message = {key: value for key, value in turn.items() if value is not None}
    if not message.get("tool_calls"):
        return message
    calls = message["tool_calls"]
    message["tool_calls"] = [_call(call) for call in (json.loads(calls) if isinstance(calls, str) else calls)]
    return {"content": ""} | message  # many templates look for it


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        with suppress(ValueError):
            function["arguments"] = json.loads(function["arguments"])
    return call | {"function": function}


def template_options(row: dict[str, Any]) -> dict[str, Any]:
    """What a row's template is given beside its messages: `tools`, and all of `chat_template_kwargs`; either may be JSON text."""
    given = {name: row[name] for name in TEMPLATE_FIELDS if row.get(name)}
    loaded = {name: json.loads(value) if isinstance(value, str) else value for name, value in given.items()}
    more = loaded.pop("chat_template_kwargs", {})
    # a null is a column's way to say that a row has none: None would be an answer to `enable_thinking is defined`
    return loaded | {name: value for name, value in more.items() if value is not None}


def _options_of(row: dict[str, Any]) -> dict[str, Any]:
    try:
        options = template_options(row)
    except (ValueError, AttributeError) as error:
        raise DataError(f"row_id {row['row_id']}: {' or '.join(TEMPLATE_FIELDS)} cannot be read: {error}. {_FORM}") from error
    if not isinstance(options.get("tools", []), list):
        raise DataError(f"row_id {row['row_id']}: tools is {type(options['tools']).__name__}. {_FORM}")
    return options


def _render(tokenizer: Any, messages: list[dict[str, Any]], options: dict[str, Any], *, add_generation_prompt: bool) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=True, **options
    )["input_ids"]
    return ids


def _token_metrics(
    rows: pl.DataFrame,
    prompt_ids: list[list[int]],
    prompts: list[Ids],
    completions: list[Ids],
    fitting: list[int],
    max_length: int,
    end: int | None,
) -> dict[str, Any]:
    labels, row_ids = rows["label"].to_list(), rows["row_id"].to_list()
    skipped = sorted(set(range(rows.height)) - set(fitting))
    too_long = {number for number in skipped if len(prompts[number]) >= max_length}
    cut = [number for number in fitting if len(prompts[number]) + len(completions[number]) > max_length]
    return {
        "rows": len(fitting),
        "skipped_over_long_prompt": _per_label(labels[number] for number in too_long),
        # a chat template may render a completion to nothing
        "skipped_without_completion": _per_label(labels[number] for number in set(skipped) - too_long),
        "skipped_row_ids": [row_ids[number] for number in skipped],
        "cut_completions": _per_label(labels[number] for number in cut),
        "cut_row_ids": [row_ids[number] for number in cut],
        # the prompt alone was encoded differently than before its completion: tokens merge, or the template differs
        "moved_boundaries": sum(len(prompts[number]) < len(prompt_ids[number]) for number in fitting),
        # text has no template that could be given them
        "template_fields_unused": 0 if is_conversational(rows) else _with_template_fields(rows),
        "without_end_token": sum(end not in completions[number].tolist() for number in fitting),
        "prompt_tokens": sum(len(prompts[number]) for number in fitting),
        "completion_tokens": sum(min(len(completions[n]), max_length - len(prompts[n])) for n in fitting),
    }


def _with_template_fields(rows: pl.DataFrame) -> int:
    given = rows.select(name for name in TEMPLATE_FIELDS if name in rows.columns)
    return sum(any(value and value not in ("{}", "[]") for value in row) for row in given.iter_rows())


def _per_label(labels: Any) -> dict[str, int]:
    counts = Counter(labels)
    return {"desirable": counts[True], "undesirable": counts[False]}
