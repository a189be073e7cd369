"""Verdicts out to a file and in from one: as verdict files, as Argilla records, and as Label Studio tasks."""

import getpass
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ktodata.errors import EmptyDataError, FormatError, SettingError
from ktodata.feedback import LABEL_NAMES
from ktodata.files import check_no_run_file, whole_file
from ktodata.formats.data_files import FileKind, find_sources, kind_of, nearest
from ktodata.formats.file_types.open_files import read_records
from ktodata.formats.label_rules import yaml_value
from ktodata.formats.records import Record, clip
from ktodata.formats.times import moment, stamp
from ktodata.formats.verdicts.matching import KEYS, ROW_ID, RowKeys, content_key, match_verdicts, unmatched_in_words, with_content
from ktodata.formats.verdicts.reviews import Words, read_each_verdict, words_of, write_verdicts
from ktodata.formats.verdicts.verdict_store import (
    DRAWN_VIA,
    SUFFIX,
    VerdictWord,
    read_current_verdicts,
    verdict_per_row,
    verdict_word,
)
from ktodata.pipeline.run_folder import Run
from ktodata.review.store import STORE_PATH, ReviewVerdict, VerdictStore

FORMATS = ("verdicts", "argilla", "label_studio")
QUESTION, NOTE = "label", "note"
VERDICT_WORDS = ("desirable", "undesirable", "drop", "contested")


@dataclass(frozen=True)
class ExportSummary:
    """What a file holds: rows, verdicts of all reviewers, and what the format has no place for, in words."""

    path: Path
    rows: int
    verdicts: int
    contested: int
    dropped: int
    lost: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "path": str(self.path), "lost": list(self.lost)}

    def text(self) -> str:
        """For a terminal."""
        ends = f"{self.contested:,} contested, {self.dropped:,} to drop"
        summary = f"{self.verdicts:,} verdicts on {self.rows:,} rows in {self.path}: {ends}"
        return "\n".join([summary, *(f"  lost: {text}" for text in self.lost)])


class ImportedVerdict(NamedTuple):
    """One verdict of a file; says: one of VERDICT_WORDS. draw_seed: of the random draw that a desk asked about the row for."""

    keys: RowKeys
    reviewer: str | None
    says: str
    note: str
    at: datetime | None
    seconds: float | None
    draw_seed: int | None = None


@dataclass(frozen=True)
class ImportSummary:
    """What became of the verdicts of a file: `imported`, `unchanged`, `older`; `matching`: how they were put beside rows."""

    imported: int
    unchanged: int
    older: int
    matching: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def text(self) -> str:
        """For a terminal."""
        counts = (
            f"{self.imported:,} verdicts imported, {self.unchanged:,} were there already, {self.older:,} older than what is there"
        )
        return "; ".join([counts, *unmatched_in_words(self.matching)])


# --- out -------------------------------------------------------------------------------------------------------------


def export_verdicts(run: Run, path: Path, *, format: str = "verdicts") -> ExportSummary:
    """Write the verdicts of a run.

    format : "verdicts" is a line for what each reviewer said of a row, as `reviews:` takes it, by the name of `path` .csv, .jsonl
        or .parquet; "argilla" and "label_studio" are .json or .jsonl.
    Raises EmptyDataError when nobody has judged a row yet.
    """
    name = format.replace("-", "_")
    if name not in FORMATS:
        raise SettingError(f"there is no format {format!r} for verdicts; there are {', '.join(FORMATS)}.")
    check_no_run_file(path)
    kind = kind_of(str(path))
    allowed = ("csv", "lines", "parquet") if name == "verdicts" else ("json", "lines")
    if kind not in allowed or path.suffix in (".gz", ".zst"):
        endings = " or ".join(f".{_file_ending(each)}" for each in allowed)
        raise FormatError(f"verdicts as {name} are written as {endings}; got {path.name!r}.")
    if not (run.folder / STORE_PATH).is_file() or (current := read_current_verdicts(run.folder / STORE_PATH)).is_empty():
        raise EmptyDataError(f"nobody has judged a row of {run.folder} yet: `ktodata review {run.folder}` opens the desk.")
    rows = verdict_per_row(current)
    lost: tuple[str, ...] = ()
    with whole_file(path) as scratch:
        if name == "verdicts":
            write_verdicts(_verdict_file_columns(current), scratch, kind=kind)
        else:
            lost = _write_tasks(run, current, scratch, name, kind)
    contested, dropped = (int((rows["verdict"] == word).sum()) for word in ("contested", "drop"))
    return ExportSummary(path, rows.height, current.height, contested, dropped, lost)


def _file_ending(kind: str) -> str:
    return {"lines": "jsonl"}.get(kind, kind)


def _verdict_file_columns(current: pl.DataFrame) -> pl.DataFrame:
    """Each reviewer's verdicts under the names that files of verdicts have."""
    first_columns = ("row_id", "label", "verdict", "reviewer")
    return current.with_columns(reviewed_at="at").select(
        *first_columns, "reviewed_at", "note", "seconds", "detector", "blind", "via", "source_id", "content"
    )


def _write_tasks(run: Run, current: pl.DataFrame, path: Path, name: str, kind: FileKind) -> tuple[str, ...]:
    texts = run.stage("ingest").columns.select("row_id", "prompt", "completion")
    worded = current.with_columns(says=verdict_word(pl.col("verdict"), pl.col("trusted_label")))
    joined = worded.join(texts, on="row_id", how="inner", maintain_order="left")
    make: Callable[[list[dict[str, Any]]], dict[str, Any]] = _argilla_record if name == "argilla" else _label_studio_task
    records = [make(rows.to_dicts()) for _, rows in joined.group_by("row_id", maintain_order=True)]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    text = "".join(f"{line}\n" for line in lines) if kind == "lines" else "[" + ",\n".join(lines) + "]\n"
    path.write_text(text, encoding="utf-8")
    gone = worded.height - joined.height
    homeless = "when a verdict was given, seconds, " if name == "argilla" else ""
    return (
        f"{name} has no place for {homeless}detector and whether the label was hidden",
        *([f"{gone:,} verdicts are left out: their rows are no longer in the run"] if gone else []),
    )


def _argilla_record(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    first = verdicts[0]
    notes = [verdict for verdict in verdicts if verdict["note"]]
    responses = {QUESTION: [_argilla_response(verdict, verdict["says"]) for verdict in verdicts]}
    return {
        "id": first["row_id"],
        "status": "completed",
        "fields": {"prompt": first["prompt"], "completion": first["completion"]},
        "metadata": _names_of_row(first) | {"given": LABEL_NAMES[first["label"]]},
        "responses": responses | ({NOTE: [_argilla_response(verdict, verdict["note"]) for verdict in notes]} if notes else {}),
    }


def _names_of_row(row: Mapping[str, Any]) -> dict[str, str]:
    """What finds the row again, in this export of the data and in another."""
    return {name: row[name] for name in KEYS if row[name] is not None}


def _argilla_response(verdict: Mapping[str, Any], value: str) -> dict[str, Any]:
    return {"value": value, "user_id": verdict["reviewer"], "status": "submitted"}


def _label_studio_task(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    first = verdicts[0]
    given_label = LABEL_NAMES[first["label"]]
    return {
        "id": first["row_id"],
        "data": _names_of_row(first) | {"prompt": first["prompt"], "completion": first["completion"], "given": given_label},
        "annotations": [
            {
                "completed_by": verdict["reviewer"],
                "created_at": verdict["at"],
                "lead_time": verdict["seconds"],
                "was_cancelled": False,
                "result": [_control_result(QUESTION, "choices", "choices", verdict["says"])]
                + ([_control_result(NOTE, "textarea", "text", verdict["note"])] if verdict["note"] else []),
            }
            for verdict in verdicts
        ],
    }


def _control_result(name: str, kind: str, key: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "completion", "type": kind, "value": {key: [value]}}


# --- in --------------------------------------------------------------------------------------------------------------


def import_verdicts(run: Run, path: Path, *, reviewer: str | None = None) -> ImportSummary:
    """Read verdicts into the run's store, all or none of them: how many were imported, unchanged and older.

    path : a file of verdicts, a store, or what Argilla or Label Studio exported of what was exported here, by its content. A
        verdict is on the row of its row_id, else of its source_id, else of its text; those on no row are counted.
    reviewer : whose verdicts they are, where the file names nobody; the user's name when None.
    Raises DataError when none is on a row of the run, FormatError for a record that is none of these.
    """
    verdicts = list(_read_verdict_file(path, words_of(run.manifest["recipe"]["ingest"].get("label"))))
    if not verdicts:
        raise EmptyDataError(f"{path.name!r} holds no verdict.")
    rows = with_content(run.stage("ingest").columns.select("row_id", "source_id", "label", "prompt", "completion"))
    keys = [verdict.keys for verdict in verdicts]
    matched = match_verdicts(pl.DataFrame(keys, schema=dict.fromkeys(KEYS, pl.String()), orient="row"), rows, who=repr(path.name))
    of_row = {row["row_id"]: row for row in rows.drop("prompt", "completion").iter_rows(named=True)}
    detector = run.stage("label_noise").key or "none"
    somebody = reviewer or getpass.getuser()
    to_store = [
        _review_verdict(verdict, of_row[row_id], detector, verdict.reviewer or somebody, _via(verdict, how, path.name))
        for number, row_id, how in matched.verdicts.select("number", "row_id", "matched_by").iter_rows()
        for verdict in [verdicts[number]]
    ]
    store = VerdictStore(run.folder)
    try:
        counts = store.add_all(_one_word_each(to_store))
    finally:
        store.close()
    return ImportSummary(counts["imported"], counts["unchanged"], counts["older"], matched.metrics)


def _one_word_each(verdicts: Sequence[ReviewVerdict]) -> list[ReviewVerdict]:
    """Who says two things of a row, at times unknown, has called it contested: which was the last word nobody knows."""
    by_reviewer: dict[tuple[str, str], list[ReviewVerdict]] = {}
    for verdict in verdicts:
        by_reviewer.setdefault((verdict.row_id, verdict.reviewer), []).append(verdict)
    each: list[ReviewVerdict] = []
    for words in by_reviewer.values():
        differ = len({verdict.says for verdict in words}) > 1 and not all(verdict.at for verdict in words)
        both = " and ".join(dict.fromkeys(verdict.says for verdict in words))
        each += [replace(words[0], verdict="contested", note=f"said both {both}")] if differ else sorted(words, key=_time_of)
    return each


def _time_of(verdict: ReviewVerdict) -> str:
    return verdict.at


def _via(imported: ImportedVerdict, matched_by: str, file: str) -> str:
    """What the store says of where a verdict is from. A desk's own record of its draw stays, of the very rows that were drawn."""
    return file if imported.draw_seed is None or matched_by != ROW_ID else f"{DRAWN_VIA}{imported.draw_seed}"


def _review_verdict(imported: ImportedVerdict, row: Mapping[str, Any], detector: str, reviewer: str, via: str) -> ReviewVerdict:
    label = row["label"]
    on_label: dict[str, VerdictWord] = {"desirable": "keep" if label else "flip", "undesirable": "flip" if label else "keep"}
    verdict: VerdictWord = on_label.get(imported.says) or ("drop" if imported.says == "drop" else "contested")
    at = stamp(imported.at) or ""
    names = {"row_id": row["row_id"], "source_id": row["source_id"], "content": row["content"]}
    return ReviewVerdict(
        **names,
        reviewer=reviewer,
        verdict=verdict,
        label=label,
        detector=detector,
        note=imported.note,
        seconds=imported.seconds,
        at=at,
        via=via,
    )


def _read_verdict_file(path: Path, words: Words) -> Iterator[ImportedVerdict]:
    if not path.is_file():
        raise FormatError(f"there is no file of verdicts {str(path)!r}. {nearest(str(path))}")
    if path.suffix == SUFFIX:
        for row in (
            read_current_verdicts(path)
            .with_columns(says=verdict_word(pl.col("verdict"), pl.col("trusted_label")))
            .iter_rows(named=True)
        ):
            at = moment(row["at"])
            yield ImportedVerdict(_keys_of(row), row["reviewer"], row["says"], row["note"], at, row["seconds"], row["draw_seed"])
        return
    first = next(read_records(find_sources(path)[0]))
    if isinstance(first.record, Mapping) and "annotations" in first.record:
        yield from _read_tasks(path, _from_label_studio)
    elif isinstance(first.record, Mapping) and "responses" in first.record:
        yield from _read_tasks(path, _from_argilla)
    else:
        for row in read_each_verdict(path, words).iter_rows(named=True):
            at, note = row["reviewed_at"], row["note"] or ""
            yield ImportedVerdict(_keys_of(row), row["reviewer"], row["verdict"], note, at, None)


def _keys_of(row: Mapping[str, Any]) -> RowKeys:
    return RowKeys(*(row[name] for name in KEYS))


def _read_tasks(path: Path, read: Callable[[Record], Iterable[ImportedVerdict]]) -> Iterator[ImportedVerdict]:
    """The verdicts of every record. Raises FormatError naming the line of the first that cannot be read."""
    for line in read_records(find_sources(path)[0]):
        try:
            if line.problem is not None:
                raise ValueError(str(line.problem))
            yield from read(line.record)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise FormatError(
                f"{path.name!r}: record {line.line:,} cannot be read as verdicts on a row ({clip(str(error), 120)}). "
                "Nothing was imported."
            ) from error


def _from_argilla(record: Record) -> Iterator[ImportedVerdict]:
    keys = _keys_of_task(record, record.get("metadata"), record.get("fields"))
    responses = record["responses"]
    notes = {_reviewer_name(note.get("user_id")): str(note["value"]) for note in _submitted(responses.get(NOTE))}
    for response in _submitted(responses.get(QUESTION)):
        who = _reviewer_name(response.get("user_id"))
        word, note = _parse_word(response["value"]), notes.get(who, "")
        yield ImportedVerdict(keys, who, word, note, None, None)


def _submitted(responses: Any) -> list[Mapping[str, Any]]:
    return [response for response in responses or [] if response.get("status") in (None, "submitted")]


def _from_label_studio(record: Record) -> Iterator[ImportedVerdict]:
    keys = _keys_of_task(record, record["data"], record["data"])
    for annotation in record["annotations"]:
        answers = {result["from_name"]: result["value"] for result in annotation.get("result") or []}
        if annotation.get("was_cancelled") or QUESTION not in answers:
            continue
        note = answers.get(NOTE, {}).get("text") or [""]
        text = "\n".join(note) if isinstance(note, list) else str(note)
        seconds = annotation.get("lead_time")
        yield ImportedVerdict(
            keys,
            _reviewer_name(annotation.get("completed_by")),
            _parse_word(_single_choice(answers[QUESTION]["choices"])),
            text,
            moment(annotation.get("created_at")),
            float(seconds) if seconds is not None else None,
        )


def _keys_of_task(record: Record, metadata: Any, texts: Any) -> RowKeys:
    """What names the row of a task: what was written beside the texts, as tools give records ids of their own, and the texts."""
    metadata, texts = (part if isinstance(part, Mapping) else {} for part in (metadata, texts))
    row_id = metadata["row_id"] if metadata.get("row_id") is not None else record.get("id")
    both = [texts.get("prompt"), texts.get("completion")]
    content = metadata.get("content") or (content_key(*both) if all(isinstance(text, str) for text in both) else None)
    if not content and (not isinstance(row_id, str) or not row_id):
        raise ValueError("it names no row_id")
    source_id = metadata.get("source_id")
    return RowKeys(row_id if isinstance(row_id, str) else None, None if source_id is None else str(source_id), content)


def _single_choice(choices: Sequence[Any]) -> Any:
    if len(choices) != 1:
        raise ValueError(f"{len(choices)} choices were made, and a row has one verdict")
    return choices[0]


def _parse_word(value: Any) -> str:
    word = str(value).strip().casefold()
    if word not in VERDICT_WORDS:
        raise ValueError(f"{yaml_value(value)} is no verdict; they are {', '.join(VERDICT_WORDS)}")
    return word


def _reviewer_name(user: Any) -> str | None:
    """A reviewer's name; Label Studio may give an object, or a number."""
    if isinstance(user, Mapping):
        user = user.get("email") or user.get("username") or user.get("id")
    return None if user is None else str(user)
