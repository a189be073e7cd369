"""What to make of p = P(truly desirable) once some rows are reviewed: a screen of treatments by a linear model, in minutes.

    python tests/benchmarks/treatments.py DATA_FOLDER [--draws 3] [--budgets 0.05 0.1]

A ridge regression on the policy's hidden states stands in for the policy: it ranks held-out rows by what training rows are pulled to.
It is a guide to which treatments are worth training in ablation.py, whose sets, parts and audits these are, and no result: there is no
KTO in it. For each set, part and draw of reviews (played by the audit's queue):

    as given, true      the labels, each side weighing the same
    righted             as given, reviewed rows put right
    likelier            the likelier label, each side weighing the same
    2 p - 1             the likelier label, weighed by how far it is the likelier one, each side weighing the same
    as many             as many undesirable rows as are expected, the likeliest ones
    about the mean      pulled by p - mean p: the expected loss with each side weighing the same

AUC of held-out truth, mean over parts and draws; `strength` is the ridge's penalty per row.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from ablation import rows_of
from label_noise import FLIPS, SYSTEMS, flipped
from machine import machine, write_result
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import ktodata as kd
from ktodata.labels.people.review_simulation import reviews_of
from ktodata.pipeline.audit import LabelAudit

STRENGTHS = (0.01, 0.1)
RATES = (0.2, 0.4)


def pulls(labels: np.ndarray, truth: np.ndarray, p: np.ndarray, reviewed: np.ndarray) -> dict[str, np.ndarray]:
    """What each treatment pulls a row to: float [N], up above zero, down below; each side pulls as much."""
    believed = np.where(reviewed, truth, p)
    lowest = np.argsort(believed, kind="stable")[: max(1, round((1 - believed).sum()))]
    as_many = np.ones(len(p))
    as_many[lowest] = -1
    sign = np.where(believed > 0.5, 1.0, -1.0)
    each = {
        "as given": np.where(labels, 1.0, -1.0),
        "true": np.where(truth, 1.0, -1.0),
        "righted": np.where(np.where(reviewed, truth, labels), 1.0, -1.0),
        "likelier": sign,
        "2 p - 1": 2 * believed - 1,
        "as many": as_many,
        "about the mean": believed - believed.mean(),
    }
    return {name: _even(pull) for name, pull in each.items()}


def _even(pull: np.ndarray) -> np.ndarray:
    even = pull.copy()
    for side in (pull > 0, pull < 0):
        if side.any():
            even[side] /= np.abs(pull[side]).sum()
    return even * len(pull)


def measured(name: str, table: pl.DataFrame, draws: int, budgets: list[float]) -> Iterator[dict]:
    """One line for each part, draw, budget, treatment and strength."""
    states = StandardScaler().fit_transform(np.stack(table["hidden_state"].to_numpy()).astype(float))
    states /= np.sqrt(states.shape[1])
    for part in range(5):
        held_out = (table["part_of_five"] == part).to_numpy()
        train = table.filter(~pl.Series(held_out))
        audit = LabelAudit(train, kd.label_noise(train, repeats=1), {"seed": 0})
        labels, truth = train["label"].to_numpy(), train["truth"].to_numpy()
        judged = table["truth"].to_numpy()[held_out]
        for draw in range(draws):
            for budget in budgets:
                asked = round(budget * train.height)
                rows, p = audit.features_of_trained(), audit.p_desirable_of_trained()
                groups = train["prompt_group"].rank("dense").to_numpy()
                played = reviews_of(rows, p, groups, labels, truth, asked, order="gain", seed=10 * draw + part)
                for treatment, pull in pulls(labels, truth, played.learnt.p_desirable, played.reviewed).items():
                    for strength in STRENGTHS:
                        model = Ridge(alpha=strength * train.height)
                        model.fit(states[~held_out], np.sign(pull), sample_weight=np.abs(pull) / np.abs(pull).mean())
                        auc = roc_auc_score(judged, model.predict(states[held_out]))
                        yield {"set": name, "budget": budget, "treatment": treatment, "strength": strength, "auc": auc}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.05, 0.1])
    options = parser.parse_args()
    sets = {system: rows_of(options.data, "xstest", system) for system in SYSTEMS}
    first = sets[SYSTEMS[0]]
    sets |= {f"{rate:.0%} {kind} flips": flipped(first, rate, kind) for kind in FLIPS for rate in RATES}
    lines = []
    for name, table in sets.items():
        lines += measured(name, table, options.draws, options.budgets)
        mean = (
            pl.DataFrame(lines).group_by("set", "strength", "budget", "treatment", maintain_order=True).agg(pl.col("auc").mean())
        )
        shown = mean.filter(pl.col("set") == name).pivot("treatment", index=["set", "strength", "budget"], values="auc")
        with pl.Config(tbl_rows=100, tbl_cols=20, tbl_width_chars=200, float_precision=3):
            print(shown, flush=True)
    write_result("treatments", {"parts": 5, "draws": options.draws, "mean_auc": mean.to_dicts()} | machine())


if __name__ == "__main__":
    main()
