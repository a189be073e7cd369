"""How far votes are right: alone, where they order rows and change no label, and beside 5 % reviewed rows.

    python tests/benchmarks/votes.py DATA_FOLDER [--draws 40] [--simulations 40]

Without reviews: what `check_independence` says of real sets of votes whose truth is known, and of drawn ones whose raters err in ten ways;
how sure Dawid and Skene's p would be and how right; labels that it would turn, and how many rightly, where agreement identifies it and
where not. With reviews (5 % of the rows, 40 at least, drawn within each given label): log loss of the stack beside a plain logistic
regression on the same columns and the rates of the given labels, how much surer than right it is, and how right flags at 0.8 are,
on rows that nobody reviewed. The text's part is a TF-IDF logistic regression with folds grouped by prompt.
"""

import argparse
import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result
from scipy.special import expit, logit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from ktodata.labels.people.calibration import calibrate
from ktodata.labels.people.independence import check_independence
from ktodata.labels.people.raters import dawid_skene
from ktodata.labels.people.review_queue import stratified
from ktodata.labels.people.stacking import VoteColumns, stack

SYSTEMS = ("weak_label_gpt4", "weak_label_strmatch")
WAYS = (
    "independent",
    "adversary",
    "difficulty",
    "difficulty of one class",
    "clique",
    "traps",
    "bias",
    "copies",
    "noisy copies",
    "one-sided",
)
Cells = np.ndarray  # int [N, J], +1, -1, 0: no vote


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def real_sets(folder: Path) -> dict[str, tuple[list[str], list[str], Cells, np.ndarray, np.ndarray | None]]:
    """prompts, completions, votes, truth, and the labels as given (None: the votes' majority) of each set."""
    out = {}
    for name, given in (("openqa_judges_dev", "gpt4"), ("wrench_youtube", None)):
        rows = [row for row in read(folder / "label_sources" / f"{name}.jsonl.gz") if row["votes"]]
        raters = sorted({rater for row in rows for rater in row["votes"]})
        cells = np.array([[sign(row["votes"].get(rater)) for rater in raters] for row in rows])
        labels = None if given is None else cells[:, raters.index(given)] > 0
        out[name] = (texts(rows, "prompt"), texts(rows, "completion"), cells, np.array([row["truth"] for row in rows]), labels)
    rows = [row for row in read(folder / "kto_xstest.jsonl.gz") if all(row.get(name) is not None for name in SYSTEMS)]
    cells = np.array([[sign(str(row[name]).lower() == "true") for name in SYSTEMS] for row in rows])
    truth = np.array([row["label"] for row in rows])
    for number, name in enumerate(SYSTEMS):
        out[f"xstest {name}"] = (texts(rows, "prompt"), texts(rows, "completion"), cells, truth, cells[:, number] > 0)
    bar = read(folder / "pref_llmbar_judges.jsonl.gz")
    judges = sorted({judge for row in bar for judge in row["judge_votes"]})
    for seed in range(3):
        chosen = np.random.default_rng(seed).choice(judges, 8, replace=False)
        cells = np.array([[vote_of(row, judge) for judge in chosen] for row in bar])
        out[f"llmbar, 8 judges, draw {seed}"] = ([], [], cells, np.array([row["gold"] == 1 for row in bar]), None)
    return out


def vote_of(row: dict[str, Any], judge: str) -> int:
    first = str((row["judge_votes"].get(judge) or ["0"])[0])
    return {"1": 1, "2": -1}.get(first, 0)


def sign(verdict: bool | None) -> int:
    return 0 if verdict is None else 1 if verdict else -1


def texts(rows: list[dict[str, Any]], name: str) -> list[str]:
    return [str(row[name]) for row in rows]


def as_votes(cells: Cells) -> pl.DataFrame:
    rows, raters = np.nonzero(cells)
    names = [f"rater {n}" for n in raters]
    return pl.DataFrame({"row_id": rows.astype(str), "rater": names, "verdict": cells[rows, raters] > 0})


def drawn(way: str, seed: int) -> tuple[Cells, np.ndarray]:
    """Votes of 2 to 20 raters on 40 to 2,000 rows, who err in this way, and the truth."""
    rng = np.random.default_rng(seed)
    rows, raters = int(rng.choice([40, 100, 300, 1000, 2000])), int(rng.choice([2, 3, 4, 5, 7, 10, 20]))
    right, share = rng.uniform(0.65, 0.92), rng.choice([0.5, 0.7, 0.85, 0.95])
    covers = rng.choice([1, 0.6]) if raters < 10 else rng.choice([1, 0.4])
    truth, shared = rng.random(rows) < share, rng.standard_normal((rows, 1))
    skill = logit(np.clip(right + rng.uniform(-0.12, 0.12, (raters, 2)), 0.4, 0.98))
    nats = np.where(truth[:, None], skill[:, 0], skill[:, 1])
    if way == "difficulty":
        nats = nats + rng.uniform(0.4, 2) * shared
    if way == "difficulty of one class":
        nats = nats + np.where(truth[:, None], rng.uniform(0.8, 2.5), 0) * shared
    if way == "clique":
        nats = nats + (rng.random(raters) < 0.5) * rng.uniform(1, 3) * shared
    if way == "traps":
        nats = np.where(rng.random((rows, 1)) < rng.uniform(0.05, 0.25), -nats * rng.uniform(0.3, 1), nats)
    if way == "bias":
        nats = nats + np.where(truth[:, None], 1, -1) * rng.uniform(0.8, 2) * shared
    cells = np.where((rng.random((rows, raters)) < expit(nats)) == truth[:, None], 1, -1)
    for copy in range(1, max(2, raters // 2)) if "copies" in way else ():
        copied = rng.random(rows) < (1 if way == "copies" else 0.7)
        cells[copied, copy] = cells[copied, 0]
    if way == "adversary":
        cells[:, 0] *= -1
    if way == "one-sided":
        cells = np.where(cells == np.where(rng.random(raters) < 0.6, 1, -1), cells, 0)
    cells = cells * (rng.random(cells.shape) < covers)
    kept = (cells != 0).any(axis=1)
    return cells[kept], truth[kept]


def without_reviews(cells: Cells, truth: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Whether agreement identifies p; how sure and right p is on rows with several votes; labels turned by it."""
    votes = as_votes(cells)
    checked = check_independence(votes)
    kept = votes.filter(pl.col("rater").is_in(checked.raters)) if checked.identified else votes
    rows = dawid_skene(kept, correlated=not checked.identified).rows.filter(pl.col("votes_up") + pl.col("votes_down") > 1)
    place, p = rows["row_id"].cast(pl.Int64).to_numpy(), rows["p_desirable"].to_numpy()
    first = cells[np.arange(len(cells)), np.argmax(cells != 0, axis=1)] > 0
    given = (first if labels is None else labels)[place]
    turned, majority = (p > 0.5) != given, rows["votes_up"].to_numpy() > rows["votes_down"].to_numpy()
    return {
        "identified": checked.identified,
        "reason": checked.reason,
        "error_correlation": checked.error_correlation,
        "effective_votes": checked.effective_votes,
        "sure": float(np.maximum(p, 1 - p).mean()),
        "right": float(((p > 0.5) == truth[place]).mean()),
        "majority_right": float((majority == truth[place]).mean()),
        "turned": int(turned.sum()),
        "rightly": int((turned & (truth[place] != given)).sum()),
    }


def simulated(way: str, count: int) -> dict[str, Any]:
    every = [without_reviews(*drawn(way, seed), None) for seed in range(count)]
    identified = [each for each in every if each["identified"]]
    gaps = [each["sure"] - each["right"] for each in identified]
    return {
        "draws": count,
        "identified": len(identified),
        "mean surer than right": float(np.mean(gaps)) if gaps else None,
        "off by more than 0.05": int(sum(abs(gap) > 0.05 for gap in gaps)),
        "turned": sum(each["turned"] for each in identified),
        "rightly": sum(each["rightly"] for each in identified),
        "surer than right where it was not identified": float(
            np.mean([each["sure"] - each["right"] for each in every if not each["identified"]] or [0])
        ),
    }


def text_log_odds(prompts: list[str], completions: list[str], labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(max_iter=1000))
    both = [f"{prompt}\n{completion}" for prompt, completion in zip(prompts, completions, strict=True)]
    p = cross_val_predict(model, both, labels, groups=groups, cv=GroupKFold(5), method="predict_proba")[:, 1]
    return logit(np.clip(p, 1e-3, 1 - 1e-3))


def with_reviews(
    prompts: list[str], completions: list[str], cells: Cells, truth: np.ndarray, labels: np.ndarray | None, draws: int
) -> dict[str, Any]:
    """Means over draws; flags pooled over them."""
    labels = cells.sum(axis=1) >= 0 if labels is None else labels
    groups = np.unique(prompts, return_inverse=True)[1]
    groups = np.arange(len(truth)) if groups.max() < 5 else groups
    says, text = np.where(cells != 0, cells.astype(float), np.nan), text_log_odds(prompts, completions, labels, groups)
    design = np.column_stack([text, np.where(labels, 1, -1), cells])
    columns = VoteColumns(tuple(map(str, range(cells.shape[1]))), says, (cells > 0).sum(axis=1), (cells < 0).sum(axis=1))
    lines = []
    for seed in range(draws):
        reviewed = np.zeros(len(truth), bool)
        reviewed[stratified(labels, ~reviewed, max(40, round(0.05 * len(truth))), seed=seed)] = True
        stacked = stack({"text": text}, columns, labels, groups, reviewed, truth)
        plain = LogisticRegression(max_iter=1000).fit(design[reviewed], truth[reviewed]).predict_proba(design)[:, 1]
        rates = [(truth & reviewed & (labels == side)).sum() / (reviewed & (labels == side)).sum() for side in (False, True)]
        p, unseen, wrong = stacked.p_desirable, ~reviewed, labels != truth
        flags = calibrate(np.where(labels, 1 - p, p), reviewed, reviewed & wrong, labels, groups).surely(0.8) & unseen
        lines.append(
            {
                "stack": loss(p[unseen], truth[unseen]),
                "plain logistic": loss(plain[unseen], truth[unseen]),
                "rates": loss(np.where(labels, rates[1], rates[0])[unseen], truth[unseen]),
                "surer than right": float(np.maximum(p, 1 - p)[unseen].mean() - ((p > 0.5) == truth)[unseen].mean()),
                "flagged": int(flags.sum()),
                "flagged wrong": int((flags & wrong).sum()),
            }
        )
    flagging = [line["flagged wrong"] / line["flagged"] for line in lines if line["flagged"]]
    means = {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}
    total = sum(line["flagged"] for line in lines)
    return means | {
        "draws": draws,
        "draws more than 0.03 surer than right": sum(line["surer than right"] > 0.03 for line in lines),
        "log loss over plain logistic": means["stack"] / means["plain logistic"],
        "draws that flag": len(flagging),
        "flags right, pooled": sum(line["flagged wrong"] for line in lines) / total if total else None,
        "draws with 70 % right": float(np.mean([share >= 0.7 for share in flagging])) if flagging else None,
    }


def loss(p: np.ndarray, truth: np.ndarray) -> float:
    clipped = np.clip(p, 1e-3, 1 - 1e-3)
    return float(-np.log(np.where(truth, clipped, 1 - clipped)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--simulations", type=int, default=40)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    result: dict[str, Any] = {"without_reviews": {}, "with_reviews": {}, "simulated": {}}
    for name, (prompts, completions, cells, truth, labels) in real_sets(options.folder).items():
        result["without_reviews"][name] = without_reviews(cells, truth, labels)
        print(name, result["without_reviews"][name], flush=True)
        if prompts:
            result["with_reviews"][name] = with_reviews(prompts, completions, cells, truth, labels, options.draws)
            print(name, result["with_reviews"][name], flush=True)
    for way in WAYS:
        result["simulated"][way] = simulated(way, options.simulations)
        print(way, result["simulated"][way], flush=True)
    write_result("votes", result | machine())


if __name__ == "__main__":
    main()
