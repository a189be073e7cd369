"""Raters who err differently: what each row's votes say of it, how good each rater is, and whether raters agree at all.

The model is that of Dawid and Skene 1979 for two classes: a row is desirable or not, and rater j says "desirable" of a desirable
row with probability sensitivity_j, "undesirable" of an undesirable row with probability specificity_j. Three things are added:

- a rater with few votes is drawn towards the raters as a whole, so that two votes do not make anyone infallible;
- a model's p_desirable may stand in the place of the class share, row by row (Raykar et al. 2010);
- raters that err together (judges of one family, one person with two accounts) do not count as several: each vote's weight
  is divided by one plus the sum of its error correlations with the other votes on the row.

Raters who only ever say one thing are left out (one_sided.py). Those who mostly do, as they vote where something is good, or
where it is bad, no share of strays tells apart. What comes of them can be told: the likeliest model then has nearly all rows in
one class, very surely, against votes that agree. Where it overrules more than OVERRULED of those there is no answer.

A second pass adds a third kind of row, the *contested* one, on which people differ whatever their skill.

Own code for these three and for the intervals: held-out gold of LLMBar's judges is met at 0.863 where a majority vote has 0.647
(tests/benchmarks/raters.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import betaln, expit, logit, xlogy

from ktodata.errors import DataError
from ktodata.feedback import check_columns
from ktodata.labels.people.one_sided import one_sided
from ktodata.labels.people.votes import last_votes
from ktodata.stats import Z95, Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEPS = 300
TOLERANCE = 1e-5  # largest change of a posterior in one step
STRENGTH = 4.0  # votes of each class that the pooled confusion counts for, in each rater's own
POOLED_PRIOR = (4.0, 1.0)  # right and wrong votes put into the pooled confusion: without them one rater alone tells anything
MAX_CORRELATED = 300  # raters whose errors are compared pair by pair; beyond, the correlations of the rarest are taken as 0
COPY = 0.95  # correlation of two raters' verdicts from which one may be a copy of the other
COIN = 4.0  # contested rows: P(desirable) ~ Beta(4, 4), nine in ten of them between 0.23 and 0.77
CONTESTED_PRIOR = (2.0, 18.0)  # contested rows in a hundred, before any vote: 10, worth 20 rows
OVERRULED = 0.05  # share of rows with several votes, all alike, that a fit may call the opposite: as in independence.py
SURE = 0.8  # what p_wrong or p_contested must reach to be named

RATERS_SCHEMA = pl.Schema(
    {
        "rater": pl.String(),
        "votes": pl.Int64(),
        "sensitivity": pl.Float64(),
        "sensitivity_low": pl.Float64(),
        "sensitivity_high": pl.Float64(),
        "specificity": pl.Float64(),
        "specificity_low": pl.Float64(),
        "specificity_high": pl.Float64(),
        "accuracy": pl.Float64(),
        "informativeness": pl.Float64(),
        "informativeness_low": pl.Float64(),
        "informativeness_high": pl.Float64(),
        "weight": pl.Float64(),
        "inverted": pl.Boolean(),
    }
)


CONTESTED_SCHEMA = pl.Schema(
    {
        "row_id": pl.String(),
        "label": pl.Boolean(),
        "p_wrong": pl.Float64(),
        "p_contested": pl.Float64(),
        "p_sound": pl.Float64(),
        "verdict": pl.String(),
    }
)


@dataclass(frozen=True)
class Aggregated:
    """What the votes say when the raters' errors are weighed.

    rows : of those with a vote that counts: row_id, p_desirable (posterior, 0..1), votes_up, votes_down, entropy (bits, of
        p_desirable), contested (0..1, null for fewer than two votes), p_clearly_desirable and p_clearly_undesirable (with
        contested they sum to 1)
    raters : rater, votes, sensitivity = P(says desirable | is desirable), specificity = P(says undesirable | is undesirable),
        accuracy (at the estimated class share), informativeness (Youden's sensitivity + specificity - 1: 1 tells all, 0 nothing,
        -1 the opposite), 95 % intervals; weight (0..1, how much a vote counts beside correlated ones); inverted: the interval of
        informativeness lies below 0. Of raters who only ever say one thing nothing is known: their weight is 0
    metrics : one_sided (those raters), overruled (share of the rows whose votes are all alike that are called the opposite),
        iterations, converged, log_likelihood (nats, of the weighted votes), share_desirable, share_contested, alpha.
        Where there is no answer, `rows` is empty and `reason` says why
    """

    rows: pl.DataFrame
    raters: pl.DataFrame
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _CodedVotes:
    """V votes on N kinds of rows: those with the same votes of the same raters, and the same prior, have the same posterior.

    kind, rater : int [V], as codes; up : bool [V]; a null among `raters`, the last, holds the votes without a name
    times : float [N], how many rows are of a kind; prior : float [N], log-odds by a model, nan where there is none
    row_ids : of all rows; kind_of_row : int, as many
    """

    kind: Ints
    rater: Ints
    up: NDArray[np.bool_]
    raters: pl.Series
    times: Floats
    prior: Floats
    row_ids: pl.Series
    kind_of_row: Ints

    def votes_of_raters(self, each: NDArray[Any] | float = 1.0) -> Floats:
        """The sum of `each` over the votes of each rater on all rows: float [J]."""
        return np.asarray(np.bincount(self.rater, self.times[self.kind] * each, len(self.raters)), np.float64)

    def votes_of_kinds(self, each: NDArray[Any]) -> Floats:
        """The sum of `each` over the votes on one row of each kind: float [N]."""
        return np.asarray(np.bincount(self.kind, each, len(self.times)), np.float64)


@dataclass
class _EmState:
    """State of EM: confusion float [J, 2] (sensitivity, specificity), pooled [2], posterior [N, 2 or 3], kind shares."""

    confusion: Floats
    pooled: Floats
    posterior: Floats
    share: float
    contested: float
    likelihood: float
    steps: int
    converged: bool


def dawid_skene(
    votes: pl.DataFrame,
    *,
    prior: pl.DataFrame | dict[str, float] | None = None,
    strength: float = STRENGTH,
    correlated: bool = True,
    seed: int = 0,
) -> Aggregated:
    """Weigh the votes on each row by how good their raters turn out to be.

    votes : row_id, rater (null: nobody known; such votes share one confusion), verdict (bool); one line a vote. A rater's last
        vote on a row counts.
    prior : row_id -> P(desirable) before the votes, as a dict or a table (row_id, p), from a model that saw the content only.
        Rows without one get the estimated class share.
    strength : votes of each class that the pooled confusion is worth in each rater's own; larger draws raters together.
    correlated : discount votes whose errors go together.

    Raters who only ever say one thing are left out, and so are rows without another vote. No row is answered where, without a
    prior, the fit calls more than OVERRULED of the rows with several votes, all alike, the opposite: raters who choose what they
    vote on. Votes of raters who mostly say the opposite count turned around there. Rows come back in the order in which they
    first occur. Sources: Dawid and Skene 1979; Raykar et al. 2010 (JMLR 11);
    intervals from the observed information (Louis 1982), other raters held fixed.
    """
    check_columns(votes, ("row_id", "rater", "verdict"), who="dawid_skene")
    sided = one_sided(votes)
    counted = votes.filter(pl.col("rater").cast(pl.String).is_in(sided).not_().fill_null(True))
    cast = _coded(counted, prior)
    if not len(cast.row_ids) or (sided and len(cast.raters) < 2):
        named = votes["rater"].drop_nulls().n_unique()
        return _no_answer(votes, sided, f"{len(sided):,} of {named:,} raters only ever say one thing")
    weight = _independence(cast, None) if correlated else np.ones(len(cast.kind))
    fit = _em(cast, weight, strength)
    iterations = fit.steps
    if correlated:
        for _ in range(3):  # weights change the posterior, which changes the residuals: it settles in two or three rounds
            weight = _independence(cast, fit)
            fit = _em(cast, weight, strength, start=fit)
            iterations += fit.steps
    third = _em(cast, weight, strength, start=fit, coin=True)
    rows, raters = _row_table(cast, fit, third), _rater_table(cast, fit, weight, strength)
    overruled = _overruled(votes, rows, raters.filter("inverted")["rater"])
    if prior is None and overruled > OVERRULED:
        reason = f"the likeliest model calls the opposite {overruled:.0%} of the rows whose votes are all alike"
        return _no_answer(votes, sided, reason, iterations=iterations, converged=fit.converged, overruled=overruled)
    alpha = krippendorff_alpha(votes, seed=seed)
    metrics = {
        "votes": round(cast.votes_of_raters().sum()),
        "rows": len(cast.row_ids),
        "one_sided": sided,
        "overruled": overruled,
        "iterations": iterations,
        "converged": fit.converged,
        "log_likelihood": fit.likelihood,
        "share_desirable": fit.share,
        "share_contested": third.contested,
        "pooled_sensitivity": float(fit.pooled[0]),
        "pooled_specificity": float(fit.pooled[1]),
        "mean_vote_weight": float(cast.votes_of_raters(weight).sum() / cast.votes_of_raters().sum()),
        "alpha": alpha.as_dict(),
        "prior": "class share" if prior is None else "p_desirable of a model, row by row",
    }
    return Aggregated(rows, pl.concat([raters, _raters_left_out(votes, sided)]), metrics)


def wrong_or_contested(aggregated: Aggregated, labels: pl.DataFrame, *, sure: float = SURE) -> pl.DataFrame:
    """Tell a mistaken label from a row on which people differ.

    labels : row_id, label (bool), the labels as given

    Returns row_id, label, p_wrong (the row is clearly of the other class, the votes for the label are errors such as their raters
    make), p_contested (the split is likelier of a row on which people differ), p_sound (they sum to 1), and verdict:
    "wrong", "contested", "sound" where one of them reaches `sure`, else "unclear". Only rows with two votes or more.

    Limits: two votes can hardly tell (a split of one to one is at most a few times likelier of a contested row), so p_contested
    then stays near its prior; five votes begin to tell, seven do. Contested rows are taken to be alike for all raters.
    """
    check_columns(labels, ("row_id", "label"), who="wrong_or_contested")
    rows = labels.select("row_id", "label").join(aggregated.rows.filter(pl.col("contested").is_not_null()), on="row_id")
    wrong = pl.when("label").then("p_clearly_undesirable").otherwise("p_clearly_desirable")
    rows = rows.select("row_id", "label", p_wrong=wrong, p_contested="contested", p_sound=1 - wrong - pl.col("contested"))
    verdict = pl.coalesce(
        pl.when(pl.col("p_wrong") >= sure).then(pl.lit("wrong")),
        pl.when(pl.col("p_contested") >= sure).then(pl.lit("contested")),
        pl.when(pl.col("p_sound") >= sure).then(pl.lit("sound")),
        pl.lit("unclear"),
    )
    return rows.with_columns(verdict=verdict)


def krippendorff_alpha(votes: pl.DataFrame, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Agreement beyond chance, nominal: 1 perfect, 0 what chance gives, below 0 systematic disagreement; None if undefined.

    votes : row_id, rater, verdict; rows with one vote pair with nothing and are left out, as are missing votes.
    The interval is the 95 % bootstrap over rows. It is undefined where no row has two votes, or all verdicts are equal.

    alpha = 1 - (n - 1) x sum_rows up x down / (m - 1) / (n_up x n_down), m votes on a row, n in all. Source: Krippendorff 2011.
    """
    sums = last_votes(votes).group_by("row_id").agg(up=pl.col("verdict").sum().cast(pl.Int64), m=pl.len().cast(pl.Int64))
    kinds = sums.filter(pl.col("m") > 1).group_by("up", "m").len().sort("up", "m")  # rows of one split are interchangeable
    up, m, count = (kinds[name].to_numpy().astype(float) for name in ("up", "m", "len"))
    if not len(count):
        return Interval(None, None, None)
    value = _alpha_of_splits(count[None], up, m)[0]
    if not np.isfinite(value):
        return Interval(None, None, None)
    drawn = np.random.default_rng(seed).multinomial(int(count.sum()), count / count.sum(), size=draws)
    sampled = _alpha_of_splits(drawn.astype(float), up, m)
    low, high = np.nanquantile(sampled, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _alpha_of_splits(count: Floats, up: Floats, m: Floats) -> Floats:
    """Alpha of each line of count float [B, K]: how many rows have each of K splits."""
    n_up, n = count @ up, count @ m
    disagree = count @ (up * (m - up) / (m - 1))
    chance = n_up * (n - n_up)
    return np.where(chance > 0, 1 - (n - 1) * disagree / np.where(chance > 0, chance, 1), np.nan)


def _raters_left_out(votes: pl.DataFrame, sided: list[str]) -> pl.DataFrame:
    """Lines of raters of whom nothing is known."""
    theirs = last_votes(votes).with_columns(pl.col("rater").cast(pl.String)).filter(pl.col("rater").is_in(sided))
    lines = theirs.group_by("rater").agg(votes=pl.len()).sort("votes", "rater", descending=[True, False])
    lines = lines.with_columns(weight=pl.lit(0.0))
    return pl.concat([pl.DataFrame(schema=RATERS_SCHEMA), lines.cast({"votes": pl.Int64})], how="diagonal")


def _coded(votes: pl.DataFrame, prior: pl.DataFrame | dict[str, float] | None) -> _CodedVotes:
    last = last_votes(votes).with_columns(pl.col("rater").cast(pl.String))
    row_ids = votes.drop_nulls(["row_id", "verdict"])["row_id"].unique(maintain_order=True)
    names = last["rater"].unique().sort(nulls_last=True)
    place = pl.DataFrame({"row_id": row_ids, "prior": _prior_log_odds(prior, row_ids)}).with_row_index("row")
    rater_place = pl.DataFrame({"rater": names}).with_row_index("code")
    coded = last.join(place, on="row_id").join(rater_place, on="rater", nulls_equal=True)
    vote = pl.col("code").cast(pl.Int64) * 2 + pl.col("verdict").cast(pl.Boolean).cast(pl.Int64)
    rows = coded.group_by("row").agg(vote.sort().alias("cast"), pl.first("prior")).sort("row")
    kinds = rows.group_by("cast", "prior", maintain_order=True).agg("row", times=pl.len())
    kind_of_row = np.empty(rows.height, np.int64)
    kind_of_row[kinds["row"].explode().to_numpy()] = np.repeat(np.arange(kinds.height), kinds["times"].to_numpy())
    each = kinds["cast"].explode().to_numpy()
    return _CodedVotes(
        kind=np.repeat(np.arange(kinds.height), kinds["cast"].list.len().to_numpy()),
        rater=each // 2,
        up=each % 2 == 1,
        raters=names,
        times=kinds["times"].to_numpy().astype(float),
        prior=kinds["prior"].to_numpy(),
        row_ids=row_ids,
        kind_of_row=kind_of_row,
    )


def _prior_log_odds(prior: pl.DataFrame | dict[str, float] | None, row_ids: pl.Series) -> Floats:
    """Log-odds of the model's p for each row, nan where there is none: float [N]."""
    if prior is None:
        return np.full(len(row_ids), np.nan)
    table = prior if isinstance(prior, pl.DataFrame) else pl.DataFrame({"row_id": list(prior), "p": list(prior.values())})
    check_columns(table, ("row_id", "p"), who="dawid_skene: prior")
    table = table.select(pl.col("row_id").cast(row_ids.dtype), pl.col("p").cast(pl.Float64))
    if table["row_id"].n_unique() < table.height:
        raise DataError("dawid_skene: prior names a row_id more than once; give each row one p.")
    p = row_ids.to_frame("row_id").join(table, on="row_id", how="left", maintain_order="left")["p"]
    known = p.cast(pl.Float64).to_numpy()
    if (bad := np.isfinite(known) & ((known < 0) | (known > 1))).any():
        raise DataError(f"dawid_skene: prior: {bad.sum():,} of {len(p):,} p are outside [0, 1] (first: {known[bad][0]}).")
    # a model is never certain: no p may outvote a dozen raters
    return np.asarray(logit(np.clip(known, 0.01, 0.99)))


def _em(cast: _CodedVotes, weight: Floats, strength: float, *, start: _EmState | None = None, coin: bool = False) -> _EmState:
    """Expectation and maximisation in turn, from the majority or from `start`; with `coin`, contested rows are a third class."""
    raters = len(cast.raters)
    coin_log = _coin_log(cast, weight) if coin else None
    if start is None:
        known = expit(np.nan_to_num(cast.prior))  # the majority, a model's p counting as one vote
        p = (cast.votes_of_kinds(weight * cast.up) + known) / (cast.votes_of_kinds(weight) + 1)
        posterior = np.stack([p, 1 - p], axis=1)
    else:
        posterior = start.posterior
    contested = CONTESTED_PRIOR[0] / sum(CONTESTED_PRIOR) if coin else 0.0
    fit = _EmState(np.empty((raters, 2)), np.empty(2), posterior, 0.5, contested, 0.0, 0, False)
    for step in range(1, STEPS + 1):
        before = fit.posterior
        _maximise(fit, cast, strength)
        _expect(fit, cast, weight, coin_log)
        fit.steps = step
        if before.shape == fit.posterior.shape and np.abs(fit.posterior - before).max() < TOLERANCE:
            fit.converged = True
            break
    return fit


def _coin_log(cast: _CodedVotes, weight: Floats) -> Floats:
    """Log-probability of a row's weighted votes if its P(desirable) were a draw of Beta(COIN, COIN): float [N]."""
    up, down = cast.votes_of_kinds(weight * cast.up), cast.votes_of_kinds(weight * ~cast.up)
    return np.asarray(betaln(COIN + up, COIN + down) - betaln(COIN, COIN))


def _maximise(fit: _EmState, cast: _CodedVotes, strength: float) -> None:
    """Confusions from the posterior, each rater's own shrunk to the pooled one, that to POOLED_PRIOR; and the class shares."""
    right, total = _expected_counts(fit.posterior, cast)
    fit.pooled = (right.sum(axis=0) + POOLED_PRIOR[0]) / (total.sum(axis=0) + sum(POOLED_PRIOR))
    fit.confusion = (right + strength * fit.pooled) / (total + strength)
    each = cast.times @ fit.posterior
    fit.share = float((each[0] + 1) / (each[0] + each[1] + 2))
    if len(each) == 3:
        # only rows with several votes can show that they are contested
        several = np.where(np.bincount(cast.kind, minlength=len(cast.times)) > 1, cast.times, 0.0)
        fit.contested = float((several @ fit.posterior[:, 2] + CONTESTED_PRIOR[0]) / (several.sum() + sum(CONTESTED_PRIOR)))


def _expected_counts(posterior: Floats, cast: _CodedVotes) -> tuple[Floats, Floats]:
    """Expected right votes and votes of each rater on desirable and on undesirable rows: two float [J, 2]."""
    desirable, undesirable = posterior[cast.kind, 0], posterior[cast.kind, 1]
    total = [cast.votes_of_raters(desirable), cast.votes_of_raters(undesirable)]
    right = [cast.votes_of_raters(desirable * cast.up), cast.votes_of_raters(undesirable * ~cast.up)]
    return np.stack(right, axis=1), np.stack(total, axis=1)


def _expect(fit: _EmState, cast: _CodedVotes, weight: Floats, coin_log: Floats | None) -> None:
    """Posterior of each kind of row from its votes: log-likelihoods added, each vote times its weight."""
    right, wrong = np.log(fit.confusion), np.log1p(-fit.confusion)
    says = np.where(cast.up, right[cast.rater, 0], wrong[cast.rater, 0])
    denies = np.where(cast.up, wrong[cast.rater, 1], right[cast.rater, 1])
    known = np.where(np.isfinite(cast.prior), cast.prior, logit(fit.share))
    kinds = [
        cast.votes_of_kinds(weight * says) - np.logaddexp(0, -known),
        cast.votes_of_kinds(weight * denies) - np.logaddexp(0, known),
    ]
    if coin_log is not None:
        kinds = [kind + np.log1p(-fit.contested) for kind in kinds] + [coin_log + np.log(fit.contested)]
    logs = np.stack(kinds, axis=1)
    norm = np.logaddexp.reduce(logs, axis=1)
    fit.posterior = np.exp(logs - norm[:, None])
    fit.likelihood = float(cast.times @ norm)


def _independence(cast: _CodedVotes, fit: _EmState | None) -> Floats:
    """Weight of each vote, 1 / (1 + sum of its rater's error correlations with the row's other raters): float [V] in (0, 1].

    k raters who always err together weigh 1 / k each: together one vote. Correlations are of what the posterior leaves
    unexplained, shrunk where few rows are shared, and count only above two standard errors. Before there is a posterior (`fit`
    None) plain correlations of the verdicts serve, from COPY on: else a crowd of copies would be the truth it is judged by.
    """
    from scipy.sparse import csr_matrix

    votes = cast.votes_of_raters()
    often = np.argsort(-votes, kind="stable")[:MAX_CORRELATED]
    slot = np.full(len(cast.raters), -1)
    slot[often] = np.arange(len(often))
    if cast.raters.null_count():
        slot[-1] = -1  # nobody known: its votes are several people's
    kept = slot[cast.rater] >= 0
    if fit is None:
        expected = ((cast.votes_of_raters(cast.up) + 0.5) / (votes + 1))[cast.rater]
    else:
        p, (says, denies) = fit.posterior[cast.kind, 0], (fit.confusion[cast.rater, 0], 1 - fit.confusion[cast.rater, 1])
        expected = p * says + (1 - p) * denies
    residual = (cast.up - expected) / np.sqrt(expected * (1 - expected))
    shape, where = (len(cast.times), len(often)), (cast.kind[kept], slot[cast.rater[kept]])
    as_often = cast.times[cast.kind[kept]]

    def summed_together(each: Floats) -> Floats:
        """The sum over all rows of the product of two raters' values: float [J, J]."""
        return np.asarray((csr_matrix((as_often * each, where), shape).T @ csr_matrix((each, where), shape)).todense())

    cast_on = csr_matrix((np.ones(kept.sum()), where), shape=shape)
    shared = summed_together(np.ones(kept.sum()))
    together = summed_together(residual[kept]) / (shared + 10)
    least = COPY if fit is None else 2 / np.sqrt(np.maximum(shared, 1))
    together = np.where(together > least, np.minimum(together, 1), 0)
    np.fill_diagonal(together, 0)
    weight = np.ones(len(cast.kind))
    for start in range(0, len(weight), 100_000):  # [votes, raters] is made piece by piece
        piece = slice(start, start + 100_000)
        others = np.asarray(
            cast_on[cast.kind[piece]].multiply(together[np.maximum(slot[cast.rater[piece]], 0)]).sum(axis=1)
        ).ravel()
        weight[piece] = 1 / (1 + np.where(kept[piece], others, 0))
    return weight


def _row_table(cast: _CodedVotes, fit: _EmState, third: _EmState) -> pl.DataFrame:
    kind, posterior, contested = cast.kind_of_row, fit.posterior[cast.kind_of_row], third.posterior[cast.kind_of_row]
    up, down = (cast.votes_of_kinds(side)[kind].astype(np.int64) for side in (cast.up, ~cast.up))
    p = posterior[:, 0]
    several = pl.Series(up + down > 1)
    table = pl.DataFrame(
        {
            "row_id": cast.row_ids,
            "p_desirable": p,
            "votes_up": up,
            "votes_down": down,
            "entropy": -(xlogy(p, p) + xlogy(1 - p, 1 - p)) / np.log(2),
            "contested": contested[:, 2],
            "p_clearly_desirable": contested[:, 0],
            "p_clearly_undesirable": contested[:, 1],
        }
    )
    kinds = ("contested", "p_clearly_desirable", "p_clearly_undesirable")
    return table.with_columns(pl.when(several).then(pl.col(name)).alias(name) for name in kinds)


def _overruled(votes: pl.DataFrame, rows: pl.DataFrame, inverted: pl.Series) -> float:
    """Of the rows with several votes, all alike, left-out raters' among them, the share that is called the opposite."""
    turned = pl.col("rater").cast(pl.String).is_in(inverted.implode()).fill_null(False)
    each = last_votes(votes).group_by("row_id").agg(n=pl.len(), up=(pl.col("verdict").cast(pl.Boolean) != turned).mean())
    alike = rows.join(each.filter(pl.col("n") > 1, pl.col("up").is_in([0.0, 1.0])), on="row_id")
    return int(((alike["p_desirable"] > 0.5) != (alike["up"] > 0.5)).sum()) / max(alike.height, 1)


def _no_answer(votes: pl.DataFrame, sided: list[str], reason: str, **more: Any) -> Aggregated:
    nothing: dict[str, Any] = {"votes": 0, "iterations": 0, "converged": True, "one_sided": sided, "reason": reason}
    everyone = votes["rater"].cast(pl.String).drop_nulls().unique().to_list()
    return Aggregated(_no_rows(), _raters_left_out(votes, everyone), nothing | more)


def _no_rows() -> pl.DataFrame:
    numbers = ("entropy", "contested", "p_clearly_desirable", "p_clearly_undesirable")
    schema = {"row_id": pl.String, "p_desirable": pl.Float64, "votes_up": pl.Int64, "votes_down": pl.Int64}
    return pl.DataFrame(schema=schema | dict.fromkeys(numbers, pl.Float64))


def _rater_table(cast: _CodedVotes, fit: _EmState, weight: Floats, strength: float) -> pl.DataFrame:
    """Each named rater's confusion with intervals on the log-odds scale; informativeness by the delta method."""
    covariance = _covariance(cast, fit, weight, strength)
    a, b = fit.confusion.T
    youden = a + b - 1
    gradient = fit.confusion * (1 - fit.confusion)
    reach = Z95 * np.sqrt(np.einsum("ji,jik,jk->j", gradient, covariance, gradient))
    ends = Z95 * np.sqrt(np.einsum("jii->ji", covariance))
    low, high = expit(logit(fit.confusion) - ends), expit(logit(fit.confusion) + ends)
    votes = cast.votes_of_raters()
    table = pl.DataFrame(
        {
            "rater": cast.raters,
            "votes": votes,
            "sensitivity": a,
            "sensitivity_low": low[:, 0],
            "sensitivity_high": high[:, 0],
            "specificity": b,
            "specificity_low": low[:, 1],
            "specificity_high": high[:, 1],
            "accuracy": fit.share * a + (1 - fit.share) * b,
            "informativeness": youden,
            "informativeness_low": np.maximum(youden - reach, -1),
            "informativeness_high": np.minimum(youden + reach, 1),
            "weight": cast.votes_of_raters(weight) / votes,
            "inverted": youden + reach < 0,
        }
    )
    table = table.filter(pl.col("rater").is_not_null()).sort("votes", "rater", descending=[True, False])
    return table.select(RATERS_SCHEMA.names()).cast(RATERS_SCHEMA)


def _covariance(cast: _CodedVotes, fit: _EmState, weight: Floats, strength: float) -> Floats:
    """Of each rater's two log-odds: float [J, 2, 2], the inverse of complete minus missing information.

    A row whose class only this rater's vote decides tells nothing of the rater: there the missing information takes back what
    the complete one gave, and the prior is all that is left.
    """
    raters = len(cast.raters)
    _, total = _expected_counts(fit.posterior, cast)
    spread = fit.confusion * (1 - fit.confusion)
    p = fit.posterior[cast.kind, 0]
    gap = np.stack([cast.up - fit.confusion[cast.rater, 0], cast.up - 1 + fit.confusion[cast.rater, 1]], axis=1)
    unsure = weight * p * (1 - p)
    information = np.zeros((raters, 2, 2))
    for i in range(2):
        for k in range(2):
            information[:, i, k] = -cast.votes_of_raters(unsure * gap[:, i] * gap[:, k])
        information[:, i, i] += (total[:, i] + strength) * spread[:, i]
    values, vectors = np.linalg.eigh(information)
    values = np.maximum(values, (strength * spread).min(axis=1)[:, None])  # never less than the prior alone
    return np.asarray(np.einsum("jik,jk,jlk->jil", vectors, 1 / values, vectors))
