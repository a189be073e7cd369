"""The interactive map: one point a prompt, coloured by what it says, and what is chosen on it comes back as rows."""

import numpy as np
import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import EmptyDataError, MissingColumnError, MissingExtraError, SettingError
from ktodata.feedback import feedback_table

pytest.importorskip("jscatter", reason="no jupyter-scatter: pip install 'ktodata[notebook]'")


def picked(*points):
    """What the lasso writes into the widget."""
    return np.array(points, dtype=np.uint32)


@pytest.fixture
def feedback():
    """Three prompts on the map, one of them with two rows, and one that has no place on it."""
    return pl.DataFrame(
        {
            "row_id": ["a", "b", "c", "d", "e"],
            "prompt": ["2+2?", "<img src=x onerror=alert(1)> \u202e", "2+2?", "off the map", "sky?"],
            "label": [True, False, False, True, True],
            "label_quality": [0.9, 0.2, 0.4, 0.1, None],
            "cluster": pl.Series([0, 10, 0, 2, 2], dtype=pl.Int32),
            "map_x": pl.Series([None, 1.0, 0.0, None, 3.0], dtype=pl.Float32),
            "map_y": pl.Series([None, 1.0, 0.0, None, 2.0], dtype=pl.Float32),
            "prompt_embedding": pl.Series(
                [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=pl.Array(pl.Float32, 2)
            ),
        }
    )


def test_one_point_a_prompt_and_the_selection_is_all_its_rows(feedback):
    drawn = kd.prompt_map(feedback)
    assert drawn.points["prompt"].to_list() == [feedback["prompt"][1], "2+2?", "sky?"]  # in the frame's order of places
    assert drawn.points["rows"].to_list() == [1, 2, 1]
    assert drawn.selected.is_empty() and drawn.selected.columns == feedback.columns
    drawn.widget.selection = picked(1)
    assert drawn.selected["row_id"].to_list() == ["a", "c"]
    drawn.widget.selection = picked(2, 0)
    assert drawn.selected["row_id"].to_list() == ["b", "e"]
    assert drawn.selected.equals(feedback[[1, 4]])
    assert repr(drawn) == "PromptMap: 3 of 4 prompts have a point"


def test_colours_are_what_they_say(feedback):
    assert kd.prompt_map(feedback, color_by="label").points["desirable_share"].to_list() == [0.0, 0.5, 1.0]
    doubt = kd.prompt_map(feedback, color_by="label_quality").points
    assert doubt.select("prompt", "doubt").rows() == [(feedback["prompt"][1], 0.8), ("2+2?", pytest.approx(0.6))]  # sky? has none
    distance = kd.prompt_map(feedback, color_by="distance").points
    assert distance["distance"].to_list() == pytest.approx([0.2, 0.4, 0.2], abs=1e-6)  # cosines 0.8, 0.6, 0.8
    alone = kd.prompt_map(feedback.filter(row_id="e"), color_by="distance").points
    assert alone["distance"].to_list() == [0.0]


def test_clusters_are_named_and_in_order_of_their_numbers(feedback):
    names = pl.DataFrame({"cluster": [0, 2], "name": ["sums", "<b>sky</b>\u202e"]})
    drawn = kd.prompt_map(feedback, clusters=names)
    assert drawn.points["cluster"].to_list() == ["10", "0: sums", "2: <b>sky</b>⟨U+202E⟩"]
    assert list(drawn.scatter.color_data.cat.categories) == ["0: sums", "2: <b>sky</b>⟨U+202E⟩", "10"]


def test_hover_texts_are_cleaned_and_cut(feedback):
    long = feedback.with_columns(prompt=pl.when(pl.col("row_id") == "e").then(pl.lit("x" * 500)).otherwise("prompt"))
    hovers = kd.prompt_map(long).points["shown"].to_list()
    assert hovers == ["<img src=x onerror=alert(1)> ⟨U+202E⟩", "2+2?", "x" * 400 + " …"]
    widget = kd.prompt_map(long).widget
    assert (widget.tooltip_preview, widget.tooltip_preview_type, widget.tooltip_histograms) == ("shown", "text", False)


def test_it_draws_itself(feedback):
    data, _metadata = kd.prompt_map(feedback)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_map_of_coverage_is_what_it_takes():
    words = ("pasta", "metres", "spring", "tomato")
    rows = [(f"{words[n % 4]} and {words[n % 3]} number {n % 20}?", f"yes {n}", n % 2 == 0) for n in range(60)]
    feedback = feedback_table(*rows)
    feedback = kd.add_columns(feedback, kd.embed(feedback)).with_columns(state=pl.lit("keep"))
    result = kd.coverage(feedback, seed=0)
    feedback = kd.add_columns(feedback, result)
    drawn = kd.prompt_map(feedback, clusters=result.tables["clusters"])
    assert drawn.points.height == feedback["prompt"].n_unique() == result.metrics["map_rows"]
    drawn.widget.selection = picked(*range(drawn.points.height))
    assert drawn.selected.equals(feedback)


def test_what_cannot_be_drawn_is_said(feedback, monkeypatch):
    with pytest.raises(SettingError, match="one of cluster, label, label_quality, distance; got 'colour'"):
        kd.prompt_map(feedback, color_by="colour")
    with pytest.raises(MissingColumnError, match="a table without map_y"):
        kd.prompt_map(feedback.drop("map_y"))
    with pytest.raises(MissingColumnError, match=r"coloured by label_quality\) needs column 'label_quality'"):
        kd.prompt_map(feedback.drop("label_quality"), color_by="label_quality")
    with pytest.raises(EmptyDataError, match=r"none of 1 rows has a place .* kd\.coverage gives places"):
        kd.prompt_map(feedback.filter(row_id="d"))
    monkeypatch.setattr("ktodata.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"jscatter: pip install 'ktodata\[notebook\]'"):
        kd.prompt_map(feedback)


def test_what_adds_the_columns_of_the_map_is_named(feedback):
    for what in (feedback.drop("map_x"), object()):
        with pytest.raises(MissingColumnError, match=r"kd\.coverage adds: kd\.add_columns"):
            kd.prompt_map(what)
