"""What training saw of single rows, on the page: which argue most against their label, and were they ever learnt?"""

import folders
import polars as pl
import pytest

from ktodata.report import build_report
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.telemetry_section import MAX_WORST, read_telemetry_section


@pytest.fixture
def trained(tmp_path):
    """A run that trained: of 12 rows 9 are desirable, each with four looks."""
    return folders.write_run(tmp_path / "run", stages=("train",))


def look(row_id, step, log_ratio, *, label=True, epoch=0):
    line = {"row_id": row_id, "part": "train", "epoch": epoch, "step": step, "label": label, "log_ratio": float(log_ratio)}
    return line | {"z0": 0.0, "loss": 0.5, "gradient_weight": 0.1, "completion_tokens": 3}


def write(folder, *looks):
    pl.DataFrame(looks).write_parquet(folder / "model/telemetry.parquet")
    folders.renoted(folder / "model/training.json")


def side(folder, label):
    return next(margins for margins in read_telemetry_section(RunFiles(folder)).sides if margins.label == label)


def test_each_label_has_its_own_numbers_with_their_intervals(trained):
    section = read_telemetry_section(RunFiles(trained))
    assert (section.rows, section.n_seen_once, section.n_unmeasured) == (12, 0, 0)
    desirable, undesirable = section.sides
    assert desirable.rows == 9 and desirable.median == ("-0.0250", "-0.2750 to 0.4750")
    assert desirable.against == desirable.never == ("55.6\u2009%", "21.2 to 86.3\u2009%")
    assert desirable.forgotten == ("0.0\u2009%", "0.0 to 33.6\u2009%")
    assert undesirable.median == ("+0.5250", "too few rows for an interval")
    assert undesirable.against == ("33.3\u2009%", "0.8 to 90.6\u2009%")


def test_rows_that_argue_most_come_first_and_only_those_that_argue_at_all(trained):
    worst = side(trained, "desirable").worst
    assert [row.row_id for row in worst] == ["11", "6", "12", "2", "7"]  # of -0.275 twice and -0.025 three times
    assert worst[0].notes == ("mean margin -0.275 over 4 looks (sd 0.142)", "at the last -0.440", "never learnt")
    page = build_report(trained)
    assert "All 12 rows" in page
    assert "the 5 with the lowest mean margin" in page and "the 1 with the lowest mean margin" in page
    assert "<img src=x" not in page.partition('id="training"')[2]


def test_at_most_so_many_rows_of_a_label_are_shown(trained):
    write(trained, *(look(str(number), step, -number) for number in range(1, 31) for step in (1, 2)))
    worst = side(trained, "desirable").worst
    assert [row.row_id for row in worst] == [str(number) for number in range(30, 30 - MAX_WORST, -1)]
    assert len(read_telemetry_section(RunFiles(trained)).sides) == 1  # no undesirable row, so no line for them


def test_when_a_row_was_first_learnt_and_how_often_forgotten(trained):
    ratios = (-9, 1, -9, 1, -9)
    write(trained, *(look("12", 1 + number, ratio, epoch=number) for number, ratio in enumerate(ratios)), look("13", 5, 1))
    section = read_telemetry_section(RunFiles(trained))
    row = side(trained, "desirable")
    assert row.worst[0].notes[2:] == ("first learnt in epoch 2", "forgotten 2 times")
    assert row.forgotten == ("100.0\u2009%", "2.5 to 100.0\u2009%")  # of rows with several looks
    assert (section.rows, section.n_seen_once) == (2, 1)
    assert "Of 2 rows 1 was" in build_report(trained)


def test_one_look_a_row_tells_little_and_the_page_says_so(trained):
    write(trained, look("12", 1, -2), look("13", 3, 2), look("14", 0, -1e-6), look("15", 2, 3, label=False))
    section = read_telemetry_section(RunFiles(trained))
    assert (section.rows, section.n_seen_once, section.n_unmeasured) == (3, 3, 1)
    row = side(trained, "desirable")
    assert row.worst[0].notes == ("margin -0.200, looked at once, after 1 update",) and len(row.worst) == 1
    assert row.never == row.forgotten == ("–", "one look a row")
    page = build_report(trained)
    assert "Each of the 3 rows was looked at once" in page and "1 row seen before the first update" in page


def test_a_row_that_was_trained_on_under_the_other_label_says_so(trained):
    write(trained, look("12", 1, 2, label=False))
    assert side(trained, "undesirable").worst[0].notes[0] == "trained as undesirable"


def test_looks_that_are_no_numbers_are_left_out(trained):
    write(trained, look("12", 1, float("nan")), look("13", 1, -1))
    assert [row.row_id for row in side(trained, "desirable").worst] == ["13"]


@pytest.mark.parametrize("lacks", ["beta", "columns", "file", "steps"])
def test_what_is_not_there_is_said_and_breaks_nothing(trained, lacks):
    telemetry = trained / "model/telemetry.parquet"
    if lacks == "beta":
        folders.noted(trained / "model/training.json", {"steps": 6})
    elif lacks == "columns":
        pl.read_parquet(telemetry).drop("epoch").write_parquet(telemetry)
        folders.renoted(trained / "model/training.json")
    elif lacks == "steps":
        write(trained, look("12", 0, 1))
    else:
        telemetry.unlink()
    assert read_telemetry_section(RunFiles(trained)) is None
    assert "no telemetry of single rows" in build_report(trained)


def test_margins_are_by_the_beta_of_the_training(trained):
    folders.noted(trained / "model/training.json", {"settings": {"beta": 0.2}})
    assert side(trained, "desirable").worst[0].notes[0].startswith("mean margin -0.550 over 4 looks")


def test_without_text_the_numbers_stay_and_no_row_is_shown(trained):
    page = build_report(trained, text=False)
    text = page.partition("Rows that argue against their label</summary>")[2].partition("</section>")[0]
    assert "21.2 to 86.3" in text and "Rows are left out of this version." in text
    assert 'class="row"' not in text and "lowest mean margin" not in text
