"""What is made of a method's part: the rows it has reviewed, and its answer."""

import numpy as np
import polars as pl
import pytest
from test_bench import ENCODER, ROWS, rows, write

import ktodata as kd
from ktodata.bench.bench_answers import NoAnswerError, measured, reviewed_rows
from ktodata.bench.bench_methods import BenchAnswer, BenchMethod, BenchTask, at_random
from ktodata.bench.bench_rows import BenchRows, bench_rows
from ktodata.bench.label_sources import label_sources
from ktodata.bench.trained_methods import noise_corrected_kto, random_drop


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


def odd(answer):
    return BenchMethod("odd", lambda task: answer)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"labels": np.full(ROWS, 0.9)}, "labels of shape .* and type float64; it is 160 times true or false"),
        ({"labels": np.ones(ROWS, int)}, "type int64"),
        ({"labels": np.array(["False"] * ROWS)}, "labels of shape"),
        ({"labels": np.zeros((ROWS, 2), bool)}, "labels of shape"),
        ({"dropped": np.ones(ROWS, int)}, "dropped of shape .* and type int64; it is 160 times true or false"),
        ({"p_wrong": np.full(ROWS, 7.0)}, "p_wrong 7 to 7; it is 0 to 1"),
        ({"p_wrong": np.full(ROWS, -0.1)}, "it is 0 to 1"),
        ({"doubt": ["a"] * ROWS}, "doubt of shape"),
        ({"doubt": np.full(ROWS, 1j)}, "doubt of shape"),
        ({"doubt": [None] * ROWS}, "type object"),
        ({"doubt": [[1.0], [1.0, 2.0]]}, "ValueError"),
    ],
)
def test_an_answer_that_cannot_be_measured_is_refused(made, answer, fault):
    """Labels as numbers would all count as wrong, and a probability of 7 as very sure."""
    with pytest.raises(NoAnswerError, match=fault):
        measured(odd(BenchAnswer(**{"doubt": None} | answer)), made, 0, seed=0)


def test_an_answer_may_be_of_lists(made):
    doubt, right = [float(number) for number in range(ROWS)], made.truth.tolist()
    as_lists = measured(odd(BenchAnswer(doubt, [0.5] * ROWS, right)), made, 0, seed=0)
    as_arrays = measured(odd(BenchAnswer(np.array(doubt), np.full(ROWS, 0.5), made.truth)), made, 0, seed=0)
    assert {**as_lists.figures(), "seconds": 0} == {**as_arrays.figures(), "seconds": 0}
    assert as_lists.figures()["right"] == 1


def flip_rate_errors(seed, *, desirable, flipped, count=200, rows=2000):
    """What the method takes for the rates, less what they are, of desirable and undesirable; the bench draws the reviews."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < desirable
    labels = truth ^ (rng.random(rows) < np.where(truth, *flipped))
    made = BenchRows(pl.DataFrame({"row_id": range(rows)}), labels, truth, np.arange(rows))
    reviewed = reviewed_rows(BenchMethod("any", lambda task: BenchAnswer(None), at_random), made, count, seed)
    rates = noise_corrected_kto(BenchTask.of(made, reviewed, seed)).terms["flip_rates"]
    actual = [float((labels != truth)[truth == true].mean()) for true in (True, False)]
    return np.array([rates["desirable"], rates["undesirable"]]) - actual


@pytest.mark.parametrize("desirable", [0.9, 0.8, 0.5, 0.2, 0.1])
@pytest.mark.parametrize("flipped", [(0.15, 0.15), (0.1, 0.3), (0.2, 0.05)])
def test_flip_rates_are_those_of_all_rows_whatever_the_rarer_label_is(desirable, flipped):
    """Reviews are drawn within each given label, more of the rarer one: unweighed, its rate was three times too high."""
    errors = np.array([flip_rate_errors(seed, desirable=desirable, flipped=flipped) for seed in range(200)])
    chance = errors.std(axis=0) / np.sqrt(len(errors))
    assert (np.abs(errors.mean(axis=0)) < 3 * chance + 0.01).all(), errors.mean(axis=0)


def test_reviewed_rows_stand_for_all_rows_of_their_label():
    labels = np.arange(10) < 8
    made = BenchRows(pl.DataFrame({"row_id": range(10)}), labels, labels, np.arange(10))
    task = BenchTask.of(made, np.isin(np.arange(10), [0, 1, 9]), 0)
    assert task.review_weight.tolist() == [4, 4, 0, 0, 0, 0, 0, 0, 0, 2]
    one_sided = BenchTask.of(made, np.isin(np.arange(10), [0, 1]), 0)
    assert one_sided.review_weight.sum() == 8 and noise_corrected_kto(one_sided).terms == {}


def test_random_drop_leaves_out_as_many_rows_as_are_wrong_and_none_that_is_reviewed():
    """At 90 % desirable and 15 % flipped either way; the wrong ones that are reviewed are put right."""
    gaps = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.random(2000) < 0.9
        made = BenchRows(pl.DataFrame({"row_id": range(2000)}), truth ^ (rng.random(2000) < 0.15), truth, np.arange(2000))
        reviewed = reviewed_rows(BenchMethod("any", lambda task: BenchAnswer(None), at_random), made, 200, seed)
        dropped = random_drop(BenchTask.of(made, reviewed, seed)).dropped
        assert not (dropped & reviewed).any()
        gaps.append(dropped.sum() / (made.wrong & ~reviewed).sum() - 1)
    assert abs(np.mean(gaps)) < 0.05 and 0.02 < np.std(gaps) < 0.4
