"""What a tokenizer and its chat template make of the rows: mark-up left in texts, turns and characters that are lost.

code    what is wrong
KD012   a text holds the mark-up of a chat template, or a special token of the tokenizer
KD013   the chat template leaves out a system or user turn, or refuses a conversation
KD014   the tokenizer has no token for some characters and writes its unknown token
KD015   the tokenizer has no end token

They count and say; no row is dropped for them, as what to do depends on where the rows come from.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ktodata.findings import Finding, issue, not_applicable, passed

# what is left where a transcript was cut with its template's mark-up; the name is what is shown
MARKUP = {
    "<|im_start|>": r"<\|im_(?:start|end|sep)\|>",
    "[INST]": r"\[/?INST\]|<</?SYS>>",
    "<start_of_turn>": r"<(?:start|end)_of_turn>",
    "<|start_header_id|>": r"<\|(?:start_header_id|end_header_id|eot_id|begin_of_text|end_of_text)\|>",
    "<|user|>": r"<\|(?:user|assistant|system|endoftext|end)\|>",
    "### Human:": r"(?m)^### ?(?:Human|Assistant|User|System|Instruction|Response|Input):",
    "Human: ... Assistant:": r"(?s)(?:^|\n\n)Human: .*\n\nAssistant:",
}
RENDERED_ROLES = ("system", "user")
WORDS_NAMED = 10
BATCH = 1000


def check_markup(feedback: pl.DataFrame, tokenizer: Any | None) -> Finding:
    """KD012: a text holds the mark-up of a chat template, or a special token of the tokenizer."""
    if feedback.is_empty():
        return not_applicable("KD012", "the table has no rows")
    patterns = dict(MARKUP)
    for token in () if tokenizer is None else tokenizer.all_special_tokens:
        if not any(re.search(pattern, token) for pattern in MARKUP.values()):
            patterns[token] = re.escape(token)
    marks = {
        name: feedback.select(pl.any_horizontal(pl.col("prompt", "completion").str.contains(pattern))).to_series()
        for name, pattern in patterns.items()
    }
    counts = {name: int(rows.sum()) for name, rows in marks.items() if rows.any()}
    if not counts:
        return passed("KD012")
    rows = int(pl.select(pl.any_horizontal(marks[name] for name in counts)).to_series().sum())
    text = f"{rows:,} of {feedback.height:,} rows hold mark-up of a chat template as text: {_counts_text(counts)}."
    return issue("KD012", f"{text} Export the turns as messages (or read them with transcripts: true), or cut the mark-up.", rows)


def check_template(feedback: pl.DataFrame, tokenizer: Any | None, templated: Sequence[str | None]) -> Finding:
    """KD013: the chat template leaves out a system or user turn, or refuses a conversation."""
    if tokenizer is None or not tokenizer.chat_template:
        return not_applicable("KD013", "no tokenizer with a chat template is given")
    lost: Counter[str] = Counter()
    rows = 0
    for turns, text in zip(feedback["turns"].to_list(), templated, strict=True):
        problems = set() if turns is None else _template_problems(turns, text)
        lost.update(problems)
        rows += bool(problems)
    # a plain prompt becomes one turn of a user, which is the same for all of them
    probe = [{"role": "user", "content": "What is this?"}]
    is_plain = feedback["turns"].is_null()
    if is_plain.any() and (problems := _template_problems(probe, rendered(probe, tokenizer, {}))):
        lost.update(dict.fromkeys(problems, int(is_plain.sum())))
        rows += int(is_plain.sum())
    if not lost:
        return passed("KD013")
    return issue("KD013", f"of {feedback.height:,} rows the chat template loses something: {_counts_text(lost)}.", rows)


def check_unknown(feedback: pl.DataFrame, tokenizer: Any | None) -> Finding:
    """KD014: the tokenizer has no token for some characters and writes its unknown token."""
    if tokenizer is None:
        return not_applicable("KD014", "no tokenizer is given")
    # a tokenizer of bytes knows every text: its unknown token is another of its special tokens
    if tokenizer.unk_token_id in (None, tokenizer.eos_token_id, tokenizer.bos_token_id):
        return passed("KD014")
    words = feedback.select("row_id", word=pl.concat_str("prompt", "completion", separator=" ").str.split(" ")).explode("word")
    different = words["word"].drop_nulls().unique(maintain_order=True)
    unknown = _unknown_words(different.filter(different != ""), tokenizer)
    rows = words.filter(pl.col("word").is_in(unknown))["row_id"].n_unique()
    if not rows:
        return passed("KD014")
    examples = ", ".join(repr(word[:20]) for word in unknown[:WORDS_NAMED])
    text = f"{rows:,} of {feedback.height:,} rows hold text that becomes {tokenizer.unk_token!r}, e.g. {examples}."
    return issue("KD014", f"{text} The model neither reads nor writes it.", rows)


def check_end_token(tokenizer: Any | None) -> Finding:
    """KD015: the tokenizer has no end token, so that no completion could say where it ends."""
    if tokenizer is None:
        return not_applicable("KD015", "no tokenizer is given")
    if tokenizer.eos_token_id is not None:
        return passed("KD015")
    return issue(
        "KD015", f"the tokenizer {tokenizer.name_or_path!r} has no end token: a model trained with it never learns to stop."
    )


def rendered(
    turns: list[dict[str, Any]], tokenizer: Any, options: dict[str, Any], *, add_generation_prompt: bool = True
) -> str | None:
    """What the chat template writes of the turns, given its `options`; None where it refuses them."""
    options = options | {"tokenize": False}
    try:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, **options))
    # templates are programs: many take no system turn, no tools, or only turns that alternate, and they raise what they like
    except Exception:
        return None


def _template_problems(turns: Sequence[Mapping[str, Any]], text: str | None) -> set[str]:
    if text is None:
        return {"conversations refused"}
    gone = [turn["role"] for turn in turns if turn["role"] in RENDERED_ROLES and (turn["content"] or "").strip() not in text]
    return {f"{role} turns left out" for role in gone}


def _unknown_words(words: pl.Series, tokenizer: Any) -> list[str]:
    batches = [words.slice(start, BATCH).to_list() for start in range(0, len(words), BATCH)]
    encoded = ((batch, tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]) for batch in batches)
    pairs = ((word, ids) for batch, all_ids in encoded for word, ids in zip(batch, all_ids, strict=True))
    return [word for word, ids in pairs if tokenizer.unk_token_id in ids and tokenizer.unk_token not in word]


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
