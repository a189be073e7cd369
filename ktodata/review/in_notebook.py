"""`kd.notebook.review_widget`: the review desk in a notebook."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from ktodata.errors import RunError
from ktodata.extras import require
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run

if TYPE_CHECKING:
    from ktodata.review.widget import ReviewWidget


def review_widget(
    rows: Run | LabelAudit | Path | str,
    *,
    folder: Path | str | None = None,
    reviewer: str | None = None,
    blind: bool = False,
    budget_minutes: float = 60.0,
) -> "ReviewWidget":
    """The desk of `ktodata review` as a widget: Jupyter, marimo, VS Code. Keys count while it has the focus.

    rows : a run, its folder, or an audit (`kd.audit(...)`)
    folder : where the verdicts on an audit are kept, made if it is not there; a run keeps its own
    reviewer : who judges; the user's name when None. blind : hide the given label and all that hints at it.
    budget_minutes : of this sitting; half as many rows are drawn at random at first, while no row was reviewed.

    A verdict is in the store, FOLDER/reviews/reviews.sqlite, before the next row is shown: a kernel that dies loses none, and
    the same call goes on where it stopped. `.verdicts` are those that stand, for `audit.with_reviews`; `.path` is the store,
    for `kd.run(recipe, reviews=[...])`.

    Raises RunError (no label_noise in the run, no folder for an audit, a store that cannot be written) and MissingExtraError.
    """
    require("anywidget", what="the review desk in a notebook", extra="notebook")
    from ktodata.review.audit_run import AuditRun
    from ktodata.review.session import open_session
    from ktodata.review.widget import ReviewWidget

    if isinstance(rows, LabelAudit):
        if folder is None:
            raise RunError("review_widget: say where the verdicts on this audit are kept, e.g. folder='reviews/support'.")
        rows = AuditRun(rows, folder)
    elif folder is not None:
        raise RunError("review_widget: a run keeps its verdicts in its own folder; leave `folder` out.")
    run = rows if isinstance(rows, Run) else Run(rows)
    return ReviewWidget(open_session(run, reviewer=reviewer or getpass.getuser(), blind=blind, budget_minutes=budget_minutes))
