"""The table of the bench's data: from the manifest beside the files, and counted."""

import json
from pathlib import Path

import pytest
from test_bench import ROWS, rows, write

from tools import data_cards as cards

ROOT = Path(__file__).parents[2]


def test_a_card_is_what_the_manifest_says_and_what_is_counted(tmp_path):
    lines = list(rows())
    lines[0]["weak_label_rule"] = None
    write(tmp_path / "rule.jsonl", lines)
    write(tmp_path / "deep" / "plain.jsonl", ({k: v for k, v in line.items() if not k.startswith("weak")} for line in rows()))
    about = {"file": "rule.jsonl", "rows": 200, "what": "people | a rule", "source": "here", "licence": "MIT"}
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": [about]}))
    plain, rule = cards.data_cards(tmp_path).splitlines()[2:]
    assert plain == f"| `deep/plain` | not said | {ROWS} | none: 15% flipped in four ways | not said | not said |"
    wrong = sum(line["weak_label_rule"] != line["truth"] for line in lines[1:]) / (ROWS - 1)
    assert rule == f"| `rule` | people / a rule | {ROWS} of 200 | weak_label_rule {wrong:.1%} (1 without) | here | MIT |"
    page = cards.replaced(f"before\n{cards.BEGIN}\nold\n{cards.END}\nafter", "new")
    assert page == f"before\n{cards.BEGIN}\nnew\n{cards.END}\nafter"


@pytest.mark.shared
def test_the_page_has_the_cards_of_the_shared_data(shared):
    assert cards.data_cards(shared) in (ROOT / "docs" / "bench.md").read_text()
