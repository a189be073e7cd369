"""The report in a browser, and what its script unpacks."""

import base64
import gzip
import json
import re
from contextlib import contextmanager


def decoded(html, name):
    """What stands in the page for its script: "search-data" or "map-data"; None where that is not there."""
    match = re.search(rf'<script type="text/plain" id="{name}">([A-Za-z0-9+/=]+)</script>', html)
    return match and json.loads(gzip.decompress(base64.b64decode(match[1])))


@contextmanager
def opened(browser, file, *, before=None, **context):
    """A page opened from disk with the network off: page.console is its console and errors, page.requests every address it loads."""
    tab = browser.new_context(offline=True, **context)
    try:
        page = tab.new_page()
        page.console, page.requests = [], []
        page.on("console", lambda message: page.console.append(message.text))
        page.on("pageerror", lambda error: page.console.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        if before:
            page.add_init_script(before)
        page.goto(file.as_uri())
        yield page
    finally:
        tab.close()
