"""What is found, told apart from what only looks alike; how fast; and that no text makes it slow."""

import base64
import gzip
import json
import random
import time

import polars as pl
import pytest

from ktodata.errors import MissingExtraError
from ktodata.feedback import feedback_table
from ktodata.text.pii import presidio
from ktodata.text.pii.masks import Placeholders, masked, masks_column, pii_spans, replaced
from ktodata.text.pii.patterns import KINDS, Span, find_in_texts, find_pii, merged


def _noise(size: int, seed: int = 0) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


LETTERS = "".join(sign for sign in _noise(600) if sign.isalnum())
# written here in parts: a scanner of this repository must not take them for keys
PLANTED = {
    "email": (
        *(
            "ann@example.org",
            "bob.b+news@mail.example.co.uk",
            "a_b-c@xn--bcher-kva.example",
            "x@y.io",
            "First.Last@Sub.Domain.COM",
        ),
        *("o%brien@example.com", "1234@example.museum", "ann@example.org."),
    ),
    "phone": (
        *("+44 20 7946 0958", "+49 30 901820", "+1 212 555 0123", "+1-212-555-0123", "+1 (212) 555-0123", "+33 1 42 68 53 00"),
        *(
            "(212) 555-0123",
            "212-555-0123",
            "212.555.0123",
            "1-800-555-0199",
            "+919876543210",
            "+44 (0)20 7946 0958",
            "+61 2 9374 4000",
        ),
        *("555-123-4567", "+81 3-6384-9000"),
    ),
    "ip_address": (
        *("203.0.113.77", "192.168.0.10", "8.8.8.80", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"),
        *("2001:0db8:85a3:0000:0000:8a2e:0370:7334", "2a00:1450:4001::200e"),
    ),
    "credit_card": (
        *("4111 1111 1111 1111", "4012888888881881", "5555-5555-5555-4444", "2223003122003222", "378282246310005"),
        *("3714 496353 98431", "6011111111111117", "3530111333300000", "30569309025904"),
    ),
    "iban": (
        *("GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606", "NL91 ABNA 0417 1643 00"),
        *("BE68 5390 0754 7034", "CH9300762011623852957", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"),
    ),
    "us_ssn": ("123-45-6789", "536-22-1234", "001-01-0001"),
    "api_key": (
        *("AKIA" + "QWERTYUIOP234567", "ghp_" + LETTERS[:36], "github_pat_" + LETTERS[:22] + "_" + LETTERS[22:81]),
        *("sk-" + LETTERS[:48], "sk-proj-" + LETTERS[:60], "xoxb-" + "123456789012-" + LETTERS[:24], "AIza" + LETTERS[:35]),
        *("glpat-" + LETTERS[:20], "sk_live_" + LETTERS[:24], "hf_" + LETTERS[:34], "npm_" + LETTERS[:36]),
    ),
    "token": ("eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",),
    "private_key": (
        f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{_noise(48)}\n{_noise(30)}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{_noise(48)}\n{_noise(48, 1)}",  # an answer that was cut off
        f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{_noise(48)}\\n-----END OPENSSH PRIVATE KEY-----",
    ),
    "password_url": ("postgres://bob:hunter2@db.example.org", "https://user:p%40ss@example.org", "redis://:secret@10.1.2.3"),
}
# what only looks alike, and what must be found in it: nothing
ALIKE = (
    *(
        "@ann",
        "ann@localhost",
        "a @ b.org",
        "user@host",
        "git@",
        "@media (max-width: 3px)",
        "lists.append@",
        "x@1.5",
        "def f(a@b): pass",
    ),
    *(
        "1,234,567,890",
        "3.14159265358979",
        "200 300 4000",
        "12-34-56",
        "2024-12-31",
        "1234567890",
        "in 1990-2000",
        "+5",
        "x+12345678",
    ),
    *("555-1234", "10 20 30 40", "100-200-3000", "0.212.555.0123", "2+2=4", "+1234567890123456", "the years 1914-1918 1939-1945"),
    *(
        "1.2.3.4",
        "v10.1.2.3",
        "127.0.0.1",
        "0.0.0.0",
        "300.1.2.3",
        "10.0.19041.1",
        "255.255.255.0",
        "::",
        "std::cout",
        "x[1::2]",
        "12:30:45",
        "a::b",
    ),
    *(
        "00:1A:2B:3C:4D:5E",
        "Matthew 5:3",
        "::1",
        "4111 1111 1111 1112",
        "0000 0000 0000 0000",
        "1234567812345670",
        "4444 4444 4444 4444",
    ),
    *(
        "1234 5678 9012 3456",
        "9780306406157",
        "1700000000000",
        "GB82 WEST 1234 5698 7654 33",
        "AB12 CDEF",
        "ISO 8601 2004",
        "DE12345678",
    ),
    *("000-12-3456", "666-12-3456", "987-65-4321", "123-00-4567", "1123-45-6789", "123-45-67890", "12-345-6789"),
    *(
        "sk-fading-circle-of-many-dots",
        "task-ABCdefghij0123456789xyz",
        "AKIAshort",
        "ghp_short",
        "eyJ.eyJ.x",
        "sk-learn",
        "hf_transfer",
    ),
    *(
        "-----BEGIN PRIVATE KEY----- is how it starts",
        "-----BEGIN PUBLIC KEY-----",
        "http://example.org:8080/@bob",
        "https://example.org/a:b",
    ),
    *(
        "10:30",
        "3/4",
        "E=mc^2",
        "9876543210987654321098",
        "Call me at noon",
        "ratio 16:9:4",
        "20.000.000",
        "192.168",
        "5 ** 10 ** 15",
    ),
)


def pieces(text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in find_pii(text)]


def test_each_planted_one_is_found_whole_and_nothing_that_only_looks_alike():
    """Precision and recall of each kind; a value counts when kind and every character are right."""
    table = {}
    for kind, values in PLANTED.items():
        hits = sum((kind, value.rstrip(".")) in pieces(f"so: {value} is it, not 7 of 12") for value in values)
        table[kind] = {"planted": len(values), "recall": hits / len(values)}
    false_kinds = [kind for text in ALIKE for kind, _ in pieces(f"so: {text} is it")]
    for kind, scores in table.items():
        wrong = false_kinds.count(kind)
        wrong += sum(other == kind for name, values in PLANTED.items() if name != kind for v in values for other, _ in pieces(v))
        scores["precision"] = scores["planted"] / (scores["planted"] + wrong)
    assert false_kinds == []
    assert {kind: (scores["recall"], scores["precision"]) for kind, scores in table.items()} == dict.fromkeys(KINDS, (1.0, 1.0))


def test_of_plain_numbers_none_is_taken():
    """Ten thousand sums, dates, prices and long numbers, as arithmetic answers hold them; one in ten 16-digit numbers passes Luhn."""
    draw = random.Random(0)
    made = [f"{draw.randrange(10**6):,} + {draw.random() * 1000:.4f} = {draw.randrange(10**9)}" for _ in range(5000)]
    made += [
        f"{draw.randrange(1900, 2100)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02} {draw.randrange(10**10)}"
        for _ in range(5000)
    ]
    assert find_in_texts(pl.Series(made)) == {}


def test_several_stand_side_by_side():
    text = "+1 (212) 555-0123 (212) 555-0124, ann@example.org;bob@example.org 4111 1111 1111 1111 123 BE68 5390 0754 7034 BANK"
    assert pieces(text) == [
        ("phone", "+1 (212) 555-0123"),
        ("phone", "(212) 555-0124"),
        ("email", "ann@example.org"),
        ("email", "bob@example.org"),
        ("credit_card", "4111 1111 1111 1111"),
        ("iban", "BE68 5390 0754 7034"),
    ]


def test_what_overlaps_becomes_one_and_none_of_it_is_left():
    assert merged([Span(3, 9, "b"), Span(0, 5, "a"), Span(9, 12, "c")]) == [Span(0, 9, "a"), Span(9, 12, "c")]
    assert merged([Span(0, 9, "a"), Span(2, 4, "b")]) == [Span(0, 9, "a")]
    assert pieces("https://bob:secret@example.org") == [("password_url", "https://bob:secret@example.org")]


def test_the_screen_lets_through_whatever_the_pattern_finds():
    for kind, values in PLANTED.items():
        assert list(find_in_texts(pl.Series(values))) == list(values), kind


MB = 1_000_000
# each the worst that was thought of for one kind: candidates that begin everywhere and come to nothing
WORST = {
    "email": ("a@a.", "a.", "a" * 64 + " "),
    "phone": ("212-555-", "+1 "),
    "ip_address": ("1.", "a:"),
    "credit_card": ("4 ",),
    "iban": ("AA00 ",),
    "us_ssn": ("123-45-",),
    "api_key": ("sk-", "AKIA"),
    "token": ("eyJ", "eyJaaaaaaa."),
    "private_key": ("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n" + "A" * 40),
    "password_url": ("a://a:", ":a"),
}


@pytest.mark.parametrize("kind", WORST)
def test_a_megabyte_that_is_made_to_be_slow_is_not(kind):
    """Seconds of this process, not of the clock; a pattern that backtracks over the whole text would take hours."""
    for unit in WORST[kind]:
        started = time.process_time()
        find_pii((unit * (MB // len(unit) + 1))[:MB], [kind])
        assert time.process_time() - started < 12, unit[:20]


def test_a_placeholder_is_the_same_for_the_same_value_within_a_row():
    rows = feedback_table(
        ("mail ann@example.org or bob@example.org", "I wrote to BOB@example.org and Ann@Example.org", True),
        ("nothing", "here", False),
        {"prompt": "user: 4111 1111 1111 1111", "completion": "4111-1111-1111-1111?", "label": True}
        | {"turns": [{"role": "system", "content": "no"}, {"role": "user", "content": "4111 1111 1111 1111"}]},
    )
    spans = pii_spans(rows)
    with_masks = rows.join(masks_column(rows["row_id"], spans), on="row_id")
    new = masked(with_masks)
    assert new["prompt"].to_list() == ["mail <EMAIL_1> or <EMAIL_2>", "nothing", "user: <CREDIT_CARD_1>"]
    assert new["completion"].to_list() == ["I wrote to <EMAIL_2> and <EMAIL_1>", "here", "<CREDIT_CARD_1>?"]
    assert [turn["content"] for turn in new["turns"][2]] == ["no", "<CREDIT_CARD_1>"]
    assert new.drop("prompt", "completion", "turns").equals(with_masks.drop("prompt", "completion", "turns"))
    assert "ann" not in json.dumps(spans.to_dicts())


def test_raters_stay_apart_when_their_addresses_are_masked():
    rows = feedback_table(
        {"prompt": "a", "completion": "b", "label": True, "rater": "ann@example.org"},
        {"prompt": "c", "completion": "d", "label": True, "rater": "bob@example.org", "note": "ask ann@example.org"},
        {"prompt": "e", "completion": "f", "label": True, "rater": "ann@example.org"},
    )
    with_masks = rows.join(masks_column(rows["row_id"], pii_spans(rows)), on="row_id")
    new = masked(with_masks, ["rater", "note", "source_line"])
    assert new["rater"].to_list() == ["<EMAIL_1>", "<EMAIL_2>", "<EMAIL_1>"]
    assert new["note"].to_list() == [None, "ask <EMAIL_1>", None]


def test_without_masks_the_table_is_as_it_was():
    rows = feedback_table(("ann@example.org", "x", True))
    assert masked(rows, ["rater"]).equals(rows)


def test_positions_count_characters_also_beyond_ascii():
    text = "🙂é 名前 ann@example.org 🙂"
    (span,) = find_pii(text)
    assert replaced(text, [(span.start, span.end, "<X>")]) == "🙂é 名前 <X> 🙂"


def test_placeholders_number_by_value_not_by_spelling():
    given = Placeholders()
    assert [given.of("phone", value) for value in ("212-555-0123", "(212) 555-0123", "212-555-0124")] == [
        "<PHONE_1>",
        "<PHONE_1>",
        "<PHONE_2>",
    ]


def test_a_further_finder_sees_every_text_and_its_finds_are_merged():
    spans = find_in_texts(
        pl.Series(["Ann Lee, ann@example.org", "nobody"]), lambda text: [Span(0, 7, "person")] if "Ann" in text else []
    )
    assert spans == {"Ann Lee, ann@example.org": [Span(0, 7, "person"), Span(9, 24, "email")]}


def test_presidio_that_is_not_there_is_told_when_asked_for(monkeypatch):
    monkeypatch.setattr(presidio, "find_spec", lambda name: None)
    assert presidio.presidio() is None
    with pytest.raises(MissingExtraError, match="pip install presidio-analyzer"):
        presidio.presidio(names=True)


def test_presidio_where_it_is_installed_finds_numbers_as_they_are_written_at_home():
    pytest.importorskip("presidio_analyzer", reason="presidio-analyzer is not installed")
    finder, what = presidio.presidio()
    assert Span(5, 18, "phone") in finder("call 020 7946 0958 now")
    assert what.endswith("without names")


@pytest.mark.shared
def test_what_real_sets_hold(shared):
    """Texts with each kind. Every one was read: the arithmetic holds none, in conversations people give addresses and numbers."""
    assert _counts(shared / "kto_gsm8k_solutions.jsonl.gz") == {}
    assert _counts(shared / "kto_hh_harmless.jsonl.gz") == {"email": 6, "phone": 6}


def _counts(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [value for line in file for value in json.loads(line).values() if isinstance(value, str)]
    counts: dict[str, int] = {}
    for spans in find_in_texts(pl.Series(texts)).values():
        for kind in {span.kind for span in spans}:
            counts[kind] = counts.get(kind, 0) + 1
    return counts
