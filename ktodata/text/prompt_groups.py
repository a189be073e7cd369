"""Prompts that belong together: what must stand on one side of a split, and a search for what does not."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import xxhash

from ktodata.errors import DataError
from ktodata.feedback import PARTS, check_columns
from ktodata.text.near_duplicates import SimilarPairs, near_texts, prepare
from ktodata.text.words import Index, normalised

SHORTEST_SEQUEL = 3  # turns: a question, its answer and what was said next


def components(left: Index, right: Index, size: int) -> Index:
    """For each of `size` things the smallest thing that it is linked to by pairs, over any number of steps."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    _, member_of = connected_components(links, directed=False)
    smallest = np.full(size, size)
    np.minimum.at(smallest, member_of, np.arange(size))
    return np.asarray(smallest[member_of], dtype=np.int64)


def leaders(left: Index, right: Index, size: int) -> Index:
    """For each of `size` things, numbered from the eldest, the one that its line began with: itself where no elder one is near,
    else the leader of the eldest near one. left < right. (Leader clustering: Hartigan 1975, Clustering Algorithms, chapter 3.)

    Unlike a component it hangs on elder things alone, so nothing that comes later changes it.
    """
    leader = np.arange(size)
    np.minimum.at(leader, right, left)
    while not np.array_equal(leader, leader[leader]):
        leader = leader[leader]
    return leader


def continued(feedback: pl.DataFrame, number: Index) -> tuple[Index, Index]:
    """Pairs of prompts, left < right, of which one is the other with its judged answer and what was said next: verdicts on
    several turns of one conversation. On two sides of a split an answer that is held out would stand in a prompt trained on.

    feedback : prompt, completion and, where conversations were read, turns and answer. number : int [N], of each row's prompt
    """
    if "turns" not in feedback.columns or not (feedback["turns"].list.len() >= SHORTEST_SEQUEL).any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    pairs, numbers = set[tuple[int, int]](), [int(each) for each in number]
    sequels: dict[bytes, set[int]] = {}
    for turns, prompt in zip(feedback["turns"], numbers, strict=True):
        for begun in _begun(turns) if turns is not None and len(turns) >= SHORTEST_SEQUEL else ():
            sequels.setdefault(begun, set()).add(prompt)
    answers = feedback.select(pl.coalesce(pl.col("^answer$").struct.field("content"), "completion")).to_series()
    for text, turns, answer, prompt in zip(feedback["prompt"], feedback["turns"], answers, numbers, strict=True):
        before = [text] if turns is None else [turn["content"] for turn in turns]
        pairs |= {(prompt, other) for other in sequels.get(_digest([*before, answer]), ()) if other != prompt}
    both = np.sort(np.array(sorted(pairs), np.int64).reshape(-1, 2), axis=1)
    return both[:, 0], both[:, 1]


def _begun(turns: pl.Series) -> Iterator[bytes]:
    """Digests of a conversation up to each answer in it."""
    whole = xxhash.xxh3_128()
    for turn in turns:
        whole.update(_framed(turn["content"]))
        if turn["role"] == "assistant":
            yield whole.digest()


def _digest(texts: Sequence[str]) -> bytes:
    return xxhash.xxh3_128(b"".join(map(_framed, texts))).digest()


def _framed(text: str) -> bytes:
    """The text with its length, so that where one ends and the next begins is part of what is compared."""
    content = text.strip().encode(errors="replace")
    return len(content).to_bytes(8) + content


def first_of(keys: pl.Series) -> Index:
    """For each value the place where it stands first."""
    frame = keys.rename("key").to_frame().with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64))
    return frame.select(pl.col("place").min().over("key"))["place"].to_numpy().astype(np.int64)


def different(keys: Index) -> tuple[Index, Index]:
    """From the place where each value stands first: the places of the different values, and which of them each value is."""
    places, which = np.unique(keys, return_inverse=True)
    return places, which.astype(np.int64)


def find_leaks(feedback: pl.DataFrame, *, near_prompts: float = 0.8, ignore_case: bool = True, seed: int = 0) -> pl.DataFrame:
    """Search a split for prompts that stand, equal or nearly so, on two sides of it. Works on any split, not only on ours.

    feedback : row_id, prompt and part (one of PARTS; rows without a part are left out).

    Returns row_id, part, prompt's nearest on the other side as other_row_id, other_part, and similarity (0 to 1, 1 the same
    words): one line for every held-out row and every near prompt of an earlier part, naming the row with that prompt whose
    row_id is smallest. In the order of row_id: the order of the rows changes nothing.
    """
    check_columns(feedback, ("row_id", "prompt", "part"), who="find_leaks")
    rows = feedback.select("row_id", "prompt", "part").filter(pl.col("part").is_not_null()).sort("row_id")
    if unknown := sorted(set(rows["part"].unique()) - set(PARTS)):
        raise DataError(f"find_leaks: part holds {', '.join(map(repr, unknown))}; it may hold {', '.join(PARTS)}.")
    texts = rows.select(normalised(pl.col("prompt"), ignore_case=ignore_case))["prompt"]
    places, prompt = different(first_of(texts))
    pairs = near_texts(prepare(texts.gather(places), templates=True, seed=seed), near_prompts)
    return _across(rows.with_columns(prompt=pl.Series(prompt)), _both_ways(pairs, len(places)))


def _both_ways(pairs: SimilarPairs, prompts: int) -> pl.DataFrame:
    """prompt, other, similarity for each pair in both directions, and for each prompt with itself."""
    same = np.arange(prompts)
    return pl.DataFrame(
        {
            "prompt": np.concatenate([pairs.left, pairs.right, same]),
            "other": np.concatenate([pairs.right, pairs.left, same]),
            "similarity": np.concatenate([pairs.similarity, pairs.similarity, np.ones(prompts)]),
        }
    )


def _across(rows: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    rows = rows.with_columns(
        rank=pl.col("part").replace_strict({part: rank for rank, part in enumerate(PARTS)}, return_dtype=pl.Int8)
    )
    firsts = rows.unique(["prompt", "rank"], keep="first", maintain_order=True)
    firsts = firsts.select(other="prompt", other_row_id="row_id", other_part="part", other_rank="rank")
    return (
        rows.with_row_index("place")
        .filter(pl.col("rank") > 0)
        .join(near, on="prompt")
        .join(firsts, on="other")
        .filter(pl.col("other_rank") < pl.col("rank"))
        .sort("place", "similarity", "other_rank", "other", descending=[False, True, False, False])
        .select("row_id", "part", "other_row_id", "other_part", "similarity")
    )
