"""What an audit says in findings, on its page and in a notebook, over made-up reviews: no part is larger than its whole."""

import folders
import numpy as np
import polars as pl
import pytest
from sentences import about_nothing, larger_than_its_whole, parts_of_wholes, text_of

from ktodata.feedback import feedback_table
from ktodata.labels.people.trusted import rows_to_review
from ktodata.report import build_audit_page, build_card, build_report
from ktodata.report.headline import headline_text
from ktodata.stages.label_noise import label_noise

ROWS = 240


@pytest.fixture(scope="module")
def planted():
    """Two topics told apart by their vectors; three labels in ten are wrong, most of them on a corner that no text gives away."""
    rng = np.random.default_rng(0)
    truth, corner = rng.random(ROWS) < 0.6, rng.random(ROWS) < 0.3
    vectors = rng.standard_normal((ROWS, 8)).astype(np.float32)
    vectors[:, 0] += np.where(truth, 3, -3)
    vectors[:, 1] += np.where(corner, 4, -4)
    labels = truth ^ (corner & (rng.random(ROWS) < 0.8)) ^ (rng.random(ROWS) < 0.05)
    table = feedback_table(*[(f"prompt {n}", f"text {n}", bool(label)) for n, label in enumerate(labels)])
    embedding = pl.Series(vectors, dtype=pl.Array(pl.Float32, 8))
    return table.with_columns(
        prompt_group="row_id", prompt_embedding=embedding, completion_embedding=embedding, truth=pl.Series(truth)
    )


def reviewed_ids(table, way):
    if way == "all":
        return table["row_id"]
    if way == "picked":
        return table.filter(pl.col("label") != pl.col("truth"))["row_id"].head(10)
    return rows_to_review(table, total=int(way), seed=0)["row_id"]


@pytest.fixture(scope="module", params=["0", "45", "120", "all", "picked"])
def audited(request, planted):
    """(way of review, the audit, what it says)"""
    seen = reviewed_ids(planted, request.param)
    table = planted.with_columns(trusted_label=pl.when(pl.col("row_id").is_in(seen.implode())).then("truth")).drop("truth")
    result = label_noise(table, folds=3, repeats=1)
    return request.param, result, texts(table, result)


def texts(table, result):
    """By where they stand: the findings, and the page."""
    findings = " ".join(finding["text"] for finding in result.metrics["findings"])
    return {"findings": findings, "page": text_of(build_audit_page(result, table))}


def test_no_part_is_larger_than_its_whole_and_nothing_is_said_of_no_rows(audited):
    way, _, words = audited
    for place, text in words.items():
        assert not larger_than_its_whole(text), (way, place)
        assert not about_nothing(text), (way, place)
    assert parts_of_wholes(words["page"])


def test_flags_are_those_that_the_columns_hold(audited):
    _, result, _ = audited
    flags = result.metrics["flags"]
    assert result.metrics["flagged"] == sum(of["rows"] for of in flags.values()) == result.columns["flagged"].sum()
    finding = next(each for each in result.metrics["findings"] if each["code"] == "KD042")
    assert (finding["rows"] or 0) == result.metrics["flagged"]


@pytest.mark.parametrize("audited", ["all"], indirect=True)
def test_a_full_count_is_no_draw_and_has_no_interval(audited):
    _, result, words = audited
    text, page = words["findings"], words["page"]
    assert "random draw" not in text and "95 %" not in text
    assert "Have a sample judged" not in page and "Use the verdicts" in page
    assert "every row judged" in page and "drawn at random and judged" not in page
    flagged = result.metrics["flagged"]
    assert f"{flagged} rows are flagged" in text and "judged wrong" in text and "expected wrong" not in text


def test_flags_of_injected_flips_are_on_a_condition_wherever_they_stand(planted):
    """Nobody has reviewed anything, and labels are wrong at random: flags ask for a review, and claim nothing."""
    rng = np.random.default_rng(1)
    rows = pl.concat([planted.with_columns(pl.col("row_id") + f"-{copy}") for copy in range(3)])
    noisy = pl.Series(rng.random(rows.height) < 0.15)
    table = rows.with_columns(label=pl.col("truth") ^ noisy, prompt_group="row_id").drop("truth")
    result = label_noise(table, folds=3, repeats=2)
    assert result.metrics["flagged"]
    finding = next(each["text"] for each in result.metrics["findings"] if each["code"] == "KD042")
    assert "would be wrong" in finding and "at random" in finding and "not known" in finding
    page = build_audit_page(result, table)
    text = text_of(page)
    assert "flags that would be right if" in text and "not known to be so" in text and "flags expected to be right" not in text
    assert "measured to be right" not in text and "on a condition that nobody has measured" in text


def test_flags_beyond_what_is_doubted_are_a_number_of_their_own_on_every_text(tmp_path):
    """By reviews more rows can be flagged than confident learning doubts: they are no part of those."""
    folder = folders.write_run(tmp_path / "run", stages=folders.PROOF)
    flags = {"desirable": {"rows": 43, "judged": 2}, "undesirable": {"rows": 0, "judged": 0}}
    folders.noted(folder / "stages/label_noise/metrics.json", folders.NOISE_FACTS | {"flags": flags, "flagged": 43})
    page = text_of(build_report(folder))
    assert "43 rows are flagged" in page and parts_of_wholes(page)
    for text in (page, build_card(folder), " ".join(headline_text(folder)), text_of(build_audit_page(folder))):
        assert not larger_than_its_whole(text) and not about_nothing(text)
