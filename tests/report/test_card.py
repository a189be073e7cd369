"""The dataset card: a header that the Hub can read, every number, and no text that breaks out of its place."""

import json

import folders
import pytest
import yaml

from ktodata.report import build_card, build_feedback_section


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return build_card(folders.write_run(tmp_path_factory.mktemp("run") / "small"))


def header(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("\n---\n")[0])


def test_the_header_names_licence_parts_and_size(card):
    assert header(card) == {
        "pretty_name": "small <b>run</b> \ufffd",
        "license": "cc-by-4.0",
        "task_categories": ["text-generation", "reinforcement-learning"],
        "tags": ["kto", "preference", "human-feedback", "trl", "ktodata"],
        "size_categories": ["n<1K"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": part, "path": f"shards/{part}-*.parquet"} for part in ("train", "validation", "test")],
            }
        ],
    }


def test_the_card_says_what_was_removed_and_why(card):
    assert "62 rows = 2 quarantined + 5 dropped + 9 held for review + 46 kept." in card
    assert "| dedupe | near\\_repeat | dropped | 5 |" in card
    assert "| label\\_noise | doubted\\_label | held for a person to review | 9 |" in card


def test_the_card_gives_the_weights_as_trl_calls_them(card):
    assert "    desirable_weight=1,\n    undesirable_weight=3,\n" in card
    compile(card.split("```python\n")[2].split("```")[0], "card", "exec")


def test_the_loading_line_names_the_parts(card):
    code = card.split("```python\n")[1].split("```")[0]
    expected = '{"train": "shards/train-*.parquet", "validation": "shards/validation-*.parquet", "test": "shards/test-*.parquet"}'
    assert expected in code
    compile(code, "card", "exec")


def test_names_from_the_data_mean_nothing_but_themselves(card):
    """A pipe would end the table's cell, a tag would be HTML, a dollar sign mathematics."""
    assert "| lists \\| pipes | 20 |" in card
    assert "\\<script\\>" in card and "<script>" not in card
    assert "sums \\$\\\\frac\\{1\\}\\{2\\}\\$" in card
    assert "poems \\{\\{ 7 \\* 7 \\}\\}" in card


def test_a_run_without_licence_or_shards_says_so(tmp_path):
    folder = folders.write_run(tmp_path / "short", stages=("dedupe",))
    manifest = folder / "manifest.json"
    folders.renoted(manifest, lambda facts: json.loads(json.dumps(facts).replace("cc-by-4.0", "")))
    card = build_card(folder)
    assert header(card)["license"] == "unknown" and "configs" not in header(card)
    assert "not stated" in card and "no shards yet" in card and "no `label_noise`" in card


def test_the_card_says_what_a_model_learnt_and_whether_curation_helped(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    card = build_card(folder)
    assert "| gain of the trained model over the base, paired | labels as given | 6 | 0.300 | 0.100 to 0.500 |" in card
    assert "That curation helped has not been shown" in card and "ktodata compare" not in card
    folders.write_ablation(folder)
    folders.write_comparison(folder)
    card = build_card(folder)
    assert "Curation did\\. Of 2 treatments of the labels" in card
    assert "has not been shown" not in card
    assert "KTO beside other methods" in card and "Of 36 training rows, each could use" in card
    assert "<script>" not in card and "\\<script\\>" in card


def test_an_ablation_of_other_rows_is_not_told(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    folders.write_ablation(folder, row_ids=["other", "rows"])
    assert "not known to be of these rows. 2 of 2 scored rows are not among its test rows." in build_card(folder)


PII = {"finder": "ktodata's patterns", "rows": 3, "kinds": {"email": {"rows": 3}, "api_key": {"rows": 1}}}


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({}, "Not looked for\\."),
        ({"pii": {"setting": "off"}}, "Not looked for\\."),
        ({"pii": {**PII, "setting": "count", "kinds": {}}}, "None was found\\."),
        ({"pii": {**PII, "setting": "count"}}, "3 rows with email, 1 row with api key\\. Nothing was done about it"),
        ({"pii": {**PII, "setting": "mask"}}, "In 2 exported rows, 5 places are masked by a placeholder such as \\<EMAIL\\_1\\>"),
        ({"pii": {**PII, "setting": "quarantine"}}, "Those rows were left out\\."),
    ],
)
def test_the_card_says_what_was_done_about_personal_data(facts, sentence, tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("export",))
    (folder / "stages/validate").mkdir()
    folders.noted(folder / "stages/validate/metrics.json", facts)
    folders.renoted(folder / "stages/export/metrics.json", lambda facts: {**facts, "masked": {"rows": 2, "places": 5}})
    card = build_card(folder)
    assert sentence in card.split("## Personal data")[1].split("##")[0]
    assert ("but for what was masked" in card) == (facts.get("pii", {}).get("setting") == "mask")


def test_reviews_are_told(tmp_path):
    folder = folders.write_run(tmp_path / "run", stages=("label_noise",))
    metrics = {"rows": 40, "differ_from_label": 6, "overridden": 0, "repeated": 0, "empty": 2, "drop": 0, "contested": 0}
    metrics |= {"matched_by": {"row_id": 40}, "ambiguous": 0, "unmatched": 0, "not_matched": []}
    (folder / "stages/reviews").mkdir()
    folders.noted(folder / "stages/reviews/metrics.json", metrics)
    assert all(figure in build_card(folder) for figure in ("40 rows reviewed", "6 with another verdict", "2 cells still empty"))


def test_the_models_section_says_what_the_run_did_and_holds_no_word_of_a_prompt(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    folders.write_ablation(folder)
    section = build_feedback_section(folder)
    for line in (
        "62 rows of binary feedback: 36 train, 4 validation, 6 test.",
        "| dedupe | near\\_repeat | dropped | 5 |",
        "KTO's weights: 1.000 for desirable and 3.000 for undesirable rows.",
        "The feedback's licence, as its recipe names it: cc\\-by\\-4\\.0.",
        "| AUC of the trained model, by its log-probability per token | labels as given | 6 | 0.800 | 0.700 to 0.900 |",
        "## What is not known",
    ):
        assert line in section, line
    assert "Whether curation helped was measured on one model" in section
    assert not any(word in section for word in ("question", "thumbs.jsonl", "poems", "lists"))
