"""A small run to be unlucky with: its feedback, model and recipes, and what of a folder is the same in every run of it."""

import hashlib
import json
import random
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

WORDS = "what is one two three four five six seven eight nine ten red blue green sea sky yes no maybe".split()  # noqa: SIM905
# seconds, memory, threads, what was there in a cache, and what hangs on them: digests of files that hold them
CHANGING = frozenset(
    [
        "seconds",
        "training_seconds",
        "scoring_seconds",
        "estimate",
        "peak_mb",
        "started",
        "finished",
        "cached",
        "tokens_per_second",
        "activation_cache",
        "threads",
        "from_cache",
        "pass_tokens",
        "changed",
        "of_training",
        "digest",
        "key",
        "made_of",
        "artefacts",
        "bytes",
        "machine",
        "digest_of_this",
        "siblings",
        "at",
    ]
)
IN_A_PAGE = (
    r"of_training</bdi></th><td><bdi>\w+",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC",
    r'<td class="n">[\d.,]+(<span class="quiet"> \(earlier\)</span>)?</td></tr>',
)
UNREAD = (".lock", "log.jsonl", "train.key.json")  # nothing reads them once a training is over


def make_home(folder: Path, *, rows: int = 90, seed: int = 0) -> Path:
    """`folder` with feedback.jsonl, a model of two layers, recipe.yaml and rounds.yaml (self-training, with verdicts.csv)."""
    from tests.support.tiny_models import save_tiny_llama

    folder.mkdir(parents=True, exist_ok=True)
    save_tiny_llama(folder / "tiny")
    write_feedback(folder / "feedback.jsonl", rows, seed)
    plan = recipe(folder / "tiny")
    rounds = {"name": "rounds", "self_training": {"rounds": 1}, "reviews": "verdicts.csv"}
    (folder / "recipe.yaml").write_text(json.dumps(plan))
    (folder / "rounds.yaml").write_text(json.dumps({**plan, **rounds}))
    return folder


def write_feedback(place: Path, rows: int, seed: int) -> None:
    draw = random.Random(seed)
    lines = [
        {
            "prompt": f"what is {' '.join(draw.choices(WORDS, k=6))}",
            "completion": " ".join(draw.choices(WORDS, k=3)) + (" yes" if n % 3 else " no"),
            "label": n % 3 > 0 if draw.random() > 0.1 else n % 3 == 0,
        }
        for n in range(rows)
    ]
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))


def recipe(model: Path) -> dict[str, Any]:
    """Reads, deals, audits, exports, trains and evaluates. Paths start at the recipe."""
    return {
        "name": "unlucky",
        "ingest": {"paths": "feedback.jsonl"},
        "steps": [
            *("validate", "dedupe", {"split": {"validation": 0.2, "test": 0.2}}),
            {"embed": {"model": "packaged:wordllama-256", "cache": False}},
            {"label_noise": {"folds": 3, "repeats": 1, "noise_injection": 0.0}},
        ],
        "train": {"model": str(model), "epochs": 1, "batch_size": 8, "save_every_steps": 2},
        "evaluate": {"generate": 0, "bootstrap": 100},
    }


def contents(place: Path) -> dict[str, str]:
    """{file: digest} of what every run of the same rows leaves, but for times; what a killed process left would be in it."""
    if not place.is_dir():
        return {file.name: _steady_digest(file) for file in place.parent.glob(f"*{place.name}*")}
    files = [file for file in place.rglob("*") if file.is_file() and file.name not in UNREAD]
    return {file.relative_to(place).as_posix(): _steady_digest(file) for file in files}


def _steady_digest(file: Path) -> str:
    return hashlib.sha256(_steady(file)).hexdigest()[:16]


def _steady(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix == ".json":
        with suppress(ValueError):  # damaged on purpose
            return json.dumps(without_changing(json.loads(content)), sort_keys=True).encode()
    if file.suffix == ".html":
        text = content.decode()
        for pattern in IN_A_PAGE:
            text = re.sub(pattern, "", text)
        return text.encode()
    if file.suffix == ".sqlite":
        with sqlite3.connect(file) as store:
            names = "row_id, reviewer, verdict, undoes, label, trusted_label, note, blind"
            return repr(store.execute(f"SELECT {names} FROM events ORDER BY id").fetchall()).encode()
    return content


def without_changing(value: Any) -> Any:
    """JSON without times and what hangs on them."""
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if name not in CHANGING}
        of_cache = isinstance(kept.get("reference"), dict)  # elsewhere it is a model's name
        return {name: without_changing(inner) for name, inner in kept.items() if not (of_cache and name == "reference")}
    return [without_changing(inner) for inner in value] if isinstance(value, list) else value
