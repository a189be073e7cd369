"""What Dawid and Skene's model makes of raters who only ever say one thing, on drawn votes, beside the majority.

    python tests/benchmarks/one_sided.py [--draws 4]

Ways: votes as they are cast, as in the paper; silence as a third answer of every rater, as weak supervision has it; and ours, without
the raters that `one_sided` names. Of each: the share of rows with votes that it answers, how many of these answers are right, and
how many rows it is sure of (0.95) and wrong.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result
from scipy.special import expit

from ktodata.labels.people.raters import dawid_skene

ROWS, SURE = 600, 0.95
SHARES = (0.5, 0.8, 0.92)  # truly desirable
Cells = np.ndarray  # [rows, raters]: 1 desirable, -1 undesirable, 0 silent
Rng = np.random.Generator


def judges(truth: np.ndarray, rng: Rng, raters: int, right: float = 0.8, sees: float = 0.6) -> Cells:
    """They say what they think of each row that they see."""
    shape = (len(truth), raters)
    says = np.where((rng.random(shape) < right) == truth[:, None], 1, -1)
    return says * (rng.random(shape) < sees)


def clickers(truth: np.ndarray, rng: Rng, raters: int, hit: float = 0.35, slip: float = 0.04, sees: float = 1.0) -> Cells:
    """Every other one clicks where something is good, the others where it is bad; of what they see, and nothing else."""
    side = np.where(np.arange(raters) % 2 == 0, 1, -1)
    fits = np.where(truth, 1, -1)[:, None] == side
    return side * ((rng.random(fits.shape) < np.where(fits, hit, slip)) & (rng.random(fits.shape) < sees))


def panels(cells: Cells, count: int) -> Cells:
    """Rows and raters are dealt into panels, and nobody sees another panel's rows."""
    mine = np.arange(len(cells))[:, None] % count == np.arange(cells.shape[1]) // 2 % count
    return cells * mine


def yes(rng: Rng, raters: int, sees: float) -> Cells:
    return (rng.random((ROWS, raters)) < sees).astype(int)


def strays(cells: Cells, rng: Rng, rate: float = 0.03) -> Cells:
    return np.where(rng.random(cells.shape) < rate, -cells, cells)


KINDS: dict[str, Callable[[np.ndarray, Rng], Cells]] = {
    "5 judges": lambda t, rng: judges(t, rng, 5),
    "400 judges of 5 votes": lambda t, rng: judges(t, rng, 400, sees=5 / ROWS),
    "12 clickers who saw all": lambda t, rng: clickers(t, rng, 12),
    "12 clickers, 3 % strays": lambda t, rng: strays(clickers(t, rng, 12), rng),
    "12 clickers, 10 % strays": lambda t, rng: strays(clickers(t, rng, 12), rng, 0.1),
    "60 clickers who saw a tenth": lambda t, rng: clickers(t, rng, 60, 0.8, 0.1, 0.1),
    "200 clickers of 8 votes": lambda t, rng: clickers(t, rng, 200, 0.8, 0.1, 0.03),
    "24 clickers in 3 panels": lambda t, rng: panels(clickers(t, rng, 24, 0.5, 0.06), 3),
    "3 judges, 8 clickers": lambda t, rng: np.hstack([judges(t, rng, 3), clickers(t, rng, 8)]),
    "6 judges, 8 clickers in 2 panels": lambda t, rng: panels(np.hstack([judges(t, rng, 6), clickers(t, rng, 8)]), 2),
    "3 judges, 5 who say yes": lambda t, rng: np.hstack([judges(t, rng, 3), yes(rng, 5, 0.4)]),
    "80 judges and 80 clickers of 10 votes": lambda t, rng: np.hstack(
        [judges(t, rng, 80, sees=10 / ROWS), clickers(t, rng, 80, 0.8, 0.1, 0.03)]
    ),
}


def majority(cells: Cells) -> np.ndarray:
    return np.asarray((cells > 0).sum(axis=1) / np.maximum((cells != 0).sum(axis=1), 1))


def textbook(cells: Cells, *, silence: bool) -> np.ndarray:
    """EM from the majority, 0.5 of an answer added to each. silence : it is an answer"""
    answers, p = (1, -1, 0) if silence else (1, -1), majority(cells)
    for _ in range(200):
        classes = []
        for weight in (p, 1 - p):
            counts = np.stack([weight @ (cells == answer) + 0.5 for answer in answers])
            logs = np.log(counts / counts.sum(axis=0))
            votes = sum((cells == answer) @ logs[number] for number, answer in enumerate(answers))
            classes.append(votes + np.log(np.clip(weight.mean(), 0.01, 0.99)))
        before, p = p, expit(classes[0] - classes[1])
        if np.abs(p - before).max() < 1e-5:
            break
    return p


def ours(cells: Cells) -> np.ndarray:
    """nan where it has no answer."""
    rows, raters = np.nonzero(cells)
    votes = pl.DataFrame({"row_id": rows.astype(str), "rater": raters.astype(str), "verdict": cells[rows, raters] > 0})
    table, p = dawid_skene(votes).rows, np.full(len(cells), np.nan)
    p[table["row_id"].cast(pl.Int64).to_numpy()] = table["p_desirable"].to_numpy()
    return p


WAYS: dict[str, Callable[[Cells], np.ndarray]] = {
    "majority": majority,
    "votes as cast": lambda cells: textbook(cells, silence=False),
    "silence as an answer": lambda cells: textbook(cells, silence=True),
    "ours": ours,
}


def drawn(kind: str, share: float, draws: int) -> Iterator[tuple[np.ndarray, Cells]]:
    """Truth and votes of the rows with a vote."""
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        truth = rng.random(ROWS) < share
        cells = KINDS[kind](truth, rng)
        voted = (cells != 0).any(axis=1)
        yield truth[voted], cells[voted]


def measured(kind: str, share: float, draws: int) -> dict[str, dict[str, float | None]]:
    """Of each way: answered, right of those, surely wrong; means over draws."""
    result: dict[str, dict[str, float | None]] = {}
    for name, way in WAYS.items():
        answered, right, wrong = [], [], []
        for truth, cells in drawn(kind, share, draws):
            p = way(cells)
            known = np.isfinite(p)
            fits = np.where(p == 0.5, 0.5, (p > 0.5) == truth)
            answered.append(known.mean())
            right += [fits[known].mean()] if known.any() else []
            wrong.append((known & (fits == 0) & (np.maximum(p, 1 - p) > SURE)).mean())
        value = round(float(np.mean(right)), 3) if right else None
        result[name] = {
            "answered": round(float(np.mean(answered)), 3),
            "right": value,
            "surely wrong": round(float(np.mean(wrong)), 3),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for kind in KINDS:
        for share in SHARES:
            name = f"{kind}, {share:.0%} desirable"
            result[name] = measured(kind, share, options.draws)
            print(name, json.dumps(result[name]), flush=True)
    write_result("one_sided", {"draws": options.draws, "kinds": result} | machine())


if __name__ == "__main__":
    main()
