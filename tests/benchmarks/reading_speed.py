"""What reading feedback costs beside polars' own reader of the same file: JSON lines, CSV and Parquet.

    python tests/benchmarks/reading_speed.py [--rows 200000] [--repeats 3] [--beside PATH_OF_ANOTHER_VERSION]

Records have a prompt of 8 to 21 words, a completion of 20 to 59, a label, one of 40 raters, a time, one of three sources, an id.
Each reading runs in a process of its own that has imported what it needs; the readers take turns. Medians; CPU seconds are user and
system time of all threads, which a busy machine changes less than the clock.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine, write_result

READ = """
import json, sys, time
import polars as pl
import ktodata as kd
kd.read
reader, path = sys.argv[1:]
settings = {"rater": "rater", "created_at": "created_at", "source": "source"}
if path.endswith(".csv"):
    settings["label"] = {"column": "label", "values": [["true", True], ["false", False]]}
polars = {"jsonl": pl.read_ndjson, "csv": pl.read_csv, "parquet": pl.read_parquet}[path.rpartition(".")[2]]
cpu, wall = time.process_time(), time.perf_counter()
rows = polars(path).height if reader == "polars" else kd.read(path, **settings).feedback.height
print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall, rows]))
"""


def feedback(rows: int, seed: int = 0) -> pl.DataFrame:
    """Made-up feedback, the same for the same seed."""
    rng = np.random.default_rng(seed)
    words = np.array([f"w{number}{'abcdefg'[: number % 7]}" for number in range(5000)])
    start = datetime(2025, 1, 1, tzinfo=UTC)

    def texts(fewest: int, below: int) -> list[str]:
        return [" ".join(words[rng.integers(0, words.size, length)]) for length in rng.integers(fewest, below, rows)]

    return pl.DataFrame(
        {
            "prompt": texts(8, 22),
            "completion": texts(20, 60),
            "label": rng.random(rows) < 0.6,
            "rater": [f"r{number}" for number in rng.integers(0, 40, rows)],
            "created_at": [f"{start + timedelta(seconds=37 * number):%Y-%m-%dT%H:%M:%SZ}" for number in range(rows)],
            "source": [f"app{number}" for number in rng.integers(0, 3, rows)],
            "id": [f"q-{number}" for number in range(rows)],
        }
    )


def seconds(reader: str, path: Path, package: str) -> tuple[float, float]:
    """(CPU, wall) of one reading."""
    environment = os.environ | {"PYTHONPATH": package}
    answer = subprocess.run(
        [sys.executable, "-c", READ, reader, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    cpu, wall, _ = json.loads(answer.stdout)
    return cpu, wall


def compared(path: Path, packages: dict[str, str], repeats: int) -> dict[str, dict[str, float]]:
    """{reader: medians}; the readers take turns."""
    runs = [{name: seconds(name, path, package) for name, package in packages.items()} for _ in range(repeats)]
    return {
        name: {
            "cpu_s": round(statistics.median(run[name][0] for run in runs), 2),
            "cpu_s_of_each": [round(run[name][0], 2) for run in runs],
            "wall_s": round(statistics.median(run[name][1] for run in runs), 2),
        }
        for name in packages
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--beside", help="a checkout of another version, read with as well")
    options = parser.parse_args()
    here = str(Path(__file__).parents[2])
    packages = {"ktodata": here, "polars": here} | ({"other version": options.beside} if options.beside else {})
    table = feedback(options.rows)
    lengths = {f"{name}_chars": round(table[name].str.len_chars().mean()) for name in ("prompt", "completion")}
    files = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, write in (("jsonl", table.write_ndjson), ("csv", table.write_csv), ("parquet", table.write_parquet)):
            path = Path(scratch, f"feedback.{kind}")
            write(path)
            files[kind] = {"mb": round(path.stat().st_size / 1e6), **compared(path, packages, options.repeats)}
            print(kind, json.dumps(files[kind]), flush=True)
    write_result("reading_speed", {"rows": options.rows, "mean": lengths, "files": files, "load": os.getloadavg(), **machine()})


if __name__ == "__main__":
    main()
