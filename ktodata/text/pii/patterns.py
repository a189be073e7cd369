"""Personal data and secrets in a text, found by their form: which kind, from which character to which.

kind          what                                                     found when
email         e-mail address                                           local part, @ and a domain with a top level
phone         telephone number                                         +country code and valid there; 212-555-0123 and the like
ip_address    IPv4 or IPv6                                             valid; no loopback, no net mask, and 1.2.3.4 is a section
credit_card   card number                                              an issuer's prefix and length, and the Luhn check
iban          bank account                                             its country's form, and the mod 97 check
us_ssn        US social security number                                123-45-6789 with a number that can be issued
api_key       AWS, GitHub, GitLab, OpenAI, Slack, Google, Stripe, ...  the prefix and length that the vendor gives them
token         JSON Web Token                                           header and claims that begin as JSON does
private_key   PEM private key                                          its armour; without an end what looks like its base64
password_url  address with user and password                           scheme://user:password@

Not found by form: names, postal addresses, birthdays, telephone numbers written without a country code outside North America,
passwords in prose. Numbers are checked by python-stdnum and phonenumbers; detect-secrets gives no positions and wants a network
library, scrubadub is no longer kept. Every pattern has bounded repeats or disjoint parts, so the time grows with the length of
the text and no text can make it explode.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import polars as pl
from stdnum import iban, luhn
from stdnum.us import ssn

MAX_LEFT_OFF = 3  # groups of digits at a candidate's end that may not be its own


@dataclass(frozen=True, order=True)
class Span:
    """Characters [start, end) of a text, and the kind of thing that they are."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class PiiKind:
    """How one kind is found.

    screen : for polars' engine: a text that it does not match holds none. pattern : candidates. genuine : how many of a
    candidate's first characters are one; 0 for none.
    """

    screen: str
    pattern: re.Pattern[str]
    genuine: Callable[[str], int]


def find_pii(text: str, kinds: Iterable[str] | None = None) -> list[Span]:
    """What is found in a text, in its order, no two overlapping; None: all kinds."""
    return merged(span for name in (KINDS if kinds is None else kinds) for span in _of_kind(name, text))


def _of_kind(name: str, text: str) -> Iterator[Span]:
    kind, place = KINDS[name], 0
    while candidate := kind.pattern.search(text, place):
        length = kind.genuine(candidate[0])
        # what a candidate took too much may be the beginning of the next
        place = candidate.start() + length if length else candidate.end()
        if length:
            yield Span(candidate.start(), place, name)


def find_in_texts(texts: pl.Series, also: Callable[[str], list[Span]] | None = None) -> dict[str, list[Span]]:
    """{text: what is found in it} for the texts that hold something.

    texts : strings or nulls; each different text is looked at once, and by Python only where a quick screen asks for it.
    also : a further finder, which sees every text.
    """
    different = texts.drop_nulls().unique(maintain_order=True).alias("text").to_frame()
    screened = different.select("text", *(pl.col("text").str.contains(kind.screen).alias(name) for name, kind in KINDS.items()))
    if also is None:
        screened = screened.filter(pl.any_horizontal(*KINDS))
    spans_of = {}
    for text, *passed in screened.iter_rows():
        spans = find_pii(text, [name for name, there in zip(KINDS, passed, strict=True) if there])
        if also is not None:
            spans = merged([*spans, *also(text)])
        if spans:
            spans_of[text] = spans
    return spans_of


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same in order; of those that overlap one, over all their characters, with the kind of the first and longest."""
    one_each: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if one_each and span.start < one_each[-1].end:
            last = one_each[-1]
            one_each[-1] = Span(last.start, max(last.end, span.end), last.kind)
        else:
            one_each.append(span)
    return one_each


# --- is a candidate one? -----------------------------------------------------------------------------------------------


def _as_it_is(candidate: str) -> int:
    return len(candidate)


def _longest(candidate: str, is_one: Callable[[str], bool], separators: str) -> int:
    """Groups at the end may belong to what follows ("... 3000 BIC", "... 1111 123"): leave them off until it is one."""
    end = len(candidate)
    for _ in range(1 + MAX_LEFT_OFF):
        if is_one(candidate[:end]):
            return end
        end = max(candidate.rfind(sign, 0, end) for sign in separators)
        if end < 0:
            break
    return 0


def _phone(candidate: str) -> int:
    return _longest(candidate, _is_phone, " ./-") if candidate[0] == "+" else len(candidate) * _is_us_phone(candidate)


@lru_cache(10_000)
def _is_phone(number: str, region: str | None = None) -> bool:
    import phonenumbers  # its tables take a moment, and few texts need them

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


def _is_us_phone(number: str) -> bool:
    # three plain numbers can stand in a row with spaces or points, hardly in this form with brackets or hyphens
    return "-" in number or "(" in number or _is_phone(number, "US")


def _ip_address(candidate: str) -> int:
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return 0
    groups = [group for group in re.split("[.:]", candidate) if group]
    # 1.2.3.4 is a section or a version, [1::2] a slice
    is_specific = any(len(group) > 1 for group in groups) if address.version == 4 else len(groups) > 2 or candidate[4:6] == "::"
    return len(candidate) * (is_specific and not (address.is_loopback or address.is_unspecified or _is_mask(address)))


def _is_mask(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """255.255.255.0 and the like, which belong to no machine."""
    return address.version == 4 and (address.is_multicast or address.is_reserved)


_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:6011|65\d\d|64[4-9]\d|62\d\d|35[2-8]\d)\d{12,15}",
    re.ASCII,
)


def _credit_card(candidate: str) -> int:
    return _longest(candidate, _is_card, " -")


def _is_card(number: str) -> bool:
    digits = number.replace(" ", "").replace("-", "")
    return _ISSUERS.fullmatch(digits) is not None and len(set(digits)) > 1 and luhn.checksum(digits) == 0


def _iban(candidate: str) -> int:
    return _longest(candidate, _is_iban, " ")


def _is_iban(number: str) -> bool:
    digits = "".join(str(int(sign, 36)) for sign in (number[4:] + number[:4]).replace(" ", ""))
    # the sum first, for it costs little; whether the bank exists is not asked: an account of a closed one is somebody's too
    return int(digits) % 97 == 1 and bool(iban.is_valid(number, check_country=False))


def _us_ssn(candidate: str) -> int:
    return len(candidate) * ssn.is_valid(candidate)


def _api_key(candidate: str) -> int:
    # words joined by hyphens (sk-fading-circle-of-dots) have no digits or no capitals
    is_random = not candidate.startswith("sk-") or (re.search("[0-9]", candidate) and re.search("[A-Z]", candidate))
    return len(candidate) if is_random else 0


# --- where candidates are ----------------------------------------------------------------------------------------------

_KEYS = "|".join(
    (
        r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        r"gh[pousr]_[A-Za-z0-9]{36,251}",
        r"github_pat_[A-Za-z0-9_]{22,251}",
        r"glpat-[A-Za-z0-9_-]{20,64}",
        r"sk-[A-Za-z0-9_-]{20,220}",  # OpenAI, Anthropic and those that followed them
        r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
        r"xapp-[0-9]-[A-Za-z0-9-]{10,250}",
        r"AIza[A-Za-z0-9_-]{35}",
        r"ya29\.[A-Za-z0-9_-]{20,250}",
        r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,250}",
        r"hf_[A-Za-z0-9]{34,40}",
        r"npm_[A-Za-z0-9]{36}",
        r"pypi-[A-Za-z0-9_-]{50,250}",
        r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    )
)
_KEY_SCREEN = "AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|sk-|xox[a-z]-|xapp-|AIza|ya29|[sr]k_|hf_|npm_|pypi-|SG[.]"
_ARMOUR = r"-----{} (?:[A-Z0-9]{{1,16}} ){{0,4}}PRIVATE KEY(?: BLOCK)?-----"
_BEGIN, _END = _ARMOUR.format("BEGIN"), _ARMOUR.format("END")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

KINDS = {
    "email": PiiKind(
        r"[A-Za-z0-9_%+-]@[A-Za-z0-9-]+[.][A-Za-z]",
        re.compile(
            r"(?<![A-Za-z0-9])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
        ),
        _as_it_is,
    ),
    "phone": PiiKind(
        r"[+][1-9][ .()/-]{0,2}[0-9]|[0-9]{3}\)? ?[ .-]?[0-9]{3}[ .-][0-9]{4}",
        re.compile(
            r"(?<![0-9A-Za-z+])\+[1-9](?:[ .()/-]{0,2}[0-9]){6,14}(?![0-9])"
            r"|(?<![0-9A-Za-z+.,-])(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}"
            r"(?![0-9A-Za-z]|[.,-][0-9])"
        ),
        _phone,
    ),
    "ip_address": PiiKind(
        r"[0-9][.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}",
        re.compile(
            rf"(?<![0-9A-Za-z.])(?:{_BYTE}\.){{3}}{_BYTE}(?![0-9A-Za-z]|\.[0-9])"
            r"|(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])"
        ),
        _ip_address,
    ),
    "credit_card": PiiKind(
        r"[2-6](?:[ -]?[0-9]){13}",
        re.compile(r"(?<![0-9A-Za-z.,-])[2-6](?:[ -]?[0-9]){13,18}(?![0-9A-Za-z])"),
        _credit_card,
    ),
    "iban": PiiKind(
        r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}",
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        _iban,
    ),
    "us_ssn": PiiKind(
        r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
        re.compile(r"(?<![0-9A-Za-z-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9A-Za-z]|-[0-9])"),
        _us_ssn,
    ),
    "api_key": PiiKind(_KEY_SCREEN, re.compile(rf"(?<![A-Za-z0-9_-])(?:{_KEYS})"), _api_key),
    "token": PiiKind(
        r"eyJ[A-Za-z0-9_-]+[.]eyJ",
        re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}+\.eyJ[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]*+"),
        _as_it_is,
    ),
    "private_key": PiiKind(
        "PRIVATE KEY",
        # the body has single hyphens (Proc-Type), but never two: so it cannot run into the next armour
        re.compile(rf"{_BEGIN}(?:(?:[A-Za-z0-9+/=\s\\:,.]|-(?!-))*+{_END}|(?:[\s\\]{{0,4}}[rn]?[A-Za-z0-9+/=]{{32,}}+)++)"),
        _as_it_is,
    ),
    "password_url": PiiKind(
        r"://[^\s/:@]{0,64}:[^\s/@]+@",
        re.compile(
            r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s/:@\"'<>]{0,64}:[^\s/@\"'<>]{1,128}@[A-Za-z0-9.-]{0,253}"
        ),
        _as_it_is,
    ),
}
