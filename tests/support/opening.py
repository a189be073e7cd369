"""The report in a browser, and what its script unpacks."""

import base64
import gzip
import json
import re
from contextlib import contextmanager


def unpacked(html, name):
    """What stands in the page for its script: "rows-data" or "dots-data"; None where that is not there."""
    found = re.search(rf'<script type="text/plain" id="{name}">([A-Za-z0-9+/=]+)</script>', html)
    return found and json.loads(gzip.decompress(base64.b64decode(found[1])))


@contextmanager
def opened(browser, file, *, before=None, **context):
    """A page opened from disk with the network off: page.said is its console and errors, page.asked every address it asked for."""
    tab = browser.new_context(offline=True, **context)
    try:
        page = tab.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        if before:
            page.add_init_script(before)
        page.goto(file.as_uri())
        yield page
    finally:
        tab.close()
