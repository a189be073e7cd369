"""Evidence compared within a given class, where both speak; and measured on reviewed rows with an interval."""

import numpy as np
import polars as pl
import pytest

from ktodata.labels.agreement import agreement, evidence_on_reviewed, evidence_table
from ktodata.labels.evidence import Evidence


def evidence(name, quality):
    return Evidence(name, np.asarray(quality, float), (), "none")


def test_evidence_that_says_nothing_of_a_row_leaves_it_null():
    table = evidence_table(pl.Series("row_id", ["a", "b"]), [evidence("one", [0.2, np.nan]), evidence("two", [1, 0])])
    assert table.rows() == [("a", 0.2, 1.0), ("b", None, 0.0)]


def test_agreement_is_measured_within_a_class_not_between_them():
    """Both pieces know the class and nothing else: over all rows they agree, within either class they do not."""
    rng, labels = np.random.default_rng(0), np.arange(2000) % 2 == 0
    by_class = [evidence(name, labels * 0.5 + rng.random(2000) * 0.1) for name in ("one", "two")]
    assert np.corrcoef(by_class[0].quality, by_class[1].quality)[0, 1] > 0.9
    table = agreement(by_class, labels, np.ones(2000, bool))
    assert table.select("first", "second", "given", "rows").rows() == [("one", "two", False, 1000), ("one", "two", True, 1000)]
    assert table["rank_correlation"].abs().max() < 0.1
    same = agreement([by_class[0], evidence("three", by_class[0].quality ** 3)], labels, labels)
    assert same["rows"].to_list() == [0, 1000]
    assert same["rank_correlation"].to_list() == [None, pytest.approx(1)]


def test_each_piece_is_measured_on_reviewed_rows_of_each_class():
    labels, wrong = np.ones(40, bool), np.arange(40) < 10
    good, unsure = evidence("good", np.where(wrong, 0.1, 0.9)), evidence("unsure", np.full(40, 0.5))
    table = evidence_on_reviewed([good, unsure], labels, np.arange(40) % 2 == 0, wrong)
    assert table.filter(evidence="good", given=True).select("reviewed", "wrong", "auroc").row(0) == (20, 5, 1.0)
    assert table.filter(evidence="unsure", given=True)["auroc"][0] == 0.5
    assert table.filter(pl.col("given").not_())["auroc"].null_count() == 2
