"""Does curation make a better model? Every treatment of XSTest's weak labels, trained on equal terms and judged by people's verdicts.

    python tests/benchmarks/ablation.py DATA_FOLDER [--labels weak_label_gpt4] [--votes] [--seeds 3] [--steps 40] [--folder DIR]

Rows: kto_xstest.jsonl.gz, without partial refusals and repeats. A prompt and its contrasting twin (same kind, same place in it) are
on one side; one place in four is held out. The audit and every arm see the training side alone; people's verdicts on it are used by
the arms that say so (true labels, wrong rows dropped, rows reviewed) and by nothing else. --votes: the other system's label is a
second vote. Model: SmolLM2-135M-Instruct, its top 6 layers; its hidden states are a view of the audit. Length and
rate are those of trainer_quality.py, the number of updates is what the time allowed; no score had a part in them. Scores of finished arms are kept in DIR, so that a benchmark that was stopped goes on.
"""

import argparse
from pathlib import Path

import polars as pl
from label_noise import POLICY, SYSTEMS, load, with_both_votes
from machine import machine, write_result

import ktodata as kd
from ktodata.ablation import ablate
from ktodata.label_audit import LabelAudit

TERMS = {"max_length": 64, "z0_rows": 4, "keep_states_mb": 6000}


def sides(folder: Path, label: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(training rows, held-out rows)."""
    table = load(folder, "kto_xstest.jsonl.gz", label, "partial_refusal", places=True)
    held_out = pl.col("place").cast(pl.Int64) % 4 == 3
    return table.filter(~held_out), table.filter(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", choices=SYSTEMS, default=SYSTEMS[0])
    parser.add_argument("--votes", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.05, 0.1])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    train, held_out = sides(options.data, options.labels)
    train = kd.apply(train, kd.hidden_states(train, model=POLICY))
    if options.votes:
        train = with_both_votes(train)
    audit = LabelAudit(train, kd.label_noise(train), {"seed": 0})
    terms = TERMS | {"max_steps": options.steps, "learning_rate": options.rate}
    found = ablate(
        audit,
        held_out,
        model=POLICY,
        truth=dict(train.select("row_id", "truth").iter_rows()),
        budgets=options.budgets,
        seeds=range(options.seeds),
        train=terms,
        folder=options.folder,
        notify=lambda event: print(event, flush=True),
    )
    with pl.Config(tbl_rows=100, tbl_cols=20, fmt_str_lengths=50, tbl_width_chars=220):
        print(found.table.drop("says", "seeds"))
    name = f"ablation_{options.labels}" + ("_votes" if options.votes else "")
    about = {"rows": train.height, "held_out": held_out.height, "wrong": float((train["label"] != train["truth"]).mean())}
    place = write_result(name, about | found.as_dict() | machine())
    found.plot().savefig(place.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
