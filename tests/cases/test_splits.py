"""Parts that a source gives are kept as parts; joining them is a choice that somebody makes."""

import datasets
import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import DataError, KtodataError, RecipeError, SettingError
from ktodata.feedback import feedback_table
from ktodata.pipeline.recipe import load_recipe


def records(part, count):
    return [{"prompt": f"{part} {n}: who?", "completion": f"name {n}", "label": n % 2 == 0, "fold": part} for n in range(count)]


@pytest.fixture
def saved(tmp_path):
    parts = {"train": records("train", 12), "test": records("test", 4)}
    place = tmp_path / "saved"
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(str(place))
    return str(place)


@pytest.fixture
def table(tmp_path):
    place = tmp_path / "all.parquet"
    pl.DataFrame(records("train", 12) + records("dev", 3) + records("test", 4)).write_parquet(place)
    return str(place)


def recipe(paths, *steps, **ingest):
    return {"name": "parts", "ingest": {"paths": paths, **ingest}, "steps": [{"dedupe": {"near": None}}, *steps]}


def test_parts_that_nobody_has_spoken_of_stop_the_reading_with_names_and_counts(saved):
    with pytest.raises(SettingError, match=r"train \(12\), test \(4\)"):
        kd.read(saved)


@pytest.mark.parametrize("steps", [[], [{"split": {"test": 0.2}}]])
def test_so_they_do_in_a_recipe(saved, steps, tmp_path):
    with pytest.raises(SettingError, match=r"given: true.*join_parts: true"):
        kd.run(recipe(saved, *steps), out=tmp_path / "run")


def test_a_hub_id_stops_too(monkeypatch, saved):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.load_from_disk(saved))
    with pytest.raises(SettingError, match=r"test \(4\)"):
        kd.read("team/thumbs")


@pytest.mark.parametrize("step", [{"split": {"given": True}}, {"split": "given"}])
def test_given_keeps_them(saved, step, tmp_path):
    run = kd.run(recipe(saved, step), out=tmp_path / "run")
    parts = run.stage("ingest").columns.join(run.stage("split").columns, on="row_id")
    assert dict(parts["part"].value_counts().iter_rows()) == {"train": 12, "test": 4}
    assert parts.select(pl.col("prompt").str.starts_with(pl.col("part")).all()).item()
    assert run.shards("test").height == 4


def test_joined_they_are_dealt_anew(saved, tmp_path):
    read = kd.read(saved, join_parts=True).feedback
    assert (read.height, "given_part" in read.columns) == (16, False)
    run = kd.run(recipe(saved, {"split": {"validation": 0, "test": 0.3}}, join_parts=True), out=tmp_path / "run")
    assert "given" not in run.stage("split").metrics


def test_one_part_alone_is_read_as_ever(saved, tmp_path):
    assert kd.read(saved, table="train").feedback.height == 12
    single = tmp_path / "single"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(records("train", 3))}).save_to_disk(str(single))
    assert "given_part" not in kd.read(single).feedback.columns


def test_a_column_of_parts_needs_a_meaning_for_each_name(table, tmp_path):
    with pytest.raises(DataError, match=r"dev \(3\).*given: \{dev: validation\}"):
        kd.run(recipe(table, {"split": {"given": True}}, split="fold"), out=tmp_path / "refused")
    run = kd.run(recipe(table, {"split": {"given": {"dev": "validation"}}}, split="fold"), out=tmp_path / "run")
    counts = {name: part["rows"] for name, part in run.stage("split").metrics["parts"].items()}
    assert counts == {"train": 12, "validation": 3, "test": 4}


@pytest.mark.parametrize("steps", [[], [{"split": {"test": 0.2}}]])
def test_a_named_column_is_kept_or_joined_and_never_forgotten(table, steps):
    with pytest.raises(RecipeError, match="given"):
        load_recipe(recipe(table, *steps, split="fold"))
    assert load_recipe(recipe(table, *steps, split="fold", join_parts=True)).ingest.settings["join_parts"] is True


def test_joining_and_keeping_is_a_contradiction(table):
    with pytest.raises(RecipeError, match="choose one"):
        load_recipe(recipe(table, {"split": "given"}, split="fold", join_parts=True))


def test_a_column_that_is_not_there_is_named(table):
    with pytest.raises(SettingError, match=r"'fald'.*'fold'"):
        kd.read(table, split="fald")


def test_in_python_the_stage_refuses_to_deal_given_parts_anew(table):
    feedback = kd.read(table, split="fold").feedback
    assert feedback["given_part"].n_unique() == 3
    feedback = kd.add_columns(feedback, kd.dedupe(feedback))
    with pytest.raises(SettingError, match=r"dev \(3\)"):
        kd.split(feedback)
    kept = kd.split(feedback, given={"dev": "validation"})
    assert kept.columns["part"].n_unique() == 3


@pytest.mark.parametrize(
    ("parts", "given", "message"),
    [
        ([None, "train"], True, "null"),
        (["test", "test"], True, "no row is for training"),
        (["train", "dev"], {"dev": "held_out"}, "held_out"),
    ],
)
def test_parts_that_cannot_be_kept_are_refused_with_a_reason(parts, given, message):
    rows = [
        {"prompt": f"p {n}", "completion": "c", "label": n % 2 == 0, "prompt_group": str(n), "given_part": part}
        for n, part in enumerate(parts)
    ]
    with pytest.raises(KtodataError, match=message):
        kd.split(feedback_table(*rows).with_columns(pl.col("given_part").cast(pl.String)), given=given)


def test_a_source_without_parts_has_none_to_keep():
    rows = feedback_table({"prompt": "p", "completion": "c", "label": True, "prompt_group": "1"})
    with pytest.raises(SettingError, match="it has none"):
        kd.split(rows, given=True)


def test_near_prompts_on_two_sides_of_a_given_split_are_a_finding():
    rows = [
        {"prompt": "How do I bake a loaf of bread?", "completion": f"c {n}", "label": n % 2 == 0, "prompt_group": "a"}
        | {"given_part": part}
        for n, part in enumerate(["train", "train", "test", "test"])
    ]
    result = kd.split(feedback_table(*rows), given=True)
    leak = next(finding for finding in result.metrics["findings"] if finding["code"] == "KD028")
    assert leak["status"] == "issue"
    assert set(result.columns["part"]) == {"train", "test"}
