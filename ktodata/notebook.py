"""`kd.notebook`: `show(rows)` and `review_widget(run)` draw themselves in a notebook; each loads on first use.

`with show_progress():` says how far work is that takes long, in a script too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.progress import show_progress
    from ktodata.report.notebook_html import show
    from ktodata.review.notebook_review import review_widget

__all__ = ["review_widget", "show", "show_progress"]


def __getattr__(name: str) -> Any:
    if name == "show":
        from ktodata.report.notebook_html import show

        return show
    if name == "review_widget":
        from ktodata.review.notebook_review import review_widget

        return review_widget
    if name == "show_progress":
        from ktodata.progress import show_progress

        return show_progress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
