"""How far a loop is, in words: only what is known."""

import json
import threading

import pytest

from ktodata import progress, work_done
from ktodata.pipeline.recipe import load_recipe
from ktodata.pipeline.runner import run_plan
from ktodata.progress import show_progress
from ktodata.train.results import training_progress
from ktodata.train.results.training_progress import updates_heard_by
from ktodata.work_done import WorkDone, heard_by, working_on


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(work_done.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("of", "even", "steps", "words"),
    [
        (100, True, [(2, 20)], "20 of 100 texts, 10 a second, 8 s left for these"),
        (100, True, [(2, 20), (10, 80)], "100 of 100 texts, 10 a second"),
        (None, True, [(2, 3000)], "3,000 texts, 1,500 a second"),
        (5, False, [(2, 1)], "1 of 5 texts"),
        (100, True, [(0, 0)], "0 of 100 texts"),
        (10_000, True, [(600, 100)], "100 of 10,000 texts, 0.17 a second, 16.5 h left for these"),
        (10, True, [(1, 12)], "12 of 10 texts, 12 a second"),
    ],
)
def test_words(clock, of, even, steps, words):
    heard = []
    done = WorkDone("texts", of, even=even)
    with heard_by(heard.append):
        for at, count in steps:
            clock[0] = at
            done.add(count)
    assert heard[-1]["text"] == words
    assert heard[-1]["done"] == sum(count for _, count in steps) and heard[-1].get("total") == of
    known = {"16.5 h left for these": 59_400, "8 s left for these": 8}
    assert heard[-1].get("seconds_left", 0) == known.get(words.split(", ")[-1], 0)


def test_a_training_says_how_long_its_updates_take_by_those_after_the_first_reading(monkeypatch):
    """The first update took 50 s, the next two 2 s each: seven more take 14 s. One that goes on at 6 knows nothing of the pace before."""
    now = [50.0]
    monkeypatch.setattr(training_progress.time, "perf_counter", lambda: now[0])
    events = []
    hear = updates_heard_by(events.append)
    for step, at in ((1, 50.0), (3, 54.0), (10, 68.0)):
        now[0] = at
        hear({"step": step, "steps": 10, "loss": 0.5})
        hear({"held_out": {}})
    assert [event["text"] for event in events] == ["update 1 of 10", "update 3 of 10, 14 s left", "update 10 of 10"]
    assert [event.get("seconds_left") for event in events] == [None, 14.0, 0.0]
    updates_heard_by(events.append)({"step": 6, "steps": 10})
    assert events[-1] == {"text": "update 6 of 10", "done": 6, "total": 10, "unit": "updates"}


def test_nobody_hears_what_nobody_listens_to():
    heard = []
    with heard_by(heard.append):
        thread = threading.Thread(target=lambda: WorkDone("texts").add())
        thread.start()
        thread.join()
    WorkDone("texts").add()
    assert heard == []


def test_long_stages_of_a_run_say_how_far_they_are(tmp_path):
    rows = "".join(
        f'{{"prompt": "p {n}", "completion": "{"yes" if n % 2 else "no"} {n}", "label": {str(n % 2 > 0).lower()}}}\n'
        for n in range(80)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    recipe = {
        "name": "far",
        "ingest": {"paths": [str(tmp_path / "rows.jsonl")]},
        "steps": [{"dedupe": {"near": None}}, {"embed": {"cache": False}}, {"label_noise": {"folds": 3, "repeats": 1}}],
    }
    events = []
    run_plan(load_recipe(recipe), tmp_path / "run", until="label_noise", notify=events.append)
    last_words = {event["stage"]: event["text"] for event in events if event["kind"] == "progress"}
    assert last_words.keys() >= {"ingest", "embed", "label_noise"}
    assert last_words["ingest"].startswith("80 records")
    assert " characters" in last_words["embed"]
    counted = [event for event in events if event.get("unit") == "feature sets"]
    assert counted[-1]["done"] == counted[-1]["total"], "the last thing said is that all is done"


def test_what_cannot_be_counted_is_named_and_a_block_of_python_shows_it(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with show_progress("audit"):
        working_on("laying out \x1b[31m[bold]")
    with show_progress("audit", as_json=True):
        WorkDone("rows", 4, even=False).add()
    working_on("nobody hears this")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("audit: laying out ") and "[bold]" in lines[0]
    monkeypatch.setattr(progress, "EVERY_JSON", 0.0)
    assert len(lines) == 1, "of what is counted no more than one a second"
    with show_progress("audit", as_json=True):
        WorkDone("rows", 4, even=False).add()
    event = json.loads(capsys.readouterr().err)
    assert event == {"stage": "audit", "kind": "progress", "text": "1 of 4 rows", "done": 1, "unit": "rows", "total": 4}
