"""The one place where measured results about labels become words: headline, card, terminal, audit and findings all ask here.

The rules, which tests/labels/test_label_words.py holds against planted truths:

- A rate is that of the random draw, with its exact interval; rows that were judged for another reason give none. Rows of the draw
  without a label that people agree on are named, and the interval has room for all of them being wrong, and for none.
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
FIRST_SAMPLE = 60  # rows that a first review is advised to have: as many as label_noise draws (`review_rows`)
BY_INJECTED = "injected flips"  # the basis of flags that no review has measured
NO_RATE = Interval(None, None, None)


@dataclass(frozen=True)
class DrawnRate:
    """Wrong labels by a random draw. `of`: the class of the given labels, or "" for all.

    drawn : rows with a trusted label; rate.value is of these. contested, skipped : rows of the draw without one, as people
    differ, or as nobody has judged them; the low end of the rate takes all of them for right, the high end for wrong
    """

    wrong: int
    drawn: int
    rate: Interval
    of: str = ""
    contested: int = 0
    skipped: int = 0

    @property
    def is_counted(self) -> bool:
        """Whether every row was judged, so that nothing is left open."""
        return self.rate.is_counted

    @property
    def undecided(self) -> int:
        """Rows of the draw without a label that people agree on."""
        return self.contested + self.skipped

    def undecided_in_words(self) -> str:
        """How many of them are contested, and how many nobody has judged: "5 contested and 2 not judged"."""
        named = {"contested": self.contested, "not judged": self.skipped}
        return " and ".join(f"{rows:,} {word}" for word, rows in named.items() if rows)


@dataclass(frozen=True)
class ReviewedLabels:
    """What reviews say of the labels. judged : training rows with a trusted label, drawn or picked.

    drawable : rows that the draw is made of; 0 where that is not known. of_no_use : rows that reviewers dropped, in no rate
    """

    judged: int
    whole: DrawnRate
    classes: tuple[DrawnRate, ...]
    vouched: bool = False
    drawable: int = 0
    of_no_use: int = 0

    @property
    def is_drawn_out(self) -> bool:
        """Whether no row is left to draw, so that only undecided ones leave anything open."""
        return 0 < self.drawable <= self.drawn + self.whole.undecided

    @property
    def drawn(self) -> int:
        """Rows of the random draw that were judged."""
        return self.whole.drawn


def reviewed_labels(trusted: Mapping[str, Any], of_no_use: int = 0) -> ReviewedLabels:
    """From metrics `trusted` of label_noise; what is missing or of another kind counts as nothing judged."""
    trusted = trusted if isinstance(trusted, Mapping) else {}
    classes = tuple(
        _drawn_rate(of, of.get("drawn_wrong", 0), name)
        for name in LABEL_NAMES.values()
        if isinstance(of := trusted.get(name), Mapping)
    )
    whole = _drawn_rate(trusted, (trusted.get("wrong") or 0) if trusted.get("drawn_at_random") else 0)
    vouched, drawable = bool(trusted.get("vouched_at_random")), trusted.get("rates_of") or 0
    return ReviewedLabels(trusted.get("rows") or 0, whole, classes, vouched, drawable, of_no_use)


def undecided_note(of: Mapping[str, Any]) -> str:
    """Beside a rate in a table: what its ends take for right and for wrong; empty where nothing is open. of : as in `trusted`"""
    rows = _drawn_rate(of, 0).undecided_in_words()
    return f"; the interval takes {rows} for right at one end, for wrong at the other" if rows else ""


def _drawn_rate(of: Mapping[str, Any], wrong: int, name: str = "") -> DrawnRate:
    drawn, contested, skipped = (of.get(f"drawn_{rows}") or 0 for rows in ("at_random", "contested", "skipped"))
    return DrawnRate(wrong, drawn, _interval(of.get("error_rate")), name, contested, skipped)


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
        drawn = f"about {FIRST_SAMPLE} rows drawn at random, half from each label"
        some = f"all {_rows(rows)}" if 0 < rows <= FIRST_SAMPLE else drawn
        text = f"Have somebody you trust judge {some}: nothing else shows errors that follow a rule."
        return NextForLabels("Have a sample judged.", text, to_judge=True)
    if too_many is False:
        return NextForLabels()
    if reviews.whole.is_counted:
        wrong = f"{_span(rate)} of them were wrong as they were given"
        text = f"Train on the verdicts: every label that could be drawn was judged, and {wrong}."
        return NextForLabels("Use the verdicts.", text)
    if reviews.is_drawn_out:
        text = f"Settle the rows that no verdict stands on, {reviews.whole.undecided_in_words()}: no other is left to draw."
        return NextForLabels("Settle what is open.", text)
    if too_many is None:
        text = f"Have more rows of the random draw judged: {_room(reviews)}."
        return NextForLabels("Have more rows judged.", text, to_judge=True)
    wrong = f"by the draw {_span(rate)} of all labels are wrong (95 % interval)"
    text = f"Have more rows judged: {wrong}, and a verdict mends only the row that it is on."
    return NextForLabels("Have more rows judged.", text, to_judge=True)


def noise_unshown(reviews: ReviewedLabels) -> str:
    """Of labels that may not be called noisy: what is known of how many are wrong."""
    if reviews.whole.is_counted:
        return f"All {_rows(reviews.drawn)} that could be drawn were judged: {_span(reviews.whole.rate)} of the labels are wrong."
    if reviews.whole.rate.high is None:
        return "Whether the labels are noisy is not measured: that takes a random draw of rows that somebody trusted judges."
    return f"{_room(reviews)}."


def _room(reviews: ReviewedLabels) -> str:
    """What the draw leaves open of the share of wrong labels."""
    leaves = f"leave{'s' if reviews.drawn == 1 else ''} room for {_span(reviews.whole.rate)} wrong labels"
    known = [] if reviews.is_drawn_out else ["95 % interval"]
    known += [f"{reviews.whole.undecided_in_words()}, right or wrong"] if reviews.whole.undecided else []
    return f"{_rows(reviews.drawn)} drawn at random and judged {leaves} ({'; '.join(known)})"


def review_sentence(reviews: ReviewedLabels) -> str:
    """How many labels are wrong by the random draw, and which judged rows say nothing of that; empty without any review."""
    if not reviews.judged:
        return ""
    picked = reviews.judged - reviews.drawn
    if not reviews.drawn:
        return f"{_rows(reviews.judged)} {_has(reviews.judged)} a trusted label, not known to be a random draw: no rate follows."
    text = _drawn_sentence(reviews)
    if reviews.vouched:
        text += " That they were drawn at random is as the setting trusted_at_random says."
    if reviews.of_no_use:
        text += f" {_rows(reviews.of_no_use)} that a reviewer called of no use {_is_are(reviews.of_no_use)} left out."
    return text + (f" {_rows(picked)} judged for another reason {_is_are(picked)} not counted." if picked else "")


def _drawn_sentence(reviews: ReviewedLabels) -> str:
    """How many labels are wrong by the draw, and what its rows without a verdict that stands leave open."""
    whole = reviews.whole
    carry = f"{'carries' if 1 in (whole.wrong, whole.drawn) else 'carry'} a wrong label"
    if whole.is_counted:
        counted = f"{whole.wrong:,} {carry}, {_span(whole.rate)} ({class_rates(reviews)})"
        return f"All {_rows(whole.drawn)} that could be drawn were judged: {counted}."
    text = f"{whole.wrong:,} of {_rows(whole.drawn)} drawn at random and judged {carry}"
    known = whole.rate.value
    if not whole.undecided:
        of_all = "Of all labels" if known is None else f"Of all labels that is {percent(known)}"
        return f"{text}. {of_all} (95 % interval {_span(whole.rate)}; {class_rates(reviews)})."
    text += f"; of the draw {whole.undecided_in_words()}. "
    text += "" if known is None else f"Of labels like those judged that is {percent(known)}. "
    ends = class_rates(reviews) if reviews.is_drawn_out else f"95 % interval; {class_rates(reviews)}"
    of_all = f"Of all labels {_span(whole.rate)} are wrong, the open ones all right at one end and all wrong at the other"
    return f"{text}{of_all} ({ends})."


def class_rates(reviews: ReviewedLabels) -> str:
    """Wrong labels of each given class, by the random draw; a class of which nothing was drawn is named."""
    return "; ".join(f"{part.of}: {_rate(part)}" for part in reviews.classes)


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
    undecided = part.undecided_in_words()
    if not part.drawn:
        return f"none judged, {undecided}" if undecided else "none drawn"
    return f"{part.wrong:,} of {part.drawn:,} wrong{f', {undecided}' if undecided else ''} ({_span(part.rate)})"


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
