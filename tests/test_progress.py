"""What a run says while it runs: a line for each stage, in a log also how far a long one is, and nothing when asked for quiet."""

import json

import pytest

from ktodata import progress
from ktodata.progress import EVERY, Progress

PLACE = {"number": 2, "of": 3, "stage": "train"}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def say(*events, clock=None, quiet=False, as_json=False):
    with Progress(quiet=quiet, as_json=as_json) as told:
        for at, kind, more in events:
            if clock is not None:
                clock[0] = at
            told(PLACE | {"kind": kind} | more)


def test_a_log_hears_of_a_long_stage_now_and_then(clock, capsys):
    steps = [(at, "progress", {"text": f"step {at} [bold]"}) for at in (1, EVERY - 1, EVERY + 1, EVERY + 2, 2 * EVERY + 2)]
    say((0, "start", {}), *steps, (2 * EVERY + 3, "done", {"seconds": 63.04}), clock=clock)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"[2/3] train: step {EVERY + 1} [bold]", f"[2/3] train: step {2 * EVERY + 2} [bold]", "[2/3] train: 63.0 s"]


def test_short_stages_are_a_line_each(capsys):
    say((0, "start", {}), (1, "done", {"seconds": 0.5}), (1, "cached", {}))
    assert capsys.readouterr().err.splitlines() == ["[2/3] train: 0.5 s", "[2/3] train: unchanged"]


def test_notes_stay_and_what_is_said_of_a_stage_stands_beside_its_seconds(capsys):
    note = "about 5 minutes, " * 8  # no terminal's width cuts a line in two
    say((0, "note", {"text": note}), (1, "start", {"text": "to go"}), (2, "done", {"seconds": 1.0, "text": "4 to go"}))
    assert capsys.readouterr().err.splitlines() == [f"train: {note}", "[2/3] train: 1.0 s; 4 to go"]


def test_quiet_is_quiet(clock, capsys):
    say(
        (0, "start", {}),
        (EVERY * 2, "progress", {"text": "step"}),
        (EVERY * 3, "done", {"seconds": 1.0}),
        clock=clock,
        quiet=True,
    )
    assert capsys.readouterr().err == ""


def test_a_script_reads_each_event_as_a_line_of_json(clock, capsys):
    steps = [(at, "progress", {"text": f"step {at} \x1b[31m\n", "done": at}) for at in (0.1, 0.2, 1.5, 1.6)]
    say(
        (0, "start", {"why": "it has not run"}),
        *steps,
        (1.7, "progress", {"text": "sorting"}),
        (2, "done", {"seconds": 2.0}),
        clock=clock,
        as_json=True,
    )
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == "" and "\x1b" not in err
    assert [line["kind"] for line in lines] == ["start", "progress", "progress", "done"]
    assert lines[1] == {**PLACE, "kind": "progress", "text": "step 1.5 \x1b[31m\n", "done": 1.5}, "of counts one a second"
    assert lines[2]["text"] == "sorting", "what is done now is never left out"


def test_quiet_is_quiet_for_scripts_too(capsys):
    say((0, "start", {}), as_json=True, quiet=True)
    assert capsys.readouterr().err == ""
