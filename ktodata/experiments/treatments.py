"""The treatments of the labels that an ablation tries, each with its random control, as rows to train on.

Dropping rows has its control, as many dropped at random; so has review, as many reviewed at random.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import DataError, SettingError
from ktodata.experiments.arms import Arm
from ktodata.labels.actions import DROP_FROM, RELABEL_FROM, soft_labels, wrong_by_random_flips
from ktodata.labels.classifier.feature_sets import RowFeatures
from ktodata.labels.people.review_simulation import PlayedReviews, reviews_of
from ktodata.labels.row_groups import row_groups
from ktodata.settings import unknown_name

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# reviews_of, for one audit's rows: (labels, truth, count, order=, seed=)
Reviewing = Callable[..., PlayedReviews]

NOISY, CLEAN = "labels as given", "true labels"
Family = Literal[
    "as given",
    "confident learning",  # rows that it doubts are dropped
    "by the audit",  # what the audit's measured chances ask for
    "by guess",  # the same, where nothing measured them
    "at random",  # as many dropped at random as another arm drops
    "true",
    "oracle",  # exactly the wrong rows are dropped
    "reviewed",  # by the audit's queue, and the others softened by what was learnt
    "relabelled",  # the same reviews, and other rows take the other label where reviews show that they are wrong
    "repaired",  # the same, and rows that are likely wrong are dropped
    "noise-corrected",  # the same reviews, and a loss corrected for the flip rates that they give
    "reviewed at random",  # as many put right, and nothing learnt from them
]
FAMILIES: tuple[Family, ...] = get_args(Family)
REVIEWING: tuple[Family, ...] = ("reviewed", "relabelled", "repaired", "noise-corrected", "reviewed at random")
SOFT = {"soft_labels": True}


@dataclass(frozen=True)
class AuditedRows:
    """Rows that an audit learnt from, and what it measured of them.

    rows : row_id, prompt, completion, label, prompt_group, soft_label, p_wrong_low, is_label_issue
    p_desirable : float [rows]; confident_joint : int [2, 2], counts of (given, true); None: nothing was learnt of the labels
    features : what the models of the labels see of the rows; made only where reviews are played
    """

    rows: pl.DataFrame
    p_desirable: Floats
    confident_joint: NDArray[np.int64] | None
    features: Callable[[], RowFeatures]


def treatments(
    audited: AuditedRows, *, truth: Mapping[str, bool] | None, budgets: Sequence[float], families: Sequence[Family]
) -> Callable[[int], list[Arm]]:
    """The arms of a seed, as some of them draw rows at random; arguments as in `kd.ablate`.

    Raises DataError where the truth of training rows is missing.
    """
    rows = audited.rows
    guess = None
    if "by guess" in families and audited.confident_joint is not None:
        guess = wrong_by_random_flips(audited.p_desirable, rows["label"].to_numpy(), audited.confident_joint)
    by_truth: Callable[[int], list[Arm]] = lambda seed: []  # noqa: E731
    if truth is not None:
        reviews = partial(reviews_of, audited.features(), audited.p_desirable, row_groups(rows))
        played = budgets if {*REVIEWING} & {*families} else ()
        by_truth = partial(_by_truth, rows, _truth_of(rows, truth), reviews, played)

    def of_seed(seed: int) -> list[Arm]:
        return [
            arm for arm in (*_arms_without_truth(rows, guess, seed), *by_truth(seed)) if arm.family in ("as given", *families)
        ]

    return of_seed


def as_family(name: str) -> Family:
    """The kind of treatment of that name. Raises SettingError for an unknown one."""
    for family in FAMILIES:
        if family == name:
            return family
    raise SettingError(unknown_name("ablate: unknown kind of treatment", name, FAMILIES))


def _truth_of(rows: pl.DataFrame, truth: Mapping[str, bool]) -> Bools:
    missing = [row_id for row_id in rows["row_id"] if row_id not in truth]
    if missing:
        raise DataError(f"ablate: truth lacks {len(missing):,} of {rows.height:,} training rows (first: {missing[0]}).")
    return np.array([truth[row_id] for row_id in rows["row_id"]], dtype=bool)


def _without_measures(rows: pl.DataFrame) -> pl.DataFrame:
    """As they are trained on, whatever the audit thinks of them."""
    return rows.drop("soft_label", "p_wrong_low", "is_label_issue")


def _arms_without_truth(rows: pl.DataFrame, guess: Floats | None, seed: int) -> list[Arm]:
    """Those that need no truth."""
    plain, doubted = _without_measures(rows), rows["is_label_issue"].fill_null(False)
    arms = [Arm(NOISY, "every row with the label it came with", plain, family="as given")]
    if doubted.any():
        says = "rows that confident learning doubts are dropped"
        arms.append(Arm("confident learning, dropped", says, plain.filter(~doubted), family="confident learning"))
        arms.append(_random_drop(plain, int(doubted.sum()), seed, "confident learning's count"))
    by_policy = _by_measured_chances(rows, plain, seed)
    if not by_policy and guess is not None:
        labels = plain["label"].to_numpy()
        soft = _softened(plain, np.where(labels, 1 - guess, guess))
        says = "softened as if all errors were random; nothing measured it"
        arms.append(Arm("soft labels, by guess", says, soft, SOFT, family="by guess"))
    return arms + by_policy


def _by_truth(rows: pl.DataFrame, truth: Bools, reviews: Reviewing, budgets: Sequence[float], seed: int) -> list[Arm]:
    """What can be tried only where the truth is known."""
    plain, real = _without_measures(rows), pl.Series("truth", truth)
    right = plain.filter(real == rows["label"])
    arms = [
        Arm(CLEAN, "every row with its true label", labelled(plain, real), SOFT, family="true"),
        Arm("wrong rows dropped", "exactly the wrong rows are dropped, as only an oracle could", right, family="oracle"),
    ]
    return arms + [arm for budget in budgets for arm in _reviewed(plain, truth, reviews, budget, seed)]


def _by_measured_chances(rows: pl.DataFrame, plain: pl.DataFrame, seed: int) -> list[Arm]:
    """What the audit's measured chances ask for; nothing where none was measured."""
    if not rows["p_wrong_low"].is_not_null().any():
        return []
    p_wrong = rows["p_wrong_low"].fill_null(0.0)
    dropped = int((p_wrong > DROP_FROM).sum())
    soft = _softened(plain, rows["soft_label"].to_numpy())
    ours: Family = "by the audit"
    arms = [Arm("soft labels", "each label weighs what the audit believes of it", soft, SOFT, family=ours)]
    if (p_wrong >= RELABEL_FROM).any():
        likelier = labelled(plain, plain["label"] ^ (p_wrong >= RELABEL_FROM))
        arms.append(Arm("likelier labels", "the surely wrong relabelled, none dropped", likelier, SOFT, family=ours))
    if dropped:
        likely = plain.filter(p_wrong <= DROP_FROM)
        arms.append(Arm("likely wrong, dropped", "rows over 1/4 likely to be wrong are dropped", likely, family=ours))
        arms.append(_random_drop(plain, dropped, seed, "the audit's count"))
        arms.append(
            Arm("repaired", "the likely wrong dropped, the surely wrong relabelled", repaired_rows(plain, p_wrong), family=ours)
        )
    return arms


def labelled(plain: pl.DataFrame, labels: pl.Series) -> pl.DataFrame:
    """Rows to be trained on with other labels than the given ones, as soft labels that are sure, whose loss is that of a label.

    Train them with SOFT. Updates are dealt by the given labels: so rows meet as they do without the treatment, and arms differ by
    labels alone. Dealt anew, arms differ by luck four to seven times as much (tests/benchmarks/LOG.md).
    """
    return _softened(plain, labels.cast(pl.Float64).to_numpy())


def repaired_rows(plain: pl.DataFrame, wrong: pl.Series) -> pl.DataFrame:
    """Rows by P(their label is wrong): from RELABEL_FROM on they have the other label, over DROP_FROM they are dropped."""
    turned = plain.with_columns(label=pl.col("label") ^ (wrong >= RELABEL_FROM))
    return turned.filter((wrong <= DROP_FROM) | (wrong >= RELABEL_FROM))


def _random_drop(plain: pl.DataFrame, count: int, seed: int, whose: str) -> Arm:
    places = np.sort(np.random.default_rng([seed, 0xD209]).permutation(plain.height)[count:])
    return Arm(f"dropped at random, {whose}", f"{count:,} rows are dropped at random", plain[places], family="at random")


def _reviewed(plain: pl.DataFrame, truth: Bools, reviews: Reviewing, budget: float, seed: int) -> list[Arm]:
    """Soft labels after a share of rows was reviewed, chosen by the audit's queue, or labels turned, or the rows repaired, as far
    as those reviews bear it out, or a loss corrected by the flip rates that they give; as many drawn at random, put right only.
    """
    labels, count = plain["label"].to_numpy(), round(budget * plain.height)
    played = reviews(labels, truth, count, order="gain", seed=seed)
    queued, calibration = played.reviewed, played.calibration
    put_right = plain.with_columns(label=pl.Series(np.where(queued, truth, labels)))
    low = pl.Series(np.where(queued, 0.0, 0.0 if calibration is None else calibration.p_wrong_low))
    softened = np.zeros(len(labels)) if calibration is None else calibration.least_sure
    soft = soft_labels(labels, softened, ~queued, queued, truth)
    says, name = f"{count:,} rows of the queue reviewed", f"{budget:.0%} reviewed"
    arms = [Arm(f"{name}, soft labels", f"{says}; the rest softened", _softened(plain, soft), SOFT, "reviewed", budget)]
    sentence = f"{says}; of the rest, the surely wrong relabelled"
    relabelled = labelled(plain, put_right["label"] ^ (low >= RELABEL_FROM))
    arms.append(Arm(f"{name}, relabelled", sentence, relabelled, SOFT, "relabelled", budget))
    sentence = f"{says}; of the rest, the likely wrong dropped, the surely wrong relabelled"
    arms.append(Arm(f"{name}, repaired", sentence, repaired_rows(put_right, low), family="repaired", budget=budget))
    arms += _noise_corrected(put_right, played, labels, budget, says)
    drawn = reviews(labels, truth, count, order="random", seed=seed).reviewed
    righted = labelled(plain, pl.Series(np.where(drawn, truth, labels)))
    at_random = f"{count:,} rows drawn at random and put right"
    return [*arms, Arm(f"{name} at random", at_random, righted, SOFT, "reviewed at random", budget)]


def _noise_corrected(put_right: pl.DataFrame, played: PlayedReviews, labels: Bools, budget: float, says: str) -> list[Arm]:
    """A loss corrected for the flip rates of rows that nobody reviewed; none where the reviews do not give them."""
    rates = expected_flip_rates(labels, played.learnt.p_desirable, ~played.reviewed)
    # from a sum of 1 on labels say the opposite, and no loss can be corrected
    if None in played.learnt.scale.values() or sum(rates.values()) >= 1:
        return []
    sentence = f"{says} and put right; the loss corrected for the flip rates of the rest"
    name = f"{budget:.0%} reviewed, noise-corrected"
    return [Arm(name, sentence, put_right, {"flip_rates": rates}, "noise-corrected", budget)]


def expected_flip_rates(labels: Bools, p_desirable: Floats, here: Bools) -> dict[str, float]:
    """Shares of each true class that are labelled otherwise, as expected of the rows `here`."""
    p, up = p_desirable[here], labels[here]
    return {"desirable": float(p[~up].sum() / p.sum()), "undesirable": float((1 - p)[up].sum() / (1 - p).sum())}


def _softened(plain: pl.DataFrame, soft: Floats) -> pl.DataFrame:
    return plain.with_columns(p_desirable=pl.Series(soft))
