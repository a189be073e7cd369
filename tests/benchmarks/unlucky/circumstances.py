"""The same rows under other threads, hash seed, locale, time zone, working directory, order and cut into files: the same run."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from unlucky.forks import call
from unlucky.sample import contents, make_home

# what a process knows from its start on
FRESH = {
    "two threads": {"OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "2"},
    "hash seed": {"PYTHONHASHSEED": "12345"},
    "locale": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
}
OTHERS = ("as it is", "time zone", "working directory", "rows shuffled", "cut into 7 files")
NAMES = (*OTHERS, *FRESH)
# where a record was read is said of it, and by all that holds it; pages are drawn in a fresh process only
DATA = ("ledger.parquet", "model/model.safetensors")
PAGES = ("report.html", "README.md")


def run_under(home: Path, name: str) -> dict[str, str]:
    """{file: digest} of a run under that circumstance, pages left out; of other orders and files, ledger, shards and model."""
    shutil.rmtree(home, ignore_errors=True)
    make_home(home)
    if name in ("rows shuffled", "cut into 7 files"):
        _refile(home, name)
    words = ("run", home / "recipe.yaml", "--out", home / "run", "--quiet")
    if name in FRESH:
        command = [sys.executable, "-c", "from ktodata.cli import main; main()", *map(str, words)]
        subprocess.run(command, check=True, env={**os.environ, **FRESH[name]})
    else:
        ended = call(*words, before=lambda: _go(home, name))
        if ended.code:
            raise SystemExit(f"{name}: {ended.err[-1000:]}")
    left = {file: of for file, of in contents(home / "run").items() if file not in PAGES}
    if name not in OTHERS[3:]:
        return left | _rows(home)
    return {file: left[file] for file in left if file in DATA} | _rows(home)


def _rows(home: Path) -> dict[str, str]:
    """A digest of each shard's rows, but for the name of the file that a row was read from."""
    tables = {file: pq.read_table(file, use_threads=False) for file in sorted((home / "run/shards").glob("*.parquet"))}
    return {f"shards/{file.name}": repr(table.drop_columns(["source"]).to_pylist()) for file, table in tables.items()}


def _go(home: Path, name: str) -> None:
    if name == "time zone":
        os.environ["TZ"] = "Pacific/Kiritimati"
        time.tzset()
    if name == "working directory":
        (home / "elsewhere").mkdir()
        os.chdir(home / "elsewhere")


def _refile(home: Path, name: str) -> None:
    lines = (home / "feedback.jsonl").read_text().splitlines(keepends=True)
    if name == "rows shuffled":
        random.Random(1).shuffle(lines)
        (home / "feedback.jsonl").write_text("".join(lines))
        return
    (home / "feedback.jsonl").unlink()
    for part in range(7):
        (home / f"feedback-{part}.jsonl").write_text("".join(lines[part::7]))
    recipe = json.loads((home / "recipe.yaml").read_text())
    recipe["ingest"]["paths"] = "feedback-*.jsonl"
    (home / "recipe.yaml").write_text(json.dumps(recipe))


def differing(first: dict[str, str], left: dict[str, str]) -> list[str]:
    """The files that are not the same; what is left of some files only is compared with those."""
    compared = set(first) if len(left) > len(first) / 2 else left.keys()
    return sorted(file for file in {*compared, *left} if first.get(file) != left.get(file))
