"""Untrusted text with every character visible: what no page or terminal shows, or obeys instead, is shown by number."""

import re

# Nothing here is HTML or Markdown: both escape on their own. Shown by number or picture are lone surrogates (no UTF-8 holds
# them), control characters (C0 and C1: a terminal obeys both), marks that turn the reading direction, and what has no width.
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# joiners belong between letters of Arabic and Indic scripts and between the parts of an emoji; anywhere else they hide
_JOINED = "\u0590-\u1fff\u2190-\u2bff\U0001f000-\U0001faff"
_JOINS = f"(?<=[{_JOINED}\ufe0f])[\u200c\u200d](?=[{_JOINED}])"
_HIDDEN = re.compile(
    f"({_JOINS})|"
    "[\x80-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def clean(value: str) -> str:
    """The same text with every character visible: controls as their picture, all else that is hidden by number."""
    value = _SURROGATE.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n"))
    value = _CONTROL.sub(lambda match: "␡" if match[0] == "\x7f" else chr(0x2400 + ord(match[0])), value)
    return _HIDDEN.sub(lambda match: match[0] if match[1] else f"⟨U+{ord(match[0]):04X}⟩", value)
