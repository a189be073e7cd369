"""Does what training saw of each row make the next model better? Round 1 of self-training against round 0, judged by people.

    python tests/benchmarks/self_training.py DATA_FOLDER [--labels weak_label_gpt4] [--folds 5] [--steps 40] [--cross-fit]
        [--folder DIR]

XSTest, with a weak system's labels; rows, folds and terms are those of ablation.py, and people's verdicts judge. In each fold:

    round 0             5 % of the training rows reviewed (played, by the audit's queue), the others softened by what that taught
    round 1             the same with the telemetry of round 0 as an opinion: looks before a row's own first update
    shuffled            the control: that opinion dealt anew among the rows of a given label
    round 1, cross-fit  (--cross-fit) the same with looks at the half of the rows that a training on the other half never saw

Trained are all but the control. `models`: reward AUC on the held-out rows. `p_desirable`: the AUC of what is believed of the
training rows that nobody reviewed, against people's verdicts; "within label" is the error AUROC within a given label, where a ranking
by label scores 0.5. Differences to round 0 are paired, their intervals over prompts and folds. Round 1 makes as many updates as
round 0, from the same base, with the same seed. Finished trainings are kept in DIR.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ablation import TERMS, rows_of
from label_noise import POLICY, SYSTEMS
from machine import machine, write_result

import ktodata as kd
from ktodata.digests import code_digest, digest
from ktodata.experiments.arm_keys import digest_rows
from ktodata.experiments.contrast import contrast
from ktodata.labels.actions import soft_labels
from ktodata.labels.evidence.training_dynamics import training_dynamics
from ktodata.labels.people.review_simulation import reviews_of
from ktodata.labels.people.reviewed_model import ReviewedModel, learn_from_reviews
from ktodata.pipeline.ablate import TERMS as BASE_TERMS
from ktodata.pipeline.audit import LabelAudit
from ktodata.train.model.activation_cache import shared_activations

ROUND_0, ROUND_1, SHUFFLED, CROSS_FIT = "round 0", "round 1", "shuffled", "round 1, cross-fit"


@dataclass
class Fold:
    """The training side of one fold, played up to its reviews."""

    number: int
    train: pl.DataFrame
    held_out: pl.DataFrame
    audit: LabelAudit
    reviewed: np.ndarray
    terms: dict[str, Any]
    folder: Path | None

    @classmethod
    def of(cls, table: pl.DataFrame, number: int, budget: float, terms: dict[str, Any], folder: Path | None) -> "Fold":
        train = table.filter(pl.col("part_of_five") != number)
        held_out = table.filter(pl.col("part_of_five") == number).with_columns(label="truth")
        audit = LabelAudit(train, kd.label_noise(train), {"seed": 0})
        labels, truth = train["label"].to_numpy(), train["truth"].to_numpy()
        rows, p = audit.features_of_trained(), audit.p_desirable_of_trained()
        groups, count = train["prompt_group"].rank("dense").to_numpy(), round(budget * train.height)
        played = reviews_of(rows, p, groups, labels, truth, count, order="gain", seed=number)
        return cls(number, train, held_out, audit, played.reviewed, terms, folder)

    @property
    def labels(self) -> np.ndarray:
        return self.train["label"].to_numpy()

    def learn(self, opinion: np.ndarray | None) -> ReviewedModel:
        """What the reviews say of every row, with an opinion [N] or without."""
        rows, p, truth = self.audit.features_of_trained(), self.audit.p_desirable_of_trained(), self.train["truth"].to_numpy()
        opinions = None if opinion is None else opinion[:, None]
        return learn_from_reviews(rows, p, self.labels, self.reviewed, truth, opinions=opinions)

    def soft(self, learnt: ReviewedModel) -> pl.DataFrame:
        """Rows to train on: soft labels of what was learnt, as the ablation's arm of reviews has them."""
        known = np.array([learnt.scale[bool(label)] is not None for label in self.labels])
        p_wrong = np.where(self.labels, 1 - learnt.p_desirable, learnt.p_desirable)
        soft = soft_labels(self.labels, p_wrong, known, self.reviewed, self.train["truth"].to_numpy())
        plain = self.train.select("row_id", "prompt", "completion", "label", "prompt_group")
        return plain.with_columns(p_desirable=pl.Series(soft))

    def looks(self, rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
        """The telemetry of a training on `rows` that looks at `others`; from the folder if it was made before."""
        others = others.select("row_id", "prompt", "completion", "label", "prompt_group")
        place = None
        if self.folder is not None:
            made_by = [code_digest("ktodata.train.trainer"), self.terms, self.number]
            key = digest(made_by, digest_rows(rows, rows.columns), digest_rows(others, others.columns))
            place = self.folder / f"{key}.parquet"
            if place.is_file():
                return pl.read_parquet(place)
        parts = {"train": rows, "validation": others}
        both = pl.concat([one.with_columns(part=pl.lit(part)) for part, one in parts.items()], how="diagonal")
        telemetry = kd.train.fit(both, model=POLICY, seed=self.number, soft_labels=True, **self.terms).telemetry
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            telemetry.write_parquet(place)
        return telemetry

    def cross_fit(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Looks at each half of the rows by a training on the other; a prompt and its twin are in one half."""
        half = self.train["place"].cast(pl.Int64) // 5 % 2
        each = [self.looks(rows.filter(half != one), rows.filter(half == one)) for one in (0, 1)]
        return pl.concat([looks.filter(pl.col("part") == "validation") for looks in each])

    def opinion(self, looks: pl.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
        signal = training_dynamics(looks, self.train["row_id"].to_list(), self.labels)
        return signal.pull, dict(signal.metrics)


def measured(fold: Fold, *, cross_fit: bool) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """(rewards of held-out rows, p_desirable of rows that nobody reviewed: both arm, seed, row_id, reward; facts)."""
    learnt = {ROUND_0: fold.learn(None)}
    first = fold.looks(fold.soft(learnt[ROUND_0]), fold.held_out)
    seen, rewards = {ROUND_1: first}, [_rewards(ROUND_0, fold, first)]
    if cross_fit:
        seen[CROSS_FIT] = fold.cross_fit(fold.soft(learnt[ROUND_0]))
    facts: dict[str, Any] = {}
    beliefs = [_beliefs(ROUND_0, fold, learnt[ROUND_0].p_desirable)]
    for arm, looks in seen.items():
        opinion, facts[arm] = fold.opinion(looks)
        learnt[arm] = fold.learn(opinion)
        facts[arm]["weights"] = {str(given): [vars(one) for one in of] for given, of in learnt[arm].weights.items()}
        beliefs.append(_beliefs(arm, fold, learnt[arm].p_desirable))
        beliefs.append(_beliefs(f"{arm}: the opinion alone", fold, np.nan_to_num(opinion)))
        rewards.append(_rewards(arm, fold, fold.looks(fold.soft(learnt[arm]), fold.held_out)))
        if arm == ROUND_1:
            beliefs.append(_beliefs(SHUFFLED, fold, fold.learn(_shuffled(opinion, fold)).p_desirable))
    return pl.concat(rewards), pl.concat(beliefs), facts


def _shuffled(opinion: np.ndarray, fold: Fold) -> np.ndarray:
    dealt, rng = opinion.copy(), np.random.default_rng(fold.number)
    for given in (False, True):
        rows = np.flatnonzero(fold.labels == given)
        dealt[rows] = opinion[rng.permutation(rows)]
    return dealt


def _rewards(arm: str, fold: Fold, looks: pl.DataFrame) -> pl.DataFrame:
    held_out = looks.filter(pl.col("part") == "validation")
    last = held_out.filter(pl.col("step") == held_out["step"].max())
    return last.select(arm=pl.lit(arm), seed=pl.lit(fold.number), row_id="row_id", reward=pl.col("log_ratio").cast(pl.Float64))


def _beliefs(arm: str, fold: Fold, p: np.ndarray) -> pl.DataFrame:
    rows = fold.train.select(arm=pl.lit(arm), seed=pl.lit(fold.number), row_id="row_id", reward=pl.Series(p))
    return rows.filter(pl.Series(~fold.reviewed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", choices=SYSTEMS, default=SYSTEMS[0])
    parser.add_argument("--folds", type=int, default=5, help="how many of the five parts are held out in turn")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--budget", type=float, default=0.05)
    parser.add_argument("--cross-fit", action="store_true")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    table = rows_of(options.data, "xstest", options.labels)
    terms = {**BASE_TERMS, **TERMS, "epochs": 1000, "max_steps": options.steps, "learning_rate": options.rate}
    about = table.select("row_id", "truth", group="prompt_group", model="model")
    by_label = about.with_columns(model=table["label"].cast(pl.String))
    difference = partial(contrast, baseline=ROUND_0)
    rewards, beliefs, facts = [], [], {}
    with shared_activations(most_mb=9000):
        for number in range(options.folds):
            fold = Fold.of(table, number, options.budget, terms, options.folder)
            one = measured(fold, cross_fit=options.cross_fit)
            rewards.append(one[0])
            beliefs.append(one[1])
            facts[f"fold {number}"] = one[2]
            models = difference(pl.concat(rewards), about)
            p_desirable = difference(pl.concat(beliefs), by_label).with_columns(
                pl.col("measure").str.replace("auc_within_model", "auc within label")
            )
            with pl.Config(tbl_rows=100, tbl_cols=20, fmt_str_lengths=50, tbl_width_chars=220):
                shown = ("arm", "measure", "value", "low", "high", "minus_baseline", "minus_low", "minus_high", "differs")
                print(models.select(shown), p_desirable.select(shown), sep="\n", flush=True)
    found = {
        "rows": table.height,
        "wrong": float((table["label"] != table["truth"]).mean()),
        "budget": options.budget,
        "terms": {"model": POLICY, **terms},
        "models": models.to_dicts(),
        "p_desirable": p_desirable.to_dicts(),
        "folds": facts,
    }
    write_result(f"self_training_{options.labels}", found | machine())


if __name__ == "__main__":
    main()
