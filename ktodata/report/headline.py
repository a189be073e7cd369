"""The five lines at the top: what the numbers mean for the reader, in plain words, and what is not known said as such."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ktodata.report.contents import RunContents, read_run
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.balance_section import BalanceSection
from ktodata.report.sections.flow_section import FlowSection
from ktodata.report.sections.labels_section import LabelsSection
from ktodata.report.text import count, interval, number, one_line, percent, plural

NOISY = 0.03  # share of doubted labels from which a set is called noisy
UNREADABLE = 0.02  # share of quarantined records from which they are worth a line
LOPSIDED = 2 / 3  # share of one label above which a set is called lopsided
SET_ASIDE = ("overruled", "reviewed_contested")
CROWDED = 0.5  # share of the largest prompt cluster above which the prompts are called narrow


@dataclass(frozen=True)
class HeadlineLine:
    """One question, its answer in a word or two, and the numbers behind it."""

    question: str
    short: str
    text: str


def verdict_lines(run: Path) -> list[str]:
    """The five lines as plain text, for a terminal. Raises RunError when `run` is no run folder."""
    return [f"{line.question} {line.short} {line.text}".strip() for line in verdict(read_run(run))]


def verdict(found: RunContents) -> list[HeadlineLine]:
    """The five lines, from what each section found."""
    return [
        trust(found.noise),
        HeadlineLine("What spoils this set?", *_what_spoils(found)),
        HeadlineLine("What was done?", *_what_was_done(found.flow, found.balance)),
        HeadlineLine("Did it help?", *_did_it_help(found)),
        HeadlineLine("What should a person do next?", *_next(found)),
    ]


def trust(noise: LabelsSection | None) -> HeadlineLine:
    """How far the labels can be trusted, and how far that answer itself can be."""
    question = "Can these labels be trusted?"
    if noise is None:
        return HeadlineLine(question, "Not looked at.", "Label noise is not part of this run.")
    said = " ".join(filter(None, (_by_trusted_rows(noise), _by_the_model(noise))))
    if noise.trusted is not None:
        return HeadlineLine(question, _in_a_word(noise.trusted.value), said)
    if noise.verdict == "identifiable" and noise.estimate is not None:
        return HeadlineLine(question, _in_a_word(noise.estimate), f"{said} Errors that follow a rule it cannot see.")
    few = "Too few rows to tell."
    short = {"weakly": "Perhaps.", "not": "The text does not tell.", "too few": few, "not learnt": few}
    return HeadlineLine(
        question, short.get(noise.verdict, "Perhaps."), f"{said} How many are wrong cannot be known from what is given."
    )


def _by_trusted_rows(noise: LabelsSection) -> str:
    if noise.trusted is None:
        return ""
    found = noise.trusted
    span = interval((found.low, found.high), as_percent=True)
    return (
        f"Of {plural(found.total, 'row')} that somebody trusted has judged, {count(found.hits)} carry a wrong label "
        f"({percent(found.value)}, 95 % interval {span})."
    )


def _by_the_model(noise: LabelsSection) -> str:
    if noise.not_learnt:
        return noise.not_learnt
    found = noise.doubted
    said = f"Confident learning doubts {count(found.hits)} of {plural(found.total, 'label')} ({percent(found.value)})"
    said += f" and estimates that {percent(noise.estimate)} are wrong." if noise.estimate is not None else "."
    if noise.detector.value is None:
        return f"{said} The detector did not measure itself, so read this as a hint."
    span = interval(noise.detector, as_percent=True, digits=0)
    ranked = percent(noise.detector.value, 0)
    return f"{said} Labels flipped on purpose rank below others {ranked} of the time ({span}; 50 % is chance)."


def _in_a_word(wrong: float) -> str:
    return "Mostly." if wrong < 0.05 else "With care." if wrong < 0.15 else "Not as they are."


def _what_spoils(found: RunContents) -> tuple[str, str]:
    troubles = list(_troubles(found))
    looked = {"labels": found.noise, "balance": found.balance, "prompts": found.coverage}
    if not troubles:
        parts = [name for name, part in looked.items() if part is not None]
        return "Nothing that was looked for.", f"Looked at: {', '.join(parts) or 'nothing yet'}."
    names = ", ".join(dict.fromkeys(name for name, _ in troubles))
    return f"{names[0].upper()}{names[1:]}.", " ".join(said for _, said in troubles)


def _troubles(found: RunContents) -> Iterator[tuple[str, str]]:
    """(in a word, in a sentence) for each of the failures that the numbers show."""
    noise, balance, coverage, flow = found.noise, found.balance, found.coverage, found.flow
    if noise is not None and noise.doubted.value >= NOISY:
        worst = max(noise.by_label, key=lambda name: noise.by_label[name].value)
        yield "noisy labels", f"Labels given as {worst} are doubted most ({percent(noise.by_label[worst].value)} of them)."
    if balance is not None and (given := balance.shares["as given"]).total:
        larger = max(given.value, 1 - given.value)
        if larger > LOPSIDED:
            name = "desirable" if given.value > 0.5 else "undesirable"
            yield "imbalance", f"{percent(larger, 0)} of the rows are {name}."
    if coverage is not None and coverage.clusters:
        largest = coverage.clusters[0]
        if largest.rows > CROWDED * coverage.rows:
            share = percent(largest.rows / coverage.rows, 0)
            yield "narrow prompts", f"One subject, “{one_line(largest.name)}”, holds {share} of the training rows."
        if coverage.holes:
            regions = plural(len(coverage.holes), "region")
            yield "narrow prompts", f"The training prompts leave {regions} of the reference prompts uncovered."
    if noise is not None and noise.contradicted:
        yield "unclear criteria", f"The same text carries both verdicts in {plural(noise.contradicted, 'row')}."
    if flow is not None and flow.quarantined > UNREADABLE * max(flow.rows_in, 1):
        records = plural(flow.quarantined, "record")
        yield "unreadable records", f"{records} of {count(flow.rows_in)} could not be used as they are."


def _what_was_done(flow: FlowSection | None, balance: BalanceSection | None) -> tuple[str, str]:
    if flow is None:
        return "Nothing yet.", "No row was read."
    said = (
        f"Of {plural(flow.rows_in, 'row')}, {count(flow.quarantined)} were quarantined, {count(flow.dropped)} dropped and "
        f"{count(flow.review)} held for review; {count(flow.kept)} are kept"
    )
    said += f", {count(flow.relabelled)} of them with the other label." if flow.relabelled else ", none with a changed label."
    if balance is not None and balance.desirable_weight is not None and balance.undesirable_weight is not None:
        said += (
            f" KTO's weights are {number(balance.desirable_weight, 2)} for desirable and "
            f"{number(balance.undesirable_weight, 2)} for undesirable rows."
        )
    return f"{percent(flow.kept / max(flow.rows_in, 1), 0)} kept.", said


def _did_it_help(found: RunContents) -> tuple[str, str]:
    """Curation, where an ablation has compared treatments of these very rows; else training, and what is missing to say more."""
    ablation = found.ablation
    if ablation is not None and ablation.answer is not None:
        trained = f" {found.evaluation.verdict[1]}" if found.evaluation is not None else ""
        return ablation.answer[0], ablation.answer[1] + trained
    if found.evaluation is None:
        trained = " A model was trained, but not evaluated." if found.training is not None else ""
        return "Not measured.", f"This run does not evaluate a model on held-out rows.{trained}"
    short, said = found.evaluation.verdict
    if ablation is not None and ablation.stale:
        return short, f"{said} An ablation is there, but of other rows, so whether curation made the difference is not known."
    if ablation is not None:
        return short, f"{said} What an ablation found stands under “Did curation help”."
    return (
        short,
        f"{said} Whether curation made the difference takes a control that this run has not: `ktodata ablate` trains it.",
    )


def _next(found: RunContents) -> tuple[str, str]:
    held = found.flow.review - _decided(found.files) if found.flow is not None else 0
    todo = [f"Judge the {plural(held, 'row')} held for review, most doubtful first."] if held else []
    if found.noise is not None and not _trusted_rows(found.files):
        todo.append(
            "Have somebody you trust judge about 100 rows drawn from both labels: nothing else shows errors that follow a rule."
        )
    if not found.files.quarantine.is_empty():
        reason, rows = (
            found.files.quarantine["reason"].value_counts(sort=True).sort("count", "reason", descending=[True, False]).row(0)
        )
        todo.append(f"Look at the {plural(rows, 'record')} quarantined for “{str(reason).replace('_', ' ')}”.")
    if found.coverage is not None and found.coverage.holes:
        todo.append("Collect feedback on the reference prompts that nothing here is like.")
    if not todo:
        return "Nothing urgent.", "Read the examples below before you train on this."
    short = "Review rows." if held else "Have a sample judged." if found.noise is not None else "Look closer."
    return short, " ".join(todo)


def _decided(files: RunFiles) -> int:
    """Rows that are set aside by a person's verdict, and wait for none."""
    last = files.ledger.filter(pl.col("stage") == "export", pl.col("action") == "review")
    return int(last["reason"].is_in(SET_ASIDE).sum())


def _trusted_rows(files: RunFiles) -> int:
    """Rows whose label an expert has given too."""
    table = files.columns("reviews" if files.has("reviews") else "ingest", "trusted_label")
    return int(table["trusted_label"].count()) if table is not None and "trusted_label" in table.columns else 0
