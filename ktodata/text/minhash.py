"""Which of n texts may be near-duplicates, without comparing all with all: MinHash signatures and banded buckets.

Own code, as whole columns are hashed at a time and what crowded buckets leave out is counted. Seconds and memory by rows are in
what tests/benchmarks/dedupe_scaling.py leaves.

Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec et al., "Mining of Massive Datasets", chapter 3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktodata.text.words import U64, Index, Ragged, blocks, distinct, mixed

Signatures = NDArray[np.uint32]

HASHES = 128
_EMPTY = np.uint32(0xFFFFFFFF)
_BLOCK_VALUES = 32_000  # a quarter of a megabyte: stays in the processor's cache while all hashes pass over it

# In a bucket of more than SMALL_BUCKET texts each is compared with the bucket's first text and with NEIGHBOURS others that stand
# next to it when the bucket is sorted by the rest of the signature; pairs that are left out are counted.
SMALL_BUCKET = 32
NEIGHBOURS = 8


@dataclass(frozen=True)
class Candidates:
    """Pairs left < right that share a bucket, sorted. skipped: pairs of crowded buckets left out, counted once a bucket."""

    left: Index
    right: Index
    skipped: int


def signatures(shingles: Ragged, *, seed: int) -> Signatures:
    """uint32 [n, HASHES]: the chance that two texts agree in one place is the Jaccard similarity of their sets of shingles.

    shingles : hashed, spread over all 64 bits; repeats change nothing, as the least of them counts. An empty set has the largest
    value everywhere, so that the minimum of two signatures is the signature of the union.
    """
    random = np.random.default_rng(seed)
    flips = random.integers(0, 1 << 32, HASHES, dtype=np.uint32)
    factors = random.integers(0, 1 << 32, HASHES, dtype=np.uint32) | np.uint32(1)
    result = np.full((len(shingles), HASHES), _EMPTY)
    filled = np.flatnonzero(shingles.lengths)
    for start, stop in blocks(shingles.lengths[filled], _BLOCK_VALUES, _BLOCK_VALUES):
        rows = filled[start:stop]
        first = shingles.offsets[rows[0]]
        values = (shingles.values[first : shingles.offsets[rows[-1] + 1]] >> np.uint64(32)).astype(np.uint32)
        begins = shingles.offsets[rows] - first
        for place, (flip, factor) in enumerate(zip(flips, factors, strict=True)):
            result[rows, place] = np.minimum.reduceat((values ^ flip) * factor, begins)
    return result


def rows_per_band(threshold: float) -> int:
    """The most signature places a band can have so that a pair of just this similarity is found in 99 of 100 cases."""
    fits = [rows for rows in range(1, 17) if 1 - (1 - threshold**rows) ** (HASHES // rows) >= 0.99]
    return max(fits, default=1)


def candidate_pairs(signature: Signatures, *, threshold: float, apart: U64, order_by: tuple[Signatures, ...] = ()) -> Candidates:
    """The pairs that agree in at least one band.

    apart : texts that differ in this are never a pair (their numbers differ, say).
    order_by : signatures by which crowded buckets are sorted, taken in turn; the signature itself when none are given.
    """
    width = rows_per_band(threshold)
    filled = np.flatnonzero((signature != _EMPTY).any(axis=1))
    packed, skipped = [np.zeros(0, np.uint64)], 0
    for band, first in enumerate(range(0, HASHES - width + 1, width)):
        keys = _band_keys(signature[filled, first : first + width], apart[filled])
        sorter = (order_by or (signature,))[band % max(len(order_by), 1)]
        pairs, left_out = _pairs_in_buckets(keys, filled, sorter[:, (first + width) % HASHES])
        packed.append(pairs)
        skipped += left_out
    unique = distinct(np.concatenate(packed))
    return Candidates((unique >> np.uint64(32)).astype(np.int64), (unique & np.uint64(0xFFFFFFFF)).astype(np.int64), skipped)


def _band_keys(band: Signatures, apart: U64) -> U64:
    keys = mixed(apart)
    for column in band.T:
        keys = mixed(keys + column)
    return keys


def _pairs_in_buckets(keys: U64, texts: Index, sorter: NDArray[np.uint32]) -> tuple[U64, int]:
    """Pairs of texts with equal keys, packed into one number each, and how many were left out of crowded buckets."""
    _, bucket, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(sizes[bucket] > 1)
    shared = shared[np.lexsort((texts[shared], sorter[texts[shared]], bucket[shared]))]
    bucket, members = bucket[shared], texts[shared]
    if not len(members):
        return np.zeros(0, np.uint64), 0
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    counts = np.diff(np.r_[starts, len(bucket)])
    crowded = np.repeat(counts > SMALL_BUCKET, counts)
    firsts = np.repeat(np.minimum.reduceat(members, starts), counts)
    pairs = [_pack(firsts[crowded], members[crowded])]
    near = np.arange(len(members))
    for step in range(1, SMALL_BUCKET):
        near = near[: np.searchsorted(near, len(members) - step)]
        near = near[bucket[near] == bucket[near + step]]
        if step > NEIGHBOURS:
            near = near[~crowded[near]]
        if not len(near):
            break
        pairs.append(_pack(members[near], members[near + step]))
    packed = distinct(np.concatenate(pairs))
    return packed, int((counts * (counts - 1) // 2).sum()) - len(packed)


def _pack(left: Index, right: Index) -> U64:
    low, high = np.minimum(left, right), np.maximum(left, right)
    packed = (low.astype(np.uint64) << np.uint64(32)) | high.astype(np.uint64)
    return np.asarray(packed[low != high], dtype=np.uint64)
