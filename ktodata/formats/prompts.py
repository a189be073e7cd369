"""Lists of prompts from a file: one per line, or the `prompt` field of JSON lines, CSV or Parquet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import FormatError
from ktodata.models import first_line

READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ".json": lambda path: pl.read_json(path, infer_schema_length=None),
}


def read_prompts(path: Path) -> list[str]:
    """The prompts in a file, in order, empty ones left out. Raises FormatError when there are none.

    .txt holds one prompt a line; .jsonl, .json, .csv and .parquet hold a column `prompt`, of text or of turns (the last
    user turn counts).
    """
    if not path.is_file():
        raise FormatError(f"there is no file of prompts {path}.")
    try:
        prompts = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".txt" else _read_column(path)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {first_line(error)}") from error
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if not prompts:
        raise FormatError(f"{path} holds no prompts.")
    return prompts


def _read_column(path: Path) -> list[str]:
    if path.suffix not in READERS:
        raise FormatError(f"{path}: prompts are read from {', '.join(['.txt', *READERS])} files.")
    try:
        table = READERS[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FormatError(f"{path} cannot be read: {first_line(error)}") from error
    if "prompt" not in table.columns:
        raise FormatError(f"{path} has no column 'prompt'; it has {', '.join(table.columns)}.")
    return [_last_user_text(value) for value in table["prompt"].drop_nulls().to_list()]


def _last_user_text(prompt: Any) -> str:
    if isinstance(prompt, list):
        return next((turn["content"] for turn in reversed(prompt) if turn.get("role") == "user"), "")
    return str(prompt)
