"""The demo: what was put in is what its counts say, both columns are computed, and what is not detected is said to be not."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest

from ktodata.demo.demo_audit import JUDGED, DemoRow, audit_sample
from ktodata.demo.demo_page import demo_text
from ktodata.demo.troubled_sample import CARELESS, LEAKED, LIKES_LENGTH, LONG, RATERS, troubled_sample


@pytest.fixture(scope="module")
def sample():
    return troubled_sample(0)


@pytest.fixture(scope="module")
def demo(sample, tmp_path_factory):
    return audit_sample(sample, sample.write(tmp_path_factory.mktemp("demo")))


def rows_of(demo):
    return {row.trouble: row for row in demo.rows}


def test_the_same_seed_puts_in_the_same_and_another_seed_other_trouble(sample):
    assert troubled_sample(0) == sample
    assert troubled_sample(1).records != sample.records


def test_what_is_put_in_is_there(sample):
    records = {record["id"]: record for record in sample.records}
    assert len(records) == len(sample.records) == len(sample.truth)
    assert not {"truth", "family"} & set(sample.records[0])  # the audit gets no truth
    for copy, original in sample.repeats.items():
        same = [
            records[copy][name].upper().split() == records[original][name].upper().split() for name in ("prompt", "completion")
        ]
        assert all(same) and records[copy]["thumb"] == records[original]["thumb"]
    parts = {part: {r["prompt"] for r in sample.records if r["part"] == part} for part in ("train", "test")}
    assert len(sample.leaked) == LEAKED and sample.leaked <= parts["test"]
    assert not parts["train"] & parts["test"]  # none is equal: each was typed anew
    assert not sample.topic_prompts & (parts["train"] | parts["test"])
    assert sample.topic_prompts < set(sample.reference)


def test_raters_have_the_habits_that_they_are_said_to_have(sample):
    wrong = Counter(r["user"] for r in sample.records if (r["thumb"] == "up") != sample.truth[r["id"]])
    votes = Counter(r["user"] for r in sample.records)
    rates = {rater.name: wrong[rater.name] / votes[rater.name] for rater in RATERS}
    careful = [rate for name, rate in rates.items() if name not in (CARELESS.name, LIKES_LENGTH.name)]
    assert max(careful) < 0.12 and min(rates[CARELESS.name], rates[LIKES_LENGTH.name]) > 0.25
    long = [(len(r["completion"]) >= LONG) == (r["thumb"] == "up") for r in sample.records if r["user"] == LIKES_LENGTH.name]
    assert sum(long) / len(long) > LIKES_LENGTH.length


def test_every_trouble_has_its_row_and_counts_stay_within_what_was_put_in(demo):
    rows = demo.rows
    assert len(rows) == 7 and all(0 <= row.count <= row.of for row in rows)
    named = rows_of(demo)
    assert named["repeats"].of == 45 and named["repeats"].count >= 40
    assert named["leak"].of == LEAKED and named["leak"].count >= 9
    assert named["missing topic"].of == len(demo.sample.topic_prompts)


def wrong_ids(rows, sample):
    """Source ids of the rows whose label is not the truth."""
    return {record for record, label in rows.select("source_id", "label").iter_rows() if label != sample.truth[record]}


def test_wrong_labels_are_counted_by_the_truth(demo):
    learnt = demo.audit.table.filter(pl.Series(demo.audit.trained))
    wrong, row = wrong_ids(learnt, demo.sample), rows_of(demo)["wrong labels, no row judged"]
    assert (row.count, row.of) == (0, len(wrong)) and row.of > 10
    assert "how many are wrong is not known; none is turned or dropped" in row.detected


def test_what_reviews_buy_is_counted_row_by_row(demo):
    """What is left of the wrong labels, from the decisions and the truth, and the same were nothing done but the verdicts."""
    audit, gain, row = demo.reviewed, demo.gain, rows_of(demo)[f"wrong labels, {JUDGED} rows judged"]
    learnt = audit.table.filter(pl.Series(audit.trained))
    decisions = {action: set(part["row_id"]) for (action,), part in audit.result.decisions.group_by("action")}
    dropped, turned = decisions.get("drop", set()), decisions.get("relabel", set())
    stay = learnt.filter(~pl.col("row_id").is_in(list(dropped | decisions.get("review", set()))))
    turned_ids = set(stay.filter(pl.col("row_id").is_in(list(turned)))["source_id"])
    assert (gain.curated.wrong, gain.curated.rows) == (len(wrong_ids(stay, demo.sample) ^ turned_ids), stay.height)
    judged = wrong_ids(learnt.filter(pl.col("trusted_label").is_not_null()), demo.sample)
    assert gain.judged == JUDGED and gain.given.wrong - gain.verdicts_alone.wrong == len(judged) > 0
    assert gain.given.rows == gain.verdicts_alone.rows == learnt.height and gain.given.wrong == row.of
    rate = audit.metrics["trusted"]["error_rate"]
    assert f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f}" in row.detected


def test_what_an_audit_does_not_detect_is_listed(demo, tmp_path):
    """With an audit that sees nothing, every count is none of all, and the text says so."""
    stages = dict(demo.stages)
    stages["dedupe"] = replace(stages["dedupe"], decisions=stages["dedupe"].decisions.clear())
    stages["split"] = replace(stages["split"], tables={"leaks": stages["split"].tables["leaks"].clear()})
    tables = stages["coverage"].tables
    stages["coverage"] = replace(
        stages["coverage"], tables={**tables, "reference": tables["reference"].with_columns(covered=pl.lit(value=True))}
    )
    blind = replace(demo, stages=stages)
    for trouble in ("repeats", "leak", "missing topic"):
        row: DemoRow = rows_of(blind)[trouble]
        assert row.count == 0
        assert f"{trouble}: {row.of} of {row.of}" in " ".join(demo_text(blind, tmp_path, seed=0).split())


def test_the_command_needs_no_torch_and_writes_a_page_that_loads_nothing(tmp_path):
    code = (
        "import sys; from ktodata.cli import main\ntry: main()\nexcept SystemExit: pass\nfinally: print('torch' in sys.modules)"
    )
    words = ["demo", "--out", str(tmp_path), "--seed", "1", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    result, torch_was_loaded = done.stdout.rsplit("\n", 2)[:2]
    assert torch_was_loaded == "False"
    page = (tmp_path / "demo.html").read_text()
    audited = json.loads(result)
    assert all(row["trouble"] in page for row in audited["rows"])
    assert f"{audited['gain']['curated']['wrong']} of {audited['gain']['curated']['rows']}" in page
    assert "<script" not in page and "http" not in page.split("</head>")[1]
    assert {path.name for path in tmp_path.iterdir()} == {"demo.html", "audit.html", "feedback.jsonl", "truth.jsonl"}
