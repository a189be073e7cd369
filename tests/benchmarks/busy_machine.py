"""What a training's and an evaluation's passes take while other processes keep the cores busy: seconds by the clock.

    python tests/benchmarks/busy_machine.py [--rounds 5] [--neighbours 0 1 2]

A gradient of SmolLM2-135M over 192 tokens, and a forward pass over 512, fp32, by ktodata's own packed passes. A neighbour is a process
that counts without end. Each round goes through all numbers of neighbours, so that what else the machine does meets all alike. Arms:
as it comes (torch's own number of threads; `import ktodata` has them wait passively), spinning (OMP_WAIT_POLICY=ACTIVE), one thread.

slower is an arm's time with neighbours / its own without, the median over rounds; share is what part of its cores' time a fair scheduler
leaves to so many threads. A machine that is busy with other work as well understates it: load_before says how busy it was.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from machine import machine, write_result

MODEL = "packaged:smollm2-135m-instruct"
TOKENS = {"training": 192, "evaluation": 512}
ARMS: dict[str, dict[str, str]] = {
    "as it comes": {},
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def work() -> None:
    """Answer each line of standard input with the seconds of one pass of each kind, by the clock and of the processor."""
    import numpy as np
    import torch

    from ktodata.models import load_causal_lm
    from ktodata.train.data.ragged_ids import RaggedIds
    from ktodata.train.data.tokens import TokenRows
    from ktodata.train.model.scorer import Scorer

    model, _ = load_causal_lm(MODEL)
    random, label = np.random.default_rng(0), np.array([True, False])
    rows = {
        kind: TokenRows(
            row_id=("a", "b"),
            label=label,
            weight=np.ones(2),
            p_desirable=label.astype(np.float64),
            group=("a", "b"),
            prompt=RaggedIds.of([random.integers(0, 1000, 16) for _ in label]),
            completion=RaggedIds.of([random.integers(0, 1000, tokens // 2 - 16) for _ in label]),
            max_length=1024,
        )
        for kind, tokens in TOKENS.items()
    }
    scorers = {kind: Scorer(model, rows[kind], device=torch.device("cpu"), compute_dtype=torch.float32) for kind in rows}
    pairs = [(0, 0), (1, 1)]

    def train() -> None:
        scorers["training"](pairs).sum().backward()
        model.zero_grad(set_to_none=False)

    passes = {"training": train, "evaluation": lambda: scorers["evaluation"].without_gradient(pairs)}
    for compute in passes.values():
        compute()
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        seconds = {}
        for kind, compute in passes.items():
            started = time.perf_counter(), time.process_time()
            compute()
            seconds[kind] = [time.perf_counter() - started[0], time.process_time() - started[1]]
        print(json.dumps(seconds), flush=True)


@contextmanager
def worker(arm: str) -> Iterator[tuple[int, Any]]:
    """(its threads, a function that lets it make one pass of each kind and gives their seconds)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))} | ARMS[arm]
    command = [sys.executable, __file__, "--work"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def once() -> dict[str, list[float]]:
            process.stdin.write("\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        try:
            yield json.loads(process.stdout.readline())["threads"], once
        finally:
            process.kill()


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Inside, so many processes are busy."""
    busy = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(arm: str, counts: list[int], rounds: int) -> dict[str, Any]:
    """Seconds of an arm's passes beside so many neighbours."""
    seconds: dict[str, dict[int, list[list[float]]]] = {kind: {count: [] for count in counts} for kind in TOKENS}
    with worker(arm) as (threads, once):
        for _ in range(rounds):
            for count in counts:
                with neighbours(count):
                    for kind, took in once().items():
                        seconds[kind][count].append(took)
    return {"threads": threads} | {kind: told(of_kind, threads, rounds) for kind, of_kind in seconds.items()}


def told(seconds: dict[int, list[list[float]]], threads: int, rounds: int) -> dict[str, Any]:
    """By neighbours: each round's seconds, and how much slower they are than without."""
    least = min(seconds)
    return {
        count: {
            "wall_seconds": [took[0] for took in each],
            "cpu_seconds": [took[1] for took in each],
            "slower": median(each[number][0] / seconds[least][number][0] for number in range(rounds)),
            "fair_share": min(1.0, psutil.cpu_count() / (threads + count)),
        }
        for count, each in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    load, arms = psutil.getloadavg()[0], {}
    for arm in options.arms:
        arms[arm] = measure(arm, options.neighbours, options.rounds)
        for kind in TOKENS:
            line = {count: f"{median(of['wall_seconds']):.2f} s, x {of['slower']:.2f}" for count, of in arms[arm][kind].items()}
            print(f"{arm}, {arms[arm]['threads']} threads, {kind}: {line}", flush=True)
    write_result("busy_machine", {"model": MODEL, "tokens": TOKENS, "load_before": load, "arms": arms, **machine()})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
