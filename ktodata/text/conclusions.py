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
    short = _short_ends(texts).rank("dense").to_numpy()
    alike: NDArray[np.bool_] = short[left] == short[right]
    for pair in np.flatnonzero(alike & (left != right)):
        text, other = texts[int(left[pair])], texts[int(right[pair])]
        alike[pair] = not ends_otherwise(text, other) and not begins_otherwise(text, other)
    return alike


def _short_ends(texts: pl.Series) -> pl.Series:
    """Of a text with several sentences or lines the first and the last one, each where it is short."""
    ends = [_ends(text) for text in texts.str.replace_all(rf"{MARKS}|_", "").str.to_lowercase()]
    words = pl.element().filter(pl.element().str.contains(r"[\p{L}\p{N}]"))
    frame = pl.DataFrame(ends, schema={"first": pl.String, "last": pl.String}, orient="row")
    frame = frame.with_columns(pl.all().str.extract_all(WORD).list.eval(words))
    short = [
        pl.when(pl.col(end).list.len() <= most).then(pl.col(end).list.join(" ")).otherwise(pl.lit(""))
        for end, most in (("first", SHORT_BEGINNING), ("last", SHORT_END))
    ]
    return frame.select(pl.concat_str(short, separator="\n")).to_series()


def _ends(text: str) -> tuple[str, str]:
    """The first sentence or line and the last one; empty where there are no two."""
    sentences = [sentence for sentence in SENTENCE_ENDS.split(text) if any(map(str.isalnum, sentence))]
    return (sentences[0], sentences[-1]) if len(sentences) > 1 else ("", "")


def ends_otherwise(left: str, right: str) -> bool:
    """Whether the last words differ, and neither text is how the other one begins."""
    words, others = (re.findall(r"[^\W_]+", text.lower()) for text in (left, right))
    both = min(len(words), len(others))
    return words[-1:] != others[-1:] and words[:both] != others[:both]


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
