"""Lists of prompts from a file: one per line, or the `prompt` field of JSON lines, CSV or Parquet."""

from pathlib import Path
from typing import Any

from ktodata.errors import FormatError
from ktodata.files import read_table


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
        raise FormatError(f"{path} is not UTF-8: {error}") from error
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if not prompts:
        raise FormatError(f"{path} holds no prompts.")
    return prompts


def _read_column(path: Path) -> list[str]:
    table = read_table(path, as_text=True)
    if "prompt" not in table.columns:
        raise FormatError(f"{path} has no column 'prompt'; it has {', '.join(table.columns)}.")
    return [_last_user_text(value) for value in table["prompt"].drop_nulls().to_list()]


def _last_user_text(prompt: Any) -> str:
    if isinstance(prompt, list):
        return next((turn["content"] for turn in reversed(prompt) if turn.get("role") == "user"), "")
    return str(prompt)
