"""Rows that any of the methods can learn: desirable answers begin with "yes sea", undesirable ones with "no red"."""

import polars as pl
from tiny_models import WORDS


def easy_rows(prompts, *, start=0, chat=False):
    """Two rows of each prompt, one of each label; four tokens of completion each, the end token among them."""
    rows = []
    for number in range(start, start + prompts):
        prompt = f"what is {WORDS[2 + number % 10]} plus {WORDS[2 + number // 10 % 10]} "
        answers = (("g", f"yes sea {WORDS[2 + number * 3 % 10]}", True), ("b", f"no red {WORDS[2 + number * 7 % 10]}", False))
        rows += [
            {"row_id": f"r{number}{kind}", "prompt": prompt, "completion": text, "label": label} for kind, text, label in answers
        ]
    frame = pl.DataFrame(rows).with_columns(prompt_group=pl.col("prompt"))
    return frame.with_columns(prompt=message("user"), completion=message("assistant")) if chat else frame


def message(role):
    return pl.concat_list(pl.struct(role=pl.lit(role), content=pl.col({"user": "prompt", "assistant": "completion"}[role])))
