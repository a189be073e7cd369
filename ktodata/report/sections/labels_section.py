"""What is known of the labels: how many are doubted and why, how well the detector measured itself, who gave them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.feedback import LABEL_OF
from ktodata.labels.classifier.noise_injection import MIN_INJECTED, RANKED
from ktodata.labels.label_words import (
    BY_INJECTED,
    ReviewedLabels,
    at_odds_sentence,
    both_labels_sentence,
    if_random,
    p_in_words,
    p_was_measured,
    reviewed_labels,
    undecided_note,
)
from ktodata.report import figures
from ktodata.report.examples import MAX_EXAMPLES, Example, ExampleRows, examples
from ktodata.report.run_files import StageTables, pick
from ktodata.report.sections.contested_section import ContestedSection, read_contested
from ktodata.report.sections.drift_section import DriftSection, read_drift
from ktodata.report.sections.judge_section import JudgeSection, read_judge
from ktodata.report.sections.raters_section import RatersSection, read_raters
from ktodata.report.shares import Share
from ktodata.report.text import interval, number, percent, plural
from ktodata.stats import Interval

MAX_RATERS = 20  # shown at most, those with most labels
MIN_LABELS = 5  # of a rater, to be shown; fewer say too little
EVIDENCE_IN_WORDS = {
    "trusted_disagrees": "somebody trusted gave the other label",
    "contradicted": "the same text has both labels",
    "outvoted": "most votes on the row say otherwise",
    "near_contradiction": "nearly the same answer has the other label",
    "doubtful_label": "flagged: among the most doubtful of its label (KD042 says how often such are wrong, by what)",
}


@dataclass(frozen=True)
class ClassLine:
    """One number by which the detector or the labels are judged, and what it was measured on."""

    name: str
    value: str
    interval: str
    on: str


@dataclass(frozen=True)
class Judges:
    """What is known of those who judged, a model among them, and of rows on which they differ; None where nothing is there."""

    raters: RatersSection | None
    contested: ContestedSection | None
    drift: DriftSection | None
    model: JudgeSection | None


@dataclass(frozen=True)
class LabelsSection:
    """The findings of label_noise, ready to be shown."""

    doubted: Share  # by confident learning, of the rows it learnt from
    by_label: dict[str, Share]
    flagged: dict[str, int]  # of each given label; by reviews a row can be flagged that confident learning does not doubt
    flags_by_reviews: bool  # whether reviewed rows measured how often flags are right; else injected flips, on a condition
    reasons: list[tuple[str, int]]
    verdict: str  # "identifiable", "weakly", "not", "too few", "not measured" or "not learnt"
    not_learnt: str
    detector: Interval
    reviews: ReviewedLabels  # what a random draw that somebody trusted judged says
    p_is: str  # what a p(wrong) is: a probability where reviews make it one, else an order only
    contradicted: str  # texts with both labels that wait for a person, in words; empty where there are none
    at_odds: str  # raters who go against the others, in words; empty where nobody does
    outvoted: int  # texts on which last votes differ and the majority's label stayed
    limits: str
    ask: str
    facts: Mapping[str, Any]
    measured: list[ClassLine]
    quality: Markup | None
    curve: Markup | None
    raters_picture: Markup | None
    examples: list[Example]
    judges: Judges


def read_labels_section(run: StageTables, *, with_examples: bool = True) -> LabelsSection | None:
    """The findings, and who judged how; without examples of the latter when asked for. None where label_noise did not run."""
    columns, facts = run.columns("label_noise"), run.metrics("label_noise")
    feedback = run.columns("ingest", "label", "rater")
    if columns is None or feedback is None:
        return None
    rows = columns.join(feedback, on="row_id", how="left", maintain_order="left")
    learnt = rows.filter(pl.col("is_label_issue").is_not_null())
    measured = pick(facts, "injected_flips.auroc_averaged_over_given_classes", default={})
    verdict = _noise_verdict(facts)
    measured_p = p_was_measured(facts)
    p_is = p_in_words(measured_p, pick(facts, "stacking"))
    return LabelsSection(
        doubted=_doubted_share(learnt),
        by_label={name: _doubted_share(learnt.filter(pl.col("label") == value)) for name, value in LABEL_OF.items()},
        flagged={name: pick(facts, f"flags.{name}.rows", default=0) for name in LABEL_OF},
        flags_by_reviews="stacking" in facts,
        reasons=[
            (EVIDENCE_IN_WORDS.get(name, name), rows)
            for name, rows in pick(facts, "evidence_against", default={}).items()
            if rows
        ],
        verdict=verdict,
        not_learnt=pick(facts, "not_learnt", default=""),
        detector=_interval(measured),
        reviews=reviewed_labels(pick(facts, "trusted", default={}), pick(run.metrics("reviews"), "drop", default=0)),
        p_is=p_is,
        contradicted=_contradicted(run),
        at_odds=at_odds_sentence(pick(facts, "votes.at_odds", default=[])),
        outvoted=pick(run.metrics("dedupe"), "majority_texts", default=0),
        limits=pick(facts, "identifiability.limits", default=""),
        ask=pick(facts, "ask_for_review.why", default="") if pick(facts, "ask_for_review.rows") else "",
        facts=facts,
        measured=[*_on_injected(facts), *_on_trusted(facts)],
        quality=_quality_picture(rows, p_is),
        curve=_trust_curve(run.table("label_noise", "trust_curve")),
        raters_picture=_raters_picture(learnt),
        examples=_doubtful_examples(run, rows, p_is, measured=measured_p),
        judges=Judges(
            read_raters(run),
            read_contested(run, with_examples=with_examples),
            read_drift(run, with_examples=with_examples),
            read_judge(run),
        ),
    )


def _noise_verdict(facts: Mapping[str, Any]) -> str:
    """The stage's own word; "too few" where it says "not" though the text may tell: flips were too few to say."""
    if "not_learnt" in facts:
        return "not learnt"
    word = str(pick(facts, "identifiability.verdict", default="not measured"))
    classes = pick(facts, "injected_flips.per_given_class", default={})
    unlike = [of_class for of_class in classes.values() if of_class.get("verdict") == "not"]
    flips = [pick(of_class, "injected_flips_at_this_depth.flips", default=0) for of_class in classes.values()]
    highs = [pick(of_class, "auroc_of_injected_flips.high", default=1.0) for of_class in unlike]
    few = any(number < MIN_INJECTED for number in flips) or (highs and all(high >= RANKED for high in highs))
    return "too few" if word == "not" and few else word


def _contradicted(run: StageTables) -> str:
    """As dedupe counted them; of a table in memory its rows."""
    counted = run.metrics("dedupe")
    texts, rows = (pick(counted, name, default=0) for name in ("contradicted_texts", "held_for_review"))
    both = run.columns("dedupe", "contradicted")
    if not counted and both is not None and "contradicted" in both.columns:
        held = both.filter("contradicted").join(run.text_numbers(), on="row_id")
        texts, rows = held["text"].n_unique(), held.height
    return both_labels_sentence(texts, rows) if texts else ""


def _doubted_share(rows: pl.DataFrame) -> Share:
    return Share(int(rows["is_label_issue"].sum()), rows.height)


def _on_injected(facts: Mapping[str, Any]) -> Iterator[ClassLine]:
    """How labels flipped on purpose fared, for each given label; what they say of flags is named with its assumption."""
    for name, of_class in pick(facts, "injected_flips.per_given_class", default={}).items():
        flips = pick(of_class, "injected_flips_at_this_depth", default={})
        on = f"{plural(flips.get('flips', 0), 'flip')} injected among {plural(of_class.get('rows', 0), 'row')} given as {name}"
        ranked = pick(of_class, "auroc_of_injected_flips", default={})
        yield _class_line(f"injected flips ranked below other rows ({name})", ranked, on)
        if not of_class.get("flagged"):
            continue
        precision = pick(of_class, "expected_precision", default={})
        if of_class.get("basis") == BY_INJECTED:
            yield _class_line(f"flags that would be right {if_random(of_class)} ({name})", precision, f"{on}; not known to be so")
            yield _class_line(f"injected flips found at that depth ({name})", pick(flips, "recall", default={}), on)
        elif pick(facts, f"flags.{name}.rows", default=0) > pick(facts, f"flags.{name}.judged", default=0):
            yield _class_line(f"flags expected to be right ({name})", precision, str(of_class.get("basis")))


def _on_trusted(facts: Mapping[str, Any]) -> Iterator[ClassLine]:
    """What a random draw that somebody trusted judged says, for each given label; of all rows, where all were judged."""
    names = {
        "error_rate": ("labels that are wrong", "drawn_at_random", "row"),
        "flag_precision": ("flags that are right, before verdicts took any back", "drawn_flagged", "flag"),
        "flag_recall": ("wrong labels flagged", "drawn_wrong", "wrong label"),
    }
    for label in LABEL_OF:
        of_label = pick(facts, f"trusted.{label}", default={})
        drawn = "every row judged" if _interval(pick(of_label, "error_rate", default={})).is_counted else "drawn at random"
        open_rows = undecided_note(of_label)
        for key, (name, counted, noun) in names.items():
            if pick(of_label, f"{key}.value") is not None:
                on = f"{plural(pick(of_label, counted), noun)} given as {label}, {drawn}"
                on += open_rows if key == "error_rate" else ""
                yield _class_line(f"{name} ({label})", of_label[key], on)


def _class_line(name: str, measure: Mapping[str, Any], on: str) -> ClassLine:
    span = "" if _interval(measure).is_counted else interval(measure, as_percent=True)
    return ClassLine(name, percent(measure.get("value")), span, on)


def _interval(measure: Mapping[str, Any]) -> Interval:
    return Interval(measure.get("value"), measure.get("low"), measure.get("high"))


def _quality_picture(rows: pl.DataFrame, p_is: str) -> Markup | None:
    scored = rows.filter(pl.col("label_quality").is_not_null())
    if scored.is_empty():
        return None
    sides = [scored.filter(pl.col("label") == value)["label_quality"].to_numpy() for value in LABEL_OF.values()]
    axis = f"label quality: 1 sound, 0 doubtful, {p_is}"
    return figures.histogram("quality", "Label quality", *sides, axis=axis)


def _trust_curve(table: pl.DataFrame | None) -> Markup | None:
    """Expected precision against how many rows are acted on, most doubtful first, for each given label."""
    if table is None or table.is_empty():
        return None
    series = []
    for name, value in LABEL_OF.items():
        points = table.filter(pl.col("given") == value).sort("rows_acted_on")
        values, low, high = (points[f"expected_precision{end}"].to_list() for end in ("", "_low", "_high"))
        if points.height > 1:
            series.append(figures.Curve(f"given as {name}", points["rows_acted_on"].to_list(), values, low, high))
    if not series:
        return None
    return figures.curves(
        "trust", "Expected precision by rows acted on", series, across="rows acted on, most doubtful first", top=1.0
    )


def _raters_picture(rows: pl.DataFrame) -> Markup | None:
    """Share of each rater's labels that is doubted; None unless there are at least two raters to compare."""
    if "rater" not in rows.columns:
        return None
    named = rows.filter(pl.col("rater").is_not_null())
    counted = named.group_by("rater").agg(pl.len(), pl.col("is_label_issue").sum()).filter(pl.col("len") >= MIN_LABELS)
    if counted.height < 2:
        return None
    most = counted.sort("len", "rater", descending=[True, False]).head(MAX_RATERS)
    shares = {name: Share(hits, total) for name, total, hits in most.select("rater", "len", "is_label_issue").iter_rows()}
    points = [figures.RangePoint(f"{name} ({s.total:,})", s.value, s.low, s.high) for name, s in shares.items()]
    return figures.ranges(
        "raters",
        "Doubted labels by rater",
        points,
        axis="share of the rater's labels that is doubted, with its 95 % interval",
        limits=(0, min(1, max(share.high for share in shares.values()) * 1.05)),
        reference=(_doubted_share(rows).value, "all rows"),
    )


def _doubtful_examples(source: ExampleRows, rows: pl.DataFrame, p_is: str, *, measured: bool) -> list[Example]:
    """The rows doubted most: first those with evidence of their own, then those that only the model doubts."""
    worst = (
        rows.filter(pl.col("evidence_against").is_not_null() | pl.col("is_label_issue"))
        .sort(pl.col("evidence_against").is_null(), "label_quality", "row_id", nulls_last=True)
        .head(MAX_EXAMPLES)
    )
    return examples(source, {row["row_id"]: _label_notes(row, p_is, measured=measured) for row in worst.iter_rows(named=True)})


def _label_notes(row: Mapping[str, Any], p_is: str, *, measured: bool) -> list[str]:
    notes = [EVIDENCE_IN_WORDS.get(reason, reason) for reason in row["evidence_against"] or ()]
    if row["label_quality"] is not None:
        notes.append(f"label quality {number(row['label_quality'], 2)}, {p_is}")
    if row["p_desirable"] is not None and measured:
        notes.append(f"chance of being desirable {percent(row['p_desirable'], 0)}, {p_is}")
    return notes
