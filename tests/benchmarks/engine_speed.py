"""Texts through an encoder in this process, in processes of this machine, and on a Ray that is started for it.

    python tests/benchmarks/engine_speed.py [--engines in_process local] [--workers 2] [--repeats 3]

Texts of 20 to 59 made-up words, the same for the same seed, without a cache. Each measurement is a process of its own; the engines
take turns. It times `encode_texts` whole: the model is loaded by the driver and by each worker. "rate" leaves that out: characters
a second from the moment at which as many parts are done as there are workers. CPU seconds and memory are of the process and all
that it starts, sampled ten times a second (so memory that two of them share counts twice). Vectors are compared: every engine must
give the same bytes. It takes two minutes on two free cores, a quarter of an hour and more on busy ones.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from machine import machine, write_result

# texts, batch_size: 20 parts of 2,048 texts, and 8 of 32
MODELS = {"packaged:wordllama-256": (40_000, 64), "packaged:all-minilm-l6-v2": (256, 4)}

ENCODE = """
import json, sys, time
sys.path[:0] = [sys.argv[1]]
from engine_speed import fingerprint, texts
from ktodata.embeddings.encode import encode_texts
from ktodata.engines.running import running_on
from ktodata.work_done import heard_by
model, count, batch_size, engine, workers = sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5], int(sys.argv[6])
rows, events = texts(count), []
listen = lambda work: "done" in work and events.append((time.perf_counter(), work["done"]))
with running_on(engine, workers=workers if engine != "in_process" else None), heard_by(listen):
    started = time.perf_counter()
    vectors = encode_texts(rows, model=model, batch_size=batch_size, cache=False).vectors
    seconds = time.perf_counter() - started
(first, done), (last, total) = events[workers - 1], events[-1]
print(json.dumps({"seconds": seconds, "rate": (total - done) / (last - first), "vectors": fingerprint(vectors)}))
"""


def texts(count: int) -> list[str]:
    """Made-up texts, the same for the same count."""
    rng = np.random.default_rng(0)
    words = np.array(
        [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ter", "su", "ban") for b in ("ra", "ne", "vo") for c in ("", "ld", "s")]
    )
    return [f"{number} " + " ".join(rng.choice(words, rng.integers(20, 60))) for number in range(count)]


def fingerprint(vectors: np.ndarray) -> str:
    return hashlib.blake2b(vectors.tobytes(), digest_size=8).hexdigest()


class TreeMeter:
    """CPU seconds and peak memory of a process and all its descendants."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._cpu, self.peak_mb = process, {}, 0.0

    def sample(self) -> None:
        memory = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                memory += process.memory_info().rss
            except psutil.Error:
                continue
        self.peak_mb = max(self.peak_mb, memory / 2**20)

    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())


def measure(model: str, engine: str, workers: int) -> dict:
    """One call in a process of its own."""
    count, batch_size = MODELS[model]
    command = [sys.executable, "-c", ENCODE, str(Path(__file__).parent), model, str(count), str(batch_size), engine, str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    meter = TreeMeter(psutil.Process(process.pid))
    while process.poll() is None:
        try:
            meter.sample()
        except psutil.Error:
            break
        time.sleep(0.1)
    answer, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{engine} on {model} failed")
    return {**json.loads(answer.splitlines()[-1]), "cpu_seconds": meter.cpu_seconds(), "peak_mb": meter.peak_mb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["in_process", "local"], choices=["in_process", "local", "ray"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    load, runs = psutil.getloadavg()[0], {}
    for model in options.models:
        of_model = {engine: [] for engine in options.engines}
        for _ in range(options.repeats):
            for engine in options.engines:
                of_model[engine].append(measure(model, engine, options.workers))
        runs[model] = of_model
        assert len({run["vectors"] for each in of_model.values() for run in each}) == 1, "other bytes"
        for engine, each in of_model.items():
            medians = {
                name: statistics.median(run[name] for run in each) for name in ("seconds", "cpu_seconds", "rate", "peak_mb")
            }
            print(f"{model} {engine}: " + ", ".join(f"{name} {value:,.1f}" for name, value in medians.items()), flush=True)
    texts_of = {model: {"texts": count, "batch_size": size, "words": "20 to 59"} for model, (count, size) in MODELS.items()}
    loads = {"load_before": load, "load_after": psutil.getloadavg()[0]}
    write_result("engine_speed", {"texts": texts_of, "workers": options.workers, "runs": runs, **loads, **machine()})


if __name__ == "__main__":
    main()
