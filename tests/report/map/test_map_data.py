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
    found = read_map_data(files(folder))
    return found, json.loads(gzip.decompress(base64.b64decode(found.packed)))


@pytest.fixture
def run(tmp_path):
    return folders.write_run(tmp_path / "small")


def change(folder, table, **columns):
    file = folder / "stages" / "coverage" / f"{table}.parquet"
    pl.read_parquet(file).with_columns(**columns).write_parquet(file)


def test_every_dot_says_what_its_row_is(run):
    found, told = read(run)
    assert found.ways == ("label", "doubt", "fate", "coverage")
    assert told["row_id"] == [str(number) for number in range(1, 61)] and len(told["x"]) == 60
    assert told["label"][:5] == [0, 1, 1, 1, 0] and told["quality"][0] == 0.07 and told["quality"][9] == 0.9
    fates = [told["fates"][fate] for fate in told["fate"]]
    assert fates[:9] == ["held for a person to review"] * 9 and fates[20:25] == ["dropped"] * 5
    assert set(fates[9:20]) == {"kept as it came"}
    assert told["prompt"][9] == "sums question 9" and told["prompt"][4] == "x" * 160
    assert told["prompt"][3].startswith("abc ⟨U+202E⟩")


def test_places_keep_their_shape(run):
    _, told = read(run)
    placed = pl.read_parquet(run / "stages/coverage/columns.parquet")
    assert min(told["x"]) == min(told["y"]) == 0 and max(*told["x"], *told["y"]) == GRID
    wide, high = (placed[name].max() - placed[name].min() for name in ("map_x", "map_y"))
    assert max(told["x"]) / max(told["y"]) == pytest.approx(wide / high, rel=0.001)


def test_all_dots_in_one_place_are_no_trouble(run):
    change(run, "columns", map_x=pl.lit(1.5), map_y=pl.lit(-2.0))
    _, told = read(run)
    assert set(told["x"]) == set(told["y"]) == {0}


def test_clusters_come_as_in_the_picture_most_dots_first(run):
    change(run, "columns", cluster=pl.when(pl.col("row_id") == "1").then(pl.lit(2, pl.Int32)).otherwise("cluster"))
    change(run, "clusters", thin=pl.col("cluster") == 1)
    _, told = read(run)
    assert [number for number, *_ in told["clusters"]] == [2, 1, 0] and [thin for *_, thin in told["clusters"]] == [
        False,
        True,
        False,
    ]
    assert told["clusters"][told["cluster"][0]][0] == 2 and told["clusters"][told["cluster"][1]][0] == 1


def test_a_dot_is_told_to_be_the_nearest_to_a_hole(run):
    change(run, "holes", nearest=pl.lit("dates question 13"))
    _, told = read(run)
    assert [row_id for row_id, hole in zip(told["row_id"], told["beside_hole"], strict=True) if hole] == ["14"]


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
    assert read(folder)[0].ways == ways


def test_without_text_there_is_no_text(run):
    _, told = read(run, WithoutText)
    assert "prompt" not in told and "beside_hole" not in told and "question" not in json.dumps(told)


def test_where_nothing_was_placed_there_is_no_map(run, tmp_path):
    change(run, "columns", map_x=pl.lit(None, pl.Float64))
    assert read_map_data(RunFiles(run)) is None
    assert read_map_data(RunFiles(folders.write_run(tmp_path / "other", stages=()))) is None
