"""Jinja environments: a missing name is an error, every text of a page is escaped, and numbers are written by filters."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ktodata.labels.label_words import p_in_words
from ktodata.report import text
from ktodata.report.run_files import pick
from ktodata.visible_text import clean

FILTERS = (
    *(text.count, text.percent, text.number, text.signed, text.interval, text.plural, text.bytes_size),
    *(text.one_line, text.markdown, text.with_code, text.lead, p_in_words, pick),
)


@cache
def template_environment(package: str, *, html: bool = True) -> Environment:
    """The templates of `package`.

    html : every text that is not Markup is escaped, and cleaned of what no page can show. Without it the templates are Markdown,
        whose texts of the data go through the filter `markdown`
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=html,
        undefined=StrictUndefined,
        finalize=_clean_text if html else None,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in FILTERS}
    return environment


def _clean_text(value: object) -> object:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
