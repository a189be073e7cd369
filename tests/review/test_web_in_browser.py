"""The desk in a real browser, driven by the keyboard: every verdict is kept, whatever is shown and whatever is killed."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import chromium
import pytest
import uvicorn
from review_runs import HOSTILE

from ktodata.labels.label_words import NextForLabels
from ktodata.review.auth import AuthMiddleware
from ktodata.review.serve import listening_socket
from ktodata.review.session import open_session
from ktodata.review.store import VerdictStore
from ktodata.review.web import ReviewApp

pytestmark = chromium.NEEDED
ROW = "html[data-ready] main[data-row-id]"  # the page is there, and its script has run: before that, no key counts
KEYS = {"k": "keep", "f": "flip", "d": "drop", "c": "contested"}


@contextmanager
def commanded(run, *options):
    """(the process, the address that works once) of a desk that was started as a user would start it; labels are shown."""
    command = [sys.executable, "-m", "ktodata", "review", str(run.folder), "--no-open", "--not-blind", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def served(run, reviewer, **settings):
    """The address of a desk in this process: there is nothing to load, which takes longer than the tests."""
    session = open_session(run, reviewer=reviewer, **({"blind": False, "minutes": 60} | settings))
    web = ReviewApp(session)
    with listening_socket(0) as bound:
        guard = AuthMiddleware(web.app(), bound.getsockname()[1])
        web.csrf = guard.csrf
        server = uvicorn.Server(uvicorn.Config(guard, log_level="warning", access_log=False, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield guard.address
        finally:
            server.should_exit = True
            thread.join()
            session.store.close()


@pytest.fixture(scope="module")
def browser():
    with chromium.launched(chromium.THIS_MACHINE) as started:
        yield started


@pytest.fixture
def page(browser):
    """A page that writes down what it says on its console; `console` holds it."""
    with chromium.listening(browser, 1200) as opened:
        yield opened


def row_on(page):
    return page.get_attribute("main", "data-row-id")


def press(page, key):
    """Press a key that leads to another row; returns that row's id."""
    before = page.evaluate("document.querySelector('main').dataset.decided + document.querySelector('main').dataset.undoToken")
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('main').dataset.decided + document.querySelector('main').dataset.undoToken !== before",
        arg=before,
    )
    return row_on(page)


def events(run):
    store = VerdictStore(run.folder)
    try:
        return store.current_verdicts().select("row_id", "verdict", "note", "reviewer").rows(), len(store.events_since(0))
    finally:
        store.close()


def test_fifty_rows_by_keyboard_survive_a_kill(run, page):
    """25 rows, SIGKILL while the page is open, 25 more: each verdict once, in order, and no row asked about twice."""
    judged = []
    with commanded(run, "--reviewer", "ann") as (process, address):
        page.goto(address)
        page.wait_for_selector(ROW)
        for number in range(25):
            key = "kfdc"[number % 4]
            judged.append((row_on(page), KEYS[key]))
            if number == 3:
                page.keyboard.press("n")
                page.keyboard.type("kept by keyboard: k f d c u s")  # letters in the note are no verdicts
                page.keyboard.press("Escape")
            press(page, key)
        assert page.inner_text("#announce").startswith(f"Row {row_on(page)}")
        assert page.inner_text("#live") == page.inner_text("#announce")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        stood = row_on(page)
        page.keyboard.press("k")
        page.wait_for_selector("#problem:not([hidden])")
        assert "does not answer" in page.inner_text("#problem") and row_on(page) == stood
    with served(run, "ann") as address:
        page.goto(address)
        page.wait_for_selector(ROW)
        assert row_on(page) == stood and page.get_attribute("main", "data-decided") == "25"
        for number in range(25, 50):
            key = "kfdc"[number % 4]
            judged.append((row_on(page), KEYS[key]))
            press(page, key)
        assert press(page, "u") == judged.pop()[0]
        judged.append((row_on(page), "keep"))
        press(page, "k")
    current, written = events(run)
    assert [(row_id, verdict) for row_id, verdict, _, _ in current] == judged and len({row_id for row_id, _ in judged}) == 50
    assert written == 52  # fifty, one taken back, and one in its place
    assert [note for _, _, note, _ in current if note] == ["kept by keyboard: k f d c u s"]
    assert {reviewer for *_, reviewer in current} == {"ann"}
    refused = [line for line in page.console if "ERR_CONNECTION_REFUSED" not in line]
    assert refused == []


def test_hostile_rows_are_text_and_break_nothing(run, page):
    ids = {prompt: row_id for row_id, prompt in run.feedback.select("row_id", "prompt").iter_rows() if prompt.startswith(HOSTILE)}
    with served(run, "<i>bob</i>") as address:
        page.goto(address)
        page.wait_for_selector(ROW)
        origin = re.match(r"http://[^/]*", address)[0]
        for prompt, row_id in ids.items():
            page.goto(f"{origin}/row?id={row_id}")
            prompt_text = page.text_content("#prompt")
            expected = (
                prompt.replace("\u202e", "⟨U+202E⟩").replace("\u2066", "⟨U+2066⟩").replace("\x07", "␇").replace("\x1b", "␛")
            )
            assert prompt_text == expected
            assert page.title() == f"Row {row_id} · desk <b>run · ktodata review"
            assert page.evaluate("window.pwned") is None and page.locator("main img, main script").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # one line of 100 kB wraps in its box
            assert page.evaluate("document.querySelector('#prompt').clientHeight <= innerHeight / 3")
            press(page, "c")
    current, _ = events(run)
    assert {row_id for row_id, *_ in current} == set(ids.values()) and {who for *_, who in current} == {"<i>bob</i>"}
    assert page.console == []


def test_pages_tabs_and_another_site(run, page, browser):
    """Help, filters, progress by key; a second tab makes the first stale; a cross-site form and a stranger are refused."""
    with served(run, "ann", blind=True) as address:
        page.goto(address)
        page.wait_for_selector(ROW)
        origin = re.match(r"http://[^/]*", address)[0]
        page.keyboard.press("k")  # not a key of a blind reviewer
        page.keyboard.press("?")
        assert page.is_visible("#help") and "good: the answer is desirable" in page.inner_text("#help")
        page.keyboard.press("g")  # no verdict behind the open list
        page.keyboard.press("Escape")
        assert not page.is_visible("#help") and page.get_attribute("main", "data-decided") == "0"
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.name") == "rater"
        page.select_option("select[name=rater]", "user 1")
        page.click("text=Show these")
        page.wait_for_selector("html[data-ready] main[data-filters='?rater=user+1']")
        first = row_on(page)
        other = page.context.new_page()
        other.goto(f"{origin}/?rater=user+1")
        assert row_on(other) == first
        press(other, "g")
        page.keyboard.press("b")
        page.wait_for_selector("#problem:not([hidden])")
        assert "decided meanwhile (desirable)" in page.inner_text("#problem") and row_on(page) == first
        page.click("#problem a")
        page.wait_for_function("row => document.querySelector('main').dataset.rowId !== row", arg=first)
        assert page.url.startswith(f"{origin}/?rater=user+1")
        page.wait_for_selector(ROW)
        page.keyboard.press("p")
        page.wait_for_selector("html[data-ready] main.progress")
        assert "What more reviews would buy" in page.inner_text("main")
        page.keyboard.press("r")
        page.wait_for_selector(ROW)

        # another port of this machine is another origin, but the same site: the cookie is sent along
        elsewhere = page.context.new_page()
        form = f"<form method=post enctype=text/plain action='{origin}/verdict'><input name=a></form>"
        body = f"<iframe src='{origin}/'></iframe><a href='{origin}/'>go</a>{form}"
        elsewhere.route("http://127.0.0.1:8099/*", lambda route: route.fulfill(body=body, content_type="text/html"))
        elsewhere.goto("http://127.0.0.1:8099/")
        assert elsewhere.frames[1].evaluate("document.querySelector('main')") is None
        sent = f"fetch('{origin}/verdict', {{method: 'POST', body: '{{}}', mode: 'no-cors', credentials: 'include'}})"
        assert elsewhere.evaluate(f"{sent}.then(() => 'read', () => 'refused')") == "refused"
        with elsewhere.expect_navigation() as posted:
            elsewhere.evaluate("document.forms[0].submit()")
        assert posted.value.status == 403
        elsewhere.goto("http://127.0.0.1:8099/")
        with elsewhere.expect_navigation() as followed:
            elsewhere.click("a")
        assert followed.value.status == 403 and "another site" in elsewhere.inner_text("body")
        stranger = browser.new_context()
        unknown = stranger.new_page()
        assert unknown.goto(f"{origin}/").status == 403 and unknown.goto(address).status == 403
        stranger.close()
    assert events(run)[1] == 1


def test_the_bar_and_the_keys_say_whether_the_label_is_hidden(run, page, monkeypatch):
    # a sitting that ends the draw, and goes on
    monkeypatch.setattr("ktodata.pipeline.audit.next_for_labels", lambda *_: NextForLabels(draw=2))
    with served(run, "ann", blind=None, budget=4) as address:
        page.goto(address)
        page.wait_for_selector(ROW)
        for _ in range(2):
            assert ", blind" in page.inner_text("header") and "good:" in page.text_content("#help")
            press(page, "g")
        assert page.get_attribute("main", "data-blind") == "no"
        page.keyboard.press("?")
        assert "blind" not in page.inner_text("header") and "flip:" in page.inner_text("#help")
        page.keyboard.press("Escape")
        press(page, "k")
        assert page.get_attribute("main", "data-decided") == "3" and page.console == []


def test_it_fits_and_can_be_read(run, page):
    """No sideways scrolling, the buttons in sight, focus that shows, and text that stands out from its ground by 4.5 to 1."""
    with served(run, "ann") as address:
        page.goto(address)
        page.wait_for_selector(ROW)
        for width, scheme in ((1200, "light"), (800, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            press(page, "k")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            box = page.locator("[data-verdict=keep]").bounding_box()
            assert box["y"] + box["height"] < 900
            page.keyboard.press("Tab")
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > 30 and [contrast for contrast in contrasts if contrast[1] < 4.5] == []
        assert page.locator("h2").count() >= 4 and page.get_attribute("#live", "aria-live") == "polite"


CONTRASTS = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("main p, main span, main h2, main li, main th, main td, main a, header a, kbd, main button:enabled")]
    .filter(node => node.offsetParent && node.innerText.trim())
    .map(node => {
      const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
      return [node.tagName + ": " + node.innerText.slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""
