"""Near-duplicate texts among model outputs: seconds, planted copies that are found, texts that are dropped and should not be.

    python tests/benchmarks/near_duplicates.py DATA [--texts 40000] [--copies 10000] [--repeats 3]

DATA: a folder of `*.jsonl.gz` whose records have model outputs. All different outputs of 80 signs or more are taken; up to `--texts`,
the first half of one is joined to the second half of another. A copy is an output with one word in forty changed, left out or added
("words"), or with its mark-up changed ("marks": bold added or removed, bullets turned), or with a number changed ("number", which
must not be taken for a repeat). Half of the copies are of words, a quarter each of the others where a text has any. "dedupe" is what
that stage drops of them: it compares negations, code, options and conclusions, too, and the words of some copies change those.

The peer is rensa 0.5 (`pip install rensa==0.5.0`; left out where it is not there), as its README uses it: words and pairs of
neighbouring words as tokens, 128 permutations, threshold 0.8, 16 bands of 8, one thread, no verification. Both run in turn.
"""

import argparse
import gzip
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from machine import machine, write_result

from ktodata.text.conclusions import conclude_alike
from ktodata.text.near_duplicates import SimilarPairs, near_texts, nearest_kept, prepare
from ktodata.text.words import meaning_key, normalised

FIELDS = ("completion", "chosen", "rejected", "response1", "response2", "output", "answer")
THRESHOLD = 0.8


def outputs(data: Path) -> list[str]:
    """The different outputs of all files, in order."""
    lines = (line for file in sorted(data.glob("*.jsonl.gz")) for line in gzip.decompress(file.read_bytes()).splitlines())
    records = map(json.loads, lines)
    texts = (_text(record.get(field)) for record in records for field in FIELDS)
    return list(dict.fromkeys(text for text in texts if len(text) >= 80))


def _text(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return value if isinstance(value, str) else ""


def joined_halves(real: list[str], count: int, rng: random.Random) -> list[str]:
    """`count` different texts: the real ones, then halves of two of them."""
    texts = dict.fromkeys(real[:count])
    while len(texts) < count:
        first, second = rng.choice(real).split(" "), rng.choice(real).split(" ")
        texts[" ".join(first[: len(first) // 2] + second[len(second) // 2 :])] = None
    return list(texts)


def with_words_changed(text: str, words: list[str], rng: random.Random) -> str:
    """One word in forty, and at least one, replaced, left out, or followed by another; none but words of letters."""
    parts = text.split(" ")
    for _ in range(max(1, len(parts) // 40)):
        place = rng.choice([place for place, word in enumerate(parts) if word.isalpha()] or [0])
        parts[place : place + 1] = rng.choice([[], [rng.choice(words)], [parts[place], rng.choice(words)]])
        parts = parts or [rng.choice(words)]
    return " ".join(parts)


def with_marks_changed(text: str, rng: random.Random) -> str:
    """Bold taken away and bullets turned where there are any, else a word made bold."""
    changed = re.sub(r"^([*+]) ", "- ", text.replace("**", ""), flags=re.MULTILINE)
    if changed != text:
        return changed
    parts = text.split(" ")
    place = rng.randrange(len(parts))
    return " ".join([*parts[:place], f"**{parts[place]}**", *parts[place + 1 :]])


def with_a_number_changed(text: str, rng: random.Random) -> str | None:
    """Another number in the place of one; None where there is none."""
    numbers = list(re.finditer(r"\d+", text))
    if not numbers:
        return None
    number = rng.choice(numbers)
    return f"{text[: number.start()]}{int(number[0]) + rng.randint(1, 9)}{text[number.end() :]}"


def planted(texts: list[str], copies: int, rng: random.Random) -> pl.DataFrame:
    """kind, source (place in `texts`) and text of each copy."""
    words = [word for text in rng.sample(texts, min(2000, len(texts))) for word in text.split(" ") if word.isalpha()]
    rows = []
    for number, source in enumerate(rng.sample(range(len(texts)), copies)):
        kind = ("words", "marks", "words", "number")[number % 4]
        copy = {
            "words": lambda text: with_words_changed(text, words, rng),
            "marks": lambda text: with_marks_changed(text, rng),
            "number": lambda text: with_a_number_changed(text, rng),
        }[kind](texts[source])
        rows.append((kind, source, copy) if copy else ("words", source, with_words_changed(texts[source], words, rng)))
    return pl.DataFrame(rows, schema=["kind", "source", "text"], orient="row")


def near_pairs(texts: pl.Series) -> SimilarPairs:
    folded = texts.to_frame("text").select(normalised(pl.col("text"), ignore_case=True))["text"]
    return near_texts(prepare(folded, templates=False, seed=0), THRESHOLD)


def ours(texts: pl.Series) -> np.ndarray:
    """For each text whether it is a near repeat of a text before it that stays."""
    return nearest_kept(near_pairs(texts), len(texts))[0] >= 0


def as_dedupe(texts: pl.Series) -> np.ndarray:
    """The same by all that the stage compares."""
    pairs = near_pairs(texts)
    among, place = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = place[: len(pairs.left)], place[len(pairs.left) :]
    key = meaning_key(texts.gather(among)).rank("dense").to_numpy()
    same = (key[left] == key[right]) & conclude_alike(texts.gather(among), left, right)
    pairs = replace(pairs, left=pairs.left[same], right=pairs.right[same], similarity=pairs.similarity[same])
    return nearest_kept(pairs, len(texts))[0] >= 0


def rensas(texts: pl.Series) -> np.ndarray:
    """The same by rensa, without verification."""
    from rensa import RMinHash, RMinHashLSH  # type: ignore[import-not-found]

    words = [text.lower().split() for text in texts]
    tokens = [[*of, *map(" ".join, pairwise(of))] for of in words]
    index = RMinHashLSH(THRESHOLD, 128, 16)
    near = np.zeros(len(texts), bool)
    for number, minhash in enumerate(RMinHash.from_token_sets(tokens, 128, 42)):
        near[number] = bool(index.query(minhash))
        if not near[number]:
            index.insert(number, minhash)
    return near


def measured(method: Callable[[pl.Series], np.ndarray], texts: pl.Series) -> tuple[np.ndarray, float, float]:
    """What it gives, CPU seconds, wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    near = method(texts)
    return near, time.process_time() - cpu, time.perf_counter() - wall


def figures_of(near: np.ndarray, copies: pl.DataFrame, real: int) -> dict[str, float]:
    """Share of copies of each kind that are taken for repeats, and how many texts that are no copy."""
    shares = copies.with_columns(near=pl.Series(near[real:])).group_by("kind").agg(pl.col("near").mean())
    return {f"copies_{kind}": round(share, 4) for kind, share in sorted(shares.iter_rows())} | {"others": int(near[:real].sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--copies", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = random.Random(0)
    real = joined_halves(outputs(options.data), options.texts, rng)
    copies = planted(real, options.copies, rng)
    texts = pl.concat([pl.Series("text", real), copies["text"]])
    methods: dict[str, Callable[[pl.Series], np.ndarray]] = {"ktodata": ours, "dedupe": as_dedupe, "rensa": rensas}
    try:
        import rensa  # noqa: F401
    except ImportError:
        del methods["rensa"]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    results: dict[str, dict[str, float]] = {}
    for _ in range(options.repeats):
        for name, method in methods.items():
            near, cpu, wall = measured(method, texts)
            seconds[name].append((cpu, wall))
            results[name] = figures_of(near, copies, len(real))
    for name in methods:
        cpu, wall = (round(median(times), 2) for times in zip(*seconds[name], strict=True))
        results[name] |= {"cpu_s": cpu, "wall_s": wall}
        print(name, results[name])
    words = texts.str.count_matches(r"\S+")
    about = {"texts": len(texts), "copies": dict(copies["kind"].value_counts().iter_rows()), "median_words": words.median()}
    write_result("near_duplicates", {**about, "threshold": THRESHOLD, "methods": results, **machine()})


if __name__ == "__main__":
    main()
