"""Giving groups of rows to the parts of a split: by a hash that nothing else can move, or dealt so that shares are met."""

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from ktodata.feedback import PARTS
from ktodata.text.prompt_groups import different, first_of
from ktodata.text.words import U64, Index


def hash_parts(names: pl.Series, fractions: dict[str, float], *, rest: str, seed: int) -> tuple[pl.Series, list[str]]:
    """The part of each of n names (String, no nulls), by a hash of the name and the seed alone; and parts that had to be filled.

    A part's share of the names is its fraction in expectation, within whatever the hash does not know: labels, sources. Names
    that come or go move no other. Only where the hash leaves a part empty that is due half a name or more, as few names do,
    it is filled with the name of the smallest hash whose part keeps another, until there is one of its own.
    """
    different_names = names.unique()
    hashes = _name_hashes(different_names, seed)
    kinds = [*fractions, rest]
    part_of = np.searchsorted(np.cumsum(list(fractions.values())), hashes / 2.0**64, side="right")
    due = np.array(list(fractions.values())) * len(hashes) >= 0.5
    empty = [number for number in np.flatnonzero(due) if not (part_of == number).any()]
    for number in empty:
        spare = np.flatnonzero(np.bincount(part_of, minlength=len(kinds))[part_of] > 1)
        if len(spare):
            part_of[spare[hashes[spare].argmin()]] = number
    parts = pl.DataFrame({"name": different_names, "part": pl.Series([kinds[number] for number in part_of], dtype=pl.String)})
    part = names.to_frame("name").join(parts, on="name", how="left", maintain_order="left")["part"]
    return part, [kinds[number] for number in empty]


def parts_of_groups(groups: pl.Series, part: pl.Series) -> pl.Series:
    """other_part (String [n]): of rows whose group mostly stands in another part, that part; null for all others.

    The part with most of a group's rows is where it stands; of parts with equally many the first of PARTS.
    """
    rank = pl.col("part").replace_strict({name: rank for rank, name in enumerate(PARTS)}, return_dtype=pl.Int8)
    rows = pl.DataFrame({"group": groups, "part": part}).with_columns(rank=rank, rows=pl.len().over("group", "part"))
    stands = pl.col("part").sort_by("rows", "rank", descending=[True, False]).first().over("group")
    return rows.select(other_part=pl.when(stands != pl.col("part")).then(stands))["other_part"]


def deal_groups(group: pl.Series, strata: Index, fractions: dict[str, float], *, rest: str, seed: int) -> pl.Series:
    """The part of each of n rows: whole groups go to one part, and each part gets its fraction of every stratum.

    group : String [n], no nulls. strata : int [n, k], one column for each way to divide the rows (by label, by source and label)
    whose shares should be kept; codes from 0. fractions : of the parts besides `rest`, which takes what they leave.

    Groups of equal make-up (so many rows of each stratum) are interchangeable, so the work is one step for each different
    make-up, largest groups first. Each part takes of it its fraction, rounded so that what earlier steps gave it too much or
    too little is made good. Which groups those are is decided by a hash of the group's name and the seed, so rows that are added
    later move few of the others, but some (`hash_parts` moves none).
    """
    places, member_of = different(first_of(group))
    names = group.gather(places)
    make_up = _make_up(member_of, strata, len(names))
    kinds, kind_of = np.unique(make_up, axis=0, return_inverse=True)
    order = np.lexsort((_name_hashes(names, seed), kind_of))
    ends = np.cumsum(np.bincount(kind_of, minlength=len(kinds)))
    part_of = np.full(len(names), rest, dtype=object)
    owed = {part: np.zeros(make_up.shape[1]) for part in fractions}
    for kind in np.argsort(-kinds[:, -1], kind="stable"):
        members = order[ends[kind - 1] if kind else 0 : ends[kind]]
        taken = 0
        for part, fraction in fractions.items():
            owed[part] += fraction * len(members) * kinds[kind]
            count = _closest_count(owed[part], kinds[kind], len(members) - taken)
            owed[part] -= count * kinds[kind]
            part_of[members[taken : taken + count]] = part
            taken += count
    return pl.Series("part", part_of[member_of].tolist(), dtype=pl.String)


def _make_up(member_of: Index, strata: Index, groups: int) -> NDArray[np.int64]:
    """Rows of each group in each stratum of each division; the last column is all its rows."""
    columns = []
    for codes in strata.T:
        width = int(codes.max(initial=-1)) + 1
        columns.append(np.bincount(member_of * width + codes, minlength=groups * width).reshape(groups, width))
    return np.column_stack([*columns, np.bincount(member_of, minlength=groups)]).astype(np.int64)


def _name_hashes(names: pl.Series, seed: int) -> U64:
    # the seed is masked: xxHash takes 64 bits
    hashes = [xxhash.xxh3_64_intdigest(name, seed=seed & (1 << 64) - 1) for name in names.cast(pl.Binary).to_list()]
    return np.array(hashes, dtype=np.uint64)


def _closest_count(owed: NDArray[np.float64], kind: NDArray[np.int64], most: int) -> int:
    """How many groups of this make-up come closest to what a part is owed (least squares over its strata)."""
    return int(np.clip(np.floor(owed @ kind / (kind @ kind) + 0.5), 0, most))
