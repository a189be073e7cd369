"""Are automatic weights as good as the best that a hand would find? 1:1, 1:4 and 1:10 desirable to undesirable rows, true labels.

    python tests/benchmarks/balance.py DATA_FOLDER [--folds 3] [--rows 110] [--steps 20] [--folder DIR]

Rows: XSTest completions with people's verdicts, drawn to the ratio from the training side of each part (ablation.py says how the set
is parted; a part is held out as it is). Arms: the weights that `kd.train.fit` sets when it is given none, the same desirable weight
times 1/4, 1/2, 2 and 4, and no weights. All else is equal: rows, seeds, updates, held-out rows. "No worse" is a paired difference of
held-out reward AUC; the best of a sweep is chosen with the truth of the held-out rows in hand, so it is flattered.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from ablation import TERMS, rows_of
from label_noise import POLICY
from machine import machine, write_result

from ktodata.experiments.ablation import plan_arms
from ktodata.experiments.arms import Arm
from ktodata.experiments.contrast import contrast
from ktodata.train.model.activation_cache import shared_activations

AUTOMATIC = "automatic"
RATIOS = (1, 4, 10)  # undesirable rows for each desirable one
FACTORS = (0.25, 0.5, 2.0, 4.0)


def drawn(train: pl.DataFrame, ratio: int, rows: int, seed: int) -> pl.DataFrame:
    """`rows` rows with `ratio` undesirable ones for each desirable one, or as many as there are at that ratio."""
    down = min(round(rows * ratio / (1 + ratio)), int((~train["truth"]).sum()))
    up = max(2, round(down / ratio))
    rng = np.random.default_rng([seed, ratio])
    picked = [
        rng.permutation(np.flatnonzero(train["truth"].to_numpy() == label))[:count]
        for label, count in ((True, up), (False, down))
    ]
    kept = train[np.sort(np.concatenate(picked))].with_columns(label="truth")
    return kept.select("row_id", "prompt", "completion", "label", "prompt_group")


def arms(rows: pl.DataFrame, ratio: int) -> list[Arm]:
    up, down = int(rows["label"].sum()), int((~rows["label"]).sum())
    even = down / up  # the desirable weight that makes both count the same

    def by_hand(weight: float) -> dict[str, float]:
        # one of the two is 1, as in the paper
        return {"desirable_weight": max(weight, 1.0), "undesirable_weight": max(1 / weight, 1.0)}

    sweep = [Arm(f"automatic x {factor:g}", "by hand", rows, by_hand(even * factor)) for factor in FACTORS]
    none = [Arm("no weights", "both count 1", rows, by_hand(1.0))] if ratio > 1 else []
    return [Arm(AUTOMATIC, "none given", rows), *sweep, *none]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=110)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    table = rows_of(options.data, "xstest", "weak_label_gpt4")
    terms = TERMS | {"max_steps": options.steps, "epochs": 1000, "batch_size": 16, "learning_rate": 1e-4, "trainable_layers": 6}
    found = {}
    with shared_activations(most_mb=9000):
        for ratio in RATIOS:
            scores, counts = [], []
            for fold in range(options.folds):
                held_out = table.filter(pl.col("part_of_five") == fold).with_columns(label="truth")
                rows = drawn(table.filter(pl.col("part_of_five") != fold), ratio, options.rows, fold)
                counts.append([int(rows["label"].sum()), int((~rows["label"]).sum())])
                tried = arms(rows, ratio)
                plan = plan_arms(
                    lambda _, tried=tried: tried, held_out, model=POLICY, seeds=[fold], train=terms, folder=options.folder
                )
                notify = partial(print, ratio, flush=True)
                scores.append(plan.rewards(notify))
            about = table.select("row_id", "truth", group="prompt_group", model="model")
            lines = contrast(pl.concat(scores), about, baseline=AUTOMATIC)
            found[f"1:{ratio}"] = {"rows": counts, "arms": lines.to_dicts()}
            with pl.Config(tbl_rows=100, tbl_cols=20, fmt_str_lengths=50, tbl_width_chars=220):
                print(lines, flush=True)
    write_result("balance", {"settings": terms, "desirable_to_undesirable": found} | machine())


if __name__ == "__main__":
    main()
