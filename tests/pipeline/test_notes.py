"""What stands in a run folder is what ktodata wrote there: any file of it that was changed since is named, or made again."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import RunError
from ktodata.files import check_siblings, read_note, read_sibling_table, write_note
from ktodata.pipeline.run_folder import Run
from ktodata.pipeline.self_training import dry_run
from ktodata.pipeline.sharing import dataset_files
from ktodata.report.run_files import RunFiles

WRITTEN_ANEW = ("report.html", "README.md", "stages/pages/done.json")  # by the next run; no command reads them


def turned(file: Path) -> None:
    """A digit of a number, or a bit in the middle, becomes another; the size stays."""
    content = bytearray(file.read_bytes())
    digits = [at for at in range(len(content)) if 48 <= content[at] <= 57] if file.suffix == ".json" else []
    content[digits[len(digits) // 2] if digits else len(content) // 2] ^= 1
    file.write_bytes(content)


def read_all(folder: Path, row_id: str) -> None:
    """What commands read of a run, between them."""
    run, files = Run(folder), RunFiles(folder)
    run.explain(row_id)
    dataset_files(run)
    assert run.shards().height
    for table in (run.quarantine, files.quarantine, files.fates):  # nothing was set aside here, and they are read all the same
        assert table.is_empty()
    for stage in run.stage_names():
        assert files.metrics(stage) == run.stage(stage).metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    home = tmp_path_factory.mktemp("notes")
    lines = [{"prompt": f"what is {n}", "completion": f"it is {n * n}", "label": n % 3 > 0} for n in range(60)]
    (home / "f.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = {"name": "x", "ingest": {"paths": str(home / "f.jsonl")}, "steps": ["validate", "dedupe", {"split": {"test": 0.3}}]}
    return kd.run(plan, out=home / "run").folder, plan


def test_any_file_that_was_changed_is_named_and_the_same_run_makes_it_again(whole, tmp_path):
    folder, _ = whole
    row_id = kd.Run(folder).shards()["row_id"][0]
    read_all(folder, row_id)
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    assert len(files) > 15
    for file in files:
        shutil.copytree(folder, tmp_path / "run")
        turned(tmp_path / "run" / file)
        if file.as_posix() not in WRITTEN_ANEW:
            with pytest.raises(RunError, match="again"):
                read_all(tmp_path / "run", row_id)
        shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("file", ["ledger.parquet", "manifest.json", "report.html", "stages/split/done.json"])
def test_what_was_changed_is_made_again(whole, tmp_path, file):
    folder, plan = whole
    shutil.copytree(folder, tmp_path / "run")
    turned(tmp_path / "run" / file)
    kd.run(plan, out=tmp_path / "run")
    read_all(tmp_path / "run", kd.Run(folder).shards()["row_id"][0])
    assert (tmp_path / "run/ledger.parquet").read_bytes() == (folder / "ledger.parquet").read_bytes()
    assert {answer for _, answer in dry_run(plan, out=tmp_path / "run")[1]} == {"unchanged"}


def test_the_ledger_of_another_run_is_not_taken_for_its_own(whole, tmp_path):
    folder, plan = whole
    other = kd.run({**plan, "steps": ["validate", "dedupe"]}, out=tmp_path / "other").folder
    shutil.copytree(folder, tmp_path / "run")
    shutil.copy(other / "ledger.parquet", tmp_path / "run/ledger.parquet")
    with pytest.raises(RunError, match=r"ledger.parquet is not the one that manifest.json speaks of"):
        _ = kd.Run(tmp_path / "run").ledger


def test_a_stage_of_another_run_is_not_taken_for_its_own(whole, tmp_path):
    """Its note is whole, and so are its files; the manifest says which note it was."""
    folder, plan = whole
    other = kd.run({**plan, "steps": ["validate", "dedupe", {"split": {"test": 0.5}}]}, out=tmp_path / "other").folder
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/stages/split")
    shutil.copytree(other / "stages/split", tmp_path / "run/stages/split")
    with pytest.raises(RunError, match="of another making than manifest"):
        kd.Run(tmp_path / "run").stage("split")


def test_a_note_is_what_it_was_given_and_no_other(tmp_path):
    value = {"a": [1, None, float("inf")], "ü": {"x": True}, "path": str(tmp_path)}
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    write_note(tmp_path / "a.json", value, [tmp_path / "t.parquet"])
    assert read_note(tmp_path / "a.json") == value
    assert read_sibling_table(tmp_path / "a.json", "t.parquet")["a"].to_list() == [1]
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(RunError, match="another file's"):
        read_note(tmp_path / "b.json")
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match="not as ktodata wrote it"):
        read_note(tmp_path / "a.json")


@pytest.mark.parametrize("how", ["gone", "changed", "unknown"])
def test_a_file_beside_a_note_is_the_one_that_it_speaks_of(tmp_path, how):
    for name in ("t.parquet", "other.parquet"):
        pl.DataFrame({"a": [name]}).write_parquet(tmp_path / name)
    write_note(tmp_path / "a.json", {}, [tmp_path / "t.parquet"])
    check_siblings(tmp_path / "a.json")
    if how == "gone":
        (tmp_path / "t.parquet").unlink()
    elif how == "changed":
        shutil.copy(tmp_path / "other.parquet", tmp_path / "t.parquet")
    with pytest.raises(RunError, match=r"not the one that a\.json speaks of"):
        check_siblings(tmp_path / "a.json", ["other.parquet"] if how == "unknown" else None)
