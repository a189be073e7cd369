"""The one place where measured results about labels become words: headline, card, terminal, audit and findings all ask here.

The rules, which tests/labels/test_label_words.py holds against planted truths:

- A rate is that of the random draw, with its exact interval; rows that were judged for another reason give none.
- A word is used only where the whole interval lies on its side of its line; else "too few reviews", and how many there are.
- Where nothing came up, the sentence says what could have come up: the share that the rows at hand would have shown.
- A p that was not measured is an order only, and is called that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ktodata.feedback import LABEL_NAMES
from ktodata.stats import Interval, detectable_share

MOSTLY_BELOW = 0.05  # share of wrong labels under which they can mostly be trusted, and over which with care
UNUSABLE_ABOVE = 0.15
NOISY_ABOVE = 0.03  # from here on wrong labels are named among what spoils a set
ORDER_ONLY = "an order only: not measured on this data"
AS_MEASURED = "as measured on this data"
FIRST_SAMPLE = 100  # rows that a first review is advised to have
BY_INJECTED = "injected flips"  # the basis of flags that no review has measured
NO_RATE = Interval(None, None, None)


@dataclass(frozen=True)
class DrawnRate:
    """Wrong labels by a random draw. `of`: the class of the given labels, or "" for all."""

    wrong: int
    drawn: int
    rate: Interval
    of: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether every row was judged, so that nothing is left open."""
        return self.rate.is_counted


@dataclass(frozen=True)
class ReviewedLabels:
    """What reviews say of the labels. judged : training rows with a trusted label, drawn or picked."""

    judged: int
    whole: DrawnRate
    classes: tuple[DrawnRate, ...]
    vouched: bool = False

    @property
    def drawn(self) -> int:
        """Rows of the random draw that were judged."""
        return self.whole.drawn


def reviewed_labels(trusted: Mapping[str, Any]) -> ReviewedLabels:
    """From metrics `trusted` of label_noise; what is missing or of another kind counts as nothing judged."""
    trusted = trusted if isinstance(trusted, Mapping) else {}
    classes = tuple(
        DrawnRate(of.get("drawn_wrong", 0), of.get("drawn_at_random", 0), _interval(of.get("error_rate")), name)
        for name in LABEL_NAMES.values()
        if isinstance(of := trusted.get(name), Mapping)
    )
    drawn = trusted.get("drawn_at_random") or 0
    whole = DrawnRate(trusted.get("wrong") or 0 if drawn else 0, drawn, _interval(trusted.get("error_rate")))
    return ReviewedLabels(trusted.get("rows") or 0, whole, classes, bool(trusted.get("vouched_at_random")))


def _interval(value: Any) -> Interval:
    return Interval(value.get("value"), value.get("low"), value.get("high")) if isinstance(value, Mapping) else NO_RATE


def trust_word(reviews: ReviewedLabels) -> str:
    """Whether the labels can be trusted, in a word that the whole interval bears out."""
    if reviews.whole.rate.high is None:
        return "Not measured."
    if is_above(reviews, UNUSABLE_ABOVE):
        return "Not as they are."
    word = {True: "With care.", False: "Mostly.", None: f"Too few reviews ({reviews.drawn:,})."}
    return word[is_above(reviews, MOSTLY_BELOW)]


def are_noisy(reviews: ReviewedLabels) -> bool:
    """Whether the labels may be called noisy: the whole interval of the share of wrong ones lies above NOISY_ABOVE."""
    return bool(is_above(reviews, NOISY_ABOVE))


def is_above(reviews: ReviewedLabels, line: float) -> bool | None:
    """Whether the share of wrong labels is over a line; None where the interval lies on both sides of it, or is not known."""
    low, high = reviews.whole.rate.low, reviews.whole.rate.high
    if low is None or high is None or (low <= line <= high and not reviews.whole.is_counted):
        return None
    return low > line


def noisy_sentence(reviews: ReviewedLabels) -> str:
    """Of labels that may be called noisy: how many of each class are wrong, and how that is known."""
    known = "every row that could be drawn was judged" if reviews.whole.is_counted else "by the random draw"
    return f"Wrong labels, {known}: {class_rates(reviews)}."


class NextForLabels(NamedTuple):
    """What a person should do about the labels, in a word and a sentence; empty where nothing is left.

    to_judge : whether that is to judge rows
    """

    short: str = ""
    text: str = ""
    to_judge: bool = False


def next_for_labels(reviews: ReviewedLabels, rows: int) -> NextForLabels:
    """As the rate of wrong labels leaves it. rows : in all"""
    rate, too_many = reviews.whole.rate, is_above(reviews, MOSTLY_BELOW)
    if rate.high is None:
        some = f"all {_rows(rows)}" if 0 < rows <= FIRST_SAMPLE else f"about {FIRST_SAMPLE} rows drawn at random from each label"
        text = f"Have somebody you trust judge {some}: nothing else shows errors that follow a rule."
        return NextForLabels("Have a sample judged.", text, to_judge=True)
    if too_many is False:
        return NextForLabels()
    if reviews.whole.is_counted:
        wrong = f"{_span(rate)} of them were wrong as they were given"
        text = f"Train on the verdicts: every label that could be drawn was judged, and {wrong}."
        return NextForLabels("Use the verdicts.", text)
    if too_many is None:
        left = f"{_rows(reviews.drawn)} leave room for {_span(rate)} wrong labels"
        return NextForLabels("Have more rows judged.", f"Have more rows of the random draw judged: {left}.", to_judge=True)
    wrong = f"by the draw {_span(rate)} of all labels are wrong (95 % interval)"
    text = f"Have more rows judged: {wrong}, and a verdict mends only the row that it is on."
    return NextForLabels("Have more rows judged.", text, to_judge=True)


def noise_unshown(reviews: ReviewedLabels) -> str:
    """Of labels that may not be called noisy: what is known of how many are wrong."""
    if reviews.whole.is_counted:
        return f"All {_rows(reviews.drawn)} that could be drawn were judged: {_span(reviews.whole.rate)} of the labels are wrong."
    if reviews.whole.rate.high is None:
        return "Whether the labels are noisy is not measured: that takes a random draw of rows that somebody trusted judges."
    return f"{_rows(reviews.drawn)} drawn at random leave room for {_span(reviews.whole.rate)} wrong labels (95 % interval)."


def review_sentence(reviews: ReviewedLabels) -> str:
    """How many labels are wrong by the random draw, and which judged rows say nothing of that; empty without any review."""
    if not reviews.judged:
        return ""
    picked = reviews.judged - reviews.drawn
    if not reviews.drawn:
        return f"{_rows(reviews.judged)} {_has(reviews.judged)} a trusted label, not known to be a random draw: no rate follows."
    whole = reviews.whole
    if whole.is_counted:
        text = f"All {_rows(whole.drawn)} that could be drawn were judged: {whole.wrong:,} {_carries(whole.wrong)} a wrong "
        text += f"label, {_span(whole.rate)} ({class_rates(reviews)})."
    else:
        text = f"{whole.wrong:,} of {_rows(whole.drawn)} drawn at random and judged {_carries(whole.wrong)} a wrong label. "
        of_all = "Of all labels" if whole.rate.value is None else f"Of all labels that is {percent(whole.rate.value)}"
        text += f"{of_all} (95 % interval {_span(whole.rate)}; {class_rates(reviews)})."
    if reviews.vouched:
        text += " That they were drawn at random is as the setting trusted_at_random says."
    return text + (f" {_rows(picked)} judged for another reason {_is_are(picked)} not counted." if picked else "")


def class_rates(reviews: ReviewedLabels) -> str:
    """Wrong labels of each given class, by the random draw; a class of which nothing was drawn is named."""
    return "; ".join(f"{part.of}: {_rate(part) if part.drawn else 'none drawn'}" for part in reviews.classes)


def flags_sentence(figures: Mapping[str, Any], rows: int, judged: int) -> str:
    """Of one given class: how many rows are flagged, how many of these were judged, all wrong, and what is said of the others.

    figures : "per_given_class" of the injected flips. A flag whose label a reviewer confirmed is taken back, and none of `rows`
    """
    left = rows - judged
    text = f"{_rows(rows)}" + (f", {judged:,} of them judged wrong" if judged else "")
    if not left:
        return text
    return f"{text}{f'; of the other {left:,}' if judged else ''}, {flag_precision(figures)}"


def flag_precision(figures: Mapping[str, Any]) -> str:
    """How many flags are right, and what that rests on: by injected flips on a condition that nobody has measured."""
    precision, basis = figures["expected_precision"], figures["basis"]
    value, low = f"{precision['value']:.0%}", f"at least {precision['low']:.0%}"
    if basis == BY_INJECTED:
        return f"{value} would be wrong ({low}) {if_random(figures)}; whether so many are is not known"
    return f"{value} expected wrong ({low}, measured on {basis})"


def if_random(figures: Mapping[str, Any]) -> str:
    """The assumption behind a precision that injected flips give."""
    assumed = figures.get("error_rate_assumed")
    return "if labels were wrong at random" if assumed is None else f"if {percent(assumed)} of these labels were wrong at random"


def worth_sentence(fit: Mapping[str, Any]) -> str:
    """How well text and votes foretell reviewed rows, beside the class shares alone. fit : "stacking" of the metrics"""
    both = f"log loss {fit['log_loss']:.2f} nats out of fold; the rates of the given labels alone: {fit['by_rates']:.2f}"
    votes = any(str(each["evidence"]).startswith(("vote of", "share of votes")) for each in fit.get("weights", ()))
    pieces = "text and votes together are" if votes else "the text is"
    if not is_worth_nothing(fit):
        return f"What {pieces} worth, {fit['reviewed']:,} reviewed rows say ({both})."
    than = "worse than" if fit["log_loss"] > fit["by_rates"] else "no better than"
    return f"By {fit['reviewed']:,} reviewed rows {pieces} {than} knowing only the class shares ({both})."


def is_worth_nothing(fit: Mapping[str, Any]) -> bool:
    """Whether the class shares alone foretell reviewed rows at least as well."""
    return bool(fit["log_loss"] >= fit["by_rates"])


def none_among(rows: int, what: str) -> str:
    """What `rows` without a hit could have shown, if they stand for the others; what: in the plural."""
    least = detectable_share(rows)
    if least is None:
        return f"No {what} could come up: no row was looked at."
    return f"No {what} among {_rows(rows)}; had more than {percent(least)} been such, some would have come up (95 % sure)."


def p_in_words(measured: bool, fit: Mapping[str, Any] | None = None) -> str:
    """What a p(wrong) beside it is. fit : "stacking" of the metrics, where there is one"""
    if not measured:
        return ORDER_ONLY
    return f"{AS_MEASURED}, where it is no better than the class shares" if fit and is_worth_nothing(fit) else AS_MEASURED


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage with a thin space before the sign."""
    return f"{100 * value:.{digits}f}\u2009%"


def _rate(part: DrawnRate) -> str:
    return f"{part.wrong:,} of {part.drawn:,} wrong ({_span(part.rate)})"


def _carries(rows: int) -> str:
    return "carries" if rows == 1 else "carry"


def _span(rate: Interval) -> str:
    if rate.low is None or rate.high is None:
        return "unknown"
    if rate.low == rate.high:
        return percent(rate.high)
    return f"{100 * rate.low:.1f} to {percent(rate.high)}"


def _rows(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _has(rows: int) -> str:
    return "has" if rows == 1 else "have"


def _is_are(rows: int) -> str:
    return "is" if rows == 1 else "are"
