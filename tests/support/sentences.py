"""Sentences on a page, in a card and in a terminal, read back: parts and wholes, and texts about nothing."""

import re
from html import unescape

PART_OF_WHOLE = re.compile(r"(?<![\d.,%]) ?\b(\d[\d,]*) of (?:the |all )?(\d[\d,]*)\b(?![.,]?\d)(?!\s?%)")
ABOUT_NOTHING = re.compile(
    r"\b(?:these|those|the|all|other|share|of|on|judge) 0 (?:rows?|labels?|raters?|texts?|flags?)\b", re.IGNORECASE
)


def text_of(page):
    """The words of a page: no tags, scripts or styles."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


def parts_of_wholes(text):
    """Every (N, M) of "N of M" in a text."""
    return [tuple(int(number.replace(",", "")) for number in pair) for pair in PART_OF_WHOLE.findall(text)]


def larger_than_its_whole(text):
    """What stands about each "N of M" with N over M."""
    return [
        text[max(match.start() - 60, 0) : match.end() + 60]
        for match in PART_OF_WHOLE.finditer(text)
        if int(match[1].replace(",", "")) > int(match[2].replace(",", ""))
    ]


def about_nothing(text):
    """Sentences about no row at all."""
    return [text[max(match.start() - 60, 0) : match.end() + 60] for match in ABOUT_NOTHING.finditer(text)]
