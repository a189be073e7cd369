"""The same rows under other threads, hash seed, locale, time zone, working directory, order and cut into files: the same run."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from unlucky.sample import contents, make_home

ENVIRONMENTS = {
    "as it is": {},
    "again": {},
    "one thread": {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "2"},
    "hash seed": {"PYTHONHASHSEED": "12345"},
    "locale": {"LC_ALL": "C", "LANG": "C"},
    "time zone": {"TZ": "Pacific/Kiritimati"},
    "working directory": {},
    "rows shuffled": {},
    "cut into 7 files": {},
}
DATA = ("ledger.parquet", "shards/", "model/model.safetensors")


def try_circumstance(home: Path, name: str) -> dict[str, str]:
    """{file: digest} of a run under that name of ENVIRONMENTS."""
    make_home(home)
    if name in ("rows shuffled", "cut into 7 files"):
        _refile(home, name)
    where = home / "elsewhere" if name == "working directory" else home
    where.mkdir(exist_ok=True)
    words = ("run", home / "recipe.yaml", "--out", home / "run", "--quiet")
    command = [sys.executable, "-c", "from ktodata.cli import main; main()", *map(str, words)]
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENTS[name]}, cwd=where)
    return contents(home / "run")


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


def circumstances(home: Path) -> dict[str, Any]:
    """{circumstance: files that differ from the first's}; of other orders and files, of ledger, shards and model only."""
    first: dict[str, str] = {}
    different = {}
    for name in ENVIRONMENTS:
        shutil.rmtree(home, ignore_errors=True)
        left = try_circumstance(home, name)
        first = first or left
        compared = {*first, *left}
        if name in ("rows shuffled", "cut into 7 files"):
            compared = {file for file in compared if file.startswith(DATA)}
        different[name] = sorted(file for file in compared if first.get(file) != left.get(file))
    return different
