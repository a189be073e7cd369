"""What the front end of the desk's widget would send and read."""

import re
from html import unescape
from typing import Any


def say(widget: Any, **message: Any) -> None:
    """Send a message as the page does."""
    widget._handle_custom_msg(message, [])


def data_of(widget: Any) -> dict[str, str]:
    """The data-* attributes of the page's main element: row-id, seen, last, detector, filters, decided, blind."""
    main = re.search(r'<main id="main"[^>]*>', widget.page["html"])[0]
    return {name: unescape(value) for name, value in re.findall(r'data-([\w-]+)="([^"]*)"', main)}
