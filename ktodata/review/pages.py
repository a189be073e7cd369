"""The desk's pages, from their templates: every text is escaped, and cleaned of what no page can show."""

from functools import cache
from importlib import resources
from typing import Any

from ktodata.formats.verdict_store import verdict_per_row
from ktodata.report.templating import template_environment
from ktodata.review import review_progress, reviewer_agreement
from ktodata.review.filters import Filters
from ktodata.review.session import ReviewSession, Turn

STATIC = {"desk.js": "text/javascript", "desk.css": "text/css", "icon.svg": "image/svg+xml"}
LATEST = 20  # verdicts shown on the page of progress
MAX_DIFFERENT = 200  # rows shown there


def row_page(desk: ReviewSession, turn: Turn, filters: Filters, **around: str) -> str:
    """The page of one row. around : csrf, the web page's token; or frame, another template to stand in."""
    around = _around(desk, "row", around)
    return render("row.html.j2", **around, turn=turn, filters=filters, choices=desk.columns.choices, outlook=desk.outlook())


def progress_page(desk: ReviewSession, **around: str) -> str:
    """Who said what, how far reviewers agree, and what further reviews would buy. around : as for a row's page."""
    standing = desk.store.standing()
    mine = standing.filter(standing["reviewer"] == desk.reviewer).sort("id", descending=True).head(LATEST)
    differ = reviewer_agreement.disagreements(standing)
    return render(
        "progress.html.j2",
        **_around(desk, "progress", around),
        tallies=review_progress.tallies(standing),
        drawn=review_progress.drawn_so_far(verdict_per_row(standing), desk.book.row_ids, desk.queue.drawn),
        agreements=reviewer_agreement.agreements(standing),
        differ=differ.head(MAX_DIFFERENT).to_dicts(),
        differ_in_all=differ.height,
        mine=mine.to_dicts(),
        outlook=desk.outlook(),
        store=desk.store.path,
    )


def render(template: str, **context: Any) -> str:
    """A page from its template."""
    return str(template_environment("ktodata.review").get_template(template).render(**context))


@cache
def static(name: str) -> bytes:
    """A file of the page: the look of the report, with what is the desk's own after it; or a script or picture as it is."""
    own = resources.files("ktodata.review").joinpath("static", name).read_bytes()
    if name != "desk.css":
        return own
    return resources.files("ktodata.report").joinpath("templates/style.css").read_bytes() + own


def widget_look() -> str:
    """The desk's look, for a page within a page: in a shadow tree there is no root element for it to begin at."""
    return static("desk.css").decode().replace(":root", ":host") + static("widget.css").decode()


def _around(desk: ReviewSession, here: str, more: dict[str, str]) -> dict[str, Any]:
    """What stands around every page."""
    known = {
        "here": here,
        "name": desk.name,
        "reviewer": desk.reviewer,
        "blind": desk.blind,
        "detector": desk.detector,
    }
    return known | more
