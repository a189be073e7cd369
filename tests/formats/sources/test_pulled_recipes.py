"""A recipe that pulls: into its run folder, again on every run, and what it may not say."""

import json

import polars as pl
import pytest
from service_shapes import Langfuse

import ktodata as kd
from ktodata.errors import FormatError, LabelError, SettingError
from ktodata.pipeline.recipe import load_recipe

LABEL = {"column": "thumb", True: True, False: False}


@pytest.fixture
def recipe(stand_in, monkeypatch):
    service = stand_in.service = Langfuse()
    for number in range(6):
        service.add(number)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    return {"name": "pulled", "ingest": {"from": "langfuse", "url": stand_in.url, "label": LABEL}, "steps": []}


def test_a_run_reads_what_it_pulls(recipe, stand_in, tmp_path):
    run = kd.run(recipe, out=tmp_path / "run")
    assert sorted(run.feedback["prompt"]) == [f"Question {n}?" for n in range(6)]
    assert set(run.feedback["source"]) == {"langfuse.jsonl"}
    stand_in.service.add(6)
    stand_in.service.change(1)
    run = kd.run(recipe, out=tmp_path / "run")
    labels = dict(zip(run.feedback["prompt"], run.feedback["label"], strict=True))
    assert labels == {f"Question {n}?": (n % 2 == 0) or n == 1 for n in range(7)}
    note = json.loads((tmp_path / "run/pulled/pull.json").read_text())
    assert (note["n_records"], note["new"], note["changed"], note["finished"]) == (7, 1, 1, True)


def test_a_run_reads_what_it_pulls_from_any_service(service, stand_in, tmp_path, monkeypatch):
    """Pulled into the run folder and read there in the service's own format, with who judged and when."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    pulling = {"from": service.name, "url": stand_in.url, "project": service.project}
    run = kd.run({"name": "p", "ingest": {**pulling, **service.settings}, "steps": ["validate", "dedupe"]}, out=tmp_path / "run")
    rows = run.feedback.sort("prompt")
    assert rows["prompt"].to_list() == [f"Question {n}?" for n in range(5)]
    assert rows["completion"].to_list() == [f"Answer {n}." for n in range(5)]
    assert run.quarantine.is_empty() and rows["source_id"].null_count() == 0
    raters = {rater for votes in rows["votes"] for rater in (vote["rater"] for vote in votes)}
    assert raters == {"1" if service.name == "label_studio" else "ann"}
    assert all(vote["created_at"] is not None for votes in rows["votes"] for vote in votes)
    # the label is asked for by name and meaning, never guessed
    with pytest.raises((SettingError, LabelError, FormatError)):
        kd.run({"name": "q", "ingest": pulling, "steps": []}, out=tmp_path / "unasked")


def test_the_manifest_says_where_from_and_holds_no_secret(recipe, tmp_path, stand_in):
    run = kd.run(recipe, out=tmp_path / "run")
    ingest = run.manifest["recipe"]["ingest"]
    assert (ingest["from"], ingest["url"], ingest["format"]) == ("langfuse", stand_in.url, "langfuse")
    assert load_recipe({**recipe, "ingest": {**ingest, "label": LABEL}}).pull["from"] == "langfuse"
    for path in (path for path in run.folder.rglob("*") if path.is_file()):
        for secret in Langfuse.environment.values():
            assert secret.encode() not in path.read_bytes()


def test_shards_are_those_of_the_same_records_in_a_file(recipe, tmp_path):
    pulled = kd.run(recipe, out=tmp_path / "run")
    read = {**recipe, "ingest": {"paths": str(tmp_path / "run/pulled/langfuse.jsonl"), "format": "langfuse", "label": LABEL}}
    from_file = kd.run(read, out=tmp_path / "from_file")
    assert pulled.shards().equals(from_file.shards())
    assert isinstance(pulled.shards(), pl.DataFrame)


@pytest.mark.parametrize(
    ("ingest", "words"),
    [
        ({"from": "langfus"}, "langfuse"),
        ({"from": "langfuse", "paths": ["a.jsonl"]}, "paths"),
        ({"url": "http://localhost"}, "from: langfuse"),
        ({"from": "langfuse", "api_key": "secret"}, "api_key"),
        ({"from": "langfuse", "since": 5}, "since"),
    ],
)
def test_what_a_recipe_cannot_say(ingest, words):
    with pytest.raises(SettingError, match=words):
        load_recipe({"name": "pulled", "ingest": ingest, "steps": []})


def test_a_date_in_yaml_is_a_time(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: p\ningest: {from: mlflow, project: 12, since: 2026-10-01}\nsteps: []\n")
    assert load_recipe(path).pull == {"from": "mlflow", "url": None, "project": "12", "since": "2026-10-01"}
