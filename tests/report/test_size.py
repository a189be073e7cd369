"""A large run makes a page that still opens at once."""

import time
from html import unescape

import folders
import numpy as np
import polars as pl
import pytest
from opening import decoded

from ktodata.report import build_report
from ktodata.report.map.search_index import read_search_index
from ktodata.report.run_files import RunFiles


def enlarge(folder, rows):
    """Repeat the rows of a small run until there are `rows`, each with its own id, in every table that is keyed by row."""
    times = -(-rows // 60)
    for file in [*folder.glob("stages/*/columns.parquet"), folder / "ledger.parquet"]:
        table = pl.read_parquet(file)
        copies = [table.with_columns(pl.col("row_id") + f"-{number}") for number in range(times)]
        many = pl.concat(copies)
        if "map_x" in many.columns:
            jitter = np.random.default_rng(0).normal(size=(many.height, 2))
            many = many.with_columns(pl.col("map_x") + jitter[:, 0], pl.col("map_y") + jitter[:, 1])
        many.write_parquet(file)
    folders.renoted(folder / "manifest.json")


@pytest.mark.slow
def test_a_hundred_thousand_rows_make_a_page_under_five_megabytes(tmp_path):
    folder = folders.write_run(tmp_path / "large")
    enlarge(folder, 100_000)
    started = time.perf_counter()
    html = build_report(folder)
    assert len(html.encode()) < 5_000_000
    assert time.perf_counter() - started < 60
    rows = decoded(html, "search-data")
    assert len(rows["row_id"]) == 1667 * 14 + 2 and len(decoded(html, "map-data")["x"]) == 3000
    assert "3,000 of the 100,020 prompts" in unescape(html)


def test_however_little_room_there_is_the_rows_stay_within_it(tmp_path, monkeypatch):
    """452 rows whose texts all differ and pack badly: excerpts shrink, then texts go, then rows, and the page says so."""
    folder = folders.write_run(tmp_path / "run", stages=("label_noise",))
    enlarge(folder, 3000)
    noise = np.random.default_rng(0)
    ingest = folder / "stages/ingest/columns.parquet"
    table = pl.read_parquet(ingest)
    texts = pl.Series([noise.bytes(160).hex() for _ in range(table.height)])
    table.with_columns(prompt=texts, completion=texts.reverse()).write_parquet(ingest)
    indexes = {room: read_search_index(RunFiles(folder), max_bytes=room) for room in (5_000_000, 150_000, 10_000, 1_200)}
    assert all(len(rows.encoded) <= room and rows.rows == 452 for room, rows in indexes.items())
    sizes = {room: (rows.excerpt, rows.included, rows.with_evidence) for room, rows in indexes.items()}
    assert sizes[5_000_000] == (320, 452, True)
    assert 0 < sizes[150_000][0] < 320 and sizes[150_000][1:] == (452, True)
    assert sizes[10_000][:2] == (0, 452)
    assert sizes[1_200][0] == 0 and 50 < sizes[1_200][1] < 452
    monkeypatch.setattr("ktodata.report.page.PAGE_BYTES", 0)
    monkeypatch.setattr("ktodata.report.page.MIN_SEARCH_BYTES", 1_200)
    html = build_report(folder)
    assert len(decoded(html, "search-data")["row_id"]) == indexes[1_200].included
    assert f"{indexes[1_200].left_out} of them" in html
    assert f"holds nothing of their texts; <code>ktodata explain {folder} ROW_ID</code>" in html
