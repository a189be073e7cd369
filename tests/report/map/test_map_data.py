"""The map as data: the picture's dots and colours, and what each dot is told to be."""

import base64
import gzip
import json

import folders
import polars as pl
import pytest

from ktodata.report.map.map_data import GRID, read_map_data
from ktodata.report.run_files import RunFiles
from ktodata.report.without_text import WithoutText


def read(folder, files=RunFiles):
    map_data = read_map_data(files(folder))
    return map_data, json.loads(gzip.decompress(base64.b64decode(map_data.encoded)))


@pytest.fixture
def run(tmp_path):
    return folders.write_run(tmp_path / "small")


def change(folder, table, **columns):
    file = folder / "stages" / "coverage" / f"{table}.parquet"
    pl.read_parquet(file).with_columns(**columns).write_parquet(file)


def test_every_dot_says_what_its_row_is(run):
    map_data, values = read(run)
    assert map_data.colourings == ("label", "doubt", "fate", "coverage")
    assert values["row_id"] == [str(number) for number in range(1, 61)] and len(values["x"]) == 60
    assert values["label"][:5] == [0, 1, 1, 1, 0] and values["quality"][0] == 0.07 and values["quality"][9] == 0.9
    fates = [values["fates"][fate] for fate in values["fate"]]
    assert fates[:9] == ["held for a person to review"] * 9 and fates[20:25] == ["dropped"] * 5
    assert set(fates[9:20]) == {"kept as it came"}
    assert values["prompt"][9] == "sums question 9" and values["prompt"][4] == "x" * 160
    assert values["prompt"][3].startswith("abc ⟨U+202E⟩")


def test_places_keep_their_shape(run):
    _, values = read(run)
    placed = pl.read_parquet(run / "stages/coverage/columns.parquet")
    assert min(values["x"]) == min(values["y"]) == 0 and max(*values["x"], *values["y"]) == GRID
    wide, high = (placed[name].max() - placed[name].min() for name in ("map_x", "map_y"))
    assert max(values["x"]) / max(values["y"]) == pytest.approx(wide / high, rel=0.001)


def test_all_dots_in_one_place_are_no_trouble(run):
    change(run, "columns", map_x=pl.lit(1.5), map_y=pl.lit(-2.0))
    _, values = read(run)
    assert set(values["x"]) == set(values["y"]) == {0}


def test_clusters_come_as_in_the_picture_most_dots_first(run):
    change(run, "columns", cluster=pl.when(pl.col("row_id") == "1").then(pl.lit(2, pl.Int32)).otherwise("cluster"))
    change(run, "clusters", thin=pl.col("cluster") == 1)
    _, values = read(run)
    assert [number for number, *_ in values["clusters"]] == [2, 1, 0] and [thin for *_, thin in values["clusters"]] == [
        False,
        True,
        False,
    ]
    assert values["clusters"][values["cluster"][0]][0] == 2 and values["clusters"][values["cluster"][1]][0] == 1


def test_a_dot_is_told_to_be_the_nearest_to_a_hole(run):
    change(run, "holes", nearest=pl.lit("dates question 13"))
    _, values = read(run)
    assert [row_id for row_id, hole in zip(values["row_id"], values["nearest_hole"], strict=True) if hole] == ["14"]


@pytest.mark.parametrize(
    ("stages", "ways"),
    [
        (("coverage",), ("label",)),
        (("label_noise", "coverage"), ("label", "doubt", "fate")),
        (("dedupe", "coverage"), ("label", "fate")),
    ],
)
def test_only_ways_that_show_a_difference_are_offered(tmp_path, stages, ways):
    folder = folders.write_run(tmp_path / "run", stages=stages)
    (folder / "stages/coverage/holes.parquet").unlink()
    assert read(folder)[0].colourings == ways


def test_without_text_there_is_no_text(run):
    _, values = read(run, WithoutText)
    assert "prompt" not in values and "nearest_hole" not in values and "question" not in json.dumps(values)


def test_where_nothing_was_placed_there_is_no_map(run, tmp_path):
    change(run, "columns", map_x=pl.lit(None, pl.Float64))
    assert read_map_data(RunFiles(run)) is None
    assert read_map_data(RunFiles(folders.write_run(tmp_path / "other", stages=()))) is None
