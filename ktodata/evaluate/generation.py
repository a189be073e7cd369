"""What a model writes to prompts, the likeliest token each time; and whether training broke it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from ktodata.errors import ModelError
from ktodata.evaluate.shared_beginning import can_share_beginning, write_with_shared_beginning
from ktodata.models import texts_to_ids
from ktodata.train.data.ragged_ids import Ids
from ktodata.train.data.tokens import TokenRows

MAX_EXAMPLE_CHARACTERS = 1000
ANSWER_BATCH_SIZE = 8
CHECKED_TOKENS = 4  # of two answers, before the faster way is believed
WRITTEN = {"text": pl.String(), "tokens": pl.Int64(), "unfinished": pl.Boolean()}


def choose_prompts(rows: TokenRows, count: int, seed: int) -> list[int]:
    """Numbers of at most `count` rows, each of another prompt group, drawn by `seed`."""
    firsts = np.unique(rows.group_numbers, return_index=True)[1]
    drawn = np.random.default_rng([seed, 2]).permutation(firsts)[:count]
    return sorted(int(row) for row in drawn)


def encode_prompts(prompts: Sequence[str], tokenizer: Any, *, chat: bool) -> list[Ids]:
    """Token ids of each prompt: through the chat template as a user's message, or as plain text.

    Raises ModelError where the tokenizer has no chat template.
    """
    if not chat:
        return [np.array(ids, np.int32) for ids in texts_to_ids(prompts, tokenizer)]
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer {tokenizer.name_or_path!r} has no chat template to ask prompts with.")
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    template_options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    return [np.array(tokenizer.apply_chat_template(turn, **template_options)["input_ids"], np.int32) for turn in turns]


def answer_all(
    model: Any, tokenizer: Any, prompts: Sequence[Ids], *, max_new_tokens: int, device: Any, batch_size: int = ANSWER_BATCH_SIZE
) -> pl.DataFrame:
    """A greedy answer to each prompt, in order: text, tokens, unfinished (was still going on at max_new_tokens)."""
    write = _pick_writer(model, tokenizer, prompts, device)
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # little padding in a batch
    answers: dict[int, list[int]] = {}
    for start in range(0, len(prompts), batch_size):
        chosen = by_length[start : start + batch_size]
        together = [prompts[number] for number in chosen]
        ids_written = write(model, tokenizer, together, max_new_tokens=max_new_tokens, device=device)
        answers.update(zip(chosen, ids_written, strict=True))
    written = [answers[number] for number in range(len(prompts))]
    return pl.DataFrame(
        {
            "text": [tokenizer.decode(ids, skip_special_tokens=True) for ids in written],
            "tokens": [len(ids) for ids in written],
            "unfinished": [len(ids) >= max_new_tokens for ids in written],
        },
        schema=WRITTEN,
    )


def write_greedily(model: Any, tokenizer: Any, prompts: Sequence[Ids], *, max_new_tokens: int, device: Any) -> list[list[int]]:
    """New token ids for each prompt, the likeliest each time, up to and without the end token."""
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end or 0
    width = max(len(ids) for ids in prompts)
    input_ids = torch.full((len(prompts), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for number, ids in enumerate(prompts):  # padded on the left: what is written follows the prompt directly
        input_ids[number, width - len(ids) :] = torch.from_numpy(ids.astype(np.int64))
        mask[number, width - len(ids) :] = 1
    with torch.no_grad():
        written = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=end,
        )
    return [_cut_at_end(ids, end) for ids in written[:, width:].tolist()]


def _pick_writer(model: Any, tokenizer: Any, prompts: Sequence[Ids], device: Any) -> Callable[..., list[list[int]]]:
    """The faster way to write greedily, if it goes on from the shortest and the longest prompt as `generate` does."""
    if len(prompts) > 2 and can_share_beginning(model):
        few = [min(prompts, key=len), max(prompts, key=len)]
        ways = (
            write(model, tokenizer, few, max_new_tokens=CHECKED_TOKENS, device=device)
            for write in (write_greedily, _write_sharing_beginning)
        )
        if next(ways) == next(ways):
            return _write_sharing_beginning
    return write_greedily


def _write_sharing_beginning(
    model: Any, tokenizer: Any, prompts: Sequence[Ids], *, max_new_tokens: int, device: Any
) -> list[list[int]]:
    end = tokenizer.eos_token_id
    return write_with_shared_beginning(model, prompts, end=end, max_new_tokens=max_new_tokens, device=device)


def describe(written: Sequence[Sequence[int]], max_new_tokens: int) -> dict[str, Any]:
    """Shares (fractions of texts) and means over the texts; repeated_trigrams is None when no text has three tokens."""
    repeated = [share for ids in written if (share := repeated_trigrams(ids)) is not None]
    return {
        "texts": len(written),
        "empty": float(np.mean([not ids for ids in written])),
        "unfinished": float(np.mean([len(ids) >= max_new_tokens for ids in written])),
        "mean_tokens": float(np.mean([len(ids) for ids in written])),
        "repeated_trigrams": float(np.mean(repeated)) if repeated else None,
    }


def repeated_trigrams(ids: Sequence[int]) -> float | None:
    """Share of a text's trigrams that occurred in it before, in [0, 1); None under three tokens."""
    trigrams = list(zip(ids, ids[1:], ids[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else None


def examples(tokenizer: Any, rows: TokenRows, chosen: Sequence[int], written: dict[str, list[list[int]]]) -> list[dict[str, str]]:
    """The prompt and what each model wrote to it, as text, cut to MAX_EXAMPLE_CHARACTERS."""
    return [
        {"row_id": rows.row_id[row], "prompt": _decoded(tokenizer, rows.prompt[row].tolist())}
        | {name: _decoded(tokenizer, texts[number]) for name, texts in written.items()}
        for number, row in enumerate(chosen)
    ]


def _cut_at_end(ids: list[int], end: int | None) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text[-MAX_EXAMPLE_CHARACTERS:]
