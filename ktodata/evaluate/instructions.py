"""Instructions that a program can verify (IFEval, arXiv:2311.07911): prompts of a file, and what the answers to them kept to."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from ktodata.errors import EmptyDataError, FormatError
from ktodata.evaluate.instruction_checks import CHECKS, follows
from ktodata.stats.bootstrap import Floats, Statistic, weighted_mean

INSTRUCTIONS = {"item": pl.Int64(), "prompt": pl.String(), "instructions": pl.String()}
NEEDS = ("prompt", "instruction_id_list", "kwargs")


def read_instructions(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """(item, prompt, instructions: a JSON list of [instruction, arguments]; one line a prompt; facts with counts).

    path : IFEval's JSON lines: prompt, instruction_id_list, kwargs (an object for each instruction; null arguments are left out).

    A prompt with an instruction that has no check cannot be scored: it is left out, and counted by instruction in
    facts["unknown"]. Raises FormatError, with the line, for what is not such a record or has wrong arguments; EmptyDataError when
    no prompt is left.
    """
    if not path.is_file():
        raise FormatError(f"instructions: there is no file {path}.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"instructions: {path} is not UTF-8: {error.reason} at byte {error.start:,}.") from error
    prompts: list[dict[str, Any]] = []
    unknown = Counter[str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt, instructions = _parse_instruction_record(line, f"instructions: {path.name}, line {number:,}")
        strange = sorted({name for name, _ in instructions if name not in CHECKS})
        unknown.update(strange)
        if not strange:
            prompts.append({"item": len(prompts), "prompt": prompt, "instructions": json.dumps(instructions)})
    if not prompts:
        unchecked = f"; without a check: {', '.join(unknown)}" if unknown else ""
        raise EmptyDataError(f"instructions: {path} holds no prompt that can be scored{unchecked}.")
    records = sum(bool(line.strip()) for line in lines)
    facts = {"file": path.name, "prompts": len(prompts), "left_out": records - len(prompts), "unknown": dict(unknown)}
    return pl.DataFrame(prompts, schema=INSTRUCTIONS), facts


def at_most(prompts: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    """At most `limit` prompts, the same ones each time."""
    return prompts if limit is None else prompts.sample(min(limit, prompts.height), seed=0, shuffle=True).sort("item")


def instructions_kept(instructions: str, answer: str) -> list[bool]:
    """Of each instruction of a prompt, as `read_instructions` gives them, whether the answer follows it."""
    return [follows(name, answer, arguments) for name, arguments in json.loads(instructions)]


def instruction_measures(answers: pl.DataFrame) -> dict[str, Statistic]:
    """instructions_strict: share of prompts whose every instruction was followed; instructions_each: share of instructions.

    answers : text, instructions
    """
    kept = [instructions_kept(*line) for line in answers["instructions", "text"].iter_rows()]
    followed, total = (np.array(list(map(count, kept)), float) for count in (sum, len))
    return {
        "instructions_strict": weighted_mean(followed == total),
        "instructions_each": _ratio(followed, total),
    }


def _ratio(above: Floats, below: Floats) -> Statistic:
    return lambda weights: (weights @ above) / (weights @ below)


def _parse_instruction_record(line: str, where: str) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """(the prompt, its instructions with their arguments)."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise FormatError(f"{where} is not JSON: {error}.") from error
    missing = [name for name in NEEDS if not isinstance(record, dict) or name not in record]
    if missing:
        raise FormatError(f"{where} has no {', '.join(missing)}. IFEval's records have {', '.join(NEEDS)}.")
    names, arguments = record["instruction_id_list"], record["kwargs"]
    if not isinstance(record["prompt"], str) or not record["prompt"].strip():
        raise FormatError(f"{where}: the prompt is empty or no text.")
    if not isinstance(names, list) or not isinstance(arguments, list) or not names or len(names) != len(arguments):
        raise FormatError(f"{where}: instruction_id_list and kwargs are lists of one length, and not empty.")
    if not all(isinstance(of_one, dict | None) for of_one in arguments):
        raise FormatError(f"{where}: kwargs holds something other than objects.")
    known = [{key: value for key, value in (of_one or {}).items() if value is not None} for of_one in arguments]
    instructions = list(zip(map(str, names), known, strict=True))
    for name, checked in instructions:
        _check_arguments(name, checked, where)
    return record["prompt"], instructions


def _check_arguments(name: str, arguments: dict[str, Any], where: str) -> None:
    if name not in CHECKS:
        return
    try:
        CHECKS[name]("", **arguments)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FormatError(f"{where}: {name}: {place}: {first['msg']}; got {str(first['input'])[:80]!r}.") from error
