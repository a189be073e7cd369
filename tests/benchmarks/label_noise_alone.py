"""Label errors found from labels and text alone, beside peers made as strong as they get, with constants chosen on other sets.

    python tests/benchmarks/label_noise_alone.py DATA_FOLDER [--sets ...] [--seeds 1] [--no-peers] [--rows 1500]

DATA_FOLDER holds the real data sets as published. The given label is a weak one, or the truth with 15 % flipped in one of four
ways: anywhere; three times as often where it is desirable; where a model is unsure; among the prompts of one direction only.
The truth scores, and nothing else: error AUROC within a given label, averaged over labels with MIN_WRONG wrong ones, and average
precision over all rows. Peers: cleanlab's self-confidence from logistic regression, C by inner folds, on TF-IDF (words and pairs,
prompt and completion apart) and on embeddings, and the 10 nearest rows of other prompts. All folds keep a prompt's rows together.

The one constant that truth could have helped to choose is the penalty of `ensemble.py`. "chosen_elsewhere" is each source's figure
with the penalty that was best on all other sources; "ktodata" the one that ships.
"""

import argparse
import gzip
import json
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
from machine import machine, write_result
from scipy.special import expit, logit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

import ktodata as kd
from ktodata.labels.classifier import ensemble
from ktodata.labels.classifier.ensemble import fit_ensemble
from ktodata.labels.evidence.neighbours import neighbour_agreement

ENCODER = "packaged:wordllama-256"
FLIPS = ("uniform", "class-conditional", "instance-dependent", "by topic")
RATE = 0.15
FEATURE_SETS = ("text", "completion_residual", "words", "word_parts", "surface_features")
MIN_WRONG = 20  # of one given label, for its AUROC to count
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
STRENGTHS = (0.3, 3.0, 30.0)  # C
Labels = Callable[[dict[str, Any]], tuple[bool | None, bool]]


def column(given: str, truth: str = "label") -> Labels:
    return lambda row: (row[given], row[truth])


def vote(of: str) -> Labels:
    return lambda row: (row["votes"].get(of), row["truth"])


def majority(row: dict[str, Any]) -> tuple[bool | None, bool]:
    votes = list(row["votes"].values())
    return (None if 2 * sum(votes) == len(votes) else 2 * sum(votes) > len(votes)), row["truth"]


# name: (source, file, given label and truth of a record, kind of flips)
SETS: dict[str, tuple[str, str, Labels, str | None]] = {
    "xstest, GPT-4's labels": ("xstest", "kto_xstest.jsonl.gz", column("weak_label_gpt4"), None),
    "xstest, string match": ("xstest", "kto_xstest.jsonl.gz", column("weak_label_strmatch"), None),
    "gsm8k, self-consistency": ("gsm8k", "kto_gsm8k_solutions.jsonl.gz", column("weak_label"), None),
    "evouna, string match": ("evouna", "label_sources/evouna_tq_dev.jsonl.gz", column("weak_label", "truth"), None),
    "youtube, majority of functions": ("youtube", "label_sources/wrench_youtube.jsonl.gz", majority, None),
    **{
        f"openqa, {judge}": ("openqa", "label_sources/openqa_judges_dev.jsonl.gz", vote(judge), None)
        for judge in ("gpt4", "bem", "davinci")
    },
    **{
        f"{source}, {kind}": (source, f"kto_{source}.jsonl.gz", column("label"), kind)
        for source in ("halueval_general", "tulu1_human", "hh_harmless")
        for kind in FLIPS
    },
}


def load(folder: Path, name: str, rows: int) -> pl.DataFrame:
    """A validated feedback table without repeats, with `truth`, vectors, and at most `rows` rows of whole prompt groups."""
    _, file, labels, kind = SETS[name]
    with gzip.open(folder / file, "rt") as lines:
        records = [record for record in map(json.loads, lines) if not record.get("partial_refusal")]
    known = [(record, *labels(record)) for record in records if labels(record)[0] is not None]
    columns = [
        {"prompt": r["prompt"], "completion": r["completion"], "given": given, "truth": truth} for r, given, truth in known
    ]
    table = kd.read(columns, label="given", keep={"truth": "truth"}).feedback
    for stage in (kd.validate, kd.dedupe):
        table = kd.add_columns(table, stage(table))
    order = table["prompt_group"].unique(maintain_order=True).sample(fraction=1, shuffle=True, seed=5)
    chosen = pl.DataFrame({"prompt_group": order, "place": range(len(order))})
    if len(order) > 1:
        table = table.join(chosen, on="prompt_group").sort("place", maintain_order=True)
        table = table.filter(pl.col("place") <= pl.col("place").head(rows).max()).drop("place")
    table = kd.add_columns(table.head(rows), kd.embed(table.head(rows), model=ENCODER))
    truth = table["truth"] if table.schema["truth"] == pl.Boolean else table["truth"].cast(pl.String).str.to_lowercase() == "true"
    return _flipped(table.with_columns(truth=truth), kind, zlib.crc32(name.encode()))


def _flipped(table: pl.DataFrame, kind: str | None, seed: int) -> pl.DataFrame:
    if kind is None:
        return table
    rng, truth = np.random.default_rng(seed), table["truth"].to_numpy()
    chance = np.ones(len(truth))
    if kind == "class-conditional":
        chance = np.where(truth, 1.5, 0.5)
    if kind == "instance-dependent":
        p = LogisticRegression(max_iter=500).fit(vectors(table), truth).predict_proba(vectors(table))[:, 1]
        chance = 0.1 + 4 * p * (1 - p)
    if kind == "by topic":
        prompts = table["prompt_embedding"].to_numpy()
        along = prompts @ rng.normal(size=prompts.shape[1])
        chance = np.where(along > np.quantile(along, 0.75), 3.2, 0.2)
    chance = np.minimum(chance * RATE / chance.mean(), 0.95)
    return table.with_columns(label=pl.Series(truth ^ (rng.random(len(truth)) < chance)))


def vectors(table: pl.DataFrame) -> np.ndarray:
    return np.hstack([table[f"{side}_embedding"].to_numpy() for side in ("prompt", "completion")])


def groups_of(table: pl.DataFrame) -> np.ndarray:
    """Codes of prompt groups; of rows, where all prompts are one."""
    groups = table["prompt_group"].rank("dense").to_numpy()
    return groups if len(np.unique(groups)) > 1 else np.arange(len(groups))


# --- methods: each gives P(desirable), from which self-confidence follows -------------------------------------------------------


def cleanlab(features: Any, table: pl.DataFrame, seed: int) -> np.ndarray:
    """Out-of-fold P(desirable) of logistic regression, C by log loss on inner folds. features : [N, m]"""
    labels, groups = table["label"].to_numpy(), groups_of(table)
    p = np.empty(len(labels))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(features, labels, groups):
        inner = list(StratifiedGroupKFold(3, shuffle=True, random_state=seed).split(train, labels[train], groups[train]))
        losses = [
            np.mean([log_loss(labels[train[b]], _logistic(features, labels, train[a], c, train[b])) for a, b in inner])
            for c in STRENGTHS
        ]
        p[test] = _logistic(features, labels, train, STRENGTHS[int(np.argmin(losses))], test)
    return p


def _logistic(features: Any, labels: np.ndarray, train: np.ndarray, c: float, test: np.ndarray) -> np.ndarray:
    model = LogisticRegression(C=c, max_iter=300)
    return model.fit(features[train], labels[train]).predict_proba(features[test])[:, 1]


def words(table: pl.DataFrame) -> Any:
    from scipy.sparse import hstack

    weigh = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    prompt = [weigh.fit_transform(table["prompt"])] if table["prompt"].n_unique() > 1 else []
    return hstack([*prompt, weigh.fit_transform(table["completion"])]).tocsr()


def nearest(table: pl.DataFrame) -> np.ndarray:
    labels = table["label"].to_numpy()
    ratio = neighbour_agreement(vectors(table), labels, groups_of(table), np.ones(table.height, bool)).log_odds
    return expit(np.nan_to_num(ratio) + logit(labels.mean()))


def ours(table: pl.DataFrame, seed: int) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """P(desirable) as shipped, and with each of PENALTIES in its place."""
    result, labels = kd.label_noise(table, seed=seed, neighbours=0), table["label"].to_numpy()
    rows = result.tables["evidence"]
    sets = {name: rows[name].to_numpy() for name in FEATURE_SETS}
    p = {name: np.where(labels, quality, 1 - quality)[:, None] for name, quality in sets.items()}
    even, blends = np.full(len(labels), labels.mean()), {}
    for penalty in PENALTIES:
        with mock.patch.object(ensemble, "PENALTY", penalty):
            blends[penalty] = fit_ensemble(p, even, labels[:, None], np.ones(len(labels), bool)).p_desirable[:, 0]
    return result.columns["p_desirable"].to_numpy(), blends


def score(table: pl.DataFrame, p: np.ndarray) -> tuple[float, float]:
    """Error AUROC within a given label, and average precision."""
    labels, wrong = table["label"].to_numpy(), (table["label"] != table["truth"]).to_numpy()
    doubt = np.where(labels, 1 - p, p)
    sides = [labels == side for side in (False, True) if wrong[labels == side].sum() >= MIN_WRONG]
    return float(np.mean([roc_auc_score(wrong[of], doubt[of]) for of in sides])), float(average_precision_score(wrong, doubt))


def measure(table: pl.DataFrame, seeds: range, *, peers: bool) -> dict[str, list[tuple[float, float]]]:
    """Of each method, both figures with each seed."""
    figures: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds:
        shipped, blends = ours(table, seed)
        each = {"ktodata": shipped} | {f"penalty {penalty:g}": p for penalty, p in blends.items()}
        if peers:
            each["cleanlab, TF-IDF"] = cleanlab(words(table), table, seed)
            each |= {"cleanlab, embeddings": cleanlab(vectors(table), table, seed), "nearest": nearest(table)}
        for name, p in each.items():
            figures.setdefault(name, []).append(score(table, p))
    return figures


def chosen_elsewhere(figures: dict[str, dict[str, list[tuple[float, float]]]]) -> dict[str, tuple[float, float, float]]:
    """Of each set: the penalty with the best sum of both figures over the other sources, and its two figures here."""
    names = [f"penalty {penalty:g}" for penalty in PENALTIES]
    mean = {(name, way): np.mean(each[way], axis=0) for name, each in figures.items() for way in names}
    chosen = {}
    for name in figures:
        by_source: dict[str, list[list[float]]] = {}
        for other in figures:
            if SETS[other][0] != SETS[name][0]:
                by_source.setdefault(SETS[other][0], []).append([mean[other, way].sum() for way in names])
        others = np.mean([np.mean(each, axis=0) for each in by_source.values()], axis=0) if by_source else np.zeros(len(names))
        best = int(np.argmax(others))
        chosen[name] = (PENALTIES[best], *(float(figure) for figure in mean[name, names[best]]))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="only sets whose name begins with one of these")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true", help="ktodata alone, to see what seeds do")
    parser.add_argument("--rows", type=int, default=1500, help="of a set, at most")
    parser.add_argument("--name", default="label_noise_alone", help="of the result file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    figures, tables = {}, {}
    for name in SETS:
        if options.sets and not name.startswith(tuple(options.sets)):
            continue
        table = load(options.folder, name, options.rows)
        figures[name] = measure(table, range(options.seeds), peers=not options.no_peers)
        tables[name] = {"rows": table.height, "wrong": int((table["label"] != table["truth"]).sum())}
        print(
            name, tables[name], {way: np.mean(each, axis=0).round(3).tolist() for way, each in figures[name].items()}, flush=True
        )
    elsewhere = chosen_elsewhere(figures)
    print(json.dumps(elsewhere), flush=True)
    result = {name: tables[name] | {"figures": figures[name], "chosen_elsewhere": elsewhere[name]} for name in figures}
    write_result(options.name, {"encoder": ENCODER, "penalty": ensemble.PENALTY, "sets": result, **machine()})


if __name__ == "__main__":
    main()
