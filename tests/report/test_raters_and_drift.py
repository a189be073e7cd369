"""Who judged how, on the page: raters, rows on which people differ, and groups or dates that judge differently."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import folders
import polars as pl
import pytest

from ktodata.report import build_report
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.contested_section import read_contested
from ktodata.report.sections.drift_section import read_drift
from ktodata.report.sections.over_time import Change, over_time, panel
from ktodata.report.sections.raters_section import MAX_RATERS_SHOWN, read_raters

STAGES = ("dedupe", "split", "label_noise")


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """A run whose rows have dates. Not to be changed."""
    return folders.write_run(tmp_path_factory.mktemp("dated") / "run", stages=STAGES, dated=True)


@pytest.fixture
def own(tmp_path):
    """A run of the test's own."""
    return folders.write_run(tmp_path / "run", stages=STAGES)


def part(page, start, end):
    """What stands between two summaries."""
    return re.search(rf"<summary>{start}</summary>(.*?)<summary>{end}", page, re.DOTALL)[1]


def table(folder, name):
    return folder / f"stages/label_noise/{name}.parquet"


def change(file, **columns):
    pl.read_parquet(file).with_columns(**columns).write_parquet(file)


def test_each_rater_has_votes_agreement_and_errors_with_intervals(dated):
    lines = {line.name: line for line in read_raters(RunFiles(dated)).lines}
    rater = lines["rater 2"]
    assert rater.votes == 27 and rater.desirable[0] == "66.7\u2009%"
    assert rater.agreement == ("66.7\u2009% of 18", "41.0 to 86.7\u2009%")
    assert lines["rater 0"].agreement[0] == "100.0\u2009% of 12"  # where the other two differ they have no majority
    assert rater.up_if_good == ("20.0\u2009%", "10.0 to 40.0\u2009%")
    assert rater.up_if_bad == ("80.0\u2009%", "60.0 to 90.0\u2009%")  # what specificity leaves, its ends the other way round
    assert "up and down may be swapped" in rater.remarks
    assert "a vote says as much as 0.55 of one" in lines["rater 1"].remarks and not lines["rater 0"].remarks
    hostile = next(line for name, line in lines.items() if name.startswith("<script>"))
    assert hostile.agreement == ("–", "no row is shared") and hostile.up_if_good[0] == "80.0\u2009%"


def test_the_table_of_raters_is_on_the_page_and_names_are_escaped(dated):
    text = part(build_report(dated), "Who gave the labels", "Rows on which people differ")
    assert "66.7\u2009% of 18" in text and "alpha: 0.61 (0.400 to 0.800)" in text
    assert "&lt;script&gt;window.pwned" in text and "<script>" not in text
    assert "⟨U+202E⟩" in text and "\u202e" not in text


def test_at_most_so_many_raters_are_shown_and_it_says_of_how_many(own):
    dedupe = own / "stages/dedupe/columns.parquet"
    votes = pl.read_parquet(dedupe)["pooled_votes"]
    many = [cast and [{**cast[0], "rater": f"nobody {number}"}] for number, cast in enumerate(votes.to_list())]
    change(dedupe, pooled_votes=pl.Series(many, dtype=votes.dtype))
    raters = read_raters(RunFiles(own))
    assert len(raters.lines) == MAX_RATERS_SHOWN and raters.raters == 55
    assert "with most votes of 55" in build_report(own)


def test_votes_on_a_text_with_both_labels_count_once(own):
    """dedupe keeps a row of each label of such a text, and gives both of them everybody's votes."""
    ingest, dedupe = own / "stages/ingest/columns.parquet", own / "stages/dedupe/columns.parquet"
    second, first = (pl.col("row_id") == name for name in ("46", "45"))
    change(
        ingest,
        **{text: pl.when(second).then(pl.col(text).filter(first).first()).otherwise(text) for text in ("prompt", "completion")},
    )
    votes = pl.col("pooled_votes")
    change(dedupe, pooled_votes=pl.when(second).then(votes.filter(first).first()).otherwise(votes))
    rater = {line.name: line for line in read_raters(RunFiles(own)).lines}["rater 2"]
    assert rater.votes == 26 and rater.agreement[0] == "70.6\u2009% of 17"


@pytest.mark.parametrize("text", [True, False])
def test_votes_that_nobody_signed_are_said_to_be_so(own, text):
    dedupe = own / "stages/dedupe/columns.parquet"
    votes = pl.read_parquet(dedupe)["pooled_votes"]
    nobody = [cast and [{**vote, "rater": None} for vote in cast] for cast in votes.to_list()]
    change(dedupe, pooled_votes=pl.Series(nobody, dtype=votes.dtype))
    assert "No rater is named" in build_report(own, text=text)


def test_without_dedupe_each_row_has_its_own_votes(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("label_noise",))
    lines = {line.name: line for line in read_raters(RunFiles(folder)).lines}
    assert lines["rater 0"].votes == 17 and lines["rater 0"].agreement == ("–", "no row is shared")


def test_votes_that_say_too_little_of_raters_are_said_to_do_so(own):
    errors = table(own, "confusions")
    pl.read_parquet(errors).clear().write_parquet(errors)
    page = build_report(own)
    assert "share too few rows: 18 rows" in page and "10 are needed" in page
    errors.unlink()
    assert "no estimate of the raters&#39; errors" in build_report(own)


def test_contested_rows_are_counted_and_shown_with_their_votes(dated):
    contested = read_contested(RunFiles(dated))
    assert (contested.share.hits, contested.share.total) == (2, 18)
    first = contested.examples[0]
    assert first.row_id == "44"  # the likelier one stands first
    votes = ("2 of 3 votes say desirable", "rater 0: desirable", "rater 1: desirable", "rater 2: undesirable")
    assert first.notes == ("chance that people differ on it 91\u2009%", *votes)
    text = part(build_report(dated), "Rows on which people differ", "Whether the same content is judged differently")
    assert "2 of 18 training texts" in text and "no label of theirs is wrong" in text


def test_of_many_votes_a_few_are_named_and_the_others_counted(own):
    dedupe = own / "stages/dedupe/columns.parquet"
    votes = pl.read_parquet(dedupe)["pooled_votes"]
    many = votes.to_list()
    many[42] = [{"rater": folders.HOSTILE[3] if n else None, "label": n % 2 == 0, "created_at": None} for n in range(9)]
    change(dedupe, pooled_votes=pl.Series(many, dtype=votes.dtype))
    notes = read_contested(RunFiles(own)).examples[1].notes
    assert notes[1:3] == ("5 of 9 votes say desirable", "somebody: desirable") and notes[-1] == "and 3 votes more"
    assert len(notes) == 9 and "\u202e" not in "".join(notes)


def test_groups_that_judge_differently_stand_with_interval_and_date(dated):
    section = read_drift(RunFiles(dated))
    assert (section.tested, section.tests, section.groups, section.n_differing) == (
        "all rows over time, 1 source, 2 raters",
        14,
        3,
        2,
    )
    over, source, rater = section.lines
    assert (over.name, over.column, over.kind, over.differs) == ("all rows", "over time", "changed at a date", True)
    assert over.since == ("2025-03-31", "2025-03-28 to 2025-03-31") and over.effect == ("-21.0", "-31.0 to -11.0")
    assert source.effect == ("+34.0", "+20.0 to +45.0") and source.since is None and source.kind == "another threshold"
    assert (rater.kind, rater.differs, rater.p_adjusted) == ("nothing", False, "0.745")
    page = build_report(dated)
    text = part(page, "Whether the same content is judged differently", "Rows doubted most")
    assert "2 groups of 3 differ by more than chance" in unescape(text)
    assert "<strong>another threshold</strong>" in text and "since 2025-03-31" in text
    assert "&lt;/script&gt;&lt;/style&gt;" in text and "<img" not in text


def test_two_pairs_of_rows_at_most_stand_for_each_finding(dated):
    pairs = read_drift(RunFiles(dated)).pairs
    assert [(pair.row.row_id, pair.other.row_id) for pair in pairs] == [("41", "14"), ("45", "15"), ("1", "2")]
    assert (pairs[0].name, pairs[0].other_name) == ("after the change", "before it")
    assert pairs[2].name.startswith("source </script>") and pairs[2].other_name == "outside the group"
    assert pairs[0].row.notes == ("by its content desirable with 72\u2009%",)
    assert pairs[0].other.notes == ("by its content desirable with 74\u2009%", "similarity 0.88")


def test_the_share_over_time_is_drawn_with_its_interval_and_the_date_marked(dated):
    drawn = read_drift(RunFiles(dated)).picture
    assert "all rows: 2025-03-10 75 % (50.9 to 91.3 %)" in drawn and "changed since 2025-03-31" in drawn
    assert drawn.count("since 2025-03-31") == 2  # in words, and as a mark


def test_rows_without_dates_and_findings_of_none_are_said_plainly(own):
    drift_section = read_drift(RunFiles(own))
    assert drift_section.picture is None and drift_section.lines
    change(table(own, "drift"), significant=pl.lit(False), since=pl.lit(None, pl.Datetime("us", "UTC")))
    page = build_report(own)
    assert "None of 3 groups" in page and "too few rows carry a date" in page
    text = part(page, "Whether the same content is judged differently", "Rows doubted most")
    assert "since, 95 % interval" not in text and "A dashed line" not in text and "For example" not in text
    drift = table(own, "drift")
    pl.read_parquet(drift).clear().write_parquet(drift)
    assert "Nothing could be compared" in build_report(own)


def days(labels, *, each=1):
    start = datetime(2025, 1, 1, tzinfo=UTC)
    return pl.DataFrame({"created_at": [start + timedelta(days=n // each) for n in range(len(labels))], "label": labels})


def test_periods_hold_as_many_rows_each_and_rows_of_one_time_stay_together():
    made = panel("x", days([True] * 40 + [False] * 20))
    assert [(share.hits, share.total) for share in made.shares] == [(20, 20), (20, 20), (0, 20)]
    assert len(panel("x", days([True] * 6000)).shares) == 12
    together = panel("x", days([True] * 90, each=45))
    assert [share.total for share in together.shares] == [45, 45]
    assert panel("x", days([True] * 39)) is None
    assert panel("x", days([True] * 80, each=80)) is None
    unknown = days([True] * 40 + [False] * 20).with_columns(created_at=pl.when("label").then("created_at"))
    assert sum(share.total for share in panel("x", unknown).shares) == 40


def test_a_group_that_changed_has_a_picture_of_its_own_and_its_name_is_no_markup():
    at = datetime(2025, 2, 1, tzinfo=UTC)
    panels = [panel("all rows", days([True] * 60)), panel(folders.HOSTILE[0], days([True] * 60), Change(at, at, at))]
    drawn = over_time("t", "Over time", panels)
    assert "<script" not in drawn and "&lt;script&gt;" in drawn
    assert drawn.count("since 2025-02-01") == 2
    assert drawn == over_time("t", "Over time", panels)


@pytest.mark.parametrize("gone", ["raters", "contested", "drift", "drift_examples"])
def test_a_table_that_is_not_there_is_said_and_breaks_nothing(own, gone):
    table(own, gone).unlink()
    sentences = {
        "raters": "no table of raters",
        "contested": "Contested rows are not known",
        "drift": "no table of drift",
        "drift_examples": "no rows to show",
    }
    page = build_report(own)
    assert sentences[gone] in page
    assert all(other not in page for name, other in sentences.items() if name != gone)
