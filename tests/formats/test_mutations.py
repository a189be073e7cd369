"""Whatever a record has become: it is rows, or it is in the quarantine; nothing raises, nothing hangs, nothing is lost."""

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from mutations import changed_bytes, changed_value, mutated_line
from test_no_loss import SHAPES

from ktodata.errors import KtodataError
from ktodata.formats import FORMATS, read

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    f.name: (f.example, {"format": f.name, **f.settings}) for f in FORMATS.values()
} | SHAPES
N_QUICK, N_SLOW, N_FILES = 300, 20_000, 10


def check(place: Path, case: str, n_records: int, seed: int) -> None:
    """Read `n_records` mutated records after a sound one: records = those that became rows + the quarantine."""
    record, settings = CASES[case]
    if seed % 2:  # the format is not named: each record is read in the first that it looks like
        settings = {name: value for name, value in settings.items() if name != "format" or case == "Label Studio's columns"}
    random = Random(f"{case} {seed}")
    mutated = [mutated_line(record, random) for _ in range(n_records)]
    sound = json.dumps(record).encode()
    place.write_bytes(b"".join(line + b"\n" for line in (sound, *mutated)))
    result = read(place, **settings)
    n_lines = sum(1 for line in place.read_bytes().split(b"\n") if line.strip())
    metrics = result.metrics
    assert metrics["records"] == n_lines == metrics["records_used"] + result.quarantine.height
    lines = result.feedback["source_line"].unique().to_list()
    assert len(lines) == metrics["records_used"] and 1 in lines
    assert not set(lines) & set(result.quarantine["line"])


@pytest.mark.parametrize("case", CASES)
def test_mutated_records_are_rows_or_set_aside(case: str, tmp_path: Path):
    check(tmp_path / "mutated.jsonl", case, N_QUICK, seed=0)


@pytest.mark.slow
def test_twenty_thousand_mutated_records(tmp_path: Path):
    for seed in range(1, 3):
        for case in CASES:
            check(tmp_path / "mutated.jsonl", case, N_SLOW // len(CASES) // 2 + 1, seed)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet", "in memory"])
@pytest.mark.parametrize("case", CASES)
def test_mutated_files_are_read_or_refused_in_words(case: str, suffix: str, tmp_path: Path):
    """The whole of a file, its bytes changed too; what cannot be read is one of our own errors."""
    record, settings = CASES[case]
    random = Random(f"{case} {suffix}")
    refused = 0
    for number in range(N_FILES):
        records = [record, *(changed_value(record, random) for _ in range(3))]
        try:
            given = records if suffix == "in memory" else written(records, tmp_path / f"{number}{suffix}", random)
            result = read(given, **settings)
        except KtodataError:
            refused += 1
        else:
            assert result.metrics["records"] == result.metrics["records_used"] + result.quarantine.height
    assert refused < N_FILES or suffix != "in memory"


def written(records: list[dict[str, Any]], place: Path, random: Random) -> Path:
    if place.suffix == ".parquet":
        cells = [{name: json.dumps(value, default=str) for name, value in record.items()} for record in records]
        pl.DataFrame(cells, infer_schema_length=None).write_parquet(place)
    elif place.suffix == ".csv":
        names = list(dict.fromkeys(name for record in records for name in record))
        with place.open("w", newline="", encoding="utf-8", errors="replace") as file:
            csv.writer(file).writerows([names, *([record.get(name) for name in names] for record in records)])
    else:
        place.write_text(json.dumps(records), encoding="utf-8")
    text = place.read_bytes()
    place.write_bytes(changed_bytes(text, random) if random.random() < 0.5 else text)
    return place
