"""Labels of several sources: who counts as one, and what their votes and models say together."""

import numpy as np
import polars as pl
import pytest
from scipy.special import logit

from ktodata.feedback import VOTE
from ktodata.labels.people.weak_sources import find_weak_sources, pool


def table(*votes, trained=None):
    """One row for each dict {rater: verdict}; the label is the first verdict."""
    cast = [[{"rater": who, "label": says, "created_at": None} for who, says in row.items()] for row in votes]
    labels = [row[0]["label"] for row in cast]
    return pl.DataFrame(
        {"label": labels, "votes": cast, "trained": [True] * len(cast) if trained is None else trained},
        schema={"label": pl.Boolean, "votes": pl.List(VOTE), "trained": pl.Boolean},
    )


def test_raters_of_most_rows_are_sources_and_others_are_not():
    rows = [{"gpt": n % 2 == 0, "match": n % 3 == 0} | ({"ann": True} if n < 3 else {}) for n in range(10)]
    sources = find_weak_sources(table(*rows))
    assert sources.names == ["gpt", "match"]
    assert sources.labels[:, 0].tolist() == [n % 2 == 0 for n in range(10)]
    assert sources.labels[:, 1].tolist() == [n % 3 == 0 for n in range(10)]


def test_where_a_source_is_silent_the_given_label_stands_in():
    rows = [{"gpt": n % 2 == 0} | ({"match": n % 3 == 0} if n else {}) for n in range(10)]
    sources = find_weak_sources(table(*rows))
    assert sources.labels[0].tolist() == [True, True]


@pytest.mark.parametrize(
    "rows",
    [
        [{"gpt": n % 2 == 0} for n in range(10)],  # one alone
        [{"gpt": n % 2 == 0, "match": n % 2 == 0} for n in range(10)],  # they never differ
        [{"gpt": n % 2 == 0, "match": True} for n in range(10)],  # one that says the same of all
        [{"gpt": True, "match": False} | {} for _ in range(10)],
    ],
)
def test_sources_that_teach_nothing_are_none(rows):
    assert find_weak_sources(table(*rows)) is None


def test_coverage_is_of_training_rows():
    rows = [{"gpt": n % 2 == 0} | ({"match": n % 3 == 0} if n < 5 else {}) for n in range(10)]
    assert find_weak_sources(table(*rows)) is None
    assert find_weak_sources(table(*rows, trained=[n < 5 for n in range(10)])).names == ["gpt", "match"]


def test_pool_by_hand():
    """Models at 0.8 and 0.6: mean log-odds (1.386 + 0.405) / 2 = 0.896."""
    assert logit(pool(np.array([[0.8, 0.6]]))) == pytest.approx([0.896], abs=1e-3)
