"""audit.html: the report with fewer sections, from a table in memory or from a run folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from ktodata.errors import RunError
from ktodata.labels.label_words import next_for_labels
from ktodata.report.audit_tables import AuditTables
from ktodata.report.headline import HeadlineLine, contradicting_in_words, headline, label_trust, plain_text
from ktodata.report.page import SECTIONS, flat, render, run_context
from ktodata.report.run_contents import RunContents, read_contents
from ktodata.report.sections.flow_section import HeldRows
from ktodata.report.sections.labels_section import LabelsSection, read_labels_section
from ktodata.report.text import count, plural
from ktodata.stage import StageResult

KIND = "ktodata audit"
OF_A_RUN = ("flow", "labels", "measured")
OF_A_TABLE = ("labels", "measured")
LINES = (0, 1, 2, 4)  # of the five: an audit trains nothing, so it can say nothing of whether that helped
IN_PYTHON = "`audit.next_reviews({})` of what `kd.audit` gives names the rows, `audit.with_reviews(rows)` takes the verdicts."


def build_audit_page(
    source: Path | StageResult,
    feedback: pl.DataFrame | None = None,
    *,
    judged: StageResult | None = None,
    name: str = "label audit",
) -> str:
    """The page of an audit, as HTML.

    source : a run folder that holds label_noise, or what the stage label_noise returned.
    feedback : with a result, the table that label_noise was given; column `contradicted` is used when it is there.
    judged : with a result, what the stage judge returned on these rows.
    """
    if not isinstance(source, StageResult):
        return audit_page_of(read_contents(source))
    if feedback is None:
        raise RunError("build_audit_page: a result has no texts; give the table that label_noise was given as feedback.")
    return _page_of_a_table(_labels_of(source, feedback, judged), name)


def audit_lines(
    result: StageResult,
    feedback: pl.DataFrame,
    judged: StageResult | None,
    *,
    held: int = 0,
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> list[str]:
    """What an audit in memory says first: can labels be trusted, what is out of it and why, what next. As `build_audit_page`.

    held : texts with both labels that nobody has judged. left_out : rows that were left out first, by why
    """
    noise = _labels_of(result, feedback, judged)
    return [plain_text(line) for line in (label_trust(noise), *_what_is_out(noise, feedback, left_out), _next_step(noise, held))]


def audit_headline(contents: RunContents, how: str = "") -> list[str]:
    """What the page of an audit in a run folder says first, for a terminal; how : or as `audit_lines` takes it."""
    return [plain_text(line.without_command(how) if how else line) for line in _lines_of_a_run(contents)]


def _lines_of_a_run(contents: RunContents) -> list[HeadlineLine]:
    lines = headline(contents)
    return [lines[at] for at in LINES]


def _labels_of(result: StageResult, feedback: pl.DataFrame, judged: StageResult | None) -> LabelsSection:
    noise = read_labels_section(AuditTables(result, feedback, judged))
    if noise is None:
        raise RunError("the result holds nothing of label_noise, so there is nothing to audit.")
    return noise


def audit_page_of(contents: RunContents) -> str:
    """The page of an audit in a run folder. Raises RunError where nothing was audited."""
    if contents.noise is None:
        raise RunError(
            f"{contents.files.path} holds no result of label_noise, so there is nothing to audit. Add the step to its recipe."
        )
    context = run_context(contents) | {"kind": KIND, "sections": _sections(OF_A_RUN), "verdict": _lines_of_a_run(contents)}
    return render("report.html.j2", **context | {"title": f"{contents.name} · {KIND}", "map_data": None, "search_index": None})


def _page_of_a_table(noise: LabelsSection, name: str) -> str:
    """Nothing is known of a run around it."""
    nothing: dict[str, Any] = dict.fromkeys(("coverage", "training", "evaluation", "pairs", "map_data", "search_index"))
    return render(
        "report.html.j2",
        **nothing,
        title=f"{name} · {KIND}",
        kind=KIND,
        name=name,
        place="RUN",
        manifest={},
        settings=[],
        faults=[],
        stages=("label_noise",),
        sections=_sections(OF_A_TABLE),
        verdict=[label_trust(noise), _next_step(noise)],
        noise=noise,
        without_text=False,
        facts=lambda _stage: {},
        numbers=lambda _stage: flat(noise.facts),
    )


def _what_is_out(noise: LabelsSection, feedback: pl.DataFrame, left_out: Mapping[str, int]) -> Iterator[HeadlineLine]:
    """Texts with both labels, and rows that were left out before the labels were looked at."""
    if noise.contradicted:
        yield HeadlineLine("What spoils this set?", "Contradicting labels.", contradicting_in_words(noise))
    if rows := sum(left_out.values()):
        each = ", ".join(f"{why.replace('_', ' ')} {number:,}" for why, number in left_out.items())
        text = f"Of {plural(feedback.height + rows, 'row')} {rows:,} were left out first ({each})."
        yield HeadlineLine("What was done?", f"{count(feedback.height)} looked at.", text)


def _next_step(noise: LabelsSection, held: int = 0) -> HeadlineLine:
    short, text, to_judge, _ = next_for_labels(noise.reviews)
    short, text = ("Review rows.", f"{HeldRows(texts=held).to_judge()} {text}".strip()) if held else (short, text)
    text = text or "Read the examples below before you train on this."
    line = HeadlineLine("What should a person do next?", short or "Nothing urgent.", text, to_judge=to_judge + held)
    return line.without_command(IN_PYTHON)


def _sections(anchors: tuple[str, ...]) -> list[tuple[str, str, bool]]:
    return [(anchor, title, True) for anchor, title, _ in SECTIONS if anchor in anchors]
