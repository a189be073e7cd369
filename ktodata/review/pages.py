"""The desk's pages, from their templates: every text is escaped, and cleaned of what no page can show."""

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ktodata.report import text

STATIC = {"desk.js": "text/javascript", "desk.css": "text/css", "icon.svg": "image/svg+xml"}


def render(template: str, **context: Any) -> str:
    """A page from its template."""
    return str(_environment().get_template(template).render(**context))


@cache
def static(name: str) -> bytes:
    """A file of the page: the look of the report, with what is the desk's own after it; or a script or picture as it is."""
    own = resources.files("ktodata.review").joinpath("static", name).read_bytes()
    if name != "desk.css":
        return own
    return resources.files("ktodata.report").joinpath("templates/style.css").read_bytes() + own


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ktodata.review"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: text.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (text.count, text.percent, text.number, text.interval, text.plural, text.one_line)
    environment.filters |= {function.__name__: function for function in shown}
    return environment
