"""Pages for people: the report of a run, its dataset card, the page of an audit, and summaries for notebooks."""

from pathlib import Path
from typing import TYPE_CHECKING

from ktodata.files import alone_if_run, whole_file

if TYPE_CHECKING:
    import polars as pl

    from ktodata.stage import StageResult


def build_report(run: Path, *, text: bool = True) -> str:
    """report.html of a run folder, finished or not; without `text` only its numbers. RunError when `run` is no run folder."""
    from ktodata.report.page import build_report as build

    return build(run, text=text)


def build_card(run: Path) -> str:
    """README.md of a run folder: a dataset card with the Hub's YAML header. Raises RunError when `run` is no run folder."""
    from ktodata.report.cards.card import build_card as build

    return build(run)


def build_feedback_section(run: Path) -> str:
    """Of a model's card, what is to be said of the run that trained it. Raises RunError when `run` is no run folder."""
    from ktodata.report.cards.card import build_feedback_section as build

    return build(run)


def write_pages(run: Path) -> None:
    """report.html and README.md into a run folder, each whole.

    Raises RunError when `run` is no run folder, and while another process writes there.
    """
    from ktodata.report.cards.card import card_of
    from ktodata.report.page import page_of
    from ktodata.report.run_contents import read_contents

    with alone_if_run(run):
        contents = read_contents(run)  # its pictures are drawn once, for both
        for name, text in (("README.md", card_of(contents)), ("report.html", page_of(contents))):
            with whole_file(run / name) as scratch:
                scratch.write_text(text, encoding="utf-8")


def write_page_without_text(run: Path, place: Path) -> None:
    """The numbers of report.html into `place`: no text of any row, no given name. RunError when `run` is no run folder."""
    with alone_if_run(place), whole_file(place) as scratch:
        scratch.write_text(build_report(run, text=False), encoding="utf-8")


def build_audit_page(
    source: "Path | StageResult",
    feedback: "pl.DataFrame | None" = None,
    *,
    judged: "StageResult | None" = None,
    name: str = "label audit",
) -> str:
    """audit.html: label quality only, from a run folder, or from label_noise's result and its table; judged: kd.judge's."""
    from ktodata.report.audit_page import build_audit_page as build

    return build(source, feedback, judged=judged, name=name)
