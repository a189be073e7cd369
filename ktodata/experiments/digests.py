"""Names for what a training depends on, so that changed rows, settings or weights never meet old numbers."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

import ktodata.train
from ktodata.experiments.arms import BASE
from ktodata.experiments.methods.terms import OURS
from ktodata.files import digest_file
from ktodata.models import model_digest


def digest(*parts: Any) -> str:
    """16 hex digits of JSON values."""
    return xxhash.xxh3_64_hexdigest(json.dumps(parts, sort_keys=True, default=str).encode("utf-8", "surrogatepass"))


def digest_rows(rows: pl.DataFrame, columns: Iterable[str]) -> str:
    """16 hex digits of these columns, by row_id."""
    return digest(rows.sort("row_id").select(columns).to_dicts())


@cache
def digest_trainer() -> str:
    """16 hex digits of the code that trains: other code, other numbers."""
    package = Path(ktodata.train.__file__).parent
    return digest([(str(path.relative_to(package)), digest_file(path)) for path in sorted(package.rglob("*.py"))])


def digest_model(name: str) -> str:
    """16 hex digits of what a model's name stands for at present."""
    return digest(model_digest(name))


def releases(method: str) -> Mapping[str, str]:
    """Of the libraries that a method's numbers depend on."""
    names = ["torch", "transformers"] + ([] if method == BASE else ["ktodata"] if method in OURS else ["trl", "accelerate"])
    return {name: version(name) for name in names}
