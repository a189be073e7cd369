"""A large run makes a page that still opens at once."""

import time

import folders
import numpy as np
import polars as pl
import pytest

from ktodata.report import build_report


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


@pytest.mark.slow
def test_a_hundred_thousand_rows_make_a_page_under_five_megabytes(tmp_path):
    folder = folders.write_run(tmp_path / "large")
    enlarge(folder, 100_000)
    started = time.perf_counter()
    html = build_report(folder)
    assert len(html.encode()) < 5_000_000
    assert time.perf_counter() - started < 60
