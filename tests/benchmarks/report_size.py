"""How large report.html gets, how long it takes to build, and how long its reader waits.

    python tests/benchmarks/report_size.py [--rows 100000] [--loads 5]

Rows are made up: 60 words a text drawn from 5,000 as words are (the n-th most frequent as often as 1 / n), two rows to a prompt,
40 clusters, 2,000 dots on the map, as coverage leaves them. Two runs: in the first 30 of 100 rows left (repeats of another row,
doubted labels, relabelled ones), in the second all did. The page is built in a process of its own: seconds from the call to the
text, and the process's highest resident memory, libraries included. Then headless Chromium opens it from disk, offline:
milliseconds from the start of the navigation until the map is drawn and the search answers, and of one search, from the key to
the new rows in the page, without the wait for further keys; the first search makes the texts ready, and takes longest.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine, write_result
from playwright.sync_api import Page, sync_playwright

from ktodata.feedback import feedback_table
from ktodata.files import write_note
from ktodata.ledger import StageDecisions, account, outcomes, write_up
from ktodata.pipeline.run_folder import save_result
from ktodata.report import build_report
from ktodata.stage import StageResult, decide

WORDS, WORDS_A_TEXT, CLUSTERS, DOTS = 5000, 60, 40, 2000
LEFT = {"30 of 100 rows left": 0.3, "all rows left": 1.0}
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"]
SEARCHED = """async () => {
  const said = document.getElementById("search-status");
  const field = document.getElementById("search-text");
  const times = [];
  for (const word of ["word1 word2", "word40", "nowhere", "0f", "doubted word7"]) {
    const changed = new Promise((done) => new MutationObserver(done).observe(said, { childList: true }));
    const wait = setTimeout;
    window.setTimeout = (act) => act();  // not the wait for further keys
    const start = performance.now();
    field.value = word;
    field.dispatchEvent(new Event("input"));
    times.push(performance.now() - start);
    window.setTimeout = wait;
    await changed;
  }
  return times;
}"""


def write_run(folder: Path, rows: int, left: float, seed: int = 0) -> None:
    """A run folder as far as the report reads it."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{number}" for number in range(WORDS)])
    often = 1 / np.arange(1, WORDS + 1)
    lines = words[rng.choice(WORDS, size=(rows + rows // 2 + 1, WORDS_A_TEXT), p=often / often.sum())]
    texts = np.array([" ".join(line) for line in lines], dtype=object)
    ids = pl.Series("row_id", [f"{number:016x}" for number in rng.integers(2**63, size=rows)])
    template = feedback_table({"prompt": "p", "completion": "c", "label": True, "rater": "r", "source": "s"})
    feedback = (
        pl.DataFrame(
            {
                "row_id": ids,
                "prompt": texts[rows + np.arange(rows) // 2],
                "completion": texts[:rows],
                "label": rng.random(rows) < 0.7,
                "rater": [f"rater {number}" for number in rng.integers(50, size=rows)],
                "source": ["feedback.jsonl"] * rows,
                "source_line": np.arange(rows),
            }
        )
        .with_columns(pl.lit(None, template.schema[name]).alias(name) for name in set(template.columns) - set(_GIVEN))
        .select(pl.col(name).cast(dtype) for name, dtype in template.schema.items())
    )
    _stage(folder, "ingest", feedback, {"rows": rows})
    quality = rng.random(rows)
    table = pl.DataFrame({"row_id": ids, "label_quality": quality, "of": ids.shuffle(seed), "similarity": rng.random(rows)})
    drawn = pl.Series(rng.random(rows) / left)
    part = pl.DataFrame({"row_id": ids, "part": ["train"] * rows})
    decided = [
        StageDecisions("dedupe", "all", decide(table, drawn < 0.4, action="drop", reason="near_repeat", evidence=["similarity"], caused_by="of")),
        StageDecisions("label_noise", "train", decide(table, drawn.is_between(0.4, 0.8), action="review", reason="doubted_label", evidence=["label_quality"])),
        StageDecisions("label_noise", "train", decide(table, drawn.is_between(0.8, 1.0), action="relabel", reason="outvoted", evidence=["label_quality"])),
    ]  # fmt: skip
    doubted = pl.col("label_quality") < 0.1
    noise = table.select("row_id", "label_quality", p_desirable="label_quality", is_label_issue=doubted)
    _stage(
        folder, "label_noise", noise.with_columns(evidence_against=pl.when("is_label_issue").then(pl.lit(["doubtful_label"]))), {}
    )
    cluster = pl.Series(rng.integers(CLUSTERS, size=rows), dtype=pl.Int32)
    place = pl.DataFrame({"row_id": ids, "cluster": cluster, "map_x": rng.normal(size=rows), "map_y": rng.normal(size=rows)})
    on_map = pl.int_range(pl.len()) < DOTS
    place = place.with_columns(pl.when(on_map).then(name).alias(name) for name in ("map_x", "map_y"))
    clusters = place.group_by("cluster").agg(rows=pl.len(), prompts=pl.len() // 2, desirable=pl.len() // 2)
    clusters = clusters.with_columns(name=pl.format("word{}, word{}", "cluster", "cluster"), differs=pl.lit(value=False))
    _stage(folder, "coverage", place, {}, clusters=clusters)
    states = outcomes(ids, decided, part=part, split_follows=False)
    kept = states.filter(pl.col("state").is_in(["keep", "relabel"])).select("row_id").join(part, on="row_id")
    ledger = write_up(decided, states, kept)
    ledger.write_parquet(folder / "ledger.parquet")
    stages = [{"name": name, "seconds": 1.0} for name in ("ingest", "dedupe", "label_noise", "coverage")]
    counted = account(ledger, ids, kept, quarantined_records=0)
    manifest = {"name": "large", "status": "done", "stages": stages, "rows": counted}
    write_note(folder / "manifest.json", manifest, siblings=[folder / "ledger.parquet"])


_GIVEN = ("row_id", "prompt", "completion", "label", "rater", "source", "source_line")


def _stage(folder: Path, name: str, columns: pl.DataFrame, facts: dict[str, Any], **tables: pl.DataFrame) -> None:
    save_result(folder, name, StageResult(columns, metrics=facts, tables=tables), {"key": name, "rows_in": columns.height})


def build(folder: Path, page: Path) -> None:
    """In a process of its own: the page, and on stdout what it took."""
    started = time.perf_counter()
    text = build_report(folder)
    seconds = time.perf_counter() - started
    page.write_text(text, encoding="utf-8")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"build_seconds": round(seconds, 1), "peak_memory_gb": round(peak, 2), "page_bytes": page.stat().st_size}))


def opened(page: Path, loads: int) -> dict[str, Any]:
    """What the reader waits for, each load in a context of its own."""
    ready, searched, hint = [], [], ""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for _ in range(loads):
            context = browser.new_context(offline=True)
            tab: Page = context.new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready]")
            ready.append(int(tab.get_attribute("html", "data-ready") or 0))
            hint = tab.inner_text("#search-how")
            searched += tab.evaluate(SEARCHED)
            context.close()
        browser.close()
    return {"ready_ms": _spread(ready), "search_ms": _spread(searched), "says": hint}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values)), "least": round(min(values)), "most": round(max(values))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--build", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        return build(*arguments.build)
    measured = {}
    for name, left in LEFT.items():
        with tempfile.TemporaryDirectory() as place:
            run, page = Path(place) / "run", Path(place) / "report.html"
            write_run(run, arguments.rows, left)
            command = [sys.executable, __file__, "--build", str(run), str(page)]
            took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            measured[name] = took | opened(page, arguments.loads)
            print(name, json.dumps(measured[name]), flush=True)
    write_result("report_size", machine() | {"rows": arguments.rows, "loads": arguments.loads, "runs": measured})
    return None


if __name__ == "__main__":
    main()
