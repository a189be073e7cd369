"""Kills, full disks, Ctrl-C, odd names and deep nesting: one line that says what, and nothing lost."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import ktodata as kd
from ktodata import cli, files
from ktodata.errors import RecipeError, RunError, SettingError
from ktodata.files import alone_if_run, alone_in, discard, whole_file, whole_folder
from ktodata.pipeline.recipe import load_recipe

GONE = 2**22 - 7  # above what Linux gives out by default: no such process runs


def rows(path, count=40):
    lines = [{"prompt": f"question {n}", "completion": f"answer {n}", "label": n % 3 > 0} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def recipe(path, **changed):
    return {"name": "x", "ingest": {"paths": [str(path)]}, "steps": ["validate"], **changed}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlucky")
    kd.run(recipe(rows(folder / "f.jsonl")), out=folder / "run")
    return folder / "run"


@pytest.fixture
def type_in(monkeypatch, capsys):
    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["ktodata", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    return typed


# --- killed at any instant -------------------------------------------------------------------------------------------------


def test_a_limit_on_the_size_of_files_is_said_in_one_line(tmp_path):
    """In a process of its own, as a limit that was lowered stays."""
    rows(tmp_path / "f.jsonl", 400)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe("f.jsonl")))
    command = f"ulimit -f 4; {sys.executable} -m ktodata run recipe.yaml --out run --quiet"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert "cannot write " in ended.stderr and "Nothing half written was left" in ended.stderr
    assert not list((tmp_path / "run").rglob("*.part"))


def test_folders_are_made_in_one_place_only():
    """By ktodata.files, which says in words what cannot be made; two others make their own and say so themselves."""
    package = Path(kd.__file__).parent
    breaches = {file.relative_to(package).as_posix() for file in package.rglob("*.py") if ".mkdir(" in file.read_text()}
    assert breaches == {"files.py", "labels/judges/judge_store.py", "review/store.py"}


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "a\u202eb", "a\x9bb"])
def test_a_name_that_a_terminal_obeys_is_refused_by_whatever_writes(tmp_path, type_in, run_folder, name):
    given, place = rows(tmp_path / "f.jsonl"), tmp_path / name
    commands = [("convert", given, f"{place}.jsonl"), ("init", place), ("init", "--from", given, "--out", f"{place}.yaml")]
    commands += [("audit", given, "--out", place), ("export", run_folder, "--out", f"{place}.jsonl")]
    for words in (*commands, ("report", run_folder, "--no-text", "--out", f"{place}.html")):
        code, error = type_in(*words)
        assert code == 1 and "nobody can see" in error and not set(name[1:-1]) & {"\x1b", "\u202e", "\x9b"} & set(error), words
    assert [file.name for file in tmp_path.iterdir()] == ["f.jsonl"]


def test_a_folder_that_is_removed_is_gone_from_its_name_at_once(tmp_path, monkeypatch):
    """Killed within the removal, there is no half of it under its own name."""
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "state.json").write_text("{}")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *args, **options: None)
    discard(tmp_path / "step-1")
    assert not list(tmp_path.glob("step-*"))


@pytest.mark.parametrize("there", [True, False], ids=["made again", "gone"])
def test_what_a_process_that_was_killed_while_it_removed_a_folder_left_aside_goes_with_the_next_removal(tmp_path, there):
    left, another = (tmp_path / f".checkpoints.{process}.old.part" for process in (GONE, os.getppid()))
    for place in (left, another, *([tmp_path / "checkpoints"] if there else [])):
        (place / "step-5").mkdir(parents=True)
    discard(tmp_path / "checkpoints")
    assert list(tmp_path.iterdir()) == [another]  # of a process that runs


@pytest.mark.parametrize("instant", range(1, 9))
def test_killed_at_any_rename_or_removal_an_exchanged_folder_is_the_old_one_the_new_one_or_gone(tmp_path, monkeypatch, instant):
    place, calls = tmp_path / "shards", 0
    with whole_folder(place) as scratch:
        (scratch / "a").write_text("old")
        (scratch / "b").write_text("old")
    audited = ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree")

    class KilledError(BaseException):
        pass

    def kill(event, _arguments):
        nonlocal calls
        if armed and event in audited:
            calls += 1
            if calls == instant:
                raise KilledError

    armed = False
    sys.addaudithook(kill)
    try:
        with whole_folder(place) as scratch:
            (scratch / "a").write_text("new")
            (scratch / "b").write_text("new")
            armed = True
    except KilledError:
        pass
    finally:
        armed = False
    if place.exists():
        assert {file.read_text() for file in place.iterdir()} in ({"old"}, {"new"})
        assert len(list(place.iterdir())) == 2
    with whole_folder(place) as scratch:
        (scratch / "a").write_text("third")
    assert [file.name for file in place.iterdir()] == ["a"]


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_call(tmp_path):
    left, another = tmp_path / f".kto.jsonl.{GONE}.part", tmp_path / f".kto.jsonl.{os.getppid()}.part"
    left.write_text("half")
    another.write_text("of a process that runs")
    kd.convert(rows(tmp_path / "f.jsonl"), tmp_path / "kto.jsonl", from_="auto", to="trl")
    assert not left.exists()
    assert another.exists()


# --- disks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        pl.exceptions.ComputeError("No space left on device (os error 28)"),
        type("SafetensorError", (Exception,), {})("Error while serializing: I/O error: File too large (os error 27)"),
    ],
)
def test_a_disk_that_is_full_is_said_in_one_line_whichever_library_writes(tmp_path, error):
    (tmp_path / "ledger.parquet").write_text("as it was")
    with (
        pytest.raises(RunError, match=r"cannot write .*ledger.parquet: .* bytes free") as raised,
        whole_file(tmp_path / "ledger.parquet"),
    ):
        raise error
    assert "\n" not in str(raised.value)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.parquet"]
    assert (tmp_path / "ledger.parquet").read_text() == "as it was"


def test_what_cannot_be_read_is_not_called_unwritable(tmp_path):
    with pytest.raises(PermissionError), whole_file(tmp_path / "out.jsonl"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/secret.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_scratch", lambda place: place.with_name("full"))
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left"), whole_file(tmp_path / "t.parquet") as scratch:
        pl.DataFrame({"a": range(100_000)}).write_parquet(scratch)


# --- Ctrl-C, memory, extras ------------------------------------------------------------------------------------------------


def test_ctrl_c_says_what_is_done_and_that_the_same_command_goes_on(tmp_path, type_in, monkeypatch):
    from ktodata.pipeline import runner

    def interrupted(stage, state, parts, made=runner._make):
        if stage.name == "export":
            raise KeyboardInterrupt
        return made(stage, state, parts)

    (tmp_path / "r.yaml").write_text(json.dumps(recipe(rows(tmp_path / "f.jsonl"))))
    monkeypatch.setattr(runner, "_make", interrupted)
    code, err = type_in("run", tmp_path / "r.yaml", "--out", tmp_path / "run", "--quiet")
    assert (code, err.strip()) == (130, "stopped after validate; the same command goes on from there.")
    monkeypatch.undo()
    assert kd.run(tmp_path / "r.yaml", out=tmp_path / "run").manifest["status"] == "done"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_memory_limit_is_one_line_with_settings_to_lower(run_folder, type_in, monkeypatch, error):
    def fail(*_args):
        raise error

    monkeypatch.setattr("ktodata.pipeline.run_folder.Run.explain", fail)
    code, err = type_in("explain", run_folder, "x")
    assert code == 1
    assert err.count("\n") == 1
    assert "micro_batch_tokens" in err


def test_a_missing_extra_is_named(tmp_path, type_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    plan = recipe(rows(tmp_path / "f.jsonl"), steps=[{"validate": {"tokenizer": "packaged:smollm2"}}])
    (tmp_path / "r.yaml").write_text(json.dumps(plan))
    code, err = type_in("run", tmp_path / "r.yaml", "--out", tmp_path / "run", "--quiet")
    assert (code, "ktodata[train]" in err) == (1, True), err


def test_a_module_that_nobody_asked_for_by_name_is_named_with_its_extra(run_folder, type_in, monkeypatch):
    def fail(*_args):
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers.models")

    monkeypatch.setattr("ktodata.pipeline.run_folder.Run.explain", fail)
    assert "ktodata[" in type_in("explain", run_folder, "x")[1]


# --- names, nesting, locks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 150, "a\x1b[31mb", "a\u202eb", "a\u200bb", "a\nb", "a\x9bb"])
def test_names_that_no_folder_or_terminal_should_have_are_refused(name, tmp_path):
    with pytest.raises(SettingError, match="name is that of the run's folder") as raised:
        load_recipe(recipe(tmp_path / "f.jsonl", name=name))
    assert str(raised.value).isprintable()


def test_a_run_folder_with_a_sign_that_no_terminal_shows_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"--out is a folder of that name: it holds '\\x1b'"):
        kd.run(recipe(rows(tmp_path / "f.jsonl")), out=tmp_path / "a\x1b[31m")
    assert [file.name for file in tmp_path.iterdir()] == ["f.jsonl"]


def test_a_recipe_nested_20000_deep_is_refused_in_words(tmp_path, type_in):
    for number, text in enumerate(("[" * 20_000, "a: " + "[" * 20_000 + "]" * 20_000, "- " * 20_000)):
        place = tmp_path / f"{number}.yaml"
        place.write_text(text)
        with pytest.raises(RecipeError, match="not a YAML recipe"):
            load_recipe(place)
    code, err = type_in("run", place, "--set", "x=" + "[" * 20_000)
    assert code == 1
    assert "Traceback" not in err


def test_an_unfinished_run_is_not_evaluated_and_says_what_is_missing(run_folder, tmp_path, type_in):
    kd.run(recipe(rows(tmp_path / "f.jsonl")), out=tmp_path / "run", until="validate")
    assert "has no trained model yet" in type_in("evaluate", tmp_path / "run")[1]
    assert "has no trained model yet" in type_in("evaluate", run_folder)[1]


def test_whoever_writes_into_a_run_is_alone_in_it(run_folder, type_in):
    from threading import Thread

    with alone_in(run_folder):
        heard = []

        def another():
            try:
                with alone_if_run(run_folder / "model"):
                    heard.append("written")
            except RunError as error:
                heard.append(str(error))

        thread = Thread(target=another)
        thread.start()
        thread.join()
        assert "another process is running" in heard[0]
        with alone_if_run(run_folder / "model"):  # who holds it calls what writes there
            pass


# --- shown, not obeyed -----------------------------------------------------------------------------------------------------


def test_a_message_on_the_terminal_obeys_no_control_sign(tmp_path, type_in):
    _, err = type_in("run", tmp_path / "a\x1b[2Jb\x9b\u202e.yaml")
    assert not {"\x1b", "\x9b", "\u202e"} & set(err)
