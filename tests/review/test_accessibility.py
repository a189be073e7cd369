"""The desk in a browser, looked at by axe: nothing serious in light or in dark, on the page of a row, its help and the progress."""

import chromium
import pytest
from accessibility import grave
from test_web_in_browser import ROW, served

pytestmark = chromium.NEEDED


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave(run, scheme):
    with chromium.launched(chromium.THIS_MACHINE) as browser, served(run, "ann") as address:
        page = browser.new_context(color_scheme=scheme).new_page()
        page.goto(address)
        page.wait_for_selector(ROW)
        assert grave(page) == []
        page.keyboard.press("?")
        page.wait_for_selector("#help[open], #help:not([hidden])")
        assert grave(page) == []
        page.goto(f"{page.url.split('?')[0].rstrip('/')}/progress")
        page.wait_for_selector("main.progress")
        assert grave(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_in_a_conversation(parcels, ids, scheme):
    with chromium.launched(chromium.THIS_MACHINE) as browser, served(parcels, "eve") as address:
        page = browser.new_context(color_scheme=scheme).new_page()
        page.goto(address)
        page.wait_for_selector(ROW)  # the desk goes to its first row by itself
        for name in ("r4", "calls", "hostile"):
            page.goto(f"{address.split('/open')[0]}/row?id={ids[name]}")
            page.wait_for_selector(ROW)
            assert grave(page) == []
