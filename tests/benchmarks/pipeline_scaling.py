"""How the whole curation flow (ingest to export) grows with the number of rows: CPU seconds, peak memory, fitted exponent.

    python tests/benchmarks/pipeline_scaling.py [--rows 20000 63000 200000]
    python tests/benchmarks/pipeline_scaling.py --rows 20000 --grow 0.01

With --grow, so many rows are added to the source, and the run is made again in its folder and whole in another: what each
stage takes, whether ledger and shards are the same bytes, and whether a row has moved from one part to another.

Rows are synthetic: prompts of about 15 words and completions of about 40 from a vocabulary of 20,000 words with Zipf's
frequencies, 40 topics, labels that follow the topic and a keyword, 10 % of them flipped, 3 % repeats and 3 % near-repeats,
five raters. Each size runs in a process of its own; its peak is the largest resident memory that the system saw.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine, write_result

STEPS = [
    {"validate": None},
    {"dedupe": {"near": 0.8}},
    {"split": {"validation": 0.05, "test": 0.05}},
    {"embed": {"model": "packaged:wordllama-256", "cache": False}},
    {"label_noise": None},
    {"rebalance": None},
    {"coverage": None},
]


def write_feedback(path: Path, rows: int, seed: int = 0) -> None:
    """Feedback as JSON lines, the same for the same seed."""
    rng = np.random.default_rng(seed)
    syllables = np.array([a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ai", "or", "en")])
    vocabulary = np.array(["".join(rng.choice(syllables, size=rng.integers(2, 4))) for _ in range(20_000)])
    frequency = 1 / np.arange(10, 20_010)
    up_to = (frequency / frequency.sum()).cumsum() / (frequency / frequency.sum()).sum()
    topics = [rng.permutation(20_000)[:400] for _ in range(40)]

    def text(topic: int, length: int) -> str:
        common = up_to.searchsorted(rng.random(length), side="right")  # rng.choice(p=) sums all frequencies again each time
        words = np.where(rng.random(length) < 0.5, rng.choice(topics[topic], size=length), common)
        return " ".join(vocabulary[words])

    earlier: list[tuple[str, str, bool]] = []
    with path.open("w") as file:
        for number in range(rows):
            kind = rng.random()
            if earlier and kind < 0.06:
                prompt, completion, label = earlier[rng.integers(len(earlier))]
                if kind < 0.03:
                    completion += " " + str(vocabulary[rng.integers(20_000)])
            else:
                topic = int(rng.integers(40))
                good = rng.random() < 0.5 + 0.4 * np.sin(topic)
                prompt, completion = text(topic, int(rng.integers(8, 22))), text(topic, int(rng.integers(20, 60)))
                completion += " certainly" if good else " perhaps"
                label = bool(good ^ (rng.random() < 0.1))
                if number % 10 == 0:
                    earlier.append((prompt, completion, label))
            row = {"prompt": prompt, "completion": completion, "label": label, "rater": f"r{rng.integers(5)}"}
            file.write(json.dumps(row) + "\n")


class StageClock:
    """CPU seconds of this process by stage, from a run's events; "the rest" is reading results back, ledger and pages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def __call__(self, event: dict) -> None:
        if event["kind"] in ("done", "cached", "start"):
            now = time.process_time()
            name = event["stage"] if event["kind"] == "done" else "the rest"
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
            self._last = now

    def end(self) -> dict[str, float]:
        self({"kind": "start"})
        return {name: round(seconds, 2) for name, seconds in self.seconds.items()}


def measured_run(feedback: Path, folder: Path, *, cache: bool):
    """(run, its figures)"""
    import ktodata as kd

    steps = [{"embed": {**step["embed"], "cache": cache}} if "embed" in step else step for step in STEPS]
    recipe = {"name": "scaling", "ingest": {"paths": [str(feedback)], "rater": "rater"}, "steps": steps}
    clock, started = StageClock(), time.perf_counter()
    run = kd.run(recipe, out=folder, notify=clock)
    seconds = time.perf_counter() - started
    stages = {
        stage["name"]: {"wall": stage["seconds"], "peak_mb": stage["peak_mb"], "cached": stage["cached"]}
        for stage in run.manifest["stages"]
    }
    return run, {"seconds": seconds, "cpu": clock.end(), "stages": stages, "counts": run.manifest["rows"]}


def one(rows: int, grow: float) -> None:
    """Run one size and print its figures as JSON; called in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if grow:
            os.environ["KTODATA_CACHE"] = str(folder / "cache")
        write_feedback(folder / "feedback.jsonl", rows)
        run, figures = measured_run(folder / "feedback.jsonl", folder / "run", cache=bool(grow))
        figures |= {"rows": rows, "peak_mb": peak_mb()}
        if grow:
            figures |= grown(run, folder, rows, grow)
        print(json.dumps(figures))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def grown(run, folder: Path, rows: int, grow: float) -> dict:
    """Add rows to the source, run again where the run is and in a new folder, and compare."""
    before = run.feedback.select("row_id", "part")
    write_feedback(folder / "more.jsonl", round(rows * grow), seed=1)
    with (folder / "feedback.jsonl").open("a") as file:
        file.write((folder / "more.jsonl").read_text())
    again, rerun = measured_run(folder / "feedback.jsonl", folder / "run", cache=True)
    whole, full = measured_run(folder / "feedback.jsonl", folder / "whole", cache=True)
    after = before.join(again.feedback.select("row_id", "part"), on="row_id", suffix="_after")
    return {
        "again": rerun,
        "whole": full,
        "same_bytes": all(
            file.read_bytes() == (whole.folder / file.relative_to(again.folder)).read_bytes()
            for file in [again.folder / "ledger.parquet", *sorted((again.folder / "shards").iterdir())]
        ),
        "rows_gone": before.height - after.height,
        "rows_moved": int((after["part"] != after["part_after"]).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 63_000, 200_000])
    parser.add_argument("--grow", type=float, default=0.0, help="share of rows that are added afterwards")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.grow)
        return
    found = []
    for rows in options.rows:
        command = [sys.executable, __file__, "--one", str(rows), "--grow", str(options.grow)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(answer.stdout.splitlines()[-1]))
        cpu = sum(found[-1]["cpu"].values())
        print(f"{rows:>9,} rows  {cpu:8.1f} CPU s  {found[-1]['peak_mb']:8.0f} MB", flush=True)
    exponent = (
        np.polyfit(np.log([run["rows"] for run in found]), np.log([sum(run["cpu"].values()) for run in found]), 1)[0]
        if len(found) > 1
        else None
    )
    if exponent is not None:
        print(f"CPU seconds grow as rows ** {exponent:.2f}")
    write_result(
        "pipeline_scaling-growth" if options.grow else "pipeline_scaling", {"runs": found, "exponent": exponent, **machine()}
    )


if __name__ == "__main__":
    main()
