"""People's verdicts: the rows they are asked about go out as a CSV file, and what they said comes back as trusted labels.

A file of verdicts (CSV, JSON lines or Parquet, also .gz and .zst) has a column `row_id` and a column `trusted_label` or
`verdict`. Beside the row_id, or in its place, `source_id`, `content` (as write_queue writes it), or `prompt` and `completion`
find the row in a later export (matching.py). A verdict is true/false, desirable/undesirable, good/bad or 1/0, unless the recipe's
label gives that word another meaning: then it is refused. Where the file has a column `label` too, keep and flip say whether that
label is right. `drop` (the row is of no use) and `contested` (people truly differ) are verdicts without a label. `reviewer`,
`reviewed_at` and `note` are kept, other columns are passed over, and an empty cell is a row that nobody has judged yet. A verdict
is never guessed: one that cannot be read is an error. The store of `ktodata review` (reviews.sqlite) is read as it is. Where
people differ on a row it is contested, and nobody's label is trusted.
"""

import glob
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import EmptyDataError, FormatError, KtodataError, LabelError, MissingColumnError
from ktodata.feedback import LABEL_NAMES, check_columns
from ktodata.formats.data_files import FileKind, Source, find_sources, fingerprint, nearest
from ktodata.formats.file_types.open_files import read_records
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.label_rules import label_rule, yaml_value
from ktodata.formats.records import Record, UnusableError, checked, clip, kind, listed
from ktodata.formats.times import moment
from ktodata.formats.verdicts.matching import (
    KEYS,
    ROW_ID,
    TEXT,
    content_key,
    match_verdicts,
    settling_in_words,
    with_content,
    with_same_text,
)
from ktodata.formats.verdicts.verdict_store import SUFFIX, read_store
from ktodata.formats.withdrawn import WithdrawnIds, staying
from ktodata.stage import StageResult, decide

VERDICT_COLUMNS = ("trusted_label", "verdict")
READ = (*KEYS, *VERDICT_COLUMNS, "label", "reviewer", "reviewed_at", "note")
WRITTEN = ("row_id", "label", "verdict", "reviewer", "reviewed_at", "note")
SCHEMA = pl.Schema(
    {
        "row_id": pl.String(),
        "trusted_label": pl.Boolean(),
        "verdict": pl.String(),
        "reviewer": pl.String(),
        "reviewed_at": pl.Datetime("us", "UTC"),
        "note": pl.String(),
        "file": pl.String(),
        "line": pl.Int64(),
        "source_id": pl.String(),
        "content": pl.String(),
        "draw_seed": pl.Int64(),
    }
)

# a table that was a frame of numbers once writes 1 as 1.0
JUDGES = {"true": True, "desirable": True, "good": True, "1": True, "1.0": True}
JUDGES |= {"false": False, "undesirable": False, "bad": False, "0": False, "0.0": False}
ON_THE_LABEL = {"keep": True, "flip": False}
WITHOUT_LABEL = ("drop", "contested")
SAY = (
    "Write true or false, desirable or undesirable, good or bad, 1 or 0 (in a file with a column label also keep or flip), "
    "drop or contested, a value with a meaning in the recipe's label, or leave the cell empty for no verdict."
)

Words = Mapping[str, bool | None]  # None: a word that means another thing by itself
NO_WORDS: Words = {}

# what a spreadsheet would run, after white space too, or take apart; one that has an apostrophe already gets one more
FORMULA = r"^('*(?:[\x00-\x1f\x7f]|\s*[=+\-@＝＋－＠]))"
# one row_id in some 700 reads as a number, of which a spreadsheet keeps 15 digits
NUMBER = r"^([0-9.]+(?:[eE][0-9]+)?)$"


@dataclass(frozen=True)
class Reviews:
    """What people said.

    verdicts : row_id, source_id, content (a name of the text), of which some may be null, trusted_label (true desirable; null for
        drop and contested), verdict ("desirable", "undesirable", "drop" or "contested"), reviewer, reviewed_at (UTC), note, file,
        line; one line for each row that was judged, and where verdicts on it differ one for what each reviewer said. reviewer,
        reviewed_at and note are null where nobody wrote them. draw_seed: of the random draw that the desk recorded; null in all
        other files.
    metrics : counts for the manifest. records == verdicts + repeated + empty (+ withdrawn), always.
    """

    verdicts: pl.DataFrame
    metrics: Mapping[str, Any]

    def without(self, lists: Sequence[WithdrawnIds]) -> "Reviews":
        """Those on rows that none of the lists holds; metrics["withdrawn"] counts the others, if there are any."""
        stays = self.verdicts.filter(staying(self.verdicts, lists))
        if (withdrawn := self.verdicts.height - stays.height) == 0:
            return self
        return Reviews(stays, {**self.metrics, "verdicts": stays.height, "withdrawn": withdrawn})


def read_reviews(paths: Path | str | Sequence[Path | str], words: Words = NO_WORDS) -> Reviews:
    """Read files of verdicts or patterns; a row judged twice with one result counts once, with the first reviewer and note.

    words : the label's own words with their meanings, which may stand in a table too: `words_of`
    Raises FormatError (missing, damaged or unreadable file), EmptyDataError (no record), MissingColumnError and LabelError
    (cells that are no verdict: how many, and file, line and row_id of the first).
    """
    files = _verdict_files([paths] if isinstance(paths, Path | str) else paths)
    stores = [path for path in files if path.suffix == SUFFIX]
    tables = [path for path in files if path.suffix != SUFFIX]
    sources = find_sources(tables) if tables else []
    contents = _read_tables(sources, words, alone=not stores) + [read_store(store) for store in stores]
    every = _verdict_table(verdict for verdicts, _ in contents for verdict in verdicts)
    verdicts = _first_of_each_row(every)
    counts = [metrics for _, metrics in contents]
    metrics = {
        "files": counts,
        "records": sum(file["records"] for file in counts),
        "verdicts": verdicts.height,
        "repeated": every.height - verdicts.height,
        "empty": sum(file["empty"] for file in counts),
        "unparseable_times": sum(file["unparseable_times"] for file in counts),
    }
    return Reviews(verdicts, metrics)


def read_each_verdict(path: Path, words: Words = NO_WORDS) -> pl.DataFrame:
    """Every verdict of one file, also who says the same: columns as in `Reviews.verdicts`. Raises what `read_reviews` does."""
    return _verdict_table(verdict for source in find_sources(path) for verdict in _read_verdicts(source, words)[0])


def _verdict_table(verdicts: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(verdicts), schema=SCHEMA, orient="row")


def join_reviews(feedback: pl.DataFrame, reviews: Reviews) -> StageResult:
    """People's verdicts as the trusted labels of a feedback table; a verdict stands before a trusted label that was there.

    columns : row_id, trusted_label, reviewed_contested and draw_seed of every row. decisions : rows of no use are dropped,
    contested ones, as people say so or differ on the text, are held for review; with all rows of their text, and of training
    rows. tables : `verdicts`, one for each row that has one; `unmatched`, those on no row, and why.
    Raises DataError as `match_verdicts` does.
    """
    check_columns(feedback, ("row_id", "label"), who="reviews")
    matched = match_verdicts(reviews.verdicts, feedback).settled("verdict", feedback)
    verdicts = pl.concat([_on_whole_texts(matched.per_row, feedback), _contested(matched.differing)])
    before = pl.col("trusted_label") if "trusted_label" in feedback.columns else pl.lit(None, pl.Boolean)
    rows = feedback.select("row_id", "label", before=before).join(
        verdicts.select("row_id", "draw_seed", "matched_by", reviewed="trusted_label", verdict="verdict"),
        on="row_id",
        how="left",
        maintain_order="left",
    )
    counts = {
        "desirable": pl.col("reviewed"),
        "undesirable": ~pl.col("reviewed"),
        "differ_from_label": pl.col("reviewed") != pl.col("label"),
        "confirmed": pl.col("reviewed") == pl.col("before"),
        "overridden": pl.col("before").is_not_null()
        & pl.col("verdict").is_not_null()
        & pl.col("reviewed").ne_missing(pl.col("before")),
        **{word: pl.col("verdict") == word for word in WITHOUT_LABEL},
    }
    verdict_counts = rows.select(expression.sum().alias(name) for name, expression in counts.items()).row(0, named=True)
    return StageResult(
        columns=rows.select(
            "row_id",
            trusted_label=pl.when(pl.col("verdict").is_null()).then("before").otherwise("reviewed"),
            reviewed_contested=(pl.col("verdict") == "contested").fill_null(value=False),
            # rows are drawn by their row_ids: one that was matched otherwise has another place in the draw
            draw_seed=pl.when(pl.col("matched_by") == ROW_ID).then("draw_seed"),
        ),
        decisions=pl.concat(
            [
                decide(rows, (pl.col("verdict") == "drop").fill_null(False), action="drop", reason="reviewed_drop"),
                decide(rows, (pl.col("verdict") == "contested").fill_null(False), action="review", reason="reviewed_contested"),
            ]
        ),
        metrics={**reviews.metrics, **matched.metrics, "rows": verdicts.height, **verdict_counts},
        tables={"verdicts": verdicts.drop("number", "content", "draw_seed"), "unmatched": matched.unmatched},
    )


def _on_whole_texts(verdicts: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """With a line for every row of a text that is of no use, or contested: it must not stay in by its repeat."""
    out = verdicts.filter(pl.col("verdict").is_in(WITHOUT_LABEL))
    rows = with_same_text(feedback, out).join(verdicts, on="row_id", how="anti", maintain_order="left")
    rows = rows.unique("row_id", keep="first", maintain_order=True).with_columns(matched_by=pl.lit(TEXT))
    return pl.concat([verdicts, rows.select(verdicts.columns)])


def _contested(differing: pl.DataFrame) -> pl.DataFrame:
    """One line a row on whose text people differ; `reviewer` names all, `note` says who said what."""
    who = pl.col("reviewer").fill_null("somebody")
    sayings = pl.format("{}: {}", who, "verdict").append(pl.col("note").drop_nulls()).str.join("; ")
    first = [pl.col(name).first() for name in differing.columns if name not in ("row_id", "reviewer", "note")]
    merged = differing.group_by("row_id", maintain_order=True).agg(*first, reviewer=who.str.join(", "), note=sayings)
    contested = pl.lit("contested").alias("verdict"), pl.lit(None, pl.Boolean).alias("trusted_label")
    return merged.with_columns(*contested).select(differing.columns)


def reviews_in_words(metrics: Mapping[str, Any]) -> str:
    """One sentence from the metrics of `join_reviews`."""
    summary = f"{metrics['rows']:,} rows reviewed, {metrics['differ_from_label']:,} with another verdict than the given label"
    rest = {
        "earlier trusted labels overridden": metrics["overridden"],
        "more verdicts that say the same of a row": metrics["repeated"],
        "cells still empty": metrics["empty"],
        "called of no use and dropped": metrics["drop"],
        "contested and held for review": metrics["contested"],
    }
    counted = (f"{count:,} {what}" for what, count in rest.items() if count)
    return "; ".join([summary, *counted, *settling_in_words(metrics)]) + "."


def write_queue(rows: pl.DataFrame, path: Path) -> None:
    """Write rows to be judged as CSV, with an empty column trusted_label; `read_reviews` takes it when it is filled in.

    rows : row_id, label, and what the reviewer is shown; of prompt and completion `content` is made, which finds the row again in
    another export. Text that a spreadsheet would run or round gets an apostrophe in front.
    """
    check_columns(rows, ("row_id", "label"), who="write_queue")
    _for_spreadsheets(with_content(rows)).with_columns(trusted_label=pl.lit(None, pl.Boolean)).write_csv(path)


def write_verdicts(verdicts: pl.DataFrame, path: Path, *, kind: FileKind) -> None:
    """Write verdicts as `read_reviews` takes them: kind "csv", "lines" or "parquet".

    verdicts : row_id, label, verdict ("keep", "flip", "drop", "contested"), reviewer, reviewed_at, note, and what else is known
    """
    check_columns(verdicts, WRITTEN, who="write_verdicts")
    if kind == "parquet":
        verdicts.write_parquet(path)
    elif kind == "lines":
        verdicts.write_ndjson(path)
    else:
        _for_spreadsheets(verdicts).write_csv(path)


def _for_spreadsheets(rows: pl.DataFrame) -> pl.DataFrame:
    """With an apostrophe before every text that a spreadsheet would run or round."""
    ids = [name for name in ("row_id", "source_id") if name in rows.columns]
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String and name not in ids]
    return rows.with_columns(
        *(pl.col(name).cast(pl.String).str.replace(rf"{FORMULA}|{NUMBER}|^(')", "'$1$2$3") for name in ids),
        *(pl.col(name).str.replace(FORMULA, "'$1") for name in texts),
    )


def is_filled_in(path: Path) -> bool:
    """Whether somebody has worked on a file of verdicts: it holds one, or is no longer as it was written."""
    try:
        return read_reviews(path).verdicts.height > 0
    except EmptyDataError:
        return False
    except KtodataError:
        return True


def _verdict_files(paths: Sequence[Path | str]) -> list[Path]:
    """The files, each once, a pattern's sorted. Only files: a mistyped name must not be looked for on a hub."""
    every = [file for path in map(Path, paths) for file in _files_of(path)]
    files = list({file.resolve(): file for file in every}.values())
    if missing := next((file for file in files if not file.is_file()), None):
        raise FormatError(f"there is no file of verdicts {str(missing)!r}. {nearest(str(missing))}")
    return files


def _files_of(path: Path) -> list[Path]:
    is_pattern = glob.has_magic(str(path)) and not path.exists()
    return [Path(source.path) for source in find_sources(path)] if is_pattern else [path]


# --- one file ----------------------------------------------------------------------------------------------------------


def _read_tables(sources: Sequence[Source], words: Words, *, alone: bool) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """As `_read_verdicts`, of each. A file without records is counted with 0; `alone`: unless no other has one."""
    contents: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
    nothing: list[EmptyDataError] = []
    for source in sources:
        try:
            contents.append(_read_verdicts(source, words))
        except EmptyDataError as error:
            nothing.append(error)
            counts = dict.fromkeys(("records", "verdicts", "empty", "unparseable_times"), 0)
            contents.append(([], fingerprint(source) | counts))
    if alone and nothing and len(nothing) == len(sources):
        raise nothing[0]
    return contents


def _read_verdicts(source: Source, words: Words) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The verdicts in a file, and the metrics about it."""
    columns: dict[str, None] = {}
    records: list[SourceRecord] = []
    for entry in read_records(source):
        columns |= dict.fromkeys(entry.record or {})
        slim = {name: value for name, value in (entry.record or {}).items() if name in READ}
        # the texts that were judged are long, and not needed
        if _is_empty(slim.get("content")) and (content := _content_of(entry.record or {})):
            slim["content"] = content
        records.append(SourceRecord(entry.line, slim, entry.problem))
    _check_file(records, columns, source.name)
    verdicts = _verdicts_in(records, source.name, words)
    times = [entry.record["reviewed_at"] for entry in records if _filled_cells(entry.record) and "reviewed_at" in entry.record]
    counts = {
        "records": len(records),
        "verdicts": len(verdicts),
        "empty": len(records) - len(verdicts),
        "unparseable_times": sum(not _is_empty(time) and moment(time) is None for time in times),
    }
    return verdicts, fingerprint(source) | counts


def _check_file(records: Sequence[SourceRecord], columns: Mapping[str, None], file: str) -> None:
    """Raise unless the file has its columns and every record of it can be read."""
    names_rows = any(name in columns for name in KEYS) or {"prompt", "completion"} <= set(columns)
    there = {"row_id": names_rows, " or ".join(VERDICT_COLUMNS): any(name in columns for name in VERDICT_COLUMNS)}
    if columns and not all(there.values()):
        lacks = next(name for name, is_there in there.items() if not is_there)
        raise MissingColumnError(
            f"{file!r} has no column {lacks}; it has {listed(columns)}. A file of verdicts has row_id (or "
            "source_id, or prompt and completion), and trusted_label or verdict."
        )
    broken = [(entry.line, entry.problem) for entry in records if entry.problem is not None]
    if broken:
        line, problem = broken[0]
        raise FormatError(
            f"{file!r}: {len(broken):,} of {len(records):,} records cannot be read (first: line {line:,}, "
            f"{clip(str(problem), 160)}). Save it again; CSV is read with commas and in UTF-8."
        )


def _verdicts_in(records: Sequence[SourceRecord], file: str, words: Words) -> list[dict[str, Any]]:
    """What each filled cell says. Raises LabelError when one cannot be read, FormatError when it is beside no row_id."""
    verdicts: list[dict[str, Any]] = []
    wrong: list[tuple[SourceRecord, UnusableError]] = []
    for entry in records:
        try:
            verdicts += _verdict_of(entry.record, file, entry.line, words)
        except UnusableError as unusable:
            wrong.append((entry, unusable))
    if not wrong:
        return verdicts
    first, problem = wrong[0]
    kind_of_error = LabelError if problem.reason == "label" else FormatError
    raise kind_of_error(
        f"{file!r}: {len(wrong):,} of {len(wrong) + len(verdicts):,} verdicts cannot be used (first: line {first.line:,}, "
        f"row_id {clip(first.record.get('row_id'), 40)}: {problem.detail}). {SAY}"
    )


def _verdict_of(record: Record, file: str, line: int, words: Words) -> Iterator[dict[str, Any]]:
    """The verdict of one record, or nothing where its cell is empty."""
    cells = _filled_cells(record)
    if len(cells) > 1:
        raise UnusableError("label", f"both {' and '.join(cells)} are filled in, and one row has one verdict")
    for value in cells.values():
        trusted_label = as_trusted_label(value, record.get("label"), words)
        keys = {name: _as_id(record.get(name), name) for name in KEYS}
        if not any(keys.values()):
            raise UnusableError("row_id", "the verdict is on no row")
        yield {
            **keys,
            "trusted_label": trusted_label,
            "verdict": _as_word(value) if trusted_label is None else LABEL_NAMES[trusted_label],
            "reviewer": _optional_text(record.get("reviewer"), "reviewer"),
            "reviewed_at": moment(record.get("reviewed_at")),
            "note": _optional_text(record.get("note"), "note"),
            "file": file,
            "line": line,
            "draw_seed": None,  # a table may be written by hand: only the desk's own store tells
        }


def _filled_cells(record: Record) -> dict[str, Any]:
    """The verdict cells of a record that are filled in."""
    return {name: record[name] for name in VERDICT_COLUMNS if not _is_empty(record.get(name))}


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and math.isnan(value))


def as_trusted_label(value: Any, label: Any, words: Words = NO_WORDS) -> bool | None:
    """What a cell says of its row: true desirable; None where it is a verdict without a label. Raises UnusableError.

    label : the row's given label, of which keep and flip are said
    """
    word = _as_word(value)
    if (meaning := {**JUDGES, **words}.get(word)) is not None:
        return meaning
    if word in words:
        by_itself = LABEL_NAMES[JUDGES[word]]
        raise UnusableError("label", f"{yaml_value(value)} is {by_itself} by itself, and not by the recipe's label: write which")
    if word in WITHOUT_LABEL:
        return None
    if word not in ON_THE_LABEL:
        raise UnusableError("label", f"{yaml_value(value)} is no verdict")
    # in the files written here true is desirable, whatever the recipe reads it as
    if (given_label := {**words, **JUDGES}.get(_as_word(label))) is None:
        raise UnusableError("label", f"{word} is said of the given label, and column label holds {yaml_value(label)} here")
    return given_label == ON_THE_LABEL[word]


def words_of(label: Any) -> Words:
    """The words that a recipe's `label:` gives a meaning; None for one that means another thing as a verdict by itself.

    Of a word of two meanings nothing is known, and keep, flip, drop and contested are verdicts whatever a label says.
    """
    meanings: dict[str, set[Any]] = {}
    for (_, value), meaning in (label_rule(label).meanings or {}).items():
        meanings.setdefault(_as_word(value), set()).add(meaning)
    words: dict[str, bool | None] = {}
    for word, given in meanings.items():
        if word in JUDGES:
            words |= {} if given == {JUDGES[word]} else {word: None}
        elif len(given) == 1 and isinstance(meaning := next(iter(given)), bool) and word not in {*ON_THE_LABEL, *WITHOUT_LABEL}:
            words[word] = meaning
    return words


def _as_word(value: Any) -> str:
    """A cell as a word: true, TRUE and a boolean are the same, whatever wrote the file."""
    return str(value).strip().casefold() if isinstance(value, str | bool | int | float) else ""


def _as_id(value: Any, what: str) -> str | None:
    """A name of a row; None where the cell is empty."""
    if _is_empty(value):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return str(int(value))
    if not isinstance(value, str):
        raise UnusableError("row_id", f"{what} is {kind(value)}, not text")
    # write_queue's apostrophe, which kept it text
    return checked(value.strip().removeprefix("'"), what)


def _content_of(record: Record) -> str | None:
    """The name of the text that was judged, where the record holds it."""
    prompt, completion = record.get("prompt"), record.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return None
    return content_key(_without_apostrophe(prompt), _without_apostrophe(completion))


def _without_apostrophe(text: str) -> str:
    """A text without what kept a spreadsheet from running it."""
    return text[1:] if text.startswith("'") and re.match(FORMULA, text[1:]) else text


def _optional_text(value: Any, what: str) -> str | None:
    """What somebody wrote beside a verdict; a number is a name too."""
    if _is_empty(value):
        return None
    if not isinstance(value, str | int | float):
        raise UnusableError("note", f"{what} is {kind(value)}, not text")
    return checked(_without_apostrophe(str(value)), what)


# --- all files ---------------------------------------------------------------------------------------------------------


def _first_of_each_row(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The first verdict on each row; where verdicts on it differ, the first of each that a reviewer gave."""
    named = verdicts.with_columns(_row=pl.coalesce("row_id", pl.format("{}\0{}", "source_id", "content"), "source_id", "content"))
    named = named.with_columns(pl.col("draw_seed").max().over("_row"))
    differ = pl.col("verdict").n_unique().over("_row") > 1
    is_first = pl.struct("_row", "verdict", "reviewer", "reviewed_at").is_first_distinct()
    return named.filter(pl.when(differ).then(is_first).otherwise(pl.col("_row").is_first_distinct())).drop("_row")
