"""Files with a true label as label sources: feedback as somebody gave it, beside what is right.

A file is JSON lines (`.jsonl`, `.jsonl.gz`) with the texts `prompt` and `completion`, and the truth: `truth`, or `label` where no
line has a `truth`; true for desirable (true and false, or 1 and 0). Sources in it:

- each column `weak_label…` (the same, or null: none given) is one: what a rule, a model or a judge said; and so is `label` in a
  file with `truth`, the label as given;
- a column `votes` ({rater: true or false}) gives one by majority, and one for each of the MAX_RATERS raters who voted most;
- a file with none of these gives one for each of FLIPS: the truth with RATE of it flipped in that way.

Any other column of FEW different values is named, with what to call it: it may be what was given, in words of its own.
No flips are drawn beside it unless they are asked for.

So a folder that nobody here has seen is measured by the same command.
"""

import gzip
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ktodata.errors import EmptyDataError, FormatError
from ktodata.formats.records import clip

FLIPS = ("uniform", "class-conditional", "where a model is unsure", "by topic")
RATE = 0.15
MAX_RATERS = 3
MIN_VOTED = 0.8  # share of the rows that a rater has judged, to be a source alone
MIN_ROWS, MIN_WRONG = 100, 20  # of a source; wrong labels of all rows
VERDICTS = "true, false, 1, 0"
FEW = (2, 5)  # different values, at least and at most, of a column that may be verdicts: yes and no, 1 to 5

Line = Mapping[str, Any]
Given = tuple[str, list[bool | None]]  # who says it, and of each record what
WEAK = "weak_label"
READ = ("prompt", "completion", "truth", "label", "votes")


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


def label_sources(folder: Path, *, flips: bool = False) -> tuple[list[LabelSource], dict[str, str]]:
    """Every source of every file below a folder, in the order of their names; by name, what is no source or not whole, and why.

    flips : draw them also where a column that is not read may be what was given

    No two sources have one name. Raises EmptyDataError where no file has one.
    """
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((".jsonl", ".jsonl.gz")))
    sources, passed_over = list[LabelSource](), dict[str, str]()
    for file, name in zip(files, _names(files, folder), strict=True):
        try:
            sources += _sources_of(file, name, passed_over, flips=flips)
        except FormatError as error:
            passed_over[name] = str(error)
    if not sources:
        reasons = "".join(f"\n- {name}: {why}" for name, why in list(passed_over.items())[:5])
        raise EmptyDataError(
            f"{folder}: none of {len(files):,} files of JSON lines gives a label source. A file needs prompt, completion "
            f"and a truth (a column truth, or else label).{reasons}"
        )
    names = _apart([source.name for source in sources])
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)], passed_over


def _names(files: Sequence[Path], folder: Path) -> list[str]:
    """Below the folder, without their endings unless several differ by them alone."""
    whole = [clip(file.relative_to(folder).as_posix(), 500) for file in files]
    short = [name.removesuffix(".gz").removesuffix(".jsonl") for name in whole]
    return _apart([each if short.count(each) == 1 else name for each, name in zip(short, whole, strict=True)])


def _apart(names: Sequence[str]) -> list[str]:
    """The names; of equal ones the later have a number."""
    apart: list[str] = []
    for name in names:
        numbered = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
        apart.append(next(each for each in numbered if each not in apart))
    return apart


def _sources_of(file: Path, name: str, passed_over: dict[str, str], *, flips: bool) -> Iterator[LabelSource]:
    kept, left_out = _usable(list(_lines(file)))
    if left_out:
        passed_over[name] = f"Lines left out: {', '.join(f'{count:,} {why}' for why, count in left_out.items())}."
    if len(kept) < MIN_ROWS:
        rest = passed_over.get(name, "")
        passed_over[name] = f"{len(kept):,} lines have prompt, completion and a truth, and {MIN_ROWS} are needed. {rest}".strip()
        return
    lines, records = [line for line, _ in kept], [record for _, record in kept]
    given = _by_column(lines, name, passed_over) + _by_votes(lines, records, name, passed_over)
    for who, verdicts in given:
        yield LabelSource(f"{name}, {who}", name, records, verdicts)
    unread = dict(_not_read(lines))
    passed_over |= {f"{name}, {column}": why for column, why in unread.items()}
    if any(line.get(column) is not None for column in _label_columns(lines) for line in lines) or any(map(_cast, lines)):
        return
    if unread and not flips:
        why = f"No flips are drawn, as what was given may be in {', '.join(unread)}; --flips draws them."
        passed_over[name] = f"{passed_over.get(name, '')} {why}".strip()
        return
    yield from (LabelSource(f"{name}, flips {kind}", name, records, None, kind) for kind in FLIPS)


def _by_column(lines: Sequence[Line], name: str, passed_over: dict[str, str]) -> list[Given]:
    """What each column says."""
    given: list[Given] = []
    for column in _label_columns(lines):
        cells = [line.get(column) for line in lines]
        values = [cell for cell in cells if cell is not None]
        verdicts = [_verdict(cell) for cell in cells]
        if unread := sum(_verdict(value) is None for value in values):
            passed_over[f"{name}, {column}"] = (
                f"{unread:,} of {len(values):,} values are none of {VERDICTS}, and count as none given."
            )
        if unread < len(values):
            given.append((column, verdicts))
        elif not values:
            passed_over[f"{name}, {column}"] = "it has no value."
    return given


def _label_columns(lines: Sequence[Line]) -> list[str]:
    """Columns that say what was given: `weak_label…`, and `label` where the truth has a column of its own."""
    own = ["label"] if _truth_column(lines) == "truth" and any("label" in line for line in lines) else []
    return own + sorted({key for line in lines for key in line if key.startswith(WEAK)})


def _truth_column(lines: Sequence[Any]) -> str:
    """Of the file, not of a line: else labels as given would be the truth of the lines that have none."""
    return "truth" if any(isinstance(line, dict) and "truth" in line for line in lines) else "label"


def _not_read(lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """Columns that may be verdicts and are read as no label, and why."""
    for column in sorted({key for line in lines for key in line if key not in READ and not key.startswith(WEAK)}):
        cells = [leaves for line in lines if (leaves := _leaves(line.get(column)))]
        values = {json.dumps(leaf) for leaves in cells for leaf in leaves}
        if FEW[0] <= len(values) <= FEW[1]:
            name = clip(column, 40)
            yield (
                name,
                f"it has {len(values)} different values on {len(cells):,} of {len(lines):,} lines, and is not read. "
                f"If it says what was given, name it {WEAK}_{name.removeprefix('label_')}, with {VERDICTS}.",
            )


def _leaves(value: Any) -> list[Any]:
    """The single values in a cell, however nested; nothing, where it is empty."""
    if isinstance(value, dict | list):
        return [leaf for each in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(each)]
    return [] if value is None or value == "" else [value]


def _usable(lines: Sequence[Any]) -> tuple[list[tuple[Line, LabelledRecord]], Counter[str]]:
    """Lines with their records, and how many are left out, by reason."""
    kept, left_out = list[tuple[Line, LabelledRecord]](), Counter[str]()
    truth_column = _truth_column(lines)
    for line in lines:
        record = _record(line, truth_column)
        if isinstance(record, str):
            left_out[record] += 1
        else:
            kept.append((line, record))
    truths = defaultdict[tuple[str, str], set[bool]](set)
    for _, record in kept:
        truths[_texts(record)].add(record.truth)
    sure = [(line, record) for line, record in kept if len(truths[_texts(record)]) == 1]
    if len(sure) < len(kept):
        left_out["of texts with both truths"] = len(kept) - len(sure)
    return sure, left_out


def _texts(record: LabelledRecord) -> tuple[str, str]:
    return " ".join(record.prompt.split()), " ".join(record.completion.split())


def _by_votes(lines: Sequence[Line], records: Sequence[LabelledRecord], name: str, passed_over: dict[str, str]) -> list[Given]:
    """What the majority says (None where it is even), and the raters who voted most."""
    votes = [vote for line in lines for vote in _cast(line)]
    voted = Counter(rater for record in records for rater in record.votes)
    busy = sorted(
        (rater for rater, count in voted.items() if count >= MIN_VOTED * len(records)), key=lambda who: (-voted[who], who)
    )
    given = [(clip(rater, 40), [record.votes.get(rater) for record in records]) for rater in busy[:MAX_RATERS]]
    if len(voted) > 2:
        given.insert(0, ("majority of votes", [_majority(list(record.votes.values())) for record in records]))
    why = [] if votes or not any("votes" in line for line in lines) else ["Nobody voted."]
    if unread := len(votes) - voted.total():
        why.append(f"{unread:,} of {len(votes):,} are no {{rater: verdict}} with one of {VERDICTS}, and count as none given.")
    if voted and not given:
        why.append(f"No rater judged {MIN_VOTED:.0%} of the rows, and there are not three for a majority.")
    if why:
        passed_over[f"{name}, votes"] = " ".join(why)
    return given


def _cast(line: Line) -> list[Any]:
    """Votes on a row, of whatever form: an empty map is none."""
    cell = line.get("votes")
    return [vote for vote in (cell.values() if isinstance(cell, dict) else [cell]) if vote not in (None, "", [])]


def _majority(votes: list[bool]) -> bool | None:
    return None if 2 * sum(votes) == len(votes) else 2 * sum(votes) > len(votes)


def _record(line: Any, truth_column: str) -> LabelledRecord | str:
    """The record of a line; what it lacks, where it is none."""
    if not isinstance(line, dict):
        return "that are no JSON object"
    prompt, completion, votes = line.get("prompt"), line.get("completion"), line.get("votes")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return "without the texts prompt and completion"
    truth = _verdict(line.get(truth_column))
    if truth is None:
        return f"without a truth (column {truth_column}) that is one of {VERDICTS}"
    cast = {str(who): _verdict(vote) for who, vote in votes.items()} if isinstance(votes, dict) else {}
    return LabelledRecord(prompt, completion, truth, {who: vote for who, vote in cast.items() if vote is not None})


def _verdict(value: Any) -> bool | None:
    """One of VERDICTS, as it is or as text; None for anything else."""
    words = value.strip().lower() if isinstance(value, str) else str(value).lower()
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(words)


def _lines(file: Path) -> Iterator[Any]:
    number = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, start=1):  # noqa: B007 the error names it
                if text.strip():
                    yield json.loads(text)
    except (ValueError, RecursionError, OSError, EOFError) as error:
        raise FormatError(f"{file.name}, line {number:,}: it cannot be read as JSON lines ({clip(str(error), 80)}).") from None
