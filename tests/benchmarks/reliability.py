"""What a run folder does when it is unlucky: killed at random instants, damaged in many ways, made elsewhere.

    python tests/benchmarks/reliability.py [--kills 500] [--damages 60] [--settings] [--slow] [--seed 0] [--minutes 30]

--minutes ends each campaign early, and the result says how many it came to.

kills : each command is killed (SIGKILL to its process group) after a random share of the time that it takes undisturbed, and given
    again until it ends; what it leaves is compared with what the undisturbed command left, byte for byte but for times.
damages : each kind is a file and what is done to it (gone, empty, cut, a bit turned, another's content, a folder, no text). Every
    command is called on each: it ends in one line that names what is wrong, or its answer is that of the undamaged run; anything
    else is counted as a traceback or as silent use. `run` must give the undamaged folder again.
settings : threads, hash seed, locale, time zone and working directory must leave ledger, shards and model as they are.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from machine import machine, write_result

from ktodata import cli
from ktodata.files import digest_file, read_parquet

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.tiny_models import tiny_llama, word_tokenizer

CHANGING = ("manifest.json", "report.html", "README.md", "done.json", "training.json", "log.jsonl", ".lock", "train.key.json")
WAYS: dict[str, Callable[[Path, bytes], None]] = {
    "gone": lambda file, content: file.unlink(),
    "empty": lambda file, content: file.write_bytes(b""),
    "cut": lambda file, content: _put(file, content[: len(content) // 2]),
    "bit": lambda file, content: _put(file, content[: (at := len(content) // 3)] + bytes([content[at] ^ 1]) + content[at + 1 :]),
    "folder": lambda file, content: (file.unlink(), file.mkdir())[0],
    "no text": lambda file, content: _put(file, b"\xff\xfe\x00{" + content[:40]),
    "longer": lambda file, content: _put(file, content + b"\0" * 100),
}


def _put(file: Path, content: bytes) -> None:
    """Another file of this name: a linked one of the same content stays as it is."""
    file.unlink()
    file.write_bytes(content)


def make_recipe(folder: Path) -> Path:
    """120 rows, a model of two layers, and a recipe that reads, deals, exports, trains and evaluates."""
    tokenizer = word_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    draw = random.Random(0)
    words = "one two three four five six seven eight nine ten red blue green sea sky".split()  # noqa: SIM905
    lines = [
        {"prompt": f"what is {' '.join(draw.choices(words, k=6))}", "completion": "yes" if n % 3 else "no", "label": n % 3 > 0}
        for n in range(120)
    ]
    (folder / "feedback.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = {"model": str(folder / "tiny"), "epochs": 1, "batch_size": 8, "save_every_steps": 2}
    recipe = {
        "name": "unlucky",
        "ingest": {"paths": [str(folder / "feedback.jsonl")]},
        "steps": [
            *("validate", "dedupe", {"split": {"validation": 0.2, "test": 0.2}}),
            {"embed": {"model": "packaged:wordllama-256", "cache": False}},
            {"label_noise": {"folds": 3, "repeats": 1}},
        ],
        "train": train,
        "evaluate": {"generate": 0, "bootstrap": 100},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


def contents(folder: Path) -> dict[str, str]:
    """{file: digest} of all that a run of the same rows leaves again byte for byte; a left scratch file is in it."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in CHANGING]
    return {file.relative_to(folder).as_posix(): digest_file(file) for file in files if "metrics.json" not in file.name}


def without_times(digests: dict[str, str]) -> dict[str, str]:
    """Without what holds seconds."""
    return {name: of for name, of in digests.items() if not name.endswith(("evaluation.json",))}


def call(*words: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["ktodata", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()


# --- damage ----------------------------------------------------------------------------------------------------------------


def commands_on(run: Path, scratch: Path, row_id: str, *, slow: bool) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Every command that reads a run; what it writes goes to `scratch` where it can."""
    yield "explain", ("explain", run, row_id, "--json")
    yield "export", ("export", run, "--out", scratch / "kto.jsonl", "--json")
    yield "push", ("export", run, "--push", "owner/name", "--dry-run", "--json")
    yield "report", ("report", run, "--quiet")
    yield "review", ("review", run, "--export", scratch / "verdicts.csv", "--json")
    yield "train", ("train", run, "--model", run.parent / "tiny", "--out", scratch / "model", "--set", "max_steps=1", "--quiet")
    yield "evaluate", ("evaluate", run, "--set", "generate=0", "--set", "bootstrap=100", "--json")
    if slow:  # they time updates of the model
        yield "compare", ("compare", run, "--dry-run", "--json", "--set", "compare.methods=[kto]", "--set", "max_length=64")
        yield "ablate", ("ablate", run, "--dry-run", "--json", "--seeds", 1)
    yield "run", ("run", run.parent / "recipe.yaml", "--out", run, "--quiet")


def written_by(name: str, run: Path, scratch: Path, out: str) -> Any:
    """What a command has answered, for the comparison with the undamaged run."""
    if name == "report":
        return (run / "report.html").read_text(encoding="utf-8")
    if name in ("export", "review"):
        return {file.name: digest_file(file) for file in scratch.glob("*") if file.is_file()}
    if name == "train":
        return digest_file(scratch / "model" / "model.safetensors")
    if name == "run":
        return without_times(contents(run))
    return "" if name in ("compare", "ablate") else out  # an estimate in minutes differs from call to call


def damages(kinds: int, seed: int, seconds: float, *, slow: bool) -> dict[str, Any]:
    """Counts of how every command ends on every kind of damage, and each that ended badly."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as place:
        home = Path(place)
        call("run", make_recipe(home), "--out", home / "run", "--quiet")
        (home / "verdicts.csv").write_text(f"row_id,trusted_label\n{_first_row(home / 'run')},true\n")
        call("review", home / "run", "--import", home / "verdicts.csv", "--reviewer", "ann")
        shutil.copytree(home / "run", home / "whole")
        files = [file.relative_to(home / "run") for file in sorted((home / "run").rglob("*")) if file.is_file()]
        every = [(file, way) for file in files if file.name != ".lock" for way in WAYS]
        chosen = random.Random(seed).sample(every, min(kinds, len(every)))
        row_id = _first_row(home / "whole")
        expected = {}
        for name, words in commands_on(home / "run", home / "out", row_id, slow=slow):
            code, out, err = _fresh(home, words)
            if code:
                print(f"{name} cannot be tried: {err.strip()}", file=sys.stderr)
            expected[name] = (code, written_by(name, home / "run", home / "out", out) if code == 0 else None)
        ends, bad = Counter[str](), []
        tried, until = 0, time.monotonic() + seconds
        for file, way in chosen:
            if time.monotonic() > until:
                break
            tried += 1
            for name, words in commands_on(home / "run", home / "out", row_id, slow=slow):
                end = _end(home, file, way, name, words, expected[name])
                ends[f"{name}: {end.split(':')[0]}"] += 1
                if not end.startswith(("as undamaged", "named", "not possible")):
                    bad.append(f"{file} {way}, {name}: {end}")
    return {"kinds": tried, "possible_kinds": len(every), "calls": sum(ends.values()), "ends": dict(ends), "bad": bad}


def _first_row(run: Path) -> str:
    return str(read_parquet(run / "stages/ingest/columns.parquet")["row_id"][0])


def _fresh(home: Path, words: tuple[object, ...], damage: Callable[[], None] = lambda: None) -> tuple[int, str, str]:
    shutil.rmtree(home / "run")
    shutil.copytree(home / "whole", home / "run")
    shutil.rmtree(home / "out", ignore_errors=True)
    (home / "out").mkdir()
    damage()
    return call(*words)


def _end(home: Path, file: Path, way: str, name: str, words: tuple[object, ...], expected: tuple[int, Any]) -> str:
    target = home / "run" / file
    code, out, err = _fresh(home, words, lambda: WAYS[way](target, target.read_bytes()))
    if "unexpected " in err or "Traceback" in err:
        return f"traceback: {err.strip()[:200]}"
    if expected[0]:
        return "not possible"
    if code:
        return "named" if name != "run" and len(err.strip().splitlines()) == 1 else f"not healed: {err.strip()[:200]}"
    same = written_by(name, home / "run", home / "out", out) == expected[1]
    return "as undamaged" if same else f"silent: exit code 0, another answer ({out[:80]!r})"


# --- kills -----------------------------------------------------------------------------------------------------------------


def kills(count: int, seed: int, seconds: float) -> dict[str, Any]:
    """How many of `count` SIGKILLs left something that the same command, given again, did not make whole."""
    draw, counts, different = random.Random(seed), Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="reliability-") as place:
        home = Path(place)
        make_recipe(home)
        commands: dict[str, tuple[object, ...]] = {
            "run": ("run", home / "recipe.yaml", "--out", home / "run", "--quiet"),
            "train": ("train", home / "run", "--model", home / "tiny", "--out", home / "model", "--set", "save_every_steps=1"),
            "export": ("export", home / "run", "--out", home / "kto.jsonl", "--quiet"),
            "convert": ("convert", home / "feedback.jsonl", home / "converted.jsonl", "--quiet"),
            "report": ("report", home / "run", "--quiet"),
        }
        results = {"run": "run", "train": "model", "export": "kto.jsonl", "convert": "converted.jsonl", "report": "run"}
        whole, took = {}, {}
        for name, words in commands.items():
            began = time.monotonic()
            subprocess.run(_command(words), check=True, capture_output=True)
            took[name], whole[name] = time.monotonic() - began, _left(home / results[name])
        until = time.monotonic() + seconds
        for _ in range(count):
            if time.monotonic() > until:
                break
            name = draw.choice(list(commands))
            if name != "report":
                _remove(home / results[name])
            if name != "run" and not (home / "run" / "report.html").exists():
                subprocess.run(_command(commands["run"]), check=True, capture_output=True)
            counts[f"{name}: {_kill(commands[name], draw.uniform(0.2, 1.0) * took[name])}"] += 1
            again = subprocess.run(_command(commands[name]), capture_output=True, text=True, check=False)
            if again.returncode or _left(home / results[name]) != whole[name]:
                different.append(f"{name}: exit code {again.returncode} {again.stderr.strip()[-200:]}")
    return {"kills": sum(counts.values()), "ends": dict(counts), "different": different}


def _command(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-c", "from ktodata.cli import main; main()", *map(str, words)]


def _kill(words: tuple[object, ...], after: float) -> str:
    process = subprocess.Popen(_command(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "killed"
    return "had ended"


def _left(place: Path) -> dict[str, str]:
    if place.is_dir():
        return without_times(contents(place))
    return {file.name: digest_file(file) for file in place.parent.glob(f"*{place.name}*")}  # a left .part is a difference


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


# --- circumstances ---------------------------------------------------------------------------------------------------------


def settings() -> dict[str, Any]:
    """What differs between runs of one recipe under other circumstances."""
    variants = {
        "one thread": {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        "two threads": {"OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "2"},
        "hash seed": {"PYTHONHASHSEED": "12345"},
        "locale": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
        "time zone": {"TZ": "Pacific/Kiritimati"},
        "working directory": {},
    }
    with tempfile.TemporaryDirectory(prefix="reliability-") as place:
        home, different = Path(place), {}
        recipe, first = make_recipe(home), None
        for name, changed in variants.items():
            where = home / "elsewhere" if name == "working directory" else home
            where.mkdir(exist_ok=True)
            words = ("run", recipe, "--out", home / "run", "--quiet")
            subprocess.run(_command(words), check=True, capture_output=True, env={**os.environ, **changed}, cwd=where)
            left = without_times(contents(home / "run"))
            first = first or left
            different[name] = sorted(file for file in {*first, *left} if first.get(file) != left.get(file))
            shutil.rmtree(home / "run")
    return {"different_files": different, "files": len(first or ())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--damages", type=int, default=60)
    parser.add_argument("--settings", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", action="store_true", help="compare and ablate, too")
    parser.add_argument("--minutes", type=float, default=24 * 60)
    given = parser.parse_args()
    seconds = 60 * given.minutes
    result: dict[str, Any] = {**machine(), "seed": given.seed}
    result |= {"damage": damages(given.damages, given.seed, seconds, slow=given.slow)} if given.damages else {}
    result |= {"kill": kills(given.kills, given.seed, seconds)} if given.kills else {}
    result |= {"circumstances": settings()} if given.settings else {}
    parts = [name for name in ("damage", "kill", "circumstances") if name in result]
    print(json.dumps(result, indent=1))
    print(write_result(f"reliability_{'_'.join(parts)}", result))


if __name__ == "__main__":
    main()
