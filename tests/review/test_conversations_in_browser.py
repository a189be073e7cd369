"""Conversations in a real browser: the last turn is in view, a key unfolds, the keyboard is enough, hostile turns are text."""

import json
import re

import chromium
import conversation_runs
import pytest
from test_web_in_browser import ROW, served

pytestmark = chromium.NEEDED


@pytest.fixture(scope="module")
def desk(parcels):
    """(a page on the desk, the desk's address)."""
    with (
        chromium.launched(chromium.THIS_MACHINE) as browser,
        served(parcels, "bob") as address,
        chromium.listening(browser, 1200) as page,
    ):
        page.goto(address)
        page.wait_for_selector(ROW)
        yield page, re.match(r"http://[^/]*", address)[0]


def opened(desk, row_id):
    page, origin = desk
    page.goto(f"{origin}/row?id={row_id}")
    page.wait_for_selector(ROW)
    return page


IN_VIEW = """([box, inside]) => {
  const [outer, inner] = [document.querySelector(box), [...document.querySelectorAll(inside)].at(-1)];
  const [a, b] = [outer.getBoundingClientRect(), inner.getBoundingClientRect()];
  return [b.top - a.top, a.bottom - b.bottom];
}"""


def test_the_last_turn_is_in_view(desk, ids):
    """At its end where it fits, from its beginning where it does not; also on the row that follows a verdict."""
    above, below = opened(desk, ids["many"]).evaluate(IN_VIEW, ["#prompt", "#prompt .turn"])
    assert above >= 0 and below >= 0
    page = opened(desk, ids["tall"])
    above, below = page.evaluate(IN_VIEW, ["#prompt", "#prompt .turn"])
    assert 0 <= above < 20 and below < 0
    page.goto(f"{desk[1]}/")
    page.wait_for_selector(ROW)
    for _ in range(3):
        before = page.get_attribute("main", "data-row-id")
        page.keyboard.press("s")
        page.wait_for_function("row => document.querySelector('main').dataset.rowId !== row", arg=before)
        above, below = page.evaluate(IN_VIEW, ["#prompt", "#prompt .turn"])
        assert above >= 0 and (below >= 0 or above < 20)


def test_e_unfolds_texts_and_reasoning_and_folds_them_again(desk, ids):
    page = opened(desk, ids["tall"])
    heights = "['#prompt', '#completion'].map(name => document.querySelector(name).clientHeight)"
    folded = page.evaluate(heights)
    page.keyboard.press("e")
    whole = page.evaluate("['#prompt', '#completion'].map(name => document.querySelector(name).scrollHeight)")
    assert page.evaluate(heights) == whole and all(tall > 3 * small for tall, small in zip(whole, folded, strict=True))
    page.keyboard.press("e")
    assert page.evaluate(heights) == folded
    page = opened(desk, ids["think"])
    thought = "[...document.querySelectorAll('.thought')].map(node => node.open)"
    assert not any(page.evaluate(thought)) and "13 x 17" not in page.inner_text("#completion")
    page.keyboard.press("e")
    assert all(page.evaluate(thought)) and "13 x 17" in page.inner_text("#completion")
    page.keyboard.press("e")
    assert not any(page.evaluate(thought))


def test_reasoning_opens_by_tab_and_enter(desk, ids):
    page = opened(desk, ids["think"])
    page.focus("#completion")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "13 x 17" in page.inner_text("#completion")
    assert page.get_attribute("main", "data-decided") == "0"


def test_hostile_turns_are_text(desk, ids):
    page = opened(desk, ids["hostile"])
    page.keyboard.press("e")
    visible = conversation_runs.PWN.replace("\u202e", "⟨U+202E⟩").replace("\x1b", "␛")
    texts = page.evaluate("[...document.querySelectorAll('.words, .turns .tool')].map(node => node.textContent)")
    assert texts.count(visible) == 8 and len(texts) == 9
    assert json.loads(texts[-1]) == {
        conversation_runs.PWN.replace("\u202e", "⟨U+202E⟩"): conversation_runs.PWN.replace("\u202e", "⟨U+202E⟩")
    }
    assert page.title().startswith("Row ") and page.evaluate("window.pwned") is None
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.console == []
