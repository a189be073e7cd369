"""The review desk: a local web page on which a person judges one row after the other with the keyboard. Loads on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.review.exchange import export_verdicts, import_verdicts
    from ktodata.review.push import push_verdicts
    from ktodata.review.serve import review

_HOMES = {"export_verdicts": "exchange", "import_verdicts": "exchange", "push_verdicts": "push", "review": "serve"}

__all__ = ["export_verdicts", "import_verdicts", "push_verdicts", "review"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ktodata.review.{_HOMES[name]}"), name)
