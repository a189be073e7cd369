"""How long a reviewer waits: from a verdict to the page of the next row, and until the desk is open.

    python tests/benchmarks/review_speed.py [--rows 100000] [--verdicts 1000] [--reading 0.2]

Rows are made up: 60 random words a text, four rows to a prompt, 256 random numbers a vector, five raters, a quality for each of six
signals. `ktodata review` is started as a process of its own on a run folder that holds them, at its default budget, and spoken to
over HTTP as the page's script does: the time of a verdict runs from the request to the last byte of the next row's page, with the
verdict synced to disk in between. Start-up runs from the command to the address, loading of Python and libraries included. What
the browser then needs to draw the page is not in it. Between two verdicts the script waits as somebody who reads (--reading, in
seconds), while the desk looks up what the next page needs. CPU time is the desk's own, and does not depend on other processes.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import psutil
from machine import machine, write_result

from ktodata.feedback import feedback_table
from ktodata.files import write_note
from ktodata.labels.people.trusted import RATES_SCHEMA
from ktodata.labels.people.votes import RATERS_SCHEMA
from ktodata.pipeline.audit import TABLES
from ktodata.pipeline.run_folder import save_result
from ktodata.stage import StageResult
from ktodata.stages.label_noise import ADDS

DIMENSION = 256
WORDS_A_TEXT = 60
TO_A_PROMPT = 4
RATERS = 5
SIGNALS = ("text", "completion_residual", "pair", "surface_features", "prompt", "together")


def write_run(folder: Path, rows: int, seed: int = 0) -> None:
    """A run folder as far as the desk reads it."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{number}" for number in range(5000)])

    def texts(count: int) -> list[str]:
        return [" ".join(line) for line in words[rng.integers(len(words), size=(count, WORDS_A_TEXT))]]

    def vectors() -> pl.Series:
        drawn = rng.standard_normal((rows, DIMENSION), dtype=np.float32)
        return pl.Series(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=pl.Array(pl.Float32, DIMENSION))

    group = np.arange(rows) // TO_A_PROMPT
    prompts = np.array(texts(int(group[-1]) + 1), dtype=object)[group]
    label = rng.random(rows) < 0.7
    row_id = pl.Series([f"{number:016x}" for number in range(rows)])
    table = pl.DataFrame(
        {
            "row_id": row_id,
            "prompt": pl.Series(prompts, dtype=pl.String),
            "completion": texts(rows),
            "label": label,
            "rater": [f"rater {number}" for number in rng.integers(RATERS, size=rows)],
            "source": "made up",
            "source_line": np.arange(1, rows + 1),
        }
    ).with_columns(votes=pl.concat_list(pl.struct("rater", "label", created_at=pl.lit(None, pl.Datetime("us", "UTC")))))
    feedback = pl.concat([feedback_table(), table], how="diagonal")
    quality = rng.random(rows)
    noise = pl.DataFrame(
        {
            "row_id": row_id,
            "p_desirable": np.where(label, quality, 1 - quality),
            "label_quality": quality,
            "is_label_issue": quality < 0.1,
            "flagged": False,
            "soft_label": label.astype(float),
            "p_wrong_low": 0.0,
            "evidence_against": pl.Series([None] * rows, dtype=pl.List(pl.String)),
        }
    ).select("row_id", *ADDS)
    signals = pl.DataFrame({"row_id": row_id} | {name: rng.random(rows) for name in SIGNALS})
    facts = {"trusted": {"rows": 0, "drawn_at_random": 0}, "injected_flips": {"per_given_class": {}}}
    named = row_id.alias("row_id").to_frame()
    embedded = named.with_columns(prompt_embedding=vectors(), completion_embedding=vectors())
    grouped = named.with_columns(prompt_group=row_id.gather(group * TO_A_PROMPT), pooled_votes=feedback["votes"])
    raters, rates = pl.DataFrame(schema=RATERS_SCHEMA), pl.DataFrame(schema=RATES_SCHEMA)
    tables = {**dict.fromkeys(TABLES, raters), "evidence": signals, "trusted_rates": rates}
    results = {
        "ingest": StageResult(feedback),
        "dedupe": StageResult(grouped),
        "embed": StageResult(embedded),
        "label_noise": StageResult(noise, metrics=facts, tables=tables),
    }
    for name, result in results.items():
        save_result(folder, name, result, {"key": f"made up {rows} {name}", "rows_in": rows})
    steps = [{name: {}} for name in results if name != "ingest"]
    recipe = {"steps": steps, "evaluate": None}
    write_note(folder / "manifest.json", {"name": "made up", "recipe": recipe, "stages": [{"name": name} for name in results]})


class Page:
    """A browser's side of the desk, without the browser."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self._host = place.netloc
        self._connection = http.client.HTTPConnection(place.netloc)
        self._connection.request("GET", f"{place.path}?{place.query}", headers={"Host": place.netloc})
        answer = self._connection.getresponse()
        answer.read()
        self._cookie = (answer.getheader("Set-Cookie") or "").split(";")[0]
        self._read(self._ask("GET", "/"))

    def judge(self, verdict: str) -> None:
        body = {
            "row_id": self.row["row-id"],
            "current_id": int(self.row["current-id"]),
            "detector": self.row["detector"],
            "filters": "",
        }
        self._read(self._ask("POST", "/verdict", json.dumps(body | {"verdict": verdict, "note": "", "seconds": 30.0})))

    def _ask(self, method: str, path: str, body: str | None = None) -> str:
        headers = {"Cookie": self._cookie}
        if method == "POST":
            headers |= {"Content-Type": "application/json", "Origin": f"http://{self._host}", "X-CSRF-Token": self._csrf}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]}")
        return text

    def _read(self, page: str) -> None:
        self.bytes = len(page.encode())
        self._csrf = re.search('name="csrf" content="([^"]*)"', page)[1]  # type: ignore[index]
        self.row = dict(re.findall('data-([a-z-]+)="([^"]*)"', re.search("<main[^>]*>", page)[0]))  # type: ignore[index]


def measure(folder: Path, verdicts: int, reading: float) -> dict[str, Any]:
    """Start the desk, give so many verdicts with so many seconds before each, and stop it."""
    command = [sys.executable, "-c", "from ktodata.cli import main; main()", "review", str(folder), "--no-open"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--reviewer", "benchmark"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        opened = time.perf_counter() - start
        page, seconds, desk = Page(address), [], psutil.Process(process.pid)
        spent = sum(desk.cpu_times()[:2])
        for number in range(verdicts):
            time.sleep(reading)
            begun = time.perf_counter()
            page.judge("flip" if number % 5 == 0 else "keep")
            seconds.append(time.perf_counter() - begun)
        spent = sum(desk.cpu_times()[:2]) - spent
    finally:
        process.terminate()
        process.wait()
    median, high = np.quantile(seconds, [0.5, 0.95])
    return {
        "start_up_seconds": round(opened, 2),
        "verdicts": verdicts,
        "median_ms": round(1000 * median, 1),
        "percentile_95_ms": round(1000 * high, 1),
        "slowest_ms": round(1000 * max(seconds), 1),
        "over_100_ms": sum(each > 0.1 for each in seconds),
        "cpu_ms_a_verdict": round(1000 * spent / verdicts, 1),
        "seconds_of_reading": reading,
        "page_bytes": page.bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--verdicts", type=int, default=1000)
    parser.add_argument("--reading", type=float, default=0.2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        write_run(Path(made, "run"), arguments.rows)
        result = {
            "rows": arguments.rows,
            "dimension": DIMENSION,
            **measure(Path(made, "run"), arguments.verdicts, arguments.reading),
        }
    print(json.dumps(result))
    write_result("review_speed", result | machine())


if __name__ == "__main__":
    main()
