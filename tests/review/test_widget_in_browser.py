"""The widget's front end in a real browser, in a page that stands in for a notebook: its cell, its shortcuts, its kernel."""

import chromium
import pytest
from review_runs import HOSTILE

import ktodata as kd
from ktodata.visible_text import clean

pytest.importorskip("anywidget", reason="no anywidget: pip install 'ktodata[notebook]'")
pytestmark = chromium.NEEDED
KEYS = {"k": "keep", "f": "flip", "d": "drop", "c": "contested"}
NOTEBOOK = """<!doctype html><html lang="en"><title>notebook</title><style>button { display: none } body, div { font: 30px serif; color: red; border: 0 }</style>
<textarea id="code" aria-label="code">print()</textarea><div id="cell" style="width: 1000px"></div>"""
# anywidget's model, as far as the widget uses it: `tell` is the kernel's ear, and what it returns is what the kernel says
MODEL = """async ({ esm, state }) => {
  window.shortcuts = [];
  document.addEventListener("keydown", (event) => window.shortcuts.push(event.key));
  const heard = {};
  const say = (name, ...said) => (heard[name] ?? []).forEach((listener) => listener(...said));
  const model = {
    get: (name) => state[name],
    on: (name, listener) => (heard[name] ??= []).push(listener),
    off: (name, listener) => (heard[name] = heard[name].filter((one) => one !== listener)),
    send: async (message) => {
      const answer = await window.tell(message);
      if (answer === null) return;
      answer.sent.forEach((one) => say("msg:custom", one));
      state.page = answer.page;
      say("change:page");
    },
  };
  const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
  window.unmount = module.default.render({ model, el: document.getElementById("cell") });
  window.listening = () => Object.values(heard).flat().length;
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium.launched() as started:
        yield started


@pytest.fixture
def page(browser):
    """A page that writes down what it says on its console, and what it would load; `console` holds it."""
    with chromium.listening(browser, 1100) as opened:
        opened.on("request", lambda request: request.url.startswith("blob:") or opened.console.append(request.url))
        yield opened


@pytest.fixture
def sit(page, run):
    """sit(reviewer, ...) -> a widget that is shown in the page's cell; a widget with `dead` set answers no more."""
    made = []

    def open_widget(**settings):
        widget = kd.notebook.review_widget(run, **({"reviewer": "ann", "blind": False} | settings))
        widget.dead, sent = False, []
        widget.send = lambda content, buffers=None: sent.append(content)

        def tell(message):
            if widget.dead:
                return None
            sent.clear()
            widget._handle_custom_msg(message, [])
            return {"page": widget.page, "sent": list(sent)}

        page.set_content(NOTEBOOK)
        page.expose_function("tell", tell)
        page.evaluate(MODEL, {"esm": widget._esm, "state": {"page": widget.page, "css": widget.css}})
        made.append(widget)
        return widget

    yield open_widget
    for widget in made:
        widget.close()


def row_on(page):
    return page.get_attribute("#main", "data-row-id")


def press(page, key):
    """Press a key that leads to another page of the session."""
    page.evaluate("window.before = document.querySelector('#cell > div').shadowRoot.getElementById('main')")
    page.keyboard.press(key)
    page.wait_for_function("window.before !== document.querySelector('#cell > div').shadowRoot.getElementById('main')")
    return row_on(page)


def test_ten_rows_by_keyboard(page, sit):
    """Keys count while the desk has the focus, and only there; the notebook never hears them."""
    widget = sit()
    first = row_on(page)
    page.focus("#code")
    page.keyboard.press("k")
    assert page.evaluate("window.shortcuts") == ["k"] and row_on(page) == first  # it was the notebook's
    page.click("#completion")
    judged = []
    for number in range(10):
        key = "kfdc"[number % 4]
        judged.append((row_on(page), KEYS[key]))
        if number == 3:
            page.keyboard.press("n")
            page.keyboard.type("k f d c u s are letters here")
            page.keyboard.press("Escape")
        press(page, key)
        assert page.inner_text("#live") == page.inner_text("#announce")
    assert press(page, "u") == judged.pop()[0]
    judged.append((row_on(page), "keep"))
    press(page, "k")
    assert widget.verdicts.select("row_id", "verdict").rows() == judged
    assert widget.verdicts["note"].to_list() == [""] * 3 + ["k f d c u s are letters here"] + [""] * 6
    assert (widget.verdicts["seconds"] < 30).all() and (widget.verdicts["seconds"] > 0).any()
    assert page.evaluate("window.shortcuts") == ["k"]
    assert page.get_attribute("#cell > div", "data-lm-suppress-shortcuts") == "true"
    page.keyboard.press("Control+s")
    assert page.evaluate("window.shortcuts.at(-1)") == "s"  # saving the notebook is the notebook's
    page.evaluate("window.unmount()")
    assert page.evaluate("window.listening()") == 0 and page.console == []


def test_hostile_rows_are_text_and_lead_nowhere(page, run, sit):
    sit(reviewer="<img src=x onerror='window.pwned=1'>")
    ids = {prompt: row_id for row_id, prompt in run.feedback.select("row_id", "prompt").iter_rows() if prompt.startswith(HOSTILE)}
    for prompt, row_id in ids.items():
        page.eval_on_selector("nav a >> nth=0", "(link, id) => { link.dataset.to = `/row?id=${id}` }", row_id)
        page.click("nav a >> nth=0")
        page.wait_for_selector(f"main[data-row-id='{row_id}']")
        assert page.text_content("#prompt") == clean(prompt)
        assert page.evaluate("window.pwned") is None and page.title() == "notebook"
        assert page.locator("#cell img, #cell script, #cell a[href], #cell form[action^=http]").count() == 0
        assert page.evaluate("document.querySelector('#cell').scrollWidth <= 1000")  # one line of 100 kB wraps in its box
    assert page.console == []


def test_pages_filters_help_and_a_blind_reviewer(page, sit):
    widget = sit(blind=True)
    page.focus("nav a >> nth=0")
    page.keyboard.press("k")  # not a key of a blind reviewer
    page.keyboard.press("?")
    assert page.is_visible("#help") and "good: the answer is desirable" in page.inner_text("#help")
    page.keyboard.press("g")  # no verdict behind the open list
    page.click("#help button")
    assert not page.is_visible("#help") and widget.verdicts.is_empty()
    page.keyboard.press("/")
    page.select_option("select[name=rater]", "user 1")
    page.click("text=Show these")
    page.wait_for_selector("main[data-filters='?rater=user+1']")
    press(page, "b")
    assert page.get_attribute("#main", "data-filters") == "?rater=user+1" and widget.verdicts.height == 1
    press(page, "p")
    assert (
        "What more reviews would buy" in page.inner_text("main")
        and page.get_attribute("nav [aria-current]", "data-to") == "/progress"
    )
    page.focus("main th a")
    assert press(page, "Enter") == widget.verdicts["row_id"][0]  # a link, by keyboard
    press(page, "r")
    assert page.get_attribute("#main", "data-filters") == "" and page.console == []


def test_a_stale_row_keeps_its_note_and_a_dead_kernel_is_said(page, sit):
    page.clock.install()
    widget = sit()
    row_id = row_on(page)
    page.click("#note")
    page.keyboard.type("worth keeping")
    page.keyboard.press("Escape")
    widget.session.record(
        row_id, "flip", current_id=0, detector=widget.session.detector, note="", seconds=1.0
    )  # in another window
    page.keyboard.press("k")
    page.wait_for_selector("#problem:not([hidden])")
    assert "decided meanwhile" in page.inner_text("#problem")
    assert row_on(page) == row_id and page.input_value("#note") == "worth keeping"
    page.click("#problem a")
    page.wait_for_selector("#problem", state="hidden")
    assert row_on(page) != row_id and widget.verdicts["verdict"].to_list() == ["flip"]
    widget.dead = True
    page.keyboard.press("k")
    page.clock.run_for(4_900)
    assert page.is_hidden("#problem")
    page.clock.run_for(200)
    assert "run this cell again" in page.inner_text("#problem") and widget.verdicts.height == 1


def test_it_is_readable_whatever_the_notebook_looks_like(page, sit):
    """Its own font and colours, light and dark; buttons in sight; one column in a narrow cell."""
    sit()
    for scheme, paper, ink in (
        ("light", "rgb(253, 252, 250)", "rgb(28, 33, 39)"),
        ("dark", "rgb(20, 23, 27)", "rgb(231, 229, 224)"),
    ):
        page.emulate_media(color_scheme=scheme)
        look = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color, getComputedStyle(one).fontSize]"
        assert page.eval_on_selector(".review", look) == [paper, ink, "15.2px"]
        assert page.eval_on_selector("#announce", look)[1] == ink
        assert page.is_visible("[data-verdict=keep]")
    columns = "document.querySelector('#cell > div').shadowRoot.querySelector('.work')"
    count = f"getComputedStyle({columns}).gridTemplateColumns.split(' ').length"
    assert page.evaluate(count) == 2
    page.evaluate("document.getElementById('cell').style.width = '600px'")
    assert page.evaluate(count) == 1
    assert page.evaluate("document.querySelector('#cell').scrollWidth <= 600")


def test_axe_finds_nothing_grave(page, sit):
    from accessibility import grave  # skips where there is no axe

    sit()
    page.focus("nav a >> nth=0")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert grave(page) == []
        press(page, "p")
        assert grave(page) == []
        press(page, "r")
