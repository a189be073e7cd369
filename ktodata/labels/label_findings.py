"""What is known of the labels, in words: the checks KD040 to KD049 and KD070, each from the facts of label_noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.feedback import LABEL_NAMES
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.labels.classifier.noise_injection import RANKED, SYSTEMATIC
from ktodata.labels.drift_words import drift_sentence, may_be_criterion, nothing_compared
from ktodata.labels.label_words import (
    at_odds_sentence,
    flags_sentence,
    is_above,
    is_worth_nothing,
    review_sentence,
    reviewed_labels,
    span,
    worth_sentence,
    wrong_of_all,
)
from ktodata.labels.people.calibration import SHARE_WRONG
from ktodata.labels.people.stacking import MIN_REVIEWED
from ktodata.labels.people.trusted import MIN_DRAWN
from ktodata.labels.people.vote_worth import MIN_SHARED
from ktodata.stats import Interval, percent, percent_span

MANY_WRONG = 0.1  # share of wrong labels
TWINS = "near twin (same prompt, nearly the same completion)"
NONE_LOOKS_WRONG = "no reviewed row looks surely wrong"
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
    text = " ".join(filter(None, [f"{answer['reason']}. {answer['limits']}", _large_prompt_in_words(facts)]))
    return passed("KD040", text) if answer["verdict"] == "identifiable" else issue("KD040", text)


def _large_prompt_in_words(facts: Mapping[str, Any]) -> str:
    """That rows of one prompt are on both sides of the folds, where it has too many of them for one."""
    rows, all_rows = facts.get("largest_dealt_by_text", 0), facts["rows"]["learnt_from"]
    if not rows or facts["prompts"] == 1:
        return ""
    return (
        f"One prompt, or what differs little from it, has {percent(rows / all_rows, 0)} of the rows: they are compared with each "
        "other, too, so what is wrong with all of them alike looks sound."
    )


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
        count = f"{flips} flip{'' if flips == 1 else 's'}"
        return f"not identifiable, because only {count} could be injected among {figures['rows']:,} rows; 10 are the least"
    ranking = (
        f"injected flips look more doubtful than other rows {auroc['value']:.0%} of the time ({auroc['low']:.0%} to "
        f"{auroc['high']:.0%}; 50% is chance)"
    )
    because = {
        "identifiable": "and the probabilities are at two clear levels, so random noise can be told from the signal",
        "weakly": "which is enough to order a review by, not to act on unseen",
        "not": "so the text, as these vectors show it, says too little about the label",
    }
    if figures["verdict"] == "not" and auroc["high"] >= RANKED:
        return f"not identifiable: {ranking}, so whether the text shows errors is open: {flips:,} flips are too few to say"
    word = {"identifiable": "identifiable", "weakly": "weakly identifiable", "not": "not identifiable"}[figures["verdict"]]
    return f"{word}: {ranking}, {because[figures['verdict']]}"


def _check_trusted_rows(facts: dict[str, Any]) -> Finding:
    """KD041: trusted labels show errors in the given ones."""
    reviews = reviewed_labels(facts["trusted"])
    if not reviews.judged:
        seen = [review_sentence(reviews), "No row to train on has a trusted_label.", facts["ask_for_review"]["why"]]
        return not_applicable("KD041", " ".join(filter(None, seen)))
    text, weights = review_sentence(reviews), [piece["text"] for piece in facts.get("weighed", {}).values()]
    if not reviews.drawn:
        return not_applicable("KD041", " ".join(filter(None, [text, facts["ask_for_review"]["why"], *weights])))
    text += _flip_rates_in_words(facts["trusted"], counted=reviews.whole.is_counted)
    text = " ".join([text, *weights])
    return issue("KD041", text, reviews.wrong) if reviews.wrong else passed("KD041", text)


def _flip_rates_in_words(trusted: Mapping[str, Any], *, counted: bool) -> str:
    """How many rows of either truth carry the other label, with both error rates at the ends of their intervals."""
    rates, low, high = (trusted.get(f"flip_rates{end}") for end in ("", "_low", "_high"))
    if not rates or not any(rates.values()):
        return ""
    if counted:
        each = ", ".join(f"{percent(share)} of the truly {name}" for name, share in rates.items())
        return f" So {each} rows carry the other label: what the trainer's flip_rates takes."
    ends = {name: Interval(rates[name], (low or {}).get(name, 0.0), (high or {}).get(name, 1.0)) for name in rates}
    each = ", ".join(f"{percent(rates[name])} ({span(interval)}) of the truly {name}" for name, interval in ends.items())
    return (
        f" So about {each} rows carry the other label, if both rates lie in their intervals: what the trainer's flip_rates takes."
    )


def _check_flags(facts: dict[str, Any]) -> Finding:
    """KD042: rows flagged, and how many of them are expected to be wrong."""
    if "not_learnt" in facts:
        return not_applicable("KD042", facts["not_learnt"])
    refuted = [_refuted_in_words(name, facts["trusted"][name]) for name in facts["trusted"]["flags_refuted"]]
    if facts["flagged"]:
        classes = facts["injected_flips"]["per_given_class"]
        each = (f"{name}: {flags_sentence(classes[name], **of)}" for name, of in facts["flags"].items() if of["rows"])
        refuted.append(f"{facts['flagged']:,} rows are flagged. {'; '.join(each)}.")
    if refuted:
        return issue("KD042", " ".join(refuted), facts["flagged"] or None)
    return _nothing_flagged(facts)


def _nothing_flagged(facts: dict[str, Any]) -> Finding:
    """Nothing is flagged: a pass only where flags could have come up."""
    if facts["trusted"].get("draw_refuted"):
        return not_applicable(
            "KD042", "Nothing is flagged: the draw, which would measure flags, is at odds with the other verdicts."
        )
    if "stacking" in facts:
        text = "Nothing is flagged: no reviewed row looks surely wrong, or too few of those that do are wrong."
        return passed("KD042", text)
    if facts.get("identifiability", {}).get("verdict") != "identifiable":
        return not_applicable("KD042", "Nothing can be flagged: how right flags are was not measured, and needs reviewed rows.")
    return passed("KD042", "Nothing is flagged: no row is doubted enough, even if errors are as random as injected flips.")


def _refuted_in_words(name: str, trusted: Mapping[str, Any]) -> str:
    right = trusted["reviewed_flags"]
    return (
        f"Of reviewed flags on {name} rows {percent(right['value'])} are right ({percent_span(right['low'], right['high'])}), "
        f"too few for min_precision: all flags there are taken back."
    )


def _check_noise(facts: dict[str, Any]) -> Finding:
    """KD043: one label in ten or more is wrong, by the whole interval of the random draw; passed: fewer are, by the same."""
    if "not_learnt" in facts:
        return not_applicable("KD043", facts["not_learnt"])
    reviews = reviewed_labels(facts["trusted"])
    if not reviews.drawn:
        return not_applicable("KD043", "How many labels are wrong is not known without a random draw of reviews.")
    text, many = wrong_of_all(reviews), is_above(reviews, MANY_WRONG)
    if many is None and reviews.refuted:
        return not_applicable("KD043", f"{text} Whether {percent(MANY_WRONG, 0)} or more are that does not say.")
    if many is None:
        return not_applicable("KD043", f"{text} Too few reviews to say whether {percent(MANY_WRONG, 0)} or more are.")
    return issue("KD043", text) if many else passed("KD043", text)


def _check_raters(facts: dict[str, Any]) -> Finding:
    """KD044: several raters judged the same texts, so they can be compared; an issue where one is at odds with the others."""
    votes = facts["votes"]
    rows, to_train_on = votes["rows_with_several_raters"], votes["training_rows_with_several_raters"]
    shared = f"{votes['raters']:,} raters share {rows:,} texts" if rows else "No text has votes of two named raters"
    shared += f" ({to_train_on:,} of them to train on)" if to_train_on < rows else ""
    at_odds = at_odds_sentence(votes["at_odds"])
    if rows < MIN_SHARED and not at_odds:
        return not_applicable(
            "KD044",
            f"{shared}: {MIN_SHARED} such texts are needed to compare raters. A second vote on some would show systematic noise.",
        )
    text = f"{shared}. Table raters has how often each agrees with the majority of the others, not how often each is right."
    text = " ".join(filter(None, [at_odds, text, _votes_in_words(facts)]))
    worthless = "stacking" in facts and is_worth_nothing(facts["stacking"])
    return issue("KD044", text) if worthless or at_odds else passed("KD044", text)


def _votes_in_words(facts: dict[str, Any]) -> str:
    """What the votes are believed for: by reviewed rows, by agreement, or for an order only."""
    if "stacking" in facts:
        return worth_sentence(facts["stacking"])
    if "independence" not in facts:
        return f"How far their votes are right {MIN_SHARED} of those to train on could say: they order rows, and turn no label."
    if facts["independence"]["identified"]:
        return (
            "Their agreement shows no shared errors, but could not show raters who copy one of them, or who all err alike: only "
            "reviews do. So they turn no label."
        )
    return f"How far their votes are right is {facts['independence']['reason']}. So they order rows, and turn no label."


def _check_near(facts: dict[str, Any]) -> Finding:
    """KD045: nearly the same completion to one prompt, with opposite labels."""
    rows = facts["near_contradictions"]["rows"]
    if not rows:
        learnt_from, names = facts["rows"]["learnt_from"], LABEL_NAMES.values()
        if not all(facts["rows"].get(name, 1) for name in names):
            return not_applicable("KD045", "All rows have one label, so no two rows have opposite ones.")
        return passed("KD045", f"All {learnt_from:,} rows were looked at: none has a {TWINS} with the opposite label.")
    return issue("KD045", f"{rows:,} rows have a {TWINS} with the opposite label. They are listed, and kept.", rows)


def _check_outvoted(facts: dict[str, Any]) -> Finding:
    """KD046: most votes on a row say the opposite of its label."""
    rows = facts["votes"]["outvoted"]
    if rows:
        return issue("KD046", f"{rows:,} labels are outvoted by the votes on their own row.", rows)
    rows = facts["votes"]["rows_with_three_votes"]
    if not rows:
        return not_applicable("KD046", "No row has three votes, so no label that is one of its votes can be outvoted.")
    text = (
        f"Each of {rows:,} labels with three votes or more is looked at: none is outvoted, as the majority of its votes never is."
    )
    return passed("KD046", text)


def _check_prompt(facts: dict[str, Any]) -> Finding:
    """KD047: labels follow what was asked, in part, and not only what was answered."""
    if "not_learnt" in facts:
        return not_applicable("KD047", facts["not_learnt"])
    if facts["prompts"] == 1:
        return not_applicable("KD047", "All rows have one prompt, so what was asked tells no two rows apart.")
    ensemble = facts["out_of_fold"]
    if ensemble.get("feature_sets", {}).get("all", {}).get("information_gain_nats", 1.0) <= 0:
        return not_applicable("KD047", "The text foretells the labels no better than their shares, so neither does the prompt.")
    if not ensemble["labels_follow_the_prompt"]:
        share = ensemble.get("prompt_information_share")
        carries = f"The prompt alone carries {share:.0%} of what the text says of the labels" if share is not None else ""
        return passed(
            "KD047", carries and f"{carries}: too little to say that labels follow what was asked rather than what was answered."
        )
    return issue(
        "KD047",
        f"The prompt alone carries {ensemble['prompt_information_share']:.0%} of what the text says of the labels: models fail "
        "on some topics, or whoever labelled dislikes them, and labels and text cannot say which. Reviewed rows would settle it.",
    )


def _check_drift(facts: dict[str, Any]) -> Finding:
    """KD048: labels of a source, rater or model, or after some date, differ from others by more than the text explains."""
    if "not_learnt" in facts:
        return not_applicable("KD048", facts["not_learnt"])
    drift = facts["drift"]
    if number := may_be_criterion(drift):
        return issue("KD048", drift_sentence(drift), number)
    if drift["significant_groups"]:
        return passed("KD048", f"Reviewed rows show no other criterion. {drift_sentence(drift)}")
    if not drift["tests"]:
        return not_applicable("KD048", nothing_compared(drift, facts["votes"]["raters"]))
    return passed(
        "KD048",
        f"None of {drift['tests']:,} tests shows a group or a date after which labels differ more than by chance. "
        f"{_unseen_in_words(drift.get('unseen_points'))}",
    )


def _unseen_in_words(points: Sequence[float] | None) -> str:
    """What could not have come up. points : of the group that would show the least, and of the one that needs the most"""
    if not points:
        return "A change too small for its rows is not seen."
    least, most = (percent(of, 0) for of in points)
    span = "" if least == most else f" ({most} in the group that shows least)"
    return f"A criterion that turns fewer than {least} of a group's labels{span} would mostly go unseen, as would a small change."


def _check_label_actions(facts: dict[str, Any]) -> Finding:
    """KD049: what wrong labels are expected to cost training, what each label action would take away, and whether any may act."""
    costs = facts["label_action_costs"]
    if not costs["rows"] and "borne_out" in facts:
        return not_applicable(
            "KD049", "Every row to train on was reviewed: no label is left to soften, turn or drop by a probability."
        )
    if not costs["rows"] and "expected_wrong" in facts:
        left = span(Interval(None, facts["expected_wrong"]["low"], facts["expected_wrong"]["high"]))
        if facts["trusted"].get("draw_refuted"):
            why = "The random draw and the other verdicts are at odds"
            return not_applicable(
                "KD049", f"{why}: p(wrong) is an order only, and no label is softened, turned or dropped by it."
            )
        return not_applicable(
            "KD049",
            f"The random draw leaves room for {left} wrong ones among the labels that nobody judged, and by p(wrong) the share "
            "would be another: so p(wrong) is an order only, and no label is softened, turned or dropped by it. More rows of the "
            "draw would show how far it is off.",
        )
    if not costs["rows"]:
        drawn, rows = facts["trusted"].get("drawn_at_random") or 0, facts["trusted"].get("rates_of") or MIN_REVIEWED
        there = f"no more than {rows:,} can be drawn" if rows < MIN_REVIEWED else f"there are {drawn or 'none'}"
        lacks = f"that takes {MIN_REVIEWED} reviewed rows of the random draw, and {there}"
        why = facts["not_learnt"].rstrip(".") if "not_learnt" in facts and drawn >= MIN_REVIEWED else lacks
        why = _unmeasured_clause(facts) or why
        return not_applicable(
            "KD049",
            f"No label's chance of being wrong was measured: {why}. So no label is softened, turned or dropped by a "
            "probability, whatever votes, text and other reviews say: "
            f"{'a verdict mends the row that it is on' if rows < MIN_REVIEWED else 'have rows of the draw reviewed'}.",
        )
    borne_out, wrong, unmeasured = facts["borne_out"], facts["expected_wrong"], _unmeasured_in_words(facts)
    saved = {name: _saved_in_words(share) for name, share in costs["share_of_cost_taken_away"].items()}
    worthless = f"{worth_sentence(facts['stacking'])} " if "stacking" in facts and is_worth_nothing(facts["stacking"]) else ""
    undecided = reviewed_labels(facts["trusted"]).whole.undecided_in_words()
    measured = (
        f"as reviewed rows measure it ({undecided}, of which it says nothing)" if undecided else "as reviewed rows measure it"
    )
    of = f"{next(iter(borne_out))} labels" if unmeasured else "labels"
    text = worthless + (
        f"Of {costs['rows']:,} {of} that nobody judged {percent(wrong['value'])} would be wrong by p(wrong), {measured}; the "
        f"draw leaves room for {span(Interval(**wrong))}. "
        f"{_turning_in_words(borne_out)} Of what wrong labels cost training, soft labels would {saved['soften']} "
        f"({_softening_in_words(facts['softening'])}), the likelier label would {saved['relabel']}, dropping and relabelling "
        f"would {saved['drop_and_relabel']}, dropping alone would {saved['drop']}, by the same p. What a model gains is "
        "measured by `ktodata ablate` alone."
    )
    text = " ".join(filter(None, [text, unmeasured]))
    if wrong["low"] < COSTLY <= wrong["high"]:
        few = f"Too few reviews to say whether {percent(COSTLY, 0)} or more of the labels that nobody judged are wrong."
        return not_applicable("KD049", f"{text} {few}")
    return issue("KD049", text) if wrong["low"] >= COSTLY else passed("KD049", text)


def _saved_in_words(share: float) -> str:
    percents = round(100 * share)
    return "take away nothing" if not percents else f"{'take away' if percents > 0 else 'add'} {abs(percents)}%"


def _unmeasured_in_words(facts: Mapping[str, Any]) -> str:
    """As a sentence: `_unmeasured_clause`."""
    clause = _unmeasured_clause(facts)
    return f"{clause[:1].upper()}{clause[1:]}." if clause else ""


def _unmeasured_clause(facts: Mapping[str, Any]) -> str:
    """The labels of which too few rows of their own were drawn for a p; empty where there are none."""
    drawn = {name: (facts["trusted"].get(name) or {}).get("drawn_at_random") or 0 for name in facts.get("unmeasured", {})}
    short = {name: f"{rows:,}" if rows else "none" for name, rows in drawn.items()}
    each = " and ".join(f"of the {facts['unmeasured'][name]:,} {name} ones" for name in short)
    there = " and ".join(short.values())
    takes = f"{MIN_DRAWN} reviewed rows of the random draw of the same label, and there are {there}"
    return f"{each} that nobody judged nothing is known: that takes {takes}" if short else ""


def _softening_in_words(shown: Mapping[str, Any]) -> str:
    """What reviewed rows show of it; a share under 0 is added."""
    if shown["low"] is None:
        return "reviewed rows show no wrong label that they could pull, so they stay as given"
    ends = f"{100 * shown['low']:.0f} to {100 * shown['high']:.0f}%"
    # of other rows than those that would be softened, and so beside that figure
    return f"of that of reviewed rows {ends}" if shown["low"] > 0 else f"by reviewed rows {ends}, so they stay as given"


def _turning_in_words(borne_out: Mapping[str, Any]) -> str:
    """How many labels of each kind may be turned, by which reviewed rows of it; where none, how many reviews it would take."""
    if not any(of["reviewed"] or of["reviews_needed"] for of in borne_out.values()):
        return f"No label may be turned: {NONE_LOOKS_WRONG}."
    return " ".join(f"Of {name} labels {_turning_of_label(of)}" for name, of in borne_out.items())


def _turning_of_label(of: Mapping[str, Any]) -> str:
    seen = f"{_count(of['wrong'])} of {_count(of['reviewed'])} reviewed rows that look surely wrong are wrong"
    if of["turned"]:
        return f"{of['turned']:,} may be turned: {seen}."
    if not of["reviewed"]:
        seen = NONE_LOOKS_WRONG
    elif of["share_low"] > SHARE_WRONG:
        seen = f"{seen}, and no other row looks so"
    return f"none may be turned: {seen}.{_needed_in_words(of['reviews_needed'])}"


def _needed_in_words(rows: int | None) -> str:
    return "" if rows is None else f" About {rows:,} reviews more of them would show whether enough rows that look so are wrong."


def _count(rows: float) -> str:
    """Reviewed rows, of which those of one prompt may count for less: 6, or 5.5."""
    return f"{rows:.0f}" if rows == round(rows) else f"{rows:.1f}"


def _check_contested(facts: dict[str, Any]) -> Finding:
    """KD070: people differ on some rows, so no label of them is wrong, and more votes would not settle them."""
    agreement = facts.get("agreement")
    if agreement is None:
        return not_applicable(
            "KD070", "Raters share too few texts to train on to separate mistaken labels from those on which people differ."
        )
    verdicts = agreement["verdicts"]
    rows, total, sided = verdicts.get("contested", 0), sum(verdicts.values()), len(agreement.get("one_sided", ()))
    if not total:
        reason = agreement.get("reason") or f"{sided:,} raters only ever say one thing, and no text has two other votes"
        return not_applicable("KD070", f"None can be shown contested: {reason}.")
    if not facts["independence"]["identified"] and not rows:
        return not_applicable(
            "KD070",
            f"Of {total:,} texts to train on with two votes or more none is shown to be contested; the votes could not show it.",
        )
    if not facts["independence"]["identified"]:
        text = (
            f"Of {total:,} texts to train on with two votes or more, people seem to differ on {rows:,}; the votes cannot say "
            "which are wrong."
        )
    else:
        text = _contested_in_words(verdicts)
    if not rows:
        return passed("KD070", text)
    return issue(
        "KD070", f"{text} On contested rows a clearer criterion is missing, not a better rater: see table contested.", rows
    )


def _contested_in_words(verdicts: dict[str, int]) -> str:
    names = {"wrong": "labelled wrong", "contested": "contested"}
    shown = [f"{verdicts[name]:,} are {words}" for name, words in names.items() if verdicts.get(name)]
    unclear = f"; of {verdicts['unclear']:,} so few votes do not say which" if verdicts.get("unclear") else ""
    summary = " and ".join(shown) or "none is shown to be wrong or contested"
    return f"Of {sum(verdicts.values()):,} texts to train on with two votes or more, {summary}{unclear}."
