"""The desk's pages, from their templates: every text is escaped, and cleaned of what no page can show."""

import shlex
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import polars as pl
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markupsafe import Markup

from ktodata.formats.verdicts.verdict_store import verdict_per_row
from ktodata.labels.label_words import review_sentence
from ktodata.pipeline.audit_recipe import command_with_reviews, is_audit
from ktodata.report.run_files import pick
from ktodata.report.templating import template_environment
from ktodata.review import review_progress, reviewer_agreement
from ktodata.review.filters import Filters
from ktodata.review.session import ReviewItem, ReviewSession
from ktodata.visible_text import clean

STATIC = {"review.js": "text/javascript", "review.css": "text/css", "icon.svg": "image/svg+xml"}
MAX_LATEST = 20  # verdicts shown on the page of progress
MAX_DIFFERENT = 200  # rows shown there
MAX_MARKDOWN = 20_000  # characters; longer ones are shown as they stand


def row_page(session: ReviewSession, item: ReviewItem, filters: Filters, **around: str) -> str:
    """The page of one row. around : csrf, the web page's token; or frame, another template to stand in."""
    frame = _page_context(session, "row", around) | {"blind": item.blind}
    return render(
        "row.html.j2",
        **frame,
        item=item,
        filters=filters,
        choices=session.columns.choices,
        outlook=session.outlook(),
        criterion=render_markdown(str(pick(session.run.manifest, "recipe.criterion") or "")),
        learnt=_learnt(session, session.store.current_verdicts()) if item.row is None else None,
    )


def progress_page(session: ReviewSession, **around: str) -> str:
    """Who said what, how far reviewers agree, and what further reviews would buy. around : as for a row's page."""
    current = session.store.current_verdicts()
    mine = current.filter(current["reviewer"] == session.reviewer).sort("id", descending=True).head(MAX_LATEST)
    differ = reviewer_agreement.disagreements(current)
    return render(
        "progress.html.j2",
        **_page_context(session, "progress", around),
        tallies=review_progress.tallies(current),
        learnt=_learnt(session, current),
        agreements=reviewer_agreement.agreements(current),
        min_rows=reviewer_agreement.MIN_ROWS,
        differ=differ.head(MAX_DIFFERENT).to_dicts(),
        differ_in_all=differ.height,
        mine=mine.to_dicts(),
        outlook=session.outlook(),
    )


def _learnt(session: ReviewSession, current: pl.DataFrame) -> dict[str, Any]:
    """What a sitting ends with: what the random draw says of the labels, labels that moved, and where verdicts go next.

    current : as the store gives it
    """
    settled, run = verdict_per_row(current), session.run
    audited, recipe = is_audit(run), run.recipe_file
    reviews = f"--reviews {shlex.quote(str(session.store.path))}"
    command = f"ktodata run {shlex.quote(str(recipe))} {reviews}" if recipe else reviews
    return {
        "judged": current.height,
        "of_labels": review_sentence(review_progress.labels_so_far(session.audit, session.store.path)) if current.height else "",
        "moved": review_progress.moved_labels(settled),
        "command": command_with_reviews(run, session.store.path) if audited else command,
        "is_whole": bool(recipe) or audited,
    }


def render(template: str, **context: Any) -> str:
    """A page from its template."""
    return str(template_environment("ktodata.review").get_template(template).render(**context))


@lru_cache(maxsize=8)
def render_markdown(text: str) -> Markup:
    """CommonMark as HTML: tags in it are text, pictures are links, and links lead to http and https alone.

    Cleaned before and after, as an entity may stand for a character that is not to be seen.
    """
    if len(text) > MAX_MARKDOWN:
        return Markup('<div class="words">{}</div>').format(clean(text))
    return Markup(clean(_renderer().render(clean(text))))


@cache
def _renderer() -> MarkdownIt:
    """A typed line stays a line, and headings stand below those of the page."""
    renderer = MarkdownIt("commonmark", {"html": False, "breaks": True}).disable("image")
    renderer.validateLink = lambda url: url.lower().startswith(("http://", "https://"))  # type: ignore[method-assign]
    renderer.core.ruler.push("safe_links", _adapt_tokens)
    return renderer


def _adapt_tokens(state: StateCore) -> None:
    for token in state.tokens:
        if token.tag in ("h1", "h2", "h3", "h4"):
            token.tag = f"h{int(token.tag[1]) + 2}"
        for inner in token.children or ():
            if inner.type == "link_open":
                inner.attrSet("rel", "noopener noreferrer")
                inner.attrSet("target", "_blank")


@cache
def static(name: str) -> bytes:
    """A file of the page: the look of the report, with what is the desk's own after it; or a script or picture as it is."""
    own = resources.files("ktodata.review").joinpath("static", name).read_bytes()
    if name != "review.css":
        return own
    return resources.files("ktodata.report").joinpath("templates/style.css").read_bytes() + own


def widget_css() -> str:
    """The desk's look, for a page within a page: in a shadow tree there is no root element for it to begin at."""
    return static("review.css").decode().replace(":root", ":host") + static("widget.css").decode()


def _page_context(session: ReviewSession, here: str, more: dict[str, str]) -> dict[str, Any]:
    """What every page's frame shows."""
    context = {
        "here": here,
        "name": session.name,
        "reviewer": session.reviewer,
        "blind": bool(session.blind),
        "detector": session.detector,
    }
    return context | more
