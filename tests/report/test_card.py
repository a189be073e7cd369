"""The dataset card: a header that the Hub can read, every number, and no text that breaks out of its place."""

import folders
import pytest
import yaml

from ktodata.report import build_card


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
    shown = card.split("```python\n")[1].split("```")[0]
    expected = '{"train": "shards/train-*.parquet", "validation": "shards/validation-*.parquet", "test": "shards/test-*.parquet"}'
    assert expected in shown
    compile(shown, "card", "exec")


def test_names_from_the_data_mean_nothing_but_themselves(card):
    """A pipe would end the table's cell, a tag would be HTML, a dollar sign mathematics."""
    assert "| lists \\| pipes | 20 |" in card
    assert "\\<script\\>" in card and "<script>" not in card
    assert "sums \\$\\\\frac\\{1\\}\\{2\\}\\$" in card
    assert "poems \\{\\{ 7 \\* 7 \\}\\}" in card


def test_a_run_without_licence_or_shards_says_so(tmp_path):
    folder = folders.write_run(tmp_path / "short", stages=("dedupe",))
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("cc-by-4.0", ""))
    card = build_card(folder)
    assert header(card)["license"] == "unknown" and "configs" not in header(card)
    assert "**Licence:** not stated." in card
    assert "there are no shards yet" in card
    assert "Not measured: the recipe has no `label_noise`." in card
