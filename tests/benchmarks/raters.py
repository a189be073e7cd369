"""What is gained by weighing raters, and what criteria drift is found, on votes that people and judges really gave.

    python tests/benchmarks/raters.py DATA_FOLDER

Aggregation is scored on votes it did not see: each row gives up one vote, the others predict it (accuracy; log loss in nats).
LLMBar has a gold label; its settings are chosen on the rows of even number and reported on those of odd number. Drift is injected
into labels that people gave, and looked for again; clean data are the same rows with raters, sources and dates shuffled.
"""

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result
from scipy.stats import spearmanr

import ktodata as kd
from ktodata.labels.people.drift import criteria_drift
from ktodata.labels.people.raters import dawid_skene, krippendorff_alpha

ENCODER = "packaged:all-minilm-l6-v2"
VOTES = {"row_id": pl.String, "rater": pl.String, "verdict": pl.Boolean}
WAYS: dict[str, dict[str, Any]] = {
    "dawid-skene, correlated": {},
    "dawid-skene, independent": {"correlated": False},
    "dawid-skene, correlated, strength 20": {"strength": 20.0},
}
DRAWS = 2000
SHUFFLES = 20
DRIFT_BY = ("source", "rater", "model")


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def votes_of(lines: list[tuple[str, str, bool]]) -> pl.DataFrame:
    return pl.DataFrame(lines, schema=VOTES, orient="row").unique(["row_id", "rater"], keep="last", maintain_order=True)


def tulu(folder: Path) -> pl.DataFrame:
    """Completions that several people judged, each acceptable or not; a person's last verdict."""
    rows = read(folder / "kto_tulu1_human.jsonl.gz")
    return votes_of([("\t".join((r["prompt"], r["completion"], r["model"])), r["annotator"], r["label"]) for r in rows])


def convabuse(folder: Path) -> pl.DataFrame:
    """Eight annotators on what users say to bots; desirable: not abuse. A cell with several entries is one person's last."""
    table = pl.read_csv(folder / "multiannotator_convabuse_train.csv", infer_schema_length=0).with_row_index("n")
    lines = []
    for row in table.iter_rows(named=True):
        for k in range(1, 9):
            given = [(score, row[f"Annotator{k}_is_abuse.{score}"]) for score in (1, 0, -1, -2, -3)]
            chosen = [score for score, cell in given if cell and cell.split(",")[-1].strip() == "1"]
            if len(chosen) == 1:
                lines.append((str(row["n"]), f"annotator {k}", chosen[0] >= 0))
    return votes_of(lines)


def pandalm(folder: Path) -> pl.DataFrame:
    """Three people on which of two answers is better; ties are no vote."""
    rows = read(folder / "pref_pandalm.jsonl.gz")
    return votes_of(
        [(str(n), f"annotator {k}", r[f"annotator{k}"] == 1) for n, r in enumerate(rows) for k in (1, 2, 3) if r[f"annotator{k}"]]
    )


def leave_one_out(votes: pl.DataFrame, *, folds: int = 8, seed: int = 0) -> dict[str, Any]:
    """Each row with several votes gives up each of its votes once over `folds` draws, never two at a time."""
    rng = np.random.default_rng(seed)
    shuffled = votes[rng.permutation(votes.height)].with_columns(
        turn=pl.int_range(pl.len()).over("row_id"), many=pl.len().over("row_id")
    )
    told: list[pl.DataFrame] = []
    for fold in range(min(folds, int(votes.group_by("row_id").len()["len"].max()))):
        out = (pl.col("turn") == fold) & (pl.col("many") > 1)
        held, seen = shuffled.filter(out), shuffled.filter(~out)
        told.append(predict(held.select("row_id", "rater", "verdict"), seen.select("row_id", "rater", "verdict")))
    return score(pl.concat(told))


def predict(held: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Probability that each held-out vote says desirable, by each way, the held-out rater's name known to none and to DS."""
    base = seen["verdict"].mean()
    share = dict(seen.group_by("rater").agg(pl.col("verdict").mean()).iter_rows())
    for name, settings in WAYS.items():
        told = dawid_skene(seen, **settings)
        raters = told.raters.select("rater", "sensitivity", "specificity")
        held = held.join(told.rows.select("row_id", "p_desirable", "votes_up", "votes_down"), on="row_id", how="left")
        held = held.join(raters, on="rater", how="left")
        sensitivity = pl.col("sensitivity").fill_null(told.metrics["pooled_sensitivity"])
        specificity = pl.col("specificity").fill_null(told.metrics["pooled_specificity"])
        p = pl.col("p_desirable")
        held = held.with_columns(
            (p * told.metrics["pooled_sensitivity"] + (1 - p) * (1 - told.metrics["pooled_specificity"])).alias(name),
            (p * sensitivity + (1 - p) * (1 - specificity)).alias(f"{name}, rater known"),
            p.alias(f"{name}: row"),
        )
        up, down = pl.col("votes_up"), pl.col("votes_down")
        held = held.with_columns(
            # a level split: the commoner verdict
            pl.when(up == down).then(pl.lit(base)).otherwise((up > down).cast(pl.Float64)).alias("majority: row"),
            ((up + base) / (up + down + 1)).alias("majority"),
        ).drop("sensitivity", "specificity", "p_desirable", "votes_up", "votes_down")
    return held.with_columns(
        pl.lit(base).alias("class share"), pl.col("rater").replace_strict(share, default=base).alias("rater's share")
    )


def score(told: pl.DataFrame) -> dict[str, Any]:
    """Accuracy and log loss of each way, with the paired difference in accuracy from the majority (bootstrap over rows)."""
    truth = told["verdict"].to_numpy()
    row = told["row_id"].rank("dense").to_numpy().astype(int) - 1
    plain = right(told["majority: row"], truth)
    out: dict[str, Any] = {"votes held out": told.height, "rows": int(row.max()) + 1}
    for name in told.columns[3:]:
        p = np.clip(told[name].to_numpy().astype(float), 1e-3, 1 - 1e-3)
        loss = -np.where(truth, np.log(p), np.log(1 - p))
        hit = right(told[name], truth)
        out[name] = {"accuracy": float(hit.mean()), "gain": paired(hit - plain, row)}
        if not name.endswith(": row"):
            out[name] |= {"log_loss": float(loss.mean())}
    return out


def right(p: pl.Series, truth: np.ndarray) -> np.ndarray:
    return ((p.to_numpy() > 0.5) == truth).astype(float)


def paired(difference: np.ndarray, row: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean difference with its 95 % bootstrap interval over rows."""
    total, count = np.bincount(row, difference), np.bincount(row)
    picks = np.random.default_rng(seed).integers(0, len(count), (DRAWS, len(count)))
    means = total[picks].sum(axis=1) / count[picks].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(difference.mean()), "low": float(low), "high": float(high)}


def llmbar(folder: Path) -> dict[str, Any]:
    """65 judges, two orders each, against gold: each (judge, order) is a rater. Chosen on even rows, reported on odd ones."""
    rows = read(folder / "pref_llmbar_judges.jsonl.gz")
    gold = np.array([r["gold"] == 1 for r in rows])
    lines = [
        (str(n), f"{judge} #{order}", str(vote) == "1")
        for n, r in enumerate(rows)
        for judge, both in r["judge_votes"].items()
        for order, vote in enumerate(both)
        if str(vote) in ("1", "2")
    ]
    votes = votes_of(lines)
    truth = pl.DataFrame({"row_id": [str(n) for n in range(len(rows))], "gold": gold})
    odd = np.arange(len(rows)) % 2 == 1
    scored: dict[str, Any] = {}
    for name, settings in WAYS.items():
        told = dawid_skene(votes, **settings)
        table = truth.join(told.rows, on="row_id", how="left", maintain_order="left")
        ours = (table["p_desirable"].to_numpy() > 0.5) == gold
        majority = (table["votes_up"] > table["votes_down"]).to_numpy() == gold
        true = votes.join(truth, on="row_id").group_by("rater").agg(true=(pl.col("verdict") == pl.col("gold")).mean())
        quality = told.raters.join(true, on="rater").with_columns(judge=pl.col("rater").str.split(" #").list.first())
        by_judge = quality.group_by("judge").agg(pl.col("accuracy", "true").mean())
        scored[name] = {
            "even rows (chosen on)": float(ours[~odd].mean()),
            "odd rows": float(ours[odd].mean()),
            "majority, odd rows": float(majority[odd].mean()),
            "gain, odd rows": paired((ours.astype(float) - majority)[odd], np.arange(odd.sum())),
            "all rows": float(ours.mean()),
            "majority, all rows": float(majority.mean()),
            "gain, all rows": paired(ours.astype(float) - majority, np.arange(len(ours))),
            "spearman of judge quality": float(spearmanr(by_judge["accuracy"], by_judge["true"]).statistic),
            "inverted raters": told.raters["inverted"].sum(),
        }
    best = max(scored, key=lambda name: scored[name]["even rows (chosen on)"])
    return {"rows": len(rows), "raters": votes["rater"].n_unique(), "chosen": best, "ways": scored}


def with_p(table: pl.DataFrame) -> pl.DataFrame:
    """p_desirable out of fold, learnt from the labels as they are in `table`."""
    return kd.add_columns(table, kd.label_noise(table))


def drift_table(folder: Path) -> pl.DataFrame:
    """Human verdicts with annotator, model and time; the source is one of five, drawn by prompt."""
    table = kd.read(folder / "kto_tulu1_human.jsonl.gz", rater="annotator", created_at="timestamp", model="model").feedback
    for stage in (kd.validate, kd.dedupe):
        table = kd.add_columns(table, stage(table))
    table = table.with_columns(source=pl.format("source {}", pl.col("prompt").hash(seed=1) % 5))
    return kd.add_columns(table, kd.embed(table, model=ENCODER))


def injected_drift(table: pl.DataFrame, seed: int) -> dict[str, Any]:
    """One model's or rater's labels re-thresholded; one rater inverted from a date on. Each is injected alone, p learnt anew."""
    rng = np.random.default_rng(seed)
    out: dict[str, Any] = {}
    rater = table["rater"].value_counts(sort=True)["rater"][0]
    mine = (table["rater"] == rater).fill_null(value=False).to_numpy()
    label = table["label"].to_numpy()
    strict = label & ~(mine & label & (rng.random(len(label)) < 0.45))
    out["rater made strict"] = found(table.with_columns(label=pl.Series(strict)), "rater", rater)
    when = table.filter(pl.Series(mine))["created_at"].quantile(0.5, "nearest")
    after = mine & (table["created_at"] >= when).to_numpy()
    told = found(table.with_columns(label=pl.Series(label ^ after)), "rater", rater)
    low, high = (told["line"] or {}).get("since_low"), (told["line"] or {}).get("since_high")
    told["true date"], told["dated"] = when, bool(low and high and low <= when <= high)
    out["rater inverted since"] = told
    family = f"source {seed}"
    mine = (table["source"] == family).to_numpy()
    strict = label & ~(mine & label & (rng.random(len(label)) < 0.45))
    out["source made strict"] = found(table.with_columns(label=pl.Series(strict)), "source", family)
    return out


def found(table: pl.DataFrame, column: str, value: str) -> dict[str, Any]:
    drift = criteria_drift(with_p(table), DRIFT_BY)
    hits = drift.table.filter("significant")
    line = hits.filter((pl.col("column") == column) & (pl.col("value") == value)).to_dicts()
    others = hits.filter((pl.col("column") != column) | (pl.col("value") != value))
    names = [f"{c}={v} ({k})" for c, v, k in others.select("column", "value", "kind").iter_rows()]
    return {"injected in": f"{column}={value}", "named": bool(line), "line": line[0] if line else None, "others named": names}


def shuffles(table: pl.DataFrame) -> dict[str, Any]:
    """Who and when shuffled against what and verdict (p stays), and verdicts shuffled (p learnt anew): no drift in either."""
    rng = np.random.default_rng(0)
    told = with_p(table)
    alarms = {"rater, source, model, date shuffled": 0, "labels shuffled": 0}
    for seed in range(SHUFFLES):
        moved = told[rng.permutation(told.height)].select("rater", "source", "model", "created_at")
        drift = criteria_drift(told.with_columns(moved), DRIFT_BY)
        alarms["rater, source, model, date shuffled"] += drift.metrics["significant"] > 0
        mixed = table.with_columns(label=table["label"].sample(fraction=1, shuffle=True, seed=seed))
        alarms["labels shuffled"] += criteria_drift(with_p(mixed), DRIFT_BY).metrics["significant"] > 0
    as_is = criteria_drift(told, DRIFT_BY).table.filter("significant")
    return {"shuffles": SHUFFLES, "with a false alarm": alarms, "found in the data as they are": as_is.to_dicts()}


def speed() -> dict[str, float]:
    """200,000 votes of 1,000 raters on 60,000 rows; 100,000 rows of 50 raters for drift."""
    rng = np.random.default_rng(0)
    row, rater, truth = rng.integers(0, 60_000, 200_000), rng.integers(0, 1000, 200_000), rng.random(60_000) < 0.6
    verdict = truth[row] == (rng.random(200_000) < rng.uniform(0.6, 0.95, 1000)[rater])
    votes = pl.DataFrame({"row_id": row, "rater": rater, "verdict": verdict}).with_columns(
        pl.col("row_id", "rater").cast(pl.String)
    )
    start = time.perf_counter()
    dawid_skene(votes)
    middle = time.perf_counter()
    p = rng.beta(2, 1, 100_000)
    rows = pl.DataFrame({"label": rng.random(100_000) < p, "p_desirable": p, "prompt_group": rng.integers(0, 40_000, 100_000)})
    rows = rows.with_columns(
        row_id=pl.int_range(100_000).cast(pl.String),
        rater=pl.Series(rng.integers(0, 50, 100_000)).cast(pl.String),
        created_at=pl.from_epoch(pl.Series(rng.integers(1_700_000_000, 1_760_000_000, 100_000))),
    )
    criteria_drift(rows, ("rater",))
    return {"200,000 votes, seconds": middle - start, "drift of 100,000 rows, seconds": time.perf_counter() - middle}


def show(name: str, told: dict[str, Any]) -> None:
    print(f"\n{name}: {told['votes held out']:,} votes held out of {told['rows']:,} rows, alpha {told['alpha']}")
    for way, one in told.items():
        if isinstance(one, dict) and "accuracy" in one:
            gain = one["gain"]
            loss = f"{one['log_loss']:.4f}" if "log_loss" in one else ""
            print(f"  {way:52} {one['accuracy']:.4f}  {gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]  {loss}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    result: dict[str, Any] = {"encoder": ENCODER, "held_out_votes": {}}
    for name, load in {"tulu1_human": tulu, "convabuse": convabuse, "pandalm": pandalm}.items():
        votes = load(folder)
        told = leave_one_out(votes) | {"alpha": krippendorff_alpha(votes).as_dict()}
        result["held_out_votes"][name] = told
        show(name, told)
    result["llmbar"] = llmbar(folder)
    print(json.dumps(result["llmbar"], indent=1))
    result["seconds"] = speed()
    table = drift_table(folder)
    result["drift"] = {"injected": [injected_drift(table, seed) for seed in range(3)], "clean": shuffles(table)}
    print(json.dumps([result["seconds"], result["drift"]], indent=1, default=str))
    write_result("raters", result | machine())


if __name__ == "__main__":
    main()
