"""Texts as hashed words: what every comparison of texts is made of.

A word is a run of letters and digits; in scripts that put no space between words it is one character; signs that carry meaning
(`+`, `%`, an emoji) are words too, punctuation is not. Words are kept as 64-bit xxHash values, so that texts of any length are
compared in memory linear in their length, and equally on every machine and in every version of polars.
"""

import html
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from ktodata.meter import cores

Part = TypeVar("Part")
U64 = NDArray[np.uint64]
Index = NDArray[np.int64]

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = (
    rf"[{_UNSPACED}]"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]*"
    r"|[[\p{S}%&#@*/]--[`]]"
)
# code that Markdown fences, up to its closing fence or the end; and calls as `formats.turns.plain_turn` writes them
CODE = re.compile(r"(`{3,}|^[ \t]*~{3,}).*?(?:\1|\Z)|<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL | re.MULTILINE)
HOLDS_CODE = "```|~~~|<tool_call>"
INDENTED = r"(?m:^(?: {4}|\t).*\S)"  # a line of code that nothing fences
# What changes a text's meaning however few words it is of: numbers with the signs beside them, and formulas. Signs of mark-up are
# none: emphasis, rulers and tags are taken out first, and a bullet or a stroke between words is no formula. A regular expression
# of polars looks neither ahead nor behind, so operands of a formula are part of what is found.
_HAN_DIGITS = "〇零一二三四五六七八九十百千万萬亿億两兩廿卅壹贰貳叁參肆伍陆陸柒捌玖拾佰仟壱弐参"
_NUMBER = rf"[-\p{{Pd}}]?[\p{{N}}{_HAN_DIGITS}]+(?:[.,:][\p{{N}}{_HAN_DIGITS}]+)*"
_OPERAND = r"[\p{L}\p{N}_.()\[\]]+"
FIGURE = "|".join(
    [
        rf"(?:{_OPERAND} [-+*/×÷^] )+{_OPERAND} ?=",  # length * width =
        rf"= ?{_OPERAND}(?: [-+*/×÷^] {_OPERAND})+",  # = length * width
        rf"[\p{{L}})\]] ?\* ?{_NUMBER}",  # x * 3
        r"\b\p{L} ?[+*/^<>×÷] ?\p{L}\b",  # a*b
        r"\p{L}(?:[+*<>]\p{L}|#)",  # price*amount, C#
        rf"(?:[[\p{{Sm}}\p{{Sc}}/^]--[|=]] ?)?{_NUMBER}(?: ?[[\p{{Sm}}\p{{Sc}}*/^%％‰°]--[|=]]+|['\"’”′″])?",  # < 3 %
        r"\+\+|[-+*/%&^<>=!~:]*=[<>=~]*| [+/<>×÷^] |[\p{Sm}--[+<=>|~]]+",
        r"\\\p{L}+",  # \leq
    ]
)
# Figures whose letters count: a digit or # with the letters beside it (3a, 1.0-alpha, 0xFE, #FFAABB), a sign at a word's end
# (A+, Na-), a box that is ticked or not, struck words, signs that stand for something (★, ♠, ♀, ♭, emoji).
# Boxes and dots rule lines and head them; several side by side are a rating.
_SYMBOL = r"[[\p{So}\p{Sk}]--[`^\p{Emoji_Modifier}\x{2500}-\x{25FF}]]|[\x{25A0}-\x{25FF}]{2,}"
_LETTER = rf"[\p{{L}}_--[{_UNSPACED}]]"
_ALNUM = rf"[\p{{L}}\p{{N}}_--[{_UNSPACED}]]"
WHOLE_FIGURE = "|".join(
    [
        rf"(?:{_LETTER}+[-\x{{2011}}]?)*\p{{N}}{_ALNUM}*(?:[.,:]\p{{N}}{_ALNUM}*|[-\x{{2011}}]{_ALNUM}+)*",
        rf"#{_ALNUM}+",
        rf"{_LETTER}+[-+−]+(?:[\s.,;:!?)\]|]|$)",
        rf"\[[ xX]\]|~~|{_SYMBOL}",
    ]
)
ENTITY = r"&#?\w+;"
IN_EVERY_FIGURE = (
    rf"[\p{{N}}\p{{Sm}}*/^#\\{_HAN_DIGITS}]|{ENTITY}|\p{{L}}[-−](?:[\s.,;:!?)\]|]|$)|\[[ xX]\]|"
    rf"~~|{_SYMBOL}"
)
MARKS = r"\*\*+|={3,}|</?\p{L}+/?>"
DASHES = r"[\p{Pd}−]"
# and a negation, with the word that it is said of: of English, German, French, Spanish, Italian, Portuguese, Dutch, Russian,
# Chinese and Japanese
_NEGATIVE = (
    "not|cannot|no|never|none|nor|neither|nothing|nobody|without|nicht|nichts|kein|keine[mnrs]?|nie|niemals|ohne|weder|ne|pas|jamais|sans|"
    "aucune?|rien|nunca|jamás|sin|ningún|ningun[oa]|nada|non|mai|senza|nessun[oa]?|niente|não|nem|sem|nenhuma?|niet|niets|geen|nooit|zonder|"
    "не|нет|ни|без|никогда|ничего|нельзя"
)
_CONTRACTED = r"n['’]t\b|\b(?:is|are|was|were|do|does|did|has|have|had|ca|wo|could|should|would|must|need|ai)nt\b"
NEGATION = rf"(?:\b(?:{_NEGATIVE})\b|{_CONTRACTED})(?:\W+\w+)?|[不没沒无無非未勿别別].?|ない|なかっ|ません"
FORMS_OF_NOT = rf"^(?:cannot\b|{_CONTRACTED})"
# (A), [b], "b)", B; a lone A or I is a word unless a sign follows. And units: 5 AM, 5 mg (without a vowel; x is no unit)
_OPTION = r"\(\p{L}\)|\[\p{L}\]|\b[A-Z][.):,;\]]|\b[A-Z]$|(?m:^\s*\p{L}[.)]\s)|\b[B-HJ-Z]\b"
_UNIT = r"(?i:\d ?(?:[ap]\.?m|[b-df-hj-np-tvwzµ]{1,3}|x[b-df-hj-np-tvwz]{1,2})\b)"
LETTERS = rf"{_OPTION}|{_UNIT}"
# What case says outside prose: inline code, formulas, a number's unit (5 mW), letters beside digits (3a)
_BESIDE_A_NUMBER = r"\p{N}+\s*\p{L}{1,3}\b"
AS_WRITTEN = rf"`[^`]{{1,200}}`|\$[^$]{{1,200}}\$|\\\p{{L}}+|{_BESIDE_A_NUMBER}|{_LETTER}*\p{{N}}{_ALNUM}*"
INDENTATION = re.compile(r"(?: {2}|\t)\s*\S")
OPERANDS = rf"(\\\p{{L}}+)|[[\p{{L}}_ ]--[{_HAN_DIGITS}]]+"

# Texts are read in blocks of about this size, so that a table of long texts is never split into words all at once.
BLOCK_BYTES = 4_000_000
BLOCK_TEXTS = 1 << 16


@dataclass(frozen=True)
class Ragged:
    """One array of values for each of n texts, end to end: text i has values[offsets[i]:offsets[i + 1]]."""

    values: U64
    offsets: Index

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Index:
        """Number of values of each text."""
        return np.diff(self.offsets)

    def owners(self) -> Index:
        """For each value the text that it is of."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def part(self, start: int, stop: int) -> "Ragged":
        """The texts start..stop - 1."""
        first, last = self.offsets[start], self.offsets[stop]
        return Ragged(self.values[first:last], self.offsets[start : stop + 1] - first)

    def places(self, texts: Index) -> Index:
        """Where in `values` those of these texts stand, text by text."""
        lengths = self.lengths[texts]
        return np.repeat(self.offsets[texts] - offsets_of(lengths)[:-1], lengths) + np.arange(lengths.sum())


def normalised(text: pl.Expr, *, ignore_case: bool, ignore_space: bool = True) -> pl.Expr:
    """The text as two equal texts are compared: Unicode NFC, runs of white space one space, and lower case, where asked.

    What stands in fenced code, or in a tool call, is left as it is: there, indentation and case are part of what is said.
    """
    return text.map_batches(lambda texts: _normalised(texts, ignore_case, ignore_space), return_dtype=pl.String)


def _normalised(texts: pl.Series, ignore_case: bool, ignore_space: bool) -> pl.Series:
    is_ascii = texts.str.len_bytes() == texts.str.len_chars()  # ASCII is NFC, and most texts are ASCII
    if not is_ascii.all():
        others = (~is_ascii).fill_null(value=False)
        texts = texts.scatter(others.arg_true(), texts.filter(others).str.normalize("NFC"))
    folded = _folded(texts, ignore_case, ignore_space)
    holds_code = texts.str.contains(HOLDS_CODE).fill_null(value=False)
    if holds_code.any():
        around = _folded_around_code(texts.filter(holds_code), ignore_case, ignore_space)
        folded = folded.scatter(holds_code.arg_true(), around)
    return folded.str.strip_chars(" ") if ignore_space else folded


def _folded(texts: pl.Series, ignore_case: bool, ignore_space: bool) -> pl.Series:
    texts = texts.str.replace_all(r"\s{2,}|[^\S ]", " ") if ignore_space else texts
    return texts.str.to_lowercase() if ignore_case else texts


def _folded_around_code(texts: pl.Series, ignore_case: bool, ignore_space: bool) -> list[str]:
    pieces = [_pieces(text) for text in texts]
    around = iter(_folded(pl.Series([piece for of in pieces for piece in of[::2]]), ignore_case, ignore_space))
    return ["".join(piece if number % 2 else next(around) for number, piece in enumerate(of)) for of in pieces]


def _pieces(text: str) -> list[str]:
    """What stands around code and the code, in turn: the first and the last are around it, and may be empty."""
    places = [0, *(place for code in CODE.finditer(text) for place in code.span()), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def code_in(texts: pl.Series) -> pl.Series:
    """All code and tool calls of each text, as it was written: what is fenced, then lines that are indented as code."""
    may_hold = texts.str.contains(f"{HOLDS_CODE}|{INDENTED}").fill_null(value=False)
    code = ["\n".join(_code(text)) for text in texts.filter(may_hold)]
    empty = pl.Series([""] * len(texts), dtype=pl.String)
    return empty.scatter(may_hold.arg_true(), code) if code else empty


def _code(text: str) -> list[str]:
    pieces = _pieces(text)
    return pieces[1::2] + [line for around in pieces[::2] for line in re.findall(INDENTED, around)]


def unfolded_form(texts: pl.Series) -> pl.Series:
    """What `normalised` takes from a text, and is more than how prose is set: two that differ in it are two texts.

    That is code as it is written, the case of what stands for something by its case, and lines of which some are indented.
    """
    around = pl.Series(["\0".join(_pieces(text)[::2]) for text in texts], dtype=pl.String)
    cased = around.str.extract_all(AS_WRITTEN).list.join("\0").str.replace_all(r"\s+", " ")
    lines = pl.Series([_indented_lines(text) for text in around], dtype=pl.String)
    parts = pl.DataFrame({"code": code_in(texts), "cased": cased, "lines": lines})
    return parts.select(pl.concat_str(pl.all(), separator="\0").alias(texts.name)).to_series()


def _indented_lines(text: str) -> str:
    """The lines, each with its indentation; nothing where there are no two, or none is indented."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not any(INDENTATION.match(line) for line in lines):
        return ""
    return "\n".join(line[: -len(line.lstrip())] + " ".join(line.split()).lower() for line in lines)


def word_hashes(texts: pl.Series) -> Ragged:
    """The words of each text, in order, hashed."""
    return join_ragged(in_blocks(_bytes(texts), BLOCK_BYTES, BLOCK_TEXTS, lambda start, stop: _hash_block(texts[start:stop])))


def figures(texts: pl.Series) -> U64:
    """One hash for each text of its numbers and formulas, in order. A changed number changes what a text means."""
    parts = in_blocks(
        _bytes(texts),
        BLOCK_BYTES,
        BLOCK_TEXTS,
        lambda start, stop: _hashes(_figures(texts[start:stop])),
    )
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def _figures(texts: pl.Series) -> pl.Series:
    """All of a text's figures, a line each, without the words that are their operands: those are compared as words are."""
    may_hold = texts.str.contains(IN_EVERY_FIGURE).fill_null(value=False)
    plain = _without_entities(texts.filter(may_hold).str.replace_all(MARKS, ""))
    signs = plain.str.extract_all(FIGURE).list.join("\n").str.replace_all(OPERANDS, "$1")
    whole = plain.str.extract_all(WHOLE_FIGURE).list.eval(pl.element().str.strip_chars_end(" \n\t.,;:!?)]|")).list.join("\n")
    none = pl.Series([""], dtype=pl.String).new_from_index(0, len(texts))
    both = (signs + "\0" + whole).str.strip_chars_end("\0").str.replace_all(DASHES, "-")
    return none.scatter(may_hold.arg_true(), both)


def _without_entities(texts: pl.Series) -> pl.Series:
    """&lt; as <: two entities are one word's difference, and the signs that they are may be a formula's."""
    held = texts.str.contains(ENTITY)
    return texts.scatter(held.arg_true(), [html.unescape(text) for text in texts.filter(held)]) if held.any() else texts


def meaning_key(texts: pl.Series) -> pl.Series:
    """What changes a text's meaning however few words it is of: numbers, formulas, options, units, negations, code and calls.

    Two texts are said to be nearly the same only where this is the same of both.
    """
    folded = _normalised(texts, ignore_case=True, ignore_space=True)
    one_form = pl.element().str.replace(FORMS_OF_NOT, "not").str.replace_all(r"[^\p{L}\p{M}\p{N}'’]+", " ").str.strip_chars()
    negations = folded.str.extract_all(NEGATION).list.eval(one_form).list.join("\n")
    letters = texts.str.replace_all(MARKS, "").str.extract_all(LETTERS).list.join("\n")
    keys = pl.DataFrame({"figures": _figures(folded), "letters": letters, "negations": negations, "code": code_in(texts)})
    return keys.select(pl.concat_str(pl.all(), separator="\0").alias(texts.name)).to_series()


def in_blocks(sizes: Index, most: int, most_texts: int, work: Callable[[int, int], Part]) -> list[Part]:
    """work(start, stop) of each block, on all cores; in order."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(lambda block: work(*block), blocks(sizes, most, most_texts)))


def blocks(sizes: Index, most: int, most_texts: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks: about `most` in total size and at most `most_texts` texts in each, never empty."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        full = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + most, side="right"))
        stop = min(max(full, start + 1), start + most_texts, len(sizes))
        yield start, stop
        start = stop


def join_ragged(parts: list[Ragged]) -> Ragged:
    """The texts of all parts, one after the other."""
    values = np.concatenate([np.zeros(0, np.uint64), *(part.values for part in parts)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
    return Ragged(values, offsets_of(lengths))


def offsets_of(lengths: Index) -> Index:
    """Where each text's values start, and after them where the last one's end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def distinct(values: U64) -> U64:
    """The different values, ascending. Several times faster than np.unique, which builds a hash table first."""
    ordered = np.sort(values)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def mixed(values: U64) -> U64:
    """Each value spread over all 64 bits (the last step of SplitMix64): neighbours in, no pattern out."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bytes(texts: pl.Series) -> Index:
    return texts.str.len_bytes().to_numpy().astype(np.int64)


def _hash_block(texts: pl.Series) -> Ragged:
    words = texts.str.extract_all(WORD)
    lengths = words.list.len().to_numpy().astype(np.int64)
    return Ragged(_hashes(words.explode().drop_nulls()), offsets_of(lengths))


def _hashes(strings: pl.Series) -> U64:
    """The xxHash of each string; every different string is hashed once."""
    numbered = strings.cast(pl.Categorical(pl.Categories.random()))  # a number for each different string, in one pass
    different = numbered.unique()
    number = different.to_physical().to_numpy()
    hashes = np.zeros(int(number.max(initial=0)) + 1, np.uint64)
    hashes[number] = [xxhash.xxh3_64_intdigest(value) for value in different.cast(pl.String).cast(pl.Binary).to_list()]
    return np.asarray(hashes[numbered.to_physical().to_numpy()])
