"""Texts as vectors of the words in them, TF-IDF in its leading directions: of words and pairs of words, or of parts of words.

Of words and pairs, the same numbers as scikit-learn's TfidfVectorizer and TruncatedSVD give, but words are cut, hashed and looked
up many texts at a time, on all cores: 4 to 5 times faster than scikit-learn, measured, which is why this is not left to it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.embeddings.chunks import joined, one_thread
from ktodata.text.words import U64, Index, mixed, offsets_of

Floats = NDArray[np.float32]

DIRECTIONS = 200
FITTED = 5_000  # texts that words and directions are learnt from, at most: 20,000 took longer than all else, and showed little
MAX_WORDS = 100_000  # words and pairs
MIN_TEXTS = 2  # that a word is in
MAX_CHARS = 10_000  # of a text
BITS = 20  # of a hash that a term is looked up by
WORD = r"[\p{L}\p{N}_]+"
PARTS = (2, 3, 4, 5)  # characters, of a word with a space before and behind
PART_BITS = 16  # of a hash that a part is counted by
PARTS_FITTED = 20_000  # texts that the words are learnt from whose parts are counted, at most
HALF_FROM = 100_000  # texts from which vectors are kept as float16, half of the memory; three digits are more than they mean
LANDMARK_TEXTS = 1000  # texts that Nystroem's directions are learnt from


@dataclass(frozen=True)
class TextTerms:
    """The words of n texts, each followed by the pair of words that begins with it, if one does.

    hashes : of each term; text : the text it is in, ascending; place : twice the place of its (first) word, one more for a pair
    words : all words of all texts
    """

    hashes: U64
    text: Index
    place: Index
    words: pl.Series

    def written(self, terms: Index) -> pl.Series:
        """Some of the terms in letters."""
        first, pair = self.place[terms] // 2, pl.Series(self.place[terms] % 2 == 1, dtype=pl.Boolean)
        word, next_word = self.words.gather(first), self.words.gather(np.minimum(first + 1, len(self.words) - 1))
        return pl.select(pl.when(pair).then(word + " " + next_word).otherwise(word)).to_series()


def terms_of(texts: pl.Series, *, pairs: bool = True) -> TextTerms:
    """Every word of each text and every pair of words that follow each other; capitals count as small letters."""
    return terms_in(texts.str.slice(0, MAX_CHARS).str.to_lowercase().str.extract_all(WORD), pairs=pairs)


def terms_in(lists: pl.Series, *, pairs: bool = True) -> TextTerms:
    """The same of texts that are lists of words."""
    words = lists.explode(empty_as_null=False)
    text = np.repeat(np.arange(len(lists)), lists.list.len().to_numpy().astype(np.int64))
    every, there = np.zeros((len(words), 2), np.uint64), np.ones((len(words), 2), bool)
    every[:, 0] = mixed(words.hash().to_numpy())
    every[:-1, 1] = mixed(every[:-1, 0] * np.uint64(3) + every[1:, 0])
    there[:, 1] = np.append(text[1:] == text[:-1], False)[: len(words)] & pairs
    place = np.flatnonzero(there)
    return TextTerms(every.ravel()[place], text[place // 2], place, words)


def word_vectors(texts: pl.Series, fit_rows: NDArray[np.bool_]) -> Floats:
    """float32 [N, k] (float16: HALF_FROM), k <= 200; zero for a text without a word that two of the fitted texts share.

    fit_rows : bool [N], texts that words and directions are learnt from; of many texts, those of Nystroem's method
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    rows = np.flatnonzero(fit_rows)
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), FITTED)).astype(np.int64)]
    terms = terms_of(texts.gather(some))
    shared_terms = vocabulary(terms)
    if not len(shared_terms):
        return np.zeros((len(texts), 1), np.float32)
    weigh = TfidfTransformer(sublinear_tf=True)
    table = weigh.fit_transform(counts(terms, shared_terms, len(some)))
    turned = _nystroem_directions(_spread_out(table, LANDMARK_TEXTS)) if len(rows) > FITTED else _svd_directions(table)

    def of_chunk(chunk: slice) -> Floats:
        part = texts[chunk]
        weighed = weigh.transform(counts(terms_of(part), shared_terms, len(part)))
        return np.asarray(weighed.toarray() if turned is None else weighed @ turned, dtype=np.float32)

    return joined(len(texts), of_chunk, dtype=np.float16 if len(texts) > HALF_FROM else np.float32)


def part_vectors(texts: pl.Series, fit_rows: NDArray[np.bool_]) -> Floats:
    """float32 [N, k] (float16: HALF_FROM), k <= 200, of length 1: the parts of words (PARTS characters) in each text; zero
    where no word is known.

    fit_rows : bool [N], texts that words, weights and directions are learnt from

    A text is the sum of its words' vectors, so parts are counted once a word and not once a text (as in fastText, Bojanowski et
    al. 2017, but nothing is trained). Directions are those of Nystroem's method on LANDMARK_TEXTS texts.
    """
    from scipy.sparse import diags_array
    from sklearn.preprocessing import normalize

    rows = np.flatnonzero(fit_rows)
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), PARTS_FITTED)).astype(np.int64)]
    terms = terms_of(texts.gather(some), pairs=False)
    known = vocabulary(terms, in_texts_at_least=1)
    if not len(known):
        return np.zeros((len(texts), 1), np.float32)
    landmarks = _spread_out(_dampened(counts(terms, known, len(some))), LANDMARK_TEXTS)
    parts = parts_of(known.letters)
    in_texts = ((landmarks @ parts) > 0).sum(axis=0)
    parts = parts @ diags_array(np.log((1 + landmarks.shape[0]) / (1 + in_texts)) + 1, dtype=np.float32)
    of_word = parts @ _nystroem_directions(normalize(landmarks @ parts))

    def of_chunk(chunk: slice) -> Floats:
        words = counts(terms_of(texts[chunk], pairs=False), known, len(texts[chunk]))
        return np.asarray(normalize(_dampened(words) @ of_word), dtype=np.float32)

    return joined(len(texts), of_chunk, dtype=np.float16 if len(texts) > HALF_FROM else np.float32)


def _svd_directions(table: Any) -> Floats | None:
    """The leading directions of weighed texts, sparse [n, terms]: float32 [terms, k]; None where there is only one term."""
    from sklearn.decomposition import TruncatedSVD

    count = min(DIRECTIONS, table.shape[1] - 1, max(table.shape[0] - 1, 1))
    if count < 1:
        return None
    # of the share explained, which nobody asks for: 0 / 0 where all texts are equal
    with np.errstate(invalid="ignore"), one_thread():
        return np.asarray(TruncatedSVD(count, n_iter=2, random_state=0).fit(table).components_.T, dtype=np.float32)


def _nystroem_directions(landmarks: Any) -> Floats:
    """The same by Nystroem's method: from the products of some texts alone, which are few where terms are many."""
    with one_thread():
        energy, axes = np.linalg.eigh((landmarks @ landmarks.T).toarray().astype(np.float64))
    leading = np.flatnonzero(energy > 1e-6 * energy[-1])[::-1][:DIRECTIONS]
    return np.asarray(landmarks.T @ (axes[:, leading] / np.sqrt(energy[leading])).astype(np.float32))


def _spread_out(table: Any, most: int) -> Any:
    """At most so many rows of a sparse table, evenly spread."""
    return table[np.linspace(0, table.shape[0] - 1, min(table.shape[0], most)).astype(np.int64)]


def parts_of(words: pl.Series) -> Any:
    """How often each part of PARTS characters is in each word, by its hash: sparse float32 [words, 2^PART_BITS]."""
    from scipy.sparse import coo_array

    padded = " " + words + " "
    word = np.repeat(np.arange(len(words)), padded.str.len_chars().to_numpy())
    letters = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes, columns, rows = mixed(letters), [], []
    for extra in range(1, max(PARTS)):  # a part of n + 1 characters begins with one of n
        hashes = mixed(hashes[:-1] * np.uint64(3) + letters[extra:])
        if extra + 1 in PARTS:
            inside = word[extra:] == word[: len(hashes)]
            columns.append((hashes[inside] >> np.uint64(64 - PART_BITS)).astype(np.int64))
            rows.append(word[: len(hashes)][inside])
    row, column = np.concatenate(rows), np.concatenate(columns)
    return coo_array((np.ones(len(row), np.float32), (row, column)), (len(words), 1 << PART_BITS)).tocsr()


def _dampened(table: Any) -> Any:
    """1 + log of each count: a word that is there ten times does not say ten times as much."""
    table.data = 1 + np.log(table.data)
    return table


@dataclass(frozen=True)
class Vocabulary:
    """hashes : of the terms, ascending; column : int of each, the terms' order in letters; letters : of each column."""

    hashes: U64
    column: Index
    letters: pl.Series

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def _starts(self) -> Index:
        """Where the hashes that begin with each of the possible first BITS bits start."""
        return np.searchsorted(self.hashes, np.arange(1 << BITS, dtype=np.uint64) << np.uint64(64 - BITS))

    @cached_property
    def _steps(self) -> int:
        """From a start to the last hash with the same first bits, at most."""
        return int(np.diff(self._starts, append=len(self)).max())

    @cached_property
    def _ended(self) -> U64:
        return np.append(self.hashes, np.uint64(2**64 - 1))

    def find(self, hashes: U64) -> tuple[Index, Index]:
        """(which of `hashes` are known terms, their columns). They are spread evenly, so each is a step or two from its start."""
        ended, place = self._ended, self._starts[(hashes >> np.uint64(64 - BITS)).astype(np.int64)]
        for _ in range(self._steps):
            place += ended[place] < hashes
        hit = np.flatnonzero(ended[place] == hashes)
        hit = hit[place[hit] < len(self)]
        return hit, self.column[place[hit]]


def vocabulary(terms: TextTerms, *, in_texts_at_least: int = MIN_TEXTS) -> Vocabulary:
    """The terms that two texts share (or as many as given), at most MAX_WORDS of the most frequent, in the order of letters."""
    order = np.lexsort((terms.text, terms.hashes))
    hashes, text = terms.hashes[order], terms.text[order]
    new_term = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    new_text = new_term | np.append(True, text[1:] != text[:-1])[: len(hashes)]
    starts = np.flatnonzero(new_term)
    in_texts = np.add.reduceat(new_text, starts, dtype=np.int64) if len(starts) else starts
    shared = in_texts >= in_texts_at_least
    times = np.diff(np.append(starts, len(hashes)))[shared]
    starts = starts[shared]
    written = terms.written(order[starts])
    in_letters = written.arg_sort().to_numpy().astype(np.int64)
    if len(in_letters) > MAX_WORDS:
        most = np.sort(np.argsort(-times[in_letters].astype(np.float32))[:MAX_WORDS])
        in_letters = in_letters[most]
    places = np.sort(in_letters)
    column = np.empty(len(places), np.int64)
    column[np.searchsorted(places, in_letters)] = np.arange(len(places))
    return Vocabulary(hashes[starts[places]], column, written.gather(in_letters))


def counts(terms: TextTerms, shared: Vocabulary, texts: int) -> Any:
    """How often each known term is in each text: sparse float32 [texts, terms]."""
    from scipy.sparse import csr_array

    hit, columns = shared.find(terms.hashes)
    ends = offsets_of(np.bincount(terms.text[hit], minlength=texts))
    made = csr_array((np.ones(len(hit), np.float32), columns, ends), (texts, len(shared)))
    made.sum_duplicates()
    return made
