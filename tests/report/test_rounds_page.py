"""The page of a self-training: what each round was worth, which is the result, and where its own report is."""

import folders
import pytest
from test_page import Page

from ktodata.report.rounds_page import build_rounds_page


def lines_of(html):
    return [
        " ".join(Page(f"<tr>{line}").visible.split()) for line in html.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    ]


def test_each_round_has_its_line(rounds):
    first, second, third = lines_of(build_rounds_page(rounds()))
    assert first == "0 0.700 (0.600 to 0.800) – – – report"
    assert second == "1 (result) 0.760 (0.600 to 0.800) +0.060 (0.010 to 0.110) +0.060 (0.010 to 0.110) 10 of 36 report"
    assert third == "2 not trained – – 0 of 36 report"


def test_a_difference_that_includes_zero_says_so(rounds):
    summary = rounds()
    summary["rounds"][1]["minus_best"] = {"value": 0.01, "low": -0.02, "high": 0.04, "includes_zero": True}
    second = lines_of(build_rounds_page(summary))[1]
    assert second.count("includes zero") == 1 and "+0.010" in second


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, "Yes."),
        ({"helped": False, "chosen_round": 0}, "No."),
        ({"status": "running", "helped": None, "chosen_round": 0}, "Not finished."),
    ],
)
def test_the_answer_is_in_one_word(rounds, changes, answer):
    text = Page(build_rounds_page(rounds(**changes))).visible
    assert f"Did training's own doubts help{answer} Round 1 is the result." in text.replace("\n", "")
    assert "by reviewed verdicts (40 rows in 31 prompt groups, 25 desirable)" in text


def test_links_are_relative_and_lead_to_the_round_that_is_the_result(rounds):
    page = Page(build_rounds_page(rounds(chosen_round=2)))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a" and not attributes["href"].startswith("#")]
    assert links == ["rounds/2/report.html", *(f"rounds/{number}/report.html" for number in range(3))]
    assert "Report of round 2, the result" in page.visible and "2 (result)" in page.visible


def test_names_and_sentences_stay_text(rounds):
    page = Page(build_rounds_page(rounds()))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert folders.HOSTILE[1] in page.visible and folders.HOSTILE[0] in page.visible
