"""Does curation make a better model? Every treatment of a set's weak labels, trained on equal terms and judged by the truth.

    python tests/benchmarks/ablation.py DATA_FOLDER [--set xstest] [--labels weak_label_gpt4] [--flips 0.2 uniform] [--votes]
        [--folds 5] [--families ...] [--arms ...] [--steps 40] [--folder DIR] [--scores DIR] [--called NAME]

Cross-validated: prompts are dealt into five parts; each part is held out once, with a seed of its own, so that every row is judged
once by models that never saw it or its prompt. (XSTest: a prompt and its contrasting twin, of the same kind and place in it, are in
one part. Elsewhere: rows whose prompts are near repeats.) The audit and every arm see the training side alone; the truth of it is
used by the arms that say so (true labels, wrong rows dropped, rows reviewed) and by nothing else. --votes: the other system's label
is a second vote. --flips: the truth with flips injected, in place of the weak labels.

Model: SmolLM2-135M-Instruct, its top 6 layers, in bfloat16 arithmetic; its hidden states are a view of the audit. Length and rate
are those of trainer_quality.py, the number of updates is what the time allowed; no score had a part in them. Finished arms are kept
in DIR, so that a benchmark that was stopped goes on. --scores DIR keeps every held-out row's reward, which pooled.py puts together.
"""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import polars as pl
from label_noise import FLIPS, POLICY, SYSTEMS, flipped, load, with_both_votes
from machine import machine, write_result

import ktodata as kd
from ktodata.experiments.ablation import Ablation, pool
from ktodata.experiments.contrast import contrast
from ktodata.experiments.treatments import FAMILIES, NOISY, Family
from ktodata.pipeline.ablate import plan_ablation
from ktodata.pipeline.audit import LabelAudit
from ktodata.train.model.activation_cache import shared_activations

TERMS = {"max_length": 64, "kl_pairs_per_batch": 4, "activation_cache_mb": 6000, "dtype": "bfloat16"}
# file, column of the weak label (none: flips only), rows that are left out, tokens of a row, rows used (drawn by hash)
SETS = {
    "xstest": ("kto_xstest.jsonl.gz", None, "partial_refusal", 64, None),
    "gsm8k": ("kto_gsm8k_solutions.jsonl.gz", "weak_label", None, 192, 1000),
    "hh": ("kto_hh_harmless.jsonl.gz", None, None, 192, 1000),
}


def rows_of(folder: Path, name: str, label: str | None) -> pl.DataFrame:
    """The set with truth, vectors, hidden states and `part_of_five`."""
    file, weak, leave_out, _, most = SETS[name]
    table = load(folder, file, label or weak or "label", leave_out, places=name == "xstest")
    table = by_hash(table, pl.col("place") if name == "xstest" else pl.col("prompt_group"))
    table = table if most is None else table.head(most)
    if name == "xstest":
        table = table.with_columns(part_of_five=pl.col("place").cast(pl.Int64) % 5)
    return kd.add_columns(table, kd.hidden_states(table, model=POLICY))


def by_hash(table: pl.DataFrame, group: pl.Expr) -> pl.DataFrame:
    """Whole groups in an order that says nothing of them, with the column `part_of_five`."""
    number = group.cast(pl.String).map_elements(lambda one: int(hashlib.sha256(one.encode()).hexdigest()[:8], 16), pl.Int64)
    return (
        table.with_columns(hashed=number).sort("hashed", "row_id").with_columns(part_of_five=pl.col("hashed") % 5).drop("hashed")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", choices=SETS, default="xstest")
    parser.add_argument("--labels", choices=SYSTEMS, default=SYSTEMS[0])
    parser.add_argument("--flips", nargs=2, metavar=("RATE", "KIND"), help=f"KIND: {', '.join(FLIPS)}")
    parser.add_argument("--votes", action="store_true")
    parser.add_argument("--folds", type=int, default=5, help="how many of the five parts are held out in turn")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.05, 0.1])
    parser.add_argument("--families", nargs="*", choices=get_args(Family), default=FAMILIES)
    parser.add_argument("--arms", nargs="*", metavar="NAME", help="of those families, only these, and the labels as given")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--called", help="added to the name of the result, where a set is measured in more ways than one")
    options = parser.parse_args()
    table = rows_of(options.data, options.set, options.labels if options.set == "xstest" else None)
    name = f"ablation_{options.set}" + (f"_{options.labels}" if options.set == "xstest" and not options.flips else "")
    if options.flips:
        rate, kind = float(options.flips[0]), options.flips[1]
        table, name = flipped(table, rate, kind), f"{name}_{kind}_{rate:.0%}".replace("%", "")
    if options.votes:
        table, name = with_both_votes(table), f"{name}_votes"
    name = "_".join(filter(None, (name, options.called)))
    terms = TERMS | {"max_steps": options.steps, "learning_rate": options.rate, "max_length": SETS[options.set][3]}
    parts = []
    with shared_activations(most_mb=9000):
        for fold in range(options.folds):
            parts.append(one_part(table, fold, terms, options))
            found = pool(parts)
            with pl.Config(tbl_rows=100, tbl_cols=20, fmt_str_lengths=50, tbl_width_chars=220):
                print(found.table.drop("says", "seeds"), flush=True)
    if options.scores is not None:
        options.scores.mkdir(parents=True, exist_ok=True)
        found.scores.write_parquet(options.scores / f"{name}.parquet")
        found.held_out.write_parquet(options.scores / "held_out.parquet")
    about = {"rows": table.height, "wrong": float((table["label"] != table["truth"]).mean())}
    about |= {
        "undesirable": float(1 - table["truth"].mean()),
        "budgets": options.budgets,
        "queue_minus_random": by_the_queue(found),
    }
    place = write_result(name, about | found.as_dict() | machine())
    found.plot().savefig(place.with_suffix(".png"), dpi=110)


def by_the_queue(found: Ablation) -> list[dict]:
    """What each kind of review gives by the audit's queue, minus as many rows reviewed at random; paired."""
    arms = found.table.filter(pl.col("budget").is_not_null(), pl.col("measure") == "auc").select("arm", "family", "budget")
    lines = []
    for arm, _, budget in arms.filter(pl.col("family") == "reviewed at random").iter_rows():
        of_budget = found.scores.filter(pl.col("arm").is_in(arms.filter(pl.col("budget") == budget)["arm"].implode()))
        compared = contrast(of_budget, found.held_out.unique(maintain_order=True), baseline=arm).filter(pl.col("arm") != arm)
        lines += compared.select(
            "arm", "measure", pl.lit(arm).alias("minus"), "^minus_(baseline|low|high)$", "differs"
        ).to_dicts()
    return lines


def one_part(table: pl.DataFrame, fold: int, terms: dict, options: argparse.Namespace):
    held_out = pl.col("part_of_five") == fold
    train = table.filter(~held_out)
    audit = LabelAudit(train, kd.label_noise(train), {"seed": 0})
    plan = plan_ablation(
        audit,
        table.filter(held_out),
        model=POLICY,
        truth=dict(train.select("row_id", "truth").iter_rows()),
        budgets=options.budgets,
        families=options.families,
        seeds=[fold],
        train=terms,
        conversational=False,
        folder=options.folder,
    )
    if options.arms:
        wanted = {NOISY, *options.arms}
        plan = replace(plan, trainings=[training for training in plan.trainings if training.arm.name in wanted])
    return plan.run(lambda event: print(event, flush=True))


if __name__ == "__main__":
    main()
