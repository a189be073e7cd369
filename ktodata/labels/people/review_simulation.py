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
from ktodata.labels.people.stacking import stack

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Order = Literal["gain", "suspicion", "random"]

OPENING = 0.5  # share of the first budget that is drawn at random within each class, for every order alike
SURE = 0.5  # P(label wrong) from which a row that nobody reviewed is relabelled
ROUNDS = 4  # times that the model is made anew within one budget

SCHEMA = pl.Schema(
    {
        "order": pl.String(),
        "reviewed": pl.Int64(),
        "errors_caught": pl.Int64(),
        "errors_left": pl.Int64(),
        "errors_left_after_relabelling": pl.Int64(),
        "relabelled": pl.Int64(),
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
    orders: Sequence[Order] = get_args(Order),
    sure: float = SURE,
    seed: int = 0,
) -> pl.DataFrame:
    """One line for each order and budget (rows reviewed in all, rising): how many wrong labels are left.

    p_desirable : float [N], before any review; labels, truth : bool [N]
    orders : "gain" (nobody can call it yet, and unlike what was asked before), "suspicion" (likely wrong alone), "random"
    sure : reviewed rows take their verdict; rows not reviewed are relabelled where P(label wrong) exceeds this

    errors_left counts wrong labels when only reviewed rows are corrected; errors_left_after_relabelling also counts what the
    model, made anew from the reviews, puts right and wrong among the others: what it knows, of which label_noise acts on no more
    than reviews bear out (calibration.py). Raises SettingError for budgets that do not rise.
    """
    if list(budgets) != sorted(set(budgets)) or not budgets or budgets[0] < 1:
        raise SettingError(f"simulate_review: budgets are rising numbers of rows from 1 on; got {list(budgets)}.")
    lines = [
        line for order in orders for line in _simulated_lines(rows, p_desirable, labels, truth, list(budgets), order, sure, seed)
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
    reviewed, _ = next(_rounds(rows, p_desirable, labels, truth, [count], order, seed))
    learnt = learn_from_reviews(rows, p_desirable, labels, reviewed, truth, groups=groups)
    drawn = reviewed if order == "random" else _opening(labels, count, seed)  # as in label_noise, others make no probability
    stacked = stack({"text": log_odds_of(learnt.p_desirable)}, None, labels, groups, drawn, truth, seed=seed)
    if stacked is None:
        return PlayedReviews(reviewed, learnt, None)
    calibration = calibrate(_p_wrong(stacked.p_desirable, labels), drawn, drawn & (labels != truth), groups)
    return PlayedReviews(reviewed, learnt, calibration)


def _opening(labels: Bools, budget: int, seed: int) -> Bools:
    """The rows that every order begins with, drawn at random: bool [N]."""
    drawn = np.zeros(len(labels), bool)
    drawn[stratified(labels, ~drawn, max(2, round(OPENING * budget)), seed=seed)] = True
    return drawn


def _simulated_lines(
    rows: RowFeatures, p_desirable: Floats, labels: Bools, truth: Bools, budgets: list[int], order: Order, sure: float, seed: int
) -> list[dict[str, str | int]]:
    wrong = labels != truth
    lines: list[dict[str, str | int]] = []
    for reviewed, learnt in _rounds(rows, p_desirable, labels, truth, budgets, order, seed):
        turned = ~reviewed & (_p_wrong(learnt.p_desirable, labels) > sure)
        lines.append(
            {
                "order": order,
                "reviewed": int(reviewed.sum()),
                "errors_caught": int((reviewed & wrong).sum()),
                "errors_left": int((wrong & ~reviewed).sum()),
                "errors_left_after_relabelling": int((~reviewed & (wrong ^ turned)).sum()),
                "relabelled": int(turned.sum()),
            }
        )
    return lines


def _rounds(
    rows: RowFeatures, p_desirable: Floats, labels: Bools, truth: Bools, budgets: list[int], order: Order, seed: int
) -> Iterator[tuple[Bools, ReviewedModel]]:
    """For each budget the rows reviewed by then, and what they taught."""
    reviewed = _opening(labels, budgets[0], seed)
    for budget in budgets:
        while (missing := min(budget, len(labels)) - int(reviewed.sum())) > 0:
            count = max(1, -(-missing // ROUNDS))
            if order == "random":  # nothing needs to be learnt for it
                drawn = np.random.default_rng([seed, int(reviewed.sum())]).permutation(np.flatnonzero(~reviewed))[:count]
                reviewed[drawn] = True
                continue
            p_refined = learn_from_reviews(rows, p_desirable, labels, reviewed, truth).p_desirable
            reviewed[_next_to_review(rows, _p_wrong(p_refined, labels), reviewed, order, count)] = True
        yield reviewed.copy(), learn_from_reviews(rows, p_desirable, labels, reviewed, truth)


def _next_to_review(rows: RowFeatures, p_wrong: Floats, reviewed: Bools, order: Order, count: int) -> NDArray[np.int64]:
    if order == "suspicion":
        places = np.flatnonzero(~reviewed)
        return places[np.argsort(-p_wrong[places], kind="stable")][:count]
    return queue(rows, p_wrong, ~reviewed, count)


def _p_wrong(p_desirable: Floats, labels: Bools) -> Floats:
    return np.where(labels, 1 - p_desirable, p_desirable)
