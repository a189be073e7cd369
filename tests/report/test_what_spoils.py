"""What spoils a set is seen where it is: in repeats, in texts that cannot be used, in the balance of what can be trained on."""

import json
from dataclasses import replace

import folders
import pytest

import ktodata as kd
from ktodata.report.headline import headline_text
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.coverage_section import read_coverage
from ktodata.report.sections.flow_section import record_account

LABEL = {"column": "thumb", "up": True, "down": False}


def record(n, thumb, **more):
    return {"prompt": f"Why is number {n} odd?", "completion": f"So is {n * 7} of {n} parts.", "thumb": thumb, **more}


@pytest.fixture
def ran(tmp_path):
    """Runs the records of a test as far as dedupe; gives the five lines by number, and the folder."""

    def run(records, *steps, **reading):
        (tmp_path / "f.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
        ingest = {"paths": [str(tmp_path / "f.jsonl")], "label": LABEL, **reading}
        kd.run({"name": "x", "ingest": ingest, "steps": ["validate", {"dedupe": {"near": None}}, *steps]}, out=tmp_path / "run")
        return headline_text(tmp_path / "run"), tmp_path / "run"

    return run


def test_repeats_are_named_and_the_balance_is_that_of_what_stays(ran):
    """12 up, 8 down; each of four ups stands ten times more: 52 of 60 are up as given, 12 of 20 as they stay."""
    records = [record(n, "up" if n < 12 else "down") for n in range(20)]
    lines, _ = ran([*records, *records[:4] * 10])
    assert "Repeats. 40 of 60 rows repeat another." in lines[1] and "mbalance" not in lines[1]


def test_a_lopsided_set_is_so_whether_or_not_rebalance_drops_rows(ran):
    records = [record(n, "up" if n < 40 else "down") for n in range(50)]
    lines, folder = ran(records, {"rebalance": {"by": "drop"}})
    assert RunFiles(folder).fates.filter(stage="rebalance").height
    assert "Imbalance. 80\u2009% of the rows that can be trained on are desirable." in lines[1]


def test_texts_that_cannot_be_used_are_named(ran):
    blank = [record(n, "up", **{field: " "}) for n, field in enumerate(["prompt"] * 3 + ["completion"] * 2)]
    lines, _ = ran([*(record(n, "up" if n % 2 else "down") for n in range(20)), *blank])
    assert "Unusable texts. The texts of 5 of 25 rows cannot be used (empty prompt 3, empty completion 2)." in lines[1]


def test_what_was_looked_at_is_named_where_nothing_came_up(ran):
    lines, _ = ran([record(n, "up" if n % 2 else "down") for n in range(20)])
    assert "Nothing that was looked for. Looked at: balance, texts, repeats." in lines[1]


def test_votes_of_three_raters_are_no_loss(ran):
    """20 texts, three named raters each, the third against the others on five: 20 rows stay, and 40 votes count on them."""
    records = [
        record(n, "down" if (n % 2 == 0) != (rater == "cy" and n < 5) else "up", rater=rater)
        for n in range(20)
        for rater in ("ann", "ben", "cy")
    ]
    lines, folder = ran([*records, records[-1]], rater="rater")
    assert "Repeats" not in lines[1]
    assert (
        "What was done? 95\u2009% kept. Of 61 records, 40 are further votes on a text that has its row (35 agree, 5 outvoted)"
        in lines[2]
    )
    assert "1 dropped and 0 held for review; 20 are kept" in lines[2]
    account = record_account(RunFiles(folder))
    assert (account.repeats, account.copies, account.further_votes) == (36, 1, 40)
    assert (
        "40 are further votes on a text that has its row (35 agree, 5 outvoted), 1 repeat dropped; 20 are left"
        in account.lines()[-1]
    )


@pytest.mark.parametrize("status", ["passed", "issue"])
def test_reference_prompts_that_chance_leaves_uncovered_are_no_trouble(tmp_path, status):
    """As many are uncovered as a threshold leaves out: they stand in the table, and KD084 passes."""
    section = read_coverage(RunFiles(folders.write_run(tmp_path / "small")))
    finding = {"code": "KD084", "status": status, "text": "a few"}
    assert section.holes and replace(section, facts={"findings": [finding]}).lacks == (status == "issue")
