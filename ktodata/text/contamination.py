"""Training prompts that hold what a model is to be tested on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.text.near_duplicates import NO_PAIRS, SimilarPairs, near_texts, prepare
from ktodata.text.shingles import template_words, windows
from ktodata.text.words import Index, Ragged, normalised, word_hashes

# A run of so many words of an evaluation prompt proves that it was copied (Brown et al. 2020, appendix C, used the same length).
RUN = 13
# A whole evaluation prompt inside a longer prompt is proof from so many words on; "how are you" stands in many prompts by chance.
SHORTEST_WHOLE = 5

_MATCH = {"prompt": pl.Int64, "evaluation": pl.Int64, "match": pl.String, "similarity": pl.Float64}


def contaminated(
    prompts: pl.Series,
    evaluation: Sequence[str],
    *,
    near_prompts: float,
    ignore_case: bool,
    ignore_space: bool = True,
    seed: int,
) -> tuple[pl.DataFrame, SimilarPairs]:
    """Which of the different, normalised `prompts` match an evaluation prompt: the same, nearly the same, or with it inside.

    Returns prompt (place in `prompts`), evaluation (place in the given list), match ("exact", "near", "contains") and similarity
    (0 to 1; null for "contains"): for each prompt its strongest match, ordered by prompt. And the pairs of evaluation prompt
    (left) and prompt (right) that are near.
    """
    exams = pl.DataFrame({"text": pl.Series(evaluation, dtype=pl.String)}).select(
        normalised(pl.col("text"), ignore_case=ignore_case, ignore_space=ignore_space),
        evaluation=pl.int_range(pl.len(), dtype=pl.Int64),
    )
    exams = exams.filter(pl.col("text") != "").unique("text", keep="first", maintain_order=True)
    if exams.is_empty() or prompts.is_empty():
        return pl.DataFrame(schema=_MATCH), NO_PAIRS
    pairs = _near_pairs(prompts, exams, near_prompts, seed)
    matches = pl.concat([_exact_matches(prompts, exams), _near_matches(exams, pairs), _containing_matches(prompts, exams)])
    return matches.unique("prompt", keep="first", maintain_order=True).sort("prompt"), pairs


def _exact_matches(prompts: pl.Series, exams: pl.DataFrame) -> pl.DataFrame:
    table = pl.DataFrame({"text": prompts}).with_columns(prompt=pl.int_range(pl.len(), dtype=pl.Int64))
    same = table.join(exams, on="text", maintain_order="left")
    return same.select("prompt", "evaluation", match=pl.lit("exact"), similarity=pl.lit(1.0)).cast(_MATCH)  # type: ignore[arg-type]


def _near_pairs(prompts: pl.Series, exams: pl.DataFrame, near_prompts: float, seed: int) -> SimilarPairs:
    # evaluation prompts stand first: in a crowded bucket all others are compared with the first
    texts = prepare(pl.concat([exams["text"], prompts.rename("text")]), templates=True, seed=seed)
    pairs = near_texts(texts, near_prompts)
    across = (pairs.left < exams.height) & (pairs.right >= exams.height)
    left, right = pairs.left[across], pairs.right[across] - exams.height
    return replace(pairs, left=left, right=right, similarity=pairs.similarity[across])


def _near_matches(exams: pl.DataFrame, pairs: SimilarPairs) -> pl.DataFrame:
    table = pl.DataFrame({"prompt": pairs.right, "similarity": pairs.similarity})
    table = table.with_columns(evaluation=exams["evaluation"].gather(pairs.left), match=pl.lit("near"))
    return table.sort("similarity", "evaluation", descending=[True, False]).select(*_MATCH).cast(_MATCH)  # type: ignore[arg-type]


def _containing_matches(prompts: pl.Series, exams: pl.DataFrame) -> pl.DataFrame:
    """Prompts that hold a run of RUN words of an evaluation prompt, or all of a shorter one."""
    words = word_hashes(pl.concat([prompts.rename("text"), exams["text"]]))
    telling = ~template_words(words)  # a run that is template from end to end proves nothing
    inside, outside = words.part(0, len(prompts)), words.part(len(prompts), len(words))
    split = words.offsets[len(prompts)]
    tables = [pl.DataFrame(schema={"prompt": pl.Int64, "place": pl.Int64})]
    lengths = np.minimum(outside.lengths, RUN)
    for length in np.unique(lengths[lengths >= SHORTEST_WHOLE]).tolist():
        runs = _runs(outside, telling[split:], length)
        runs = runs.filter((lengths == length)[runs["text"].to_numpy()])
        hits = _runs(inside, telling[:split], length).join(runs.unique("run", keep="first", maintain_order=True), on="run")
        tables.append(hits.select(prompt="text", place="text_right").unique())
    places = exams.select("evaluation").with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64))
    matches = pl.concat(tables).join(places, on="place").sort("prompt", "evaluation")
    return matches.select("prompt", "evaluation", match=pl.lit("contains"), similarity=pl.lit(None)).cast(_MATCH)  # type: ignore[arg-type]


def _runs(words: Ragged, telling: NDArray[np.bool_], length: int) -> pl.DataFrame:
    """text, run (hash) of every run of `length` words that holds at least one telling word."""
    starts, runs = windows(words, length)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(telling)])
    held = before[starts + length] > before[starts]
    text: Index = np.repeat(np.arange(len(words)), words.lengths)[starts]
    return pl.DataFrame({"text": text[held], "run": runs[held]})
