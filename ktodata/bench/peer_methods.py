"""The methods of others, made as strong as they get with what they offer: folds keep a prompt's rows together, C by
log loss on them.

Where rows are reviewed, a classifier learns from the verdict in place of the label. What is fitted to votes (the majority,
Dawid-Skene, the weights of CROWDLAB) takes them as they were cast, and the language model's loss knows of neither.
"""

from typing import Any

import numpy as np
import polars as pl

from ktodata.bench.bench_methods import BenchAnswer, BenchTask, method, vote_matrix
from ktodata.bench.bench_rows import Bools, Floats, Ints, vectors
from ktodata.errors import EmptyDataError

STRENGTHS = (0.3, 3.0, 30.0)  # C
NEIGHBOURS = 10
FOLDS = 5
EPOCHS = 30


@method("as given")
def as_given(task: BenchTask) -> BenchAnswer:
    """Reviewed rows take their verdict; nothing else changes, nothing is ranked."""
    return BenchAnswer(doubt=None)


@method("cleanlab, TF-IDF")
def cleanlab_tfidf(task: BenchTask) -> BenchAnswer:
    """Logistic regression on words and pairs of words, prompt and completion apart."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    weigh = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    sides = [side for side in ("prompt", "completion") if task.table[side].n_unique() > 1]
    return _cleanlab(hstack([weigh.fit_transform(task.table[side]) for side in sides]).tocsr(), task)


@method("cleanlab, embeddings")
def cleanlab_embeddings(task: BenchTask) -> BenchAnswer:
    """Logistic regression on the vectors of prompt and completion."""
    return _cleanlab(vectors(task.table), task)


@method("nearest rows")
def nearest_rows(task: BenchTask) -> BenchAnswer:
    """How many of the 10 most similar rows of other prompts carry the other label."""
    unit = vectors(task.table) / np.sqrt(2)
    alike = unit @ unit.T
    alike[task.groups[:, None] == task.groups[None, :]] = -np.inf
    near = np.argpartition(-alike, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return BenchAnswer(doubt=(task.verdicts[near] != task.labels[:, None]).mean(axis=1))


@method("training dynamics")
def training_dynamics(task: BenchTask) -> BenchAnswer:
    """Area under the margin (arXiv:2001.10528): a label's mean lead while a logistic model of the vectors learns."""
    from sklearn.linear_model import SGDClassifier

    features, lead = vectors(task.table), np.zeros(len(task.labels))
    model = SGDClassifier(loss="log_loss", random_state=task.seed)
    for _ in range(EPOCHS):
        model.partial_fit(features, task.verdicts, classes=[False, True])
        lead += np.where(task.labels, 1, -1) * model.decision_function(features)
    return BenchAnswer(doubt=-lead / EPOCHS)


@method("language model's loss", needs_model=True)
def language_model_loss(task: BenchTask) -> BenchAnswer:
    """What the untrained model finds unlikely is taken for undesirable."""
    loss = task.table["nats_per_token"].to_numpy()
    return BenchAnswer(doubt=np.where(task.labels, loss, -loss))


@method("majority of votes", needs_votes=True)
def majority(task: BenchTask) -> BenchAnswer:
    """Each row takes what most of its raters say; where they are even, its label."""
    votes = vote_matrix(task.table)
    up, down = np.nansum(votes, axis=1), np.nansum(1 - votes, axis=1)
    against = np.where(task.labels, down, up)
    labels = np.where(up == down, task.verdicts, up > down)
    return BenchAnswer(doubt=against / np.maximum(up + down, 1), labels=labels)


@method("Dawid-Skene", needs_votes=True)
def dawid_and_skene(task: BenchTask) -> BenchAnswer:
    """Dawid and Skene (1979): raters' confusions by EM, as if they erred apart; no answer where votes do not bear one."""
    from ktodata.labels.people.raters import dawid_skene

    votes = vote_matrix(task.table)
    rows, raters = np.nonzero(~np.isnan(votes))
    cast = pl.DataFrame({"row_id": rows.astype(str), "rater": raters.astype(str), "verdict": votes[rows, raters] > 0.5})
    aggregated = dawid_skene(cast, correlated=False, seed=task.seed)
    if (fitted := aggregated.rows).is_empty():
        raise EmptyDataError(f"{aggregated.metrics['reason']}: what such votes are worth no agreement can tell.")
    p = np.full(len(task.labels), np.nan)
    p[fitted["row_id"].cast(pl.Int64).to_numpy()] = fitted["p_desirable"].to_numpy()
    p = np.where(task.reviewed, task.verdicts, np.where(np.isnan(p), task.labels, p))
    return _by_probability(p, task)


@method("CROWDLAB", needs_votes=True)
def crowdlab(task: BenchTask) -> BenchAnswer:
    """CROWDLAB (arXiv:2210.06812) by cleanlab: votes and a classifier of the embeddings, weighed by agreement."""
    import pandas as pd  # cleanlab takes no other table
    from cleanlab.multiannotator import get_label_quality_multiannotator

    frame = pd.DataFrame(vote_matrix(task.table))
    p = _out_of_fold(vectors(task.table), task)
    judged = frame.notna().any(axis=1).to_numpy()
    made = get_label_quality_multiannotator(
        frame[judged].reset_index(drop=True), np.column_stack([1 - p, p])[judged], verbose=False, return_detailed_quality=False
    )["label_quality"]
    up = np.where(made["consensus_label"] == 1, made["consensus_quality_score"], 1 - made["consensus_quality_score"])
    every = p.copy()
    every[judged] = up
    return _by_probability(np.where(task.reviewed, task.verdicts, every), task)


def _by_probability(p_desirable: Floats, task: BenchTask) -> BenchAnswer:
    p_wrong = np.where(task.labels, 1 - p_desirable, p_desirable)
    return BenchAnswer(doubt=p_wrong, p_wrong=p_wrong, labels=np.where(p_wrong > 0.5, ~task.labels, task.labels))


def _cleanlab(features: Any, task: BenchTask) -> BenchAnswer:
    """Self-confidence ranks; rows that cleanlab calls issues take the other label, unless they are reviewed."""
    from cleanlab.filter import find_label_issues

    p = _out_of_fold(features, task)
    issues = find_label_issues(task.verdicts.astype(int), np.column_stack([1 - p, p]))
    turned = np.where(issues, ~task.verdicts, task.verdicts)
    p_wrong = np.where(task.reviewed, task.labels != task.verdicts, np.where(task.labels, 1 - p, p))
    return BenchAnswer(doubt=p_wrong, p_wrong=p_wrong, labels=turned)


def _out_of_fold(features: Any, task: BenchTask) -> Floats:
    """P(desirable) of each row by models that saw none of its prompt, at the best C by log loss: float [N]. features : [N, m]"""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    labels, share = task.verdicts, task.verdicts.mean()
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=task.seed).split(features, labels, task.groups))
    every = []
    for strength in STRENGTHS:
        p = np.full(len(labels), share)
        for train, test in folds:
            if len(np.unique(labels[train])) == 2:
                p[test] = _logistic(features, labels, train, strength, test)
        every.append(p)
    return min(every, key=lambda p: float(log_loss(labels, p, labels=[False, True])))


def _logistic(features: Any, labels: Bools, train: Ints, strength: float, test: Ints) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=300).fit(features[train], labels[train])
    return np.asarray(model.predict_proba(features[test])[:, 1])
