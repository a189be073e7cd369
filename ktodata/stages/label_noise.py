"""Which labels are likely wrong, how well that can be known on this data, and what to ask for where it cannot."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ktodata.errors import OneClassError, SettingError
from ktodata.feedback import check_columns
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stage import StageResult, decide, no_decisions

if TYPE_CHECKING:
    from ktodata.signals.features import Components
    from ktodata.signals.views import Rows

Floats = NDArray[np.float64]

NEEDS = ("prompt", "completion", "label", "votes", "prompt_group", "prompt_embedding", "completion_embedding")
USES = ("part", "pooled_votes", "trusted_label", "rater", "source", "model", "created_at", "contradicted", "state")
ADDS = ("p_desirable", "label_quality", "is_label_issue", "flagged", "doubts")

DRIFTS_BY = ("source", "rater", "model")
FEWEST_ROWS = 10  # of each label; a model of fewer is noise
# what a row can be doubted for, strongest evidence first
DOUBTS = ("trusted_disagrees", "contradicted", "outvoted", "near_contradiction", "doubtful_label")
EVIDENCE = ("label", "p_desirable", "label_quality", "trusted_label", "votes_up", "votes_down", "near_twin", "near_similarity")


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
        Literal["review", "drop", "none"], Field(description="what becomes of flagged rows; labels are never flipped")
    ] = "review",
    use_trusted: Annotated[
        Literal["measure", "relabel"],
        Field(
            description="a trusted label that differs: send the row to review (measure), or put the trusted label in its place"
        ),
    ] = "measure",
    contradiction_similarity: Annotated[
        float, Field(gt=0, le=1, description="cosine from which completions to one prompt are nearly the same; 1 is equal")
    ] = 0.98,
    review_rows: Annotated[int, Field(ge=0, description="rows to ask a person about, half of each given label")] = 60,
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
    table, curve = _add_model(table, facts, min_precision=min_precision, plant=plant, folds=folds, repeats=repeats, seed=seed)
    table, raters = _add_votes(table, facts)
    confusions = _weigh_raters(table, facts, seed)
    drift, drift_examples = _look_for_drift(table, facts, seed)
    table = _add_contradictions(table, facts, contradiction_similarity)
    table, rates = _check_trusted(table, facts, min_precision)
    ask = _rows_to_ask(table, facts, review_rows, seed)
    table = table.with_columns(doubts=_doubts())
    facts["doubts"] = {doubt: int(table["doubts"].list.contains(doubt).sum()) for doubt in DOUBTS}
    facts["label_quality"] = (
        "1 sound .. 0 doubtful: the calibrated out-of-fold probability of the given label; CROWDLAB's where several raters "
        "judged a training row"
    )
    facts["findings"] = [finding.as_dict() for finding in _findings(facts)]
    return StageResult(
        columns=table.select("row_id", *ADDS),
        decisions=no_decisions() if action == "none" else _decisions(table, action, use_trusted),
        facts=facts,
        tables={
            "raters": raters,
            "confusions": confusions,
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
    }
    table = feedback.with_columns(**{name: value for name, value in absent.items() if name not in feedback.columns})
    return table.with_columns(trained=(pl.col("part") == "train") & pl.col("state").is_in(["keep", "relabel"]))


def _add_model(
    table: pl.DataFrame, facts: dict[str, Any], *, min_precision: float, plant: float, folds: int, repeats: int, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add p_desirable, label_quality, is_label_issue and flagged; null and false where there is too little to learn from."""
    from ktodata.signals.detection import NAMES, detect
    from ktodata.signals.reviewed_model import learn_from_reviews
    from ktodata.signals.second_votes import find_systems, pool

    labels, train = table["label"].to_numpy(), table["trained"].to_numpy()
    counts = {"desirable": int((labels & train).sum()), "undesirable": int((~labels & train).sum())}
    facts["rows"] = {"seen": table.height, "learnt_from": int(train.sum())} | counts
    nothing = {"p_desirable": pl.lit(None, pl.Float64), "is_label_issue": pl.lit(None, pl.Boolean), "flagged": pl.lit(False)}
    if min(counts.values()) < FEWEST_ROWS:
        facts["not_learnt"] = (
            f"{counts['desirable']:,} desirable and {counts['undesirable']:,} undesirable training rows: at least "
            f"{FEWEST_ROWS} of each are needed to learn what sets them apart."
        )
        return table.with_columns(label_quality=pl.lit(None, pl.Float64), **nothing), _no_curve()
    texts = _texts(table, train)
    systems = find_systems(table.select("label", "trained", votes="pooled_votes"))
    groups = table["prompt_group"].rank("dense").to_numpy()
    wrong = (table["trusted_label"] != table["label"]).fill_null(False).to_numpy()
    trusted = (table["trusted_label"].is_not_null().to_numpy() & train, wrong & train)

    def refine(p_desirable: Floats, of_systems: Floats) -> Floats:
        if systems is not None:
            p_desirable = pool(systems, of_systems, train)
        learnt = learn_from_reviews(texts, p_desirable, labels, trusted[0], labels ^ wrong)
        facts["reviews"] = {NAMES[given]: {"scale_of_what_they_taught": scale} for given, scale in learnt.scale.items()}
        return learnt.p_desirable

    facts["systems"] = [] if systems is None else systems.names
    try:
        found = detect(
            _views(table, texts, train),
            labels,
            groups,
            train,
            trusted,
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
        return table.with_columns(label_quality=pl.lit(None, pl.Float64), **nothing), _no_curve()
    facts |= found.facts
    facts["is_label_issue"] = int(found.is_label_issue.sum())
    table = table.with_columns(
        p_desirable=pl.Series(found.p_desirable),
        from_text=pl.Series(found.from_text),
        label_quality=pl.Series(np.where(labels, found.p_desirable, 1 - found.p_desirable)),
        is_label_issue=pl.when("trained").then(pl.Series(found.is_label_issue)),
        flagged=pl.Series(found.flagged),
    )
    return table, found.curve


def _texts(table: pl.DataFrame, train: NDArray[np.bool_]) -> "Rows":
    from ktodata.signals.views import as_rows

    return as_rows(*_vectors(table), table["completion"], fit_rows=train)


def _views(table: pl.DataFrame, texts: "Rows", train: NDArray[np.bool_]) -> "dict[str, Callable[[], Components]]":
    """What makes each view's components, in the order in which they are made."""
    from ktodata.signals.features import form_features
    from ktodata.signals.views import form_components, kernel_components, pair_components

    form = form_features(table)
    return {
        "text": lambda: kernel_components(texts, "text", fit_rows=train),
        "answer": lambda: kernel_components(texts, "answer", fit_rows=train),
        "pair": lambda: pair_components(*_vectors(table), form, fit_rows=train),
        "form": lambda: form_components(form, fit_rows=train),
        "prompt": lambda: kernel_components(texts, "prompt", fit_rows=train),
    }


def _no_curve() -> pl.DataFrame:
    from ktodata.signals.planted import trust_curve

    return trust_curve(np.empty(0), rows=0, error_rates=(0.0, 0.0), given=True, basis="planted flips").clear()


def _vectors(table: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    prompts, completions = (table[f"{side}_embedding"].to_numpy().astype(np.float32) for side in ("prompt", "completion"))
    return prompts, completions


def _add_votes(table: pl.DataFrame, facts: dict[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add votes_up, votes_down, outvoted, and CROWDLAB's quality to label_quality where several raters judged a training row."""
    from ktodata.signals.votes import aggregate_votes

    trained = table.filter("trained")
    told = aggregate_votes(
        trained.select("row_id", "label", votes="pooled_votes"),
        trained["p_desirable"].to_numpy() if "not_learnt" not in facts else None,
    )
    facts["votes"] = told.facts | {"quality_from_votes": told.quality.height}
    table = table.join(told.rows, on="row_id", how="left", maintain_order="left")
    table = table.join(told.quality, on="row_id", how="left", maintain_order="left")
    return table.with_columns(label_quality=pl.coalesce("vote_quality", "label_quality")), told.raters


def _weigh_raters(table: pl.DataFrame, facts: dict[str, Any], seed: int) -> pl.DataFrame:
    """What each rater says of desirable and of undesirable rows, by Dawid and Skene; empty unless raters share rows."""
    from ktodata.signals.raters import RATERS_SCHEMA, dawid_skene
    from ktodata.signals.votes import FEWEST_SHARED

    if facts["votes"]["rows_with_several_raters"] < FEWEST_SHARED:
        return pl.DataFrame(schema=RATERS_SCHEMA)
    cast = table.filter("trained").select("row_id", vote="pooled_votes").explode("vote")
    votes = cast.select(
        "row_id", rater=pl.col("vote").struct.field("rater"), verdict=pl.col("vote").struct.field("label")
    ).drop_nulls("verdict")
    told = dawid_skene(votes, seed=seed)
    facts["agreement"] = dict(told.facts)
    return told.raters


def _look_for_drift(table: pl.DataFrame, facts: dict[str, Any], seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Groups and dates at which the label given the content changes; empty where there is no model of the content."""
    from ktodata.signals.drift import EXAMPLES_SCHEMA, SCHEMA, criteria_drift

    if "not_learnt" in facts:
        return pl.DataFrame(schema=SCHEMA), pl.DataFrame(schema=EXAMPLES_SCHEMA)
    rows = table.filter("trained").select(
        "row_id",
        "label",
        *DRIFTS_BY,
        "created_at",
        p_desirable="from_text",
        prompt_group=pl.col("prompt_group").rank("dense").cast(pl.Int64),
    )
    found = criteria_drift(rows, DRIFTS_BY, seed=seed)
    facts["drift"] = dict(found.facts)
    named = found.table.filter("significant").select("column", "value", "kind", "since", "effect_points")
    facts["drift"]["found"] = named.with_columns(pl.col("since").dt.to_string("%Y-%m-%d %H:%M")).to_dicts()
    return found.table, found.examples


def _add_contradictions(table: pl.DataFrame, facts: dict[str, Any], similarity: float) -> pl.DataFrame:
    """Add near_twin and near_similarity for training rows with a near-equal completion of the other label."""
    from ktodata.signals.contradictions import near_contradictions

    trained = table.filter(pl.col("trained") & ~pl.col("contradicted"))
    twins = near_contradictions(trained, *_vectors(trained), similarity=similarity)
    facts["near_contradictions"] = {"rows": twins.height, "similarity": similarity}
    return table.join(twins, on="row_id", how="left", maintain_order="left")


def _check_trusted(table: pl.DataFrame, facts: dict[str, Any], min_precision: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Measure the labels and the flags on trusted rows; take flags back that those rows refute."""
    from ktodata.signals.detection import NAMES
    from ktodata.signals.trusted import check_flags, trusted_rates

    trusted = table.filter((pl.col("part") == "train") & (pl.col("state") != "drop") & pl.col("trusted_label").is_not_null())
    rates = trusted_rates(trusted, ("source", "rater"))
    facts["trusted"] = {"rows": trusted.height, "wrong": int((trusted["label"] != trusted["trusted_label"]).sum())}
    refuted = []
    for given, name in NAMES.items():
        checked = check_flags(trusted, given=given)
        facts["trusted"][name] = checked
        if checked["flag_precision"]["high"] is not None and checked["flag_precision"]["high"] < min_precision:
            refuted.append(given)
    facts["trusted"]["flags_refuted"] = [NAMES[given] for given in refuted]
    vouched = (pl.col("trusted_label") == pl.col("label")).fill_null(False)
    table = table.with_columns(flagged=pl.col("flagged") & ~pl.col("label").is_in(refuted) & ~vouched)
    facts["flagged"] = int(table["flagged"].sum())
    return table, rates


def _rows_to_ask(table: pl.DataFrame, facts: dict[str, Any], total: int, seed: int) -> pl.DataFrame:
    from ktodata.signals.intervals import share
    from ktodata.signals.trusted import rows_to_review

    open_rows = table.filter(pl.col("trained") & pl.col("trusted_label").is_null())
    sample = rows_to_review(open_rows, total=total if not facts["trusted"]["rows"] else 0, seed=seed)
    half = max(total // 2, 1)
    low, high = (f"{end or 0:.0%}" for end in share(round(half / 10), half)[1:])
    facts["ask_for_review"] = {
        "rows": sample.height,
        "why": f"A person's verdict on these {sample.height} rows, drawn at random within each given label, would give the true "
        f"error rate of each label with an exact interval (one wrong in ten of {half} would mean {low} to {high}), show "
        "systematic noise, and measure the flags themselves. Put the verdicts into column trusted_label.",
    }
    return sample


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


def _decisions(
    table: pl.DataFrame, action: Literal["review", "drop"], use_trusted: Literal["measure", "relabel"]
) -> pl.DataFrame:
    doubted = table.filter(pl.col("doubts").is_not_null())
    actions: dict[str, Literal["review", "drop", "relabel"]] = dict.fromkeys(DOUBTS, "review")
    actions |= {"doubtful_label": action, "trusted_disagrees": "relabel" if use_trusted == "relabel" else "review"}
    each = [
        decide(
            doubted,
            pl.col("doubts").list.contains(doubt),
            action=actions[doubt],
            reason=doubt,
            evidence=EVIDENCE,
            caused_by="near_twin" if doubt == "near_contradiction" else None,
        )
        for doubt in DOUBTS
    ]
    return pl.concat([no_decisions(), *each])


def _findings(facts: dict[str, Any]) -> list[Finding]:
    return [
        _check_identifiable(facts),
        _check_trusted_rows(facts),
        _check_flags(facts),
        _check_noise(facts),
        _check_raters(facts),
        _check_near(facts),
        _check_outvoted(facts),
        _check_prompt(facts),
        _check_drift(facts),
    ]


def _check_identifiable(facts: dict[str, Any]) -> Finding:
    """KD040: random label errors cannot be told from sound rows here."""
    from ktodata.signals.planted import SYSTEMATIC

    if "not_learnt" in facts:
        return not_applicable("KD040", facts["not_learnt"])
    if not facts["planted"]["fraction"]:
        return not_applicable(
            "KD040", "No flips were planted (plant: 0), so the detector was not measured and nothing is flagged."
        )
    classes = facts["planted"]["per_given_class"]
    told = "; ".join(f"{name}: {_verdict_in_words(one)}" for name, one in classes.items())
    facts["identifiability"] = {"verdict": _worst(classes), "reason": told, "limits": SYSTEMATIC}
    text = f"{told}. {SYSTEMATIC}"
    return passed("KD040", text) if _worst(classes) == "identifiable" else issue("KD040", text)


def _worst(classes: dict[str, Any]) -> str:
    return max((str(one["verdict"]) for one in classes.values()), key=("identifiable", "weakly", "not").index)


def _verdict_in_words(one: dict[str, Any]) -> str:
    figure, flips = one["auroc_of_planted_flips"], one["planted_flips_at_this_depth"]["flips"]
    if figure["value"] is None or flips < 10:
        return f"not identifiable, because only {flips} flips could be planted among {one['rows']:,} rows; 10 are the least"
    seen = (
        f"planted flips look more doubtful than other rows {figure['value']:.0%} of the time ({figure['low']:.0%} to "
        f"{figure['high']:.0%}; 50% is chance)"
    )
    because = {
        "identifiable": "and the probabilities stand at two clear levels, so the noise can be told from the signal",
        "weakly": "which is enough to order a review by, not to act on unseen",
        "not": "so the text, as these vectors show it, says too little about the label",
    }
    word = {"identifiable": "identifiable", "weakly": "weakly identifiable", "not": "not identifiable"}[one["verdict"]]
    return f"{word}: {seen}, {because[one['verdict']]}"


def _check_trusted_rows(facts: dict[str, Any]) -> Finding:
    """KD041: trusted labels show errors in the given ones."""
    told = facts["trusted"]
    if not told["rows"]:
        return not_applicable("KD041", f"No row has a trusted_label. {facts['ask_for_review']['why']}")
    rates = "; ".join(
        f"{name}: {one['error_rate']['value']:.1%} of {one['rows']} wrong ({one['error_rate']['low']:.1%} to "
        f"{one['error_rate']['high']:.1%})"
        for name, one in told.items()
        if isinstance(one, dict) and one["rows"]
    )
    return issue("KD041", f"Against the trusted labels, {rates}.", told["wrong"]) if told["wrong"] else passed("KD041", rates)


def _check_flags(facts: dict[str, Any]) -> Finding:
    """KD042: rows flagged, and how many of them are expected to be wrong."""
    if "not_learnt" in facts:
        return not_applicable("KD042", facts["not_learnt"])
    if refuted := facts["trusted"]["flags_refuted"]:
        return issue("KD042", f"Trusted rows show the flags among {' and '.join(refuted)} rows to be mostly wrong: taken back.")
    if not facts["flagged"]:
        return passed("KD042", "Nothing is flagged: at no depth were flags measured to be as precise as min_precision asks.")
    told = "; ".join(
        f"{name}: {one['flagged']:,} rows, {one['expected_precision']['value']:.0%} expected wrong (at least "
        f"{one['expected_precision']['low']:.0%}, measured on {one['basis']})"
        for name, one in facts["planted"]["per_given_class"].items()
        if one["flagged"]
    )
    return issue("KD042", f"{facts['flagged']:,} rows are flagged. {told}.", facts["flagged"])


def _check_noise(facts: dict[str, Any]) -> Finding:
    """KD043: confident learning estimates one label in ten or more wrong."""
    if "not_learnt" in facts:
        return not_applicable("KD043", facts["not_learnt"])
    told = facts["label_noise_estimate"]
    if facts.get("identifiability", {}).get("verdict") != "identifiable":
        return not_applicable(
            "KD043",
            f"How many labels are wrong cannot be told from what is given (KD040). Confident learning would say "
            f"{told['wrong']:.0%}, which is right only where random errors can be identified; trusted rows would measure it.",
        )
    each = ", ".join(f"{share:.1%} of {name}" for name, share in told["wrong_among_given"].items())
    text = f"Estimated wrong: {told['wrong']:.1%} of labels ({each}); this is {told['is']}."
    return issue("KD043", text) if told["wrong"] >= 0.1 else passed("KD043", text)


def _check_raters(facts: dict[str, Any]) -> Finding:
    """KD044: several raters judged the same rows, so they can be compared."""
    told = facts["votes"]
    if not told["quality_from_votes"]:
        return not_applicable(
            "KD044",
            f"{told['raters']:,} raters share {told['rows_with_several_raters']:,} rows: at least 10 shared rows (and a model) "
            "are needed to compare raters. A second vote on some rows would show systematic noise.",
        )
    return passed("KD044", f"{told['raters']:,} raters share {told['rows_with_several_raters']:,} rows; see table raters.")


def _check_near(facts: dict[str, Any]) -> Finding:
    """KD045: nearly the same completion to one prompt, with opposite labels."""
    rows = facts["near_contradictions"]["rows"]
    if not rows:
        return passed("KD045")
    return issue(
        "KD045", f"{rows:,} rows have a near twin (same prompt, nearly the same completion) with the opposite label.", rows
    )


def _check_outvoted(facts: dict[str, Any]) -> Finding:
    """KD046: most votes on a row say the opposite of its label."""
    rows = facts["votes"]["outvoted"]
    return issue("KD046", f"{rows:,} labels are outvoted by the votes on their own row.", rows) if rows else passed("KD046")


def _check_prompt(facts: dict[str, Any]) -> Finding:
    """KD047: labels follow what was asked, in part, and not only what was answered."""
    if "not_learnt" in facts:
        return not_applicable("KD047", facts["not_learnt"])
    told = facts["out_of_fold"]
    if not told["labels_follow_the_prompt"]:
        return passed("KD047")
    return issue(
        "KD047",
        f"The prompt alone tells {told['share_told_by_prompt_alone']:.0%} of what the text tells of the labels: models fail on "
        "some topics, or whoever labelled dislikes them, and labels and text cannot say which. Rows are ranked by what their "
        "answers do beyond the topic. Reviewed rows would settle it.",
    )


def _check_drift(facts: dict[str, Any]) -> Finding:
    """KD048: somebody's labels, or those after some date, follow other criteria than the rest."""
    if "not_learnt" in facts:
        return not_applicable("KD048", facts["not_learnt"])
    found = facts["drift"]["found"]
    if not facts["drift"]["tests"]:
        return not_applicable("KD048", "There are no two sources, raters or models with enough rows, nor dates, to compare.")
    if not found:
        return passed("KD048")
    each = "; ".join(
        f"{one['column']} {one['value']} ({one['kind']}{', since ' + one['since'] if one['since'] else ''}, "
        f"{one['effect_points']:+.0%} desirable)"
        for one in found[:5]
    )
    return issue(
        "KD048", f"The same content is judged differently by {len(found)} group(s): {each}. See table drift.", len(found)
    )
