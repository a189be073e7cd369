"""Shards: whole or not there, the same bytes for the same rows, and the checksums to prove it."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import polars as pl
import pytest

from ktodata.errors import EmptyDataError, MissingColumnError, RunError
from ktodata.feedback import check_feedback, feedback_table
from ktodata.formats.shards import changed_shards, read_shards, write_shards
from ktodata.stages.export import export, shard_table

ODD = "<script>alert(1)</script> [bold]$x$ \u202e \U0001f600\n\r\t"


def table(count=6, shard_rows=2, **options):
    rows = feedback_table(*[(f"{ODD}{i}", f"c{i}", i % 2 == 0) for i in range(count)])
    rows = rows.with_columns(state=pl.lit("keep"), part=pl.Series(["train"] * (count - 1) + ["test"]))
    return shard_table(rows, export(rows, shard_rows=shard_rows, lone_row="keep").columns, **options)


def test_shards_are_named_counted_and_summed(tmp_path):
    rows = table()
    checksums = write_shards(rows, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checksums.json",
        "test-00000-of-00001.parquet",
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]
    assert json.loads((tmp_path / "checksums.json").read_text()) == checksums
    assert [checksums[name]["rows"] for name in sorted(checksums)] == [1, 2, 2, 1]
    for name, known in checksums.items():
        content = (tmp_path / name).read_bytes()
        assert (known["bytes"], known["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    train = pl.concat([pl.read_parquet(path) for path in sorted(tmp_path.glob("train-*"))])
    assert train.equals(rows.filter(pl.col("part") == "train").drop("part", "shard", "position"))


def test_the_same_rows_give_the_same_bytes_in_any_order(tmp_path):
    first, again = (write_shards(rows, tmp_path / name) for name, rows in (("a", table()), ("b", table().reverse())))
    assert first == again


def test_a_changed_or_missing_shard_is_told(tmp_path):
    write_shards(table(), tmp_path)
    assert changed_shards(tmp_path) == []
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    shard = tmp_path / "train-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert changed_shards(tmp_path) == ["test-00000-of-00001.parquet", "train-00001-of-00003.parquet"]


def test_shards_of_an_earlier_export_do_not_stay_between_the_new_ones(tmp_path):
    write_shards(table(count=12), tmp_path)
    (tmp_path / "notes.parquet").write_bytes(b"mine")
    checksums = write_shards(table(count=4), tmp_path)
    assert {path.name for path in tmp_path.glob("*.parquet")} == {*checksums, "notes.parquet"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_leaves_no_half_shard(tmp_path, monkeypatch, code):
    whole = write_shards(table(), tmp_path / "whole")
    calls = []

    def full_at_the_second(handle):  # of each file it is synced, and the folder that lists it
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    second = sorted(whole)[1]
    with pytest.raises(RunError, match=rf"cannot write .*{second}: {os.strerror(code)} \([\d,]+ bytes free"):
        write_shards(table(), tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == [sorted(whole)[0]]


def test_a_file_system_that_takes_no_more_bytes(tmp_path):
    """The real thing: the process may write files of at most 200 bytes."""
    script = f"""
import resource, signal
from pathlib import Path
import polars as pl
from ktodata.errors import RunError
from ktodata.formats.shards import write_shards
rows = pl.DataFrame({{"part": "train", "shard": 0, "position": 0, "row_id": "1", "prompt": "x"}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    write_shards(rows, Path({str(tmp_path)!r}))
except RunError as error:
    print("RunError", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "RunError cannot write" in done.stdout and "train-00000-of-00001.parquet: File too large" in done.stdout
    assert "raise the limit on a file's size" in done.stdout and "make room" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_written_is_said(tmp_path, monkeypatch):
    def denied(handle):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(RunError, match=r"parquet: denied"):
        write_shards(table(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_defect_is_not_dressed_up_as_a_full_disk(tmp_path, monkeypatch):
    def broken(handle):
        raise OSError(errno.EBADF, "bad descriptor")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="bad descriptor"):
        write_shards(table(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_places_is_refused(tmp_path):
    with pytest.raises(MissingColumnError, match="write_shards needs column 'part', 'shard', 'position'"):
        write_shards(feedback_table(("p", "c", True)), tmp_path)


@pytest.mark.parametrize("conversational", ["never", "always"])
def test_shards_are_read_back_as_feedback(tmp_path, conversational):
    rows = table(conversational=conversational)
    (tmp_path / "run").mkdir()
    write_shards(rows, tmp_path / "run" / "shards")
    train = read_shards(tmp_path / "run", "train")
    check_feedback(train)
    plain = table(conversational="never").filter(pl.col("part") == "train")
    for name in ("row_id", "prompt", "completion", "label", "weight"):
        assert train[name].to_list() == plain[name].to_list()
    assert (train["turns"].null_count() == 0) is (conversational == "always")
    assert read_shards(tmp_path / "run" / "shards", "test").height == 1


def test_a_folder_without_shards_of_the_part_is_said(tmp_path):
    with pytest.raises(EmptyDataError, match="holds no validation-00000"):
        read_shards(tmp_path, "validation")


def test_every_shard_is_read_once_to_be_checked(tmp_path, monkeypatch):
    checksums, read = write_shards(table(), tmp_path), []
    monkeypatch.setattr("ktodata.formats.shards.changed_shards", lambda folder: read.append(folder) or [])
    assert read_shards(tmp_path).height == 5 and len(checksums) == 4
    assert read == [tmp_path]
