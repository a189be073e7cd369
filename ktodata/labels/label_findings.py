"""What is known of the labels, in words: the checks KD040 to KD049 and KD070, each from the facts of label_noise."""

from collections.abc import Mapping
from typing import Any

from ktodata.feedback import LABEL_NAMES
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.labels.classifier.noise_injection import SYSTEMATIC
from ktodata.labels.label_words import is_above, none_among, percent, review_sentence, reviewed_labels
from ktodata.labels.people.stacking import MIN_REVIEWED
from ktodata.labels.people.vote_worth import MIN_SHARED

MANY_WRONG = 0.1  # share of wrong labels
TWINS = "near twin (same prompt, nearly the same completion)"
COSTLY = 0.02  # expected share of wrong labels from which something should be done


def label_findings(facts: dict[str, Any]) -> list[Finding]:
    """Every check's answer, from the facts of label_noise."""
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
        _check_label_actions(facts),
        _check_contested(facts),
    ]


def _check_identifiable(facts: dict[str, Any]) -> Finding:
    """KD040: random label errors cannot be told from sound rows here."""
    if "not_learnt" in facts:
        return not_applicable("KD040", facts["not_learnt"])
    if "identifiability" not in facts:
        return not_applicable(
            "KD040", "No flips were injected (noise_injection: 0), so the detector was not measured and nothing is flagged."
        )
    answer = facts["identifiability"]
    text = f"{answer['reason']}. {answer['limits']}"
    return passed("KD040", text) if answer["verdict"] == "identifiable" else issue("KD040", text)


def identifiability_in_words(classes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The verdict of the class that is worse off, why, and what no injected flip can show.

    classes : "per_given_class" of the injected flips
    """
    verdict = max((str(figures["verdict"]) for figures in classes.values()), key=("identifiable", "weakly", "not").index)
    reason = "; ".join(f"{name}: {_class_in_words(figures)}" for name, figures in classes.items())
    return {"verdict": verdict, "reason": reason, "limits": SYSTEMATIC}


def _class_in_words(figures: Mapping[str, Any]) -> str:
    auroc, flips = figures["auroc_of_injected_flips"], figures["injected_flips_at_this_depth"]["flips"]
    if auroc["value"] is None or flips < 10:
        return f"not identifiable, because only {flips} flips could be injected among {figures['rows']:,} rows; 10 are the least"
    ranking = (
        f"injected flips look more doubtful than other rows {auroc['value']:.0%} of the time ({auroc['low']:.0%} to "
        f"{auroc['high']:.0%}; 50% is chance)"
    )
    because = {
        "identifiable": "and the probabilities are at two clear levels, so the noise can be separated from the signal",
        "weakly": "which is enough to order a review by, not to act on unseen",
        "not": "so the text, as these vectors show it, says too little about the label",
    }
    word = {"identifiable": "identifiable", "weakly": "weakly identifiable", "not": "not identifiable"}[figures["verdict"]]
    return f"{word}: {ranking}, {because[figures['verdict']]}"


def _check_trusted_rows(facts: dict[str, Any]) -> Finding:
    """KD041: trusted labels show errors in the given ones."""
    reviews = reviewed_labels(facts["trusted"])
    if not reviews.judged:
        return not_applicable("KD041", f"No row has a trusted_label. {facts['ask_for_review']['why']}")
    text, weights = review_sentence(reviews), [piece["text"] for piece in facts.get("weighed", {}).values()]
    if not reviews.drawn:
        return not_applicable("KD041", " ".join([text, facts["ask_for_review"]["why"], *weights]))
    if flip_rates := facts["trusted"]["flip_rates"]:
        by_truth = ", ".join(f"{percent(share)} of the truly {name}" for name, share in flip_rates.items())
        text += f" So {by_truth} rows carry the other label: what the trainer's flip_rates takes."
    text = " ".join([text, *weights])
    wrong = reviews.whole.wrong
    return issue("KD041", text, wrong) if wrong else passed("KD041", text)


def _check_flags(facts: dict[str, Any]) -> Finding:
    """KD042: rows flagged, and how many of them are expected to be wrong."""
    if "not_learnt" in facts:
        return not_applicable("KD042", facts["not_learnt"])
    if refuted := facts["trusted"]["flags_refuted"]:
        return issue(
            "KD042", f"Reviewed flags among {' and '.join(refuted)} rows are right too seldom for min_precision: taken back."
        )
    if not facts["flagged"]:
        return passed("KD042", "Nothing is flagged: at no depth were flags measured to be as precise as min_precision asks.")
    by_class = "; ".join(
        f"{name}: {figures['flagged']:,} rows, {figures['expected_precision']['value']:.0%} {_measured_on(figures)}"
        for name, figures in facts["injected_flips"]["per_given_class"].items()
        if figures["flagged"]
    )
    return issue("KD042", f"{facts['flagged']:,} rows are flagged. {by_class}.", facts["flagged"])


def _measured_on(figures: Mapping[str, Any]) -> str:
    """What the precision of flags rests on; by injected flips it is a condition, and no measurement of these labels."""
    low = f"at least {figures['expected_precision']['low']:.0%}"
    if figures["basis"] == "injected flips":
        assumed = figures["error_rate_assumed"]
        return (
            f"of them would be wrong ({low}) if {percent(assumed)} of these labels were, at random; whether they are is not known"
        )
    return f"expected wrong ({low}, measured on {figures['basis']})"


def _check_noise(facts: dict[str, Any]) -> Finding:
    """KD043: one label in ten or more is wrong, by the whole interval of the random draw; passed: fewer are, by the same."""
    if "not_learnt" in facts:
        return not_applicable("KD043", facts["not_learnt"])
    reviews = reviewed_labels(facts["trusted"])
    estimate = f"Confident learning would say {percent(facts['label_noise_estimate']['wrong'])}, of errors that are random alone"
    if not reviews.drawn:
        return not_applicable("KD043", f"How many labels are wrong is not known without a random draw of reviews. {estimate}.")
    text = f"{review_sentence(reviews)} {estimate}."
    many = is_above(reviews, MANY_WRONG)
    if many is None:
        return not_applicable("KD043", f"{text} Too few reviews to say whether {percent(MANY_WRONG, 0)} or more are wrong.")
    return issue("KD043", text) if many else passed("KD043", text)


def _check_raters(facts: dict[str, Any]) -> Finding:
    """KD044: several raters judged the same rows, so they can be compared."""
    votes = facts["votes"]
    shared = f"{votes['raters']:,} raters share {votes['rows_with_several_raters']:,} rows"
    if votes["rows_with_several_raters"] < MIN_SHARED:
        return not_applicable(
            "KD044",
            f"{shared}: {MIN_SHARED} are needed to compare raters. A second vote on some rows would show systematic noise.",
        )
    return passed(
        "KD044",
        f"{shared}. Table raters has how often each agrees with the majority of the others, not how often each is right. "
        + _votes_in_words(facts),
    )


def _votes_in_words(facts: dict[str, Any]) -> str:
    """What the votes are believed for: by reviewed rows, by agreement, or for an order only."""
    if "stacking" in facts:
        fit = facts["stacking"]
        return (
            f"What each vote is worth, {fit['reviewed']:,} reviewed rows say (log loss {fit['log_loss']:.2f} nats out of fold; "
            f"the rates of the given labels alone: {fit['by_rates']:.2f})."
        )
    if facts["independence"]["identified"]:
        return "Their agreement shows no shared errors; whether all of them err alike only reviews show. So they turn no label."
    return f"How far their votes are right is {facts['independence']['reason']}. So they order rows, and turn no label."


def _check_near(facts: dict[str, Any]) -> Finding:
    """KD045: nearly the same completion to one prompt, with opposite labels."""
    rows = facts["near_contradictions"]["rows"]
    if not rows:
        learnt_from = facts["rows"]["learnt_from"]
        return passed("KD045", f"All {learnt_from:,} rows were looked at: none has a {TWINS} with the opposite label.")
    return issue("KD045", f"{rows:,} rows have a {TWINS} with the opposite label.", rows)


def _check_outvoted(facts: dict[str, Any]) -> Finding:
    """KD046: most votes on a row say the opposite of its label."""
    rows = facts["votes"]["outvoted"]
    if rows:
        return issue("KD046", f"{rows:,} labels are outvoted by the votes on their own row.", rows)
    rows = facts["votes"]["rows_with_three_votes"]
    if not rows:
        return not_applicable("KD046", "No row has three votes, so no label that is one of its votes can be outvoted.")
    return passed("KD046", f"{none_among(rows, 'outvoted label')} A label that is the majority of its votes never is.")


def _check_prompt(facts: dict[str, Any]) -> Finding:
    """KD047: labels follow what was asked, in part, and not only what was answered."""
    if "not_learnt" in facts:
        return not_applicable("KD047", facts["not_learnt"])
    if facts["prompts"] == 1:
        return not_applicable("KD047", "All rows have one prompt, so what was asked tells no two rows apart.")
    ensemble = facts["out_of_fold"]
    if not ensemble["labels_follow_the_prompt"]:
        share = ensemble.get("prompt_information_share")
        carries = f"The prompt alone carries {share:.0%} of what the text says of the labels" if share is not None else ""
        return passed("KD047", carries and f"{carries}: under what counts as following the prompt.")
    return issue(
        "KD047",
        f"The prompt alone carries {ensemble['prompt_information_share']:.0%} of what the text says of the labels: models fail "
        "on some topics, or whoever labelled dislikes them, and labels and text cannot say which. Reviewed rows would settle it.",
    )


def _check_drift(facts: dict[str, Any]) -> Finding:
    """KD048: labels of a source, rater or model, or after some date, differ from others by more than the text explains."""
    if "not_learnt" in facts:
        return not_applicable("KD048", facts["not_learnt"])
    groups = facts["drift"]["significant_groups"]
    if not facts["drift"]["tests"]:
        return not_applicable("KD048", "There are no two sources, raters or models with enough rows, nor dates, to compare.")
    if not groups:
        return passed(
            "KD048",
            f"None of {facts['drift']['tests']:,} tests shows a group or a date after which labels differ more than by "
            "chance. Differences too small for its rows are not seen.",
        )
    each = "; ".join(
        f"{group['column']} {group['value']} ({group['kind']}{', since ' + group['since'] if group['since'] else ''}, "
        f"{group['effect_points']:+.0%} desirable{_only_in_words(group['only'])})"
        for group in groups[:5]
    )
    text = f"Labels differ by more than the text explains in {len(groups)} group(s): {each}. See table drift."
    if any(group["column"] == "model" for group in groups):
        text += " For a model that may be its answers, not the criterion: a retrained model writes what no text here resembles."
    return issue("KD048", text, len(groups))


def _only_in_words(only: bool | None) -> str:
    return "" if only is None else f": its labels are all {LABEL_NAMES[only]}, which may be how it collects, and no criterion"


def _check_label_actions(facts: dict[str, Any]) -> Finding:
    """KD049: what wrong labels are expected to cost training, what each label action would take away, and whether any may act."""
    costs = facts["label_action_costs"]
    if not costs["rows"] and "borne_out" in facts:
        return not_applicable("KD049", "Every row was reviewed: no label is left to soften, turn or drop by a probability.")
    if not costs["rows"]:
        return not_applicable(
            "KD049",
            f"No label's chance of being wrong was measured: that takes {MIN_REVIEWED} reviewed rows of the random draw, and "
            f"there are {facts['trusted'].get('drawn_at_random') or 0:,}. So no label is softened, turned or dropped by a "
            "probability, whatever votes, text and other reviews say: have rows of the draw reviewed.",
        )
    saved, borne_out, wrong = costs["share_of_cost_taken_away"], facts["borne_out"], facts["expected_wrong"]
    text = (
        f"By p(wrong), as reviewed rows measure it, {percent(wrong['value'])} ({percent(wrong['low'])} to "
        f"{percent(wrong['high'])}) of {costs['rows']:,} labels would be wrong. "
        f"{_turning_in_words(borne_out)} Of what wrong labels cost training, soft labels would take away {saved['soften']:.0%}, "
        f"the likelier label {saved['relabel']:.0%}, dropping and relabelling {saved['drop_and_relabel']:.0%}, dropping alone "
        f"{saved['drop']:.0%}, by the same p. What a model gains is measured by `ktodata ablate` alone."
    )
    return issue("KD049", text) if costs["cost"]["keep"] >= COSTLY else passed("KD049", text)


def _turning_in_words(borne_out: Mapping[str, Any]) -> str:
    """How many labels may be turned, by which reviewed rows; where none, how many reviews it would take."""
    seen = f"{borne_out['wrong']:.0f} of {borne_out['reviewed']:.0f} reviewed rows that look surely wrong are wrong"
    if borne_out["turned"]:
        return f"{seen}, so {borne_out['turned']:,} labels may be turned."
    if not borne_out["reviewed"]:
        seen = "no reviewed row looks surely wrong"
    needed = borne_out["reviews_needed"]
    more = "" if needed is None else f" About {needed:,} reviews in all would show whether most rows that look so are wrong."
    return f"No label may be turned: {seen}.{more}"


def _check_contested(facts: dict[str, Any]) -> Finding:
    """KD070: people differ on some rows, so no label of them is wrong, and more votes would not settle them."""
    agreement = facts.get("agreement")
    if agreement is None:
        return not_applicable("KD070", "Raters share too few rows to separate mistaken labels from those on which people differ.")
    verdicts = agreement["verdicts"]
    rows, total = verdicts.get("contested", 0), sum(verdicts.values())
    if not facts["independence"]["identified"] and not rows:
        return not_applicable(
            "KD070",
            f"On none of {total:,} rows with two votes or more are people shown to differ; these votes could not show it.",
        )
    if not facts["independence"]["identified"]:
        text = (
            f"Of {total:,} rows with two votes or more, people seem to differ on {rows:,}; the votes cannot say which are wrong."
        )
    else:
        text = _contested_in_words(verdicts)
    if not rows:
        return passed("KD070", text)
    return issue(
        "KD070", f"{text} On contested rows a clearer criterion is missing, not a better rater: see table contested.", rows
    )


def _contested_in_words(verdicts: dict[str, int]) -> str:
    rows, total = verdicts.get("contested", 0), sum(verdicts.values())
    return (
        f"Of {total:,} rows with two votes or more, {verdicts.get('wrong', 0):,} are labelled wrong and {rows:,} "
        f"contested; of {verdicts.get('unclear', 0):,} so few votes do not say which."
    )
