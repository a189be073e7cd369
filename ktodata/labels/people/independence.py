"""Whether raters' agreement says how far they are right: do they err independently, and would it matter if they did not?

Agreement identifies raters' errors only where these are independent given the class. Four raters or more can contradict that. So
the model of Dawid and Skene is compared with models in which rows differ in difficulty, and a hard row is hard for all raters
(Qu, Tan and Kutner 1996, here with a logistic link):

    P(rater j is right | class c, t) = sigmoid(a_jc + b_c t),      t ~ N(0, 1),      b = 0: independent errors

Each b of a grid is fitted by EM from three starts, as likelihoods of two classes have several maxima. Those whose log-likelihood
comes within PLAUSIBLE nats of the best are not ruled out by the agreement. The votes identify p where b = 0 is among them, and no
other among them moves p by more than TOLERANCE, on average over rows. Three raters never do, whatever their number of rows: eight
cells cannot tell shared errors from skill. Nor do voters who only ever say one thing.

Rows that look to *all* raters as if they were of the other class, no agreement can show: only reviews can.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import norm

from ktodata.feedback import check_columns
from ktodata.labels.people.one_sided import one_sided
from ktodata.labels.people.raters import COPY
from ktodata.labels.people.votes import last_votes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_RATERS = 4  # 2^J - 1 cells against 2 J + 1 parameters: with three nothing is left to test by
TOLERANCE = 0.05  # by how much p may be off, on average
PLAUSIBLE = 1.92  # nats below the best: half the 95 % point of chi-squared with one degree of freedom
LOADINGS = ((0.0, 0.0), *(pair for b in (0.5, 1.0, 2.0, 3.0) for pair in ((b, b), (b, 0.0), (0.0, b))))
NODES, MASSES = (axis for axis in np.polynomial.hermite_e.hermegauss(7))
MASSES = MASSES / MASSES.sum()
PRIOR = (4.0, 1.0)  # right and wrong votes put into the confusion of all raters, and their sum into each rater's own
STEPS, SETTLED = 200, 1e-4
MAX_ROWS = 1000  # a random part of the rows is compared
MIN_OF_CLASS = 25  # rows of either class that the votes must speak for: a rate of 0.8 is then known to 0.08
# share of the best rater's informativeness (Youden) that most raters must reach: a few who share their errors pass for the truth,
# and the others for people who know little. Chosen while looking at the draws that tests/benchmarks/votes.py shows
KNOWS = 0.5
MIN_COMPARED = 20  # rows that two raters share, for one to count as a copy of the other
MAX_COMPARED = 300  # raters, those with most votes
ROUNDS = 5  # of leaving out raters who err with another
LEVEL = 0.05  # of the test of pairs, for all pairs together


@dataclass(frozen=True)
class Independence:
    """What agreement says of the raters' errors.

    identified : p may be believed. reason : why not, in words; None where it may
    raters : those whose votes p may rest on; one_sided, copies : those left out, as they only say one thing, or err with another
    error_correlation : of two raters' errors within a class, by the likeliest model; and the least and most not ruled out
    effective_votes, votes : of a row with several votes, on average
    shift : most that a model not ruled out moves p, on average over rows
    """

    identified: bool
    reason: str | None
    raters: tuple[str, ...]
    one_sided: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    error_correlation: tuple[float, float, float] | None = None
    effective_votes: float | None = None
    votes: float | None = None
    shift: float | None = None


@dataclass(frozen=True)
class _VoteMatrix:
    """Distinct patterns of votes: float [P, J] each, 1 where a rater said so; how often a pattern occurs [P]."""

    up: csr_matrix
    down: csr_matrix
    times: Floats

    @property
    def cast(self) -> csr_matrix:
        return self.up + self.down


@dataclass
class _LatentFits:
    """G models at once: loadings [G, 2]; skill (log-odds at t = 0) [J, G, 2]; share desirable, log-likelihood [G]; p [P, G]."""

    loadings: Floats
    posterior: Floats  # [P, G, 2, nodes]
    skill: Floats
    share: Floats = field(default_factory=lambda: np.zeros(0))
    likelihood: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def p(self) -> Floats:
        return np.asarray(self.posterior[:, :, 0].sum(axis=-1))


def check_independence(votes: pl.DataFrame, *, seed: int = 0) -> Independence:
    """Test whether the votes' agreement identifies how far they are right.

    votes : row_id, rater, verdict; of a rater on a row the last counts. Votes without a rater cannot be tested, and are left out.
    """
    check_columns(votes, ("row_id", "rater", "verdict"), who="check_independence")
    named = last_votes(votes).drop_nulls("rater")
    sided = one_sided(named)
    left_out = _copies(named)
    for _ in range(ROUNDS):
        kept = named.filter(~pl.col("rater").is_in([*sided, *left_out]))
        raters = tuple(kept["rater"].unique().sort())
        known = Independence(False, None, raters, tuple(sided), tuple(left_out))
        if len(raters) < MIN_RATERS:
            return replace(known, reason=_too_few(known))
        matrix = _vote_matrix(kept, raters, seed)
        if not len(matrix.times):
            return replace(known, reason=f"not identifiable: no row was judged by two of the {len(raters)} raters that are left")
        fits = _fit(matrix)
        together = _err_together(matrix, fits, raters)
        if not together:
            break
        left_out += together
    return _judge(known, matrix, fits)


def _too_few(known: Independence) -> str:
    left_out = "".join(
        f"; {len(names)} left out, {why}"
        for names, why in ((known.one_sided, "who only ever say one thing"), (known.copies, "who err with another"))
        if names
    )
    return (
        f"not identifiable: agreement of fewer than {MIN_RATERS} raters (here {len(known.raters)}{left_out}) cannot tell shared "
        "errors from skill"
    )


def _vote_matrix(votes: pl.DataFrame, raters: Sequence[str], seed: int) -> _VoteMatrix:
    rows = votes.group_by("row_id", maintain_order=True).len().filter(pl.col("len") > 1)["row_id"]
    if len(rows) > MAX_ROWS:
        rows = rows.sample(MAX_ROWS, seed=seed)
    cast = votes.filter(pl.col("row_id").is_in(rows.implode()))
    place = {name: number for number, name in enumerate(raters)}
    column = cast["rater"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
    line = cast["row_id"].rank("dense").to_numpy().astype(np.int64) - 1
    cells = np.zeros((len(rows), len(raters)), np.int8)
    cells[line, column] = np.where(cast["verdict"].to_numpy(), 1, -1)
    patterns, times = np.unique(cells, axis=0, return_counts=True)
    return _VoteMatrix(csr_matrix((patterns > 0).astype(float)), csr_matrix((patterns < 0).astype(float)), times.astype(float))


def _fit(matrix: _VoteMatrix) -> _LatentFits:
    """Every loading of LOADINGS from three starts: the majority; desirable, or undesirable, only where all say so."""
    up, down = (np.asarray(side.sum(axis=1)).ravel() for side in (matrix.up, matrix.down))
    starts = ((up + 0.5) / (up + down + 1), np.where(down == 0, 0.95, 0.05), np.where(up == 0, 0.05, 0.95))
    pairs = list(product(LOADINGS, starts))
    p = np.stack([start for _, start in pairs], axis=1)
    posterior = np.stack([p, 1 - p], axis=2)[..., None] * MASSES
    fits = _LatentFits(np.array([loading for loading, _ in pairs]), posterior, np.zeros((matrix.up.shape[1], len(pairs), 2)))
    fits.share, fits.likelihood = np.zeros(len(pairs)), np.full(len(pairs), -np.inf)
    moving = np.arange(len(pairs))
    for _ in range(STEPS):
        part = _LatentFits(fits.loadings[moving], fits.posterior[:, moving], fits.skill[:, moving])
        before = part.p
        _maximise(part, matrix)
        _expect(part, matrix)
        fits.posterior[:, moving], fits.skill[:, moving] = part.posterior, part.skill
        fits.share[moving], fits.likelihood[moving] = part.share, part.likelihood
        moving = moving[np.abs(part.p - before).max(axis=0) > SETTLED]
        if not len(moving):
            break
    return fits


def _maximise(fits: _LatentFits, matrix: _VoteMatrix) -> None:
    """Skills by Newton's method, each rater's own shrunk to that of all raters; and the class shares."""
    patterns, models, _, nodes = fits.posterior.shape
    weighted = fits.posterior * matrix.times[:, None, None, None]
    right = np.stack([side.T @ weighted[:, :, c].reshape(patterns, -1) for c, side in enumerate((matrix.up, matrix.down))])
    right = right.reshape(2, -1, models, nodes).transpose(1, 2, 0, 3)
    total = (matrix.cast.T @ weighted.reshape(patterns, -1)).reshape(-1, models, 2, nodes)
    offset = fits.loadings[:, :, None] * NODES
    prior = sum(PRIOR) * MASSES
    pooled = _newton(right.sum(axis=0) + PRIOR[0] * MASSES, total.sum(axis=0) + prior, offset, fits.skill.mean(axis=0))
    expected = expit(pooled[..., None] + offset)
    fits.skill = _newton(right + prior * expected, total + prior, offset, fits.skill)
    share = weighted[:, :, 0].sum(axis=(0, 2))
    fits.share = (share + 1) / (matrix.times.sum() + 2)


def _newton(right: Floats, total: Floats, offset: Floats, skill: Floats) -> Floats:
    for _ in range(3):
        chance = expit(skill[..., None] + offset)
        slope = (right - total * chance).sum(axis=-1)
        curvature = (total * chance * (1 - chance)).sum(axis=-1)
        skill = np.clip(skill + np.clip(slope / np.maximum(curvature, 1e-6), -2, 2), -12, 12)
    return skill


def _expect(fits: _LatentFits, matrix: _VoteMatrix) -> None:
    models = len(fits.loadings)
    log_odds = fits.skill[..., None] + fits.loadings[:, :, None] * NODES
    log_right, log_wrong = (log_expit(sign * log_odds) for sign in (1, -1))
    says = [
        says @ log_right[:, :, c].reshape(len(log_odds), -1) + denies @ log_wrong[:, :, c].reshape(len(log_odds), -1)
        for c, (says, denies) in enumerate(((matrix.up, matrix.down), (matrix.down, matrix.up)))
    ]
    logs = np.stack([side.reshape(-1, models, len(NODES)) for side in says], axis=2) + np.log(MASSES)
    logs += np.log(np.stack([fits.share, 1 - fits.share], axis=1))[:, :, None]
    total = logsumexp(logs, axis=(2, 3))
    fits.posterior = np.exp(logs - total[:, :, None, None])
    fits.likelihood = matrix.times @ total


def _copies(votes: pl.DataFrame) -> list[str]:
    """Raters who nearly always say what another does, who has more votes: before anything is fitted, or the crowd of copies is
    the truth that it is judged by.
    """
    count = votes.group_by("rater").len().sort("len", "rater", descending=[True, False])["rater"].to_list()
    wide = votes.filter(pl.col("rater").is_in(count[:MAX_COMPARED])).pivot("rater", index="row_id", values="verdict")
    cells = wide.select(count[:MAX_COMPARED]).cast(pl.Float64).to_numpy() * 2 - 1
    cast, says = np.isfinite(cells).astype(float), np.nan_to_num(cells)
    n, product_, mine = cast.T @ cast, says.T @ says, says.T @ cast
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (product_ / n - mine * mine.T / n**2) / np.sqrt((1 - (mine / n) ** 2) * (1 - (mine.T / n) ** 2))
    return _cover(np.where(n >= MIN_COMPARED, np.nan_to_num(correlation), 0) >= COPY, count)


def _cover(together: Bools, names: Sequence[str]) -> list[str]:
    """Names to leave out so that no pair is left, each time the later of the two. together : bool [J, J], names by rank."""
    out: list[str] = []
    for number, name in enumerate(names[: len(together)]):
        if any(together[number, earlier] for earlier in range(number) if names[earlier] not in out):
            out.append(name)
    return out


def _err_together(matrix: _VoteMatrix, fits: _LatentFits, raters: Sequence[str]) -> list[str]:
    """Raters to leave out, as they say "desirable" together with one of more votes oftener than any model not ruled out."""
    plausible = np.flatnonzero(fits.likelihood > fits.likelihood.max() - PLAUSIBLE)
    shared, together = ((side.T @ side.multiply(matrix.times[:, None])).toarray() for side in (matrix.cast, matrix.up))
    excess = np.full(shared.shape, np.inf)
    for model in plausible.tolist():
        expected = _both_up(matrix, fits, model)
        spread = np.sqrt(np.maximum(expected * (1 - expected / np.maximum(shared, 1)), 0.25))
        excess = np.minimum(excess, (together - expected) / spread)
    rank = np.argsort(-shared.diagonal(), kind="stable")
    pairs = len(raters) * (len(raters) - 1) / 2
    return _cover((excess > norm.isf(LEVEL / pairs))[np.ix_(rank, rank)], [raters[place] for place in rank])


def _both_up(matrix: _VoteMatrix, fits: _LatentFits, model: int) -> Floats:
    """How often each two raters would both say desirable: float [J, J], on the rows that both judged."""
    expected = np.zeros((matrix.up.shape[1],) * 2)
    for c, sign in ((0, 1), (1, -1)):
        for node, t in enumerate(NODES):
            chance = expit(sign * (fits.skill[:, model, c] + fits.loadings[model, c] * t))
            mass = fits.posterior[:, model, c, node] * matrix.times
            expected += (matrix.cast.T @ matrix.cast.multiply(mass[:, None])).toarray() * np.outer(chance, chance)
    return expected


def _judge(known: Independence, matrix: _VoteMatrix, fits: _LatentFits) -> Independence:
    below = fits.likelihood.max() - fits.likelihood
    plausible = below < PLAUSIBLE
    independent = (fits.loadings == 0).all(axis=1)
    reference = int(np.flatnonzero(independent)[below[independent].argmin()])
    shift = (matrix.times @ np.abs(fits.p - fits.p[:, [reference]])) / matrix.times.sum()
    correlation = _error_correlation(fits)
    votes = np.asarray(matrix.cast.sum(axis=1)).ravel()
    best = float(correlation[below.argmin()])
    known = replace(
        known,
        error_correlation=(best, float(correlation[plausible].min()), float(correlation[plausible].max())),
        votes=float(np.average(votes, weights=matrix.times)),
        effective_votes=float(np.average(votes / (1 + (votes - 1) * best), weights=matrix.times)),
        shift=float(shift[plausible].max()),
    )
    youden = np.abs(expit(fits.skill[:, reference]).sum(axis=1) - 1)
    possible = bool(plausible[independent].any())
    reason = _not_identified(known, matrix, fits.p[:, reference], youden, independent_plausible=possible)
    return replace(known, identified=reason is None, reason=reason)


def _error_correlation(fits: _LatentFits) -> Floats:
    """Of the errors of two middling raters, within a class, averaged over the classes: float [G]."""
    chance = expit(fits.skill.mean(axis=0)[..., None] + fits.loadings[:, :, None] * NODES)
    mean = chance @ MASSES
    correlation = (np.square(chance) @ MASSES - mean**2) / (mean * (1 - mean))
    return np.asarray(fits.share * correlation[:, 0] + (1 - fits.share) * correlation[:, 1])


def _not_identified(
    known: Independence, matrix: _VoteMatrix, p: Floats, youden: Floats, *, independent_plausible: bool
) -> str | None:
    assert known.error_correlation is not None and known.shift is not None
    up, down = (np.asarray(side.sum(axis=1)).ravel() for side in (matrix.up, matrix.down))
    unanimous = ((up == 0) | (down == 0)) & (up + down >= 2)
    contradicted = unanimous & ((p > 0.5) != (up > 0))
    against = (matrix.times @ contradicted) / max(matrix.times @ unanimous, 1)
    rarer = min(matrix.times @ p, matrix.times @ (1 - p))
    knowing = int((youden > KNOWS * youden.max()).sum())
    if not independent_plausible:
        return (
            f"not identifiable: these sources err together (correlation of errors {known.error_correlation[0]:.2f}, "
            f"{known.votes:.1f} votes a row are worth {known.effective_votes:.1f})"
        )
    if rarer < MIN_OF_CLASS:
        return f"not identifiable: the votes speak for {rarer:.0f} rows of one class, too few to tell how raters err on them"
    if knowing < max(MIN_RATERS, len(youden) / 2):
        return f"not identifiable: {knowing} of {len(youden)} raters seem to know far more than the others; they may err together"
    if against > TOLERANCE:
        return f"not identifiable: unanimous votes would be contradicted on {against:.0%} of their rows"
    if known.shift > TOLERANCE:
        return (
            "not identifiable: agreement does not rule out shared errors that would move the probabilities by "
            f"{known.shift:.2f} on average (they may be off by {TOLERANCE})"
        )
    return None
