"""Where nearly all words of two texts are the same and what is said is not: in their conclusions, and in how a word begins.

No list of words that turn a meaning has an end. So all words count where an answer says what it comes to, in any language: its
last ones, and those of a very short first sentence. That is for texts in nearly the same words: others may end otherwise and say
the same.
"""

import re
from collections import Counter
from functools import lru_cache
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.text.words import MARKS, WORD, Index

SHORT_END, SHORT_BEGINNING = 8, 4  # words of a sentence that is compared whole
SENTENCE_ENDS = re.compile(r"[.!?…]+[\"'”’)\]*_]*\s+|[。！？।؟\n]+")
AFFIX, SAME_ENDING = 3, 3  # letters of a beginning at most, and of what is the same after it at least
FEW_WORDS = 50  # that only one of two texts has; where there are more, each is not compared with each


def conclude_alike(texts: pl.Series, left: Index, right: Index) -> NDArray[np.bool_]:
    """Of each pair of texts whether they conclude the same and no word of one stands in the other with another beginning."""
    conclusion = _conclusions(texts).rank("dense").to_numpy()
    alike: NDArray[np.bool_] = conclusion[left] == conclusion[right]
    for pair in np.flatnonzero(alike & (left != right)):
        alike[pair] = not begins_otherwise(texts[int(left[pair])], texts[int(right[pair])])
    return alike


def _conclusions(texts: pl.Series) -> pl.Series:
    """A text's last sentence or line where it is short and there are several, else its last word; before it its first one where
    that is very short.
    """
    ends = [_ends(text) for text in texts.str.replace_all(rf"{MARKS}|_", "").str.to_lowercase()]
    frame = pl.DataFrame(ends, schema={"first": pl.String, "last": pl.String, "several": pl.Boolean}, orient="row")
    words = pl.element().filter(pl.element().str.contains(r"[\p{L}\p{N}]"))
    frame = frame.with_columns(pl.col("first", "last").str.extract_all(WORD).list.eval(words))
    first, last, several = pl.col("first"), pl.col("last"), pl.col("several")
    whole = several & (last.list.len() <= SHORT_END)
    beginning = pl.when(several & (first.list.len() <= SHORT_BEGINNING)).then(first.list.join(" ")).otherwise(pl.lit(""))
    ending = pl.when(whole).then(last.list.join(" ")).otherwise(last.list.last().fill_null(""))
    return frame.select(pl.concat_str(beginning, ending, separator="\n")).to_series()


def _ends(text: str) -> tuple[str, str, bool]:
    """The first sentence or line and the last one of a text, and whether they are two."""
    sentences = [sentence for sentence in SENTENCE_ENDS.split(text) if any(map(str.isalnum, sentence))]
    return (sentences[0], sentences[-1], len(sentences) > 1) if sentences else ("", "", False)


def begins_otherwise(left: str, right: str) -> bool:
    """Whether a word stands in the other text with another beginning: safe / unsafe, increase / decrease, Zunahme / Abnahme."""
    words, others = map(_counted, (left, right))
    pairs = product(_letters(words - others), _letters(others - words))
    return any(_same_but_beginning(word, other) for word, other in pairs)


@lru_cache(maxsize=256)  # of many pairs each text stands in several
def _counted(text: str) -> Counter[str]:
    return Counter(text.lower().split())


def _letters(words: Counter[str]) -> list[str]:
    return re.findall(r"[^\W\d_]+", " ".join(words)) if len(words) <= FEW_WORDS else []


def _same_but_beginning(word: str, other: str) -> bool:
    same = 0
    while same < min(len(word), len(other)) and word[-1 - same] == other[-1 - same]:
        same += 1
    beginning = max(len(word), len(other)) - same
    return same >= max(SAME_ENDING, min(len(word), len(other)) / 2) and 0 < beginning <= AFFIX
