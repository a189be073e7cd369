"""The committed samples as tests read them: records by id, given and true side by side, and answers for their scripts to replay."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.sample.make_sample import BROKEN, CUT_LINE, TEMPERATURES


def sample_lines(path: Path) -> list[dict]:
    """Every record, without the line that is cut off."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line and line + "\n" != CUT_LINE]


def sample_records(path: Path) -> dict[str, dict]:
    """The same by id."""
    return {record["id"]: record for record in sample_lines(path)}


def sound_rows(given: dict[str, dict], truth: dict[str, dict]) -> list[dict]:
    """Given and true side by side, without the broken records; `up`: whether the thumb is."""
    faults = {fault for fault, _ in BROKEN}
    rows = [given[name] | truth[name] | {"up": given[name]["thumb"] == "up"} for name in given]
    return [row for row in rows if row["planted"] not in faults]


def replayed(given: dict[str, dict], truth: dict[str, dict]) -> Callable[[Sequence[str], float, int], list[str]]:
    """Answers as the models gave them in the files; blank ones where they have none."""
    answers = {
        (record["prompt"], record["model"]): record["completion"]
        for name, record in given.items()
        if (truth[name]["planted"] or "").partition(":")[0] in ("", "duplicate_of", "contradicts")
    }
    models = {temperature: model for model, temperature in TEMPERATURES.items()}
    return lambda prompts, temperature, seed: [answers.get((prompt, models[temperature]), "") for prompt in prompts]
