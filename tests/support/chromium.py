"""Chromium for the tests: started so that nothing beyond this machine is reached, with pages that write down what they say."""

import shutil
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'ktodata[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
NOWHERE = "MAP * ~NOTFOUND"
THIS_MACHINE = f"{NOWHERE}, EXCLUDE 127.0.0.1"


@contextmanager
def launched(reach=NOWHERE):
    """A browser that finds no host, or only those that `reach` lets it find."""
    flags = ["--no-sandbox", "--disable-quic", "--disable-dev-shm-usage", f"--host-resolver-rules={reach}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def listening(browser, width):
    """A page `width` wide that writes down what it says on its console; `console` holds it."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    opened = context.new_page()
    opened.console = []
    opened.on("console", lambda message: opened.console.append(message.text))
    opened.on("pageerror", lambda error: opened.console.append(str(error)))
    yield opened
    context.close()
