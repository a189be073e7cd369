"""What was found of the labels, in words: the checks KD040 to KD049 and KD070, each from the facts of label_noise."""

from typing import Any

from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.labels.classifier.noise_injection import SYSTEMATIC

COSTLY = 0.02  # expected share of wrong labels from which something should be done


def label_findings(facts: dict[str, Any]) -> list[Finding]:
    """Every check's answer, from the facts of label_noise; adds `identifiability` to them."""
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
        _check_policy(facts),
        _check_contested(facts),
    ]


def _check_identifiable(facts: dict[str, Any]) -> Finding:
    """KD040: random label errors cannot be told from sound rows here."""
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
        f"{name}: {one['error_rate']['value']:.1%} of {one['drawn_at_random']} wrong ({one['error_rate']['low']:.1%} to "
        f"{one['error_rate']['high']:.1%})"
        for name, one in told.items()
        if isinstance(one, dict) and one.get("drawn_at_random")
    )
    rates = f"{rates}. Measured on {told['rates_from']}."
    if told["flip_rates"]:
        by_truth = ", ".join(f"{share:.1%} of the truly {name}" for name, share in told["flip_rates"].items())
        rates += f" So {by_truth} rows carry the other label: what the trainer's flip_rates takes."
    if dynamics := facts.get("training_dynamics"):
        rates += f" {dynamics['text']}"
    return issue("KD041", f"Against the trusted labels, {rates}", told["wrong"]) if told["wrong"] else passed("KD041", rates)


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
        f"The prompt alone tells {told['prompt_information_share']:.0%} of what the text tells of the labels: models fail on "
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


def _check_policy(facts: dict[str, Any]) -> Finding:
    """KD049: what wrong labels are expected to cost training, and what each policy would take away."""
    told = facts["policy"]
    if not told["rows"]:
        return not_applicable(
            "KD049",
            "No label's chance of being wrong was measured (no reviewed rows, no second votes, random errors not identifiable), "
            "so no automatic action is known to pay: train on the labels as they are, or have rows reviewed.",
        )
    saved, measured = told["share_of_cost_taken_away"], told["p_wrong_measured_by"]
    by = "; ".join(f"{name} by {basis}" for name, basis in measured.items() if basis) or "by raters who share rows"
    text = (
        f"{told['cost']['keep']:.1%} of {told['rows']:,} labels are expected to be wrong ({by}). Soft labels are expected to "
        f"take {saved['soft']:.0%} of that cost to training away, the likelier label {saved['relabel']:.0%}, dropping and "
        f"relabelling {saved['repair']:.0%}, dropping alone {saved['drop']:.0%}; reviewing rows takes all of theirs."
    )
    return issue("KD049", text) if told["cost"]["keep"] >= COSTLY else passed("KD049", text)


def _check_contested(facts: dict[str, Any]) -> Finding:
    """KD070: people differ on some rows, so no label of them is wrong, and more votes would not settle them."""
    told = facts.get("agreement")
    if told is None:
        return not_applicable("KD070", "Raters share too few rows to tell mistaken labels from those on which people differ.")
    rows, every = told["verdicts"].get("contested", 0), sum(told["verdicts"].values())
    text = (
        f"Of {every:,} rows with two votes or more, {told['verdicts'].get('wrong', 0):,} are labelled wrong and {rows:,} "
        f"contested; {told['verdicts'].get('unclear', 0):,} cannot be told apart by so few votes."
    )
    if not rows:
        return passed("KD070", text)
    return issue(
        "KD070", f"{text} On contested rows a clearer criterion is missing, not a better rater: see table contested.", rows
    )
