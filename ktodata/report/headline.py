"""The five lines at the top: what the numbers mean for the reader, in plain words, and what is not known, named as such."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from ktodata.feedback import LABEL_NAMES
from ktodata.formats.inspection.draft_lines import UNDECIDED
from ktodata.formats.label_rules import MAX_SHOWN, values_in_words
from ktodata.labels.label_words import (
    ORDER_ONLY,
    NextForLabels,
    are_noisy,
    may_be_noisy,
    next_for_labels,
    noise_unshown,
    noisy_sentence,
    review_sentence,
    trust_word,
)
from ktodata.report.run_contents import RunContents, read_contents
from ktodata.report.run_files import pick
from ktodata.report.sections.flow_section import UNLABELLED, FlowSection, RecordAccount, held_rows
from ktodata.report.sections.labels_section import LabelsSection
from ktodata.report.text import count, interval, lead, number, one_line, percent, plural

UNMAPPED = 0.1  # share of records whose label has a value without a meaning, from which that comes before all else
WORTH_A_LINE = 0.02  # share of records, or of rows, from which those that cannot be used, or repeat others, spoil a set
LOPSIDED = 2 / 3  # share of one label above which a set is called lopsided
CROWDED = 0.5  # share of the largest prompt cluster above which the prompts are called narrow


@dataclass(frozen=True)
class HeadlineLine:
    """One question, its answer in a word or two, and the numbers behind it."""

    question: str
    short: str
    text: str
    command: str = ""  # to be pasted into a terminal
    to_judge: int = 0  # rows that it asks a person about

    def without_command(self, how: str) -> "HeadlineLine":
        """For where there is no terminal. how : where the rows are named and their verdicts taken; {} stands for their number"""
        text = f"{self.text} {how.format(self.to_judge)}" if self.to_judge else self.text
        return replace(self, text=text, command="")


def headline_text(run: Path) -> list[str]:
    """The five lines as plain text, for a terminal. Raises RunError when `run` is no run folder."""
    return [plain_text(line) for line in headline(read_contents(run))]


def plain_text(line: HeadlineLine) -> str:
    """For a terminal: question, answer, numbers, command."""
    command = f"Now: {line.command}" if line.command else ""
    return " ".join(filter(None, (line.question, line.short, line.text, command))).replace("`", "")


def headline(contents: RunContents) -> list[HeadlineLine]:
    """The five lines, from the sections' contents."""
    return [
        label_trust(contents.noise),
        HeadlineLine("What spoils this set?", *_what_spoils(contents)),
        HeadlineLine("What was done?", *_what_was_done(contents)),
        HeadlineLine("Did it help?", *_did_it_help(contents)),
        HeadlineLine("What should a person do next?", *_next_steps(contents)),
    ]


def label_trust(noise: LabelsSection | None) -> HeadlineLine:
    """How far the labels can be trusted, and how far that answer itself can be."""
    question = "Can these labels be trusted?"
    if noise is None:
        return HeadlineLine(question, "Not looked at.", "Label noise is not part of this run.")
    by_draw = noise.reviews.drawn > 0
    text = " ".join(filter(None, (review_sentence(noise.reviews), _by_the_model(noise))))
    if by_draw:
        return HeadlineLine(question, trust_word(noise.reviews), text)
    few = "Not measured." if noise.reviews.judged else "Too few rows to say."  # of judged rows a draw is what is missing
    short = {"not": "The text does not show it.", "too few": few, "not learnt": "Too few rows of one label to say."}
    return HeadlineLine(question, short.get(noise.verdict, trust_word(noise.reviews)), f"{text} How many are wrong is not known.")


def _by_the_model(noise: LabelsSection) -> str:
    if noise.not_learnt:
        return noise.not_learnt
    doubted = noise.doubted
    text = f"Confident learning doubts {count(doubted.hits)} of {plural(doubted.total, 'label')}"
    text += f", {ORDER_ONLY}" if noise.p_is == ORDER_ONLY else f"; p(wrong) is {noise.p_is}"
    if noise.detector.value is None:
        return f"{text}. The detector did not measure itself, so read this as a hint."
    span = interval(noise.detector, as_percent=True, digits=0)
    ranked = percent(noise.detector.value, 0)
    return f"{text}. Labels flipped on purpose rank below others {ranked} of the time ({span}; 50 % is chance)."


def _what_spoils(contents: RunContents) -> tuple[str, str]:
    troubles = list(_troubles(contents))
    measured = contents.noise if contents.noise is not None and contents.noise.reviews.drawn else None
    sections = {"labels": measured, "balance": contents.balance, "prompts": contents.coverage}
    examined = {name: section is not None for name, section in sections.items()}
    examined |= {"texts": contents.files.has("validate"), "repeats": contents.files.has("dedupe")}
    if not troubles:
        parts = [name for name, was in examined.items() if was]
        unknown = contents.noise is not None and may_be_noisy(contents.noise.reviews)
        short = "Too few reviews to say." if unknown else "Nothing that was looked for."
        return short, f"Looked at: {', '.join(parts) or 'nothing yet'}.{_unshown(contents.noise)}"
    names = ", ".join(dict.fromkeys(name for name, _ in troubles))
    return f"{names[0].upper()}{names[1:]}.", " ".join(sentence for _, sentence in troubles) + _unshown(contents.noise)


def _unshown(noise: LabelsSection | None) -> str:
    """What is not known of wrong labels, where they are not among what spoils the set, and on how many texts raters differed."""
    if noise is None:
        return ""
    differ = f" On {plural(noise.outvoted, 'text')} raters' last votes differ, and the majority's label stayed."
    differ = differ if noise.outvoted else ""
    return differ if are_noisy(noise.reviews) else f"{differ} {noise_unshown(noise.reviews)}"


def _troubles(contents: RunContents) -> Iterator[tuple[str, str]]:
    """(in a word, in a sentence) for each of the failures that the numbers show."""
    noise, balance, coverage, flow = contents.noise, contents.balance, contents.coverage, contents.flow
    if noise is not None and are_noisy(noise.reviews):
        yield "noisy labels", noisy_sentence(noise.reviews)
    if balance is not None and (usable := balance.usable).total:
        larger = max(usable.value, 1 - usable.value)
        if larger > LOPSIDED:
            name = LABEL_NAMES[usable.value > 0.5]
            yield "imbalance", f"{percent(larger, 0)} of the rows that can be trained on are {name}."
    if coverage is not None and coverage.clusters:
        largest = coverage.clusters[0]
        if largest.rows > CROWDED * coverage.rows:
            share = percent(largest.rows / coverage.rows, 0)
            yield "narrow prompts", f"One subject, “{one_line(largest.name)}”, holds {share} of the training rows."
        if coverage.lacks:
            regions = plural(coverage.lacks, "region")
            yield "narrow prompts", f"The training prompts leave {regions} of the reference prompts uncovered."
    if noise is not None:
        yield from _troubles_with_raters(noise)
    if flow is not None:
        yield from _text_troubles(flow, contents.files.fates)
    # a record without a label, or whose label the recipe sets aside, is not what spoils a set
    unreadable = flow.unreadable if flow is not None else 0
    if flow is not None and unreadable > WORTH_A_LINE * max(read := flow.account.records if flow.account else flow.rows_in, 1):
        records = plural(unreadable, "record")
        yield "unreadable records", f"{records} of {count(read)} could not be used as they are."


def _troubles_with_raters(noise: LabelsSection) -> Iterator[tuple[str, str]]:
    """Texts with both labels, raters at odds with the others, and whose labels differ by more than the text explains."""
    if noise.contradicted:
        yield "contradicting labels", contradicting_in_words(noise)
    elif noise.at_odds:
        yield "raters at odds", noise.at_odds
    for finding in pick(noise.facts, "findings", default=[]):
        if finding["code"] == "KD048" and finding["status"] == "issue":
            yield "unlike criteria", lead(finding["text"], 0)[0]


def contradicting_in_words(noise: LabelsSection) -> str:
    """Texts with both labels, and whose votes are at odds with the others'."""
    text = f"{noise.contradicted}: criteria are unclear there, or somebody slipped."
    return " ".join(filter(None, (text, noise.at_odds)))


def _text_troubles(flow: FlowSection, fates: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """What the texts show by themselves: rows that repeat others, and rows whose texts no trainer can use."""
    copies = flow.account.copies if flow.account is not None else 0
    rows = flow.account.rows if flow.account is not None else flow.rows_in
    if copies > WORTH_A_LINE * rows:
        yield "repeats", f"{count(copies)} of {plural(rows, 'row')} repeat another."
    unusable = fates.filter(pl.col("stage") == "validate", pl.col("action").is_in(["drop", "review"]))
    if unusable.height > WORTH_A_LINE * rows:
        reasons = unusable["reason"].value_counts(sort=False).sort("count", "reason", descending=[True, False]).iter_rows()
        each = ", ".join(f"{str(reason).replace('_', ' ')} {count(number)}" for reason, number in reasons)
        yield "unusable texts", f"The texts of {count(unusable.height)} of {plural(rows, 'row')} cannot be used ({each})."


def _what_was_done(contents: RunContents) -> tuple[str, str]:
    flow, balance, held = contents.flow, contents.balance, held_rows(contents.files, contents.flow)
    if flow is None:
        return "Nothing yet.", "No row was read."
    text = (
        f"{flow.of_what}, {flow.votes_clause}{count(flow.quarantined)} were quarantined, {count(flow.lost)} dropped and "
        f"{count(flow.review)} held for review; {count(flow.kept)} are kept"
    )
    text += f", {count(flow.relabelled)} of them with the other label." if flow.relabelled else ", none with a changed label."
    text += f" {held.not_to_judge()}" if held.settled else ""
    text += f" {flow.unapplied_sentence}" if flow.unapplied_sentence else ""
    if balance is not None and balance.desirable_weight is not None and balance.undesirable_weight is not None:
        text += (
            f" KTO's weights are {number(balance.desirable_weight, 2)} for desirable and "
            f"{number(balance.undesirable_weight, 2)} for undesirable rows."
        )
    return f"{percent(flow.kept_share, 0)} kept.", text


def _did_it_help(contents: RunContents) -> tuple[str, str]:
    """Curation, where an ablation has compared treatments of these very rows; else training, and what is missing to say more."""
    ablation = contents.ablation
    if ablation is not None and ablation.answer is not None:
        trained = f" {contents.evaluation.verdict[1]}" if contents.evaluation is not None else ""
        return ablation.answer[0], ablation.answer[1] + trained
    if contents.evaluation is None:
        trained = " A model was trained, but not evaluated." if contents.training is not None else ""
        return "Not measured.", f"This run does not evaluate a model on held-out rows.{trained}"
    short, text = contents.evaluation.verdict
    text = " ".join(filter(None, (text, contents.evaluation.of_one_training)))
    if ablation is not None and ablation.stale:
        return short, f"{text} An ablation is there, but is not known to be of these rows: {ablation.stale}"
    if ablation is not None:
        return short, f"{text} The results of an ablation are under “Did curation help”."
    command = f"`ktodata ablate {shlex.quote(contents.files.place)}`"
    return short, f"{text} Whether curation made the difference takes a control that this run has not: {command} trains it."


def _unmapped_step(account: RecordAccount | None) -> str:
    """To say what the label's values mean, where a large share of the records is out for want of that; else empty."""
    unmapped = 0 if account is None else account.unreadable.get("label_unmapped", 0)
    if account is None or unmapped <= UNMAPPED * account.records:
        return ""
    values = list(account.unmapped)[:MAX_SHOWN]
    options = " ".join(f"--{UNDECIDED} {_as_option(value)}" for value in values)
    pairs = ", ".join(f"{value}: {UNDECIDED}" for value in values)
    records = f"{plural(unmapped, 'record')} of {count(account.records)}"
    return (
        f"Say what the label's other values mean: {records} are out for want of that "
        f"({values_in_words(account.unmapped)}). In a recipe, beside the other values of label: {pairs} "
        f"(true, false or null: no label). On the command line, with up or down in place of {UNDECIDED}, and without those that "
        f"are no label: {options}. Reviews come after that."
    )


def _as_option(value: str) -> str:
    """A value as a shell takes it: what a recipe quotes needs no quotes of YAML here."""
    return shlex.quote(value[1:-1].replace("''", "'") if value.startswith("'") else value)


def _next_steps(contents: RunContents) -> tuple[str, str] | tuple[str, str, str, int]:
    unmapped = _unmapped_step(contents.flow.account) if contents.flow is not None else ""
    if unmapped:
        return "Map the label's values.", unmapped
    held = held_rows(contents.files, contents.flow)
    todo = [held.to_judge()] if held.verdicts else []
    labels = NextForLabels() if contents.noise is None else next_for_labels(contents.noise.reviews, held=held.rows)
    todo += [labels.text] if labels.text else []
    if held.judged:
        todo.append(
            f"{plural(held.judged, 'row')} held for review got a verdict: use_trusted: relabel in label_noise would train on it."
        )
    if contents.flow is not None and contents.flow.unapplied:
        todo.append("Let verdicts take the place of labels: the recipe's setting use_trusted: relabel, in a step label_noise.")
    quarantine = contents.files.quarantine.filter(pl.col("reason") != UNLABELLED)
    if not quarantine.is_empty():
        reason, rows = quarantine["reason"].value_counts(sort=True).sort("count", "reason", descending=[True, False]).row(0)
        todo.append(f"Look at the {plural(rows, 'record')} quarantined for “{str(reason).replace('_', ' ')}”.")
    if contents.coverage is not None and contents.coverage.lacks:
        todo.append("Collect feedback on the reference prompts that nothing here is like.")
    if not todo:
        return "Nothing urgent.", "Read the examples below before you train on this."
    short = "Review rows." if held.verdicts else labels.short or "Look closer."
    # the desk asks about the draw first
    budget = labels.to_judge + held.verdicts
    if contents.noise is None or not budget:
        return short, " ".join(todo)
    if labels.to_judge and held.verdicts:
        rest = f"{count(labels.to_judge)} {'of the random draw' if labels.draw else 'more'}"
        todo.append(f"That is {count(budget)} in all: {rest} and the {count(held.verdicts)} held.")
    return short, " ".join(todo), f"ktodata review {shlex.quote(contents.files.place)} --budget {budget}", budget
