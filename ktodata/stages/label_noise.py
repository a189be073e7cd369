"""Which labels are likely wrong, how well that can be known on this data, and what to ask for where it cannot."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ktodata.embeddings.vectors import of_unit_length
from ktodata.errors import OneClassError, SettingError
from ktodata.feedback import check_columns
from ktodata.labels.actions import DROP_FROM, LIKELIER_FROM, RELABEL_FROM
from ktodata.labels.label_findings import label_findings
from ktodata.stage import Action, StageResult, decide, no_decisions

if TYPE_CHECKING:
    from ktodata.labels.classifier.feature_sets import RowFeatures
    from ktodata.labels.classifier.features import Components
    from ktodata.labels.people.drift import Likeness
    from ktodata.labels.people.reviewed_model import Reviewed

Floats = NDArray[np.float64]

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
ADDS = ("p_desirable", "label_quality", "is_label_issue", "flagged", "soft_label", "doubts")

DRIFTS_BY = ("source", "rater", "model", "script")
MIN_ROWS = 10  # of each label; a model of fewer is noise
NEIGHBOURS_UP_TO = 20_000  # rows
# what a row can be doubted for, strongest evidence first
DOUBTS = ("trusted_disagrees", "contradicted", "outvoted", "near_contradiction", "doubtful_label")
EVIDENCE = (
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


def label_noise(
    feedback: pl.DataFrame,
    *,
    min_precision: Annotated[
        float, Field(ge=0, le=1, description="flag rows only as far down as this share of them is expected to be wrong")
    ] = 0.8,
    plant: Annotated[
        float,
        Field(ge=0, le=0.4, description="share of each label flipped on purpose to measure the detector; 0 measures nothing"),
    ] = 0.05,
    folds: Annotated[int, Field(ge=3, le=20, description="parts of the data; each is predicted by models of the others")] = 5,
    repeats: Annotated[int, Field(ge=1, le=20, description="fold assignments averaged, and plantings; more is steadier")] = 3,
    action: Annotated[
        Literal["review", "drop", "soft", "relabel", "repair", "none"],
        Field(
            description="what becomes of flagged rows: review, drop, or nothing (none). soft: nothing more, soft_label says how "
            "far each label is believed (train with soft_labels). relabel: rows whose measured P(wrong) is over 1/2 take the "
            "other label, none is dropped. repair: those over 1/4 are dropped and those over 3/4 relabelled. Only these last "
            "three and use_trusted ever turn a label"
        ),
    ] = "review",
    use_trusted: Annotated[
        Literal["relabel", "measure"],
        Field(
            description="a trusted label that differs stands in the place of the label (relabel), or only measures, and the row "
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
        int, Field(ge=0, description="near rows that vote in the signal of that name, up to 20,000 rows; 0 leaves it out")
    ] = 10,
    seed: int = 0,
) -> StageResult:
    """Say how far each label can be trusted; flag rows only where flags were measured to be right on this data."""
    check_columns(feedback, NEEDS, who="label_noise")
    if not 0 <= plant <= 0.4 or folds < 3 or repeats < 1:
        raise SettingError(
            f"label_noise: plant is a share in [0, 0.4], folds >= 3, repeats >= 1; got {plant}, {folds}, {repeats}."
        )
    table = _with_defaults(feedback)
    facts: dict[str, Any] = {}
    table = _mark_reviewed(table, seed)
    table, curve, views = _add_model(
        table, facts, min_precision=min_precision, plant=plant, folds=folds, repeats=repeats, seed=seed
    )
    table, raters = _add_votes(table, facts)
    table, confusions, contested = _weigh_raters(table, facts, seed)
    drift, drift_examples = _look_for_drift(table, facts, seed)
    table = _add_contradictions(table, facts, contradiction_similarity)
    table, rates = _check_trusted(table, facts, min_precision)
    ask = _rows_to_ask(table, facts, review_rows, seed)
    table = _soften(table, facts)
    signals = _compare_signals(table, facts, views, neighbours)
    table = table.with_columns(doubts=_doubts())
    facts["doubts"] = {doubt: int(table["doubts"].list.contains(doubt).sum()) for doubt in DOUBTS}
    facts["label_quality"] = (
        "1 sound .. 0 doubtful: the calibrated out-of-fold probability of the given label; CROWDLAB's where several raters "
        "judged a training row"
    )
    facts["findings"] = [finding.as_dict() for finding in label_findings(facts)]
    return StageResult(
        columns=table.select("row_id", *ADDS),
        decisions=no_decisions() if action == "none" else _decisions(table, action, use_trusted),
        metrics=facts,
        tables={
            "raters": raters,
            "confusions": confusions,
            "contested": contested,
            **signals,
            "drift": drift,
            "drift_examples": drift_examples,
            "trust_curve": curve,
            "trusted_rates": rates,
            "ask_for_review": ask,
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


def _mark_reviewed(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Add, of training rows: reviewed, wrong (by their review), and drawn (they were reviewed because a random draw said so)."""
    from ktodata.labels.people.trusted import random_sample

    reviewed = pl.col("trusted_label").is_not_null() & pl.col("trained")
    table = table.with_columns(reviewed=reviewed, wrong=reviewed & (pl.col("trusted_label") != pl.col("label")).fill_null(False))
    # the draw was made among these rows; held ones and held-out ones would count as drawn and not reviewed
    trained = table.filter("trained").select("row_id", "label", "reviewed")
    found = random_sample(trained["row_id"], trained["label"].to_numpy(), trained["reviewed"].to_numpy(), seed)
    drawn = trained.select("row_id", drawn=pl.Series(found))
    return table.join(drawn, on="row_id", how="left", maintain_order="left").with_columns(pl.col("drawn").fill_null(False))


def _add_model(
    table: pl.DataFrame, facts: dict[str, Any], *, min_precision: float, plant: float, folds: int, repeats: int, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Floats]]:
    """Add p_desirable, label_quality, is_label_issue and flagged; null and false where there is too little to learn from.

    Also the trust curve, and p_desirable by each view alone.
    """
    from ktodata.labels.classifier.detection import NAMES, detect
    from ktodata.labels.classifier.training_dynamics import as_opinion
    from ktodata.labels.people.reviewed_model import learn_from_reviews
    from ktodata.labels.people.weak_sources import find_weak_sources, pool

    labels, train = table["label"].to_numpy(), table["trained"].to_numpy()
    counts = {"desirable": int((labels & train).sum()), "undesirable": int((~labels & train).sum())}
    facts["rows"] = {"seen": table.height, "learnt_from": int(train.sum())} | counts
    nothing = {"p_desirable": pl.lit(None, pl.Float64), "is_label_issue": pl.lit(None, pl.Boolean), "flagged": pl.lit(False)}
    if min(counts.values()) < MIN_ROWS:
        facts["not_learnt"] = (
            f"{counts['desirable']:,} desirable and {counts['undesirable']:,} undesirable training rows: at least "
            f"{MIN_ROWS} of each are needed to learn what sets them apart."
        )
        return table.with_columns(label_quality=pl.lit(None, pl.Float64), **nothing), _no_curve(), {}
    texts = _texts(table, train)
    systems = find_weak_sources(table.select("label", "trained", votes="pooled_votes"))
    groups = table["prompt_group"].rank("dense").to_numpy()
    reviewed, wrong, drawn = (table[name].to_numpy() for name in ("reviewed", "wrong", "drawn"))
    dynamics = table["training_dynamics"].cast(pl.Float64)
    opinions = as_opinion(dynamics.to_numpy(), labels)[:, None] if dynamics.count() else None

    def refine(p_desirable: Floats, of_systems: Floats) -> Floats:
        if systems is not None:
            p_desirable = pool(systems, of_systems, train)
        learnt = learn_from_reviews(texts, p_desirable, labels, reviewed, labels ^ wrong, opinions=opinions)
        facts["reviews"] = {NAMES[given]: {"gp_scale": scale} for given, scale in learnt.scale.items()}
        if opinions is not None:
            facts["training_dynamics"] = _weight_of_dynamics(learnt, dynamics, labels, reviewed)
        return learnt.p_desirable

    facts["systems"] = [] if systems is None else systems.names
    try:
        found = detect(
            _views(table, texts, train),
            labels,
            groups,
            train,
            (drawn, drawn & wrong),
            systems=None if systems is None else systems.labels,
            refine=refine,
            min_precision=min_precision,
            plant=plant,
            folds=folds,
            repeats=repeats,
            seed=seed,
        )
    except OneClassError as error:
        facts["not_learnt"] = str(error)
        return table.with_columns(label_quality=pl.lit(None, pl.Float64), **nothing), _no_curve(), {}
    facts |= found.facts
    facts["is_label_issue"] = int(found.is_label_issue.sum())
    table = table.with_columns(
        p_desirable=pl.Series(found.p_desirable),
        from_text=pl.Series(found.from_text),
        label_quality=pl.Series(np.where(labels, found.p_desirable, 1 - found.p_desirable)),
        is_label_issue=pl.when("trained").then(pl.Series(found.is_label_issue)),
        flagged=pl.Series(found.flagged),
    )
    return table, found.curve, found.views


def _weight_of_dynamics(
    learnt: "Reviewed", dynamics: pl.Series, labels: NDArray[np.bool_], reviewed: NDArray[np.bool_]
) -> dict[str, Any]:
    """What the reviewed rows of each given class say that training dynamics are worth; a class without an answer is left out."""
    from ktodata.labels.classifier.detection import NAMES
    from ktodata.labels.classifier.training_dynamics import dynamics_in_words

    looked_at = dynamics.is_not_null().to_numpy()
    weights = {
        NAMES[given]: {"weight": one.value, "low": one.low, "high": one.high}
        for given, of_class in learnt.weights.items()
        for one in of_class
    }
    return {
        "rows_with_a_look": int(looked_at.sum()),
        "reviewed_with_a_look": {name: int((looked_at & reviewed & (labels == given)).sum()) for given, name in NAMES.items()},
        "weights": weights,
        "text": dynamics_in_words(weights),
    }


def _texts(table: pl.DataFrame, train: NDArray[np.bool_]) -> "RowFeatures":
    from ktodata.labels.classifier.feature_sets import row_features

    return row_features(*_vectors(table), table["completion"], fit_rows=train, hidden_states=_hidden_states(table))


def _views(table: pl.DataFrame, texts: "RowFeatures", train: NDArray[np.bool_]) -> "dict[str, Callable[[], Components]]":
    """What makes each view's components, in the order in which they are made."""
    from ktodata.labels.classifier.feature_sets import form_components, kernel_components, pair_components
    from ktodata.labels.classifier.features import form_features

    form = form_features(table)
    reading = {} if texts.reading is None else {"reading": lambda: kernel_components(texts, "reading", fit_rows=train)}
    return reading | {
        "text": lambda: kernel_components(texts, "text", fit_rows=train),
        "answer": lambda: kernel_components(texts, "answer", fit_rows=train),
        "pair": lambda: pair_components(*_vectors(table), form, fit_rows=train),
        "form": lambda: form_components(form, fit_rows=train),
        "prompt": lambda: kernel_components(texts, "prompt", fit_rows=train),
    }


def _no_curve() -> pl.DataFrame:
    from ktodata.labels.classifier.noise_injection import trust_curve

    return trust_curve(np.empty(0), rows=0, error_rates=(0.0, 0.0), given=True, basis="planted flips").clear()


def _vectors(table: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    prompts, completions = (
        table[f"{side}_embedding"].to_numpy().astype(np.float32, copy=False) for side in ("prompt", "completion")
    )
    return prompts, completions


def _hidden_states(table: pl.DataFrame) -> NDArray[np.float32] | None:
    if "hidden_state" not in table.columns:
        return None
    return np.asarray(table["hidden_state"].to_numpy(), dtype=np.float32)


def _add_votes(table: pl.DataFrame, facts: dict[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add votes_up, votes_down, outvoted, and CROWDLAB's quality to label_quality where several raters judged a training row."""
    from ktodata.labels.people.votes import aggregate_votes

    # columns first: a filtered table is a copy, vectors included
    columns = table.select("row_id", "label", "pooled_votes", "trained", *(["p_desirable"] if "not_learnt" not in facts else []))
    trained = columns.filter("trained")
    told = aggregate_votes(
        trained.select("row_id", "label", votes="pooled_votes"),
        trained["p_desirable"].to_numpy() if "p_desirable" in trained.columns else None,
        judged=_judged(table).select("row_id", votes="vote"),
    )
    facts["votes"] = told.facts | {"quality_from_votes": told.quality.height}
    table = table.join(told.rows, on="row_id", how="left", maintain_order="left")
    table = table.join(told.quality, on="row_id", how="left", maintain_order="left")
    return table.with_columns(label_quality=pl.coalesce("vote_quality", "label_quality")), told.raters


def _judged(table: pl.DataFrame) -> pl.DataFrame:
    """What raters are judged by, each text once: row_id, prompt, completion, label, part, state, vote.

    Rows that wait because their own votes differ are among them: without those all raters would seem to agree.
    """
    asked = table.select("row_id", "prompt", "completion", "label", "part", "state", vote="pooled_votes")
    here = (pl.col("part") == "train") & (pl.col("state") != "drop")
    return asked.filter(here).unique(["prompt", "completion"], keep="first", maintain_order=True)


def _weigh_raters(table: pl.DataFrame, facts: dict[str, Any], seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Add p_by_raters, by Dawid and Skene; and what each rater says of either class, and which rows are wrong or contested.

    Null and empty unless raters share rows.
    """
    from ktodata.labels.people.raters import CONTESTED_SCHEMA, RATERS_SCHEMA, dawid_skene, wrong_or_contested
    from ktodata.labels.people.votes import MIN_SHARED

    if facts["votes"]["rows_with_several_raters"] < MIN_SHARED:
        nothing = table.with_columns(p_by_raters=pl.lit(None, pl.Float64))
        return nothing, pl.DataFrame(schema=RATERS_SCHEMA), pl.DataFrame(schema=CONTESTED_SCHEMA)
    judged = _judged(table)
    cast = judged.select("row_id", "vote").explode("vote")
    votes = cast.select(
        "row_id", rater=pl.col("vote").struct.field("rater"), verdict=pl.col("vote").struct.field("label")
    ).drop_nulls("verdict")
    told = dawid_skene(votes, seed=seed)
    facts["agreement"] = dict(told.facts)
    apart = wrong_or_contested(told, judged)
    facts["agreement"]["verdicts"] = dict(apart["verdict"].value_counts(sort=True).iter_rows())
    shared = told.rows.filter(pl.col("contested").is_not_null()).select("row_id", p_by_raters="p_desirable")
    return table.join(shared, on="row_id", how="left", maintain_order="left"), told.raters, apart.filter(verdict="contested")


def _look_for_drift(table: pl.DataFrame, facts: dict[str, Any], seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Groups and dates at which the label given the content changes; empty where there is no model of the content."""
    from ktodata.labels.people.drift import EXAMPLES_SCHEMA, SCHEMA, criteria_drift
    from ktodata.text.scripts import main_script

    if "not_learnt" in facts:
        return pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=EXAMPLES_SCHEMA)
    asked = table.select("row_id", "label", "trained", "prompt", "prompt_group", "from_text", "created_at", *DRIFTS_BY[:3])
    rows = asked.filter("trained").select(
        "row_id",
        "label",
        *DRIFTS_BY[:3],
        main_script("prompt").alias("script"),
        "created_at",
        p_desirable="from_text",
        prompt_group=pl.col("prompt_group").rank("dense").cast(pl.Int64),
    )
    found = criteria_drift(rows, DRIFTS_BY, seed=seed, likeness=_likeness(table))
    facts["drift"] = dict(found.facts)
    named = found.table.filter("significant").select("column", "value", "kind", "since", "effect_points")
    facts["drift"]["found"] = named.with_columns(pl.col("since").dt.to_string("%Y-%m-%d %H:%M")).to_dicts()
    return found.table, found.examples


def _likeness(table: pl.DataFrame) -> "Likeness":
    """How alike two trained rows are, by their places among those: the cosine of their prompts and of their answers, averaged."""
    trained, sides = np.flatnonzero(table["trained"].to_numpy()), _vectors(table)

    def alike(row: int, others: NDArray[np.int64]) -> Floats:
        prompts, answers = (of_unit_length(side[trained[others]]) @ of_unit_length(side[trained[[row]]])[0] for side in sides)
        return np.asarray((prompts + answers) / 2, float)

    return alike


def _add_contradictions(table: pl.DataFrame, facts: dict[str, Any], similarity: float) -> pl.DataFrame:
    """Add near_twin and near_similarity for training rows with a near-equal completion of the other label."""
    from ktodata.text.contradictions import near_contradictions

    trained = table.filter(pl.col("trained") & ~pl.col("contradicted"))
    twins = near_contradictions(trained, *_vectors(trained), similarity=similarity)
    facts["near_contradictions"] = {"rows": twins.height, "similarity": similarity}
    return table.join(twins, on="row_id", how="left", maintain_order="left")


def _check_trusted(table: pl.DataFrame, facts: dict[str, Any], min_precision: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Measure the labels on trusted rows drawn at random, and the flags on all of them; take flags back that those refute."""
    from ktodata.labels.classifier.detection import NAMES
    from ktodata.labels.people.trusted import check_flags, flip_rates, trusted_rates

    trusted = table.filter((pl.col("part") == "train") & (pl.col("state") != "drop") & pl.col("trusted_label").is_not_null())
    sample = trusted.filter("drawn")
    rates = trusted_rates(sample, ("source", "rater"))
    facts["trusted"] = {
        "rows": trusted.height,
        "wrong": int((trusted["label"] != trusted["trusted_label"]).sum()),
        "rates_from": "the rows drawn at random" if sample.height < trusted.height else "all of them, taken for a random draw",
        "drawn_at_random": sample.height,
    }
    refuted = []
    for given, name in NAMES.items():
        checked = check_flags(trusted, sample, given=given)
        facts["trusted"][name] = checked
        if checked["flag_precision"]["high"] is not None and checked["flag_precision"]["high"] < min_precision:
            refuted.append(given)
    errors = {given: facts["trusted"][name]["error_rate"]["value"] for given, name in NAMES.items()}
    facts["trusted"]["flip_rates"] = flip_rates({given: facts["rows"][name] for given, name in NAMES.items()}, errors)
    facts["trusted"]["flags_refuted"] = [NAMES[given] for given in refuted]
    vouched = (pl.col("trusted_label") == pl.col("label")).fill_null(False)
    table = table.with_columns(flagged=pl.col("flagged") & ~pl.col("label").is_in(refuted) & ~vouched)
    facts["flagged"] = int(table["flagged"].sum())
    return table, rates


def _rows_to_ask(table: pl.DataFrame, facts: dict[str, Any], total: int, seed: int) -> pl.DataFrame:
    from ktodata.labels.people.trusted import rows_to_review
    from ktodata.stats import share

    open_rows = table.filter(pl.col("trained") & pl.col("trusted_label").is_null())
    sample = rows_to_review(open_rows, total=total if not facts["trusted"]["rows"] else 0, seed=seed)
    half = max(total // 2, 1)
    low, high = (f"{end or 0:.0%}" for end in share(round(half / 10), half)[1:])
    facts["ask_for_review"] = {
        "rows": sample.height,
        "why": f"A person's verdict on these {sample.height} rows, drawn at random within each given label, would give the true "
        f"error rate of each label with an exact interval (one wrong in ten of {half} would mean {low} to {high}), show "
        "systematic noise, and measure the flags themselves. Give them back as a file of reviews, or in column trusted_label.",
    }
    return sample


def _soften(table: pl.DataFrame, facts: dict[str, Any]) -> pl.DataFrame:
    """Add soft_label, and p_wrong where that is a probability: by reviews, second votes, raters, or random flips that show."""
    from ktodata.labels.actions import costs, soft_labels, wrong_by_random_flips
    from ktodata.labels.classifier.detection import NAMES

    labels = table["label"].to_numpy()
    p_wrong, known, basis = np.zeros(len(labels)), np.zeros(len(labels), bool), {}
    if "not_learnt" not in facts:
        refined, text = table["p_desirable"].to_numpy(), table["from_text"].to_numpy()
        joint = np.asarray(facts["label_noise_estimate"]["confident_joint"])
        for given, name in NAMES.items():
            here, told = labels == given, facts["planted"]["per_given_class"][name]
            reviewed = facts["reviews"][name]["gp_scale"] is not None
            basis[name] = "reviews" if reviewed else "votes of several systems" if facts["systems"] else None
            p = np.where(labels, 1 - refined, refined)
            if basis[name] is None and told["verdict"] == "identifiable":
                basis[name], p = "random flips, as identified", wrong_by_random_flips(text, labels, joint)
            if basis[name] is not None:
                p_wrong[here], known[here] = p[here], True
    voted = table["p_by_raters"].is_not_null().to_numpy()
    if not facts.get("systems") and voted.any():
        by_raters = table["p_by_raters"].fill_null(0.5).to_numpy()
        p_wrong, known = np.where(voted, np.where(labels, 1 - by_raters, by_raters), p_wrong), known | voted
    trusted = table["trusted_label"].is_not_null().to_numpy()
    truth = table["trusted_label"].fill_null(False).to_numpy()
    known &= table["trained"].to_numpy() & ~trusted
    facts["policy"] = {"p_wrong_measured_by": basis, "rows_by_raters": int((voted & known).sum())} | costs(
        p_wrong, known
    ).as_dict()
    return table.with_columns(
        soft_label=pl.Series(soft_labels(labels, p_wrong, known, trusted, truth)),
        p_wrong=pl.when(pl.Series(known)).then(pl.Series(p_wrong)),
    )


def _compare_signals(
    table: pl.DataFrame, facts: dict[str, Any], views: dict[str, Floats], neighbours: int
) -> dict[str, pl.DataFrame]:
    """Each signal's quality for each row; how far each two agree; how each did on reviewed rows."""
    from ktodata.labels.agreement import agreement, measured, signal_table
    from ktodata.labels.classifier.neighbours import neighbour_agreement
    from ktodata.labels.evidence import Evidence

    labels, trained = table["label"].to_numpy(), table["trained"].to_numpy()
    further = {"votes": "vote_quality", "training_dynamics": "training_dynamics"}
    found = [Evidence(name, np.where(labels, p, 1 - p), ("text", "label"), "a linear model") for name, p in views.items()]
    if views and neighbours and table.height > NEIGHBOURS_UP_TO:
        facts["neighbours"] = {"left_out": f"more than {NEIGHBOURS_UP_TO:,} rows: the search would take longer than all the rest"}
    elif views and neighbours:
        groups = table["prompt_group"].rank("dense").to_numpy()
        found.append(neighbour_agreement(np.hstack(_vectors(table)), labels, groups, trained, neighbours=neighbours))
        facts["neighbours"] = found[-1].facts
    judged = table["judge_p_desirable"].cast(pl.Float64)
    if judged.null_count() < len(judged):
        quality = np.where(labels, judged.to_numpy(), 1 - judged.to_numpy())
        found.append(Evidence("judge", quality, ("judge_p_desirable", "label"), "questions to a language model"))
    for name, column in further.items():
        if table[column].null_count() < table.height:
            found.append(Evidence(name, table[column].cast(pl.Float64).to_numpy(), (column,), "none"))
    if views:
        found.append(Evidence("together", table["label_quality"].to_numpy(), ("all",), "none"))
    return {
        "signals": signal_table(table["row_id"], found),
        "agreement": agreement(found, labels, trained),
        "signals_on_reviewed": measured(found, labels, table["reviewed"].to_numpy(), table["wrong"].to_numpy()),
    }


def _doubts() -> pl.Expr:
    """The names of DOUBTS that hold for a training row, strongest first; null when there is none."""
    holds = {
        "trusted_disagrees": pl.col("trusted_label") != pl.col("label"),
        "contradicted": pl.col("contradicted"),
        "outvoted": pl.col("outvoted"),
        "near_contradiction": pl.col("near_twin").is_not_null(),
        "doubtful_label": pl.col("flagged"),
    }
    named = [pl.when(pl.col("trained") & holds[doubt].fill_null(False)).then(pl.lit(doubt)) for doubt in DOUBTS]
    every = pl.concat_list(named).list.drop_nulls()
    return pl.when(every.list.len() > 0).then(every)


def _decisions(table: pl.DataFrame, action: str, use_trusted: str) -> pl.DataFrame:
    """`review` for every doubt, but for what `action` and `use_trusted` say otherwise."""
    by_policy = action in ("soft", "relabel", "repair")
    measured = pl.col("p_wrong").is_not_null() | pl.col("trusted_label").is_not_null()
    # what a person has judged need not wait for one, unless verdicts are to do nothing but measure
    asked = pl.col("trusted_label").is_null() if by_policy or use_trusted == "relabel" else pl.lit(value=True)
    # nor need what soft labels, relabel or repair see to
    open_doubt = asked & ~measured if by_policy else asked
    rules: list[tuple[pl.Expr, Action, str]] = [
        (_doubted("trusted_disagrees"), "relabel" if by_policy or use_trusted == "relabel" else "review", "trusted_disagrees"),
        (_doubted("contradicted") & asked, "review", "contradicted"),
        (_doubted("outvoted") & open_doubt, "review", "outvoted"),
        (_doubted("near_contradiction") & open_doubt, "review", "near_contradiction"),
    ]
    if action in ("review", "drop"):
        rules.append((_doubted("doubtful_label") & asked, "drop" if action == "drop" else "review", "doubtful_label"))
    if action == "relabel":
        rules.append((pl.col("p_wrong") > LIKELIER_FROM, "relabel", "likelier_label"))
    if action == "repair":
        rules.append((pl.col("p_wrong").is_between(DROP_FROM, RELABEL_FROM, closed="right"), "drop", "likely_wrong"))
        rules.append((pl.col("p_wrong") > RELABEL_FROM, "relabel", "surely_wrong"))
    each = [
        decide(
            table,
            where.fill_null(False),
            action=what,
            reason=reason,
            evidence=EVIDENCE,
            caused_by="near_twin" if reason == "near_contradiction" else None,
        )
        for where, what, reason in rules
    ]
    return pl.concat([no_decisions(), *each])


def _doubted(doubt: str) -> pl.Expr:
    return pl.col("doubts").list.contains(doubt)
