"""Rows and audits as a notebook draws them: readable, folded where long, and text whatever is written in it."""

from html.parser import HTMLParser

import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import MissingColumnError
from ktodata.feedback import feedback_table

TEXTS = {
    "prompt": ["<script>alert(1)</script>", "abc \u202edcba", "lone \\ud800 and \x07", "y" * 30_000],
    "completion": ["<img src=x onerror=alert(1)>", '" onfocus="x', "one\ntwo", "z\n" * 40],
}


class Page(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def names(self):
        return {tag for tag, _ in self.tags}


def drawn(frame, **settings):
    return Page(kd.notebook.show(frame, **settings)._repr_html_())


def test_hostile_text_is_text():
    page = drawn(pl.DataFrame(TEXTS))
    assert page.names() <= {"div", "table", "caption", "thead", "tr", "th", "tbody", "td", "details", "summary"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>" in page.text and "⟨U+202E⟩" in page.text and "␇" in page.text
    assert "\u202e" not in page.text and "\x07" not in page.text


def test_long_texts_are_folded_and_counted():
    page = drawn(pl.DataFrame(TEXTS))
    summaries = [text for text in page.text.split("…") if "characters in all" in text]
    assert [text.split()[0] for text in summaries] == ["30,000", "80"]  # by length, and by lines
    assert page.text.count("y") == 20_000 and "and 10,000 characters more" in page.text
    assert page.text.count("z") == 40
    short = drawn(pl.DataFrame({"prompt": ["a" * 400], "completion": ["b\n" * 11]}))
    assert "details" not in short.names()


def test_the_label_is_a_word_and_its_quality_a_bar():
    frame = pl.DataFrame(
        {
            "row_id": ["1", "2", "3"],
            "prompt": ["p"] * 3,
            "completion": ["c"] * 3,
            "label": [True, False, None],
            "label_quality": [0.91, 0.128, None],
            "evidence_against": [None, ["outvoted", "contradicted"], []],
            "secret": ["s"] * 3,
        }
    )
    page = drawn(frame)
    assert all(word in page.text for word in ("● desirable", "● undesirable", "● no label"))
    assert [attributes["value"] for tag, attributes in page.tags if tag == "meter"] == ["0.91", "0.13"]
    assert page.text.count("evidence_against:") == 1 and "outvoted, contradicted" in page.text and "secret" not in page.text
    assert "secret: s" in drawn(frame, columns=["secret"]).text and "row_id" not in drawn(frame, columns=["secret"]).text
    assert repr(kd.notebook.show(frame)) == repr(frame)


@pytest.mark.parametrize(("rows", "counted"), [(2, "2 of 1,204 rows"), (5_000, "1,204 of 1,204 rows"), (0, "0 of 1,204 rows")])
def test_it_says_how_many_rows_there_are(rows, counted):
    frame = pl.DataFrame({"prompt": ["p"] * 1204, "completion": ["c"] * 1204})
    page = drawn(frame, rows=rows)
    assert counted in page.text and sum(tag == "tr" for tag, _ in page.tags) == min(rows, 1204) + 1


def test_a_frame_without_texts_is_refused():
    with pytest.raises(MissingColumnError, match="show needs column 'completion'"):
        kd.notebook.show(pl.DataFrame({"prompt": ["p"]}))
    with pytest.raises(MissingColumnError, match="'nowhere'"):
        kd.notebook.show(pl.DataFrame({"prompt": ["p"], "completion": ["c"]}), columns=["nowhere"])


@pytest.fixture(scope="module")
def audit():
    words = ("pasta", "metres", "spring", "tomato", "poem")
    rows = [
        (f"{words[n % 5]} {n % 30}?", f"{'yes' if n % 3 else 'no'} {words[n % 4]} {n}", (n % 3 > 0) ^ (n % 9 == 0))
        for n in range(90)
    ]
    rows[0] = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", True)
    return kd.audit(feedback_table(*rows), seed=0, folds=3, repeats=1)


def test_an_audit_draws_its_verdict_its_trust_curve_and_what_to_review(audit):
    page = Page(audit._repr_html_())
    for row in audit.summary.iter_rows(named=True):
        assert f"{row['given']}{row['rows']}{row['verdict'] or 'not measured'}" in page.text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1 and images[0]["src"].startswith("data:image/svg+xml;base64,") and "Trust curve" in images[0]["alt"]
    next_rows = audit.next_reviews(6)
    assert all(completion in page.text for completion in next_rows["completion"])
    assert page.text.count("why: ") == 6 and "6 of 6 rows" in page.text
    assert "not known" in page.text  # nobody has reviewed a row


def test_a_reviewed_audit_gives_the_error_rate_with_its_interval(audit):
    next_rows = audit.next_reviews(24)
    page = Page(audit.with_reviews(next_rows.select("row_id", trusted_label=pl.lit(value=True)))._repr_html_())
    assert " to " in page.text and "%" in page.text.split("What to review next")[0]


def test_an_audit_that_learnt_nothing_says_why():
    few = kd.audit(feedback_table(("a", "b", True), ("c", "d", False)))
    page = Page(few._repr_html_())
    assert few.metrics["not_learnt"] in page.text and set(few.next_reviews(5)["why"]) == {"measures"}
