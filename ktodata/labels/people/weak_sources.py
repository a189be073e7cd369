"""Labels of several sources on the same rows: a string match, a judge model, a user. Each is a vote, and each can be learnt.

What one source gets wrong for a reason, a model of its labels gets wrong too; a second source with other reasons shows it. So
each source's labels are modelled from the text, out of fold, and the text says of a row what these models say on average (of
their log-odds). What the votes say beside it: vote_worth.py and stacking.py. Raters who judged few rows are no weak sources.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from ktodata.labels.evidence.evidence import MODEL_EDGE, log_odds_of
from ktodata.labels.people.votes import last_votes, votes_of_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

COVERS = 0.8  # share of the training rows that a source has judged
MAX_SOURCES = 8


@dataclass(frozen=True)
class WeakSources:
    """S raters who judged most rows: names; labels bool [N, S], the given label where one has none."""

    names: list[str]
    labels: Bools


def find_weak_sources(rows: pl.DataFrame) -> WeakSources | None:
    """The raters whose votes cover the training rows; None with fewer than two, or when all of them always agree.

    rows : label, votes, trained
    """
    numbered, trained = rows.select("votes", row_id=pl.int_range(pl.len())), rows["trained"].to_numpy()
    last = last_votes(votes_of_rows(numbered)).drop_nulls("rater")
    counted = last.filter(pl.Series(trained[last["row_id"].to_numpy()])).group_by("rater").len()
    counts = counted.sort("len", "rater", descending=[True, False])
    names = counts.filter(pl.col("len") >= COVERS * int(trained.sum()))["rater"].head(MAX_SOURCES).sort().to_list()
    if len(names) < 2:
        return None
    labels = np.repeat(rows["label"].to_numpy()[:, None], len(names), axis=1)
    for column, name in enumerate(names):
        own = last.filter(rater=name)
        labels[own["row_id"].to_numpy(), column] = own["verdict"].to_numpy()
    one_class = [bool(labels[trained, column].all() or not labels[trained, column].any()) for column in range(len(names))]
    if any(one_class) or (labels[trained] == labels[trained][:, :1]).all():
        return None
    return WeakSources(names, labels)


def pool(models: Floats) -> Floats:
    """p_desirable of each row by the text: float [N]. models : float [N, S], out of fold, of each source's labels"""
    return np.asarray(expit(log_odds_of(models, edge=MODEL_EDGE).mean(axis=1)))
