"""The desk over HTTP: who is let in, what a page shows, and what is refused."""

import html
import json
import os
import re
import shlex
import shutil
from copy import copy

import numpy as np
import pytest
from review_runs import HOSTILE
from starlette.testclient import TestClient

from ktodata.errors import RunError
from ktodata.files import write_note
from ktodata.pipeline.run_folder import Run
from ktodata.review.auth import HEADERS, AuthMiddleware
from ktodata.review.pages import render, static
from ktodata.review.serve import HOST, listening_socket
from ktodata.review.session import open_session
from ktodata.review.store import VerdictStore
from ktodata.review.web import ReviewApp

PORT = 8765
ORIGIN = f"http://127.0.0.1:{PORT}"


class Visitor:
    """A browser's side, with what it may send made plain."""

    def __init__(self, session):
        web = ReviewApp(session)
        self.guard = AuthMiddleware(web.app(), PORT)
        web.csrf = self.guard.csrf
        self.client = TestClient(self.guard, base_url=ORIGIN, follow_redirects=False, raise_server_exceptions=False)

    def enter(self):
        answer = self.client.get(self.guard.address)
        assert answer.status_code == 200
        return answer

    def post(self, path, body, **headers):
        sent = {"Origin": ORIGIN, "X-CSRF-Token": self.guard.csrf, "Content-Type": "application/json"} | headers
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.client.post(path, content=content, headers={name: value for name, value in sent.items() if value is not None})


@pytest.fixture(scope="module")
def opened(made, tmp_path_factory):
    folder = shutil.copytree(made[1], tmp_path_factory.mktemp("web") / "run")
    return open_session(Run(folder), reviewer="ann", blind=False, minutes=20)


@pytest.fixture
def session(opened, tmp_path):
    """The module's desk at a store of its own: to open one takes longer than most tests."""
    fresh = copy(opened)
    fresh.queue, fresh.rows, fresh.store = copy(opened.queue), copy(opened.rows), VerdictStore(tmp_path)
    fresh._judged, fresh._judged_by_others = np.zeros_like(opened._judged), np.zeros_like(opened._judged_by_others)
    fresh._skipped, fresh._seconds, fresh._last_event = [], [], 0
    yield fresh
    fresh.store.close()


@pytest.fixture
def visitor(session):
    inside = Visitor(session)
    inside.enter()
    return inside


def verdict(page, **more):
    """The body that the page's script would send."""
    data = dict(re.findall('data-([a-z-]+)="([^"]*)"', re.search("<main[^>]*>", page)[0]))
    body = {
        "row_id": data["row-id"],
        "current_id": int(data["current-id"]),
        "detector": data["detector"],
        "filters": html.unescape(data["filters"]),
    }
    return body | {"verdict": "keep", "note": "", "seconds": 5.0} | more


# --- who is let in -----------------------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_shown_and_nothing_is_done(session):
    outside = Visitor(session)
    for path in ("/", "/row?id=x", "/progress", "/text", "/static/review.js", "/open", "/open?token=", "/open?token=guess"):
        assert outside.client.get(path).status_code == 403, path
    for path in ("/verdict", "/skip", "/undo", "/unskip", "/open"):
        assert outside.post(path, {}).status_code == 403, path
    assert session.store.events_since(0) == []


def test_the_token_is_worth_one_use(session):
    visitor = Visitor(session)
    entered = visitor.enter()
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert visitor.guard.address.split("=")[1] not in cookie + entered.text
    assert visitor.client.get("/").status_code == 200
    other = Visitor(session)
    other.guard, other.client = visitor.guard, TestClient(visitor.guard, base_url=ORIGIN)
    assert other.client.get(visitor.guard.address).status_code == 403
    assert other.client.get("/", headers={"Cookie": "ktodata_review_8765=guess; \x00bad"}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1.evil.example:{PORT}", ""]
)
def test_another_name_for_this_machine_is_refused(visitor, host):
    """DNS rebinding: the cookie would be sent along, so the name must be looked at."""
    assert visitor.client.get("/", headers={"Host": host}).status_code == 403
    assert visitor.client.get("/", headers={"Host": f"127.0.0.1:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Origin": f"http://localhost:{PORT}"}, 403),  # another of the desk's own names: another page
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"X-CSRF-Token": None}, 403),
        ({"X-CSRF-Token": "guess"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Cookie": "ktodata_review_8765=guess"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_change_from_elsewhere_is_refused(visitor, session, headers, status):
    body = verdict(visitor.client.get("/").text)
    assert visitor.post("/verdict", body, **headers).status_code == status
    assert session.store.events_since(0) == []
    assert visitor.post("/verdict", body).status_code == 200


def test_a_page_of_another_site_cannot_look_either(visitor):
    assert visitor.client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert visitor.client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200


def test_every_answer_is_guarded(visitor):
    for answer in (visitor.client.get("/"), visitor.client.get("/nothing"), visitor.client.get("/static/review.js"), visitor.post("/verdict", "x"),
                   visitor.client.get("/", headers={"Host": "evil"}), visitor.client.put("/")):  # fmt: skip
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_nothing_is_loaded_from_elsewhere(visitor):
    for path in ("/", "/progress"):
        page = visitor.client.get(path).text
        assert set(re.findall(r'(?:src|href)="(https?:[^"]*|//[^"]*)"', page)) == set()
        assert (
            re.findall(
                r"<script(?![^>]*src=)|<style|\son\w+=|style=",
                re.sub(r'<(?:div class="text"|bdi).*?</(?:div|bdi)>', "", page, flags=re.S),
            )
            == []
        )
    look = static("review.css").decode()
    assert "url(" not in look and "@import" not in look and "http" not in look
    assert visitor.client.get("/static/..%2Fweb.py").status_code == 404


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"verdict": "maybe"}, {"verdict": None}, {"verdict": ["keep"]}, {"current_id": "0"}, {"current_id": True}, {"seconds": "5"}, {"seconds": True},
        {"note": "x" * 4001}, {"note": 5}, {"row_id": None}, {"filters": 1}, {"detector": None},
    ],
)  # fmt: skip
def test_a_body_that_no_page_sends_is_refused(visitor, session, more):
    answer = visitor.post("/verdict", verdict(visitor.client.get("/").text, **more))
    assert answer.status_code == 400 and answer.json()["problem"]
    assert session.store.events_since(0) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [("", 400), ("[1]", 400), ("{", 400), ("[" * 60_000, 400), (b"\xff", 400), ('{"seconds": NaN}', 400), ("x" * 70_000, 413)],
)
def test_broken_bodies_are_refused(visitor, body, status):
    assert visitor.post("/verdict", body).status_code == status


def test_a_stale_row_is_refused_and_the_page_is_told(visitor, session):
    body = verdict(visitor.client.get("/").text)
    assert visitor.post("/verdict", body).status_code == 200
    again = visitor.post("/verdict", body | {"verdict": "flip"})
    assert again.status_code == 409 and "decided meanwhile" in again.json()["problem"]
    other = visitor.post("/verdict", verdict(visitor.client.get("/").text, detector="of another run"))
    assert other.status_code == 409 and "made anew" in other.json()["problem"]
    assert visitor.post("/verdict", verdict(visitor.client.get("/").text, row_id="nobody")).status_code == 409
    assert session.store.current_verdicts()["verdict"].to_list() == ["keep"]


def test_a_store_that_fails_is_said(visitor, session, monkeypatch):
    body = verdict(visitor.client.get("/").text)

    def full(*_, **__):
        raise RunError("cannot write: no room")

    monkeypatch.setattr(session.store, "add", full)
    answer = visitor.post("/verdict", body)
    assert (answer.status_code, answer.json()) == (500, {"problem": "cannot write: no room"})


# --- what is shown -----------------------------------------------------------------------------------------------------


def test_a_verdict_is_answered_with_the_next_row(visitor, session):
    page = visitor.client.get("/").text
    answer = visitor.post("/verdict", verdict(page, note="half \ud83d and NUL \0", verdict="flip"))
    assert verdict(answer.text)["row_id"] != verdict(page)["row_id"]
    (current,) = session.store.current_verdicts().iter_rows(named=True)
    assert (current["verdict"], current["note"], current["seconds"]) == ("flip", "half \ufffd and NUL ␀", 5.0)
    back = visitor.post("/undo", {"undo_token": verdict_last(answer.text), "detector": session.detector, "filters": ""})
    assert verdict(back.text)["row_id"] == verdict(page)["row_id"] and "half \ufffd" in back.text
    skipped = visitor.post("/skip", verdict(back.text))
    assert verdict(skipped.text)["row_id"] != verdict(page)["row_id"] and "1 skipped" in skipped.text
    assert verdict(visitor.post("/unskip", {"filters": ""}).text)["row_id"] == verdict(page)["row_id"]


def verdict_last(page):
    return re.search('data-undo-token="([^"]*)"', page)[1]


def test_filters_stay_with_the_next_row(visitor, session):
    page = visitor.client.get("/", params={"rater": "user 2"}).text
    assert verdict(page)["filters"] == "?rater=user+2"
    after = visitor.post("/verdict", verdict(page)).text
    assert verdict(after)["filters"] == "?rater=user+2" and ">user 2 (" in after
    assert "Nothing left here" in visitor.client.get("/", params={"rater": '"><script>x'}).text


def hostile_ids(session):
    return [
        row_id for row_id, prompt in session.run.feedback.select("row_id", "prompt").iter_rows() if prompt.startswith(HOSTILE)
    ]


def test_hostile_rows_are_shown_as_text(visitor, session):
    ids = hostile_ids(session)
    assert len(ids) == len(HOSTILE)
    pages = [visitor.client.get("/row", params={"id": row_id}).text for row_id in ids]
    together = "".join(pages)
    assert together.count("<script") == len(pages)  # each page's own
    assert together.count("<img") == 0 and 'href="javascript' not in together and together.count("</textarea>") == len(pages)
    assert "&lt;script&gt;window.pwned=1" in together and "49" not in re.findall(r"and (\S+) \{%", together)
    assert "⟨U+202E⟩dcba" in together and "\u202e" not in together and "\u2066" not in together
    assert "\x07" not in together and "␇" in together and "a written surrogate \\ud800" in together
    assert "x" * 100_000 in html.unescape(together)


def test_a_text_with_surrogates_or_of_any_length_breaks_no_page(visitor, session, monkeypatch):
    """Parquet holds no lone surrogate, so a row with one was set aside on reading; were one to come through, it is shown."""
    assert session.run.quarantine["reason"].to_list() == ["lone_surrogate"]
    place = int(session.queue.order[0])
    monkeypatch.setattr(
        type(session.rows._rows), "row", _with(type(session.rows._rows).row, completion="low \udc00 high \ud800" + "y" * 300_000)
    )
    page = visitor.client.get("/").text
    assert "low \ufffd high \ufffdyyy" in page and "The first 200,000 characters." in page
    assert len(page) < 240_000
    assert place == session.place(verdict(page)["row_id"])


def _with(row, **values):
    def changed(self, *args, **settings):
        return (
            row(self, *args, **settings) | values
            if settings.get("named") and "completion" in self.columns
            else row(self, *args, **settings)
        )

    return changed


def test_the_whole_text_is_a_plain_file(visitor, session):
    row_id = hostile_ids(session)[0]
    answer = visitor.client.get("/text", params={"id": row_id, "side": "completion"})
    assert answer.headers["content-type"].startswith("text/plain") and "pwned" in answer.text
    assert visitor.client.get("/text", params={"id": row_id, "side": "label"}).status_code == 400
    assert visitor.client.get("/text", params={"id": "nobody", "side": "prompt"}).status_code == 409


def test_a_blind_page_tells_no_label(run):
    session = open_session(run, reviewer="bob", blind=True, minutes=20)
    visitor = Visitor(session)
    visitor.enter()
    other = open_session(run, reviewer="bob", blind=False, minutes=20)
    for _ in range(6):
        page = visitor.client.get("/").text
        main = re.sub(r"(?s)<form class=.*?</form>|<details.*?</details>", "", re.search("(?s)<main.*</main>", page)[0])
        visible = re.sub(r'(?s)<div class="text".*?</div>|<bdi>.*?</bdi>', "", main)
        assert not re.search(r"\b(un)?desirable\b|p\(wrong\)|signal|user \d|keep|flip", visible), visible
        row_id = verdict(page)["row_id"]
        assert re.search("class=.tag", visitor.client.get("/").text) is None
        assert other.rows.row(session.place(row_id), 0.1, blind=False).evidence is not None
        answer = visitor.post("/verdict", verdict(page, verdict="desirable"))
        assert answer.status_code == 200
        label = dict(run.feedback.select("row_id", "label").iter_rows())[row_id]
        assert session.store.current_verdict(row_id, "bob").verdict == ("keep" if label else "flip")
        again = visitor.client.get("/row", params={"id": row_id}).text
        assert "You said <strong>desirable</strong>" in again
    session.store.close()
    other.store.close()


def test_progress_tells_who_agrees_and_what_is_not_known(visitor, session):
    bob = copy(session)
    bob.reviewer, bob.blind = "bob", True
    for number in range(12):
        page = visitor.client.get("/").text
        row_id = verdict(page)["row_id"]
        visitor.post("/verdict", verdict(page, verdict="keep" if number % 3 else "flip", note="<b>why</b>"))
        bob.record(row_id, "keep", current_id=0, detector=bob.detector, note="", seconds=3.0)
    page = visitor.client.get("/progress").text
    assert "4 rows: contested" in page and 'href="/?judged=differ"' in page
    queue = visitor.client.get("/?judged=differ").text
    assert 'data-filters="?judged=differ"' in queue and "You said <strong>flip</strong>" in queue and "4 waiting" in queue
    assert re.search(r"<bdi>ann</bdi>, <bdi>bob</bdi></th><td class=\"n\">12</td><td class=\"n\">67", page)
    assert page.count("p(wrong) was not measured on this data") == 1 and "not known</td>" not in page and "too few" not in page
    assert "&lt;b&gt;why&lt;/b&gt;" in page and "<b>why" not in page


def test_what_is_known_is_told_in_numbers(visitor, session):
    object.__setattr__(session.queue, "measured", True)
    page = visitor.client.get("/progress").text
    rows = session.queue.order[:20]
    assert f'<td class="n">{session.queue.p_wrong[rows].sum():,.1f}</td>' in page
    assert "as measured on this data" in visitor.client.get("/").text


def test_a_thing_is_shown_once_it_is_known(visitor, session):
    """Before a verdict: no pace, no minutes, no rates, no command; each comes with what it takes to know it."""
    page, progress = visitor.client.get("/").text, visitor.client.get("/progress").text
    assert "minutes" not in page and " s a row" not in page and "not known" not in page and "in all" not in page
    assert progress.count("Nothing yet: no row was judged.") == 1 and progress.count("Not known yet") == 1
    assert "ktodata run" not in progress and "<table" not in progress and "minutes" not in progress
    for number in range(5):
        page = visitor.post("/verdict", verdict(visitor.client.get("/").text, seconds=30.0)).text
        assert (" of 20 minutes left, " in page) == (number == 4)
    assert "18 of 20 minutes left, 35 rows at 30 s a row." in page
    progress = visitor.client.get("/progress").text
    assert (
        "Nothing yet" not in progress and "0 of 5 rows drawn at random and judged carry" in progress and "ktodata run" in progress
    )
    assert "none was judged" not in progress and "not measured</td>" not in progress
    object.__setattr__(session.queue, "measured", True)
    assert "35 rows at 30 s a row: some " in visitor.client.get("/").text
    session.minutes = None
    assert "15 rows left, some 8 minutes at 30 s a row: some " in visitor.client.get("/").text


def test_agreement_on_few_rows_has_no_kappa_and_says_why(visitor, session):
    bob = copy(session)
    bob.reviewer = "bob"
    page = visitor.client.get("/").text
    visitor.post("/verdict", verdict(page))
    bob.record(verdict(page)["row_id"], "keep", current_id=0, detector=bob.detector, note="", seconds=3.0)
    progress = visitor.client.get("/progress").text
    assert "Cohen&#39;s kappa</th>" not in progress and "Cohen's kappa</th>" not in progress
    assert "Cohen's kappa, agreement beyond chance, needs 10 rows" in progress


def test_the_criterion_stands_beside_the_row(visitor):
    page = visitor.client.get("/").text
    assert "The criterion" in page and "It helps. &lt;b&gt;Nothing else&lt;/b&gt;" in page


def test_a_sitting_ends_with_what_was_learnt(visitor, session):
    assert "What was learnt" not in visitor.client.get("/").text
    session.sitting = 4
    for place in session.queue.order[:4]:
        row_id = session.rows.row_ids[int(place)]
        session.record(row_id, "flip", current_id=0, detector=session.detector, note="", seconds=3.0)
    assert "This sitting is done: 4 rows." in visitor.client.get("/").text
    page = visitor.client.get("/progress").text
    given = [bool(session.rows.labels[int(place)]) for place in session.queue.order[:4]]
    assert all(f"{given.count(label)} got the other label" in page for label in set(given))
    assert f"<code>--reviews {session.store.path}</code>" in page and "your recipe" in page  # a dict has no file
    (session.run.folder / "my recipe.yaml").write_text("")
    manifest = session.run.manifest | {"recipe_file": "my recipe.yaml", "recipe_folder": "."}
    write_note(session.run.folder / "manifest.json", manifest)
    place = shlex.quote(os.path.relpath(session.run.folder / "my recipe.yaml"))
    assert html.unescape(visitor.client.get("/progress").text).count(f"ktodata run {place} --reviews {session.store.path}") == 1


def test_a_text_is_escaped_in_every_place_of_a_template():
    """A reviewer's or run's name comes from outside too."""
    frame = {"here": "row", "reviewer": "<i>\ud800", "blind": False, "detector": '"><i>', "csrf": "", "name": "<i>"}
    page = render(
        "progress.html.j2",
        **frame,
        tallies=[],
        learnt={"judged": 0, "of_labels": "", "moved": [], "command": "<i>"},
        agreements=[],
        differ=[],
        differ_in_all=0,
        min_rows=10,
        mine=[],
        outlook=_outlook(),
    )
    assert "<i>" not in page and "\ufffd" in page


def _outlook():
    from ktodata.review.queue import ExpectedGain
    from ktodata.review.session import ReviewOutlook

    return ReviewOutlook(60.0, 0.0, None, measured=False, gains=[ExpectedGain(60, None, None, None, None)])


# --- the server --------------------------------------------------------------------------------------------------------


def test_it_listens_on_this_machine_only_and_says_when_it_cannot():
    with listening_socket(0) as bound:
        address, port = bound.getsockname()
        assert address == HOST == "127.0.0.1"
        with pytest.raises(RunError, match=f"port {port} of 127.0.0.1 cannot be taken"):
            listening_socket(port)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST /verdict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"])
def test_a_connection_that_sends_no_whole_request_is_closed(sent, monkeypatch):
    import socket
    import threading
    import time

    import uvicorn

    from ktodata.review import web

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(web, "PATIENCE_SECONDS", 0.2)
    with listening_socket(0) as bound:
        server = uvicorn.Server(uvicorn.Config(app, http=web.ClosingProtocol, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        with socket.create_connection(bound.getsockname(), timeout=20) as half:
            half.sendall(sent)
            began = time.monotonic()
            assert half.recv(1000) == b""
            assert time.monotonic() - began < 10
        server.should_exit = True
        thread.join(10)


def test_a_missing_extra_is_said(run, monkeypatch):
    from ktodata import extras
    from ktodata.errors import MissingExtraError
    from ktodata.review import review

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ktodata\[review\]'"):
        review(run.folder)
