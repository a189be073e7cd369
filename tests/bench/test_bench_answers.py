"""What is made of a method's part: the rows it has reviewed, and its answer."""

import numpy as np
import pytest
from test_bench import ENCODER, ROWS, rows, write

import ktodata as kd
from ktodata.bench.bench_answers import reviewed_rows
from ktodata.bench.bench_methods import BenchAnswer, BenchMethod
from ktodata.bench.bench_rows import bench_rows
from ktodata.bench.label_sources import label_sources


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The rows of a source."""
    place = tmp_path_factory.mktemp("data")
    write(place / "rule.jsonl", rows())
    return bench_rows(label_sources(place)[0][0], max_rows=ROWS, encoder=ENCODER)


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        (np.arange(ROWS), f"chose {ROWS} different rows to review; it has 5"),
        (np.array([0]), "chose 1 different rows"),
        (np.zeros(5, int), "chose 1 different rows"),
        ([], "by no places"),
        (np.arange(ROWS) < 5, "by no places"),
        (np.arange(5) - 1, "by no places"),
        (np.arange(5) + ROWS, "by no places"),
        ([0.5, 1.5, 2.5, 3.5, 4.5], "by no places"),
    ],
)
def test_a_method_reviews_as_many_rows_as_it_has(made, chosen, fault):
    odd = BenchMethod("odd", lambda task: BenchAnswer(None), lambda task, count: chosen)
    with pytest.raises(kd.KtodataError, match=fault):
        reviewed_rows(odd, made, 5, seed=0)
    assert not reviewed_rows(odd, made, 0, seed=0).any()


def test_places_may_be_a_list(made):
    good = BenchMethod("good", lambda task: BenchAnswer(None), lambda task, count: list(range(3, 3 + count)))
    assert np.flatnonzero(reviewed_rows(good, made, 4, seed=0)).tolist() == [3, 4, 5, 6]
