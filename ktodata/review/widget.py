"""The review desk as a widget. Its page and actions are those of the web desk; a message takes the place of a request."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import anywidget
import polars as pl
import traitlets

from ktodata.errors import KtodataError
from ktodata.formats.verdicts.verdict_store import verdict_per_row
from ktodata.review import pages
from ktodata.review.filters import Filters
from ktodata.review.review_actions import BadRequestError, PageRequest, run_action, whole_text
from ktodata.review.session import ReviewSession
from ktodata.review.store import StaleError
from ktodata.visible_text import clean

FRAME = "widget.html.j2"


class ReviewWidget(anywidget.AnyWidget):
    """A sitting of one reviewer in a notebook; `kd.notebook.review_widget` makes one."""

    _esm = resources.files("ktodata.review").joinpath("static", "widget.js").read_text(encoding="utf-8")
    css = traitlets.Unicode().tag(sync=True)
    # html: the whole desk, its texts escaped. problem: why the last action was not done. answer: how many messages were answered
    page = traitlets.Dict().tag(sync=True)

    def __init__(self, session: ReviewSession) -> None:
        self.session = session
        self._next_place: int | None = None  # place of the row that is likely to come next
        super().__init__(
            css=pages.widget_css(), page={"html": self._row_html(PageRequest(Filters())), "problem": "", "answer": 0}
        )
        self.on_msg(self._on_message)

    @property
    def verdicts(self) -> pl.DataFrame:
        """The verdicts that stand, one a row, in the order in which rows were first judged.

        row_id, verdict ("keep", "flip", "drop", "contested"), trusted_label (true desirable; null for drop, contested, and where
        reviewers differ), label (as given), note, reviewer, seconds and at (UTC, ISO 8601).
        """
        names = ("row_id", "verdict", "trusted_label", "label", "note", "reviewer", "seconds", "at")
        return verdict_per_row(self.session.store.current_verdicts()).select(names)

    @property
    def path(self) -> Path:
        """The store of the verdicts."""
        return self.session.store.path

    def close(self) -> None:
        """Take the widget off the page, and close the store."""
        self.session.store.close()
        super().close()

    def _on_message(self, _widget: Any, message: Mapping[str, Any], _buffers: Any) -> None:
        """Do what the page asks, and show what comes next; or say why it was not done, and leave the page as it is."""
        html, problem = self.page["html"], ""
        try:
            html = self._do_action(message) if "action" in message else self._page_at(message.get("go"))
        except (BadRequestError, KtodataError, StaleError) as error:
            problem = clean(str(error))
        self.page = {"html": html, "problem": problem, "answer": self.page["answer"] + 1}
        if self._next_place is not None:
            self.session.rows.look_ahead(self._next_place)  # while this row is read

    def _do_action(self, message: Mapping[str, Any]) -> str:
        return self._row_html(run_action(self.session, str(message["action"]), message))

    def _page_at(self, to: object) -> str:
        """The page at one of the web desk's addresses."""
        path, _, query_string = to.partition("?") if isinstance(to, str) else ("", "", "")
        query = dict(parse_qsl(query_string))
        if path == "/progress":
            return pages.progress_page(self.session, frame=FRAME)
        if path == "/text":
            side, row_id = query.get("side", ""), query.get("id", "")
            self.send({"side": side, "text": whole_text(self.session, side, row_id)})
            return str(self.page["html"])
        if path == "/row":
            return self._row_html(PageRequest(Filters.of(query), self.session.place(query.get("id", ""))))
        if path == "/":
            return self._row_html(PageRequest(Filters.of(query)))
        raise BadRequestError("The desk has no such page.")

    def _row_html(self, page_request: PageRequest) -> str:
        item = self.session.item(page_request.filters, place=page_request.place, note=page_request.note)
        self._next_place = item.next_place
        return pages.row_page(self.session, item, page_request.filters, frame=FRAME)
