"""Which labels are likely wrong, how well that can be known on this data, and what to ask for where it cannot."""

from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from ktodata.errors import SettingError
from ktodata.feedback import check_columns, check_row_ids
from ktodata.labels.row_groups import FOLDS
from ktodata.stage import Seed, StageResult
from ktodata.work_done import working_on

NEEDS = ("prompt", "completion", "label", "votes", "prompt_group", "prompt_embedding", "completion_embedding")
USES = (
    "part",
    "pooled_votes",
    "trusted_label",
    "reviewed_contested",
    "draw_seed",
    "rater",
    "source",
    "model",
    "created_at",
    "contradicted",
    "state",
    "hidden_state",
    "judge_p_desirable",
    "judge_votes",
    "training_dynamics",
)
ADDS = ("p_desirable", "label_quality", "is_label_issue", "flagged", "soft_label", "p_wrong_low", "evidence_against")


def label_noise(
    feedback: pl.DataFrame,
    *,
    min_precision: Annotated[
        float, Field(ge=0, le=1, description="flag rows only as far down as this share of them is expected to be wrong")
    ] = 0.8,
    noise_injection: Annotated[
        float,
        Field(ge=0, le=0.4, description="share of each label flipped on purpose to measure the detector; 0 measures nothing"),
    ] = 0.05,
    folds: Annotated[int, Field(ge=3, le=20, description="parts of the data; each is predicted by models of the others")] = FOLDS,
    repeats: Annotated[
        int, Field(ge=1, le=20, description="fold assignments averaged, and rounds of noise injection; more is steadier")
    ] = 3,
    action: Annotated[
        Literal["review", "drop", "soften", "relabel", "drop_and_relabel", "keep"],
        Field(
            description="what becomes of flagged rows: review, drop, or nothing (keep). soften: nothing more, soft_label says "
            "how far each label is believed (train with soft_labels). relabel: rows whose P(wrong) is 0.8 or more, by all that "
            "reviewed rows leave open, take the other label, none is dropped. drop_and_relabel: those over 1/4 are dropped, too. "
            "Only these last three and use_trusted ever turn a label"
        ),
    ] = "review",
    use_trusted: Annotated[
        Literal["relabel", "measure"],
        Field(
            description="a trusted label that differs takes the place of the label (relabel), or only measures, and the row "
            "is held for review (measure)"
        ),
    ] = "relabel",
    trusted_at_random: Annotated[
        bool,
        Field(
            description="you vouch that all rows with a trusted label were drawn at random within each given label, so error "
            "rates follow from them; otherwise only from those that are known as drawn by the audit's own random order"
        ),
    ] = False,
    contradiction_similarity: Annotated[
        float, Field(gt=0, le=1, description="cosine from which completions to one prompt are nearly the same; 1 is equal")
    ] = 0.98,
    review_rows: Annotated[
        int, Field(ge=0, description="rows to ask a person about, drawn at random within each given label")
    ] = 60,
    neighbours: Annotated[
        int, Field(ge=0, description="near rows that vote in the evidence of that name, up to 20,000 rows; 0 leaves it out")
    ] = 10,
    seed: Seed = 0,
) -> StageResult:
    """Say how far each label can be trusted; flag rows only where flags were measured to be right on this data."""
    from ktodata.labels.beliefs import measure_beliefs  # here and below: scikit-learn and scipy take a second to load
    from ktodata.labels.evidence.gather import gather_evidence
    from ktodata.labels.label_classifier import fit_classifier
    from ktodata.labels.label_decisions import evidence_against, label_decisions, with_near_twins
    from ktodata.labels.label_drift import find_drift
    from ktodata.labels.label_results import LabelResults
    from ktodata.labels.label_rows import label_rows
    from ktodata.labels.people.review_check import check_reviews
    from ktodata.labels.people.weighed_votes import weigh_votes

    check_columns(feedback, NEEDS, who="label_noise")
    check_row_ids(feedback, who="label_noise")
    _check_settings(noise_injection, folds, repeats)
    # by name, not by place: the seed deals with rows by their places, and whoever shuffled them gets the same answer
    given = feedback.select("row_id")
    feedback = feedback if given["row_id"].is_sorted() else feedback.sort("row_id")
    rows = label_rows(feedback, neighbours=neighbours, folds=folds, all_at_random=trusted_at_random, seed=seed)
    working_on(f"comparing the votes on {rows.table.height:,} rows")
    evidence, votes = gather_evidence(rows), weigh_votes(rows, seed=seed)
    classifier = fit_classifier(
        rows, evidence, votes, min_precision=min_precision, fraction=noise_injection, folds=folds, repeats=repeats, seed=seed
    )
    working_on("comparing raters, sources and dates")
    drift = find_drift(rows, classifier.learnt.detection.predictions.p_desirable) if classifier.learnt else None
    table = votes.join(rows.table.with_columns(**classifier.columns(rows)))
    table = with_near_twins(table, rows, contradiction_similarity)
    working_on("comparing with reviewed rows")
    reviews = check_reviews(
        table,
        votes.wrong,
        min_precision=min_precision,
        vouched=trusted_at_random,
        review_rows=review_rows,
        seed=seed,
    )
    beliefs = measure_beliefs(rows, classifier, reviews.metrics)
    table = reviews.without_refuted_flags(table).with_columns(**beliefs.columns(rows))
    table = table.with_columns(evidence_against=evidence_against())
    results = LabelResults(rows, evidence, classifier, votes, drift, reviews, beliefs)
    decisions = label_decisions(table, action, use_trusted)
    return StageResult(
        columns=given.join(table.select("row_id", *ADDS), on="row_id", how="left", maintain_order="left"),
        decisions=decisions,
        metrics=results.metrics(table, decisions),
        tables=results.tables(),
    )


def _check_settings(noise_injection: float, folds: int, repeats: int) -> None:
    if not 0 <= noise_injection <= 0.4 or folds < 3 or repeats < 1:
        raise SettingError(
            "label_noise: noise_injection is a share in [0, 0.4], folds >= 3, repeats >= 1; "
            f"got {noise_injection}, {folds}, {repeats}."
        )
