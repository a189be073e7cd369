"""Run every benchmark of this folder, one after the other: `make bench`. One that fails is named at the end, and ends no other."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
# pieces of others, what needs more than the data to be called, and what needs a GPU: `make bench-gpu`
APART = {
    *("run_all.py", "machine.py", "trainer_arms.py"),
    *("pooled.py", "forecast.py", "reliability.py"),
    "trainer_gpu.py",
}
# the real data sets beside the checkout, for those that measure on them
DATA = HERE.parents[2] / "shared" / "data"
TAKES_DATA = re.compile(r'add_argument\("(data|folder)", type=Path')


def scripts() -> Iterator[tuple[Path, list[str]]]:
    """Each that is run, with what it is given."""
    for path in sorted(path for path in HERE.glob("*.py") if path.name not in APART):
        yield path, [str(DATA)] if TAKES_DATA.search(path.read_text(encoding="utf-8")) else []


def main() -> None:
    failed = []
    for script, given in scripts():
        print(f"== {script.name}", flush=True)
        if given and not DATA.is_dir():
            print("skipped: the real data sets are not on this machine")
        elif subprocess.run([sys.executable, str(script), *given], check=False).returncode:
            failed.append(script.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
