"""Every kind of evidence that this folder has a file for."""

from importlib import import_module
from pkgutil import iter_modules

from ktodata.labels import evidence as folder
from ktodata.labels.evidence.evidence import Evidence
from ktodata.labels.label_rows import LabelRows


def gather_evidence(rows: LabelRows) -> list[Evidence]:
    """What each file here says of the rows, in the order of their names; those with nothing to say are left out."""
    names = sorted(module.name for module in iter_modules(folder.__path__))
    kinds = [getattr(import_module(f"{folder.__name__}.{name}"), "evidence", None) for name in names]
    return [piece for kind in kinds if callable(kind) and (piece := kind(rows)) is not None]
