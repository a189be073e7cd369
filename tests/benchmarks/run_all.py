"""Run every benchmark of this folder, one after the other: `make bench`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
APART = {"run_all.py", "machine.py"}

for script in sorted(path for path in HERE.glob("*.py") if path.name not in APART):
    print(f"== {script.name}", flush=True)
    subprocess.run([sys.executable, str(script)], check=True)
