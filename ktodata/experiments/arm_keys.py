"""What a trained arm depends on beside code and settings, so that changed rows, weights or releases never meet old numbers."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version

import polars as pl

from ktodata.digests import digest
from ktodata.experiments.arms import BASE
from ktodata.experiments.methods.terms import OURS
from ktodata.models import model_digest


def digest_rows(rows: pl.DataFrame, columns: Iterable[str]) -> str:
    """16 hex digits of these columns, by row_id."""
    table = rows.sort("row_id").select(columns)
    return digest({name: str(kind) for name, kind in table.schema.items()}, table.write_ndjson())


def digest_model(name: str) -> str:
    """16 hex digits of what a model's name stands for at present."""
    return digest(model_digest(name))


def releases(method: str) -> Mapping[str, str]:
    """Of the libraries that a method's numbers depend on. Of this one too: what no import shows, as files that it reads."""
    names = ["ktodata", "torch", "transformers"] + ([] if method == BASE or method in OURS else ["trl", "accelerate"])
    return {name: version(name) for name in names}
