"""Texts as token ids of unequal length, one after the other in one array: in memory, or in a file that is mapped."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Numbers = NDArray[np.int64]


class RaggedIds:
    """N texts. Indexed like a list, each is a view of its tokens; nothing is copied, a file's pages are read when looked at."""

    def __init__(
        self, arrays: Sequence[Ids], array_of: NDArray[np.uint8], starts: Numbers, lengths: Numbers, digests: pl.Series
    ) -> None:
        """Text n is arrays[array_of[n]][starts[n] : starts[n] + lengths[n]]; its digest is 16 bytes."""
        self._arrays, self._array_of, self._starts = tuple(arrays), array_of, starts
        self.lengths = lengths  # int64 [N], tokens
        self.digests = digests  # Binary [N], equal where the tokens are

    @classmethod
    def of(cls, texts: Sequence[Ids]) -> "RaggedIds":
        """Copies of these, in memory."""
        ids = np.concatenate([np.zeros(0, np.int32), *texts]).astype(np.int32)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        digests = pl.Series([digest_of(np.asarray(text)) for text in texts], dtype=pl.Binary)
        return cls.within(ids, np.cumsum(lengths) - lengths, lengths, digests)

    @classmethod
    def within(cls, ids: Ids, starts: Numbers, lengths: Numbers, digests: pl.Series) -> "RaggedIds":
        """Texts that stand in one array of tokens."""
        return cls((ids,), np.zeros(len(starts), np.uint8), starts, lengths, digests)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Ids:
        start = self._starts[row]
        ids: Ids = self._arrays[self._array_of[row]][start : start + self.lengths[row]]
        return ids

    def __iter__(self) -> Iterator[Ids]:
        return (self[row] for row in range(len(self)))

    def taken(self, rows: Numbers) -> "RaggedIds":
        """These of them."""
        return RaggedIds(self._arrays, self._array_of[rows], self._starts[rows], self.lengths[rows], self.digests.gather(rows))

    def followed_by(self, other: "RaggedIds") -> "RaggedIds":
        """These, and then the other's."""
        return RaggedIds(
            self._arrays + other._arrays,
            np.concatenate([self._array_of, other._array_of + len(self._arrays)]).astype(np.uint8),
            np.concatenate([self._starts, other._starts]),
            np.concatenate([self.lengths, other.lengths]),
            pl.concat([self.digests, other.digests]),
        )

    def distinct(self) -> tuple[Numbers, Numbers]:
        """(the first row of each different text, in order of appearance; of each row, the number of its text): int64."""
        rows = pl.DataFrame({"digest": self.digests}).with_row_index("row")
        firsts = rows.unique("digest", keep="first", maintain_order=True).with_row_index("number")
        numbers = rows.join(firsts.select("digest", "number"), on="digest", how="left", maintain_order="left")["number"]
        return firsts["row"].cast(pl.Int64).to_numpy(), numbers.cast(pl.Int64).to_numpy()

    def largest(self) -> int:
        """The largest token id in the arrays; 0 where there is none."""
        return max(int(array.max(initial=0)) for array in self._arrays)


def digest_of(ids: Ids) -> bytes:
    """16 bytes that name these tokens."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(ids, dtype=np.int32).data)
