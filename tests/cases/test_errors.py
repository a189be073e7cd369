"""No library's traceback reaches a person: one clear line with the place, and exit code 1 or 2."""

import json
import sys

import pytest

from ktodata import cli


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
    (tmp_path / "folder").mkdir()
    return tmp_path


CONVERT = ["convert", "thumbs.jsonl", "out.jsonl", "--set"]
DRY = ["run", "recipe.yaml", "--dry-run", "--set"]


@pytest.mark.parametrize(
    ("words", "said"),
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
        (["run", "twice.yaml"], "duplicate key"),
        (["run", "folder"], "folder is not a YAML recipe"),
        (["run", "recipe.yml"], "Did you mean recipe.yaml"),
        ([*DRY, "steps=3"], "steps is a list"),
        ([*DRY, "seed=x"], "seed"),
        ([*DRY, "name=null"], "name"),
        (["run", "recipe.yaml", "--out", "/proc/nope"], "/proc/nope"),
        ([*DRY[:2], "--set", "validate.tokenizer=/no/such/model"], "cannot read the tokenizer"),
        (["explain", "folder", "5"], "not a run folder"),
    ],
)
def test_a_mistake_is_one_line(words, said, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ktodata", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = "\n".join(line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("["))  # no progress
    assert ended.value.code == 1
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_number_where_a_path_belongs_is_wrong_usage(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ktodata", "convert", "-1", "out.jsonl"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "-1" in capsys.readouterr().err
