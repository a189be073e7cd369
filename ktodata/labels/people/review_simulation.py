"""What a review budget buys: reviews played through on rows whose truth is known, under several orders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import SettingError
from ktodata.labels.classifier.feature_sets import RowFeatures
from ktodata.labels.evidence.evidence import log_odds_of
from ktodata.labels.people.calibration import Calibration, calibrate
from ktodata.labels.people.review_queue import queue, stratified
from ktodata.labels.people.reviewed_model import ReviewedModel, learn_from_reviews
from ktodata.labels.people.stacking import MIN_REVIEWED, stack

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Order = Literal["gain", "suspicion", "random"]

OPENING = 0.5  # share of a budget that is drawn at random within each class, until MIN_REVIEWED are; for every order alike
SURE = 0.5  # P(label wrong) from which a row that nobody reviewed counts as likelier wrong
ROUNDS = 4  # times that the model is made anew within one budget

SCHEMA = pl.Schema(
    {
        "order": pl.String(),
        "reviewed": pl.Int64(),
        "errors_caught": pl.Int64(),
        "errors_left": pl.Int64(),
        "errors_left_after_relabelling": pl.Int64(),
        "relabelled": pl.Int64(),
        "errors_left_if_likelier": pl.Int64(),
        "likelier": pl.Int64(),
    }
)


@dataclass(frozen=True)
class PlayedReviews:
    """reviewed : bool [N]. learnt : from them. calibration : what label_noise would act on; None: too few reviews for that"""

    reviewed: Bools
    learnt: ReviewedModel
    calibration: Calibration | None


def simulate_review(
    rows: RowFeatures,
    p_desirable: Floats,
    labels: Bools,
    truth: Bools,
    budgets: Sequence[int],
    *,
    groups: NDArray[np.integer] | None = None,
    orders: Sequence[Order] = get_args(Order),
    sure: float = SURE,
    seed: int = 0,
) -> pl.DataFrame:
    """One line for each order and budget (rows reviewed in all, rising): how many wrong labels are left.

    p_desirable : float [N], before any review; labels, truth : bool [N]; groups : int [N], prompt groups, None: a row is one
    orders : "gain" (nobody can call it yet, and unlike what was asked before), "suspicion" (likely wrong alone), "random"
    sure : P(label wrong) from which a row counts as `likelier`

    errors_left counts wrong labels when only reviewed rows are corrected. errors_left_after_relabelling: when the other rows that
    `action: relabel` of label_noise would turn (`relabelled`) are turned as well: no more than reviews of the random draw bear
    out (calibration.py), none with under MIN_REVIEWED of them. errors_left_if_likelier: if every row took the label that the
    model, made anew from the reviews, finds likelier (`likelier` rows): what it knows, and what nothing acts on.
    Raises SettingError for budgets that do not rise.
    """
    if list(budgets) != sorted(set(budgets)) or not budgets or budgets[0] < 1:
        raise SettingError(f"simulate_review: budgets are rising numbers of rows from 1 on; got {list(budgets)}.")
    groups = np.arange(len(labels)) if groups is None else groups
    lines = [
        _budget_line(order, played, labels, truth, sure)
        for order in orders
        for played in _played(rows, p_desirable, groups, labels, truth, list(budgets), order, seed)
    ]
    return pl.DataFrame(lines, schema=SCHEMA)


def reviews_of(
    rows: RowFeatures,
    p_desirable: Floats,
    groups: NDArray[np.integer],
    labels: Bools,
    truth: Bools,
    count: int,
    *,
    order: Order,
    seed: int = 0,
) -> PlayedReviews:
    """Review `count` rows in this order. groups : int [N], prompt groups; other arguments as `simulate_review`."""
    return next(_played(rows, p_desirable, groups, labels, truth, [count], order, seed))


def _played(
    rows: RowFeatures,
    p_desirable: Floats,
    groups: NDArray[np.integer],
    labels: Bools,
    truth: Bools,
    budgets: list[int],
    order: Order,
    seed: int,
) -> Iterator[PlayedReviews]:
    """For each budget the rows reviewed by then, what they taught, and what of that label_noise would act on."""
    for reviewed, drawn in _rounds(rows, p_desirable, labels, truth, budgets, order, seed):
        learnt = learn_from_reviews(rows, p_desirable, labels, reviewed, truth, groups=groups)
        # as in label_noise, rows that were not drawn make no probability
        stacked = stack({"text": log_odds_of(learnt.p_desirable)}, None, labels, groups, drawn, truth, seed=seed)
        p_wrong = None if stacked is None else _p_wrong(stacked.p_desirable, labels)
        calibration = None if p_wrong is None else calibrate(p_wrong, drawn, drawn & (labels != truth), labels, groups)
        yield PlayedReviews(reviewed, learnt, calibration)


def _budget_line(order: Order, played: PlayedReviews, labels: Bools, truth: Bools, sure: float) -> dict[str, str | int]:
    wrong, unseen = labels != truth, ~played.reviewed
    likelier = unseen & (_p_wrong(played.learnt.p_desirable, labels) > sure)
    turned = unseen & played.calibration.turned if played.calibration else np.zeros(len(labels), bool)
    return {
        "order": order,
        "reviewed": int(played.reviewed.sum()),
        "errors_caught": int((played.reviewed & wrong).sum()),
        "errors_left": int((wrong & unseen).sum()),
        "errors_left_after_relabelling": int((unseen & (wrong ^ turned)).sum()),
        "relabelled": int(turned.sum()),
        "errors_left_if_likelier": int((unseen & (wrong ^ likelier)).sum()),
        "likelier": int(likelier.sum()),
    }


def _rounds(
    rows: RowFeatures, p_desirable: Floats, labels: Bools, truth: Bools, budgets: list[int], order: Order, seed: int
) -> Iterator[tuple[Bools, Bools]]:
    """For each budget the rows reviewed by then, and those of them that were drawn at random."""
    reviewed, drawn = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for budget in budgets:
        missing = min(budget, len(labels)) - int(reviewed.sum())
        if drawn.sum() < MIN_REVIEWED and (order != "random" or not reviewed.any()):
            # the draw goes on in its own order: a row of it that was picked meanwhile counts as drawn
            count = int(drawn.sum()) + max(2, round(OPENING * missing))
            drawn[stratified(labels, np.ones(len(labels), bool), count, seed=seed)] = True
            reviewed |= drawn
        while (missing := min(budget, len(labels)) - int(reviewed.sum())) > 0:
            count = max(1, -(-missing // ROUNDS))
            if order == "random":  # nothing needs to be learnt for it
                chosen = np.random.default_rng([seed, int(reviewed.sum())]).permutation(np.flatnonzero(~reviewed))[:count]
                drawn[chosen] = True
            else:
                p_refined = learn_from_reviews(rows, p_desirable, labels, reviewed, truth).p_desirable
                chosen = _next_to_review(rows, _p_wrong(p_refined, labels), reviewed, order, count)
            reviewed[chosen] = True
        yield reviewed.copy(), drawn.copy()


def _next_to_review(rows: RowFeatures, p_wrong: Floats, reviewed: Bools, order: Order, count: int) -> NDArray[np.int64]:
    if order == "suspicion":
        places = np.flatnonzero(~reviewed)
        return places[np.argsort(-p_wrong[places], kind="stable")][:count]
    return queue(rows, p_wrong, ~reviewed, count)


def _p_wrong(p_desirable: Floats, labels: Bools) -> Floats:
    return np.where(labels, 1 - p_desirable, p_desirable)
