"""The table of the bench's data in docs/bench.md: `python tools/data_cards.py FOLDER docs/bench.md`.

FOLDER/MANIFEST.json says of each file whose it is, under which licence, and who labelled it; how many rows can be measured, and
how many labels are wrong, is counted here.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktodata.bench.label_sources import RATE, LabelSource, label_sources

BEGIN, END = "<!-- data cards: tools/data_cards.py -->", "<!-- end of data cards -->"
HEADER = ("file", "what it is, and whose labels", "rows read, of", "labels as given: wrong", "from", "licence")


def data_cards(folder: Path) -> str:
    """A line for each file with a label source."""
    of_file = defaultdict[str, list[LabelSource]](list)
    for source in label_sources(folder, flips=True)[0]:
        of_file[source.data].append(source)
    known = json.loads((folder / "MANIFEST.json").read_text())["files"]
    cards = {card["file"].removesuffix(".gz").removesuffix(".jsonl"): card for card in known}
    lines = [HEADER, ("---",) * len(HEADER), *(tuple(_line(name, of_file[name], cards.get(name, {}))) for name in of_file)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _line(name: str, sources: list[LabelSource], card: dict[str, Any]) -> Iterator[str]:
    yield f"`{name}`"
    yield card.get("what", "not said")
    yield f"{len(sources[0].records):,} of {card['rows']:,}" if "rows" in card else f"{len(sources[0].records):,}"
    yield "; ".join(_wrong(source) for source in sources if source.flips is None) or f"none: {RATE:.0%} flipped in four ways"
    yield card.get("source", "not said")
    yield card.get("licence", "not said")


def _wrong(source: LabelSource) -> str:
    """Whose label, how often wrong of the rows that it labels, and how many it leaves without one."""
    pairs = zip(source.given or (), source.records, strict=True)
    wrong = [given != record.truth for given, record in pairs if given is not None]
    none = len(source.records) - len(wrong)
    who = source.name.removeprefix(source.data).strip(", ")
    return f"{who} {sum(wrong) / len(wrong):.1%}{f' ({none:,} without)' if none else ''}"


def replaced(page: str, table: str) -> str:
    """The page with this table between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    data, page_file = Path(sys.argv[1]), Path(sys.argv[2])
    page_file.write_text(replaced(page_file.read_text(), data_cards(data)))
