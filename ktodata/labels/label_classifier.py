"""What models of the labels say of every row, and how far reviewed rows bear them, the votes and all further evidence out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import OneClassError
from ktodata.feedback import LABEL_NAMES
from ktodata.labels.classifier.detection import Detection, find_label_errors, predict_labels
from ktodata.labels.classifier.feature_sets import (
    RowFeatures,
    kernel_components,
    linear_components,
    of_distinct,
    row_features,
    surface_components,
)
from ktodata.labels.classifier.features import Components, surface_features
from ktodata.labels.classifier.kept_predictions import predicted_once
from ktodata.labels.classifier.noise_injection import trust_curve
from ktodata.labels.classifier.reviewed_flags import ReviewedFlags
from ktodata.labels.evidence.evidence import Evidence, log_odds_of
from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.calibration import Calibration, calibrate
from ktodata.labels.people.reviewed_model import ReviewedModel, learn_from_reviews
from ktodata.labels.people.stacking import Stacked, stack
from ktodata.labels.people.vote_worth import VoteWorth, vote_worth
from ktodata.labels.people.weak_sources import find_weak_sources, pool
from ktodata.labels.people.weighed_votes import Votes
from ktodata.text.tfidf import word_vectors

Floats = NDArray[np.float64]

MIN_ROWS = 10  # of each label; a model of fewer is noise


@dataclass(frozen=True)
class Learnt:
    """What was fitted. evidence : the pieces that reviewed rows have weighed, in the order of `reviewed.weights`

    p_desirable : float [N], by all there is: a probability where `stacked`, else an order. worth : of a vote in that order
    calibration : how far reviewed rows bear out that probability; None where it is an order
    """

    detection: Detection
    reviewed: ReviewedModel
    evidence: tuple[Evidence, ...]
    p_desirable: Floats
    stacked: Stacked | None
    calibration: Calibration | None
    worth: VoteWorth | None


@dataclass(frozen=True)
class Classifier:
    """learnt : None where `not_learnt` says why. weak_sources : their names; None where nobody looked for any"""

    learnt: Learnt | None
    not_learnt: str | None = None
    weak_sources: list[str] | None = None

    def columns(self, rows: LabelRows) -> Mapping[str, pl.Series | pl.Expr]:
        """p_desirable, label_quality, is_label_issue, flagged; null or false: nothing learnt."""
        if self.learnt is None:
            nothing = pl.lit(None, pl.Float64)
            p = dict.fromkeys(("p_desirable", "label_quality"), nothing)
            return p | {"is_label_issue": pl.lit(None, pl.Boolean), "flagged": pl.lit(value=False)}
        detection, p_desirable = self.learnt.detection, self.learnt.p_desirable
        return {
            "p_desirable": pl.Series(p_desirable),
            "label_quality": pl.Series(np.where(rows.labels, p_desirable, 1 - p_desirable)),
            "is_label_issue": pl.when("trained").then(pl.Series(detection.is_label_issue)),
            "flagged": pl.Series(detection.flagged),
        }

    @property
    def curve(self) -> pl.DataFrame:
        """The trust curves of both given classes; empty where nothing was learnt."""
        if self.learnt is None:
            return trust_curve(np.empty(0), rows=0, error_rates=(0.0, 0.0), given=True, basis="injected flips").clear()
        return self.learnt.detection.curve

    @property
    def evidence(self) -> list[Evidence]:
        """What each feature set says alone, and all there is together."""
        if self.learnt is None:
            return []
        sets = self.learnt.detection.predictions.by_feature_set
        given = "the given labels, out of fold"
        alone = [Evidence(name, log_odds_of(p), ("text", "label"), given) for name, p in sets.items()]
        return [*alone, Evidence("together", log_odds_of(self.learnt.p_desirable), ("all",))]

    def as_metrics(self, rows: LabelRows) -> dict[str, Any]:
        """As JSON values."""
        counts = {LABEL_NAMES[given]: count for given, count in rows.trained_of_class.items()}
        metrics: dict[str, Any] = {"rows": {"total": len(rows.labels), "learnt_from": int(rows.trained.sum())} | counts}
        if self.weak_sources is not None:
            metrics["weak_sources"] = self.weak_sources
        if self.learnt is None:
            return metrics | {"not_learnt": self.not_learnt}
        detection, reviewed = self.learnt.detection, self.learnt.reviewed
        return (
            metrics
            | {"reviews": {LABEL_NAMES[given]: {"gp_scale": scale} for given, scale in reviewed.scale.items()}}
            | {"weighed": {piece.name: self._weighed(rows, number) for number, piece in enumerate(self.learnt.evidence)}}
            | ({"stacking": asdict(self.learnt.stacked.facts)} if self.learnt.stacked else {})
            | ({"vote_worth": asdict(self.learnt.worth)} if self.learnt.worth else {})
            | detection.as_dict()
            | {"is_label_issue": int(detection.is_label_issue.sum())}
        )

    def _weighed(self, rows: LabelRows, number: int) -> dict[str, Any]:
        """What reviewed rows say that one piece of evidence is worth; a given class without an answer is left out."""
        assert self.learnt is not None
        piece, weights = self.learnt.evidence[number], self.learnt.reviewed.weights
        of_class = {LABEL_NAMES[given]: asdict(each[number]) for given, each in weights.items() if each}
        reviewed = {
            name: int((piece.known & rows.reviewed & (rows.labels == given)).sum()) for given, name in LABEL_NAMES.items()
        }
        return {
            "rows": int(piece.known.sum()),
            "reviewed_rows": reviewed,
            "weights": of_class,
            "text": _weights_in_words(piece.name, of_class),
        }


def fit_classifier(
    rows: LabelRows,
    evidence: Sequence[Evidence],
    votes: Votes,
    *,
    min_precision: float,
    fraction: float,
    folds: int,
    repeats: int,
    seed: int,
) -> Classifier:
    """Fit models of the labels as given, weigh them, the votes and the evidence by reviewed rows, and flag as far as that holds.

    The settings are label_noise's; fraction is its noise_injection. Where labels are of one kind, or too few, nothing is learnt.
    """
    if min(rows.trained_of_class.values()) < MIN_ROWS:
        return Classifier(None, _too_few(rows))
    features = row_features(*rows.vectors, rows.table["completion"], fit_rows=rows.trained, hidden_states=rows.hidden_states)
    sources = find_weak_sources(rows.table.select("label", "trained", votes="pooled_votes"))
    names = [] if sources is None else sources.names
    weak_labels = np.empty((len(rows.labels), 0), bool) if sources is None else sources.labels
    learnt_from = (rows.labels, rows.groups, rows.trained, weak_labels)
    states = [] if rows.hidden_states is None else [rows.hidden_states]
    try:
        predictions = predicted_once(
            lambda: predict_labels(
                _feature_sets(rows, features), *learnt_from, fraction=fraction, folds=folds, repeats=repeats, seed=seed
            ),
            rows.table.select("prompt", "completion"),
            [*rows.vectors, *states, *learnt_from],
            settings=(fraction, folds, repeats, seed),
        )
    except OneClassError as error:
        return Classifier(None, str(error), names)
    text = predictions.p_desirable if sources is None else pool(predictions.of_weak_sources)
    pulls = np.column_stack([piece.pull for piece in evidence]) if evidence else None
    reviewed = learn_from_reviews(features, text, rows.labels, rows.reviewed, rows.truth, evidence=pulls, groups=rows.groups)
    stacked, worth, p_desirable = _weigh_all(rows, reviewed, votes, evidence, seed=seed)
    calibration, flags = None, None
    if stacked is not None:
        p_wrong = np.where(rows.labels, 1 - p_desirable, p_desirable)
        calibration = calibrate(p_wrong, rows.drawn, rows.wrong, rows.labels, rows.groups)
        best = calibration.p_wrong
        p_desirable = np.where(rows.trained, np.where(rows.labels, 1 - best, best), p_desirable)
        flags = ReviewedFlags(best, rows.drawn, rows.wrong & rows.drawn, rows.trained & calibration.surely(min_precision))
    detection = find_label_errors(predictions, rows.labels, rows.trained, flags, min_precision=min_precision)
    return Classifier(Learnt(detection, reviewed, tuple(evidence), p_desirable, stacked, calibration, worth), None, names)


def _weigh_all(
    rows: LabelRows, reviewed: ReviewedModel, votes: Votes, evidence: Sequence[Evidence], *, seed: int
) -> tuple[Stacked | None, VoteWorth | None, Floats]:
    """(What reviewed rows say that each piece is worth; else that of a vote by the other votes; p_desirable by either).

    Votes count on training rows alone: others must be answered by the models. A probability is learnt from rows drawn at random
    alone: what rows stand for that somebody picked, such as those that were found to be wrong, nobody knows.
    """
    text = reviewed.p_desirable
    pieces = {"text": log_odds_of(text)} | {piece.name: piece.log_odds for piece in evidence}
    if votes.by_agreement.height:
        by_raters = rows.table.select("row_id").join(votes.by_agreement, on="row_id", how="left", maintain_order="left")
        pieces["raters by agreement"] = log_odds_of(by_raters["p_by_raters"].fill_null(np.nan).to_numpy())
    columns = votes.columns if (votes.columns.up + votes.columns.down > 1).any() else None
    stacked = stack(pieces, columns, rows.labels, rows.groups, rows.drawn, rows.truth, seed=seed)
    if stacked is not None:
        return stacked, None, np.where(rows.trained, stacked.p_desirable, text)
    up, down = votes.apart
    worth = vote_worth(text, up, down)
    return None, worth, text if worth is None else np.where(up + down > 1, worth.order(text, up, down), text)


def _too_few(rows: LabelRows) -> str:
    counts = rows.trained_of_class
    return (
        f"{counts[True]:,} desirable and {counts[False]:,} undesirable training rows: at least {MIN_ROWS} of each are needed to "
        "learn what sets them apart."
    )


def _feature_sets(rows: LabelRows, features: RowFeatures) -> dict[str, Callable[[], Components]]:
    """What makes the components of each feature set, in the order in which they are made."""
    train, prompts, hidden_state = rows.trained, rows.table["prompt"], {}
    if features.hidden_state is not None:
        hidden_state = {"hidden_state": lambda: kernel_components(features, "hidden_state", fit_rows=train)}
    return hidden_state | {
        "text": lambda: kernel_components(features, "text", fit_rows=train),
        "completion_residual": lambda: kernel_components(features, "completion_residual", fit_rows=train),
        "words": lambda: linear_components(of_distinct(prompts, train, word_vectors), features.words, fit_rows=train),
        "surface_features": lambda: surface_components(surface_features(rows.table), fit_rows=train),
        "prompt": lambda: linear_components(rows.vectors[0], fit_rows=train),
    }


def _weights_in_words(name: str, weights: Mapping[str, Mapping[str, float]]) -> str:
    """One sentence on what weight a piece of evidence got. weights : of each given class; none: too few rows were reviewed."""
    plain = name.replace("_", " ")
    if not weights:
        return f"The evidence of {plain} is shown, and not acted on: too few rows were reviewed to say how far it is right."
    each = "; ".join(f"among given {given} {_weight_in_words(weight)}" for given, weight in weights.items())
    return f"The evidence of {plain} acts as far as reviewed rows bear it out: {each}."


def _weight_in_words(weight: Mapping[str, float]) -> str:
    if weight["value"] == weight["low"] == weight["high"]:
        return "not at all"
    return f"with weight {weight['value']:+.2f} ({weight['low']:+.2f} to {weight['high']:+.2f})"
