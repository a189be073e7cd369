"""Files with a true label as label sources: feedback as somebody gave it, beside what is right.

A file is JSON lines (`.jsonl`, `.jsonl.gz`) with the texts `prompt` and `completion`, and the truth: `truth`, or else `label`,
true for desirable. Sources in it:

- each column `weak_label…` (true, false, or null: none given) is one: what a rule, a model or a judge said;
- a column `votes` ({rater: true or false}) gives one by majority, and one for each of the MAX_RATERS raters who voted most;
- a file with neither gives one for each of FLIPS: the truth with RATE of it flipped in that way.

So a folder that nobody here has seen is measured by the same command.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktodata.errors import EmptyDataError, FormatError
from ktodata.formats.records import clip

FLIPS = ("uniform", "class-conditional", "where a model is unsure", "by topic")
RATE = 0.15
MAX_RATERS = 3
MIN_VOTED = 0.8  # share of the rows that a rater has judged, to be a source alone
MIN_ROWS, MIN_WRONG = 100, 20  # of a source; wrong labels of all rows
WEAK = "weak_label"


@dataclass(frozen=True)
class LabelledRecord:
    """One answer: its texts, its truth, and what each rater said of it."""

    prompt: str
    completion: str
    truth: bool
    votes: Mapping[str, bool]


@dataclass(frozen=True)
class LabelSource:
    """`given`: of each record what the source says, None where it says nothing; None as a whole: `flips` are drawn.

    data : the file; choices made on one source of it are not to be shown on another of it
    """

    name: str
    data: str
    records: Sequence[LabelledRecord]
    given: Sequence[bool | None] | None
    flips: str | None = None


def label_sources(folder: Path) -> list[LabelSource]:
    """Every source of every file below a folder, in the order of their names.

    Files without texts or without a truth are passed over. Raises EmptyDataError where no file has one, FormatError for a file
    that is no JSON lines.
    """
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((".jsonl", ".jsonl.gz")))
    sources = [source for file in files for source in _sources_of(file, _name_of(file, folder))]
    if not sources:
        raise EmptyDataError(
            f"{folder}: none of {len(files):,} files of JSON lines has prompt, completion and a truth (a column truth or label)."
        )
    return sources


def _name_of(file: Path, folder: Path) -> str:
    return clip(file.relative_to(folder).as_posix().removesuffix(".gz").removesuffix(".jsonl"), 60)


def _sources_of(file: Path, name: str) -> Iterator[LabelSource]:
    lines = list(_lines(file))
    kept = [(line, record) for line in lines if (record := _record(line)) is not None]
    if len(kept) < MIN_ROWS:
        return
    records = [record for _, record in kept]
    weak = sorted({key for line, _ in kept for key in line if key.startswith(WEAK)})
    given = {f"{name}, {column}": [_verdict(line.get(column)) for line, _ in kept] for column in weak}
    given |= {f"{name}, {who}": verdicts for who, verdicts in _by_votes(records).items()}
    for source, verdicts in given.items():
        if _is_one(records, verdicts):
            yield LabelSource(source, name, records, verdicts)
    if not given:
        yield from (LabelSource(f"{name}, flips {kind}", name, records, None, kind) for kind in FLIPS)


def _by_votes(records: Sequence[LabelledRecord]) -> dict[str, list[bool | None]]:
    """What the majority says (None where it is even), and the raters who voted most."""
    voted = Counter(rater for record in records for rater in record.votes)
    if not voted:
        return {}
    majority = [_majority(list(record.votes.values())) for record in records]
    busy = sorted(
        (rater for rater, count in voted.items() if count >= MIN_VOTED * len(records)), key=lambda who: (-voted[who], who)
    )
    alone = {clip(rater, 40): [record.votes.get(rater) for record in records] for rater in busy[:MAX_RATERS]}
    return ({"majority of votes": majority} if len(voted) > 2 else {}) | alone


def _majority(votes: list[bool]) -> bool | None:
    return None if 2 * sum(votes) == len(votes) else 2 * sum(votes) > len(votes)


def _is_one(records: Sequence[LabelledRecord], given: Sequence[bool | None]) -> bool:
    """Whether enough rows are labelled, with both labels, and enough of them wrongly for anything to be measured."""
    pairs = [(verdict, record.truth) for verdict, record in zip(given, records, strict=True) if verdict is not None]
    wrong = sum(verdict != truth for verdict, truth in pairs)
    return len(pairs) >= MIN_ROWS and len({verdict for verdict, _ in pairs}) == 2 and wrong >= MIN_WRONG


def _record(line: Mapping[str, Any]) -> LabelledRecord | None:
    """None for a line without texts or truth."""
    truth = _verdict(line.get("truth", line.get("label")))
    prompt, completion, votes = line.get("prompt"), line.get("completion"), line.get("votes")
    if truth is None or not isinstance(prompt, str) or not isinstance(completion, str):
        return None
    cast = {str(who): _verdict(vote) for who, vote in votes.items()} if isinstance(votes, dict) else {}
    return LabelledRecord(prompt, completion, truth, {who: vote for who, vote in cast.items() if vote is not None})


def _verdict(value: Any) -> bool | None:
    """True, false, or the same as text; None for anything else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, start=1):  # noqa: B007 the error names it
                line = json.loads(text) if text.strip() else None
                if isinstance(line, dict):
                    yield line
    except (ValueError, RecursionError, OSError, EOFError) as error:
        raise FormatError(f"{file.name}, line {number:,}: it cannot be read as JSON lines ({clip(str(error), 80)}).") from None
