"""Prompts whose answers a program checks: how many the model before training and the trained one get past it, paired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.digests import code_digest, digest
from ktodata.evaluate.generation import answer_all, encode_prompts
from ktodata.evaluate.instructions import instructions_kept, read_instructions
from ktodata.extras import require
from ktodata.files import one_at_a_time, read_parquet, whole_file
from ktodata.models import cache_dir, model_digest
from ktodata.stats.bootstrap import bootstrap, difference, weighted_mean

MODELS = ("base", "trained")
ANSWERED = {
    "item": pl.Int64(),
    "prompt": pl.String(),
    "base": pl.String(),
    "trained": pl.String(),
    "base_passes": pl.Boolean(),
    "trained_passes": pl.Boolean(),
}
TOGETHER = 32  # prompts answered in one pass
NEEDS_LANGUAGE = ("language:", "change_case:english")


def read_checked_prompts(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """As `read_instructions`. Raises what that raises, and MissingExtraError where an answer's language would have to be told."""
    prompts, facts = read_instructions(path)
    if prompts["instructions"].str.contains_any([f'"{name}' for name in NEEDS_LANGUAGE]).any():
        require("langdetect", what="checking the language of answers", extra="compare")
    return prompts, facts


def without_trained(prompts: pl.DataFrame, trained: pl.DataFrame) -> pl.DataFrame:
    """The prompts that are not the last turn of a training row's prompt, but for capitals and spaces."""
    if trained.is_empty():
        return prompts
    last = pl.col("prompt") if trained.schema["prompt"] == pl.String else pl.col("prompt").list.last().struct.field("content")
    return prompts.join(trained.select(same=_plain(last)).unique(), left_on=_plain(pl.col("prompt")), right_on="same", how="anti")


def write_answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, chat: bool, max_new_tokens: int, device: Any
) -> pl.DataFrame:
    """A greedy answer to each prompt: text, unfinished (was cut off). chat : through the tokenizer's chat template"""
    ids = encode_prompts(prompts, tokenizer, chat=chat)
    written = answer_all(model, tokenizer, ids, max_new_tokens=max_new_tokens, device=device, batch_size=TOGETHER)
    return written.select("text", "unfinished")


@dataclass(frozen=True)
class BaseAnswers:
    """What a base model answers, kept on disk: runs that are compared have one base, and it answers the same prompts alike."""

    place: Path

    @classmethod
    def of(cls, model: str, made_by: Sequence[Any], prompts: Sequence[str]) -> "BaseAnswers":
        """made_by : what the answers depend on beside the model, as its name stands for it now, the code here and the prompts"""
        key = digest(model_digest(model), code_digest(__name__), list(map(str, made_by)), list(prompts))
        return cls(cache_dir() / "base-answers" / f"{key}.parquet")

    def once(self, write: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """What `write` gives: text, unfinished. Of several processes one writes them, and the others wait for it."""
        with one_at_a_time(self.place):
            try:
                return read_parquet(self.place).select("text", "unfinished")
            except (OSError, pl.exceptions.PolarsError):
                answers = write()
            with whole_file(self.place) as scratch:
                answers.write_parquet(scratch)
        return answers


def check_answers(prompts: pl.DataFrame, answers: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Whether each model's answer keeps to all instructions of its prompt: columns of ANSWERED.

    One that was cut off passes nothing, as nobody knows how it goes on.

    prompts : item, prompt, instructions, as `read_instructions` gives them; answers : text, unfinished by model, of MODELS
    """
    texts = prompts.with_columns(answers[name]["text"].alias(name) for name in MODELS)
    for name in MODELS:
        kept = [all(instructions_kept(*line)) for line in texts.select("instructions", name).iter_rows()]
        texts = texts.with_columns((pl.Series(kept, dtype=pl.Boolean) & ~answers[name]["unfinished"]).alias(f"{name}_passes"))
    return texts.select(*ANSWERED)


def measure_answers(checked: pl.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Share of prompts that each model passes, in [0, 1], and trained - base, paired; 95 % intervals, resampling prompts."""
    base, trained = (weighted_mean(checked[f"{name}_passes"]) for name in MODELS)
    statistics = {"base": base, "trained": trained, "gain": difference(trained, base)}
    return {
        name: interval.as_dict()
        for name, interval in bootstrap(statistics, checked["item"], resamples=resamples, seed=seed).items()
    }


def _plain(text: pl.Expr) -> pl.Expr:
    return text.cast(pl.String).str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
