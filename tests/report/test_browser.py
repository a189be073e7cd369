"""The page in a real browser: opened from disk, nothing loaded, no script but its own run, nothing missing."""

import re

import chromium
import folders
import pytest
from accessibility import grave
from opening import decoded, opened
from test_size import enlarge

from ktodata.report import build_audit_page, build_report
from ktodata.report.page import SECTIONS

pytestmark = chromium.NEEDED
READY = "html[data-ready]"
PWNED = "document.title='pwned'"


@pytest.fixture(scope="module")
def browser():
    with chromium.launched() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = folders.write_run(tmp_path_factory.mktemp("run") / "small")
    folders.write_ablation(folder)
    folders.write_comparison(folder)
    return folder


@pytest.fixture(scope="module")
def html(run):
    return build_report(run)


@pytest.fixture(scope="module")
def file(html, tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), html)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """44 rows left: 15 repeats, 27 doubted rows, and the two records."""
    folder = folders.write_run(tmp_path_factory.mktemp("many") / "run")
    enlarge(folder, 180)
    return written(folder, build_report(folder))


@pytest.fixture
def page(browser, file):
    with opened(browser, file) as tab:
        tab.wait_for_selector(READY)
        yield tab


def written(folder, html):
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def status(page, name="search-status"):
    return page.inner_text(f"#{name}")


def find(page, text, count):
    """Search, until so many rows are told to be found."""
    page.fill("#search-text", text)
    page.wait_for_function(
        "wanted => document.getElementById('search-status').textContent.startsWith(wanted)", arg=f"{count} of "
    )


def test_the_report_opens_from_disk_with_all_its_sections(page, file):
    ids = page.evaluate("[...document.querySelectorAll('section')].map(node => node.id)")
    assert ids == [anchor for anchor, _, _ in SECTIONS]
    assert page.locator("svg").count() == 13
    assert page.requests == [file.as_uri()] and page.console == []


def test_no_script_of_the_data_ran(page):
    assert page.title() == "small <b>run</b> \ufffd · ktodata"
    assert page.evaluate("window.pwned") is None and page.locator("main script, main img").count() == 0
    assert "<script>window.pwned=1;document.title='pwned'</script>" in page.text_content("#labels")


@pytest.mark.parametrize(
    "injected",
    [
        f"<script>{PWNED}</script>",
        f'<img src="data:," onerror="{PWNED}">',
        f'<iframe srcdoc="<script>parent.{PWNED.replace(chr(39), "&quot;")}</script>"></iframe>',
    ],
)
def test_a_script_in_the_page_would_not_run_either(browser, html, tmp_path, injected):
    """Were a text ever let through unescaped, the page's policy still stops it; the same page without the policy runs it."""
    spoilt = html.replace("</main>", f"{injected}</main>", 1)
    with opened(browser, written(tmp_path, spoilt)) as page:
        page.wait_for_selector(READY)
        page.wait_for_timeout(100)
        assert page.title() != "pwned" and "Content Security Policy" in "".join(page.console)
    free = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", spoilt)
    with opened(browser, written(tmp_path, free)) as page:
        page.wait_for_function("document.title === 'pwned'")


def test_our_own_script_changed_by_a_letter_does_not_run(browser, html, tmp_path):
    changed = html.replace("const SHOWN = 25;", "const SHOWN = 26;")
    assert changed != html
    with opened(browser, written(tmp_path, changed)) as page:
        page.wait_for_timeout(500)
        assert page.locator(READY).count() == 0 and "Content Security Policy" in "".join(page.console)


def test_not_even_our_own_script_could_make_markup_of_a_text(page):
    refused = "try { document.body.innerHTML = '<b>'; 'written' } catch (problem) { problem.name }"
    assert page.evaluate(refused) == "TypeError"


def test_rows_are_found_by_text_reason_row_and_cause(page):
    assert status(page) == "16 rows to search"
    find(page, 'DROPPED "question 21"', 1)
    assert "dropped" in page.inner_text("#search-rows") and "similarity: 0.910" in page.inner_text("#search-rows")
    cause = page.inner_text("#search-rows summary code")
    page.click("#search-rows summary")
    assert "answer 30" in page.inner_text("#search-rows details")
    find(page, f"near {cause}", 5)
    find(page, "doubted again", 8)  # the ninth says it beyond what the page holds of it
    find(page, "meh", 1)
    assert "thumbs.jsonl:3" in page.inner_text("#search-rows") and "quarantined" in page.inner_text("#search-rows")
    find(page, "no such words", "None")
    assert page.locator("#search-rows li").count() == 0


def test_filters_narrow_and_say_how_many(page):
    options = page.locator("#search-reason option").all_inner_texts()
    assert options == ["any", "doubted label (9)", "near repeat (5)", "unmapped label (1)", "not json (1)"]
    page.select_option("#search-step", "dedupe")
    assert status(page) == "5 of 16 rows, 1 to 5 shown"
    page.select_option("#search-fate", "held for a person to review")
    assert status(page).startswith("None of 16 rows.")
    page.select_option("#search-step", "")
    page.select_option("#search-reason", "doubted label")
    assert status(page) == "9 of 16 rows, 1 to 9 shown"
    assert (
        page.get_attribute("#search-status", "role") == "status" and page.get_attribute("#search-status", "aria-live") == "polite"
    )


def test_hostile_rows_are_text_and_break_nothing(page):
    page.select_option("#search-reason", "doubted label")
    prompts = page.locator("#search-rows .side:first-child bdi").all_text_contents()
    visible = {3: "abc ⟨U+202E⟩dcba right to left ⟨U+2066⟩isolate", 4: "x" * 320, 5: "nul ␀ and bell ␇ and escape ␛[31m"}
    assert prompts == [visible.get(number, text[:320]) for number, text in enumerate(folders.HOSTILE)]
    assert "100,000 characters in all" in page.inner_text("#search-rows")
    assert page.locator("#search-rows script, #search-rows img, #search-rows a").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    find(page, "<script>", 1)
    assert page.title() != "pwned" and page.evaluate("window.pwned") is None and page.console == []


def test_pages_of_twenty_five_by_keyboard_alone(browser, many):
    with opened(browser, many) as page:
        page.wait_for_selector(READY)
        assert status(page) == "44 rows to search" and not page.is_visible("#search-rows")
        page.click("#search-found > summary")
        page.wait_for_function("document.getElementById('search-status').textContent === '44 of 44 rows, 1 to 25 shown'")
        assert page.locator("#search-rows li").count() == 25
        page.focus("#search-text")
        for _ in range(5):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "search-next"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        assert status(page) == "44 of 44 rows, 26 to 44 shown" and page.get_attribute("#search-rows", "start") == "26"
        page.keyboard.press("Enter")  # there is no third page
        assert status(page) == "44 of 44 rows, 26 to 44 shown" and page.get_attribute("#search-next", "aria-disabled") == "true"
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        assert status(page) == "44 of 44 rows, 1 to 25 shown"
        find(page, "21-1", 1)
        assert page.inner_text("#search-rows .head code") == "21-1" and "question 20" in page.inner_text("#search-rows")


def drawn(page):
    """The map's pixels, once all that was asked for is drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("document.getElementById('map-canvas').toDataURL()")


def test_the_map_moves_zooms_and_comes_back(page):
    page.mouse.move(0, 0)
    whole = drawn(page)
    page.click("#map-in")
    near = drawn(page)
    page.focus("#map-canvas")
    page.keyboard.press("ArrowLeft")
    moved = drawn(page)
    box = page.locator("#map-canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 240, steps=3)
    page.mouse.up()
    dragged = drawn(page)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(50)
    assert len({whole, near, moved, dragged, drawn(page)}) == 5
    page.keyboard.press("0")
    assert drawn(page) == whole


def test_a_dot_tells_its_prompt_to_pointer_and_keyboard(page, html):
    points = decoded(html, "map-data")
    order = sorted(range(len(points["x"])), key=lambda dot: points["x"][dot])
    page.focus("#map-canvas")
    page.keyboard.press("n")
    first = points["prompt"][order[0]]
    assert page.text_content("#map-status bdi") == first and points["row_id"][order[0]] in status(page, "map-status")
    page.keyboard.press("p")  # round the other way
    assert page.text_content("#map-status bdi") == points["prompt"][order[-1]]
    page.locator("#map-canvas").scroll_into_view_if_needed()
    box = page.locator("#map-canvas").bounding_box()
    scale = 0.92 * min(box["width"] / max(points["x"]), box["height"] / max(points["y"]))
    x = box["x"] + box["width"] / 2 + (points["x"][order[0]] - max(points["x"]) / 2) * scale
    y = box["y"] + box["height"] / 2 - (points["y"][order[0]] - max(points["y"]) / 2) * scale
    page.mouse.move(x, y)
    assert page.is_visible("#map-tip") and page.text_content("#map-tip bdi") == first
    page.mouse.click(x, y)
    assert page.text_content("#map-status bdi") == first
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    assert not page.is_visible("#map-tip")


def test_a_cluster_of_the_legend_is_shown_alone(page, html):
    names = page.locator("#map-clusters bdi").all_text_contents()
    assert names == [f"{number} {name}" for number, name, *_ in decoded(html, "map-data")["clusters"]]
    assert "1 dates <script>document.title='pwned'</script>" in names
    whole = drawn(page)
    page.focus("#map-clusters button >> nth=1")
    page.keyboard.press("Enter")
    assert drawn(page) != whole and "20 dots" in status(page, "map-status")
    assert page.locator("#map-clusters [aria-pressed=true]").count() == 1
    page.focus("#map-canvas")
    prompts = set()
    for _ in range(21):
        page.keyboard.press("n")
        prompts.add(page.text_content("#map-status bdi"))
    assert len(prompts) == 20
    page.click("#map-clusters button >> nth=1")
    assert status(page, "map-status") == "All 60 dots are shown."


def test_the_map_is_coloured_in_each_way_with_a_key(page):
    keys = {}
    for way in page.locator("#map-by option").evaluate_all("all => all.map(one => one.value)"):
        page.select_option("#map-by", way)
        keys[way] = (drawn(page), page.locator("#map-key li").all_inner_texts())
    assert list(keys) == ["cluster", "label", "doubt", "fate", "coverage"]
    assert len({pixels for pixels, _ in keys.values()}) == 5
    assert keys["cluster"][1] == []
    assert [" ".join(line.split()) for line in keys["label"][1]] == ["given as desirable 45", "given as undesirable 15"]
    assert [" ".join(line.split()) for line in keys["doubt"][1]] == ["doubt 0 to 0.1 51", "doubt 0.75 to 1 9"]
    assert sum(int(line.split()[-1]) for line in keys["fate"][1]) == 60
    assert [line.split()[-1] for line in keys["coverage"][1]] == ["1", "59"]  # the one that the hole is nearest to


def test_the_map_follows_the_theme(page):
    page.emulate_media(color_scheme="light")
    light = drawn(page)
    page.emulate_media(color_scheme="dark")
    assert drawn(page) != light


def test_on_paper_stands_the_picture_and_no_control(page):
    assert page.is_visible("#map-tool") and page.is_visible("#search-tool") and not page.is_visible(".static-map")
    page.emulate_media(media="print")
    assert page.is_visible(".static-map svg") and not page.is_visible("#map-tool") and not page.is_visible("#search-tool")


def test_without_scripts_the_picture_stays_and_the_reader_is_told(browser, file):
    with opened(browser, file, java_script_enabled=False) as page:
        assert page.is_visible(".static-map svg") and not page.is_visible("#map-tool") and not page.is_visible("#search-tool")
        assert "needs a browser that runs scripts" in page.inner_text("#search")


def test_a_browser_that_cannot_unpack_says_so(browser, file):
    with opened(browser, file, before="delete window.DecompressionStream") as page:
        page.wait_for_selector("#search-problem")
        problem = status(page, "search-problem")
        assert "DecompressionStream" in problem and "ledger.parquet" in problem
        assert page.is_visible(".static-map svg") and not page.is_visible("#search-tool") and not page.is_visible("#map-tool")


def test_a_run_without_a_map_has_its_search(browser, tmp_path):
    with opened(browser, written(tmp_path, build_report(folders.write_run(tmp_path / "run", stages=("dedupe",))))) as page:
        page.wait_for_selector(READY)
        find(page, "near repeat", 5)
        assert page.locator("#map-tool, .static-map").count() == 0 and page.console == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 420)])
def test_axe_finds_nothing_grave(browser, file, scheme, width):
    with opened(browser, file, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.wait_for_selector(READY)
        page.focus("#map-canvas")
        page.keyboard.press("n")
        page.select_option("#map-by", "doubt")
        page.click("#map-clusters button >> nth=0")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert grave(page) == []


def test_the_version_without_text_has_a_map_and_a_search_of_its_own(browser, run, tmp_path):
    with opened(browser, written(tmp_path, build_report(run, text=False))) as page:
        page.wait_for_selector(READY)
        page.focus("#map-canvas")
        page.keyboard.press("n")
        assert page.locator("#map-status bdi").count() == 0 and "cluster " in status(page, "map-status")
        find(page, "near repeat", 5)
        assert page.locator("#search-rows .side, #search-rows bdi").count() == 0 and "because of row" in page.inner_text(
            "#search-rows"
        )
        assert page.console == []


def test_the_audit_opens_and_runs_nothing(browser, run, tmp_path):
    with opened(browser, written(tmp_path, build_audit_page(run))) as page:
        assert page.console == [] and "Rows doubted most" in page.content() and page.title().endswith("ktodata audit")
        assert page.locator("script").count() == 0 and grave(page) == []


MAX_HEIGHT = 6000  # pixels, at 1,400 wide: what a person scrolls through before anything is unfolded


def height(page):
    return page.evaluate("document.documentElement.scrollHeight")


@pytest.mark.parametrize(("width", "most"), [(1400, MAX_HEIGHT), (390, 10_000)])
def test_the_page_is_short_until_it_is_unfolded(browser, many, width, most):
    with opened(browser, many, viewport={"width": width, "height": 900}) as page:
        page.wait_for_selector(READY)
        shut = height(page)
        assert shut <= most and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
        assert height(page) > 2 * shut and page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_run_with_every_experiment_is_short_too(browser, file):
    with opened(browser, file, viewport={"width": 1400, "height": 900}) as page:
        page.wait_for_selector(READY)
        assert height(page) <= MAX_HEIGHT


def test_rows_unfold_once_something_is_searched(page):
    assert not page.is_visible("#search-rows")
    find(page, "near repeat", 5)
    assert page.is_visible("#search-rows")


def test_a_link_into_a_fold_opens_it(page):
    page.evaluate("location.hash = 'quarantine'")
    page.wait_for_function("document.getElementById('quarantine').open")


def test_no_word_of_the_histogram_lies_over_its_bars(page):
    """The names of the two sides stand above the axes: no bar is as high as they are low."""
    overlaps = page.evaluate("""() => {
      const figure = document.querySelector("svg[aria-labelledby^='quality-']");
      const words = [...figure.querySelectorAll("text")].filter((node) => node.textContent.includes("given as"));
      const bars = [...figure.querySelectorAll("path")].filter((node) => /--(un)?desirable/.test(node.getAttribute("style")));
      const over = (one, other) => one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
      const boxes = bars.map((bar) => bar.getBoundingClientRect());
      return [words.length, bars.length, words.filter((word) => boxes.some((box) => over(word.getBoundingClientRect(), box))).length];
    }""")
    assert overlaps[0] == 2 and overlaps[1] > 2 and overlaps[2] == 0
