"""Tables of a lake: the newest version's rows, and no file that lies elsewhere."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

import ktodata as kd
from ktodata.pipeline.recipe import load_recipe
from ktodata.pipeline.runner import preview_plan

ROWS = pa.table(
    {
        "prompt": [f"question {number}" for number in range(40)],
        "completion": [f"answer {number} é\u202e" for number in range(40)],
        "label": [number % 3 > 0 for number in range(40)],
    }
)
MORE = pa.table({"prompt": ["one more"], "completion": ["yes"], "label": [True]})
GONE = "question 5"  # deleted in the newest version


def write_delta(place: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(place.as_uri(), ROWS)
    deltalake.write_deltalake(place.as_uri(), MORE, mode="append")
    deltalake.DeltaTable(place.as_uri()).delete(f"prompt = '{GONE}'")


def write_iceberg(place: Path) -> None:
    pytest.importorskip("sqlalchemy")
    sql = pytest.importorskip("pyiceberg.catalog.sql")
    catalog = sql.SqlCatalog("test", uri="sqlite:///:memory:", warehouse=f"file://{place.parent}")
    catalog.create_namespace("spoken")
    table = catalog.create_table("spoken.feedback", schema=ROWS.schema, location=f"file://{place}")
    table.append(ROWS)
    table.append(MORE)
    table.delete(f"prompt == '{GONE}'")


def write_lance(place: Path) -> None:
    lance = pytest.importorskip("lance")
    lance.write_dataset(ROWS, place)
    lance.write_dataset(MORE, place, mode="append")
    lance.dataset(place).delete(f"prompt = '{GONE}'")


LAKES = {"delta": write_delta, "iceberg": write_iceberg, "lance": write_lance}


@pytest.fixture(params=LAKES)
def table(request, tmp_path):
    """The folder of a table in its third version, whose name a URL writes otherwise."""
    place = tmp_path / "feed back é"
    LAKES[request.param](place)
    return request.param, place


def test_the_newest_version_is_read(table):
    kind, place = table
    read = kd.read(place)
    assert read.metrics["records"] == 40
    prompts = set(read.feedback["prompt"])
    assert GONE not in prompts and "one more" in prompts
    assert "answer 7 é\u202e" in set(read.feedback["completion"])
    assert kind.capitalize() in read.metrics["files"][0]["read_as"]


def test_it_is_inspected_as_a_file_is(table):
    inspection = kd.inspect(table[1])
    assert inspection.is_whole and inspection.n_records == 40
    assert [choice.column for choice in inspection.labels] == ["label"]


def test_a_new_version_runs_again(table, tmp_path):
    kind, place = table
    plan = load_recipe({"name": "lake", "ingest": {"paths": str(place)}, "steps": []})
    kd.run({"name": "lake", "ingest": {"paths": str(place)}, "steps": []}, out=tmp_path / "run", until="ingest")
    assert preview_plan(plan, tmp_path / "run")[0] == ("ingest", "unchanged")
    if kind == "iceberg":  # its catalogue is gone: a note is enough of a change
        next((place / "metadata").glob("*.metadata.json")).touch()
        (place / "metadata" / "more.txt").write_text("x")
    else:
        LAKES[kind](tmp_path / "other")
        shutil.copytree(tmp_path / "other", place, dirs_exist_ok=True)
    assert preview_plan(plan, tmp_path / "run")[0][1].startswith("runs")


def test_one_table_has_no_table_setting(table):
    with pytest.raises(kd.KtodataError, match="holds one table"):
        kd.read(table[1], table="x")


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_data_files_elsewhere_are_not_read(kind, tmp_path):
    place, secret = tmp_path / "table", tmp_path / "secret"
    LAKES[kind](place)
    LAKES[kind](secret)
    if kind == "delta":
        note = place / "_delta_log" / "00000000000000000001.json"
        target = next(secret.glob("*.parquet"))
        lines = [json.loads(line) for line in note.read_text().splitlines()]
        for line in lines:
            if "add" in line:
                line["add"]["path"] = f"file://{target}"
        note.write_text("\n".join(map(json.dumps, lines)))
    else:
        shutil.rmtree(place / "data")
        moved = tmp_path / "moved"
        shutil.copytree(secret / "metadata", moved / "metadata")
        place = moved
    with pytest.raises(kd.KtodataError, match=r"not in its folder|cannot be read"):
        kd.read(place)


def test_a_link_to_elsewhere_is_not_followed(tmp_path):
    write_delta(tmp_path / "table")
    data = sorted((tmp_path / "table").glob("*.parquet"))
    for file in data:
        shutil.move(file, tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    with pytest.raises(kd.KtodataError, match="not in its folder"):
        kd.read(tmp_path / "table")


@pytest.mark.parametrize("kind", LAKES)
def test_damage_is_one_line(kind, tmp_path):
    place = tmp_path / "table"
    LAKES[kind](place)
    for file in place.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(kd.KtodataError) as problem:
        kd.read(place)
    assert "\n" not in str(problem.value)


def test_a_folder_that_is_none_of_these(tmp_path):
    with pytest.raises(
        kd.KtodataError, match=r"neither one that datasets.save_to_disk wrote nor a Delta, Iceberg or Lance table"
    ):
        kd.read(tmp_path)


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "_delta_log").mkdir()
    monkeypatch.setattr("ktodata.extras.find_spec", lambda module: None)
    with pytest.raises(kd.KtodataError, match=r"deltalake: pip install 'ktodata\[lakes\]'"):
        kd.read(tmp_path)
