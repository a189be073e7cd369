"""What became of every record is said where a person looks: text, JSON and page."""

import html
import json
import re

import pytest

import ktodata as kd
from ktodata.pipeline.audit_command import audit_feedback
from ktodata.pipeline.command_texts import run_text
from ktodata.report.sections.flow_section import reading_account


@pytest.fixture
def thumbs(tmp_path):
    """Half of the labels are written in a way that nobody gave a meaning; two are empty, one line is broken."""
    rows = [
        {
            "prompt": f"How do I plant tree {number}?",
            "completion": f"Dig hole {number}.",
            "thumb": ("good", "bad")[number % 2],
            "plot": 7,
        }
        for number in range(20)
    ]
    rows += [{**row, "thumb": "fine"} for row in rows[:6]] + [{**row, "thumb": None} for row in rows[:2]] + [dict(rows[0])]
    place = tmp_path / "thumbs.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    return place


LABEL = {"column": "thumb", "good": True, "bad": False}


def test_audit_says_it_in_text_in_json_and_on_the_page(thumbs, tmp_path):
    audit = audit_feedback(str(thumbs), out=tmp_path / "audit", ingest={"label": LABEL})
    records = audit.metrics["records"]
    assert (records["records"], records["used"], records["rows"], records["unlabelled"]) == (30, 21, 21, 2)
    assert records["unreadable"] == {"label_unmapped": 6, "malformed_json": 1}
    assert records["not_kept"] == {"plot": 21}
    assert records["repeats"] >= 1
    assert records["rows"] == sum(records[name] for name in ("repeats", "dropped", "quarantined", "held", "kept"))
    assert records["records"] == records["used"] + records["unlabelled"] + sum(records["unreadable"].values())
    page = (tmp_path / "audit" / "audit.html").read_text()
    for words in ("30 records", "21 became", "label unmapped", "fine", "malformed json", "plot 21", "repeat dropped"):
        assert words in audit.text(), words
        assert words in page, words


def test_a_run_says_it_in_the_terminal_and_on_the_page(thumbs, tmp_path):
    recipe = {"name": "thumbs", "ingest": {"paths": [str(thumbs)], "label": LABEL}, "steps": ["dedupe"]}
    run = kd.run(recipe, out=tmp_path / "run")
    page = (run.folder / "report.html").read_text()
    for words in ("30 records", "label unmapped", "plot 21"):
        assert words in run_text(run, None), words
        assert words in page, words


def test_convert_lists_fields_that_are_not_kept(thumbs, tmp_path, capsys):
    from ktodata.cli import app

    settings = ["--set", "label={column: thumb, good: true, bad: false}"]
    app(["convert", str(thumbs), str(tmp_path / "out.jsonl"), *settings], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "'plot' of 21 records" in printed
    assert "2 records not read: unlabelled" in printed
    app(["convert", str(thumbs), str(tmp_path / "out.jsonl"), *settings, "--json"], standalone_mode=False)
    assert any("plot" in line for line in json.loads(capsys.readouterr().out)["lost"])


def test_a_page_without_text_names_no_field(thumbs, tmp_path):
    from ktodata.report import write_page_without_text

    recipe = {"name": "thumbs", "ingest": {"paths": [str(thumbs)], "label": LABEL}, "steps": ["dedupe"]}
    run = kd.run(recipe, out=tmp_path / "run")
    write_page_without_text(run.folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "30 records" in page
    assert "plot 21" not in page


def test_why_rows_left_is_said_with_their_number():
    gone = {("drop", "repeat"): 5, ("drop", "doubtful_label"): 15, ("drop", "outvoted"): 2, ("review", "labels_disagree"): 3}
    account = reading_account({"records": 100, "records_used": 100, "rows": 100}, gone=gone | {("relabel", "trusted"): 9})
    last = account.lines()[-1]
    assert last == (
        "of 100 rows, 2 are further votes on a text that has its row (2 outvoted), 5 repeats dropped, 15 dropped (doubtful label), "
        "3 held for review (labels disagree); 75 are left"
    )


def test_no_text_calls_a_record_of_two_rows_a_row(tmp_path):
    """113 comparisons, 9 of which cannot be read: 104 records are 208 rows, and no sum of rows and records stands anywhere."""
    rows = [{"prompt": f"question {n}", "chosen": f"good {n * n}", "rejected": f"bad {n * n}"} for n in range(104)]
    rows += [{**rows[0], "prompt": f"odd {n}", "chosen": None} for n in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "pairs",
        "ingest": {"paths": [str(tmp_path / "pairs.jsonl")]},
        "steps": ["validate", {"dedupe": {"near": None}}],
    }
    run = kd.run(recipe, out=tmp_path / "run")
    card, page = ((run.folder / name).read_text() for name in ("README.md", "report.html"))
    visible = html.unescape(re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))
    for text in (card, visible, run_text(run, None)):
        assert re.search(r"113 records(, of which|[ :]+(read: )?)\s*104 became 208 rows", text)
        assert not re.findall(r".{60}\b217\b.{9}|.{60}\b(?:113|104|9) rows\b(?! and records).{20}", text, re.DOTALL)
    assert "208 rows = 0 quarantined + 0 dropped + 0 held for review + 208 kept." in card and "9 records became no row" in card
