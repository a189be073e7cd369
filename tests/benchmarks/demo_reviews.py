"""What sixty reviews buy in `ktodata demo`, seed by seed: is the one that is shown a typical one?

    python tests/benchmarks/demo_reviews.py [--seeds 0 1 2 ...]

Of each seed the share of wrong labels by the truth, the interval that the audit gives for it, and the wrong labels of the rows
that would be trained on: as given, with the verdicts alone, and with what they say of the other rows.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from machine import machine, write_result

from ktodata.demo.demo_audit import audit_sample
from ktodata.demo.troubled_sample import troubled_sample


def reviewed(seed: int) -> dict[str, Any]:
    sample = troubled_sample(seed)
    with tempfile.TemporaryDirectory() as folder:
        demo = audit_sample(sample, sample.write(Path(folder)), seed=seed)
    gain, rate = demo.gain, demo.reviewed.metrics["trusted"]["error_rate"]
    true_rate = gain.given.wrong / gain.given.rows
    counts = {"rate": true_rate, "low": rate["low"], "high": rate["high"], "held": rate["low"] <= true_rate <= rate["high"]}
    detected = {row.trouble: [row.count, row.of] for row in demo.rows}
    return {"seed": seed} | counts | asdict(gain) | {"detected": detected}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    rows = []
    for seed in parser.parse_args().seeds:
        rows.append(reviewed(seed))
        print(rows[-1], flush=True)
    sums = pl.DataFrame(rows, infer_schema_length=None).select(
        *(pl.col(name).struct.field("wrong").sum().alias(name) for name in ("given", "verdicts_alone", "curated")),
        *(pl.col(name).struct.field("rows").sum().alias(f"{name}_rows") for name in ("given", "curated")),
        held=pl.col("held").sum(),
    )
    print(sums.row(0, named=True))
    write_result("demo_reviews", machine() | {"seeds": rows, "together": sums.row(0, named=True)})


if __name__ == "__main__":
    main()
