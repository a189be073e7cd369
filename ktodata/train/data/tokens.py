"""Prompt and completion as token ids. A completion's first token and its end token count; the prompt's tokens do not."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import EmptyDataError
from ktodata.stats.joined_groups import joined_groups
from ktodata.train.data.encoding import EncodedRows, encode
from ktodata.train.data.ragged_ids import Ids, Numbers, RaggedIds
from ktodata.train.data.training_rows import COLUMNS, named


@dataclass(frozen=True)
class TokenRows:
    """N rows, ready to be paired and batched. Completions are already cut so that prompt + completion fit max_length."""

    row_id: tuple[str, ...]
    label: NDArray[np.bool_]
    weight: NDArray[np.float64]
    p_desirable: NDArray[np.float64]  # P(truly desirable); the label itself where none was given
    group: tuple[str, ...]  # rows of one group share their prompt, or nearly; as `joined_groups` names them
    prompt: RaggedIds
    completion: RaggedIds
    max_length: int

    def __len__(self) -> int:
        return len(self.row_id)

    @property
    def lengths(self) -> Numbers:
        """Tokens of each row's prompt and completion: int64 [N]."""
        return self.prompt.lengths + self.completion.lengths

    def taken(self, rows: Numbers) -> "TokenRows":
        """These rows, by their numbers."""
        return replace(
            self,
            row_id=tuple(self.row_id[row] for row in rows.tolist()),
            label=self.label[rows],
            weight=self.weight[rows],
            p_desirable=self.p_desirable[rows],
            group=tuple(self.group[row] for row in rows.tolist()),
            prompt=self.prompt.taken(rows),
            completion=self.completion.taken(rows),
        )

    @property
    def group_numbers(self) -> Numbers:
        """The number of each row's group, in order of appearance: int64 [N]. An array of names is as wide as the longest."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(name, len(numbers)) for name in self.group], dtype=np.int64)

    def sequence(self, row: int, partner: int) -> tuple[Ids, int]:
        """(token ids of row's prompt + partner's completion, cut to max_length; where the completion starts)."""
        ids = np.concatenate([self.prompt[row], self.completion[partner]])[: self.max_length]
        return ids, len(self.prompt[row])


def tokenize(rows: pl.DataFrame, tokenizer: Any, *, max_length: int, part: str) -> tuple[TokenRows, dict[str, Any]]:
    """Token ids of every row that fits, in memory, and metrics; as `encode` makes them and `token_rows` puts them together."""
    return token_rows(rows, encode(rows, tokenizer, max_length), max_length=max_length, part=part)


def token_rows(rows: pl.DataFrame, encoded: EncodedRows, *, max_length: int, part: str) -> tuple[TokenRows, dict[str, Any]]:
    """Rows with their tokens, of those that fit, and metrics: what was skipped (with row_id), cut, or does not end.

    rows : row_id, label, weight, p_desirable, prompt_group of the rows encoded. A row whose prompt alone fills max_length, or
    whose completion has no token but its end, is skipped; a completion that does not fit is cut at its end.
    Raises EmptyDataError when no row is left, or no prompt has a token.
    """
    facts = rows.select(COLUMNS).hstack(encoded.rows).with_columns(over_long=pl.col("prompt_tokens") >= max_length)
    fitting = facts.filter(pl.col("kept_tokens") > 0)
    if fitting.is_empty():
        full, empty = facts["over_long"].sum(), (~facts["over_long"]).sum()
        raise EmptyDataError(
            f"{part}: none of {rows.height:,} rows has room for a completion: {full:,} prompts have {max_length:,} or more "
            f"tokens, {empty:,} completions have none but the end's (row_id {named(rows['row_id'])}). Raise max_length, or drop "
            "long prompts; where no text has tokens, the tokenizer does not know its words."
        )
    if fitting["prompt_tokens"].max() == 0:
        raise EmptyDataError(
            f"{part}: none of {fitting.height:,} prompts has a token of its own (row_id {named(fitting['row_id'])}), so that the "
            "model would see no prompt. The tokenizer does not know their words: take the one that belongs to the model."
        )
    prompts, kept = (fitting[name].to_numpy() for name in ("prompt_tokens", "kept_tokens"))
    starts = np.cumsum(kept) - kept
    return TokenRows(
        row_id=tuple(fitting["row_id"]),
        label=fitting["label"].to_numpy(),
        weight=fitting["weight"].to_numpy(),
        p_desirable=fitting["p_desirable"].to_numpy(),
        group=tuple(joined_groups(fitting["prompt_group"], fitting["prompt_digest"].bin.encode("hex"))),
        prompt=RaggedIds.within(encoded.ids, starts, prompts, fitting["prompt_digest"]),
        completion=RaggedIds.within(encoded.ids, starts + prompts, kept - prompts, fitting["completion_digest"]),
        max_length=max_length,
    ), _token_metrics(facts, fitting)


def joined(first: TokenRows, second: TokenRows) -> TokenRows:
    """The rows of both in one table, those of `second` numbered after those of `first`."""
    return TokenRows(
        row_id=first.row_id + second.row_id,
        label=np.concatenate([first.label, second.label]),
        weight=np.concatenate([first.weight, second.weight]),
        p_desirable=np.concatenate([first.p_desirable, second.p_desirable]),
        group=first.group + second.group,
        prompt=first.prompt.followed_by(second.prompt),
        completion=first.completion.followed_by(second.completion),
        max_length=first.max_length,
    )


def _token_metrics(facts: pl.DataFrame, fitting: pl.DataFrame) -> dict[str, Any]:
    skipped, cut = (
        facts.filter(kept_tokens=0),
        fitting.filter(pl.col("prompt_tokens") + pl.col("completion_tokens") > pl.col("kept_tokens")),
    )
    return {
        "rows": fitting.height,
        "skipped_over_long_prompt": _per_label(skipped.filter("over_long")),
        # a chat template may render a completion to nothing, and a tokenizer may leave out what it does not know
        "skipped_without_completion": _per_label(skipped.filter(~pl.col("over_long"))),
        "skipped_row_ids": skipped["row_id"].to_list(),
        "cut_completions": _per_label(cut),
        "cut_row_ids": cut["row_id"].to_list(),
        # the prompt alone was encoded differently than before its completion: tokens merge, or the template differs
        "moved_boundaries": fitting["moved"].sum(),
        # text has no template that could be given them
        "template_fields_unused": facts["fields_unused"].sum(),
        "without_end_token": (~fitting["ended"]).sum(),
        "prompt_tokens": fitting["prompt_tokens"].sum(),
        "completion_tokens": (fitting["kept_tokens"] - fitting["prompt_tokens"]).sum(),
    }


def _per_label(rows: pl.DataFrame) -> dict[str, int]:
    desirable = int(rows["label"].sum())
    return {"desirable": desirable, "undesirable": rows.height - desirable}
