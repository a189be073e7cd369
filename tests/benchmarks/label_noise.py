"""How well label errors are found where the truth is known, beside a ranking by given class and the plain cleanlab set.

    python tests/benchmarks/label_noise.py DATA_FOLDER

DATA_FOLDER holds the real data sets as published (kto_xstest.jsonl.gz and others). The truth only scores. Error AUROC: a wrong
label against a sound one *within one given class*, averaged over the two, so a ranking by given class scores 0.5.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result

import ktodata as kd
from ktodata.signals.intervals import auroc, share

ENCODER = "packaged:all-minilm-l6-v2"
# name: file, label as read (None: the truth with a tenth of it flipped), rows to leave out
SETS: dict[str, tuple[str, str | None, str | None]] = {
    "xstest, GPT-4's labels": ("kto_xstest.jsonl.gz", "weak_label_gpt4", "partial_refusal"),
    "gsm8k, self-consistency's labels": ("kto_gsm8k_solutions.jsonl.gz", "weak_label", None),
    "hh-harmless, 10 % flipped": ("kto_hh_harmless.jsonl.gz", None, None),
    "halueval, 10 % flipped": ("kto_halueval_general.jsonl.gz", None, None),
}


def load(folder: Path, file: str, label: str | None, leave_out: str | None) -> pl.DataFrame:
    """A feedback table with the column `truth`, ready for label_noise."""
    keep = {"truth": "label"} | ({leave_out: leave_out} if leave_out else {})
    table = kd.read(folder / file, label=label or "label", keep=keep).feedback
    if leave_out:
        table = table.filter(~pl.col(leave_out).cast(pl.Boolean, strict=False))
    if label is None:
        flipped = np.random.default_rng(7).choice(table.height, round(table.height / 10), replace=False)
        flips = pl.Series(np.isin(np.arange(table.height), flipped))
        table = table.with_columns(label=pl.col("label") ^ flips)
    for stage in (kd.validate, kd.dedupe):
        table = kd.apply(table, stage(table))
    return kd.apply(table, kd.embed(table, model=ENCODER))


def measure(table: pl.DataFrame) -> dict[str, Any]:
    """What label_noise says of `table`, and how right that is."""
    found = kd.label_noise(table)
    rows = table.join(found.columns, on="row_id", how="left", maintain_order="left")
    wrong = (rows["label"] != rows["truth"]).to_numpy()
    quality = rows["label_quality"].to_numpy()
    each = {}
    for given in (True, False):
        here = rows["label"].to_numpy() == given
        each["desirable" if given else "undesirable"] = auroc(quality[here & wrong], quality[here & ~wrong]).as_dict()
    flagged, plain = rows["flagged"].to_numpy(), rows["is_label_issue"].fill_null(value=False).to_numpy()
    planted = found.facts["planted"]["auroc_averaged_over_given_classes"]
    return {
        "rows": rows.height,
        "share_wrong": float(wrong.mean()),
        "error_auroc": each | {"average": float(np.mean([one["value"] for one in each.values()]))},
        "planted_auroc": planted,
        "verdict": found.facts["identifiability"]["verdict"],
        "flagged": int(flagged.sum()),
        "flagged_precision": share(int((flagged & wrong).sum()), int(flagged.sum())).as_dict(),
        "confident_learning_set": int(plain.sum()),
        "confident_learning_precision": share(int((plain & wrong).sum()), int(plain.sum())).as_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = {}
    for name, (file, label, leave_out) in SETS.items():
        found[name] = measure(load(folder, file, label, leave_out))
        print(name, found[name], flush=True)
    write_result("label_noise", {"encoder": ENCODER, "sets": found, **machine()})


if __name__ == "__main__":
    main()
