"""Text that any page can show, and numbers that read easily."""

import pytest

from ktodata.report.text import bytes_size, count, excerpt, interval, lead, markdown, number, one_line, percent, plural, with_code
from ktodata.stats import Interval
from ktodata.visible_text import clean


def test_clean_makes_everything_visible():
    assert clean("a\x00b\x1b\x7f") == "a␀b␛␡"
    assert clean("\ud800x") == "\ufffdx"
    assert clean("\u202eevil\u2069") == "⟨U+202E⟩evil⟨U+2069⟩"
    assert clean("a\u200bb\u2060c\ufeffd\x9be\u200f\U000e0041") == "a⟨U+200B⟩b⟨U+2060⟩c⟨U+FEFF⟩d⟨U+009B⟩e⟨U+200F⟩⟨U+E0041⟩"
    assert clean("pay\u200dpal \u200d x") == "pay⟨U+200D⟩pal ⟨U+200D⟩ x"
    assert clean("line\r\nline\rline\ttab") == "line\nline\nline\ttab"


def test_clean_leaves_natural_text_alone():
    text = "naïve 你好 שלום مرحبا می\u200cخواهم क्\u200dष 👩‍👩‍👧 ❤️\u200d🔥 ½"
    assert clean(text) == text


def test_excerpt_knows_the_true_length():
    cut = excerpt("x" * 100_000, 10)
    assert (cut.text, cut.length, cut.cut) == ("x" * 10, 100_000, True)
    assert not excerpt("short").cut
    assert excerpt(None).text == ""


def test_markdown_means_only_itself():
    assert markdown("a|b *c* `d` <e> $f$\n# g") == r"a\|b \*c\* \`d\` \<e\> \$f\$ \# g"


def test_one_line_ends_with_an_ellipsis():
    assert one_line("a\nb") == "a b"
    assert one_line("x" * 99, 5) == "xxxx…"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(12408), "12,408"),
        (count(None), "unknown"),
        (count(True), "unknown"),
        (percent(0.0831), "8.3\u2009%"),
        (percent(float("nan")), "unknown"),
        (number(1.23456), "1.235"),
        (interval([0.04, 0.12], as_percent=True), "4.0 to 12.0\u2009%"),
        (interval([0.9996, 0.9999], as_percent=True), "99.96 to 99.99\u2009%"),
        (interval({"value": 1, "low": 0.5, "high": None}), ""),
        (interval({"low": 0.5, "high": 0.75}), "0.500 to 0.750"),
        (interval(Interval(0.6, 0.5, 0.75)), "0.500 to 0.750"),
        (plural(1, "row"), "1 row"),
        (plural(2, "row"), "2 rows"),
        (bytes_size(12_345), "12.3 kB"),
        (bytes_size(999), "999 bytes"),
    ],
)
def test_numbers(shown, expected):
    assert shown == expected


def test_no_line_ends_between_a_number_and_its_percent_sign():
    assert with_code("50 % of `a %` (3.1\u2009%), a %") == "50\u202f% of <code>a %</code> (3.1\u202f%), a %"


def test_a_long_text_opens_with_its_first_sentence():
    rest = "Of all labels 0.6 to 9 % are wrong (95 % interval). " * 4
    assert lead(f"5 of 60 rows, drawn at random (e.g. 3.1 %), are wrong. {rest}") == (
        "5 of 60 rows, drawn at random (e.g. 3.1 %), are wrong.",
        rest,
    )
    names = "Labels differ: rater Dr. Smith (swapped, cf. Miller) and “vs. All. Others. Whoever. Else”."
    assert lead(f"{names} {rest}") == (names, rest)
    assert lead("Short. Whole.") == ("Short. Whole.", "")
    assert lead(f"{'one sentence, ' * 30}no end") == (f"{'one sentence, ' * 30}no end", "")
