"""A run folder's shards are its own: another run's are refused wherever they are read, and no command writes over what it reads."""

import shutil

import pytest
from line_files import contents, write_lines
from typer.testing import CliRunner

import ktodata as kd
from ktodata.cli import app
from ktodata.errors import RunError
from ktodata.train.data.training_rows import open_part


def write_rows(path, offset=0):
    rows = [{"prompt": f"what is {n + offset}", "completion": f"it is {n * n}", "label": n % 3 > 0} for n in range(30)]
    return write_lines(path, rows)


def make_run(home, name, offset=0, **more):
    paths = str(write_rows(home / f"{name}.jsonl", offset))
    return kd.run({"name": "x", "ingest": {"paths": paths}, "steps": ["validate"]} | more, out=home / name).folder


@pytest.fixture(autouse=True)
def no_pages(monkeypatch):
    """They take longer than all the rest, and nothing here looks at them."""
    monkeypatch.setattr("ktodata.report.write_pages", lambda run: None)


@pytest.fixture
def two_runs(tmp_path):
    return make_run(tmp_path, "mine"), make_run(tmp_path, "other", 1000)


def take(one, other, *places):
    for place in places:
        shutil.rmtree(one / place)
        shutil.copytree(other / place, one / place)


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refusals(run, folder):
    """What every reader of shards says, each as the error that it ends with."""
    for read in (
        lambda: kd.Run(run).shards("train"),
        lambda: open_part(run, "train"),
        lambda: open_part(run / "shards", "train"),
    ):
        with pytest.raises(RunError) as error:
            read()
        yield str(error.value)
    with pytest.raises(RunError) as error:
        open_part(next((run / "shards").glob("train-*.parquet")), "train")
    yield str(error.value)
    exported = command("export", run, "--out", folder / "x.jsonl")
    assert exported.exit_code and not (folder / "x.jsonl").exists()
    yield str(exported.exception or exported.output)


def test_another_runs_export_stage_and_shards_are_refused_by_all_who_read_shards(two_runs, tmp_path):
    mine, other = two_runs
    take(mine, other, "stages/export", "shards")
    for words in refusals(mine, tmp_path):
        assert "stages/export/done.json" in words
        assert "ktodata run" in words


def test_another_runs_shards_alone_are_refused(two_runs, tmp_path):
    mine, other = two_runs
    take(mine, other, "shards")
    for words in refusals(mine, tmp_path):
        assert "shards/checksums.json" in words
        assert "ktodata run" in words


def test_shards_in_a_run_that_never_exported_are_refused(two_runs, tmp_path):
    _, other = two_runs
    plan = {"name": "x", "ingest": {"paths": str(write_rows(tmp_path / "early.jsonl"))}, "steps": ["validate"]}
    early = kd.run(plan, out=tmp_path / "early", until="validate").folder
    for place in ("stages/export", "shards"):
        shutil.copytree(other / place, early / place)
    for words in refusals(early, tmp_path):
        assert "no export has run" in words
        assert "ktodata run" in words


def test_a_runs_own_shards_are_read_in_the_folder_and_in_a_copy(two_runs, tmp_path, monkeypatch):
    mine, _ = two_runs
    copy = tmp_path / "copy"
    shutil.copytree(mine, copy)
    for run in (mine, copy):
        assert kd.Run(run).shards("train").height == 30
        assert open_part(next((run / "shards").glob("train-*.parquet")), "train").places
    monkeypatch.chdir(copy / "shards")
    assert len(open_part(".", "train").places) == 1


def test_export_writes_over_nothing_that_a_run_holds_or_reads(two_runs, tmp_path):
    mine, other = two_runs
    (tmp_path / "link").symlink_to(other)
    own = [file for run in two_runs for file in contents(run) if file.suffix in (".json", ".parquet")]
    new = [mine / place for place in ("shards/x.jsonl", "stages/x.jsonl", "model/x.jsonl", "reviews/x.jsonl", "evaluation.json")]
    before = contents(tmp_path)
    for target in (*own, *new, tmp_path / "link" / "manifest.json", tmp_path / "mine.jsonl", mine / ".." / "mine.jsonl"):
        refused = command("export", mine, "--out", target)
        assert refused.exit_code, target
        assert str(target) in str(refused.exception or refused.output)
    assert contents(tmp_path) == before


def test_a_recipe_or_a_page_without_text_takes_no_place_of_a_run(two_runs, tmp_path):
    mine, other = two_runs
    before = contents(tmp_path)
    for words in (("report", mine, "--no-text"), ("init", "--from", tmp_path / "mine.jsonl")):
        refused = command(*words, "--out", other / "stages" / "x.html")
        assert "a place of the run" in str(refused.exception)
    assert contents(tmp_path) == before


def test_export_may_write_a_file_of_its_own_again_in_the_run_folder_too(two_runs, tmp_path):
    mine, _ = two_runs
    for target in (mine / "kto.jsonl", mine / "kto.jsonl", tmp_path / "kto.jsonl"):
        assert command("export", mine, "--out", target).exit_code == 0
    assert kd.Run(mine).faults == []


def test_export_refuses_every_file_that_the_recipe_names(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "why"}\n')
    steps = {"steps": ["validate", {"dedupe": {"decontaminate": str(tmp_path / "prompts.jsonl")}}]}
    run = make_run(tmp_path, "mine", **steps)
    before = contents(tmp_path)
    assert command("export", run, "--out", tmp_path / "prompts.jsonl").exit_code
    assert contents(tmp_path) == before
