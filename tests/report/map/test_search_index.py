"""The rows to be found on the page: each that left, once, with its reason, its evidence, its cause and its giver."""

import base64
import gzip
import json

import folders
import polars as pl
import pytest

from ktodata.report.map import search_index
from ktodata.report.map.search_index import read_search_index
from ktodata.report.run_files import RunFiles

ROOM = 1_000_000


def read(folder):
    index = read_search_index(RunFiles(folder), max_bytes=ROOM)
    return index, json.loads(gzip.decompress(base64.b64decode(index.encoded)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return folders.write_run(tmp_path_factory.mktemp("run") / "small")


def test_each_row_that_left_is_there_once(run):
    index, payload = read(run)
    assert (index.rows, index.included, index.left_out, index.excerpt, index.with_evidence) == (16, 16, 0, 320, True)
    ids = pl.read_parquet(run / "stages/ingest/columns.parquet")["row_id"].to_list()
    assert payload["row_id"] == [*ids[:9], *ids[20:25], "thumbs.jsonl:3", "thumbs.jsonl:17"]
    kinds = [payload["kinds"][kind] for kind in payload["kind"]]
    assert kinds[0] == ["held for a person to review", "label noise", "doubted label"]
    assert kinds[9] == ["dropped", "dedupe", "near repeat"]
    assert kinds[14:] == [["quarantined", "ingest", "unmapped label"], ["quarantined", "ingest", "not json"]]


def test_a_row_has_its_reason_evidence_cause_and_giver(run):
    _, payload = read(run)
    repeat = 9
    assert payload["evidence"][repeat] == "similarity: 0.910"
    assert payload["causes"]["row_id"] == ["31"] and payload["cause"][repeat] == 0 and payload["cause"][0] is None
    assert payload["causes"]["prompt"] == ["sums question 30"] and payload["causes"]["completion"] == ["answer 30"]
    assert payload["label"][repeat] == 0 and payload["label"][repeat + 1] == 1 and payload["label"][-1] is None
    assert payload["prompt"][repeat] == "lists question 20" and payload["completion_chars"][repeat] == len("answer 20")
    assert (
        payload["rater_source_pairs"][payload["rater_source"][repeat]] == ["rater 2", "by hand"] and payload["line"][repeat] == 21
    )


def test_a_record_shows_what_was_read_and_what_is_wrong(run):
    _, payload = read(run)
    assert payload["evidence"][-2:] == ["'meh' is neither", "Expecting value"]
    assert payload["prompt"][-1] == "␀{{ broken }}" and payload["completion_chars"][-1] is None


def test_before_a_run_ends_the_strongest_decision_counts(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("dedupe", "label_noise"))
    _, payload = read(folder)
    by_row = dict(zip(payload["row_id"], payload["kind"], strict=True))
    assert len(by_row) == 16 and by_row["1"] != by_row["21"] == by_row["25"]


def test_long_texts_are_cut_to_what_a_browser_reads_without_a_wait(run, monkeypatch):
    """However well a text packs, it is unpacked and searched: the excerpt is the longest of which all rows' texts fit."""
    monkeypatch.setattr(search_index, "TEXT_CHARS", 1200)
    index, payload = read(run)
    lengths = [
        n or 0 for part in (payload, payload["causes"]) for text in ("prompt", "completion") for n in part[f"{text}_chars"]
    ]
    chars = {
        excerpt: sum(min(excerpt, n) for n in lengths) + len("".join(payload["evidence"])) for excerpt in search_index.EXCERPTS
    }
    assert index.excerpt == max(excerpt for excerpt, n in chars.items() if n <= 1200) == payload["excerpt"]
    assert 0 < index.excerpt < 320 and index.included == 16


def test_where_nothing_left_there_is_nothing(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=())
    pl.read_parquet(folder / "quarantine.parquet").clear().write_parquet(folder / "quarantine.parquet")
    assert read_search_index(RunFiles(folder), max_bytes=ROOM) is None


def test_a_decision_about_a_row_that_is_not_there_breaks_nothing(run, tmp_path):
    """A ledger may outlive the rows: the decision stays, with nothing of the text."""
    folder = folders.write_run(tmp_path / "run")
    file = folder / "stages/ingest/columns.parquet"
    pl.read_parquet(file).filter(pl.col("row_id") != "21").write_parquet(file)
    _, payload = read(folder)
    at = payload["row_id"].index("21")
    assert payload["prompt"][at] == "" and payload["prompt_chars"][at] is None and payload["label"][at] is None
