"""The review desk as a widget. Its page and acts are those of the web desk; messages stand where requests stand there."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import anywidget
import polars as pl
import traitlets

from ktodata.errors import KtodataError
from ktodata.formats.verdict_store import verdict_per_row
from ktodata.report.text import clean
from ktodata.review import pages
from ktodata.review.filters import Filters
from ktodata.review.review_actions import BadRequestError, View, run_action, text_of
from ktodata.review.session import ReviewSession
from ktodata.review.store import StaleError

FRAME = "widget.html.j2"


class ReviewWidget(anywidget.AnyWidget):
    """A sitting of one reviewer in a notebook; `kd.notebook.review_widget` makes one."""

    _esm = resources.files("ktodata.review").joinpath("static", "widget.js").read_text(encoding="utf-8")
    look = traitlets.Unicode().tag(sync=True)
    # html: the whole desk, its texts escaped. problem: why the last act was not done. answer: how many messages were answered
    page = traitlets.Dict().tag(sync=True)

    def __init__(self, desk: ReviewSession) -> None:
        self.desk = desk
        self._after: int | None = None  # place of the row that is likely to come next
        super().__init__(look=pages.widget_look(), page={"html": self._row(View(Filters())), "problem": "", "answer": 0})
        self.on_msg(self._answer)

    @property
    def verdicts(self) -> pl.DataFrame:
        """The verdicts that stand, one a row, in the order in which rows were first judged.

        row_id, verdict ("keep", "flip", "drop", "contested"), trusted_label (true desirable; null for drop, contested, and where
        reviewers differ), label (as given), note, reviewer, seconds and at (UTC, ISO 8601).
        """
        names = ("row_id", "verdict", "trusted_label", "label", "note", "reviewer", "seconds", "at")
        return verdict_per_row(self.desk.store.standing()).select(names)

    @property
    def path(self) -> Path:
        """The store of the verdicts."""
        return self.desk.store.path

    def close(self) -> None:
        """Take the widget off the page, and close the store."""
        self.desk.store.close()
        super().close()

    def _answer(self, _widget: Any, message: Mapping[str, Any], _buffers: Any) -> None:
        """Do what the page asks, and show what comes next; or say why it was not done, and leave the page as it is."""
        html, problem = self.page["html"], ""
        try:
            html = self._act(message) if "act" in message else self._go(message.get("go"))
        except (BadRequestError, KtodataError, StaleError) as error:
            problem = clean(str(error))
        self.page = {"html": html, "problem": problem, "answer": self.page["answer"] + 1}
        if self._after is not None:
            self.desk.book.look_ahead(self._after)  # while this row is read

    def _act(self, message: Mapping[str, Any]) -> str:
        return self._row(run_action(self.desk, str(message["act"]), message))

    def _go(self, to: object) -> str:
        """The page at one of the web desk's addresses."""
        path, _, asked = to.partition("?") if isinstance(to, str) else ("", "", "")
        query = dict(parse_qsl(asked))
        if path == "/progress":
            return pages.progress_page(self.desk, frame=FRAME)
        if path == "/text":
            side, row_id = query.get("side", ""), query.get("id", "")
            self.send({"side": side, "text": text_of(self.desk, side, row_id)})
            return str(self.page["html"])
        if path == "/row":
            return self._row(View(Filters.of(query), self.desk.place(query.get("id", ""))))
        if path == "/":
            return self._row(View(Filters.of(query)))
        raise BadRequestError("The desk has no such page.")

    def _row(self, view: View) -> str:
        turn = self.desk.turn(view.filters, place=view.place, note=view.note)
        self._after = turn.after
        return pages.row_page(self.desk, turn, view.filters, frame=FRAME)
