"""The one place where measured results about labels become words: headline, card, terminal, audit and findings all ask here.

The rules, which tests/labels/test_label_words.py holds against planted truths:

- A rate is that of the random draw, with its exact interval; rows that were judged for another reason give none. Rows of the draw
  without a label that people agree on are named, and the interval has room for all of them being wrong, and for none.
- A word is used only where the whole interval lies on its side of its line; else "too few reviews", and how many there are.
  That holds for one look: whoever looks again after each 30 reviews until a word falls gets a false one in up to twice as many
  draws near a line (tests/benchmarks/claims.py).
- Where nothing came up, the sentence says whether all rows were looked at, or why nothing could have come up.
- A p that was not measured is an order only, and is called that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ktodata.feedback import LABEL_NAMES
from ktodata.stats import Interval, percent, percent_span

MAX_NAMED = 5  # raters in a sentence
MORE_ROWS = 30  # that a review is advised to go on with
MOSTLY_BELOW = 0.05  # share of wrong labels under which they can mostly be trusted, and over which with care
UNUSABLE_ABOVE = 0.15
SWAPPED_ABOVE = 0.5  # share of wrong labels over which they say the opposite
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
    differ, or as nobody has judged them; the low end of the rate takes all of them for right, the high end for wrong. rows : that
    the rate is of; left : of them, unjudged; None where that is not known. apart : labels that no draw is made of, as their text
    has both
    """

    wrong: int
    drawn: int
    rate: Interval
    of: str = ""
    contested: int = 0
    skipped: int = 0
    rows: int | None = None
    left: int | None = None
    apart: int = 0

    @property
    def every_label(self) -> str:
        """What the rate is of."""
        return f"the {self.rows:,} labels that could be drawn" if self.apart and self.rows else "all labels"

    @property
    def is_whole(self) -> bool:
        """Whether no row is left to draw, so that only undecided ones leave anything open."""
        return self.is_counted or 0 < (self.rows or 0) <= self.drawn + self.undecided

    @property
    def is_counted(self) -> bool:
        """Whether every row was judged, so that nothing is left open."""
        return self.rate.is_counted

    @property
    def undecided(self) -> int:
        """Rows of the draw without a label that people agree on."""
        return self.contested + self.skipped

    @property
    def end_by_verdicts(self) -> str:
        """Of a class, which end of the rate all verdicts set, as they rule out the share that is wrong in the draw; or empty."""
        low, high, own = self.rate.low, self.rate.high, self.wrong / max(self.drawn, 1)
        if low is None or high is None or not self.drawn or low - 1e-9 <= own <= high + 1e-9:
            return ""
        return f", at {'least' if own < low else 'most'} {percent(low if own < low else high)} by all verdicts"

    def undecided_in_words(self) -> str:
        """How many of them are contested, and how many nobody has judged: "5 contested and 2 not judged"."""
        named = {"contested": self.contested, "not judged": self.skipped}
        return " and ".join(f"{rows:,} {word}" for word, rows in named.items() if rows)


@dataclass(frozen=True)
class ReviewedLabels:
    """What reviews say of the labels. judged : training rows with a trusted label, drawn or picked.

    wrong : of these. elsewhere : judged texts that are not to train on. of_no_use : rows that reviewers dropped. All in no rate
    refuted : verdicts on other rows rule out the whole interval of the drawn ones
    outgrown : judged rows of a draw that no longer holds, as `between` rows without a verdict stand between them now
    """

    judged: int
    whole: DrawnRate
    classes: tuple[DrawnRate, ...]
    vouched: bool = False
    of_no_use: int = 0
    wrong: int = 0
    elsewhere: int = 0
    refuted: bool = False
    outgrown: int = 0
    between: int = 0

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
    judged, wrong, elsewhere = (trusted.get(name) or 0 for name in ("rows", "judged_wrong", "judged_elsewhere"))
    refuted, vouched = bool(trusted.get("draw_refuted")), bool(trusted.get("vouched_at_random"))
    outgrown, between = (trusted.get(name) or 0 for name in ("draw_outgrown", "left_between"))
    return ReviewedLabels(judged, whole, classes, vouched, of_no_use, wrong, elsewhere, refuted, outgrown, between)


def undecided_note(of: Mapping[str, Any]) -> str:
    """Beside a rate in a table: what its ends take for right and for wrong; empty where nothing is open. of : as in `trusted`"""
    rows = _drawn_rate(of, 0).undecided_in_words()
    return f"; the interval takes {rows} for right at one end, for wrong at the other" if rows else ""


def _drawn_rate(of: Mapping[str, Any], wrong: int, name: str = "") -> DrawnRate:
    drawn, contested, skipped = (of.get(f"drawn_{rows}") or 0 for rows in ("at_random", "contested", "skipped"))
    rate, rows, left = _interval(of.get("error_rate")), of.get("rates_of"), of.get("left_to_draw")
    return DrawnRate(wrong, drawn, rate, name, contested, skipped, rows, left, of.get("not_to_draw") or 0)


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


def may_be_noisy(reviews: ReviewedLabels) -> bool:
    """Whether the draw leaves open if the labels are noisy: the interval holds NOISY_ABOVE."""
    return reviews.drawn > 0 and is_above(reviews, NOISY_ABOVE) is None


def are_noisy(reviews: ReviewedLabels) -> bool:
    """Whether the labels may be called noisy: the whole interval of the share of wrong ones lies above NOISY_ABOVE."""
    return bool(is_above(reviews, NOISY_ABOVE))


def is_above(reviews: ReviewedLabels, line: float) -> bool | None:
    """Whether the share of wrong labels is over a line; None where the interval lies on both sides of it, or is not known."""
    low, high = reviews.whole.rate.low, reviews.whole.rate.high
    if low is None or high is None or (low <= line <= high and not reviews.whole.is_counted):
        return None
    return low > line


def wrong_of_all(reviews: ReviewedLabels) -> str:
    """How many of all labels are wrong: by the draw, or as far as all verdicts make it certain where they refute the draw."""
    if reviews.refuted:
        known = "The draw and the other verdicts are at odds; all that is certain:"
        return f"{known} {span(reviews.whole.rate)} of {reviews.whole.every_label} are wrong."
    return f"{_every_row(reviews.whole) or 'By the draw'} {span(reviews.whole.rate)} of {reviews.whole.every_label} are wrong."


def _every_row(whole: DrawnRate) -> str:
    """Said of a count; empty where rows are left to draw."""
    return f"Every row that could be drawn was {'judged' if whole.is_counted else 'looked at'}:" if whole.is_whole else ""


def _the_labels(reviews: ReviewedLabels) -> str:
    return reviews.whole.every_label if reviews.whole.apart else "the labels"


def noisy_sentence(reviews: ReviewedLabels) -> str:
    """Of labels that may be called noisy: how many are wrong, and how that is known; of each label `review_sentence` says it."""
    if reviews.refuted:
        return wrong_of_all(reviews)
    known = _every_row(reviews.whole) or f"By rows {_how_chosen(reviews)}"
    return f"{known} {span(reviews.whole.rate)} of {_the_labels(reviews)} are wrong."


class NextForLabels(NamedTuple):
    """What a person should do about the labels, in a word and a sentence; empty where nothing is left.

    to_judge : rows that a person should judge now. draw : those of them of the random draw, which the desk asks about first
    """

    short: str = ""
    text: str = ""
    to_judge: int = 0
    draw: int = 0


def next_for_labels(reviews: ReviewedLabels, *, held: int = 0) -> NextForLabels:
    """As the rate of wrong labels leaves it; no more rows to judge than are left.

    held : of the rows that are left, those that a person is asked about anyway, as label_noise holds them
    """
    rate, too_many = reviews.whole.rate, is_above(reviews, MOSTLY_BELOW)
    if rate.high is None or reviews.refuted:
        return _first_reviews(reviews)
    if too_many is False:
        return NextForLabels()
    if reviews.whole.is_counted:
        wrong = f"{span(rate)} of them were wrong as they were given"
        text = f"Train on the verdicts: every label that could be drawn was judged, and {wrong}."
        return NextForLabels("Use the verdicts.", text)
    if reviews.whole.is_whole:
        text = f"Settle the rows that no verdict stands on, {reviews.whole.undecided_in_words()}: no other is left to draw."
        return NextForLabels("Settle what is open.", text, reviews.whole.skipped, reviews.whole.skipped)
    if too_many is None:
        draw = _rows_to_draw(max(FIRST_SAMPLE - reviews.drawn, MORE_ROWS), reviews)
        text = f"Have {_rows(draw)} more of the random draw judged: {_room(reviews)}."
        return NextForLabels("Have more rows judged.", text, draw, draw)
    return _of_too_many_wrong(reviews, held)


def _of_too_many_wrong(reviews: ReviewedLabels, held: int) -> NextForLabels:
    wrong = f"By the draw {span(reviews.whole.rate)} of {_the_labels(reviews)} are wrong as they were given (95 % interval)"
    if is_above(reviews, SWAPPED_ABOVE):
        text = f"{wrong}, more than half: look at how the label was read (`ktodata init`) before any more is judged."
        return NextForLabels("See whether up and down are swapped.", text)
    text = f"{wrong}: the more are judged, the fewer stay so."
    return NextForLabels("Have more rows judged.", text, max(_at_most_left(MORE_ROWS + held, reviews) - held, 0))


def _rows_to_draw(rows: int, reviews: ReviewedLabels) -> int:
    """So many, or fewer where those make most of what was drawn count again."""
    return _at_most_left(min(reviews.between, rows) if reviews.outgrown > reviews.drawn else rows, reviews)


def _at_most_left(rows: int, reviews: ReviewedLabels) -> int:
    return rows if reviews.whole.left is None else min(rows, reviews.whole.left)


def _first_reviews(reviews: ReviewedLabels) -> NextForLabels:
    """Where no rate is known, or none that may be believed."""
    if reviews.refuted:
        why = "were both asked the same, and were the rows of the draw drawn?"
        return NextForLabels("Find out why verdicts differ.", f"{wrong_of_all(reviews)} Look into why: {why}")
    if reviews.whole.contested:
        differ = f"People differ on all of the {_rows(reviews.whole.contested)} of the draw that they judged"
        return NextForLabels("Settle the criterion.", f"{differ}: say more clearly what is desirable, and judge them again.")
    draw = _rows_to_draw(FIRST_SAMPLE, reviews)
    if not draw:
        return NextForLabels()
    every = f"{'the other' if reviews.judged else 'all'} {_rows(draw)} that can be drawn"
    some = every if reviews.whole.left == draw else f"{_rows(draw)}, drawn at random within each label"
    text = f"Have somebody you trust judge {some}: nothing else shows errors that follow a rule."
    return NextForLabels("Have a sample judged.", text, draw, draw)


def noise_unshown(reviews: ReviewedLabels) -> str:
    """Of labels that may not be called noisy: what is known of how many are wrong."""
    if reviews.whole.is_counted:
        return f"All {_rows(reviews.drawn)} that could be drawn were judged: {span(reviews.whole.rate)} are labelled wrong."
    if reviews.whole.rate.high is None:
        return "Whether the labels are noisy is not measured: that takes a random draw of rows that somebody trusted judges."
    if reviews.refuted:
        return wrong_of_all(reviews)
    if (picked := reviews.judged - reviews.drawn) and reviews.wrong:
        carry = "carries" if reviews.wrong == 1 else "carry"
        of_all = f"Of all {_rows(reviews.judged)} judged, {picked:,} of them picked, {reviews.wrong:,} {carry} a wrong label"
        return f"{_room(reviews)}. {of_all}."
    return f"{_room(reviews)}."


def _room(reviews: ReviewedLabels) -> str:
    """What the draw leaves open of the share of wrong labels."""
    among = f" among {reviews.whole.every_label}" if reviews.whole.apart else " labels"
    leaves = f"leave{'s' if reviews.drawn == 1 else ''} room for {span(reviews.whole.rate)} wrong{among}"
    known = [] if reviews.whole.is_whole else ["95 % interval"]
    known += [f"{reviews.whole.undecided_in_words()}, right or wrong"] if reviews.whole.undecided else []
    return f"{_rows(reviews.drawn)} {_how_chosen(reviews)} {leaves} ({'; '.join(known)})"


def _how_chosen(reviews: ReviewedLabels) -> str:
    """Why the judged rows stand for all: they were drawn, or are all of their label."""
    entire = [part.of for part in reviews.classes if part.drawn and part.is_whole]
    if not entire:
        return "drawn at random and judged"
    rest = any(part.drawn and not part.is_whole for part in reviews.classes)
    if not rest and reviews.whole.is_whole:
        return "judged, of all that could be drawn,"
    return f"judged (all labelled {' or '.join(entire)}{', and a random draw of the others' if rest else ''})"


def review_sentence(reviews: ReviewedLabels) -> str:
    """How many labels are wrong by the random draw, and which judged rows say nothing of that; empty without any review."""
    picked = reviews.judged - reviews.drawn
    if not reviews.drawn:
        return " ".join(_without_rate(reviews))
    text = _drawn_sentence(reviews)
    if reviews.vouched:
        text += " That they were drawn at random is as the setting trusted_at_random says."
    text = " ".join([text, *_left_out(reviews)])
    if not picked:
        return text
    # of a text with both labels the right row stays, so that none wrong says nothing
    wrong = reviews.wrong - reviews.whole.wrong
    of_them = f"{wrong:,} of them wrong, " if wrong > 0 else ""
    ruled_out = ", but for what they rule out" if any(part.end_by_verdicts for part in reviews.classes) else ""
    text = f"{text} {picked:,} more judged, {of_them}not known to be of the draw, count for themselves alone{ruled_out}."
    return " ".join([text, *_outgrown(reviews)])


def _without_rate(reviews: ReviewedLabels) -> Iterator[str]:
    if reviews.whole.contested:
        yield f"People differ on each of {_rows(reviews.whole.contested)} of the random draw that they judged: no rate follows."
    if reviews.judged:
        yield f"{_rows(reviews.judged)} {_has(reviews.judged)} a trusted label, not known to be a random draw: no rate follows."
        yield "The random order comes from row_id (made of source_id, rater, time, label); adding many rows changes it."
        yield "If it was one of all rows: trusted_at_random: true."
    yield from _outgrown(reviews)
    yield from _left_out(reviews)


def _outgrown(reviews: ReviewedLabels) -> Iterator[str]:
    if reviews.outgrown:
        were = "was" if reviews.outgrown == 1 else "were"
        yield f"{reviews.outgrown:,} of them {were} drawn earlier; rows were added or skipped since."
        these = "this row" if reviews.between == 1 else f"these {_rows(reviews.between)}"
        yield f"Judge {these}, the first of the next reviews, and the draw counts again."


def _left_out(reviews: ReviewedLabels) -> Iterator[str]:
    if reviews.of_no_use:
        yield f"{_rows(reviews.of_no_use)} that a reviewer called of no use {_is_are(reviews.of_no_use)} left out."
    if reviews.elsewhere:
        texts = f"{reviews.elsewhere:,} judged text{'' if reviews.elsewhere == 1 else 's'}"
        yield f"{texts} {_is_are(reviews.elsewhere)} not to train on, held out or set aside, and in no rate."


def _drawn_sentence(reviews: ReviewedLabels) -> str:
    """How many labels are wrong by the draw, and what its rows without a verdict that stands leave open."""
    whole = reviews.whole
    carry = f"{'carries' if 1 in (whole.wrong, whole.drawn) else 'carry'} a wrong label"
    if whole.is_counted:
        counted = f"{whole.wrong:,} {carry}, {span(whole.rate)} ({class_rates(reviews)})"
        return f"All {_rows(whole.drawn)} that could be drawn were judged: {counted}."
    text = f"{whole.wrong:,} of {_rows(whole.drawn)} {_how_chosen(reviews)} {carry}"
    known, of_classes = whole.rate.value, class_rates(reviews)
    if reviews.refuted:
        of_all = f"{text}, and {reviews.wrong:,} of all {_rows(reviews.judged)} judged: the draw and the other verdicts"
        why = "another criterion, rows that were not drawn, or one draw in forty"
        return f"{of_all} are at odds ({why}). All that is certain: {span(whole.rate)} are wrong."
    if not whole.undecided and known is None:
        return f"{text}. Of {whole.every_label} {span(whole.rate)} are wrong (95 % interval; {of_classes})."
    if not whole.undecided:
        return f"{text}. Of {whole.every_label} that is {percent(known or 0.0)} (95 % interval {span(whole.rate)}; {of_classes})."
    if whole.is_whole:
        every = _rows(whole.drawn + whole.undecided)
        text = f"All {every} that could be drawn were looked at: {whole.wrong:,} of {whole.drawn:,} judged {carry}"
    text += f"; of the draw {whole.undecided_in_words()}. "
    text += "" if known is None else f"Of labels like those judged that is {percent(known)}. "
    ends = of_classes if whole.is_whole else f"95 % interval; {of_classes}"
    of_all = f"Of {whole.every_label} {span(whole.rate)} are wrong, the open ones all right at one end and all wrong at the other"
    return f"{text}{of_all} ({ends})."


def class_rates(reviews: ReviewedLabels) -> str:
    """Wrong labels of each given class, by the random draw; a class of which nothing was drawn is named."""
    return "; ".join(f"{part.of}: {_rate(part)}" for part in reviews.classes if part.rows != 0)


def both_labels_sentence(texts: int, rows: int) -> str:
    """Texts that wait for a person because raters are even. rows : of them that are held; their repeats are dropped"""
    what = f"{texts:,} text{'' if texts == 1 else 's'} ({_rows(rows)})"
    return f"{what} {_has(texts)} both labels, and no majority decides"


def at_odds_sentence(raters: Sequence[Mapping[str, Any]]) -> str:
    """Raters who go against the others by more than chance, each before a bracket, where a page without names finds the name.

    raters : "at_odds" of the votes
    """
    each = ", ".join(
        f"rater {one['rater']} (agrees on {one['agrees']:,} of {one['shared']:,} texts)" for one in raters[:MAX_NAMED]
    )
    more = f", and {len(raters) - MAX_NAMED:,} more" if len(raters) > MAX_NAMED else ""
    return f"At odds with the majority of the others: {each}{more}; the votes cannot show which of them is wrong." if each else ""


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
    pieces = "text and votes together are" if fit.get("with_votes") else "the text is"
    if not is_worth_nothing(fit):
        return f"What {pieces} worth, {fit['reviewed']:,} reviewed rows say ({both})."
    # as far as the two figures beside it show
    than = "worse than" if round(fit["log_loss"], 2) > round(fit["by_rates"], 2) else "no better than"
    return f"By {fit['reviewed']:,} reviewed rows {pieces} {than} knowing only the class shares ({both})."


def is_worth_nothing(fit: Mapping[str, Any]) -> bool:
    """Whether the class shares alone foretell reviewed rows at least as well."""
    return bool(fit["log_loss"] >= fit["by_rates"])


def p_was_measured(facts: Mapping[str, Any]) -> bool:
    """Whether p(wrong) is a probability: enough rows of each label were reviewed, and the draw does not refute it."""
    return "borne_out" in facts and not facts.get("unmeasured")


def p_in_words(measured: bool, fit: Mapping[str, Any] | None = None) -> str:
    """What a p(wrong) beside it is. fit : "stacking" of the metrics, where there is one"""
    if not measured:
        return ORDER_ONLY
    return f"{AS_MEASURED}, where it is no better than the class shares" if fit and is_worth_nothing(fit) else AS_MEASURED


def _rate(part: DrawnRate) -> str:
    undecided = part.undecided_in_words()
    if not part.drawn:
        return f"none judged, {undecided}" if undecided else "none known to be drawn"
    return (
        f"{part.wrong:,} of {part.drawn:,} wrong{f', {undecided}' if undecided else ''} ({span(part.rate)}{part.end_by_verdicts})"
    )


def span(rate: Interval) -> str:
    """The ends of a share as percentages, one where they are the same."""
    if rate.low is None or rate.high is None:
        return "unknown"
    if rate.low == rate.high:
        return percent(rate.high)
    return percent_span(rate.low, rate.high)


def _rows(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _has(rows: int) -> str:
    return "has" if rows == 1 else "have"


def _is_are(rows: int) -> str:
    return "is" if rows == 1 else "are"
