"""Commands killed at a random instant, or before a random change of a file, and given again: what is left is that of no kill."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from unlucky.damage import ABLATED, COMPARED
from unlucky.forks import call
from unlucky.sample import contents


@dataclass(frozen=True)
class Job:
    """words : of the command. leaves : what it writes, in `home`. begins_with : the state that it starts from, or nothing"""

    words: tuple[object, ...]
    leaves: str
    begins_with: tuple[str, ...] = ()


def jobs(home: Path) -> dict[str, Job]:
    """Every command that writes."""
    run, trained = home / "run", ("--set", "batch_size=8", "--set", "epochs=1", "--set", "save_every_steps=1")
    return {
        "run": Job(("run", home / "recipe.yaml", "--out", run, "--quiet"), "run"),
        "self-training": Job(("run", home / "rounds.yaml", "--out", home / "rounds", "--quiet"), "rounds"),
        "train": Job(("train", run, "--model", home / "tiny", "--out", home / "model", *trained, "--quiet"), "model", ("run",)),
        "export": Job(("export", run, "--out", home / "kto.jsonl", "--quiet"), "kto.jsonl", ("run",)),
        "convert": Job(("convert", home / "feedback.jsonl", home / "converted.jsonl", "--quiet"), "converted.jsonl"),
        "report": Job(("report", run, "--quiet"), "run", ("run",)),
        "evaluate": Job(("evaluate", run, "--set", "bootstrap=200", "--quiet"), "run", ("run",)),
        "review": Job(
            ("review", run, "--import", home / "verdicts.csv", "--reviewer", "bob", "--quiet"), "run/reviews", ("run",)
        ),
        "ablate": Job(("ablate", run, *ABLATED, "--quiet"), "run", ("run without experiments",)),
        "compare": Job(("compare", run, *COMPARED, "--quiet"), "run", ("run without experiments",)),
    }


def undisturbed(home: Path) -> dict[str, tuple[dict[str, str], float, int]]:
    """For each command what it leaves undisturbed, its seconds, and how many changes of files it makes."""
    shutil.rmtree(home / "bare", ignore_errors=True)
    shutil.copytree(home / "whole", home / "bare")
    for name in ("ablation", "comparison"):
        shutil.rmtree(home / "bare" / name)
    for file in home.glob("bare/ablation.*"):
        file.unlink()
    known = {}
    for name, job in jobs(home).items():
        _begin(home, job)
        ended = call(*job.words, count=True)
        if ended.code:
            raise SystemExit(f"{name} cannot be tried: {ended.err[-500:]}")
        known[name] = (contents(home / job.leaves), ended.seconds, ended.events)
    return known


def _begin(home: Path, job: Job) -> None:
    for name in ("run", "rounds", "model"):
        shutil.rmtree(home / name, ignore_errors=True)
    for pattern in ("*kto.jsonl*", "*converted.jsonl*"):
        for file in home.glob(pattern):
            file.unlink()
    if job.begins_with:
        source = "whole" if job.begins_with == ("run",) else "bare"
        subprocess.run(["cp", "-a", home / source, home / "run"], check=True)


def kill_once(home: Path, known: dict[str, tuple[dict[str, str], float, int]], number: int, seed: int) -> dict[str, Any]:
    """The kill of that number: where, and whether the same command, given again, made it whole."""
    draw = Random(f"{seed} {number}")
    name = draw.choice(list(known))
    job, (whole, seconds, events) = jobs(home)[name], known[name]
    _begin(home, job)
    at_file = draw.random() < 0.5
    when: dict[str, Any] = {"killed_at": draw.randint(1, events)} if at_file else {"killed_after": draw.uniform(0, seconds)}
    first = call(*job.words, **when)
    again = call(*job.words)
    left = contents(home / job.leaves)
    different = sorted(file for file in {*whole, *left} if whole.get(file) != left.get(file))
    told = {} if not different and again.code == 0 else {"different": different[:10], "error": again.err[-300:]}
    ended = "killed" if first.code is None else "had ended"
    return {"number": number, "seed": seed, "command": name, "where": when, "first": ended, "again": again.code, **told}
