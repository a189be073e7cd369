"""Pictures: the same bytes every time, colours that follow the page, text that stays text."""

import matplotlib
import numpy as np
import polars as pl
import pytest

from ktodata.experiments.arm_figures import ForestDot, Rewards
from ktodata.report import figures
from ktodata.report.sections import experiment_pictures


def drawings():
    line = np.linspace(0, 1, 50)
    gaps = [ForestDot("a $x$ <b>", 0.1, 0.05, 0.2, proven=True), ForestDot("long " * 30, -0.1, -0.2, 0.1, proven=False)]
    points = pl.DataFrame({"budget": [0.1], "minus_baseline": [0.1], "minus_low": [-0.1], "minus_high": [0.3]})
    arms = [Rewards("a $x$ <b>", line, -line), Rewards("one side only", line, line[:0])]
    return {
        "flow": figures.flow(
            "62 rows", 62, [figures.FlowLoss("dedupe", 5, 0, 57), figures.FlowLoss("label noise", 0, 9, 48)], [("train", 48)]
        ),
        "ranges": figures.ranges(
            "r", "t", [figures.RangePoint("a $x$ <b>", 0.5, 0.4, 0.6)], axis="share", reference=(0.3, "all")
        ),
        "histogram": figures.histogram("h", "t", line, line[:20], axis="quality"),
        "map": figures.cluster_map(line, line**2, np.arange(50) % 12, {n: f"name {n} $\\bad$" for n in range(12)}),
        "curves": figures.curves(
            "c", "t", [figures.Curve("loss", [0, 1], [0.5, 0.4]), figures.Curve("auc", [0], [0.5], [0.4], [0.6])]
        ),
        "forest": experiment_pictures.forest("f", "t", [("minus KTO's\nright is better", gaps), ("minus the base's", gaps[:1])]),
        "reviews": experiment_pictures.review_curve("v", {"<i>queue": points, "chance $x$": points}, 0.2, measure="auc"),
        "rewards": experiment_pictures.rewards("w", arms, shared=False),
    }


@pytest.fixture(scope="module")
def drawn():
    return drawings()


def test_the_same_data_give_the_same_bytes(drawn):
    assert drawings() == drawn


def test_every_colour_is_the_page_s(drawn):
    for svg in drawn.values():
        assert "#0" not in svg.replace('href="#', "").replace("url(#", "")
    assert "var(--c9)" in drawn["map"] and "var(--undesirable)" in drawn["histogram"]


def test_names_stay_text_and_are_not_mathematics(drawn):
    assert "a $x$ &lt;b&gt;" in drawn["ranges"]
    assert all("a $x$ &lt;b&gt;" in drawn[name] for name in ("forest", "rewards"))
    assert "&lt;i&gt;queue" in drawn["reviews"] and "chance $x$" in drawn["reviews"]
    assert "11 name 11 $\\bad$" in drawn["map"]


def test_the_description_tells_what_the_picture_shows(drawn):
    assert "62 rows in. dedupe: 5 out, 0 to review, 57 left; label noise: 0 out, 9 to review, 48 left." in drawn["flow"]
    assert "a $x$ &lt;b&gt;: 50 % (40 to 60 %)" in drawn["ranges"]
    assert (
        "minus KTO&#x27;s right is better: a $x$ &lt;b&gt; +0.100 (+0.050 to +0.200), more than chance; long" in drawn["forest"]
    )
    assert "chance $x$: +0.100 (-0.100 to +0.300) at 0.1; true labels: +0.200." in drawn["reviews"]
    assert "one side only: 0.5 desirable, no rows that are undesirable" in drawn["rewards"]
    assert "25 of 50 rows given as desirable, 20 of 20 given as undesirable" in drawn["histogram"]


def test_a_large_map_is_thinned():
    many = np.linspace(0, 1, 20_000)
    svg = figures.cluster_map(many, many[::-1], np.zeros(20_000, int), {0: "one"})
    assert svg.count("<use") == figures.MAP_POINTS
    assert "one: 20000 rows" in svg


def test_labels_of_one_place_do_not_cover_each_other():
    """Three clusters with one centre: their names stand under each other."""
    at = np.zeros(30)
    svg = figures.cluster_map(np.r_[at, 1], np.r_[at, 1], np.r_[np.arange(30) % 3, 3], dict.fromkeys(range(4), "same"))
    heights = {line.split("y=")[1].split('"')[1] for line in svg.split("<text")[1:] if "same" in line}
    assert len(heights) >= 3


def test_settings_of_matplotlib_are_left_as_they_were():
    before = dict(matplotlib.rcParams)
    drawings()
    assert dict(matplotlib.rcParams) == before
