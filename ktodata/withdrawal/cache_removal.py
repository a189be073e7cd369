"""Caches keep by content, so nothing in them says whose it is: it is looked for by the texts of the rows that go.

vectors/, hidden_states/   entries of these texts, in the folders of all encoders and models
judge/                     answers on these rows, to the judge of the run's own recipe
tokens/                    all: they are the texts, and nothing tells whose; a training makes them again
reference/                 log-probs of the run's own trainings: they are of all its rows together
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.embeddings.vector_cache import BETWEEN, text_keys
from ktodata.errors import KtodataError, RunError
from ktodata.feedback import question_text
from ktodata.files import discard, read_note, read_parquet, remove_leftovers, whole_file
from ktodata.labels.judges.judge_plan import plan_judging
from ktodata.labels.judges.judge_settings import settings_in
from ktodata.models import cache_dir

BY_TEXT = ("vectors", "hidden_states")


def clear_caches(rows: pl.DataFrame, runs: Sequence[Path], steps: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Remove what the caches hold of these rows; how many entries of each.

    runs : folders whose trainings are looked for. steps : of the run's recipe, with their settings
    """
    if not (place := cache_dir()).is_dir():
        return {}
    for name in (*BY_TEXT, "judge", "tokens", "reference"):
        if (place / name).is_dir():
            remove_leftovers(place / name, alone=False)
    keys = vector_keys(rows, steps) if rows.height else set()
    counts = {name: sum(_drop_vectors(file, keys) for file in (place / name).glob("*/*.parquet")) for name in BY_TEXT}
    counts["judge"] = _drop_answers(place / "judge", _judge_keys(rows, steps)) if rows.height else 0
    counts["tokens"] = _discard_all((place / "tokens").glob("[!.]*")) if rows.height else 0
    counts["reference"] = _discard_all(_reference_places(place / "reference", runs)) if rows.height else 0
    return {name: count for name, count in counts.items() if count}


def vector_keys(rows: pl.DataFrame, steps: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Of every text of the rows that a step, or a command beside it, may have encoded: whole, and cut as `embed` cuts it."""
    longest = [value for settings in steps.values() if isinstance(value := settings.get("max_chars"), int)]
    prompts, completions = [rows["prompt"], question_text(rows)], rows["completion"]
    texts = {text for series in (*prompts, completions) for text in series}
    texts |= {text[:most] for text in texts for most in longest}
    pairs = {BETWEEN.join(pair) for prompt in prompts for pair in zip(prompt, completions, strict=True)}
    return set(text_keys(sorted(texts | pairs)))


def _drop_vectors(file: Path, keys: set[str]) -> int:
    """Take the entries of these keys out of a file of vectors; how many. A damaged file goes as a whole: it is made again."""
    try:
        table = read_parquet(file)
        stays = table.filter(~pl.col("key").is_in(pl.Series(sorted(keys), dtype=pl.String).implode()))
    except (OSError, pl.exceptions.PolarsError):
        file.unlink(missing_ok=True)
        return 0
    if stays.height == table.height:
        return 0
    if stays.is_empty():
        file.unlink()
    else:
        with whole_file(file) as scratch:
            stays.write_parquet(scratch)
    return table.height - stays.height


def _judge_keys(rows: pl.DataFrame, steps: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Of all questions about the rows that the run's judge was asked or could have been asked."""
    if "judge" not in steps or unreachable_judge(steps) is not None:
        return set()
    source, settings = settings_in(steps["judge"])
    # every row is planned for, whatever part and state it had
    plan = plan_judging(
        rows.select("row_id", "prompt", "completion"), settings, source.identity(settings, fetch=False), probe_rows=rows.height
    )
    return set(plan.unique)


def _drop_answers(folder: Path, keys: set[str]) -> int:
    """Take the answers to these questions out of all files of answers; how many."""
    dropped = 0
    for file in sorted(folder.glob("*/*.jsonl")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        stays = [line for line in lines if _key_of(line) not in keys]
        if len(stays) < len(lines):
            dropped += len(lines) - len(stays)
            with whole_file(file) as scratch:
                scratch.write_text("".join(stays), encoding="utf-8")
    return dropped


def _key_of(line: str) -> str:
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(line)["key"])
    return ""


def _reference_places(folder: Path, runs: Sequence[Path]) -> list[Path]:
    """Where the log-probs of all trainings below these folders lie."""
    keys = set[str]()
    for note in (note for run in runs for note in run.rglob("training.json")):
        with suppress(OSError, RunError, LookupError, TypeError):
            keys.add(str(read_note(note)["reference"]["key"]).partition("/")[0])
    return [folder / key for key in sorted(keys) if key and (folder / key).is_dir()]


def _discard_all(places: Iterable[Path]) -> int:
    count = 0
    for place in sorted(places):
        if place.is_dir():
            discard(place)
            count += 1
        elif place.suffix != ".lock":  # another process may wait for it
            place.unlink(missing_ok=True)
    return count


def unreachable_judge(steps: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why the judge's answers cannot be looked for, if they cannot."""
    if "judge" not in steps:
        return None
    try:
        settings_in(steps["judge"])
    except KtodataError as error:
        return str(error)
    return None
