"""Raters who only ever say one thing: what a vote of theirs is worth, no agreement can tell.

Agreement weighs a rater by the votes that he cast, as if he voted on good and bad rows alike. Who clicks where something is good
and is silent elsewhere has no vote on bad rows that he could be right about, and with enough of such raters the likeliest model
calls every row good, very surely. To take silence for the other answer is right where everybody saw every row, and as wrong as
that where raters had rows of their own: the classes are then who saw what (tests/benchmarks/one_sided.py). So they are left out.
"""

import numpy as np
import polars as pl
from scipy.stats import binom

from ktodata.labels.people.votes import last_votes

STRAYS = 0.05  # share of the votes that may say the other thing: a slip of the hand
LEVEL = 0.01  # chance of a rater who votes as all raters do to say one thing so often
EXCESS = 3.0  # standard errors by which more raters than chance makes say one thing: then each of them counts as one who does


def one_sided(votes: pl.DataFrame) -> list[str]:
    """Raters who say one thing more often than voting as all raters do would have it, one by one or all such together.

    votes : row_id, rater, verdict; of a rater on a row the last counts. Of 200 raters with 8 votes each none alone can be told.
    """
    named = last_votes(votes).drop_nulls("rater")
    each = (
        named.group_by(pl.col("rater").cast(pl.String)).agg(n=pl.len(), up=pl.col("verdict").cast(pl.Int64).sum()).sort("rater")
    )
    n, up = (each[name].to_numpy().astype(float) for name in ("n", "up"))
    share = (up.sum() + 1) / (n.sum() + 2)
    strays = np.floor(STRAYS * n)
    says_one = np.minimum(up, n - up) <= strays
    of_up, of_down = binom.cdf(strays, n, 1 - share), binom.cdf(strays, n, share)  # few votes against, few votes for
    chance = np.where(up > n / 2, of_up, of_down)
    both, several = np.minimum(of_up + of_down, 1), n > 1
    most = both[several].sum() + EXCESS * np.sqrt((both * (1 - both))[several].sum()) + 1
    together = says_one[several].sum() > most
    return each.filter(pl.Series(says_one & (together | (chance < LEVEL))))["rater"].to_list()
