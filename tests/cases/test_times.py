"""Times as warehouses, spreadsheets and mail write them; what cannot be read is a finding, never 1970."""

import json
from datetime import UTC, date, datetime

import pytest

import ktodata as kd
from ktodata.errors import SettingError
from ktodata.formats.times import moment, time_reader

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())


@pytest.mark.parametrize(
    "written",
    [
        *("2026-10-01 12:00:00 UTC", "2026-10-01 12:00:00.000 UTC", "2026-10-01 12:00:00+00", "2026-10-01 12:00:00 +0000 UTC"),
        *("2026-10-01 14:00:00 +02", "2026-10-01T12:00:00.0000000000Z", "2026-10-01 12:00:00 GMT"),
        *("Thu, 01 Oct 2026 14:00:00 +0200", "1 Oct 2026 12:00:00 GMT", "Thu, 01 Oct 2026 08:00:00 EDT"),
        *(SECONDS, SECONDS * 1000, SECONDS * 1_000_000, SECONDS * 1_000_000_000, str(SECONDS * 1_000_000_000)),
        *(float(SECONDS), f"{SECONDS}.0"),
    ],
)
def test_a_time_is_read_as_its_exporter_wrote_it(written):
    assert moment(written) == NOON


def test_fractions_of_any_length_and_nanoseconds_keep_their_microseconds():
    exact = NOON.replace(microsecond=123456)
    assert moment("2026-10-01 12:00:00.123456789 UTC") == exact
    assert moment(SECONDS * 1_000_000_000 + 123_456_789) == exact
    assert moment("2026-10-01T12:00:00.1 UTC") == NOON.replace(microsecond=100_000)


@pytest.mark.parametrize("written", [20250301, "20250301", 20250301.0, 45000, "45000", 45000.5, 0, -5, 1e25, "03/03/2025", True])
def test_what_is_no_count_since_1970_is_no_time(written):
    assert moment(written) is None


def test_a_zone_that_is_not_known_is_no_utc():
    assert moment("Thu, 01 Oct 2026 12:00:00 CEST") is None


@pytest.mark.parametrize(
    ("format", "written", "day"),
    [
        ("%d/%m/%Y", "03/04/2025", date(2025, 4, 3)),
        ("%m/%d/%Y", "03/04/2025", date(2025, 3, 4)),
        ("%Y%m%d", 20250301, date(2025, 3, 1)),
        ("%Y%m%d", 20250301.0, date(2025, 3, 1)),
        ("excel", 45000, date(2023, 3, 15)),
        ("excel", "45000.5", date(2023, 3, 15)),
        ("excel", datetime(2023, 3, 15), date(2023, 3, 15)),
    ],
)
def test_a_format_says_what_a_value_cannot(format, written, day):
    read = time_reader(format)(written)
    assert read is not None
    assert read.date() == day


@pytest.mark.parametrize("format", ["%H:%M", "%Q", "dd/mm/yyyy", ""])
def test_a_format_without_a_date_is_refused(format):
    with pytest.raises(SettingError, match="created_at: format"):
        time_reader(format)


def _file(folder, times):
    place = folder / "thumbs.jsonl"
    rows = [
        {"prompt": f"q {number}", "completion": f"a {number}", "label": number % 2 == 0, "ts": time}
        for number, time in enumerate(times)
    ]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def _finding(result, code):
    return next(finding for finding in result.metrics["findings"] if finding["code"] == code)


def test_many_unreadable_times_are_a_finding_with_an_example_and_the_count(tmp_path):
    result = kd.read(_file(tmp_path, ["03/04/2025", "2025-04-03", "05/04/2025"]), created_at="ts")
    finding = _finding(result, "KD011")
    assert (finding["status"], finding["rows"]) == ("issue", 2)
    assert "03/04/2025" in finding["text"] and "no setting reads both" in finding["text"]


ADVICE = {
    "one format": (["13/04/2025", "03/04/2025"], None, 'created_at: {column: ts, format: "%d/%m/%Y"}.'),
    "names of months": (["Jan. 1, 2026", "Mar. 13, 2026"], None, '{column: ts, format: "%b. %d, %Y"}.'),
    "day or month": (["03/04/2025"] * 3, None, '"%d/%m/%Y"} or created_at: {column: ts, format: "%m/%d/%Y"}. Which comes first'),
    "days of Excel": (["45000", "45001"], None, 'format: "excel"}'),
    "no format is needed": (["2026-01-27"] * 3, "%d/%m/%Y", "They read without a format: created_at: ts."),
    "one of two ways is set": (
        ["2026-01-27", "13/04/2025"],
        "%d/%m/%Y",
        "without a format, the other 1 read as '%d/%m/%Y', which is set",
    ),
    "other than the rest": (
        ["2026-01-27", "Mar 3, 2026"],
        None,
        "They read as '%b %d, %Y', the other 1 read without a format: no setting",
    ),
    "three ways": (
        ["2026-01-27", "Mar 3, 2026", "13/4/2026"],
        None,
        "No one format known here reads them; the other 1 read without",
    ),
    "no time at all": (["soon", "later"], None, "If they are written in one way, say it: created_at: {column: ts, format: ...}."),
}


@pytest.mark.parametrize(("times", "format", "advice"), ADVICE.values(), ids=ADVICE)
def test_a_format_is_advised_only_where_it_reads_what_is_unread_and_loses_nothing(tmp_path, times, format, advice):
    setting = {"column": "ts", "format": format} if format else "ts"
    finding = _finding(kd.read(_file(tmp_path, times), created_at=setting), "KD011")
    assert finding["status"] == "issue" and advice in finding["text"]


def test_few_unreadable_times_are_counted_only(tmp_path):
    result = kd.read(_file(tmp_path, ["2025-04-03"] * 19 + ["soon", ""]), created_at="ts")
    assert (_finding(result, "KD011")["status"], result.metrics["unparseable_times"]) == ("passed", 1)


def test_no_times_are_no_finding(tmp_path):
    assert _finding(kd.read(_file(tmp_path, [None])), "KD011")["status"] == "not_applicable"


def test_a_recipe_says_the_format(tmp_path):
    place = _file(tmp_path, ["03/04/2025"] * 4)
    ingest = {"paths": [str(place)], "created_at": {"column": "ts", "format": "%d/%m/%Y"}}
    run = kd.run({"name": "times", "ingest": ingest, "steps": []}, out=tmp_path / "run")
    assert run.feedback["created_at"].dt.date().unique().to_list() == [date(2025, 4, 3)]


@pytest.mark.parametrize("setting", [{"format": "%d/%m/%Y"}, {"column": "ts", "formt": "%d"}, {"column": "ts", "format": "%d"}])
def test_a_wrong_setting_is_refused_before_anything_is_read(setting, tmp_path):
    with pytest.raises(SettingError, match="created_at"):
        kd.read(tmp_path / "not-there.jsonl", created_at=setting)


def test_the_page_and_the_terminal_show_it(tmp_path):
    from ktodata.pipeline.command_texts import run_text

    place = _file(tmp_path, ["03/04/2025"] * 4)
    run = kd.run({"name": "times", "ingest": {"paths": [str(place)], "created_at": "ts"}}, out=tmp_path / "run")
    assert "KD011" in run_text(run, None)
    assert "KD011" in (run.folder / "report.html").read_text()
    findings = [finding for stage in run.manifest["stages"] for finding in stage["metrics"].get("findings", ())]
    assert "KD011" in [finding["code"] for finding in findings if finding["status"] == "issue"]
