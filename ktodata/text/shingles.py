"""Texts as sets of hashed shingles (single words and pairs of neighbours), and the true Jaccard similarity of two such sets.

Single words make the shortest texts comparable ("yes" has one shingle, not none); pairs of neighbours tell "dog bites man" from
"man bites dog".
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.text.words import U64, Index, Part, Ragged, blocks, distinct, in_blocks, join_ragged, mixed, offsets_of

# A text keeps at most so many shingles, those of smallest hash. Up to about 2,000 words that is all of them and a similarity is
# exact; beyond, it is estimated with a standard error of at most 0.8 points (sqrt(0.25 / 4096)), and a text of 20 MB takes 32 kB.
SAMPLE = 4096
_HASH_BITS = 48  # the other 16 bits hold the text's place in its block, so that one sort orders and de-duplicates all sets
_BLOCK_WORDS = 300_000
_BLOCK_VALUES = 1_000_000

# A run of so many words in a row that stands in very many different texts is a template, not what the texts are about.
WINDOW = 6
_BUCKET_BITS = 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def shingles(words: Ragged, chosen: NDArray[np.bool_] | None = None) -> Ragged:
    """Each text's shingles, hashed, with repeats; with `chosen` (one flag for each word) only those that hold a chosen word."""
    values = np.empty(2 * len(words.values), np.uint64)
    keep = np.ones(len(values), bool)
    values[::2] = words.values
    values[1:-1:2] = words.values[:-1] * _FACTOR + words.values[1:]
    keep[2 * words.offsets[1:][words.lengths > 0] - 1] = False  # a text's last word has no neighbour
    if chosen is not None:
        keep[::2] &= chosen
        keep[1:-1:2] &= chosen[:-1] | chosen[1:]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    return Ragged(mixed(values[keep]), ends[2 * words.offsets])


def by_block(words: Ragged, chosen: NDArray[np.bool_] | None, work: Callable[[Ragged], Part]) -> list[Part]:
    """`work` on the shingles of each block of texts, on all cores, in order: those of all texts would take 16 bytes a word."""

    def of_block(start: int, stop: int) -> Part:
        first, last = words.offsets[start], words.offsets[stop]
        return work(shingles(words.part(start, stop), None if chosen is None else chosen[first:last]))

    return in_blocks(words.lengths, _BLOCK_WORDS, 1 << (64 - _HASH_BITS), of_block)


def shingle_sets(words: Ragged, chosen: NDArray[np.bool_] | None = None) -> Ragged:
    """Each text's set of shingles, ascending; `chosen` as for `shingles`."""
    return join_ragged(by_block(words, chosen, _sets))


def _sets(repeated: Ragged) -> Ragged:
    text = repeated.owners().astype(np.uint64)
    keys = distinct((text << np.uint64(_HASH_BITS)) | (repeated.values >> np.uint64(64 - _HASH_BITS)))
    return _smallest(keys, len(repeated))


def _smallest(keys: U64, texts: int) -> Ragged:
    """From sorted (text, hash) keys: each text's SAMPLE smallest hashes."""
    owner = (keys >> np.uint64(_HASH_BITS)).astype(np.int64)
    lengths = np.bincount(owner, minlength=texts).astype(np.int64)
    place = np.arange(len(keys)) - offsets_of(lengths)[owner]
    hashes = keys & np.uint64((1 << _HASH_BITS) - 1)
    return Ragged(hashes[place < SAMPLE], offsets_of(np.minimum(lengths, SAMPLE)))


def template_words(words: Ragged) -> NDArray[np.bool_]:
    """One flag for each word: it stands in a run of WINDOW words that very many different texts share.

    Very many is more than 100 texts, or more than a fifth of them where that is fewer, but always more than 20. Expects
    different texts: a text asked a thousand times is popular, not a template.
    """
    limit = int(np.clip(len(words) // 5, 20, 100))
    starts, runs = windows(words, WINDOW)
    texts = words.owners()[starts]
    bucket = (runs >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
    often = np.bincount(bucket)[bucket] > limit  # few do, and only of these it is asked in how many different texts
    starts, table = starts[often], pl.DataFrame({"text": texts[often], "run": runs[often]})
    common = table.unique().group_by("run").len().filter(pl.col("len") > limit)["run"]
    hits = starts[table["run"].is_in(common.implode()).to_numpy()]
    change = np.bincount(hits, minlength=len(words.values) + WINDOW) - np.bincount(
        hits + WINDOW, minlength=len(words.values) + WINDOW
    )
    return np.asarray(np.cumsum(change)[: len(words.values)] > 0)


def windows(words: Ragged, length: int) -> tuple[Index, U64]:
    """Every run of `length` words inside one text: where it starts in `words.values`, and its hash."""
    last = len(words.values) - length + 1
    if last <= 0:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    text = words.owners()
    starts = np.flatnonzero(text[:last] == text[length - 1 :])
    hashes = np.zeros(last, np.uint64)
    for step in range(length):
        hashes = hashes * _FACTOR + words.values[step : step + last]
    return starts, mixed(hashes[starts])


def jaccard(sets: Ragged, left: Index, right: Index) -> NDArray[np.float64]:
    """|A ∩ B| / |A ∪ B| of the sets of each pair, in [0, 1]; 0 where both are empty. See SAMPLE for very long texts."""
    shared = _shared(sets, left, right)
    size_left, size_right = _comparable_sizes(sets, left, right)
    union = size_left + size_right - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), 0.0))


def _shared(sets: Ragged, left: Index, right: Index) -> Index:
    from scipy.sparse import csr_matrix  # 0.2 s to import, and only needed once there are pairs

    # rows of a sparse matrix are sorted sets, and its product of two rows merges them in compiled code
    ones = np.ones(len(sets.values), np.int8)
    matrix = csr_matrix((ones, sets.values.astype(np.int64), sets.offsets), shape=(len(sets), 1 << _HASH_BITS))
    matrix.has_canonical_format = True
    parts = [np.zeros(0, np.int64)]
    for start, stop in blocks(sets.lengths[left] + sets.lengths[right], _BLOCK_VALUES, len(left)):
        products = matrix[left[start:stop]].multiply(matrix[right[start:stop]])
        parts.append(np.diff(products.indptr).astype(np.int64))
    return np.concatenate(parts)


def _comparable_sizes(sets: Ragged, left: Index, right: Index) -> tuple[Index, Index]:
    """The two sets' sizes, counted up to the hash where the shorter of two samples ends."""
    sizes = sets.lengths
    size_left, size_right = sizes[left], sizes[right]
    sampled = np.flatnonzero((size_left == SAMPLE) | (size_right == SAMPLE))
    if len(sampled):
        end = np.full(len(sets), (1 << _HASH_BITS) - 1, np.uint64)
        full = sizes == SAMPLE
        end[full] = sets.values[sets.offsets[1:][full] - 1]
        limit = np.minimum(end[left[sampled]], end[right[sampled]])
        size_left[sampled] = _count_up_to(sets, left[sampled], limit)
        size_right[sampled] = _count_up_to(sets, right[sampled], limit)
    return size_left, size_right


def _count_up_to(sets: Ragged, which: Index, limit: U64) -> Index:
    """How many values of each set are at most its limit: a binary search in all sets at once."""
    low, high = sets.offsets[which], sets.offsets[which + 1]
    for _ in range(SAMPLE.bit_length()):
        middle = (low + high) // 2
        is_open = low < high
        within = is_open & (sets.values[np.minimum(middle, len(sets.values) - 1)] <= limit)
        low, high = np.where(within, middle + 1, low), np.where(is_open & ~within, middle, high)
    return np.asarray(low - sets.offsets[which])
