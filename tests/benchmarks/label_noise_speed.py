"""How long label_noise takes beside cleanlab's cross-validation and find_label_issues, and the memory it needs.

    python tests/benchmarks/label_noise_speed.py DATA_FOLDER [--rows 100000] [--memory-rows 1000000] [--repeats 3]

DATA_FOLDER holds the real data sets as published. Rows are made of them, so that texts are as long as real ones: a prompt with one
word changed, and four completions to it, each one that the real prompt got, with a word changed and about a third of its sentences
from other completions of the same set. A row's label is that of the completion it began as; 10 % are flipped. Vectors are those of ENCODER.

Both get the table with vectors, in a process of its own with CORES cores, by turns; making rows and vectors is not timed. Each is
run once on 500 rows before, so that loading libraries is not timed. ktodata runs label_noise at its default settings (five folds,
three fold assignments, 5 % planted). cleanlab runs logistic regression on the embeddings, five folds, and find_label_issues. The
error AUROC, flipped against other labels within one given class, says that both found what they looked for. Peak memory is of the
whole process, table included.
"""

import argparse
import gzip
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from label_noise import cleanlab_recipe
from machine import machine, write_result
from sklearn.metrics import roc_auc_score

import ktodata as kd
from ktodata.feedback import feedback_table

ENCODER = "packaged:wordllama-256"
SETS = ("gsm8k_solutions", "halueval_general", "hh_harmless", "tulu1_human", "xstest")
CORES = 2
FLIPPED = 0.1
TO_A_PROMPT = 4
BORROWED = 1 / 3  # of a completion's sentences
AT_ONCE = 100_000  # rows whose vectors are made at once


def made_up(folder: Path, rows: int, seed: int = 0) -> pl.DataFrame:
    """`rows` rows of feedback, with `flipped`, prompt groups and no vectors yet."""
    rng = np.random.default_rng(seed)
    prompts, sentences = [], {}
    for name in SETS:
        with gzip.open(folder / f"kto_{name}.jsonl.gz", "rt") as lines:
            real = [json.loads(line) for line in lines]
        answers: dict[str, list[tuple[list[str], bool]]] = {}
        for row in real:
            answers.setdefault(row["prompt"], []).append((_sentences(row["completion"]), bool(row["label"])))
        prompts += [(name, prompt.split(" "), found) for prompt, found in answers.items()]
        sentences[name] = [one for found in answers.values() for parts, _ in found for one in parts]
    words = [word for _, parts, _ in prompts for word in parts]
    made: dict[str, list[Any]] = {"prompt": [], "completion": [], "truth": [], "prompt_group": []}
    for group in range(-(-rows // TO_A_PROMPT)):
        name, prompt, answers_to_it = prompts[rng.integers(len(prompts))]
        changed = prompt.copy()
        changed[rng.integers(len(prompt))] = words[rng.integers(len(words))]
        for one in rng.integers(len(answers_to_it), size=TO_A_PROMPT):
            parts, label = answers_to_it[one]
            borrowed, lent = rng.random(len(parts)) < BORROWED, rng.integers(len(sentences[name]), size=len(parts))
            mixed = [sentences[name][other] if new else part for part, new, other in zip(parts, borrowed, lent, strict=True)]
            completion = " ".join(mixed).split(" ")
            completion[rng.integers(len(completion))] = words[rng.integers(len(words))]
            for column, value in zip(made, (" ".join(changed), " ".join(completion), label, f"g{group}"), strict=True):
                made[column].append(value)
    flipped = rng.random(rows) < FLIPPED
    table = pl.DataFrame(made).head(rows).with_columns(flipped=pl.Series(flipped))
    return _as_feedback(table.with_columns(label=pl.col("truth") ^ pl.col("flipped")))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+|\n+", text.strip())


def _as_feedback(table: pl.DataFrame) -> pl.DataFrame:
    table = table.with_columns(
        row_id=pl.int_range(pl.len()).cast(pl.String),
        votes=pl.concat_list(
            pl.struct(rater=pl.lit(None, pl.String), label="label", created_at=pl.lit(None, pl.Datetime("us", "UTC")))
        ),
        source=pl.lit("made up"),
        source_line=pl.int_range(1, pl.len() + 1),
    )
    return pl.concat([feedback_table(), table], how="diagonal")


def write(folder: Path, rows: int, path: Path) -> None:
    table = made_up(folder, rows)
    path.mkdir()
    for start in range(0, rows, AT_ONCE):
        part = table.slice(start, AT_ONCE)
        kd.add_columns(part, kd.embed(part, model=ENCODER, cache=False)).write_parquet(path / f"{start:09}.parquet")


# --- the two that are compared ---------------------------------------------------------------------------------------------------


def ktodata(table: pl.DataFrame, **settings: Any) -> np.ndarray:
    return kd.label_noise(table, **settings).columns["label_quality"].to_numpy()


def cleanlab(table: pl.DataFrame, **_: Any) -> np.ndarray:
    from cleanlab.filter import find_label_issues

    quality, p = cleanlab_recipe(table)
    find_label_issues(table["label"].to_numpy().astype(int), np.stack([1 - p, p], axis=1))
    return quality


ARMS: dict[str, Callable[..., np.ndarray]] = {"ktodata": ktodata, "cleanlab": cleanlab}


def measure(arm: str, path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of one arm in this process, and what it found."""
    table = pl.concat([pl.read_parquet(part) for part in sorted(path.iterdir())], rechunk=True)
    ARMS[arm](table.head(500), **settings)
    before, start, worked = _peak_gb(), time.perf_counter(), time.process_time()
    quality = ARMS[arm](table, **settings)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - worked
    label, flipped = table["label"].to_numpy(), table["flipped"].to_numpy()
    found = [roc_auc_score(flipped[label == given], -quality[label == given]) for given in (False, True)]
    return {
        "arm": arm,
        "rows": table.height,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_gb": _peak_gb(),
        "peak_gb_before": before,
        "error_auroc": round(float(np.mean(found)), 4),
    }


def _peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def apart(arm: str, path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a process of its own, on CORES cores."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), str(CORES))
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    told = subprocess.run(
        [sys.executable, __file__, str(path), "--here", arm, "--settings", json.dumps(settings)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | threads,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    found = json.loads(told.stdout.splitlines()[-1])
    print(json.dumps(found), flush=True)
    return found


def compared(path: Path, repeats: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Both arms by turns, the one that goes first changing; the ratio is that of the medians."""
    runs = [
        apart(arm, path, settings) | {"repeat": repeat}
        for repeat in range(repeats)
        for arm in (list(ARMS) if repeat % 2 == 0 else reversed(ARMS))
    ]
    seconds, cpu = ({arm: [run[of] for run in runs if run["arm"] == arm] for arm in ARMS} for of in ("seconds", "cpu_seconds"))
    each = [ours / theirs for ours, theirs in zip(*seconds.values(), strict=True)]
    return {
        "runs": runs,
        "median_seconds": {arm: median(one) for arm, one in seconds.items()},
        "ratio": round(median(seconds["ktodata"]) / median(seconds["cleanlab"]), 2),
        "ratio_of_cpu_seconds": round(median(cpu["ktodata"]) / median(cpu["cleanlab"]), 2),
        "ratio_low": round(min(each), 2),
        "ratio_high": round(max(each), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000, help="for the comparison; 0 leaves it out")
    parser.add_argument("--memory-rows", type=int, default=1_000_000, help="for one run of label_noise alone; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--settings", type=json.loads, default={}, help="of label_noise, where not the default, as JSON")
    parser.add_argument("--here", choices=ARMS, help="measure one arm on the rows in FOLDER, in this process")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.here, asked.folder, asked.settings)))
        return
    result: dict[str, Any] = {"encoder": ENCODER, "settings": asked.settings}
    with tempfile.TemporaryDirectory() as made:
        if asked.rows:
            write(asked.folder, asked.rows, Path(made, "speed"))
            result["speed"] = compared(Path(made, "speed"), asked.repeats, asked.settings)
            print(json.dumps({name: value for name, value in result["speed"].items() if name != "runs"}), flush=True)
        if asked.memory_rows:
            write(asked.folder, asked.memory_rows, Path(made, "memory"))
            result["memory"] = apart("ktodata", Path(made, "memory"), asked.settings)
    write_result("label_noise_speed", result | machine())


if __name__ == "__main__":
    main()
