"""What the notes of a run folder speak of and is gone is named on every surface; nothing is shared of such a folder unsaid.

Notes and files are discovered: whatever a run, an evaluation, an ablation and a comparison leave is tried.
"""

import json
import shutil
from pathlib import Path

import folders
import polars as pl
import pytest
from hub_stand_in import hubs
from tiny_models import save_tiny_llama
from typer.testing import CliRunner

import ktodata as kd
from ktodata.cli import app
from ktodata.errors import RunError
from ktodata.files import is_note, read_note, siblings_of
from ktodata.pipeline.run_folder import Run
from ktodata.pipeline.sharing import dataset_files, push_model
from ktodata.report import build_card, build_report, write_pages
from ktodata.report.integrity import NO_MATTER

# of a training that is over; and of the pages, which are made anew whatever is there
UNREAD = (*NO_MATTER, "model/log.jsonl", "README.md", "report.html")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run that trained and evaluated, with a comparison, an ablation and a kept arm of each."""
    home = tmp_path_factory.mktemp("measured")
    save_tiny_llama(home / "tiny")
    lines = [{"prompt": f"what is {n}", "completion": f"it is {n * n}", "label": n % 3 > 0} for n in range(60)]
    (home / "f.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = {
        "name": "x",
        "ingest": {"paths": str(home / "f.jsonl")},
        "steps": ["validate", "dedupe", {"split": {"test": 0.3}}],
        "train": {"model": str(home / "tiny"), "max_steps": 1, "batch_size": 4},
        "evaluate": {"generate": 0, "bootstrap": 100},
    }
    run = kd.run(plan, out=home / "run")
    ids = run.shards("test")["row_id"].to_list()
    folders.write_ablation(run.folder, row_ids=ids)
    folders.write_comparison(run.folder, row_ids=ids)
    for place in ("ablation/kto-seed0-key", "comparison/arms/kto-seed0-key"):
        (run.folder / place).mkdir(parents=True)
        pl.DataFrame({"row_id": ["a"]}).write_parquet(run.folder / place / "scores.parquet")
        folders.noted(run.folder / place / "metrics.json", {})
    return run.folder, plan


def spoken_of(folder):
    """Every note of the folder, and every file that one of them speaks of."""
    notes = [file for file in folder.rglob("*.json") if is_note(file)]
    files = {note.relative_to(folder).as_posix() for note in notes}
    for note in notes:
        files |= {(note.parent / name).relative_to(folder).as_posix() for name in siblings_of(note)}
        files |= set(read_note(note).get("artefacts", {}))
    return sorted(files - set(UNREAD))


def named_by(surface, folder):
    """What it shows of a damaged folder, or the error that it ends with."""
    try:
        return surface(folder)
    except RunError as error:
        return str(error)


def by_command(*words):
    ended = CliRunner().invoke(app, [str(word) for word in words])
    return f"{ended.stderr}{ended.exception!r}"


SURFACES = {
    "page": build_report,
    "page without text": lambda folder: build_report(folder, text=False),
    "card": lambda folder: build_card(folder).replace("\\", ""),
    "push": lambda folder: dataset_files(Run(folder))["README.md"].decode().replace("\\", ""),
    "export": lambda folder: by_command("export", folder, "--out", folder.parent / "kto.jsonl"),
    "explain": lambda folder: by_command("explain", folder, Run(folder).shards()["row_id"][0]),
    "in a notebook": lambda folder: Run(folder)._repr_html_(),
}
EVERY_FILE = ("page", "push", "export")


def test_what_is_gone_is_named_with_what_makes_it_again_on_every_surface(measured, tmp_path):
    whole, _ = measured
    assert Run(whole).faults == []
    files, folder = spoken_of(whole), tmp_path / "run"
    for start in ("ablation/", "comparison/arms/", "model/", "shards/", "stages/export/", "evaluation.json", "ledger.parquet"):
        assert any(file.startswith(start) for file in files), start
    silent, first_of = [], {str(Path(file).parent): file for file in reversed(files)}
    for gone in files:
        shutil.copytree(whole, folder)
        (folder / gone).unlink()
        # of a note that is gone, what it spoke of is named
        of_note = [file for file in files if Path(file).parent == Path(gone).parent and gone.endswith(".json")]
        # a page takes as long as all else here: one file of each folder shows it
        for name in EVERY_FILE if gone in first_of.values() else EVERY_FILE[1:]:
            words = named_by(SURFACES[name], folder)
            if not any(Path(file).name in words for file in (gone, *of_note)) or "ktodata " not in words:
                silent.append((gone, name))
        shutil.rmtree(folder)
    assert not silent, "\n".join(map(str, silent))


@pytest.mark.parametrize("name", SURFACES)
def test_every_surface_names_it(measured, tmp_path, name):
    shutil.copytree(measured[0], tmp_path / "run")
    assert "comparison.parquet is" not in named_by(SURFACES[name], tmp_path / "run")
    (tmp_path / "run/comparison/comparison.parquet").unlink()
    words = named_by(SURFACES[name], tmp_path / "run").replace("<code>", "`")
    assert "comparison/comparison.parquet is gone: `ktodata compare " in words


@pytest.mark.parametrize("how", ["changed", "cut"])
def test_what_no_page_reads_is_named_as_well(measured, tmp_path, how):
    shutil.copytree(measured[0], tmp_path / "run")
    file = tmp_path / "run/comparison/arms/kto-seed0-key/scores.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-1] if how == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    assert [(fault.file, fault.fault) for fault in Run(tmp_path / "run").faults] == [
        ("comparison/arms/kto-seed0-key/scores.parquet", "changed")
    ]


def test_a_run_says_at_its_end_what_it_does_not_make_again(measured, tmp_path):
    whole, plan = measured
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(json.dumps(plan))
    (tmp_path / "run/comparison/comparison.parquet").unlink()
    for words in ((), ("--dry-run",)):
        ended = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), *words, "--json"])
        assert json.loads(ended.stdout) and ended.exit_code == 0
        assert "comparison/comparison.parquet is gone: `ktodata compare " in ended.stderr


def test_a_folder_in_the_place_of_a_file_is_made_a_file_again(measured, tmp_path):
    whole, plan = measured
    shutil.copytree(whole, tmp_path / "run")
    run_files = ("ledger.parquet", "report.html", "quarantine.parquet", "evaluation.json", "model/telemetry.parquet")
    for name in (*run_files, "shards/checksums.json", "stages/split/columns.parquet", "stages/dedupe/done.json"):
        (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / name).mkdir()
    run = kd.run(plan, out=tmp_path / "run")
    assert run.faults == [] and run.shards().equals(Run(whole).shards())


def test_a_model_is_not_pushed_with_a_card_of_a_folder_that_is_not_whole(measured, tmp_path, monkeypatch):
    shutil.copytree(measured[0], tmp_path / "run")
    with hubs(monkeypatch) as start:
        server = start()
        for gone in ("comparison/comparison.parquet", "stages/export/metrics.json"):
            (tmp_path / "run" / gone).unlink()
            with pytest.raises(RunError, match=gone):
                push_model(tmp_path / "run", "me/policy", token="hf_x")
            shutil.copy2(measured[0] / gone, tmp_path / "run" / gone)
        assert not server.files
        push_model(tmp_path / "run", "me/policy", token="hf_x")
        assert "README.md" in server.files


def test_figures_of_a_model_that_is_gone_are_shown_nowhere(measured, tmp_path):
    """`ktodata train RUN` puts another model in the place of the one that was evaluated."""
    whole, _ = measured
    shutil.copytree(whole, tmp_path / "run")
    shown = "AUC of the trained model, by its log-probability per token"
    folders.renoted(tmp_path / "run/model/training.json", lambda facts: facts | {"steps": 99})
    write_pages(tmp_path / "run")
    page, card = (tmp_path / "run/report.html").read_text(), (tmp_path / "run/README.md").read_text()
    assert shown in build_card(whole) and shown not in card
    assert "another was trained since" in card and "another was trained since" in page
    with pytest.raises(RunError, match="another model than it evaluated"):
        Run(tmp_path / "run").compare(whole)
