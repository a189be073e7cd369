"""What base and trained model write to held-out prompts: a look at whether training broke the model, not a benchmark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ktodata.train.tokens import Ids, TokenRows

SHOWN_CHARACTERS = 1000


def choose_prompts(rows: TokenRows, count: int, seed: int) -> list[int]:
    """Numbers of at most `count` rows, each of another prompt group, drawn by `seed`."""
    firsts = np.unique(rows.group, return_index=True)[1]
    drawn = np.random.default_rng([seed, 2]).permutation(np.sort(firsts))[:count]
    return sorted(int(row) for row in drawn)


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
    return [_until(ids, end) for ids in written[:, width:].tolist()]


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
    """The prompt and what each model wrote to it, as text, cut to SHOWN_CHARACTERS."""
    return [
        {"row_id": rows.row_id[row], "prompt": _text(tokenizer, rows.prompt[row].tolist())}
        | {name: _text(tokenizer, texts[number]) for name, texts in written.items()}
        for number, row in enumerate(chosen)
    ]


def _until(ids: list[int], end: int | None) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _text(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text[-SHOWN_CHARACTERS:]
