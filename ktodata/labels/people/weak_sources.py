"""Labels of several sources on the same rows: a string match, a judge model, a user. Each is a vote, and each can be learnt.

What one source gets wrong for a reason, a model of its labels gets wrong too; a second source with other reasons shows it. So
each source's labels are modelled from the text, out of fold, and a row is as desirable as these models and the votes say:

    log-odds = mean over sources of the model's log-odds + VOTE_NATS x (votes for - votes against)

Raters who judged few rows are no weak sources: votes.py and raters.py see to those.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

COVERS = 0.8  # share of the training rows that a source has judged
MAX_SOURCES = 8
# Sources that err independently and are right nine times in ten would deserve log(0.9 / 0.1) = 2.2. They read the same text and
# err together, and their models have seen the same labels: about half.
VOTE_NATS = 1.0
EDGE = 1e-3


@dataclass(frozen=True)
class WeakSources:
    """S raters who judged most rows: names; labels bool [N, S], the given label where one has none; voted bool [N, S]."""

    names: list[str]
    labels: Bools
    voted: Bools


def find_weak_sources(rows: pl.DataFrame) -> WeakSources | None:
    """The raters whose votes cover the training rows; None with fewer than two, or when all of them always agree.

    rows : label, votes, trained
    """
    numbered = rows.select("label", "trained", vote="votes", place=pl.int_range(pl.len()))
    cast = numbered.explode("vote").select(
        "place",
        "trained",
        rater=pl.col("vote").struct.field("rater"),
        verdict=pl.col("vote").struct.field("label"),
    )
    last = cast.drop_nulls(["rater", "verdict"]).unique(["place", "rater"], keep="last", maintain_order=True)
    counts = last.filter("trained").group_by("rater").len().sort("len", "rater", descending=[True, False])
    names = counts.filter(pl.col("len") >= COVERS * int(rows["trained"].sum()))["rater"].head(MAX_SOURCES).sort().to_list()
    if len(names) < 2:
        return None
    labels = np.repeat(rows["label"].to_numpy()[:, None], len(names), axis=1)
    voted = np.zeros(labels.shape, bool)
    for column, name in enumerate(names):
        own = last.filter(rater=name)
        labels[own["place"].to_numpy(), column] = own["verdict"].to_numpy()
        voted[own["place"].to_numpy(), column] = True
    trained = rows["trained"].to_numpy()
    one_class = [bool(labels[trained, column].all() or not labels[trained, column].any()) for column in range(len(names))]
    if any(one_class) or (labels[trained] == labels[trained][:, :1]).all():
        return None
    return WeakSources(names, labels, voted)


def pool(sources: WeakSources, models: Floats, count_votes: Bools) -> Floats:
    """p_desirable of each row from all sources: float [N].

    models : float [N, S], out of fold, of each source's labels
    count_votes : bool [N]; other rows are answered by the models alone, as held-out ones must be
    """
    log_odds = logit(np.clip(models, EDGE, 1 - EDGE)).mean(axis=1)
    votes = (np.where(sources.labels, 1, -1) * sources.voted).sum(axis=1)
    return np.asarray(expit(log_odds + VOTE_NATS * votes * count_votes))
