"""How the whole curation flow (ingest to export) grows with the number of rows: minutes, peak memory, fitted exponent.

    python tests/benchmarks/pipeline_scaling.py [--rows 20000 63000 200000]

Rows are synthetic: prompts of about 15 words and completions of about 40 from a vocabulary of 20,000 words with Zipf's
frequencies, 40 topics, labels that follow the topic and a keyword, 10 % of them flipped, 3 % repeats and 3 % near-repeats,
five raters. Each size runs in a process of its own; its peak is the largest resident memory that the system saw.
"""

import argparse
import json
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
    topics = [rng.permutation(20_000)[:400] for _ in range(40)]

    def text(topic: int, length: int) -> str:
        common = rng.choice(20_000, size=length, p=frequency / frequency.sum())
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


def one(rows: int) -> None:
    """Run one size and print its figures as JSON; called in a process of its own."""
    import ktodata as kd

    with tempfile.TemporaryDirectory() as scratch:
        feedback = Path(scratch) / "feedback.jsonl"
        write_feedback(feedback, rows)
        recipe = {"name": "scaling", "ingest": {"paths": [str(feedback)], "rater": "rater"}, "steps": STEPS}
        started = time.perf_counter()
        run = kd.run(recipe, out=Path(scratch) / "run")
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        stages = {stage["name"]: [stage["seconds"], stage["peak_mb"]] for stage in run.manifest["stages"]}
        print(
            json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak_mb, "stages": stages, "counts": run.manifest["rows"]})
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 63_000, 200_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    found = []
    for rows in options.rows:
        answer = subprocess.run([sys.executable, __file__, "--one", str(rows)], capture_output=True, text=True, check=True)
        found.append(json.loads(answer.stdout.splitlines()[-1]))
        print(f"{rows:>9,} rows  {found[-1]['seconds']:8.1f} s  {found[-1]['peak_mb']:8.0f} MB", flush=True)
    exponent = (
        np.polyfit(np.log([run["rows"] for run in found]), np.log([run["seconds"] for run in found]), 1)[0]
        if len(found) > 1
        else None
    )
    print(f"seconds grow as rows ** {exponent:.2f}")
    write_result("pipeline_scaling", {"runs": found, "exponent": exponent, **machine()})


if __name__ == "__main__":
    main()
