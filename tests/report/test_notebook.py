"""Summaries for notebooks: escaped, and with the numbers that matter."""

import shlex

import folders
import polars as pl

from ktodata.feedback import feedback_table
from ktodata.findings import issue
from ktodata.report import build_audit_page
from ktodata.report.notebook_html import run_html, stage_result_html
from ktodata.stage import StageResult, decide


def test_a_result_shows_what_it_adds_decides_and_found():
    feedback = feedback_table(("2+2?", "4", True), ("2+2?", "4", True))
    decisions = decide(feedback, pl.col("row_id") == "2", action="drop", reason="<b>repeat</b>")
    facts = {"repeats": 1, "findings": [issue("KD010", "1 row <i>repeats</i>").as_dict()]}
    html = stage_result_html(StageResult(feedback.select("row_id", duplicate_of=pl.lit("1")), decisions, facts))
    assert "<strong>2</strong> rows; adds <bdi>duplicate_of</bdi>" in html
    assert "&lt;b&gt;repeat&lt;/b&gt;" in html and "<b>" not in html
    assert "<code>KD010</code> <bdi>1 row &lt;i&gt;repeats&lt;/i&gt;</bdi>" in html


def test_a_result_without_decisions_says_so():
    html = stage_result_html(StageResult(feedback_table(("p", "c", True)).select("row_id")))
    assert "It drops, changes and holds back no row." in html


def test_a_run_shows_its_five_lines_and_the_way_of_its_rows(tmp_path):
    html = run_html(folders.write_run(tmp_path / "small"))
    assert html.count("<li>") == 5
    assert "small &lt;b&gt;run&lt;/b&gt; \ufffd" in html


def test_an_audit_of_a_table_in_memory_equals_that_of_a_run(tmp_path):
    run = folders.write_run(tmp_path / "small", stages=("label_noise",))
    feedback = folders.rows()
    fields = {file.stem: pl.read_parquet(file) for file in (run / "stages/label_noise").glob("*.parquet")}
    assert {"trust_curve", "raters", "drift", "contested"} <= set(fields)
    result = StageResult(fields.pop("columns"), metrics=folders.NOISE_FACTS, tables=fields)
    name = "small <b>run</b> \ud800"
    in_memory, of_run = (labels_of(page) for page in (build_audit_page(result, feedback, name=name), build_audit_page(run)))
    assert len(in_memory) > 1000 and in_memory.replace("explain RUN", f"explain {shlex.quote(str(run))}") == of_run


def test_the_audit_of_a_table_shows_what_a_judge_is_worth(tmp_path):
    run = folders.write_run(tmp_path / "small", stages=("label_noise",)) / "stages/label_noise"
    measured = {"hits": 9, "of": 10, "value": 0.9, "low": 0.55, "high": 0.99}
    facts = {"judge": {"rater": "judge:<b>m"}, "rows_to_judge": 40, "rows_without_verdict": 2}
    facts |= {
        "agreement": {"desirable": {"drawn": True, "agreement": measured, "wrong_seen": {"of": 0}, "right_doubted": {"of": 0}}}
    }
    judged = StageResult(folders.rows().select("row_id"), metrics=facts)
    result = StageResult(pl.read_parquet(run / "columns.parquet"), metrics=folders.NOISE_FACTS)
    page = build_audit_page(result, folders.rows(), judged=judged)
    assert "What the judge is worth" in page and "9 of 10 reviewed rows" in page and "judge:&lt;b&gt;m" in page
    assert "What the judge is worth" not in build_audit_page(result, folders.rows())


def labels_of(page):
    """The section on the labels."""
    return page.partition('<section id="labels"')[2].partition("</section>")[0]


def test_an_audit_says_what_became_of_every_record_and_what_is_next(tmp_path):
    run = folders.write_run(tmp_path / "small", stages=("label_noise",))
    page = build_audit_page(run)
    assert "Of 62 rows in," in page and "Records that could not be read: 2" in page
    assert f"<pre><code>ktodata review {shlex.quote(str(run))} --budget 69</code></pre>" in page
    assert "Did it help" not in page and "<script" not in page
