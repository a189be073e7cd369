"""Labelled completions become the feedback table, unusable records the quarantine table."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ktodata.feedback import COLUMNS, LABEL_NAMES, TEMPLATE_FIELDS, VOTE
from ktodata.formats.dialects.hh_rlhf import is_transcript, transcript_prompt
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.format import GIVEN_PART, RATING, USUAL, Fields, Format
from ktodata.formats.label_rules import UnmappedLabelError
from ktodata.formats.records import (
    ABSENT,
    LabelledCompletion,
    Prompt,
    Record,
    Turn,
    UnusableError,
    Vote,
    checked,
    is_nameless,
    is_nobody,
    lookup,
    text,
    text_id,
    whole,
)
from ktodata.formats.times import moment, time_reader
from ktodata.formats.turns import MEDIA, is_plain, json_field, loaded_turn, plain, plain_turn, stored_turn, turns_of
from ktodata.formats.withdrawn import RecordIds, WithdrawnIds, WithdrawnRecordError, current_lists, id_text, staying

# rows are Python objects until so many are there, then a frame
CHUNK_ROWS = 20_000
RAW_CHARS = 10_000
MAX_IDS_CHARS = 100_000
# a file of free text read as labels must not fill the manifest with its values
MAX_VALUES = 1000
MAX_UNREAD_TIMES = 200  # of which their format is looked for
MAX_TIME_CHARS = 100
INT64 = range(-(2**63), 2**63)
BESIDE_TEXTS = frozenset((*TEMPLATE_FIELDS, *MEDIA, "system"))
TEXTS = ("rater", "source_id", "source", "pair_id", "model")

QUARANTINE = pl.Schema(
    {
        "file": pl.String(),
        "line": pl.Int64(),
        "reason": pl.String(),
        "detail": pl.String(),
        "raw": pl.String(),
        "raw_chars": pl.Int64(),
        "ids": pl.String(),
    }
)
# where a record stood, which is no part of what it says; pair_id is made of it where a record has none of its own
PLACE_COLUMNS = ("file", "source", "source_line", "pair_id")
_EXTRA = {"file": pl.String(), RATING: pl.Float64(), GIVEN_PART: pl.String()}
CHUNK = {name: column.dtype for name, column in COLUMNS.items()} | _EXTRA


@dataclass(frozen=True)
class CompleteRows:
    """One row each of some of several records.

    frame : the columns of CHUNK. kept : {kept column: values}. places : which of the records, from 0.
    """

    frame: pl.DataFrame
    kept: Mapping[str, Sequence[Any]]
    places: Sequence[int]

    def without(self, lists: Sequence[WithdrawnIds]) -> "CompleteRows":
        """Those that none of the lists holds."""
        kept = [pl.Series(name, map(id_text, values), dtype=pl.String) for name, values in self.kept.items()]
        table = self.frame.with_columns(kept)
        stays = staying(table, lists).arg_true().to_list()
        rest = {name: [values[place] for place in stays] for name, values in self.kept.items()}
        return CompleteRows(self.frame[stays], rest, [self.places[place] for place in stays])


class FeedbackTable:
    """Rows of the feedback table, gathered in the order in which they are read."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._rows: list[dict[str, Any]] = []
        self._kept: dict[str, list[Any]] = {name: [] for name in fields.keep}
        self._chunks: list[pl.DataFrame] = []
        # where each row stands among all, as those that are read many at once come in first
        self._places: list[int] = []
        self._columns: dict[str, dict[str, str]] = {}
        self.time_of = time_reader(fields.time_format)
        self.times = 0
        self.unparseable_times = 0
        self.unread_times: tuple[Any, ...] = ()  # different ones, the first MAX_UNREAD_TIMES
        self.even_votes = 0  # records
        self.unread_trusted: Counter[str] = Counter()  # values of the trusted column without a meaning -> records
        self._withdrawn = current_lists()

    def add(self, completions: list[LabelledCompletion], format: Format, file: str, entry: SourceRecord, place: int) -> None:
        """Add the rows of the record that is number `place` of all: all or, when one of its values is unusable, none.

        Raises WithdrawnRecordError for a record with a row that is withdrawn.
        """
        record, line, counted = entry.record, entry.line, self._times_counted()
        common = self._common(record, format, file, line)
        common["trusted_label"], unread = self._trusted(record)
        if self._fields.keep_parts:
            part = entry.part if self._fields.part is None else lookup(record, self._fields.part)
            common[GIVEN_PART] = as_name(part, GIVEN_PART)
        if len(completions) > 1 and common["pair_id"] is None and format.group == "pair_id":
            common["pair_id"] = f"{file}:{line}"
        kept = {name: scalar(lookup(record, column), column) for name, column in self._fields.keep.items()}
        rows = [self._row(judged, common) for completion in completions for judged in completion.by_label()]
        if any(ids.holds_row({**kept, **row}) for ids in self._withdrawn for row in rows):
            self.times, self.unparseable_times, self.unread_times = counted
            raise WithdrawnRecordError
        if unread is not None:
            known = unread in self.unread_trusted or len(self.unread_trusted) < MAX_VALUES
            self.unread_trusted[unread if known else "other values"] += 1
        self.even_votes += any(completion.verdict.label is None for completion in completions)
        self._rows += rows
        self._places += [place] * len(rows)
        for name, value in kept.items():
            self._kept[name] += [value] * len(rows)
        if len(self._rows) >= CHUNK_ROWS:
            self._close_chunk()

    def add_frame(self, rows: CompleteRows, places: Sequence[int]) -> None:
        """Add rows that were made together; `places` numbers their records among all."""
        self._close_chunk()
        self._chunks.append(rows.frame)
        self._places += places
        self.times += rows.frame.height - rows.frame["created_at"].null_count()
        for name, values in rows.kept.items():
            self._kept[name] += values

    def _times_counted(self) -> tuple[int, int, tuple[Any, ...]]:
        return self.times, self.unparseable_times, self.unread_times

    def _common(self, record: Record, format: Format, file: str, line: int) -> dict[str, Any]:
        common: dict[str, Any] = dict.fromkeys((*TEXTS, *TEMPLATE_FIELDS, "created_at", "system"))
        for name, key in self.columns_of(format).items():
            value = lookup(record, key)
            common[name] = self._time(value, self.time_of) if name == "created_at" else as_name(value, name)
        common |= {"file": file, "source": common["source"] or file, "source_line": line}
        if not BESIDE_TEXTS.isdisjoint(record):  # few records have any of it
            _check_no_media(record)
            common |= {name: json_field(record.get(name), name) for name in TEMPLATE_FIELDS} | {"system": _system(record, format)}
        return common

    def _trusted(self, record: Record) -> tuple[bool | None, str | None]:
        """The expert's verdict; and its value where that has no meaning: the row stays, as its label is no less read for it."""
        try:
            return self._fields.trusted_label(record), None
        except UnmappedLabelError as problem:
            return None, problem.value

    def columns_of(self, format: Format) -> dict[str, str]:
        """{feedback column: column of a record} of what describes a row, by the settings, else by the format."""
        if format.name not in self._columns:
            own = {**USUAL, **format.about, **{name: columns[0] for name, columns in self._fields.about.items()}}
            # what stands on the turns of a conversation is read with them
            self._columns[format.name] = {name: own[name] for name in (*TEXTS, "created_at") if "[]" not in own.get(name, "[]")}
        return self._columns[format.name]

    def _time(self, value: Any, time_of: Callable[[Any], datetime | None] = moment) -> datetime | None:
        if is_no_time(value):
            return None
        self.times += 1
        if (time := time_of(value)) is None:
            self.unparseable_times += 1
            shown = value[:MAX_TIME_CHARS] if isinstance(value, str) else value
            if len(self.unread_times) < MAX_UNREAD_TIMES and shown not in self.unread_times:
                self.unread_times += (shown,)
        return time

    def _row(self, judged: LabelledCompletion, common: Mapping[str, Any]) -> dict[str, Any]:
        row = {**common, **{name: as_name(value, name) for name, value in judged.about.items()}}
        prompt = judged.prompt
        if self._fields.transcripts and is_transcript(prompt):
            prompt = transcript_prompt(str(prompt))
        prompt = _with_system(row.pop("system"), prompt)
        row["tools"] = row["tools"] or json_field(judged.tools, "tools")
        votes = judged.verdict.votes
        if votes and len(votes) == 1:
            row["rater"] = row["rater"] or as_name(votes[0].rater, "rater")
            row["created_at"] = row["created_at"] or self._time(votes[0].created_at)
        row |= self._texts(prompt, judged) | {"label": judged.verdict.label, RATING: judged.verdict.rating}
        row["votes"] = None if votes is None else [self._vote(vote, row) for vote in votes]
        row["earlier_votes"] = [self._vote(vote, row) for vote in judged.verdict.earlier or ()] or None
        row["row_id"] = _content_id(row)
        return row

    def _texts(self, prompt: Prompt, judged: LabelledCompletion) -> dict[str, Any]:
        """prompt, turns, completion, answer: as text for whoever reads or compares, as turns where they are more than text."""
        if isinstance(prompt, str) and isinstance(judged.completion, str):
            return {"prompt": prompt, "turns": None, "completion": judged.completion, "answer": None}
        answer = {"role": "assistant", "content": judged.completion} if isinstance(judged.completion, str) else judged.completion
        turns = None if isinstance(prompt, str) else prompt
        return {
            "prompt": plain(prompt),
            "turns": turns and [stored_turn(turn) for turn in turns],
            "completion": plain_turn(answer),
            "answer": None if is_plain(answer) else stored_turn(answer),
        }

    def _vote(self, vote: Vote, row: Mapping[str, Any]) -> dict[str, Any]:
        rater = row["rater"] if is_nobody(vote.rater) else checked(str(vote.rater), "a rater's name")
        return {"rater": rater, "label": vote.label, "created_at": self._time(vote.created_at) or row["created_at"]}

    def _close_chunk(self) -> None:
        if not self._rows:
            return
        columns = {name: [row.get(name) for row in self._rows] for name in CHUNK}
        self._chunks.append(with_own_vote(pl.DataFrame(columns, schema=CHUNK)))
        self._rows = []

    def table(self) -> pl.DataFrame:
        """The feedback table: its own columns, `rating` where ratings were read, what was kept, and `file`, for the accounts."""
        self._close_chunk()
        table = pl.concat(self._chunks)
        order = sorted(range(table.height), key=self._places.__getitem__)
        if order != list(range(table.height)):
            table = table[order]
            self._kept = {name: [values[place] for place in order] for name, values in self._kept.items()}
        table = _number_repeats(table, self._kept)
        extra = [RATING] if self._fields.label.threshold is not None else []
        extra += [GIVEN_PART] if table[GIVEN_PART].null_count() < table.height else []
        return table.select(*COLUMNS, *extra, "file").with_columns(
            _kept_series(name, values) for name, values in self._kept.items()
        )


def with_own_vote(chunk: pl.DataFrame) -> pl.DataFrame:
    """A chunk in which a label without votes is the only vote."""
    only_vote = pl.concat_list(pl.struct("rater", "label", "created_at")).cast(pl.List(VOTE))
    return chunk.with_columns(votes=pl.col("votes").fill_null(only_vote))


class QuarantineTable:
    """Records that did not become rows, each with its place, a reason and the start of its text."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, str, str, str, int, str | None]] = []

    def add(self, file: str, entry: SourceRecord, problem: UnusableError, ids: RecordIds) -> None:
        """Set one record aside."""
        raw, chars = _raw_text(entry)
        kept = json.dumps(ids)
        self._rows.append(
            (file, entry.line, problem.reason, _utf8(problem.detail), raw, chars, kept if len(kept) <= MAX_IDS_CHARS else None)
        )

    def table(self) -> pl.DataFrame:
        """file, line, reason, detail, raw (at most RAW_CHARS), raw_chars (how long it truly is), and ids: `record_ids` as JSON.

        `forget` finds a record by its ids: a line of a CSV does not say what its cells are. null: they are too many to keep.
        """
        return pl.DataFrame(self._rows, schema=QUARANTINE, orient="row")


def _raw_text(entry: SourceRecord) -> tuple[str, int]:
    raw = entry.raw
    if raw is None:
        raw = json.dumps(entry.record, default=str, ensure_ascii=False)
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    text = text.rstrip("\r\n")
    return _utf8(text[:RAW_CHARS]), len(text)


def _utf8(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def _content_key(*parts: str | None) -> str:
    """16 hex digits that stand for the parts, in order; the lengths keep ("ab", "c") apart from ("a", "bc")."""
    lengths = ",".join("-" if part is None else str(len(part)) for part in parts)
    return text_id(lengths + "\x1f" + "".join(part for part in parts if part is not None))


def _number_repeats(table: pl.DataFrame, kept: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Turn column `row_id` from the name of the content into the name of the row: exact repeats are told apart by number.

    Repeats are numbered by what else they hold (votes, model, kept columns), so that shuffled or otherwise filed they have the
    same names; those that are wholly alike by file and line.
    """
    repeated = pl.col("row_id").is_duplicated()
    if not table.select(repeated.any()).item():
        return table
    places = table.select("row_id", "file", "source_line", repeated=repeated).with_row_index("position").filter("repeated")
    rest = table.filter(repeated).drop("row_id", *PLACE_COLUMNS)
    others = [
        repr((row, tuple(values[place] for values in kept.values())))
        for row, place in zip(rest.iter_rows(), places["position"], strict=True)
    ]
    places = places.with_columns(others=pl.Series(others, dtype=pl.String))
    numbered = places.sort("row_id", "others", "file", "source_line", "position")
    numbered = numbered.with_columns(nth=pl.int_range(pl.len()).over("row_id"))
    later = numbered.filter(pl.col("nth") > 0).select("position", name=pl.format("{}:{}", "row_id", "nth"))
    renamed = later.select("position", renamed=pl.Series([text_id(name) for name in later["name"]], dtype=pl.String))
    return (
        table.with_row_index("position")
        .join(renamed, on="position", how="left", maintain_order="left")
        .with_columns(row_id=pl.coalesce("renamed", "row_id"))
        .drop("position", "renamed")
    )


def _content_id(row: Mapping[str, Any]) -> str:
    turns, time = row["turns"], row["created_at"]
    prompt = row["prompt"] if turns is None else json.dumps([loaded_turn(turn) for turn in turns], ensure_ascii=False)
    label = LABEL_NAMES[row["label"]]
    # whether it was a conversation is part of the content: the plain text of one could be typed as a prompt
    form = "text" if turns is None else "turns"
    # a part only where there is one: rows without tools are named as they always were
    more = [row["answer"] and json.dumps(row["answer"], ensure_ascii=False), row["tools"], row["chat_template_kwargs"]]
    known = (row["rater"], time and time.isoformat(), row["source_id"])
    return _content_key(form, prompt, row["completion"], label, *known, *(more if any(more) else ()))


def _system(record: Record, format: Format) -> str | None:
    """The system prompt that stands beside the messages; null where there is none, or where the format's `read` has used it."""
    system = None if "system" in format.reads else record.get("system")
    if isinstance(system, list):  # Anthropic's parts
        system = turns_of([{"role": "system", "content": system}], "system")[0]["content"] if system else None
    return text(system, "system") if system else None


def _with_system(system: str | None, prompt: Prompt) -> Prompt:
    if system is None:
        return prompt
    turns: list[Turn] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if turns[0]["role"] != "system":
        return [{"role": "system", "content": system}, *turns]
    if turns[0]["content"] != system:
        raise UnusableError("two_systems", "the system text beside the conversation is not the one that it begins with")
    return turns


def _check_no_media(record: Record) -> None:
    if media := [name for name in MEDIA if record.get(name)]:
        raise UnusableError("not_text", f"the record has {', '.join(media)}, which a text model cannot be shown")


def is_no_time(value: Any) -> bool:
    """Whether a record says no time where one may stand."""
    return value is None or value is ABSENT or value == ""


def as_name(value: Any, what: str) -> str | None:
    """A value that names something, as text; an empty one, or a data frame's NaN, names nothing."""
    if value is ABSENT or (is_nobody if what == "rater" else is_nameless)(value):
        return None
    value = whole(value)
    return checked(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False), what)


def scalar(value: Any, column: str) -> Any:
    """A value to be kept: text, numbers and booleans as they are, all else as JSON."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, bool | float) or (isinstance(value, int) and value in INT64):
        return value
    return checked(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False), column)


def _kept_series(name: str, values: list[Any]) -> pl.Series:
    types = {type(value) for value in values if value is not None}
    for dtype, fitting in ((pl.Boolean(), {bool}), (pl.Int64(), {int}), (pl.Float64(), {int, float})):
        if types and types <= fitting:
            return pl.Series(name, values, dtype=dtype, strict=False)
    # a column of several types is text: a value must not change its meaning because another row has a different type
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pl.Series(name, texts, dtype=pl.String())
