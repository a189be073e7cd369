"""Each real file is read once, whatever names and links lead to it."""

import json

import pytest

import ktodata as kd
from ktodata.errors import FormatError
from ktodata.formats.data_files import find_sources


@pytest.fixture
def data(tmp_path, monkeypatch):
    """data/a/x.jsonl, data/b/y.jsonl and a hidden folder, with the folder above as the working one."""
    for number, place in enumerate(("a/x", "b/y", ".old/z")):
        file = tmp_path / "data" / f"{place}.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"prompt": f"why {number}", "completion": "so", "label": True}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def paths_of(*patterns):
    return [source.path for source in find_sources(list(patterns))]


def test_one_file_under_two_spellings_is_read_once_under_the_first(data):
    (data / "c.jsonl").symlink_to(data / "a" / "x.jsonl")
    spellings = ("data/a/x.jsonl", "./data/../data/a/x.jsonl", str(data / "a" / "x.jsonl"), "data/c.jsonl", "data/a/*.jsonl")
    assert paths_of(*spellings) == ["data/a/x.jsonl"]
    read = kd.read(list(spellings))
    assert read.feedback.height == read.metrics["records"] == 1
    assert [file["name"] for file in read.metrics["files"]] == ["x.jsonl"]


def test_two_stars_come_into_each_folder_once(data):
    """Two links that lead up: the ways through them double with each step, and none of them is another file."""
    for name in ("0up", "loop"):
        (data / name).symlink_to(".")
    assert paths_of("data/**/*.jsonl") == ["data/a/x.jsonl", "data/b/y.jsonl"]
    assert paths_of("data/**") == ["data/a/x.jsonl", "data/b/y.jsonl"]
    assert paths_of("**/b/**/*.jsonl", "data/**/x.jsonl") == ["data/b/y.jsonl", "data/a/x.jsonl"]
    with pytest.raises(FormatError, match="no file matches"):
        find_sources("data/**/none.jsonl")


def test_two_stars_follow_a_link_to_another_place(data, tmp_path):
    (tmp_path / "else[1]").mkdir()
    (data / "b" / "y.jsonl").rename(tmp_path / "else[1]" / "y.jsonl")
    (data / "link").symlink_to(tmp_path / "else[1]")
    assert paths_of("data/**/*.jsonl") == ["data/a/x.jsonl", "data/link/y.jsonl"]
    assert paths_of("./**/y.jsonl") == ["data/link/y.jsonl"]
