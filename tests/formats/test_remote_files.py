"""Files of object stores are read as files here are, and looked at again when they change; fsspec's memory:// stands for all."""

import io
import json
import sys
import tempfile

import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import FormatError, MissingExtraError, SettingError
from ktodata.formats import read
from ktodata.pipeline.self_training import dry_run

fsspec = pytest.importorskip("fsspec")
RECORDS = [{"prompt": f"question {n}?", "completion": f"answer {n}", "label": n % 3 > 0} for n in range(30)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


@pytest.fixture
def store():
    """A bucket with a packed file, a plain one and a Parquet file."""
    system = fsspec.filesystem("memory")
    table = io.BytesIO()
    pl.DataFrame(RECORDS).write_parquet(table)
    with fsspec.open("memory://bucket/day/a.jsonl.gz", "wb", compression="gzip") as file:
        file.write(LINES)
    system.pipe_file("/bucket/day/b.jsonl", LINES.replace(b"answer", b"reply"))
    system.pipe_file("/bucket/c.parquet", table.getvalue())
    yield system
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("url", "rows"), [("memory://bucket/day/*", 60), ("memory://bucket/c.parquet", 30), ("memory://bucket/**", 90)]
)
def test_files_and_globs_are_read(store, url, rows):
    result = read(url)
    assert (result.feedback.height, result.metrics["records"]) == (rows, rows)
    names = [file["name"] for file in result.metrics["files"]]
    assert all(name.startswith("memory://bucket/") for name in names)
    assert result.feedback["source"].unique().sort().to_list() == sorted(names)
    assert all(len(file["sha256"]) == 64 and file["bytes"] > 0 for file in result.metrics["files"])


def test_the_rows_are_those_of_the_same_file_here(store, tmp_path):
    (tmp_path / "b.jsonl").write_bytes(store.cat_file("/bucket/day/b.jsonl"))
    here, there = read(tmp_path / "b.jsonl").feedback, read("memory://bucket/day/b.jsonl").feedback
    assert here.drop("source").equals(there.drop("source"))


def test_what_is_not_there_is_said_in_one_line(store):
    for url, message in (
        ("memory://bucket/day/z.jsonl", "there is no file 'memory://bucket/day/z.jsonl'"),
        ("memory://bucket/*.csv", "there is no file"),
        ("memory://bucket/day", r"is a folder. Name its files, e.g. 'memory://bucket/day/\*.jsonl'"),
    ):
        with pytest.raises(FormatError, match=message):
            read(url)
    with pytest.raises(SettingError, match="begin with s3://, gs://, az://"):
        read("ftp://host/a.jsonl")


@pytest.mark.parametrize(("scheme", "module", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("az", "adlfs", "azure")])
def test_a_missing_library_is_asked_for(monkeypatch, scheme, module, extra):
    monkeypatch.setattr("ktodata.extras.find_spec", lambda name: None if name == module else sys)
    with pytest.raises(MissingExtraError, match=rf"reading {scheme}:// needs {module}: pip install 'ktodata\[{extra}\]'"):
        read(f"{scheme}://bucket/a.jsonl")


def test_no_copy_is_left_whether_it_is_read_or_not(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read("memory://bucket/c.parquet")
    store.pipe_file("/bucket/c.parquet", b"PAR1 and no more")
    with pytest.raises(FormatError, match="cannot be read as Parquet"):
        read("memory://bucket/c.parquet")
    monkeypatch.setattr(type(store), "get_file", _forbid)
    with pytest.raises(FormatError, match=r"'memory://bucket/c\.parquet' cannot be read: PermissionError: Forbidden"):
        read("memory://bucket/c.parquet")
    assert not list(tmp_path.iterdir())


def _forbid(*_args, **_kwargs):
    raise PermissionError("Forbidden")


def test_a_file_is_inspected_where_it_is(store, tmp_path):
    inspection = kd.inspect("memory://bucket/day/a.jsonl.gz")
    assert (inspection.path, inspection.n_records) == ("memory://bucket/day/a.jsonl.gz", 30)
    assert "paths: [memory://bucket/day/a.jsonl.gz]" in inspection.recipe(tmp_path).replace('"', "").replace("'", "")


def test_a_run_reads_again_what_has_changed(store, tmp_path):
    plan = {"name": "x", "ingest": {"paths": "memory://bucket/day/*"}, "steps": ["validate"]}
    first = kd.run(plan, out=tmp_path / "run")
    assert first.manifest["rows"]["rows_in"] == 60
    assert {answer for _, answer in dry_run(plan, out=tmp_path / "run")[1]} == {"unchanged"}
    store.pipe_file("/bucket/day/b.jsonl", LINES.replace(b"answer", b"riposte"))
    assert dict(dry_run(plan, out=tmp_path / "run")[1])["ingest"] == "runs: files changed"
    again = kd.run(plan, out=tmp_path / "run")
    assert again.manifest["rows"]["rows_in"] == 60
    shards = pl.read_parquet(again.folder / "shards" / "*.parquet")
    assert shards["completion"].cast(pl.String).str.contains("riposte").sum() == 30
