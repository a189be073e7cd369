"""Label errors found from labels and text alone, beside peers made as strong as they get, with choices made on other sources.

    python tests/benchmarks/label_noise_alone.py DATA_FOLDER [--sets ...] [--seeds 10] [--peer-seeds 3] [--rows 1500]

DATA_FOLDER holds the real data sets as published. The given label is a weak one, or the truth with 15 % flipped in one of four
ways: anywhere; three times as often where it is desirable; where a model is unsure; among the prompts of one direction only.
The truth scores, and nothing else: error AUROC within a given label, averaged over labels with MIN_WRONG wrong ones, and average
precision over all rows. Peers: cleanlab's self-confidence from logistic regression, C by inner folds, on TF-IDF (words and pairs,
prompt and completion apart) and on embeddings, and the 10 nearest rows of other prompts. All folds keep a prompt's rows together.

What the truth could have helped to choose is which feature sets there are, and whether those that see the topic step back where
answers to one prompt share their label. "elsewhere" is each source's figure with the subset of CANDIDATES, and the one or the
other weighting, that was best on all other sources; "ktodata" is what ships. LATER sets were first scored after all was chosen.
"""

import argparse
import csv
import gzip
import json
import warnings
import zlib
from collections.abc import Callable
from itertools import combinations
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
from ktodata.bench import label_sources
from ktodata.bench.bench_rows import draw_flips, vectors
from ktodata.labels.classifier import ensemble
from ktodata.labels.classifier.ensemble import fit_ensemble
from ktodata.labels.classifier.feature_sets import (
    kernel_components,
    linear_components,
    row_features,
    surface_components,
)
from ktodata.labels.classifier.features import surface_features
from ktodata.labels.classifier.out_of_fold import out_of_fold
from ktodata.labels.evidence.neighbours import neighbour_agreement
from ktodata.labels.row_groups import row_groups
from ktodata.text.tfidf import part_vectors, word_vectors

ENCODER = "packaged:wordllama-256"
FLIPS = dict(zip(("uniform", "class-conditional", "instance-dependent", "by topic"), label_sources.FLIPS, strict=True))
FEATURE_SETS = ("text", "completion_residual", "words", "surface_features")  # that ship
CANDIDATES = (*FEATURE_SETS, "word_parts", "completion_parts", "embeddings")
SEE_THE_TOPIC = ("text", "words", "word_parts", "embeddings")
MOST = 4  # feature sets put together
LATER = ("convabuse", "llmbar")  # sources
MIN_WRONG = 20  # of one given label, for its AUROC to count
STRENGTHS = (0.3, 3.0, 30.0)  # C
Labels = Callable[[dict[str, Any]], tuple[bool | None, bool]]


def column(given: str, truth: str = "label") -> Labels:
    return lambda row: (row[given], row[truth])


def vote(of: str) -> Labels:
    return lambda row: (row["votes"].get(of), row["truth"])


def majority(row: dict[str, Any]) -> tuple[bool | None, bool]:
    votes = list(row["votes"].values())
    return (None if 2 * sum(votes) == len(votes) else 2 * sum(votes) > len(votes)), row["truth"]


def first_annotator(row: dict[str, Any]) -> tuple[bool | None, bool]:
    """The label of the first who judged what a user says to a bot, and what most of the others say; None where they are even."""
    votes = []
    for annotator in range(1, 9):
        cells = {score: row[f"Annotator{annotator}_is_abuse.{score}"].split(",")[-1].strip() for score in (1, 0, -1, -2, -3)}
        votes += [score >= 0 for score, cell in cells.items() if cell == "1"]
    others = sum(votes[1:])
    return (None if 2 * others == len(votes) - 1 else votes[0]), 2 * others > len(votes) - 1


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
    "convabuse, first annotator": ("convabuse", "multiannotator_convabuse_train.csv", first_annotator, None),
    "llmbar, GPT-4": ("llmbar", "pref_llmbar_judges.jsonl.gz", column("given"), None),
}


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file. A pair becomes two: what a judge that saw it in both orders prefers is desirable."""
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            return [row | {"prompt": row["agent"], "completion": row["user"]} for row in csv.DictReader(lines)]
    with gzip.open(path, "rt") as lines:
        records = [record for record in map(json.loads, lines) if not record.get("partial_refusal")]
    if "judge_votes" not in records[0]:
        return records
    return [
        {"prompt": pair["prompt"], "completion": pair[f"output_{side}"], "label": pair["gold"] == side}
        | {"given": pair["judge_votes"]["GPT-4/Swap"][0] == str(side)}
        for pair in records
        for side in (1, 2)
    ]


def load(folder: Path, name: str, rows: int) -> pl.DataFrame:
    """A validated feedback table without repeats, with `truth`, vectors, and at most `rows` rows of whole prompt groups."""
    _, file, labels, kind = SETS[name]
    known = [(record, *labels(record)) for record in read(folder / file) if labels(record)[0] is not None]
    columns = [
        {"prompt": r["prompt"], "completion": r["completion"], "given": given, "truth": truth} for r, given, truth in known
    ]
    table = kd.read(columns, label={"column": "given", True: True, False: False}, keep={"truth": "truth"}).feedback
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
    truth = table["truth"].to_numpy()
    return table.with_columns(label=pl.Series(truth ^ draw_flips(FLIPS[kind], table, truth, seed=seed)))


def groups_of(table: pl.DataFrame) -> np.ndarray:
    """Codes of prompt groups; of rows, where a group is too large for a fold."""
    return row_groups(table)


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


Probs = dict[str, np.ndarray]  # of each feature set: float [N, 1]


def candidates(table: pl.DataFrame, seeds: list[int]) -> list[Probs]:
    """What each of CANDIDATES says out of fold, those that ship with each seed, at label_noise's default settings."""
    everything, labels, groups = np.ones(table.height, bool), table["label"].to_numpy(), groups_of(table)
    sides = [table[f"{side}_embedding"].to_numpy().astype(np.float32) for side in ("prompt", "completion")]
    rows = row_features(*sides, table["completion"], fit_rows=everything)
    parts = [part_vectors(table[side], everything) for side in ("prompt", "completion")]
    components = {
        "text": kernel_components(rows, "text", fit_rows=everything),
        "completion_residual": kernel_components(rows, "completion_residual", fit_rows=everything),
        "words": linear_components(word_vectors(table["prompt"], everything), rows.words, fit_rows=everything),
        "surface_features": surface_components(surface_features(table), fit_rows=everything),
        "word_parts": linear_components(*parts, fit_rows=everything),
        "completion_parts": linear_components(parts[1], fit_rows=everything),
        "embeddings": linear_components(*sides, fit_rows=everything),
    }
    return [
        {
            name: out_of_fold(each, labels[:, None], groups, everything, folds=5, seeds=3, seed=seed).p_desirable
            for name, each in components.items()
            if name in FEATURE_SETS or seed == seeds[0]
        }
        for seed in seeds
    ]


def together(table: pl.DataFrame, probs: Probs, *, step_back: bool = True) -> np.ndarray:
    """P(desirable) as label_noise puts feature sets together."""
    labels, groups, everything = table["label"].to_numpy(), groups_of(table), np.ones(table.height, bool)
    with mock.patch.object(ensemble, "SEE_THE_TOPIC", SEE_THE_TOPIC if step_back else ()):
        return fit_ensemble(probs, np.full(table.height, 0.5), labels[:, None], groups, everything).p_desirable[:, 0]


def choices(table: pl.DataFrame, probs: Probs) -> dict[str, tuple[float, float]]:
    """Both figures of every subset of up to MOST candidates, not all of which see the topic, with both weightings."""
    subsets = [
        names for size in range(1, MOST + 1) for names in combinations(CANDIDATES, size) if set(names) - set(SEE_THE_TOPIC)
    ]
    return {
        " + ".join(names) + ("" if step_back else ", all alike"): score(
            table, together(table, {name: probs[name] for name in names}, step_back=step_back)
        )
        for names in subsets
        for step_back in ((True, False) if set(names) & set(SEE_THE_TOPIC) else (True,))
    }


def score(table: pl.DataFrame, p: np.ndarray) -> tuple[float, float]:
    """Error AUROC within a given label, and average precision."""
    labels, wrong = table["label"].to_numpy(), (table["label"] != table["truth"]).to_numpy()
    doubt = np.where(labels, 1 - p, p)
    sides = [labels == side for side in (False, True) if wrong[labels == side].sum() >= MIN_WRONG]
    return float(np.mean([roc_auc_score(wrong[of], doubt[of]) for of in sides])), float(average_precision_score(wrong, doubt))


def measure(table: pl.DataFrame, seeds: int, peer_seeds: int) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Any]]:
    """(Of each method, both figures with each seed; both figures of each choice, with the first). Seeds 100 apart share no folds."""
    each = candidates(table, [100 * number for number in range(seeds)])
    figures = {"ktodata": [score(table, together(table, {name: probs[name] for name in FEATURE_SETS})) for probs in each]}
    for number in range(peer_seeds):
        peers = {"cleanlab, TF-IDF": cleanlab(words(table), table, number)}
        peers |= {"cleanlab, embeddings": cleanlab(vectors(table), table, number)} | {"nearest": nearest(table)}
        for name, p in peers.items():
            figures.setdefault(name, []).append(score(table, p))
    return figures, choices(table, each[0])


def chosen_elsewhere(chosen: dict[str, dict[str, tuple[float, float]]]) -> dict[str, tuple[str, float, float]]:
    """Of each set: the choice with the best sum of both figures over the other sources, and its two figures here."""
    result = {}
    for name in chosen:
        by_source: dict[str, list[list[float]]] = {}
        for other, figures in chosen.items():
            if SETS[other][0] not in (SETS[name][0], *LATER):
                by_source.setdefault(SETS[other][0], []).append([sum(each) for each in figures.values()])
        if by_source:
            best = int(np.argmax(np.mean([np.mean(each, axis=0) for each in by_source.values()], axis=0)))
            result[name] = (list(chosen[name])[best], *list(chosen[name].values())[best])
    return result


def summary(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of each set (the sets of one source and one label maker together): ktodata less the best peer, and how far seeds move it."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for name, result in results.items():
        sets.setdefault(name if SETS[name][0] == "xstest" else SETS[name][0], []).append(result)
    lines = {}
    for name, each in sets.items():
        by_seed = {way: np.mean([result["figures"][way] for result in each], axis=0) for way in each[0]["figures"]}
        means = {way: figures.mean(axis=0) for way, figures in by_seed.items()}
        best = np.max([figures for way, figures in means.items() if way != "ktodata"], axis=0) if len(means) > 1 else 0.0
        elsewhere = [result["elsewhere"][1:] for result in each if "elsewhere" in result]
        lines[name] = {
            "ktodata": means["ktodata"].round(3).tolist(),
            "less_the_best_peer": (means["ktodata"] - best).round(3).tolist(),
            "elsewhere_less_the_best_peer": (np.mean(elsewhere, axis=0) - best).round(3).tolist() if elsewhere else None,
            "range_over_seeds": np.ptp(by_seed["ktodata"], axis=0).round(3).tolist(),
        }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="only sets whose name begins with one of these")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--peer-seeds", type=int, default=3, help="0 leaves peers out")
    parser.add_argument("--rows", type=int, default=1500, help="of a set, at most")
    parser.add_argument("--name", default="label_noise_alone", help="of the result file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    results, chosen = {}, {}
    for name in SETS:
        if options.sets and not name.startswith(tuple(options.sets)):
            continue
        table = load(options.folder, name, options.rows)
        figures, chosen[name] = measure(table, options.seeds, options.peer_seeds)
        results[name] = {"rows": table.height, "wrong": int((table["label"] != table["truth"]).sum()), "figures": figures}
        print(name, {way: np.mean(each, axis=0).round(3).tolist() for way, each in figures.items()}, flush=True)
    for name, elsewhere in chosen_elsewhere(chosen).items():
        results[name]["elsewhere"] = elsewhere
    lines = summary(results)
    print(json.dumps(lines, indent=1), flush=True)
    write_result(options.name, {"encoder": ENCODER, "summary": lines, "sets": results, **machine()})


if __name__ == "__main__":
    main()
