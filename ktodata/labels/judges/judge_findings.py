"""What is known of a judge, in words: the checks KD071 to KD078, each from the facts of the stage."""

from collections.abc import Mapping
from typing import Any

from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stats import percent, percent_span

CODES = {"length": "KD072", "format": "KD073", "position": "KD074", "wording": "KD075", "sycophancy": "KD076"}
TOWARD = {
    "length": ("longer answers: the same answer put twice turns", "to desirable", "to undesirable"),
    "format": ("lists and bold marks: they turn", "to desirable", "to undesirable"),
    "position": ("the answer that is named first: naming yes first turns", "to yes", "to no"),
    "wording": ("yes: asked for the good and for the bad of a reply, it says", "yes to both", "no to both"),
    "sycophancy": ("the label that it is shown: showing the other one turns", "with it", "against it"),
}
AWAY = {
    "length": "The judge marks down repetition",
    "format": "The judge marks down lists and bold marks",
    "position": "The judge leans to the answer that is named last",
    "wording": "The judge leans to no",
    "sycophancy": "The judge goes against the label that it is shown",
}
AGREES = 0.7  # a judge of two classes that agrees with people less often within one is little better than a coin


def judge_findings(facts: Mapping[str, Any]) -> list[Finding]:
    """Every check's answer, from the facts of the stage judge."""
    leanings = [_check_leaning(name, facts) for name in CODES]
    return [_check_verdicts(facts), *leanings, _check_self_preference(facts), _check_agreement(facts)]


def _check_verdicts(facts: Mapping[str, Any]) -> Finding:
    """KD071: rows that were to be judged have no verdict."""
    without, rows = facts["rows_without_verdict"], facts["rows_to_judge"]
    if not rows:
        return not_applicable("KD071", "No row was to be judged.")
    if not without:
        return passed("KD071", f"Each of {rows:,} rows that were to be judged has a verdict.")
    why = [
        f"{facts['not_requested']:,} questions were not sent (max_requests)" if facts["not_requested"] else "",
        f"{sum(facts['failed'].values()):,} failed" if facts["failed"] else "",
        f"{facts['unparsed']:,} answers were neither yes nor no" if facts["unparsed"] else "",
    ]
    reasons = "; ".join(filter(None, why))
    return issue("KD071", f"{without:,} of {rows:,} rows have no verdict of the judge: {reasons}.", without)


def _check_leaning(name: str, facts: Mapping[str, Any]) -> Finding:
    """KD072 to KD076: the judge's verdicts turn with the length or format of an answer, the wording, or a label it is shown."""
    code, measured = CODES[name], facts["probes"].get(name)
    if measured is None:
        return not_applicable(code, f"Whether the judge leans by {name} was not measured ({_to_measure(name)}).")
    what, toward, away = TOWARD[name]
    counts = f"{measured['toward']:,} of {measured['rows']:,} verdicts {toward}, {measured['away']:,} {away}"
    if measured["shown"]:
        leans = measured["leaning"]
        head = f"The judge leans to {what} {counts}" if measured["toward"] > measured["away"] else f"{AWAY[name]}: {counts}"
        ends = f"{_percent(measured['toward_share'])} of verdicts turn {toward} and {_percent(measured['away_share'])} {away}"
        return issue(code, f"{head} ({ends}; {_percent(leans)} of those that turn do so {toward}).", measured["rows"])
    if measured["could_show"] is None:
        return not_applicable(code, f"By {name}: {counts}. So few rows could have shown no leaning.")
    return passed(
        code,
        f"No leaning by {name} is shown: {counts}. One that turns {measured['could_show']:.0%} of verdicts one way and none the "
        "other would nearly always have been found; a smaller one may be there.",
    )


def _to_measure(name: str) -> str:
    return "it takes three wordings: votes: 3" if name == "wording" else "probes: true does"


def _check_self_preference(facts: Mapping[str, Any]) -> Finding:
    """KD077: undesirable rows of the judge's own family are called desirable more or less often than those of others."""
    measured = facts["self_preference"]
    own, other, family = measured["own_rows"], measured["other_rows"], measured["family"]
    if not own or not other:
        return not_applicable(
            "KD077",
            f"Whether the judge prefers its own kind was not measured: that takes undesirable rows whose `model` is of its "
            f"family ({family or 'unknown'}) and others; there are {own:,} and {other:,}.",
        )
    text = (
        f"Of rows labelled undesirable, the judge calls {_percent(measured['own'])} of {own:,} by its own family ({family}) "
        f"desirable, and {_percent(measured['others'])} of {other:,} by others."
    )
    if measured["shown"]:
        return issue("KD077", f"{text} The difference is more than chance; it may lie in the rows.", own)
    return passed("KD077", f"{text} That is no more than chance.")


def _check_agreement(facts: Mapping[str, Any]) -> Finding:
    """KD078: within a given class, the judge agrees with people's verdicts too seldom to be a second opinion."""
    classes = {name: of for name, of in facts["agreement"].items() if of["rows"]}
    if not classes:
        return not_applicable(
            "KD078",
            "How far the judge agrees with people was not measured: no judged row has a trusted label. Have some reviewed.",
        )
    text = "; ".join(
        f"on {of['agreement']['hits']:,} of {of['rows']:,} reviewed rows given as {name} ({_percent(of['agreement'])})"
        for name, of in classes.items()
    )
    text = f"The judge agrees with people {text}."
    if undrawn := [name for name, of in classes.items() if not of["drawn"]]:
        text += f" Rows given as {' and '.join(undrawn)} were not reviewed by a random draw, so nothing follows for the others."
    low = [of for of in classes.values() if of["drawn"] and of["agreement"]["high"] < AGREES]
    if low:
        return issue("KD078", f"{text} That is under {AGREES:.0%}, by the whole interval: do not rely on it there.")
    sure = all(of["drawn"] and of["agreement"]["low"] >= AGREES for of in classes.values())
    if sure and len(classes) == len(facts["agreement"]):
        return passed("KD078", text)
    return not_applicable("KD078", f"{text} That is too little to call it good or bad.")


def _percent(measure: Mapping[str, float | None]) -> str:
    """A share and its exact 95 % interval, where there is one."""
    if measure["value"] is None:
        return "none"
    low, high = measure["low"], measure["high"]
    ends = "" if low is None or high is None else f", {percent_span(low, high, 0)}"
    return f"{percent(measure['value'], 0)}{ends}"
