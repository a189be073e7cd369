"""Votes without any review: majority, Dawid and Skene (crowd-kit), Snorkel's label model and CROWDLAB beside what happens here.

    pip install crowd-kit snorkel     # no dependencies of ktodata; a peer that is absent is named, with the reason, in the result
    python tests/benchmarks/votes_peers.py DATA_FOLDER [--simulations 10]

Each gives P(desirable) for every row from the same votes (CROWDLAB also from the text, by a TF-IDF logistic regression with folds
grouped by prompt). By truth: accuracy and log loss of that P, labels that it would turn at 1/2 and how many rightly, and the AUROC of
its order within each given label (0.5 is chance). Two lines are ours: `ours, as trained on`, the labels after an audit without
reviews, which agreement never turns; and `ours, an order only`, by text and votes (`vote_worth.py`), as rows are shown to a person. Given
labels are the source's own where it has one, else the majority of the votes, ties desirable. Peers run with their defaults.
"""

import argparse
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine, write_result
from scipy.special import expit
from votes import WAYS, Cells, drawn, loss, real_sets, text_log_odds

from ktodata.labels.people.vote_worth import vote_worth
from ktodata.stats import auroc

MIN_FOR_AUROC = 5  # wrong labels, and sound ones, of a given label
Peer = Callable[[Cells, np.ndarray | None], np.ndarray]


def majority(cells: Cells, _text: np.ndarray | None) -> np.ndarray:
    """Laplace's rule: (up + 1) / (votes + 2), ties a hair up."""
    return ((cells > 0).sum(axis=1) + 1 + 1e-6) / ((cells != 0).sum(axis=1) + 2)


def dawid_skene(cells: Cells, _text: np.ndarray | None) -> np.ndarray:
    from crowdkit.aggregation import DawidSkene

    rows, raters = np.nonzero(cells)
    frame = pd.DataFrame({"task": rows, "worker": raters, "label": cells[rows, raters] > 0})
    p = DawidSkene(n_iter=100).fit_predict_proba(frame).reindex(range(len(cells)))
    return p[True].to_numpy() if True in p else np.zeros(len(cells))


def snorkel(cells: Cells, _text: np.ndarray | None) -> np.ndarray:
    from snorkel.labeling.model import LabelModel

    if cells.shape[1] < 3:
        raise ValueError("the label model takes three voters or more")
    model = LabelModel(cardinality=2, verbose=False)
    model.fit(np.select([cells > 0, cells < 0], [1, 0], -1), seed=0, progress_bar=False)
    return np.asarray(model.predict_proba(np.select([cells > 0, cells < 0], [1, 0], -1))[:, 1])


def crowdlab(cells: Cells, text: np.ndarray | None) -> np.ndarray:
    from cleanlab.multiannotator import get_label_quality_multiannotator

    if text is None:
        raise ValueError("takes a classifier's probabilities: this set has no texts")
    p = expit(text)
    votes = pd.DataFrame(np.select([cells > 0, cells < 0], [1.0, 0.0], np.nan))
    result = get_label_quality_multiannotator(
        votes, np.column_stack([1 - p, p]), verbose=False, return_detailed_quality=False, return_annotator_stats=False
    )["label_quality"]
    right, label = result["consensus_quality_score"].to_numpy(), result["consensus_label"].to_numpy()
    return np.where(label == 1, right, 1 - right)


PEERS: dict[str, Peer] = {"majority": majority, "crowd-kit Dawid-Skene": dawid_skene, "Snorkel": snorkel, "CROWDLAB": crowdlab}


def figures(p: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Of one P(desirable) a row: float [N]."""
    turned = (p > 0.5) != labels
    quality, aurocs = np.where(labels, p, 1 - p), []
    for given in (False, True):
        wrong, sound = (quality[(labels == given) & side] for side in (truth != labels, truth == labels))
        if min(len(wrong), len(sound)) >= MIN_FOR_AUROC:
            aurocs.append(auroc(wrong, sound).value)
    return {
        "accuracy": float(((p > 0.5) == truth).mean()),
        "log_loss": loss(p, truth),
        "turned": int(turned.sum()),
        "rightly": int((turned & (truth != labels)).sum()),
        "auroc": float(np.mean(aurocs)) if aurocs else None,
    }


def ours(cells: Cells, truth: np.ndarray, labels: np.ndarray, text: np.ndarray | None) -> dict[str, Any]:
    """Nothing is turned without reviews; the order by text and votes, the votes alone where there is no text."""
    up, down = (cells > 0).sum(axis=1), (cells < 0).sum(axis=1)
    by_text = np.full(len(cells), 0.5) if text is None else expit(text)
    worth = vote_worth(by_text, up, down)
    order = by_text if worth is None else worth.order(by_text, up, down)
    kept = figures(np.where(labels, 1.0, 0.0), truth, labels) | {"log_loss": None, "auroc": None}
    return {"ours, as trained on": kept, "ours, an order only": {"auroc": figures(order, truth, labels)["auroc"]}}


def compared(cells: Cells, truth: np.ndarray, given: np.ndarray | None, text: np.ndarray | None) -> dict[str, Any]:
    """Every peer's figures, or why it has none, and ours."""
    labels = majority(cells, None) > 0.5 if given is None else given
    result: dict[str, Any] = {}
    for name, peer in PEERS.items():
        try:
            result[name] = figures(peer(cells, text), truth, labels)
        except (ImportError, ValueError, RuntimeError) as error:
            result[name] = {"absent": f"{type(error).__name__}: {error}"}
    return result | ours(cells, truth, labels, text) | {"rows": len(truth), "voters": cells.shape[1]}


def simulated(way: str, count: int) -> dict[str, Any]:
    """Means over drawn sets, totals of turned labels, and sets in which a peer is less often right than the majority."""
    sets = [compared(*drawn(way, seed), None, None) for seed in range(count)]
    result: dict[str, Any] = {"sets": count}
    for name in (*PEERS, "ours, as trained on"):
        lines = [(each[name], each["majority"]["accuracy"]) for each in sets if "accuracy" in each[name]]
        if not lines:
            result[name] = {"absent": sets[0][name]["absent"]}
            continue
        result[name] = {
            "sets": len(lines),
            "accuracy": float(np.mean([line["accuracy"] for line, _ in lines])),
            "below majority": sum(line["accuracy"] < least - 1e-9 for line, least in lines),
            "turned": sum(line["turned"] for line, _ in lines),
            "rightly": sum(line["rightly"] for line, _ in lines),
            "log_loss": None if lines[0][0]["log_loss"] is None else float(np.mean([line["log_loss"] for line, _ in lines])),
        }
    return result


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    installed = {name: metadata.packages_distributions().get(name) for name in ("crowdkit", "snorkel", "cleanlab")}
    return {name: metadata.version(packages[0]) for name, packages in installed.items() if packages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--simulations", type=int, default=10)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    result: dict[str, Any] = {"real": {}, "simulated": {}}
    for name, (prompts, completions, cells, truth, given) in real_sets(options.folder).items():
        text = None
        if prompts:
            groups = np.unique(prompts, return_inverse=True)[1]
            groups = np.arange(len(truth)) if groups.max() < 5 else groups
            text = text_log_odds(prompts, completions, majority(cells, None) > 0.5 if given is None else given, groups)
        result["real"][name] = compared(cells, truth, given, text)
        print(name, result["real"][name], flush=True)
    for way in WAYS:
        result["simulated"][way] = simulated(way, options.simulations)
        print(way, result["simulated"][way], flush=True)
    write_result("votes_peers", result | {"versions": versions()} | machine())


if __name__ == "__main__":
    main()
