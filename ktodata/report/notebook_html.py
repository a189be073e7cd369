"""How results draw themselves in a notebook: small tables, every text of the data escaped."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from ktodata.feedback import LABEL_NAMES, check_columns
from ktodata.formats.verdicts.matching import settling_in_words
from ktodata.labels.label_words import undecided_note
from ktodata.report.headline import headline
from ktodata.report.integrity import fault_lines
from ktodata.report.page import flat
from ktodata.report.run_contents import read_contents
from ktodata.report.sections.judge_section import judge_section
from ktodata.report.text import count, interval, number, one_line, percent, plural
from ktodata.stage import StageResult
from ktodata.stats import Interval
from ktodata.visible_text import clean

MAX_NUMBERS_SHOWN = 24
FOLD_CHARS, FOLD_LINES = 400, 12  # characters and lines of a text in sight; the others are folded
MAX_CHARS_SHOWN = 20_000  # characters that are put on the page at all
# the notes on a row beside its texts, where the frame has it, in this order
NOTES = (
    *("row_id", "trusted_label", "verdict", "note", "p_wrong", "doubt", "p_desirable", "why", "evidence_against"),
    *("rater", "model", "source", "cluster", "part"),
)
DOTS = {True: "#0d7a70", False: "#b8501b"}
TOP = "text-align:left;vertical-align:top;"
WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere;"


@dataclass(frozen=True)
class RowTable:
    """Rows of a feedback frame that draw themselves; as text, the frame itself."""

    frame: pl.DataFrame
    limit: int
    notes: Sequence[str]

    def __repr__(self) -> str:
        return repr(self.frame)

    def _repr_html_(self) -> str:
        return str(Markup("<div>{}</div>").format(_rows_html(self.frame, self.limit, self.notes)))


def show(frame: pl.DataFrame, *, rows: int = 10, columns: Sequence[str] | None = None) -> RowTable:
    """The first rows of a feedback frame, to be read in a notebook: texts wrapped, long ones folded, the label as a word.

    frame : with prompt and completion; label, and label_quality (1 sound, 0 doubtful) as a bar, where it has them
    columns : the notes on each row; by default those that help to judge it. Nulls are left out

    Every text is shown as text, whatever is written in it. Raises MissingColumnError.
    """
    check_columns(frame, ("prompt", "completion", *(columns or ())), who="show")
    return RowTable(frame, rows, [name for name in NOTES if name in frame.columns] if columns is None else list(columns))


def label_audit_html(
    result: StageResult, summary: pl.DataFrame, curve: Any | None, reviews: pl.DataFrame, judged: StageResult | None = None
) -> str:
    """What an audit found, as HTML for a notebook: its verdict, how far it may be acted on, and what to review next.

    summary, reviews : as LabelAudit.summary and .next_reviews give them. curve : a matplotlib figure of the trust curve, or None
    judged : what a judge said of the rows, where one was asked
    """
    review_title = Markup("<p><strong>What to review next</strong>: rows from which most is learnt</p>")
    parts = [
        Markup("<p><strong>{}</strong> looked at</p>").format(plural(int(summary["rows"].sum()), "label")),
        _table_html(
            "",
            (
                "given",
                "labels",
                "can random errors be identified?",
                "AUROC of injected errors",
                "flagged",
                "drawn at random and reviewed",
                "wrong of those",
            ),
            [_class_cells(row) for row in summary.iter_rows(named=True)],
        ),
        *_verdict_lines(result),
        *_issue_lines(result),
        *([] if judged is None else [*_issue_lines(judged), _judge_table(judged)]),
        _figure_html(curve, "Trust curve: the share expected to be wrong, by rows acted on") if curve is not None else Markup(""),
        Markup("").join([review_title, _rows_html(reviews, reviews.height, ("p_wrong", "doubt", "why"))])
        if reviews.height
        else Markup("<p>There is nothing to review: {}</p>").format(
            _isolated(str(result.metrics.get("not_learnt", "every row was")))
        ),
        _folded("Its numbers", _table_html("", ("name", "value"), flat(result.metrics, most=MAX_NUMBERS_SHOWN))),
    ]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def stage_result_html(result: StageResult) -> str:
    """What a stage added, decided and found, as HTML for a notebook."""
    decided = result.decisions.group_by("action", "reason").len().sort("len", "action", "reason", descending=[True, False, False])
    added = ", ".join(name for name in result.columns.columns if name != "row_id")
    parts = [
        Markup("<p><strong>{}</strong> rows; adds {}</p>").format(count(result.columns.height), _isolated(added or "no column")),
        *_issue_lines(result),
        _table_html(
            "What it decides",
            ("action", "reason", "rows"),
            [(action, reason, count(rows)) for action, reason, rows in decided.rows()],
        )
        if decided.height
        else Markup("<p>It drops, changes and holds back no row.</p>"),
        _folded("Its numbers", _table_html("", ("name", "value"), flat(result.metrics, most=MAX_NUMBERS_SHOWN))),
    ]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def run_html(run: Path) -> str:
    """The five lines and the way of the rows of a run folder, as HTML for a notebook. Raises RunError when `run` is none."""
    contents = read_contents(run)
    lines = [
        Markup("<li>{} <strong>{}</strong> {}{}</li>").format(
            *(_isolated(part) for part in (line.question, line.short, line.text)),
            Markup(" <code>{}</code>").format(line.command) if line.command else "",
        )
        for line in headline(contents)
    ]
    steps = contents.flow.steps if contents.flow is not None else ()
    parts = [
        Markup("<p><strong>{}</strong></p>").format(_isolated(contents.name)),
        *(Markup("<p>{}</p>").format(_isolated(fault)) for fault in fault_lines(contents.files.faults, contents.files.place)),
        Markup("<ol>{}</ol>").format(Markup("").join(lines)),
        _table_html(
            "Where the rows went",
            ("step", "out", "to review", "left"),
            [(step.name, count(step.dropped), count(step.review), count(step.left)) for step in steps],
        ),
    ]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def _verdict_lines(result: StageResult) -> list[Markup]:
    """What became of verdicts that were given in Python."""
    lines = settling_in_words(result.metrics["verdicts"]) if "verdicts" in result.metrics else []
    return [Markup("<p>{}</p>").format(_isolated(line)) for line in lines]


def _issue_lines(result: StageResult) -> list[Markup]:
    issues = [finding for finding in result.metrics.get("findings", ()) if finding.get("status") == "issue"]
    return [
        Markup("<p><code>{}</code> {}</p>").format(_finding_code(finding), _isolated(finding.get("text", "")))
        for finding in issues
    ]


def _judge_table(judged: StageResult) -> Markup:
    """What the judge is worth: its figures, each with its interval and what it was measured on."""
    judge = judge_section(judged.metrics)
    return _table_html(
        f"{judge.rater} has a verdict on {judge.judged}",
        ("what the judge is worth", "share", "95 % interval", "on"),
        [(figure.name, figure.value, figure.interval, figure.on) for figure in (*judge.agreement, *judge.leanings)],
    )


def _class_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One given class of an audit's summary, in words."""
    auroc, rate = row["injected_auroc"], row["error_rate"]
    ends = Interval(rate, row["error_rate_low"], row["error_rate_high"])
    between = "every row judged" if ends.is_counted else interval(ends, as_percent=True)
    return (
        row["given"],
        count(row["rows"]),
        row["verdict"] or "not measured",
        "not measured" if auroc is None else f"{number(auroc, 2)} (chance: 0.5)",
        count(row["flagged"]),
        count(row["drawn_at_random"]),
        "not known" if rate is None else f"{percent(rate)} ({between}{undecided_note(row)})",
    )


def _figure_html(figure: Any, description: str) -> Markup:
    """A figure on white, which can be read in a dark notebook, too."""
    from matplotlib import rc_context

    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "ktodata"}):  # the same picture is the same file, whenever it is drawn
        figure.savefig(drawn, format="svg", facecolor="white", metadata={"Date": None})
    data = base64.b64encode(drawn.getvalue()).decode()
    return Markup('<img alt="{}" style="max-width:100%;background:#fff" src="data:image/svg+xml;base64,{}">').format(
        description, data
    )


def _rows_html(frame: pl.DataFrame, limit: int, notes: Sequence[str]) -> Markup:
    names_shown = {"prompt", "completion", "label", "label_quality", *notes}
    head = frame.select(name for name in frame.columns if name in names_shown).head(limit)
    lines = [
        Markup('<tr><td style="{}">{}</td><td style="{}">{}</td><td style="{}">{}</td></tr>').format(
            TOP, Markup("").join(_row_notes(row, notes)), TOP, _folded_text(row["prompt"]), TOP, _folded_text(row["completion"])
        )
        for row in head.iter_rows(named=True)
    ]
    names = Markup("").join(
        Markup('<th scope="col" style="{}width:{}">{}</th>').format(TOP, width, name)
        for name, width in (("row", "20%"), ("prompt", "40%"), ("completion", "40%"))
    )
    counted = f"{count(head.height)} of {plural(frame.height, 'row')}"
    return Markup(
        '<table style="table-layout:fixed;width:100%"><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(counted, names, Markup("").join(lines))


def _row_notes(row: Mapping[str, Any], notes: Sequence[str]) -> Iterator[Markup]:
    """The label as a word, its quality as a bar, and the other notes on the row."""
    if "label" in row:
        dot = Markup('<span style="color:{}" aria-hidden="true">&#9679;</span>').format(DOTS.get(row["label"], "#888"))
        yield Markup("<div>{} <strong>{}</strong></div>").format(dot, LABEL_NAMES.get(row["label"], "no label"))
    if row.get("label_quality") is not None:
        quality = number(float(row["label_quality"]), 2)
        bar = '<meter min="0" max="1" low="0.5" high="0.5" optimum="1" value="{}" style="width:5em"></meter>'
        yield Markup("<div>" + bar + " quality {}</div>").format(quality, quality)
    for name in notes:
        if row[name] is not None and row[name] != []:
            yield Markup('<div style="{}"><small>{}: {}</small></div>').format(WRAPPED, name, _isolated(_note_text(row[name])))


def _note_text(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 2)
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else value, 200)


def _folded_text(value: str | None) -> Markup:
    """A text as it is: what is long is folded behind its beginning, and what is very long is counted and left out."""
    text = value or ""
    visible = len("\n".join(text[:FOLD_CHARS].split("\n")[:FOLD_LINES]))
    beginning = _text_block(text[:visible])
    if len(text) == visible:
        return beginning
    rest = _text_block(text[visible:MAX_CHARS_SHOWN])
    if len(text) > MAX_CHARS_SHOWN:
        rest += Markup("<div>and {} more</div>").format(plural(len(text) - MAX_CHARS_SHOWN, "character"))
    return beginning + _folded(f"… {count(len(text))} characters in all", rest)


def _text_block(text: str) -> Markup:
    return Markup('<div dir="auto" style="{}">{}</div>').format(WRAPPED, clean(text))


def _table_html(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in names)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup('<td style="text-align:left">{}</td>').format(_isolated(cell)) for cell in row)
        )
        for row in rows
    )
    title = Markup("<caption>{}</caption>").format(_isolated(caption)) if caption else Markup("")
    return Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(title, head, body)


def _folded(title: str, inside: Markup) -> Markup:
    return Markup("<details><summary>{}</summary>{}</details>").format(title, inside)


def _isolated(value: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(escape(clean(value)))


def _finding_code(finding: dict[str, str]) -> Markup:
    return escape(clean(finding.get("code", "")))
