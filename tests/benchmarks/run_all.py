"""Run every benchmark of this folder, one after the other: `make bench`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# pieces of others, what reads the results of others, and what needs a GPU: `make bench-gpu`
APART = {"run_all.py", "machine.py", "trainer_arms.py", "pooled.py", "trainer_gpu.py"}
# the real data sets beside the checkout, for those that measure on them
DATA = HERE.parents[2] / "shared" / "data"
NEEDS_DATA = {
    *(
        "ablation.py",
        "balance.py",
        "label_noise.py",
        "label_noise_alone.py",
        "label_noise_speed.py",
        "methods.py",
        "narrow_prompts.py",
        "raters.py",
    ),
    *("self_training.py", "terms.py", "trainer_counts.py", "trainer_quality.py", "trainer_speed.py", "treatments.py"),
}

for script in sorted(path for path in HERE.glob("*.py") if path.name not in APART):
    print(f"== {script.name}", flush=True)
    if script.name in NEEDS_DATA and not DATA.is_dir():
        print("skipped: the real data sets are not on this machine")
        continue
    subprocess.run([sys.executable, str(script), *([str(DATA)] if script.name in NEEDS_DATA else [])], check=True)
