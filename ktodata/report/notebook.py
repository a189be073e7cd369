"""How results draw themselves in a notebook: small tables, every text of the data escaped."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape

from ktodata.report.found import read_run
from ktodata.report.page import flat
from ktodata.report.text import clean, count
from ktodata.report.verdict import verdict
from ktodata.stage import StageResult

SHOWN = 24


def stage_result_html(result: StageResult) -> str:
    """What a stage added, decided and found, as HTML for a notebook."""
    decided = result.decisions.group_by("action", "reason").len().sort("len", "action", "reason", descending=[True, False, False])
    added = ", ".join(name for name in result.columns.columns if name != "row_id")
    issues = [finding for finding in result.facts.get("findings", ()) if finding.get("status") == "issue"]
    said = [Markup("<p><code>{}</code> {}</p>").format(_code(finding), _text(finding.get("text", ""))) for finding in issues]
    parts = [
        Markup("<p><strong>{}</strong> rows; adds {}</p>").format(count(result.columns.height), _text(added or "no column")),
        *said,
        _table(
            "What it decides",
            ("action", "reason", "rows"),
            [(action, reason, count(rows)) for action, reason, rows in decided.rows()],
        )
        if decided.height
        else Markup("<p>It drops, changes and holds back no row.</p>"),
        _folded("Its numbers", _table("", ("name", "value"), flat(result.facts, most=SHOWN))),
    ]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def run_html(run: Path) -> str:
    """The five lines and the way of the rows of a run folder, as HTML for a notebook. Raises RunError when `run` is none."""
    found = read_run(run)
    lines = [
        Markup("<li>{} <strong>{}</strong> {}</li>").format(_text(line.question), _text(line.short), _text(line.text))
        for line in verdict(found)
    ]
    steps = found.flow.steps if found.flow is not None else ()
    parts = [
        Markup("<p><strong>{}</strong></p>").format(_text(found.name)),
        Markup("<ol>{}</ol>").format(Markup("").join(lines)),
        _table(
            "Where the rows went",
            ("step", "out", "to review", "left"),
            [(step.name, count(step.dropped), count(step.review), count(step.left)) for step in steps],
        ),
    ]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in names)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup('<td style="text-align:left">{}</td>').format(_text(cell)) for cell in row)
        )
        for row in rows
    )
    title = Markup("<caption>{}</caption>").format(caption) if caption else Markup("")
    return Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(title, head, body)


def _folded(title: str, inside: Markup) -> Markup:
    return Markup("<details><summary>{}</summary>{}</details>").format(title, inside)


def _text(value: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(escape(clean(value)))


def _code(finding: dict[str, str]) -> Markup:
    return escape(clean(finding.get("code", "")))
