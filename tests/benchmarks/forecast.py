"""KD049's forecast beside what training realises: label sources x treatments of the labels, after a share of the rows was reviewed.

    python tests/benchmarks/forecast.py DATA_FOLDER --folder DIR [--sources ...] [--folds 2] [--steps 40] [--layers 1] [--reviewed 0.2]

XSTest's two weak label sources, and the truth with flips of three kinds at two rates. Prompts and their twins are dealt into five parts;
each of --folds parts is held out once. The audit sees the training side alone; a share of it is reviewed by the audit's queue and put
right. Then for each label action that changes anything: the forecast, by KD049's own `costs`, of the squared error of a row's pull that
it takes away; and what it realises, reward AUC of the truth of held-out rows less that of the same rows with only the reviewed ones put
right. Realised twice:

    kto      SmolLM2-135M-Instruct, its last --layers layers trained by `kd.train.fit` for --steps updates of 16 rows, 64 tokens
    linear   a ridge regression on its hidden states (layer 16), pulled to what the rows are pulled to: cheap, no KTO

A cell is a source and an action, averaged over parts. Sign right: both sides of zero agree. Trained arms and each source's lines are
kept in DIR, so that a stopped run goes on and sources can be made in turn.

    python tests/benchmarks/forecast.py DATA_FOLDER --folder DIR --ablations [--parts 2]

takes what was realised from the results of ablation.py (SmolLM2-135M-Instruct, its top 6 layers, 40 updates, five parts; real KTO), whose
treatments are as they were then: after 1 to 10 % reviewed, soft labels by p, and labels turned at p = 1/2 whatever reviews bear out. The
forecast is by the same costs for those treatments, p by what the reviews teach now, reviewed rows counted as put right. Nothing is trained.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ablation import rows_of
from label_noise import FLIPS, POLICY, SYSTEMS, flipped
from machine import machine, write_result
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import ktodata as kd
from ktodata.experiments.ablation import plan_arms
from ktodata.experiments.arms import Arm
from ktodata.experiments.treatments import NOISY
from ktodata.labels.actions import DROP_FROM, RELABEL_FROM, costs
from ktodata.labels.people.calibration import Calibration
from ktodata.labels.people.review_simulation import reviews_of
from ktodata.pipeline.audit import LabelAudit

RATES, PARTS, STRENGTH = (0.2, 0.4), 5, 0.1
TERMS = {"batch_size": 16, "learning_rate": 1e-4, "max_length": 64, "kl_pairs_per_batch": 4, "epochs": 1000, "dtype": "bfloat16"}
# cost of a row by p = P(its label is wrong), as the arms of ablation.py were until 2026-11-28
PAST_COSTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reviewed": lambda p: p * (1 - p),
    "relabelled": lambda p: np.minimum(p, 1 - p),
    "repaired": lambda p: np.minimum(np.minimum(p, 1 - p), 1 / 4),
}
Pulls = dict[str, np.ndarray]


def source(folder: Path, name: str) -> pl.DataFrame:
    if name in SYSTEMS:
        return rows_of(folder, "xstest", name)
    kind, rate = name.rsplit(" ", 1)
    return flipped(rows_of(folder, "xstest", SYSTEMS[0]), float(rate), kind)


def reviewed_part(train: pl.DataFrame, share: float, seed: int) -> tuple[np.ndarray, Calibration | None]:
    """Rows reviewed by the queue: bool [N], and what they bear out."""
    audit = LabelAudit(train, kd.label_noise(train, repeats=1, noise_injection=0, seed=seed), {"seed": seed})
    labels, truth = train["label"].to_numpy(), train["truth"].to_numpy()
    groups = train["prompt_group"].rank("dense").to_numpy()
    count = round(share * train.height)
    played = reviews_of(
        audit.features_of_trained(), audit.p_desirable_of_trained(), groups, labels, truth, count, order="gain", seed=seed
    )
    return played.reviewed, played.calibration


def pulls(righted: np.ndarray, reviewed: np.ndarray, calibration: Calibration) -> Pulls:
    """Of each action, the pull of each row, in [-1, 1]: what label_noise would do about rows that nobody reviewed."""
    given = np.where(righted, 1.0, -1.0)
    low = np.where(reviewed, 0.0, calibration.p_wrong_low)
    soft = np.where(reviewed, 0.0, calibration.least_sure)
    turned = np.where(low >= RELABEL_FROM, -given, given)
    return {
        "keep": given,
        "soften": given * (1 - 2 * soft),
        "relabel": turned,
        "drop": np.where(low > DROP_FROM, 0.0, given),
        "drop_and_relabel": np.where((low > DROP_FROM) & (low < RELABEL_FROM), 0.0, turned),
    }


def as_arm(action: str, pull: np.ndarray, rows: pl.DataFrame) -> Arm:
    """The same as rows to train on."""
    plain = rows.select("row_id", "prompt", "completion", "prompt_group", label=pl.Series(pull >= 0))
    name = NOISY if action == "keep" else action
    if action == "soften":
        soft = plain.with_columns(p_desirable=pl.Series((pull + 1) / 2))
        return Arm(name, action, soft, {"soft_labels": True})
    return Arm(name, action, plain.filter(pl.Series(pull != 0)))


def linear_auc(pull: np.ndarray, states: np.ndarray, held_out: np.ndarray, truth: np.ndarray) -> float:
    """AUC of a ridge on the states, each side pulling as much. pull : of the rows that are not held out"""
    weight = np.abs(pull)
    for side in (pull > 0, pull < 0):
        weight[side] /= max(weight[side].sum(), 1e-9)
    model = Ridge(alpha=STRENGTH * len(pull)).fit(states[~held_out], np.sign(pull), sample_weight=weight * len(pull) / 2)
    return float(roc_auc_score(truth[held_out], model.predict(states[held_out])))


def of_part(table: pl.DataFrame, part: int, trained: bool, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line for each action that changes anything."""
    held_out = (table["part_of_five"] == part).to_numpy()
    train, truth = table.filter(~pl.Series(held_out)), table["truth"].to_numpy()
    reviewed, calibration = reviewed_part(train, options.reviewed, part)
    if calibration is None:
        return
    right = np.where(reviewed, train["truth"], train["label"])
    every = pulls(right, reviewed, calibration)
    every = {name: pull for name, pull in every.items() if name == "keep" or not np.array_equal(pull, every["keep"])}
    cost = costs(calibration.p_wrong, calibration.p_wrong_low, calibration.least_sure, ~reviewed)
    target = np.where(train["truth"], 1.0, -1.0)[~reviewed]
    states = StandardScaler().fit_transform(np.stack(table["hidden_state"].to_numpy()).astype(float)) / np.sqrt(576)
    linear = {name: linear_auc(pull.copy(), states, held_out, truth) for name, pull in every.items()}
    kto = kto_aucs(every, train, table.filter(pl.Series(held_out)), part, options) if trained else {}
    errors = {name: float(np.mean((pull[~reviewed] - target) ** 2) / 4) for name, pull in every.items()}
    for name in every:
        if name != "keep":
            yield {
                "part": part,
                "action": name,
                "forecast": cost.keep - getattr(cost, name),
                "by labels": errors["keep"] - errors[name],
                "linear": linear[name] - linear["keep"],
                "kto": kto[name] - kto["keep"] if kto else None,
            }


def kto_aucs(
    every: Pulls, train: pl.DataFrame, held_out: pl.DataFrame, part: int, options: argparse.Namespace
) -> dict[str, float]:
    """Reward AUC of each action's model."""
    terms = TERMS | {"max_steps": options.steps, "trainable_layers": options.layers}
    arms = [as_arm(name, pull, train) for name, pull in every.items()]
    scored = held_out.select("row_id", "prompt", "completion", "prompt_group", "truth", label="truth")
    plan = plan_arms(lambda _seed: arms, scored, model=POLICY, seeds=[part], train=terms, folder=options.folder)
    scores = plan.rewards().join(plan.held_out.unique("row_id"), on="row_id", how="left")
    by_arm = {name[0]: float(roc_auc_score(lines["truth"], lines["reward"])) for name, lines in scores.group_by("arm")}
    return {name: by_arm[NOISY if name == "keep" else name] for name in every}


def past_cells() -> list[dict[str, Any]]:
    """Realised AUC over the labels as given, of each arm with reviews and without votes in ablation.py's results at 40 updates."""
    result = []
    for file in sorted((Path(__file__).parent / "results").glob("ablation_xstest_*.json")):
        name = file.stem.removeprefix("ablation_xstest_").rsplit("-", 3)[0]
        kind, _, rate = name.rpartition("_")
        source_name = next((system for system in SYSTEMS if name.startswith(system)), f"{kind} 0.{rate[:1]}")
        if "votes" in name or "77_updates" in name:
            continue
        for arm in json.loads(file.read_text())["arms"]:
            if arm["measure"] == "auc" and arm["family"] in PAST_COSTS and "about the mean" not in arm["arm"]:
                realised = {"kto": arm["minus_baseline"], "low": arm["minus_low"], "high": arm["minus_high"]}
                result.append({"source": source_name, "action": arm["family"], "budget": arm["budget"]} | realised)
    return result


def past_forecasts(table: pl.DataFrame, part: int, wanted: set[tuple[str, float]]) -> Iterator[dict[str, Any]]:
    """Of each (action, budget): the squared error of a row's pull that reviews and action are expected to take away, / 4."""
    train = table.filter(pl.col("part_of_five") != part)
    audit = LabelAudit(train, kd.label_noise(train, repeats=1, noise_injection=0, seed=part), {"seed": part})
    labels, truth = train["label"].to_numpy(), train["truth"].to_numpy()
    groups, rows, p = train["prompt_group"].rank("dense").to_numpy(), audit.features_of_trained(), audit.p_desirable_of_trained()
    for budget in sorted({budget for _, budget in wanted}):
        count = round(budget * train.height)
        played = reviews_of(rows, p, groups, labels, truth, count, order="gain", seed=part)
        p_wrong, reviewed = np.where(labels, 1 - played.learnt.p_desirable, played.learnt.p_desirable), played.reviewed
        righted = float((labels != truth)[reviewed].sum())
        for action, cost in PAST_COSTS.items():
            if (action, budget) in wanted:
                gain = righted + float((p_wrong - cost(p_wrong))[~reviewed].sum())
                yield {"action": action, "budget": budget, "forecast": gain / train.height}


def by_ablations(options: argparse.Namespace) -> pl.DataFrame:
    """Forecast and realised of every past cell."""
    past = pl.DataFrame(past_cells()).filter(pl.col("source").is_in(options.sources))
    lines = []
    for name in past["source"].unique(maintain_order=True):
        wanted = set(past.filter(source=name).select("action", "budget").iter_rows())
        kept = options.folder / f"past-{name}-{options.parts}.json"
        if not kept.exists():
            table = source(options.data, name)
            made = [{"source": name} | line for part in range(options.parts) for line in past_forecasts(table, part, wanted)]
            options.folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(made))
        print(kept.read_text(), flush=True)
        lines += json.loads(kept.read_text())
    means = pl.DataFrame(lines).group_by("source", "action", "budget").agg(pl.col("forecast").mean())
    return past.join(means, on=["source", "action", "budget"], maintain_order="left")


def cells(lines: pl.DataFrame) -> pl.DataFrame:
    """Each source and action, averaged over the parts in which the action changes something."""
    figures = ("forecast", "by labels", "linear", "kto")
    return lines.group_by("source", "action", maintain_order=True).agg(pl.len().alias("parts"), pl.col(figures).mean())


def agreement(table: pl.DataFrame, realised: str) -> dict[str, Any]:
    """How often the sign is right, and the rank correlation, over cells."""
    known = table.drop_nulls(realised)
    if known.height < 3:
        return {"cells": known.height}
    x, y = known["forecast"].to_numpy(), known[realised].to_numpy()
    return {
        "cells": known.height,
        "sign_right": int((np.sign(x) == np.sign(y)).sum()),
        "forecast_above_zero": int((x > 0).sum()),
        "realised_above_zero": int((y > 0).sum()),
        "rank_correlation": float(spearmanr(x, y).statistic),
        "rank_correlation_p": float(spearmanr(x, y).pvalue),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    names = [*SYSTEMS, *(f"{kind} {rate}" for kind in FLIPS for rate in RATES)]
    parser.add_argument("--sources", nargs="*", choices=names, default=names)
    parser.add_argument("--folds", type=int, default=2, help="parts of five that are trained on by KTO; the ridge takes all")
    parser.add_argument("--parts", type=int, default=PARTS, help="parts of five that are audited")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--ablations", action="store_true", help="against results of ablation.py, nothing is trained")
    parser.add_argument("--reviewed", type=float, default=0.2)
    options = parser.parse_args()
    if options.ablations:
        table = by_ablations(options)
        shown = table.filter((pl.col("low") > 0) | (pl.col("high") < 0))
        measured = {"all": agreement(table, "kto"), "whose interval lacks zero": agreement(shown, "kto")}
        print(json.dumps(measured, indent=1))
        write_result("forecast_ablations", {"parts": options.parts} | measured | {"cells": table.to_dicts()} | machine())
        return
    for name in options.sources:
        table = None
        for part in range(options.parts):
            kept = (
                options.folder / f"{name}-{part}-{options.reviewed}-{options.steps}-{options.layers}-{part < options.folds}.json"
            )
            if not kept.exists():
                table = source(options.data, name) if table is None else table
                lines = list(of_part(table, part, part < options.folds, options))
                options.folder.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps([{"source": name} | line for line in lines]))
            print(kept.read_text(), flush=True)
    pattern = f"*-*-{options.reviewed}-{options.steps}-{options.layers}-*.json"
    lines = [line for file in sorted(options.folder.glob(pattern)) for line in json.loads(file.read_text())]
    table = cells(pl.DataFrame(lines, infer_schema_length=None))
    measured = {realised: agreement(table, realised) for realised in ("kto", "linear", "by labels")}
    print(json.dumps(measured, indent=1))
    terms = {"steps": options.steps, "layers": options.layers, "reviewed": options.reviewed, "folds": options.folds}
    write_result("forecast", terms | measured | {"cells": table.to_dicts()} | machine())


if __name__ == "__main__":
    main()
