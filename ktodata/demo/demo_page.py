"""The demo in words for a terminal, and as a page beside the audit's own."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from ktodata.demo.demo_audit import DemoAudit, DemoRow
from ktodata.files import whole_file
from ktodata.report.audit_page import build_audit_page
from ktodata.report.page import render

WIDTH = 100
NEXT = "ktodata init --from YOUR_FILE"


def demo_text(demo: DemoAudit, out: Path, *, seed: int) -> str:
    """Each kind of trouble, what was put in above what was detected, and what is next."""
    head = (
        f"{len(demo.sample.records):,} thumbs by simulated raters, with trouble put in (seed {seed}). The audit never saw which."
    )
    places = [
        f"page: {out / 'demo.html'}",
        f"audit: {out / 'audit.html'}",
        f"data: {out / 'feedback.jsonl'}, {out / 'truth.jsonl'}",
    ]
    sums = [textwrap.fill(text, WIDTH) for text in (_missed_text(demo.rows), str(demo.gain))]
    return "\n".join([head, "", *_lines(demo.rows), *sums, "", *places, f"your own file: {NEXT}"])


def _lines(rows: list[DemoRow]) -> Iterator[str]:
    for row in rows:
        yield row.trouble
        for name, text in (("put in", row.injected), ("detected", row.detected)):
            yield textwrap.fill(text, WIDTH, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
        yield ""


def _missed_text(rows: list[DemoRow]) -> str:
    missed = "; ".join(f"{row.trouble}: {row.of - row.count} of {row.of}" for row in rows if row.count < row.of)
    return f"Not detected: {missed or 'none'}."


def write_demo(demo: DemoAudit, out: Path, *, seed: int) -> None:
    """Write OUT/demo.html and OUT/audit.html, the audit after rows were judged."""
    pages = {
        "demo.html": render(
            "demo.html.j2",
            title="ktodata demo",
            rows=demo.rows,
            records=len(demo.sample.records),
            seed=seed,
            missed=_missed_text(demo.rows),
            gain=str(demo.gain),
            next=NEXT,
        ),
        "audit.html": build_audit_page(demo.reviewed.result, demo.reviewed.table, name="demo"),
    }
    for name, page in pages.items():
        with whole_file(out / name) as scratch:
            scratch.write_text(page, encoding="utf-8")
