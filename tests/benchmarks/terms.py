"""Which rate and how many updates? Chosen on people's verdicts alone, before any weak label or treatment is looked at.

    python tests/benchmarks/terms.py DATA_FOLDER [--rates 1e-4 3e-4] [--steps 40] [--folder DIR]

XSTest completions with people's verdicts, parted as ablation.py says. Parts 1 to 4: two of them are judged in turn by models of the
three others, pooled; part 0 is not touched. All else is as in ablation.py: SmolLM2-135M-Instruct, its top 6 layers, updates of 16.
"""

import argparse
from pathlib import Path

import polars as pl
from ablation import TERMS, rows_of
from label_noise import POLICY
from machine import machine, write_result

from ktodata.experiments.ablation import plan_arms
from ktodata.experiments.arms import Arm
from ktodata.experiments.contrast import contrast
from ktodata.train.model.activation_cache import shared_activations

PARTS, JUDGED = (1, 2, 3, 4), (4, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-4, 3e-4])
    parser.add_argument("--steps", type=int, nargs="*", default=[40])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    table = rows_of(options.data, "xstest", "weak_label_gpt4").with_columns(label="truth")
    about = table.select("row_id", "truth", group="prompt_group", model="model")
    shared = {**TERMS, "epochs": 1000, "batch_size": 16, "trainable_layers": 6}
    tried = [{"learning_rate": rate, "max_steps": steps} for steps in options.steps for rate in options.rates]
    scores = []
    with shared_activations(most_mb=9000):
        for judged in JUDGED:
            rows = table.filter(pl.col("part_of_five").is_in([part for part in PARTS if part != judged]))
            rows = rows.select("row_id", "prompt", "completion", "label", "prompt_group")
            arms = [Arm(_name(one), "true labels", rows, one) for one in tried]
            held_out = table.filter(pl.col("part_of_five") == judged)
            plan = plan_arms(
                lambda _, arms=arms: arms, held_out, model=POLICY, seeds=[judged], train=shared, folder=options.folder
            )
            scores.append(plan.rewards(lambda event: print(event, flush=True)))
            lines = contrast(pl.concat(scores), about, baseline=_name(tried[0]))
            with pl.Config(tbl_rows=100, tbl_cols=20, fmt_str_lengths=50, tbl_width_chars=220):
                print(lines, flush=True)
    write_result("terms", {"settings": shared, "tried": lines.to_dicts()} | machine())


def _name(tried: dict[str, float]) -> str:
    return f"rate {tried['learning_rate']:g}, {tried['max_steps']} updates"


if __name__ == "__main__":
    main()
