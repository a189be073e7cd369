"""The page: everything is there, untrusted text stays text, and what is missing is said."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import folders
import polars as pl
import pytest
from opening import decoded

from ktodata.errors import RunError
from ktodata.files import read_note
from ktodata.report import build_audit_page, build_card, build_report
from ktodata.report.headline import headline, headline_text, label_trust
from ktodata.report.page import SECTIONS
from ktodata.report.run_contents import read_contents
from ktodata.report.sections.flow_section import reading_account
from ktodata.report.text import with_code


class Page(HTMLParser):
    """Tags with their attributes, ids, headings, and the text of the page; the page's own scripts, which follow it, apart."""

    VOID = ("meta", "br", "img", "link", "input", "hr")
    UNSEEN = ("script", "style")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text, self.headings, self.scripts = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        own = tag == "script" and self.open == ["html", "body"]
        (self.scripts if own else self.tags).append((tag, dict(attrs)))
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not set(self.open) & set(self.UNSEEN):
            self.text.append(data)

    @property
    def visible(self):
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return folders.write_run(tmp_path_factory.mktemp("run") / "small")


@pytest.fixture(scope="module")
def html(run):
    return build_report(run)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_section_is_there_under_a_heading(page):
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert [anchor for anchor, _, _ in SECTIONS if anchor not in ids] == []
    assert [tag for tag, _ in page.tags].count("section") == len(SECTIONS) - 1  # two were not measured, and share one
    assert "Did curation help (ktodata ablate" in page.visible and "Methods side by side (ktodata compare" in page.visible
    assert {"dropped-rows", "repeats", "quarantine", "manifest"} <= set(ids)  # folds that are named elsewhere


def test_the_numbers_are_those_of_the_run(page):
    """62 rows = 2 quarantined + 5 dropped + 9 held + 46 kept; 9 of 60 doubted: a count of all, with no interval."""
    assert "Of 62 rows in, 5 were dropped, 2 quarantined, 9 held for review; 46 are kept." in page.visible
    assert "9 of 60 labels are doubted (15.0 %)" in page.visible and "would be wrong if" not in page.visible
    assert "7.1 to 26.6 %" not in page.visible
    assert "36 train, 4 validation, 6 test" in page.visible
    assert "0.800" in page.visible and "0.700 to 0.900" in page.visible


@pytest.mark.parametrize("number", range(len(folders.HOSTILE)))
def test_hostile_text_is_shown_as_text(number, page):
    """Each hostile text is a doubted row, so the page shows it: visible characters unchanged, nothing of it became a tag."""
    text = folders.HOSTILE[number]
    visible = {3: "abc ⟨U+202E⟩dcba", 4: "x" * 320, 5: "nul ␀ and bell ␇ and escape ␛[31m"}.get(number, text)
    assert " ".join(visible.split()) in page.visible


def test_no_text_of_the_data_became_markup(page, html):
    allowed = {"name", "content", "charset", "http-equiv", "lang", "class", "id", "href", "style", "scope", "colspan", "open"}
    controls = {"hidden", "role", "tabindex", "type", "value", "autocomplete", "spellcheck", "maxlength"}
    spoken = {"aria-label", "aria-labelledby", "aria-describedby", "aria-hidden", "aria-disabled", "aria-live"}
    names = {name for tag, attributes in page.tags for name in attributes if not _drawn(tag)}
    assert names <= allowed | controls | spoken
    assert not {"script", "img", "iframe", "object", "embed", "form", "link"} & {tag for tag, _ in page.tags}
    assert len(page.scripts) == 3
    assert all(a.get("href", "#").startswith("#") for _, a in page.tags)
    assert "49" not in re.findall(r"poems [^<]*", html)[0]


def _drawn(tag):
    return tag in ("svg", "g", "path", "use", "text", "defs", "clippath", "rect", "title", "desc")


def test_nothing_is_loaded_and_only_the_script_that_the_policy_names_may_run(html):
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", html, flags=re.S)
    assert [attributes for attributes, _ in scripts] == [
        ' type="text/plain" id="map-data"',
        ' type="text/plain" id="search-data"',
        "",
    ]
    assert all(re.fullmatch("[A-Za-z0-9+/]+=*", data) for _, data in scripts[:2])
    digest = base64.b64encode(hashlib.sha256(scripts[2][1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; require-trusted-types-for 'script'; "
        "trusted-types 'none'; base-uri 'none'; form-action 'none'"
    )
    assert html.index("Content-Security-Policy") < html.index("<script")
    assert not re.search(r"(?:src|href)=\"?https?:|url\(['\"]?https?:|@import", html)


def test_our_script_makes_no_markup_and_no_code_of_a_text(html):
    script = re.search(r"<script>(.*?)</script>", html, flags=re.S)[1]
    assert "textContent" in script
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|import\(|fetch\(|XMLHttp|localStorage", script
    )


def test_the_page_says_what_it_runs(html, run):
    assert "runs no script but its own" in html
    audit = build_audit_page(run)
    assert "runs no script." in audit and "<script" not in audit and "script-src" not in audit


def test_what_is_packed_is_clean_and_holds_every_row_that_left(html):
    rows = decoded(html, "search-data")
    assert len(rows["row_id"]) == 5 + 9 + 2
    payloads = json.dumps([rows, decoded(html, "map-data")], ensure_ascii=False)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", payloads)
    assert "x" * 320 in payloads and "x" * 321 not in payloads


def test_hidden_states_report_their_numbers_beside_the_labels(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("label_noise",))
    (folder / "stages/hidden_states").mkdir()
    folders.noted(folder / "stages/hidden_states/metrics.json", {"layer": 17, "dimension": 576})
    page = Page(build_report(folder))
    assert (
        "Every number that hidden_states reported" in page.visible
        and "layer17" in page.visible
        and "dimension576" in page.visible
    )


def test_a_telemetry_step_is_part_of_the_page(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("label_noise",))
    (folder / "stages/telemetry").mkdir()
    folders.noted(folder / "stages/telemetry/metrics.json", {"rows_observed": 41, "knowledge_at_last_step": 0.25})
    page = Page(build_report(folder))
    assert "Every number that telemetry reported" in page.visible and "knowledge_at_last_step0.25" in page.visible
    assert "Training dynamics" in page.visible


def test_without_rows_that_left_there_is_nothing_to_find(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("split",))
    pl.read_parquet(folder / "quarantine.parquet").clear().write_parquet(folder / "quarantine.parquet")
    html = build_report(folder)
    assert decoded(html, "search-data") is None and 'id="search-tool"' not in html
    assert "every record became a row" in Page(html).visible


def test_controls_surrogates_and_direction_marks_are_made_visible(html):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    html.encode("utf-8")


def test_a_long_text_is_cut_and_its_length_said(page, html):
    assert "100,000 characters in all" in page.visible
    assert "x" * 1000 not in html


def test_headings_go_down_one_level_at_a_time(page):
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(below <= above + 1 for above, below in zip(page.headings, page.headings[1:], strict=False))


def test_tables_and_pictures_speak(page):
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 8
    assert all(p["role"] == "img" and set(p["aria-labelledby"].split()) <= ids for p in pictures)


def test_no_id_is_given_twice_and_every_link_arrives(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in page.tags if "href" in a} <= set(ids)


def test_cluster_names_are_not_read_as_mathematics(html):
    assert "sums $\\frac{1}{2}$" in html


def test_the_same_run_gives_the_same_bytes(run, html):
    assert build_report(run) == html


def test_a_run_of_ingest_only_says_what_is_missing(tmp_path):
    page = Page(build_report(folders.write_run(tmp_path / "short", stages=())))
    absent = page.visible.partition("Not part of this run")[2]
    for name in ("label_noise in the recipe", "coverage in the recipe", "train in the recipe", "evaluate in the recipe"):
        assert name in absent, name
    assert "Repeats were not looked for" in page.visible
    assert "Label noise is not part of this run" in page.visible


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        build_report(tmp_path)


def test_commands_stand_as_code_and_can_be_pasted(run, monkeypatch):
    """No back-tick is left in our own sentences, on the page or in the terminal, and the next step is a whole command."""
    monkeypatch.chdir(run.parent)
    page = build_report(run)
    head = page[page.index('id="verdict"') : page.index("</dl>", page.index('id="verdict"'))]
    assert "`" not in head and f"<code>ktodata review {run.name} --budget 69</code>" in head
    line = headline_text(run)[4]
    assert "the 9 rows held" in line and "60 rows" in line and f"ktodata review {run.name} --budget 69" in line
    assert "`" not in "".join(headline_text(run))
    assert with_code("`a <b>` and <i>") == "<code>a &lt;b&gt;</code> and &lt;i&gt;"
    assert with_code("one ` alone") == "one ` alone"


def test_page_card_terminal_and_audit_say_the_same_of_the_labels(run, page):
    """One sentence, made in labels/label_words.py; nothing says it in words of its own."""
    line = label_trust(read_contents(run).noise)
    sentence = " ".join(line.text.split()).replace("`", "")
    for text in (page.visible, Page(build_audit_page(run)).visible, build_card(run), headline_text(run)[0]):
        plain = " ".join(text.replace("\\", "").replace("`", "").split())
        assert sentence in plain and line.short in plain
    assert "trusted label" in sentence or "judged" in sentence or "order only" in sentence


def test_five_lines_for_a_terminal(run):
    lines = headline_text(run)
    assert len(lines) == 5
    assert lines[3].startswith("Did it help? Training did. On 6 held-out rows, measured against labels as given")
    assert "80\u2009% (70 to 90\u2009%)" in lines[3] and "50\u2009% (40 to 60\u2009%): +30.0 p" in lines[3]


@pytest.mark.parametrize(
    ("gain", "short"),
    [((0.3, 0.1, 0.5), "Training did."), ((0.1, -0.1, 0.3), "No clear difference."), ((-0.3, -0.5, -0.1), "It got worse.")],
)
def test_help_is_claimed_only_where_the_paired_interval_shows_it(tmp_path, gain, short):
    folder = folders.write_run(tmp_path / "small")
    evaluation = read_note(folder / "evaluation.json")
    evaluation["against_label"]["measures"]["policy_gain"] = dict(zip(("value", "low", "high"), gain, strict=True))
    folders.noted(folder / "evaluation.json", evaluation)
    line = headline_text(folder)[3]
    assert line.startswith(f"Did it help? {short}")
    value, low, high = (f"{100 * number:+.1f}" for number in gain)
    assert f"%): {value} percentage points ({low} to {high})." in line


def drawn(wrong, rows, low, high):
    rate = {"value": wrong / rows, "low": low, "high": high}
    return {"rows": rows, "drawn_at_random": rows, "wrong": wrong, "error_rate": rate}


@pytest.mark.parametrize(
    ("changed", "short"),
    [
        ({}, "Not measured."),  # an estimate says nothing of errors that follow a rule
        ({"label_noise_estimate": {"wrong": 0.3}}, "Not measured."),
        ({"identifiability": {"verdict": "weakly"}}, "Not measured."),
        ({"identifiability": {"verdict": "not"}}, "The text does not show it."),
        (
            {
                "identifiability": {"verdict": "not"},
                "injected_flips": {"per_given_class": {"undesirable": {"injected_flips_at_this_depth": {"flips": 6}}}},
            },
            "Too few rows to say.",
        ),
        ({"label_noise_estimate": {}, "identifiability": {}, "injected_flips": {}, "trusted": {"rows": 60}}, "Not measured."),
        ({"identifiability": {}, "not_learnt": "3 desirable rows."}, "Too few rows of one label to say."),
        ({"identifiability": {"verdict": "not"}, "trusted": {"rows": 100, "wrong": 30}}, "The text does not show it."),
        ({"trusted": drawn(0, 30, 0.0, 0.12)}, "Too few reviews (30). 0 of 30 rows drawn at random"),
        ({"trusted": drawn(1, 300, 0.0, 0.02)}, "Mostly."),
        ({"trusted": drawn(30, 300, 0.07, 0.14)}, "With care."),
        ({"trusted": drawn(90, 300, 0.25, 0.36)}, "Not as they are."),
    ],
)
def test_trust_is_no_greater_than_what_was_measured(tmp_path, changed, short):
    folder = folders.write_run(tmp_path / "small")
    folders.noted(folder / "stages/label_noise/metrics.json", folders.NOISE_FACTS | changed)
    assert headline_text(folder)[0].startswith(f"Can these labels be trusted? {short}")


def test_a_stage_that_says_less_than_expected_breaks_nothing(tmp_path):
    """Facts may be empty, or hold other names than this version knows."""
    folder = folders.write_run(tmp_path / "small")
    for facts in (folder / "stages").glob("*/metrics.json"):
        folders.noted(facts, {"something": {"else": [1, 2, {"deep": None}]}})
    folders.noted(folder / "evaluation.json", {"something": "else"})
    assert "Every number that rebalance reported" in Page(build_report(folder)).visible


def test_records_are_counted_as_records_where_each_makes_several_rows(run):
    """120 comparisons, 9 of them ties and 2 that no one can read; each of the others is a row of either label."""
    contents = read_contents(run)
    metrics = {"records": 120, "records_used": 109, "rows": 218, "quarantined": {"tie": 9, "not_json": 2}}
    account = reading_account(metrics)
    counts = {"rows_in": 218, "aside": 11, "quarantined": 0, "dropped": 8, "review": 0, "kept": 210, "relabelled": 0}
    flow = replace(contents.flow, **counts, account=account)
    spoils, done = (" ".join((line.short, line.text)) for line in headline(replace(contents, flow=flow))[1:3])
    assert "Of 120 records 109 became 218 rows, 11 could not be used or have no label. Of these rows, 0 were quarantined" in done
    assert "8 dropped" in done and "88\u2009% kept" in done
    assert "nreadable records" not in spoils and flow.unreadable == 2
    assert flow.answer.startswith(
        "Of 120 records 109 became 218 rows, 11 could not be used or have no label. Of these rows, 8 were dropped"
    )
