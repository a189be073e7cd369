"""What is known of the labels: how many are doubted and why, how well the detector measured itself, who gave them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.labels.classifier.noise_injection import MIN_INJECTED
from ktodata.report import figures
from ktodata.report.examples import MOST, Example, ExampleRows, examples
from ktodata.report.run_files import Tables, pick
from ktodata.report.sections.contested_section import ContestedSection, read_contested
from ktodata.report.sections.drift_section import DriftSection, read_drift
from ktodata.report.sections.raters_section import RatersSection, read_raters
from ktodata.report.shares import Share
from ktodata.report.text import interval, number, percent, plural
from ktodata.stats import Interval

LABELS = {"desirable": True, "undesirable": False}
RATERS = 20  # shown at most, those with most labels
MIN_LABELS = 5  # of a rater, to be shown; fewer tell nothing
DOUBTS = {
    "trusted_disagrees": "somebody trusted gave the other label",
    "contradicted": "the same text has both labels",
    "outvoted": "most votes on the row say otherwise",
    "near_contradiction": "nearly the same answer has the other label",
    "doubtful_label": "flagged: likely wrong by the measured precision",
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
    """What the votes say of those who judged, and of rows on which they differ; each None where the stage left no such table."""

    raters: RatersSection | None
    contested: ContestedSection | None
    drift: DriftSection | None


@dataclass(frozen=True)
class LabelsSection:
    """The findings of label_noise, ready to be shown."""

    doubted: Share  # by confident learning, of the rows it learnt from
    by_label: dict[str, Share]
    flagged: dict[str, int]  # of those, what may be acted on at the precision asked for
    reasons: list[tuple[str, int]]
    verdict: str  # "identifiable", "weakly", "not", "too few", "not measured" or "not learnt"
    not_learnt: str
    detector: Interval
    estimate: float | None  # share of wrong labels; only where the noise can be identified
    trusted: Share | None  # wrong labels among rows that somebody trusted judged; None where there are none
    contradicted: int
    limits: str
    ask: str
    facts: Mapping[str, Any]
    measured: list[ClassLine]
    quality: Markup | None
    curve: Markup | None
    raters_picture: Markup | None
    examples: list[Example]
    judges: Judges


def read_labels_section(run: Tables, *, with_examples: bool = True) -> LabelsSection | None:
    """The findings, and who judged how; without examples of the latter when asked for. None where label_noise did not run."""
    columns, facts = run.columns("label_noise"), run.metrics("label_noise")
    given = run.columns("ingest", "label", "rater")
    if columns is None or given is None:
        return None
    rows = columns.join(given, on="row_id", how="left", maintain_order="left")
    learnt = rows.filter(pl.col("is_label_issue").is_not_null())
    measured = pick(facts, "injected_flips.auroc_averaged_over_given_classes", default={})
    verdict = _verdict(facts)
    checked = pick(facts, "trusted.rows", default=0)
    return LabelsSection(
        doubted=_doubted(learnt),
        by_label={name: _doubted(learnt.filter(pl.col("label") == value)) for name, value in LABELS.items()},
        flagged={name: pick(facts, f"injected_flips.per_given_class.{name}.flagged", default=0) for name in LABELS},
        reasons=[(DOUBTS.get(name, name), rows) for name, rows in pick(facts, "evidence_against", default={}).items() if rows],
        verdict=verdict,
        not_learnt=pick(facts, "not_learnt", default=""),
        detector=Interval(measured.get("value"), measured.get("low"), measured.get("high")),
        estimate=pick(facts, "label_noise_estimate.wrong") if verdict == "identifiable" else None,
        trusted=Share(pick(facts, "trusted.wrong", default=0), checked) if checked else None,
        contradicted=_contradicted(run),
        limits=pick(facts, "identifiability.limits", default=""),
        ask=pick(facts, "ask_for_review.why", default="") if pick(facts, "ask_for_review.rows") else "",
        facts=facts,
        measured=[*_on_planted(facts), *_on_trusted(facts)],
        quality=_quality(rows),
        curve=_curve(run.table("label_noise", "trust_curve")),
        raters_picture=_raters(learnt),
        examples=_examples(run, rows),
        judges=Judges(
            read_raters(run),
            read_contested(run, with_examples=with_examples),
            read_drift(run, with_examples=with_examples),
        ),
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    """The stage's own word; "too few" where it says "not" only because hardly any flips could be injected in a label."""
    if "not_learnt" in facts:
        return "not learnt"
    said = str(pick(facts, "identifiability.verdict", default="not measured"))
    classes = pick(facts, "injected_flips.per_given_class", default={})
    flips = [pick(one, "injected_flips_at_this_depth.flips", default=0) for one in classes.values()]
    return "too few" if said == "not" and flips and min(flips) < MIN_INJECTED else said


def _contradicted(run: Tables) -> int:
    both = run.columns("dedupe", "contradicted")
    return int(both["contradicted"].sum()) if both is not None and "contradicted" in both.columns else 0


def _doubted(rows: pl.DataFrame) -> Share:
    return Share(int(rows["is_label_issue"].sum()), rows.height)


def _on_planted(facts: Mapping[str, Any]) -> Iterator[ClassLine]:
    """How labels flipped on purpose fared, for each given label."""
    for name, one in pick(facts, "injected_flips.per_given_class", default={}).items():
        found = pick(one, "injected_flips_at_this_depth", default={})
        on = f"{plural(found.get('flips', 0), 'flip')} planted among {plural(one.get('rows', 0), 'row')} given as {name}"
        ranked = pick(one, "auroc_of_injected_flips", default={})
        yield _line(f"injected flips ranked below other rows ({name})", ranked, on)
        if one.get("flagged"):
            yield _line(
                f"flags expected to be right ({name})", pick(one, "expected_precision", default={}), str(one.get("basis"))
            )
            yield _line(f"injected flips found at that depth ({name})", pick(found, "recall", default={}), on)


def _on_trusted(facts: Mapping[str, Any]) -> Iterator[ClassLine]:
    """What rows judged by somebody trusted say, for each given label."""
    names = {
        "error_rate": "labels that are wrong",
        "flag_precision": "flags that are right",
        "flag_recall": "wrong labels flagged",
    }
    for label in LABELS:
        one = pick(facts, f"trusted.{label}", default={})
        for key, name in names.items():
            if pick(one, f"{key}.value") is not None:
                yield _line(f"{name} ({label})", one[key], f"{plural(one['rows'], 'trusted row')} given as {label}")


def _line(name: str, found: Mapping[str, Any], on: str) -> ClassLine:
    return ClassLine(name, percent(found.get("value")), interval(found, as_percent=True), on)


def _quality(rows: pl.DataFrame) -> Markup | None:
    known = rows.filter(pl.col("label_quality").is_not_null())
    if known.is_empty():
        return None
    sides = [known.filter(pl.col("label") == value)["label_quality"].to_numpy() for value in LABELS.values()]
    return figures.histogram("quality", "Label quality", *sides, axis="label quality: 1 sound, 0 doubtful")


def _curve(table: pl.DataFrame | None) -> Markup | None:
    """Expected precision against how many rows are acted on, most doubtful first, for each given label."""
    if table is None or table.is_empty():
        return None
    series = []
    for name, given in LABELS.items():
        one = table.filter(pl.col("given") == given).sort("rows_acted_on")
        values, low, high = (one[f"expected_precision{end}"].to_list() for end in ("", "_low", "_high"))
        if one.height > 1:
            series.append(figures.Curve(f"given as {name}", one["rows_acted_on"].to_list(), values, low, high))
    if not series:
        return None
    return figures.curves(
        "trust", "Expected precision by rows acted on", series, across="rows acted on, most doubtful first", top=1.0
    )


def _raters(rows: pl.DataFrame) -> Markup | None:
    """Share of each rater's labels that is doubted; None unless there are at least two raters to compare."""
    if "rater" not in rows.columns:
        return None
    named = rows.filter(pl.col("rater").is_not_null())
    counted = named.group_by("rater").agg(pl.len(), pl.col("is_label_issue").sum()).filter(pl.col("len") >= MIN_LABELS)
    if counted.height < 2:
        return None
    most = counted.sort("len", "rater", descending=[True, False]).head(RATERS)
    shares = {name: Share(hits, total) for name, total, hits in most.select("rater", "len", "is_label_issue").iter_rows()}
    dots = [figures.Measured(f"{name} ({s.total:,})", s.value, s.low, s.high) for name, s in shares.items()]
    return figures.ranges(
        "raters",
        "Doubted labels by rater",
        dots,
        axis="share of the rater's labels that is doubted, with its 95 % interval",
        limits=(0, min(1, max(share.high for share in shares.values()) * 1.05)),
        reference=(_doubted(rows).value, "all rows"),
    )


def _examples(source: ExampleRows, rows: pl.DataFrame) -> list[Example]:
    """The rows doubted most: first those with evidence of their own, then those that only the model doubts."""
    worst = (
        rows.filter(pl.col("evidence_against").is_not_null() | pl.col("is_label_issue"))
        .sort(pl.col("evidence_against").is_null(), "label_quality", "row_id", nulls_last=True)
        .head(MOST)
    )
    return examples(source, {row["row_id"]: _said(row) for row in worst.iter_rows(named=True)})


def _said(row: Mapping[str, Any]) -> list[str]:
    said = [DOUBTS.get(doubt, doubt) for doubt in row["evidence_against"] or ()]
    if row["label_quality"] is not None:
        said.append(f"label quality {number(row['label_quality'], 2)}")
    if row["p_desirable"] is not None:
        said.append(f"chance of being desirable {percent(row['p_desirable'], 0)}")
    return said
