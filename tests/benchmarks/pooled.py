"""Does a treatment help, over several kinds of wrong labels? Ablations of the same held-out rows, put together.

    python tests/benchmarks/ablation.py DATA_FOLDER --flips 0.2 uniform --scores DIR      # and so on, one for each kind
    python tests/benchmarks/pooled.py DIR [--kinds NAME ...]

Every kind and part of the rows is a training of its own; measures are their mean. Prompts are drawn once for all kinds, as the rows
are the same; trainings are drawn as seeds are (experiments/contrast.py). Arms that some kind lacks are left out. Intervals are somewhat
too narrow: kinds share the order of rows that a seed gives, and true labels are the same trainings for every kind.
"""

import argparse
from pathlib import Path

import polars as pl
from machine import machine, write_result

from ktodata.experiments.contrast import contrast
from ktodata.experiments.treatments import CLEAN, NOISY

SEEDS = 1000  # more than a benchmark has: kind number times this, plus the seed, is a seed of its own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--kinds", nargs="*")
    options = parser.parse_args()
    every = sorted(file.stem for file in options.scores.glob("ablation_*.parquet"))
    kinds = options.kinds or every
    tables = [
        pl.read_parquet(options.scores / f"{kind}.parquet").with_columns(seed=pl.col("seed") + SEEDS * number)
        for number, kind in enumerate(kinds)
    ]
    common = set.intersection(*[set(table["arm"]) for table in tables])
    scores = pl.concat(tables).filter(pl.col("arm").is_in(sorted(common)))
    lines = contrast(scores, pl.read_parquet(options.scores / "held_out.parquet"), baseline=NOISY, ceiling=CLEAN)
    with pl.Config(tbl_rows=100, tbl_cols=20, fmt_str_lengths=50, tbl_width_chars=220):
        print(lines, flush=True)
    write_result("pooled", {"kinds": kinds, "arms": lines.to_dicts()} | machine())


if __name__ == "__main__":
    main()
