"""No library's traceback reaches a person: one clear line with the place, and exit code 1 or 2."""

import json
import sys

import pytest

from ktodata import cli
from ktodata.files import note_text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"q {number}", "completion": f"a {number}", "thumb": ("up", "down")[number % 2]} for number in range(8)]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "name: x\ningest: {paths: [thumbs.jsonl], label: {column: thumb, up: true, down: false}}\nsteps: [validate]\n"
    )
    (tmp_path / "cut.yaml").write_text("name: x\ningest: {paths: [\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "twice.yaml").write_text("name: x\nname: y\n")
    (tmp_path / "torn.jsonl").write_text('{"a": \n{{{\n')
    (tmp_path / "numbers.json").write_text("[1, 2]")
    (tmp_path / "folder").mkdir()
    return tmp_path


def typed(words, monkeypatch, capsys):
    """A command's exit code and what it says beside its progress."""
    monkeypatch.setattr(sys, "argv", ["ktodata", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("[")]
    return ended.value.code or 0, "\n".join(lines)


CONVERT = ["convert", "thumbs.jsonl", "out.jsonl", "--set"]
DRY = ["run", "recipe.yaml", "--dry-run", "--set"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*CONVERT, "label={column: thumb, up: true"], "not YAML: while parsing a flow mapping"),
        ([*CONVERT, "label=[1,"], "line 1, column"),
        ([*CONVERT, "label=!!python/object:os.system"], "not YAML"),
        ([*CONVERT, "label=*a"], "undefined alias"),
        ([*CONVERT, "=3"], "section.setting=value"),
        ([*CONVERT, "label"], "section.setting=value"),
        ([*CONVERT, "created_at={a: 1}"], "created_at"),
        ([*CONVERT, 'created_at={column: thumb, format: "%Q"}'], "%Q"),
        ([*CONVERT, "max_record_mb=-1"], "max_record_mb"),
        ([*CONVERT, "encoding=nope"], "nope"),
        (["convert", "folder", "out.jsonl"], "folder"),
        (["convert", "nothing.jsonl", "out.jsonl"], "nothing.jsonl"),
        (["run", "cut.yaml"], "line 3, column 1"),
        (["run", "binary.yaml"], "binary.yaml is not a YAML recipe"),
        (["run", "torn.jsonl"], "ktodata init --from torn.jsonl"),
        (["run", "numbers.json"], "ktodata init --from numbers.json"),
        (["run", "twice.yaml"], "duplicate key"),
        (["run", "folder"], "folder is not a YAML recipe"),
        (["run", "recipe.yml"], "Did you mean recipe.yaml"),
        ([*DRY, "steps=3"], "steps is a list"),
        ([*DRY, "seed=x"], "seed"),
        ([*DRY, "name=null"], "name"),
        (["run", "recipe.yaml", "--out", "/proc/nope"], "/proc/nope"),
        ([*DRY[:2], "--set", "validate.tokenizer=/no/such/model"], "cannot read the tokenizer"),
        (["explain", "folder", "5"], "not a run folder"),
        (["train", "thumbs.jsonl", "--model", "m"], "thumbs.jsonl is no Parquet file"),
        (
            ["convert", "thumbs.jsonl", "folder", "--set", "label={column: thumb, up: true, down: false}"],
            "cannot tell what kind of file 'folder' is",
        ),
        (["convert", "thumbs.jsonl", "thumbs.jsonl"], "is the file that is read"),
        (["train", "folder", "--model", "m", "--out", "thumbs.jsonl"], "thumbs.jsonl is a file"),
        (["init", "--from", "torn.jsonl"], "none of the first 2 records can be read (first: line 1"),
        (["init", "--from", "numbers.json"], "none of the first 2 records can be read"),
    ],
)
def test_a_mistake_is_one_line(words, message, folder, monkeypatch, capsys):
    code, error = typed(words, monkeypatch, capsys)
    assert code == 1
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_number_where_a_path_belongs_is_wrong_usage(folder, monkeypatch, capsys):
    code, error = typed(["convert", "-1", "out.jsonl"], monkeypatch, capsys)
    assert code == 2
    assert "-1" in error


def test_damaged_files_of_a_run_are_named(folder, monkeypatch, capsys):
    def run(name, content):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text(
            note_text("manifest.json", json.loads(content)) if name == "torn" else content
        )
        (folder / name / "ledger.parquet").write_bytes(b"PAR1")
        (folder / name / "stages" / "ingest").mkdir(parents=True)
        (folder / name / "stages" / "ingest" / "columns.parquet").write_bytes(b"PAR1 and no more")
        (folder / name / "stages" / "ingest" / "done.json").write_text(note_text("done.json", {"key": "k"}))
        (folder / name / "shards").mkdir()
        (folder / name / "shards" / "train-00000-of-00001.parquet").write_bytes(b"none")
        return name

    names = {"cut": "{", "list": "[]", "bare": "{}", "torn": '{"recipe": {"evaluate": null}, "recipe_folder": ".", "stages": []}'}
    for name, content in names.items():
        run(name, content)
        commands = [["report", name], ["export", name, "--out", "e.jsonl"], ["explain", name, "r"], ["evaluate", name]]
        for words in [*commands, ["ablate", name, "--dry-run"], ["compare", name, "--dry-run"], ["train", name, "--model", "m"]]:
            code, error = typed(words, monkeypatch, capsys)
            assert (code, len(error.splitlines())) in ((1, 1), (0, 0)), (words, error)
            assert "unexpected" not in error, (words, error)


def test_what_nobody_has_thought_of_is_one_line_too(folder, monkeypatch, capsys):
    def broken(*_args, **_settings):
        raise KeyError("nobody's")

    monkeypatch.setattr("ktodata.formats.convert", broken)
    code, error = typed(["convert", "thumbs.jsonl", "out.jsonl"], monkeypatch, capsys)
    assert code == 70 and error.startswith('unexpected KeyError: "nobody\'s"') and len(error.splitlines()) == 1
    monkeypatch.setenv("KTODATA_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["ktodata", "convert", "thumbs.jsonl", "out.jsonl"])
    with pytest.raises(KeyError):
        cli.main()
