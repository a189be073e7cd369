"""The desk as a widget, from Python: what a message does, what the page then holds, and what outlives the kernel."""

import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from review_runs import HOSTILE

import ktodata as kd
from ktodata.errors import MissingExtraError, RunError
from ktodata.formats.verdicts.verdict_store import read_current_verdicts
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run
from ktodata.visible_text import clean

pytest.importorskip("anywidget", reason="no anywidget: pip install 'ktodata[notebook]'")
from markupsafe import escape
from widget_pages import data_of, say


@pytest.fixture
def widget(run):
    opened = kd.notebook.review_widget(run, reviewer="ann", blind=False, minutes=20)
    yield opened
    opened.close()


def judge(widget, verdict="keep", **more):
    """Send a verdict on the row that is shown; returns its row_id."""
    row = data_of(widget)
    body = {
        "action": "verdict",
        "row_id": row["row-id"],
        "current_id": int(row["current-id"]),
        "detector": row["detector"],
        "filters": row["filters"],
        "verdict": verdict,
        "note": "",
        "seconds": 3.0,
    }
    say(widget, **(body | more))
    return row["row-id"]


# --- acts --------------------------------------------------------------------------------------------------------------


def test_a_verdict_is_on_disk_before_the_next_row_is_shown(run, widget):
    on_disk = []
    widget.observe(lambda change: on_disk.append(read_current_verdicts(widget.path).select("row_id", "verdict").rows()), "page")
    first = judge(widget, "flip", note=" checked twice ")
    assert on_disk == [[(first, "flip")]]
    assert data_of(widget)["row-id"] != first and data_of(widget)["decided"] == "1"
    label = dict(run.feedback.select("row_id", "label").iter_rows())[first]
    last = widget.verdicts.row(0, named=True)
    assert (last["row_id"], last["verdict"], last["trusted_label"], last["label"]) == (first, "flip", not label, label)
    assert (last["note"], last["reviewer"], last["seconds"]) == ("checked twice", "ann", 3.0)
    assert widget.path == run.folder / "reviews" / "reviews.sqlite"


def test_rows_come_as_at_the_web_desk_and_undo_brings_the_last_one_back(widget):
    expected = [widget.session.rows.row_ids[int(place)] for place in widget.session.queue.order[:5]]
    assert [judge(widget, verdict) for verdict in ("keep", "flip", "drop", "contested", "keep")] == expected
    say(widget, action="undo", undo_token=data_of(widget)["undo-token"], detector=widget.session.detector, filters="")
    assert data_of(widget)["row-id"] == expected[-1] and widget.verdicts.height == 4
    say(widget, action="skip", row_id=expected[-1], detector=widget.session.detector, filters="")
    assert data_of(widget)["row-id"] not in expected and "1 skipped" in widget.page["html"]
    say(widget, action="unskip", detector=widget.session.detector, filters="")
    assert data_of(widget)["row-id"] == expected[-1]


def test_an_old_view_is_refused_and_the_page_stays_as_it_is(widget):
    old = data_of(widget)
    judge(widget)
    now = widget.page["html"]
    judge(widget, **{"row_id": old["row-id"], "current_id": 0, "verdict": "flip"})
    assert "decided meanwhile" in widget.page["problem"] and widget.page["html"] == now
    assert widget.verdicts["verdict"].to_list() == ["keep"]
    judge(widget, detector="another")
    assert "made anew" in widget.page["problem"]
    judge(widget)
    assert widget.page["problem"] == "" and widget.verdicts.height == 2


@pytest.mark.parametrize(
    "message",
    [
        {"action": "format"},
        {"action": ["verdict"], "filters": ""},
        {"action": "verdict", "filters": ""},
        {"action": "verdict", "filters": 3},
        {"go": "/etc/passwd"},
        {"go": "http://[", "x": 1},
        {"go": "/text?side=label&id=1"},
        {"go": "/row?id=nobody"},
        {"go": None},
        {},
    ],
)
def test_what_the_page_never_asks_is_refused_in_words(widget, message):
    before = dict(widget.page)
    say(widget, **message)
    assert widget.page["problem"] and widget.page["html"] == before["html"] and widget.page["answer"] == before["answer"] + 1
    assert widget.verdicts.is_empty()


@pytest.mark.parametrize("more", [{"verdict": "perhaps"}, {"current_id": True}, {"seconds": float("nan")}, {"note": "x" * 4001}])
def test_a_verdict_is_checked_as_on_the_web(widget, more):
    judge(widget, **more)
    assert widget.page["problem"] and widget.verdicts.is_empty()


def test_filters_progress_and_a_row_by_name(widget):
    say(widget, go="/?rater=user+1")
    assert data_of(widget)["filters"] == "?rater=user+1" and "under these filters" in widget.page["html"]
    rater = dict(widget.session.run.feedback.select("row_id", "rater").iter_rows())
    assert {rater[judge(widget)] for _ in range(3)} == {"user 1"}
    assert data_of(widget)["filters"] == "?rater=user+1"  # they stay
    judged = widget.verdicts["row_id"][0]
    say(widget, go=f"/row?id={judged}")
    assert data_of(widget)["row-id"] == judged and "You said <strong>keep</strong>" in widget.page["html"]
    say(widget, go="/progress")
    assert (
        "What more reviews would buy" in widget.page["html"]
        and '<main id="main" tabindex="-1" class="progress">' in widget.page["html"]
    )


def test_a_blind_page_tells_no_label(run):
    blind = kd.notebook.review_widget(run, reviewer="bob", blind=True)
    assert "p(wrong)" not in blind.page["html"] and 'data-verdict="keep"' not in blind.page["html"]
    row_id = judge(blind, "undesirable")
    label = dict(run.feedback.select("row_id", "label").iter_rows())[row_id]
    assert blind.verdicts.select("verdict", "trusted_label").row(0) == ("flip" if label else "keep", False)
    blind.close()


# --- hostile text ------------------------------------------------------------------------------------------------------


def test_hostile_text_is_text(run, widget):
    ids = {prompt: row_id for row_id, prompt in run.feedback.select("row_id", "prompt").iter_rows() if prompt.startswith(HOSTILE)}
    assert len(ids) == len(HOSTILE)
    for prompt, row_id in ids.items():
        say(widget, go=f"/row?id={row_id}")
        html = widget.page["html"]
        assert data_of(widget)["row-id"] == row_id
        assert f'dir="auto">{escape(clean(prompt))}</div>' in html
        assert not any(mark in html for mark in ("<script", "<img", "\u202e", "\u2066", "\x07", "\x1b", 'href="javascript'))
        html.encode()
    assert "desk &lt;b&gt;run" in html


def test_the_whole_of_a_long_text_is_sent_on_its_own(widget, monkeypatch):
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append(content))
    long = next(
        row_id for row_id, text in widget.session.run.feedback.select("row_id", "prompt").iter_rows() if len(text) > 99_999
    )
    before = widget.page["html"]
    say(widget, go=f"/text?side=prompt&id={long}")
    assert sent == [{"side": "prompt", "text": "x" * 100_000 + " ?"}] and widget.page["html"] == before


def test_the_look_is_the_web_desks(widget):
    assert ":root" not in widget.css and widget.css.count(":host {") >= 3 and ".verdict-form" in widget.css


# --- verdicts go on ----------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
import ktodata as kd
from test_widget import judge
widget = kd.notebook.review_widget(sys.argv[1], reviewer="ann", blind=False)
print(*[judge(widget, "keep") for _ in range(10)], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_kernel_loses_nothing(run):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.folder), str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    judged = done.stdout.split()
    again = kd.notebook.review_widget(run, reviewer="ann", blind=False)
    assert len(judged) == 10 and again.verdicts["row_id"].to_list() == judged
    assert data_of(again)["decided"] == "10" and data_of(again)["row-id"] not in judged
    again.close()


def test_verdicts_count_in_the_pipeline(made, run, widget):
    judged = [judge(widget, verdict) for verdict in ("keep", "flip", "drop", "contested")]
    trusted = kd.run(made[0], out=run.folder, reviews=[widget.path]).feedback.select("row_id", "trusted_label").drop_nulls()
    assert dict(trusted.iter_rows()) == dict(widget.verdicts.select("row_id", "trusted_label").drop_nulls().iter_rows())
    assert set(trusted["row_id"]) == set(judged[:2])
    assert widget.verdicts["verdict"].to_list() == ["keep", "flip", "drop", "contested"]
    assert widget.verdicts["trusted_label"].null_count() == 2
    judge(widget)
    assert "made anew" in widget.page["problem"]


def test_texts_that_an_audit_in_memory_holds_are_asked_about(run, tmp_path):
    """Five rows of the run's audit stand for texts that dedupe held because they have both labels."""
    audit = LabelAudit.of_run(run)
    waits = pl.col("row_id").is_in(audit.table["row_id"][-5:].implode())
    state = pl.when(waits).then(pl.lit("review")).otherwise("state")
    audit = replace(audit, table=audit.table.with_columns(state=state, held_text=pl.when(waits).then("row_id")))
    label_noise = run.stage("label_noise")
    audit.result.tables.update(
        {name: label_noise.table(name) for name in ("evidence", "raters", "confusions", "trust_curve", "trusted_rates")}
    )
    here = kd.notebook.review_widget(audit, folder=tmp_path / "reviews", reviewer="ann", blind=False, minutes=20)
    assert "The criterion" not in here.page["html"]
    with closing(kd.notebook.review_widget(audit, folder=tmp_path / "with", criterion="It **helps**.")) as with_criterion:
        assert "It <strong>helps</strong>." in with_criterion.page["html"]
    held = {here.session.rows.row_ids[int(place)] for place in here.session.queue.order if here.session.queue.held[place]}
    assert held == set(audit.table["row_id"][-5:])
    here.close()


def test_an_audit_in_memory_has_the_same_desk(run, tmp_path):
    """The rows of the run's own desk in the same order; its verdicts make the audit anew."""
    audit = LabelAudit.of_run(run)
    label_noise = run.stage("label_noise")
    audit.result.tables.update(
        {name: label_noise.table(name) for name in ("evidence", "raters", "confusions", "trust_curve", "trusted_rates")}
    )
    here = kd.notebook.review_widget(audit, folder=tmp_path / "new" / "reviews", reviewer="ann", blind=False, minutes=20)
    there = kd.notebook.review_widget(run, reviewer="ann", blind=False, minutes=20)
    assert here.session.queue.order.tolist() == there.session.queue.order.tolist()
    assert [judge(here) for _ in range(6)] == [judge(there) for _ in range(6)]
    reviewed = audit.with_reviews(here.verdicts)
    assert reviewed.metrics["trusted"]["rows"] == 6
    assert dict(reviewed.table.select("row_id", "trusted_label").drop_nulls().iter_rows()) == dict(
        here.verdicts.select("row_id", "trusted_label").iter_rows()
    )
    here.close()
    reopened = kd.notebook.review_widget(reviewed, folder=tmp_path / "new" / "reviews", reviewer="ann", blind=False)
    assert reopened.verdicts.height == 6
    assert data_of(reopened)["row-id"] not in set(reopened.verdicts["row_id"])
    reopened.close()
    there.close()


# --- what is at fault --------------------------------------------------------------------------------------------------


def test_what_cannot_be_reviewed_is_said(run, tmp_path, monkeypatch):
    audit = LabelAudit.of_run(run)
    with pytest.raises(RunError, match="folder='reviews/support'"):
        kd.notebook.review_widget(audit)
    with pytest.raises(RunError, match="in its own folder"):
        kd.notebook.review_widget(run, folder=tmp_path)
    with pytest.raises(RunError, match="is a run folder"):
        kd.notebook.review_widget(audit, folder=run.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file stands there"):
        kd.notebook.review_widget(audit, folder=tmp_path / "file")
    with pytest.raises(RunError, match=r"no manifest\.json"):
        kd.notebook.review_widget(tmp_path)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.setattr("ktodata.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ktodata\[notebook\]'"):
        kd.notebook.review_widget(Run(run.folder))
    assert isinstance(audit.table, pl.DataFrame)
