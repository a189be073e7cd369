"""Which labels are likely wrong, how well that can be known on this data, and what to ask for where it cannot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ktodata.embeddings.vectors import of_unit_length
from ktodata.errors import OneClassError, SettingError
from ktodata.feedback import check_columns
from ktodata.labels.actions import DROP_FROM, LIKELIER_FROM, RELABEL_FROM
from ktodata.labels.label_findings import identifiability_in_words, label_findings
from ktodata.stage import Action, StageResult, decide, no_decisions

if TYPE_CHECKING:
    from ktodata.labels.classifier.detection import Detection
    from ktodata.labels.classifier.feature_sets import RowFeatures
    from ktodata.labels.classifier.features import Components
    from ktodata.labels.evidence import Evidence
    from ktodata.labels.people.drift import Drift, Likeness
    from ktodata.labels.people.raters import Aggregated
    from ktodata.labels.people.reviewed_model import ReviewedModel
    from ktodata.labels.people.votes import Votes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NEEDS = ("prompt", "completion", "label", "votes", "prompt_group", "prompt_embedding", "completion_embedding")
USES = (
    "part",
    "pooled_votes",
    "trusted_label",
    "rater",
    "source",
    "model",
    "created_at",
    "contradicted",
    "state",
    "hidden_state",
    "judge_p_desirable",
    "training_dynamics",
)
ADDS = ("p_desirable", "label_quality", "is_label_issue", "flagged", "soft_label", "evidence_against")

DRIFTS_BY = ("source", "rater", "model", "script")
MIN_ROWS = 10  # of each label; a model of fewer is noise
NEIGHBOURS_UP_TO = 20_000  # rows
# what can speak against a label, strongest first
KINDS_AGAINST = ("trusted_disagrees", "contradicted", "outvoted", "near_contradiction", "doubtful_label")
DECISION_EVIDENCE = (
    "label",
    "p_desirable",
    "label_quality",
    "p_wrong",
    "trusted_label",
    "votes_up",
    "votes_down",
    "near_twin",
    "near_similarity",
)
LABEL_QUALITY_IS = (
    "1 sound .. 0 doubtful: the calibrated out-of-fold probability of the given label; CROWDLAB's where several raters "
    "judged a training row"
)


@dataclass(frozen=True)
class FittedClassifier:
    """What models of the labels say; `detection` and `reviews` are None where `not_learnt` says why.

    rows : counts. weak_sources : their names; None where nobody looked for any. dynamics : training dynamics, None without any
    """

    rows: dict[str, int]
    not_learnt: str | None = None
    weak_sources: list[str] | None = None
    detection: "Detection | None" = None
    reviews: "ReviewedModel | None" = None
    dynamics: pl.Series | None = None


@dataclass(frozen=True)
class RaterWeights:
    """What raters who share rows are worth, and which of those rows are wrong or contested: verdicts."""

    aggregated: "Aggregated"
    verdicts: pl.DataFrame


@dataclass(frozen=True)
class TrustedCheck:
    """Labels and flags against trusted rows. refuted : given classes whose flags those show to be mostly wrong."""

    metrics: dict[str, Any]
    rates: pl.DataFrame
    refuted: list[bool]


@dataclass(frozen=True)
class LabelBeliefs:
    """p_wrong : float [N], a probability where `measured`, bool [N]. basis : what measured it in each given class.

    rows_by_raters : how many of these rows have it from raters who share rows
    """

    p_wrong: Floats
    measured: Bools
    basis: dict[str, str | None]
    rows_by_raters: int


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
    folds: Annotated[int, Field(ge=3, le=20, description="parts of the data; each is predicted by models of the others")] = 5,
    repeats: Annotated[
        int, Field(ge=1, le=20, description="fold assignments averaged, and rounds of noise injection; more is steadier")
    ] = 3,
    action: Annotated[
        Literal["review", "drop", "soften", "relabel", "drop_and_relabel", "keep"],
        Field(
            description="what becomes of flagged rows: review, drop, or nothing (keep). soften: nothing more, soft_label says "
            "how far each label is believed (train with soft_labels). relabel: rows whose measured P(wrong) is over 1/2 take the "
            "other label, none is dropped. drop_and_relabel: those over 1/4 are dropped and those over 3/4 relabelled. Only "
            "these last three and use_trusted ever turn a label"
        ),
    ] = "review",
    use_trusted: Annotated[
        Literal["relabel", "measure"],
        Field(
            description="a trusted label that differs takes the place of the label (relabel), or only measures, and the row "
            "is held for review (measure)"
        ),
    ] = "relabel",
    contradiction_similarity: Annotated[
        float, Field(gt=0, le=1, description="cosine from which completions to one prompt are nearly the same; 1 is equal")
    ] = 0.98,
    review_rows: Annotated[
        int, Field(ge=0, description="rows to ask a person about, drawn at random within each given label")
    ] = 60,
    neighbours: Annotated[
        int, Field(ge=0, description="near rows that vote in the evidence of that name, up to 20,000 rows; 0 leaves it out")
    ] = 10,
    seed: int = 0,
) -> StageResult:
    """Say how far each label can be trusted; flag rows only where flags were measured to be right on this data."""
    from ktodata.labels.people.trusted import mark_reviewed

    check_columns(feedback, NEEDS, who="label_noise")
    if not 0 <= noise_injection <= 0.4 or folds < 3 or repeats < 1:
        raise SettingError(
            "label_noise: noise_injection is a share in [0, 0.4], folds >= 3, repeats >= 1; "
            f"got {noise_injection}, {folds}, {repeats}."
        )
    table = mark_reviewed(_with_defaults(feedback), seed)
    classifier = _fit_classifier(table, min_precision, fraction=noise_injection, folds=folds, repeats=repeats, seed=seed)
    table = _with_probabilities(table, classifier)
    votes = _pool_votes(table, classifier)
    raters = _weigh_raters(table, votes, seed)
    table = _with_votes(table, votes, raters)
    drift = _look_for_drift(table, seed) if classifier.detection else None
    table = _with_near_twins(table, contradiction_similarity)
    trusted = _check_trusted(table, classifier.rows, min_precision)
    table = _without_refuted_flags(table, trusted.refuted)
    sample = _rows_to_ask(table, review_rows if not trusted.metrics["rows"] else 0, seed)
    beliefs = _measure_p_wrong(table, classifier)
    table = _with_soft_labels(table, beliefs).with_columns(evidence_against=_evidence_against())
    evidence = _gather_evidence(table, classifier.detection, neighbours)
    facts = _describe_classifier(classifier, table) | _describe_people(votes, raters, drift)
    facts |= {
        "near_contradictions": {"rows": table["near_twin"].count(), "similarity": contradiction_similarity},
        "trusted": trusted.metrics,
        "flagged": int(table["flagged"].sum()),
        "ask_for_review": _describe_sample(sample.height, review_rows),
        "label_action_costs": _describe_beliefs(beliefs),
        **_describe_neighbours(evidence, table.height, requested=bool(classifier.detection and neighbours)),
        "evidence_against": {kind: int(table["evidence_against"].list.contains(kind).sum()) for kind in KINDS_AGAINST},
        "label_quality": LABEL_QUALITY_IS,
    }
    if classifier.detection and noise_injection:
        facts["identifiability"] = identifiability_in_words(facts["injected_flips"]["per_given_class"])
    return StageResult(
        columns=table.select("row_id", *ADDS),
        decisions=no_decisions() if action == "keep" else _label_decisions(table, action, use_trusted),
        metrics=facts | {"findings": [finding.as_dict() for finding in label_findings(facts)]},
        tables=_people_tables(votes, raters)
        | _evidence_tables(table, evidence)
        | _drift_tables(drift)
        | {
            "trust_curve": classifier.detection.curve if classifier.detection else _no_curve(),
            "trusted_rates": trusted.rates,
            "ask_for_review": sample,
        },
    )


def _with_defaults(feedback: pl.DataFrame) -> pl.DataFrame:
    """The frame with every column of USES, and `trained`: rows that the models learn from and that can be decided on."""
    absent = {
        "part": pl.lit("train"),
        "state": pl.lit("keep"),
        "contradicted": pl.lit(False),
        "trusted_label": pl.lit(None, pl.Boolean),
        "pooled_votes": pl.col("votes"),
        "rater": pl.lit(None, pl.String),
        "source": pl.lit(None, pl.String),
        "model": pl.lit(None, pl.String),
        "created_at": pl.lit(None, pl.Datetime("us", "UTC")),
        "judge_p_desirable": pl.lit(None, pl.Float64),
        "training_dynamics": pl.lit(None, pl.Float64),
    }
    table = feedback.with_columns(**{name: value for name, value in absent.items() if name not in feedback.columns})
    return table.with_columns(trained=(pl.col("part") == "train") & pl.col("state").is_in(["keep", "relabel"]))


def _fit_classifier(
    table: pl.DataFrame, min_precision: float, *, fraction: float, folds: int, repeats: int, seed: int
) -> FittedClassifier:
    """What models of the labels, votes of weak sources and reviews say together, and how far flags are right."""
    from ktodata.labels.classifier.detection import find_label_errors, predict_labels
    from ktodata.labels.people.weak_sources import find_weak_sources, pool

    labels, train = table["label"].to_numpy(), table["trained"].to_numpy()
    counts = {"desirable": int((labels & train).sum()), "undesirable": int((~labels & train).sum())}
    rows = {"total": table.height, "learnt_from": int(train.sum())} | counts
    if min(counts.values()) < MIN_ROWS:
        return FittedClassifier(rows, _too_few(counts))
    features = _row_features(table, train)
    sources = find_weak_sources(table.select("label", "trained", votes="pooled_votes"))
    names = [] if sources is None else sources.names
    weak_labels = np.empty((len(labels), 0), bool) if sources is None else sources.labels
    groups, how = table["prompt_group"].rank("dense").to_numpy(), {"folds": folds, "repeats": repeats, "seed": seed}
    try:
        feature_sets = _feature_sets(table, features, train)
        predictions = predict_labels(feature_sets, labels, groups, train, weak_labels, fraction=fraction, **how)
    except OneClassError as error:
        return FittedClassifier(rows, str(error), names)
    pooled = predictions.p_desirable if sources is None else pool(sources, predictions.of_weak_sources, train)
    reviews, dynamics = _learn_from_reviews(table, features, pooled)
    drawn, wrong = table["drawn"].to_numpy(), table["wrong"].to_numpy()
    detection = find_label_errors(
        predictions, reviews.p_desirable, labels, train, (drawn, drawn & wrong), min_precision=min_precision
    )
    return FittedClassifier(rows, None, names, detection, reviews, dynamics)


def _too_few(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['desirable']:,} desirable and {counts['undesirable']:,} undesirable training rows: at least "
        f"{MIN_ROWS} of each are needed to learn what sets them apart."
    )


def _learn_from_reviews(
    table: pl.DataFrame, features: "RowFeatures", p_desirable: Floats
) -> "tuple[ReviewedModel, pl.Series | None]":
    """What reviewed rows make of p_desirable and of training dynamics; and the latter, None where there are none."""
    from ktodata.labels.classifier.training_dynamics import signed_evidence
    from ktodata.labels.people.reviewed_model import learn_from_reviews

    labels, reviewed, wrong = (table[name].to_numpy() for name in ("label", "reviewed", "wrong"))
    dynamics = table["training_dynamics"].cast(pl.Float64)
    evidence = signed_evidence(dynamics.to_numpy(), labels)[:, None] if dynamics.count() else None
    learnt = learn_from_reviews(features, p_desirable, labels, reviewed, labels ^ wrong, evidence=evidence)
    return learnt, dynamics if dynamics.count() else None


def _with_probabilities(table: pl.DataFrame, classifier: FittedClassifier) -> pl.DataFrame:
    """Add p_desirable, label_quality, is_label_issue and flagged; null and false where nothing was learnt."""
    detection, reviews = classifier.detection, classifier.reviews
    if detection is None or reviews is None:
        nothing, no_issue = pl.lit(None, pl.Float64), pl.lit(None, pl.Boolean)
        return table.with_columns(
            label_quality=nothing, p_desirable=nothing, is_label_issue=no_issue, flagged=pl.lit(value=False)
        )
    p_desirable = reviews.p_desirable
    return table.with_columns(
        p_desirable=pl.Series(p_desirable),
        from_text=pl.Series(detection.predictions.p_desirable),
        label_quality=pl.Series(np.where(table["label"].to_numpy(), p_desirable, 1 - p_desirable)),
        is_label_issue=pl.when("trained").then(pl.Series(detection.is_label_issue)),
        flagged=pl.Series(detection.flagged),
    )


def _row_features(table: pl.DataFrame, train: Bools) -> "RowFeatures":
    from ktodata.labels.classifier.feature_sets import row_features

    return row_features(*_embeddings(table), table["completion"], fit_rows=train, hidden_states=_hidden_states(table))


def _feature_sets(table: pl.DataFrame, features: "RowFeatures", train: Bools) -> "dict[str, Callable[[], Components]]":
    """What makes the components of each feature set, in the order in which they are made."""
    from ktodata.labels.classifier.feature_sets import kernel_components, pair_components, surface_components
    from ktodata.labels.classifier.features import surface_features

    surface, hidden_state = surface_features(table), {}
    if features.hidden_state is not None:
        hidden_state = {"hidden_state": lambda: kernel_components(features, "hidden_state", fit_rows=train)}
    return hidden_state | {
        "text": lambda: kernel_components(features, "text", fit_rows=train),
        "completion_residual": lambda: kernel_components(features, "completion_residual", fit_rows=train),
        "pair": lambda: pair_components(*_embeddings(table), surface, fit_rows=train),
        "surface_features": lambda: surface_components(surface, fit_rows=train),
        "prompt": lambda: kernel_components(features, "prompt", fit_rows=train),
    }


def _no_curve() -> pl.DataFrame:
    from ktodata.labels.classifier.noise_injection import trust_curve

    return trust_curve(np.empty(0), rows=0, error_rates=(0.0, 0.0), given=True, basis="injected flips").clear()


def _embeddings(table: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    prompts, completions = (
        table[f"{side}_embedding"].to_numpy().astype(np.float32, copy=False) for side in ("prompt", "completion")
    )
    return prompts, completions


def _hidden_states(table: pl.DataFrame) -> NDArray[np.float32] | None:
    if "hidden_state" not in table.columns:
        return None
    return np.asarray(table["hidden_state"].to_numpy(), dtype=np.float32)


def _pool_votes(table: pl.DataFrame, classifier: FittedClassifier) -> "Votes":
    """The votes on each row, and CROWDLAB's quality where several raters judged a training row."""
    from ktodata.labels.people.votes import aggregate_votes

    # columns first: a filtered table is a copy, vectors included
    trained = table.select("row_id", "label", "pooled_votes", "trained", "p_desirable").filter("trained")
    return aggregate_votes(
        trained.select("row_id", "label", votes="pooled_votes"),
        trained["p_desirable"].to_numpy() if classifier.detection else None,
        judged=_texts_with_votes(table).select("row_id", votes="vote"),
    )


def _texts_with_votes(table: pl.DataFrame) -> pl.DataFrame:
    """What raters are judged by, each text once: row_id, prompt, completion, label, part, state, vote.

    Rows that wait because their own votes differ are among them: without those all raters would seem to agree.
    """
    rows = table.select("row_id", "prompt", "completion", "label", "part", "state", vote="pooled_votes")
    in_training = (pl.col("part") == "train") & (pl.col("state") != "drop")
    return rows.filter(in_training).unique(["prompt", "completion"], keep="first", maintain_order=True)


def _weigh_raters(table: pl.DataFrame, votes: "Votes", seed: int) -> RaterWeights | None:
    """What each rater says of either class, by Dawid and Skene, and which rows are contested; None unless raters share rows."""
    from ktodata.labels.people.raters import dawid_skene, wrong_or_contested
    from ktodata.labels.people.votes import MIN_SHARED

    if votes.metrics["rows_with_several_raters"] < MIN_SHARED:
        return None
    texts = _texts_with_votes(table)
    vote = pl.col("vote").struct
    cast = texts.select("row_id", "vote").explode("vote")
    cast = cast.select("row_id", rater=vote.field("rater"), verdict=vote.field("label")).drop_nulls("verdict")
    aggregated = dawid_skene(cast, seed=seed)
    return RaterWeights(aggregated, wrong_or_contested(aggregated, texts))


def _with_votes(table: pl.DataFrame, votes: "Votes", raters: RaterWeights | None) -> pl.DataFrame:
    """Add votes_up, votes_down, outvoted, p_by_raters, and CROWDLAB's quality to label_quality where there is one."""
    for columns in (votes.rows, votes.quality):
        table = table.join(columns, on="row_id", how="left", maintain_order="left")
    table = table.with_columns(label_quality=pl.coalesce("vote_quality", "label_quality"))
    if raters is None:
        return table.with_columns(p_by_raters=pl.lit(None, pl.Float64))
    shared = raters.aggregated.rows.filter(pl.col("contested").is_not_null()).select("row_id", p_by_raters="p_desirable")
    return table.join(shared, on="row_id", how="left", maintain_order="left")


def _look_for_drift(table: pl.DataFrame, seed: int) -> "Drift":
    """Groups and dates at which the label given the content changes."""
    from ktodata.labels.people.drift import criteria_drift
    from ktodata.text.scripts import main_script

    columns = table.select("row_id", "label", "trained", "prompt", "prompt_group", "from_text", "created_at", *DRIFTS_BY[:3])
    rows = columns.filter("trained").select(
        "row_id",
        "label",
        *DRIFTS_BY[:3],
        main_script("prompt").alias("script"),
        "created_at",
        p_desirable="from_text",
        prompt_group=pl.col("prompt_group").rank("dense").cast(pl.Int64),
    )
    return criteria_drift(rows, DRIFTS_BY, seed=seed, likeness=_likeness(table))


def _likeness(table: pl.DataFrame) -> "Likeness":
    """How alike two trained rows are, by their places among those: the cosine of their prompts and of their answers, averaged."""
    trained, sides = np.flatnonzero(table["trained"].to_numpy()), _embeddings(table)

    def cosine(row: int, compared: NDArray[np.int64]) -> Floats:
        prompts, answers = (of_unit_length(side[trained[compared]]) @ of_unit_length(side[trained[[row]]])[0] for side in sides)
        return np.asarray((prompts + answers) / 2, float)

    return cosine


def _with_near_twins(table: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Add near_twin and near_similarity for training rows with a near-equal completion of the other label."""
    from ktodata.text.contradictions import near_contradictions

    trained = table.filter(pl.col("trained") & ~pl.col("contradicted"))
    twins = near_contradictions(trained, *_embeddings(trained), similarity=similarity)
    return table.join(twins, on="row_id", how="left", maintain_order="left")


def _check_trusted(table: pl.DataFrame, rows: Mapping[str, int], min_precision: float) -> TrustedCheck:
    """Measure the labels on trusted rows drawn at random, and the flags on all of them."""
    from ktodata.labels.classifier.detection import NAMES
    from ktodata.labels.people.trusted import check_flags, flip_rates, trusted_rates

    trusted = table.filter((pl.col("part") == "train") & (pl.col("state") != "drop") & pl.col("trusted_label").is_not_null())
    sample = trusted.filter("drawn")
    checks = {given: check_flags(trusted, sample, given=given) for given in NAMES}
    highest = {given: check["flag_precision"]["high"] for given, check in checks.items()}
    refuted = [given for given, high in highest.items() if high is not None and high < min_precision]
    errors = {given: check["error_rate"]["value"] for given, check in checks.items()}
    facts = {
        "rows": trusted.height,
        "wrong": int((trusted["label"] != trusted["trusted_label"]).sum()),
        "rates_from": "the rows drawn at random" if sample.height < trusted.height else "all of them, taken for a random draw",
        "drawn_at_random": sample.height,
        **{NAMES[given]: check for given, check in checks.items()},
        "flip_rates": flip_rates({given: rows[name] for given, name in NAMES.items()}, errors),
        "flags_refuted": [NAMES[given] for given in refuted],
    }
    return TrustedCheck(facts, trusted_rates(sample, ("source", "rater")), refuted)


def _without_refuted_flags(table: pl.DataFrame, refuted: list[bool]) -> pl.DataFrame:
    vouched = (pl.col("trusted_label") == pl.col("label")).fill_null(False)
    return table.with_columns(flagged=pl.col("flagged") & ~pl.col("label").is_in(refuted) & ~vouched)


def _rows_to_ask(table: pl.DataFrame, total: int, seed: int) -> pl.DataFrame:
    from ktodata.labels.people.trusted import rows_to_review

    return rows_to_review(table.filter(pl.col("trained") & pl.col("trusted_label").is_null()), total=total, seed=seed)


def _measure_p_wrong(table: pl.DataFrame, classifier: FittedClassifier) -> LabelBeliefs:
    """P(the given label is wrong) where that was measured: by reviews, second votes, raters, or random flips that show."""
    from ktodata.labels.classifier.detection import NAMES

    labels = table["label"].to_numpy()
    p_wrong, measured, basis = np.zeros(len(labels)), np.zeros(len(labels), bool), {}
    for given, name in NAMES.items() if classifier.detection else ():
        in_class = labels == given
        basis[name], p = _measured_in_class(table, classifier, given)
        if basis[name] is not None:
            p_wrong[in_class], measured[in_class] = p[in_class], True
    voted = table["p_by_raters"].is_not_null().to_numpy()
    if not classifier.weak_sources and voted.any():
        by_raters = table["p_by_raters"].fill_null(0.5).to_numpy()
        p_wrong, measured = np.where(voted, np.where(labels, 1 - by_raters, by_raters), p_wrong), measured | voted
    measured &= (table["trained"] & table["trusted_label"].is_null()).to_numpy()
    return LabelBeliefs(p_wrong, measured, basis, int((voted & measured).sum()))


def _measured_in_class(table: pl.DataFrame, classifier: FittedClassifier, given: bool) -> tuple[str | None, Floats]:
    """What measured p_wrong among rows of one given class, None where nothing did; and p_wrong by it, float [N]."""
    from ktodata.labels.actions import wrong_by_random_flips

    assert classifier.detection is not None and classifier.reviews is not None
    labels, refined = table["label"].to_numpy(), table["p_desirable"].to_numpy()
    p_wrong = np.where(labels, 1 - refined, refined)
    if classifier.reviews.scale[given] is not None:
        return "reviews", p_wrong
    if classifier.weak_sources:
        return "votes of several weak sources", p_wrong
    if classifier.detection.classes[given].identifiability != "identifiable":
        return None, p_wrong
    joint = classifier.detection.confident_joint
    return "random flips, as identified", wrong_by_random_flips(table["from_text"].to_numpy(), labels, joint)


def _with_soft_labels(table: pl.DataFrame, beliefs: LabelBeliefs) -> pl.DataFrame:
    """Add soft_label, and p_wrong where that is a probability."""
    from ktodata.labels.actions import soft_labels

    trusted, truth = table["trusted_label"].is_not_null().to_numpy(), table["trusted_label"].fill_null(False).to_numpy()
    soft = soft_labels(table["label"].to_numpy(), beliefs.p_wrong, beliefs.measured, trusted, truth)
    return table.with_columns(
        soft_label=pl.Series(soft), p_wrong=pl.when(pl.Series(beliefs.measured)).then(pl.Series(beliefs.p_wrong))
    )


def _gather_evidence(table: pl.DataFrame, detection: "Detection | None", neighbours: int) -> "list[Evidence]":
    """Everything that speaks for or against the labels, row by row."""
    from ktodata.labels.classifier.neighbours import neighbour_agreement
    from ktodata.labels.evidence import Evidence

    labels, trained = table["label"].to_numpy(), table["trained"].to_numpy()
    by_feature_set = detection.predictions.by_feature_set if detection else {}
    evidence = [
        Evidence(name, np.where(labels, p, 1 - p), ("text", "label"), "a linear model") for name, p in by_feature_set.items()
    ]
    if detection and neighbours and table.height <= NEIGHBOURS_UP_TO:
        groups = table["prompt_group"].rank("dense").to_numpy()
        evidence.append(neighbour_agreement(np.hstack(_embeddings(table)), labels, groups, trained, neighbours=neighbours))
    judged = table["judge_p_desirable"].cast(pl.Float64)
    if judged.null_count() < len(judged):
        quality = np.where(labels, judged.to_numpy(), 1 - judged.to_numpy())
        evidence.append(Evidence("judge", quality, ("judge_p_desirable", "label"), "questions to a language model"))
    for name, column in {"votes": "vote_quality", "training_dynamics": "training_dynamics"}.items():
        if table[column].null_count() < table.height:
            evidence.append(Evidence(name, table[column].cast(pl.Float64).to_numpy(), (column,), "none"))
    if detection:
        evidence.append(Evidence("together", table["label_quality"].to_numpy(), ("all",), "none"))
    return evidence


def _evidence_against() -> pl.Expr:
    """The names of KINDS_AGAINST that hold for a training row, strongest first; null when there is none."""
    holds = {
        "trusted_disagrees": pl.col("trusted_label") != pl.col("label"),
        "contradicted": pl.col("contradicted"),
        "outvoted": pl.col("outvoted"),
        "near_contradiction": pl.col("near_twin").is_not_null(),
        "doubtful_label": pl.col("flagged"),
    }
    names = [pl.when(pl.col("trained") & holds[kind].fill_null(False)).then(pl.lit(kind)) for kind in KINDS_AGAINST]
    kinds = pl.concat_list(names).list.drop_nulls()
    return pl.when(kinds.list.len() > 0).then(kinds)


def _label_decisions(table: pl.DataFrame, action: str, use_trusted: str) -> pl.DataFrame:
    """`review` for all evidence against a label, but for what `action` and `use_trusted` say otherwise."""
    by_p_wrong = action in ("soften", "relabel", "drop_and_relabel")
    measured = pl.col("p_wrong").is_not_null() | pl.col("trusted_label").is_not_null()
    # what a person has judged need not wait for one, unless verdicts are to do nothing but measure
    unjudged = pl.col("trusted_label").is_null() if by_p_wrong or use_trusted == "relabel" else pl.lit(value=True)
    # nor need what soft labels, relabel or drop_and_relabel see to
    unsettled = unjudged & ~measured if by_p_wrong else unjudged
    on_trusted: Action = "relabel" if by_p_wrong or use_trusted == "relabel" else "review"
    rules: list[tuple[pl.Expr, Action, str]] = [
        (_speaks_against("trusted_disagrees"), on_trusted, "trusted_disagrees"),
        (_speaks_against("contradicted") & unjudged, "review", "contradicted"),
        (_speaks_against("outvoted") & unsettled, "review", "outvoted"),
        (_speaks_against("near_contradiction") & unsettled, "review", "near_contradiction"),
    ]
    if action in ("review", "drop"):
        doubtful = _speaks_against("doubtful_label") & unjudged
        rules.append((doubtful, "drop" if action == "drop" else "review", "doubtful_label"))
    if action == "relabel":
        rules.append((pl.col("p_wrong") > LIKELIER_FROM, "relabel", "likelier_label"))
    if action == "drop_and_relabel":
        rules.append((pl.col("p_wrong").is_between(DROP_FROM, RELABEL_FROM, closed="right"), "drop", "likely_wrong"))
        rules.append((pl.col("p_wrong") > RELABEL_FROM, "relabel", "surely_wrong"))
    return pl.concat([no_decisions(), *(_decide_rule(table, *rule) for rule in rules)])


def _decide_rule(table: pl.DataFrame, where: pl.Expr, action: Action, reason: str) -> pl.DataFrame:
    caused_by = "near_twin" if reason == "near_contradiction" else None
    where = where.fill_null(False)
    return decide(table, where, action=action, reason=reason, evidence=DECISION_EVIDENCE, caused_by=caused_by)


def _speaks_against(kind: str) -> pl.Expr:
    return pl.col("evidence_against").list.contains(kind)


def _describe_classifier(classifier: FittedClassifier, table: pl.DataFrame) -> dict[str, Any]:
    from ktodata.labels.classifier.detection import NAMES

    facts: dict[str, Any] = {"rows": classifier.rows}
    if classifier.weak_sources is not None:
        facts["weak_sources"] = classifier.weak_sources
    if classifier.detection is None or classifier.reviews is None:
        return facts | {"not_learnt": classifier.not_learnt}
    facts["reviews"] = {NAMES[given]: {"gp_scale": scale} for given, scale in classifier.reviews.scale.items()}
    if classifier.dynamics is not None:
        facts["training_dynamics"] = _describe_dynamics(classifier.reviews, classifier.dynamics, table)
    return facts | classifier.detection.as_dict() | {"is_label_issue": int(classifier.detection.is_label_issue.sum())}


def _describe_dynamics(reviews: "ReviewedModel", dynamics: pl.Series, table: pl.DataFrame) -> dict[str, Any]:
    """What the reviewed rows of each given class say that training dynamics are worth; a class without an answer is left out."""
    from ktodata.labels.classifier.detection import NAMES
    from ktodata.labels.classifier.training_dynamics import dynamics_in_words

    observed, labels, reviewed = dynamics.is_not_null().to_numpy(), table["label"].to_numpy(), table["reviewed"].to_numpy()
    weights = {
        NAMES[given]: {"weight": weight.value, "low": weight.low, "high": weight.high}
        for given, of_class in reviews.weights.items()
        for weight in of_class
    }
    return {
        "rows_observed": int(observed.sum()),
        "reviewed_rows_observed": {name: int((observed & reviewed & (labels == given)).sum()) for given, name in NAMES.items()},
        "weights": weights,
        "text": dynamics_in_words(weights),
    }


def _describe_people(votes: "Votes", raters: RaterWeights | None, drift: "Drift | None") -> dict[str, Any]:
    facts: dict[str, Any] = {"votes": votes.metrics | {"quality_from_votes": votes.quality.height}}
    if raters is not None:
        verdicts = dict(raters.verdicts["verdict"].value_counts(sort=True).iter_rows())
        facts["agreement"] = raters.aggregated.metrics | {"verdicts": verdicts}
    if drift is not None:
        groups = drift.table.filter("significant").select("column", "value", "kind", "since", "effect_points")
        groups = groups.with_columns(pl.col("since").dt.to_string("%Y-%m-%d %H:%M"))
        facts["drift"] = drift.metrics | {"significant_groups": groups.to_dicts()}
    return facts


def _describe_sample(rows: int, review_rows: int) -> dict[str, Any]:
    from ktodata.stats import share

    half = max(review_rows // 2, 1)
    low, high = (f"{end or 0:.0%}" for end in share(round(half / 10), half)[1:])
    return {
        "rows": rows,
        "why": f"A person's verdict on these {rows} rows, drawn at random within each given label, would give the true "
        f"error rate of each label with an exact interval (one wrong in ten of {half} would mean {low} to {high}), show "
        "systematic noise, and measure the flags themselves. Give them back as a file of reviews, or in column trusted_label.",
    }


def _describe_beliefs(beliefs: LabelBeliefs) -> dict[str, Any]:
    from ktodata.labels.actions import costs

    by = {"p_wrong_measured_by": beliefs.basis, "rows_by_raters": beliefs.rows_by_raters}
    return by | costs(beliefs.p_wrong, beliefs.measured).as_dict()


def _describe_neighbours(evidence: "list[Evidence]", rows: int, *, requested: bool) -> dict[str, Any]:
    if requested and rows > NEIGHBOURS_UP_TO:
        reason = f"more than {NEIGHBOURS_UP_TO:,} rows: the search would take longer than all the rest"
        return {"neighbours": {"left_out": reason}}
    searched = [piece.metrics for piece in evidence if piece.name == "neighbour_agreement"]
    return {"neighbours": searched[0]} if searched else {}


def _people_tables(votes: "Votes", raters: RaterWeights | None) -> dict[str, pl.DataFrame]:
    from ktodata.labels.people.raters import CONTESTED_SCHEMA, RATERS_SCHEMA

    if raters is None:
        confusions, contested = pl.DataFrame(schema=RATERS_SCHEMA), pl.DataFrame(schema=CONTESTED_SCHEMA)
    else:
        confusions, contested = raters.aggregated.raters, raters.verdicts.filter(verdict="contested")
    return {"raters": votes.raters, "confusions": confusions, "contested": contested}


def _evidence_tables(table: pl.DataFrame, evidence: "list[Evidence]") -> dict[str, pl.DataFrame]:
    """Each piece's quality for each row; how far each two agree; how each did on reviewed rows."""
    from ktodata.labels.agreement import agreement, evidence_on_reviewed, evidence_table

    labels, trained, reviewed, wrong = (table[name].to_numpy() for name in ("label", "trained", "reviewed", "wrong"))
    return {
        "evidence": evidence_table(table["row_id"], evidence),
        "agreement": agreement(evidence, labels, trained),
        "evidence_on_reviewed": evidence_on_reviewed(evidence, labels, reviewed, wrong),
    }


def _drift_tables(drift: "Drift | None") -> dict[str, pl.DataFrame]:
    from ktodata.labels.people.drift import EXAMPLES_SCHEMA, SCHEMA

    if drift is None:
        return {"drift": pl.DataFrame(schema=SCHEMA), "drift_examples": pl.DataFrame(schema=EXAMPLES_SCHEMA)}
    return {"drift": drift.table, "drift_examples": drift.examples}
