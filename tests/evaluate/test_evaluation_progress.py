"""How far an evaluation is: rows done of rows, a rate, and time left only where it is known."""

import numpy as np
import pytest

from ktodata.evaluate import evaluation_progress
from ktodata.evaluate.evaluation_progress import RowsScored, progress_words


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(evaluation_progress.time, "perf_counter", lambda: now[0])
    return now


def test_time_left_is_known_from_the_second_pass_on_and_goes_by_tokens(clock):
    """100 tokens in the first pass, 50 in the second: 10 s for 50, so the 50 that are left take 10 s; by rows it would be 24."""
    events = []
    scored = RowsScored("base", np.array([50, 50, 50, 10, 10, 10, 10, 10]), events.append)
    for now, rows in ((30, [0, 1]), (40, [2]), (45, [2, 3]), (50, [4, 5, 6, 7])):
        clock[0] = now
        scored.add(rows)
    assert [event["rows"] for event in events] == [0, 2, 3, 4, 8]
    assert {event["of"] for event in events} == {8}
    assert ["seconds_left" in event for event in events] == [False, False, True, True, True]
    assert events[2]["seconds_left"] == pytest.approx(10)
    assert events[3]["seconds_left"] == pytest.approx(15 / 60 * 40)  # a row that was scored again is one row
    assert events[2]["rows_per_second"] == pytest.approx(3 / 40)
    assert [progress_words(event) for event in events[:3]] == [
        "base model: 0 of 8 rows",
        "base model: 2 of 8 rows, 0.0667 rows/s",
        "base model: 3 of 8 rows, 0.075 rows/s, 10 s left for these",
    ]
    assert progress_words(events[-1]) == "base model: 8 of 8 rows, 0.16 rows/s"


def test_long_times_are_in_minutes_and_hours():
    event = {"model": "trained", "rows": 1, "of": 20_000, "rows_per_second": 2.0}
    shown = [progress_words(event | {"seconds_left": left}) for left in (0.2, 89, 600, 9000)]
    assert [text.split(", ")[-1] for text in shown] == [f"{words} left for these" for words in ("1 s", "89 s", "10 min", "2.5 h")]
    assert shown[0].startswith("trained model: 1 of 20,000 rows, 2 rows/s")
