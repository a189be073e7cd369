"""The page without text: a marker word in every place where somebody's words can stand, and no marker on the page."""

import json
import re
from html import unescape

import folders
import polars as pl
import pytest
from opening import decoded
from typer.testing import CliRunner

from ktodata.cli import app
from ktodata.pipeline.self_training import run
from ktodata.report import build_report
from ktodata.report.run_files import RunFiles
from ktodata.report.without_text import WithoutText, is_ours

MARK = "zqmark"
SAID = "This is the version without text."


def marked(number):
    """One record with a marker in each of its texts, and a digit in each name."""
    return {
        "prompt": [
            {"role": "system", "content": f"{MARK}system be brief"},
            {"role": "user", "content": f"{MARK}prompt number {number}, tell me"},
        ],
        "completion": [{"role": "assistant", "content": f"{MARK}completion {number} times {number * 7 % 50}"}],
        "label": number % 3 != 0,
        "user": f"{MARK}rater{number % 4}@example.org",
        "model": f"/home/{MARK}alice/{MARK}model{number % 2}",
        "source": f"{MARK}source{number % 2}",
        "id": f"{MARK}id{number}",
        "note": f"{MARK}note {number}",
        "tags": [f"{MARK}tag"],
        f"{MARK}column": number,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run through the stages that need no model, from a file with a marker in its name and two records that become no row."""
    place = tmp_path_factory.mktemp("without") / f"{MARK}folder"
    place.mkdir()
    lines = [json.dumps(marked(number)) for number in range(120)] + [json.dumps(marked(5)), f"{MARK}raw not json"]
    lines.append(json.dumps({**marked(7), "label": f"{MARK}label"}))
    lines.append(json.dumps({**marked(8), "completion": [{"role": "assistant", "content": " "}]}))
    (place / f"{MARK}file.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = {
        "name": f"{MARK}name",
        "ingest": {
            "paths": [str(place / f"{MARK}file.jsonl")],
            "rater": "user",
            "model": "model",
            "source": "source",
            "keep": ["note", "tags", f"{MARK}column"],
        },
        "steps": [{"validate": {"pii": "mask"}}, {"dedupe": {}}, {"split": {"test": 0.2}}, {"rebalance": {}}],
    }
    return run(recipe, out=place / "run").folder


@pytest.fixture(scope="module")
def pages(finished, whole):
    """{run: (the whole page, the page without text)}"""
    both = {"finished": finished, "whole": whole}
    return {name: (build_report(folder), build_report(folder, text=False)) for name, folder in both.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every section, hand written: the sample's names and texts stand in all of them."""
    folder = folders.write_run(tmp_path_factory.mktemp("run") / "small", dated=True)
    folders.write_ablation(folder)
    folders.write_comparison(folder)
    return folder


def numbers(page):
    """Of the tables, the pictures' descriptions left out: each cell that holds a number."""
    return re.findall(r'<td class="n">(.*?)</td>', page)


def verdict(page):
    """The numbers of the five lines; a command's are of no measurement, and a folder's name may have some."""
    page = re.sub(r"<code>.*?</code>", "", page)
    return [re.findall(r"\d[\d.,]*", unescape(sentence)) for sentence in re.findall(r"<dd><strong>.*?</dd>", page)]


def test_no_marker_is_on_the_page(pages):
    full, page = pages["finished"]
    assert full.count(MARK) > 30
    assert MARK not in page
    assert SAID in page and SAID not in full
    assert "rater 1" in page


def test_the_numbers_are_those_of_the_whole_page(pages):
    for full, page in pages.values():
        assert len(numbers(page)) > 20
        assert numbers(page) == numbers(full)
        assert verdict(page) == verdict(full)


def test_what_was_found_is_still_said(pages):
    page = unescape(pages["finished"][1])
    assert "of 121 rows hold personal data" not in page  # raters are no text
    assert "1 of 122 rows have an empty completion; they are dropped." in page


def test_of_every_section_no_name_and_no_text_is_left(pages):
    page = unescape(pages["whole"][1])
    for text in (
        *folders.HOSTILE,
        "small",
        "thumbs.jsonl",
        "feedback.jsonl",
        "question 12",
        "answer 7",
        "poem",
        "lists |",
        "pwned",
    ):
        assert text[:60] not in page, text[:60]
    for words in ("true labels", "dropped at random", "cluster 1", "hole 1", "KTO", "Systematic noise looks like signal."):
        assert words in page, words
    assert "rows doubted most" in page.casefold() and "No label is doubted" not in page


def test_what_is_packed_holds_row_ids_reasons_and_numbers_and_nothing_else(pages):
    """Compressed data shows no marker to a search of the page, so it is unpacked here."""
    for name, (full, page) in pages.items():
        whole, rows = decoded(full, "search-data"), decoded(page, "search-data")
        payload = json.dumps(rows, ensure_ascii=False)
        assert set(rows) == {"kinds", "kind", "row_id", "cause", "causes", "label"} and set(rows["causes"]) == {"row_id"}
        assert rows["kinds"] == whole["kinds"] and rows["kind"] == whole["kind"] and rows["label"] == whole["label"]
        assert MARK not in payload and "pwned" not in payload and "thumbs" not in payload
        records = len(whole["row_id"]) - 2
        assert rows["row_id"][:records] == whole["row_id"][:records]
        assert rows["row_id"][records:] == ["record 1", "record 2"] and f"{MARK}file" in json.dumps(
            decoded(pages["finished"][0], "search-data")
        )
        assert name == "finished" or "(again)" in json.dumps(whole)


def test_the_map_without_text_has_numbers_only(pages):
    whole, points = (decoded(page, "map-data") for page in pages["whole"])
    assert set(points) == {"x", "y", "clusters", "cluster", "row_id", "label", "quality", "fates", "fate"}
    assert set(whole) - set(points) == {"prompt", "nearest_hole"}
    assert [name for _, name, *_ in points["clusters"]] == ["cluster 0", "cluster 1", "cluster 2"]
    assert points["x"] == whole["x"] and points["quality"] == whole["quality"]


def test_the_run_folder_is_not_touched(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    build_report(finished, text=False)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_name_is_called_the_same_wherever_it_stands(finished):
    files = WithoutText(finished)
    raters = files.columns("ingest", "rater", "votes")
    assert raters["rater"].unique().sort().to_list() == ["rater 1", "rater 2", "rater 3", "rater 4"]
    names = pl.read_parquet(finished / "stages/ingest/columns.parquet")["rater"]
    assert pl.DataFrame({"given": names, "called": raters["rater"]}).unique().height == 4
    busiest = files.metrics("ingest")["busiest_raters"]
    assert set(busiest) == set(raters["rater"].unique())


def test_a_rater_who_is_named_as_a_word_of_ours_gets_a_number_too(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=())
    rows = pl.read_parquet(folder / "stages/ingest/columns.parquet").with_columns(rater=pl.lit("label"), model=pl.lit("4711"))
    rows.write_parquet(folder / "stages/ingest/columns.parquet")
    columns = WithoutText(folder).columns("ingest", "rater", "model", "label")
    assert columns["rater"].unique().to_list() == ["rater 1"]
    assert columns["model"].unique().to_list() == ["model 1"]
    assert columns["label"].dtype == pl.Boolean
    text = "judged differently by 2 group(s): rater label (shift, +20% desirable); model 4711 (shift, -9% desirable)."
    (folder / "stages/label_noise").mkdir()
    folders.noted(folder / "stages/label_noise/metrics.json", {"text": text})
    assert WithoutText(folder).metrics("label_noise")["text"] == text.replace("label (", "1 (").replace("4711", "1")


def test_groups_that_drift_are_numbered_by_their_kind_as_everywhere_else(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("dedupe", "label_noise"))
    ingest = folder / "stages/ingest/columns.parquet"
    pl.read_parquet(ingest).with_columns(rater=pl.lit("label"), source=pl.lit("4711")).write_parquet(ingest)
    drift = folder / "stages/label_noise/drift.parquet"
    named = pl.read_parquet(drift).with_columns(
        column=pl.Series(["rater", "source", "script"]), value=pl.Series(["label", "4711", f"{MARK}ic"])
    )
    named.write_parquet(drift)
    files = WithoutText(folder)
    called = files.table("label_noise", "drift").select("column", "value").rows()
    assert called == [("rater", "rater 1"), ("source", "source 1"), ("script", "script 1")]
    rater, source = (files.columns("ingest", name)[name].unique().to_list() for name in ("rater", "source"))
    assert (rater, source) == (["rater 1"], ["source 1"])


def test_of_votes_stay_who_cast_them_by_number_and_of_turns_nothing(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("dedupe",))
    ingest = folder / "stages/ingest/columns.parquet"
    turns = pl.lit([{"role": "user", "content": f"{MARK}turn"}])
    pl.read_parquet(ingest).with_columns(turns=turns).write_parquet(ingest)
    files = WithoutText(folder)
    votes, called = (run.columns("dedupe", "pooled_votes")["pooled_votes"].explode() for run in (RunFiles(folder), files))
    pairs = pl.DataFrame({"given": votes.struct.field("rater"), "called": called.struct.field("rater")}).drop_nulls().unique()
    assert pairs.height == pairs["called"].n_unique() == 12
    assert pairs["called"].str.contains(r"^rater \d+$").all()
    assert called.struct.field("label").equals(votes.struct.field("label"))
    assert files.columns("ingest", "turns")["turns"].null_count() == 60


def test_who_judged_how_has_numbers_for_names_and_no_row(pages):
    page = unescape(pages["whole"][1])
    text = page.partition("<summary>Who gave the labels</summary>")[2].partition("<summary>Rows doubted most")[0]
    for words in (
        "up and down may be swapped",
        "66.7\u2009% of 18",
        "2 of 18 training texts",
        "another threshold",
        "since 2025-03-31",
    ):
        assert words in text, words
    # who gives labels under the name of a source goes by one number
    assert re.search(r'<bdi>rater \d+</bdi><br><span class="quiet">source</span>', text)
    assert 'class="row"' not in text and "For example" not in text
    assert text.count("Rows are left out of this version.") == 1


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("12 of 500 rows repeat another row's text and label", True),
        ("0f3a9c2b7d41e856", True),
        ("2026-11-25T20:53:02+00:00", True),
        ("support-acme", False),
        ("Müller", False),
        ("名前", False),
        ("", True),
    ],
)
def test_only_words_of_the_code_are_ours(text, ours):
    assert is_ours(text) is ours


def test_the_command_writes_it_beside_the_page_or_where_it_is_told(finished, tmp_path):
    printed = CliRunner().invoke(app, ["report", str(finished), "--no-text"])
    assert printed.exit_code == 0 and "report-without-text.html" in printed.output
    assert SAID in (finished / "report-without-text.html").read_text()
    out = tmp_path / "numbers.html"
    assert CliRunner().invoke(app, ["report", str(finished), "--no-text", "--out", str(out), "--quiet"]).output == ""
    assert MARK not in out.read_text()
    wrong = CliRunner().invoke(app, ["report", str(finished), "--out", str(out)])
    assert wrong.exit_code == 1 and "give --no-text too" in str(wrong.exception)


def test_words_of_prompts_in_the_names_of_clusters_are_not_shown_though_they_may_be_words_of_ours(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("coverage",))
    table = pl.read_parquet(folder / "stages/coverage/clusters.parquet")
    named = table.with_columns(name=pl.Series(["label, prompt, don't tell", "prompt", "column"]))
    named.write_parquet(folder / "stages/coverage/clusters.parquet")
    text = "the largest, 'label, prompt, don't tell', holds 15% of 60 rows; 'row's label' and “a row” too; it's row 3's label"
    facts = {"largest": {"name": "label, prompt, don't tell"}, "findings": [{"code": "KD080", "status": "issue", "text": text}]}
    folders.noted(folder / "stages/coverage/metrics.json", facts)
    files = WithoutText(folder)
    assert files.table("coverage", "clusters")["name"].to_list() == ["cluster 0", "cluster 1", "cluster 2"]
    metrics = files.metrics("coverage")
    assert metrics["largest"] == {"name": "cluster 0"}
    assert metrics["findings"][0]["text"].startswith("the largest, 'cluster 0', holds 15% of 60 rows; … and … too")
    page = unescape(build_report(folder, text=False))
    assert "don't tell" not in page and "cluster 0" in page
