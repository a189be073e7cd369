"""Reading feedback: every record becomes rows or goes to the quarantine with its line and a reason."""

import html
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import polars as pl

from ktodata.errors import EmptyDataError, FormatError, LabelError, SettingError
from ktodata.feedback import check_feedback
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.formats.columnar.plain_forms import plain_form
from ktodata.formats.columnar.plain_records import plain_rows
from ktodata.formats.columnar.record_batches import groups_of_keys, record_batches
from ktodata.formats.data_files import Source, find_sources, fingerprint, on_this_machine
from ktodata.formats.dialects import FORMATS, format_named, format_of
from ktodata.formats.dialects.judged_turns import EACH, JUDGED_TURNS
from ktodata.formats.dialects.label_studio import LABEL_STUDIO
from ktodata.formats.dialects.mapping import MAPPING
from ktodata.formats.dialects.preference import PREFERENCE
from ktodata.formats.file_types.encodings import guessed_lines
from ktodata.formats.file_types.file_settings import MAX_RECORD_MB, FileSettings
from ktodata.formats.file_types.file_shape import file_shape
from ktodata.formats.file_types.open_files import read_records
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.format import USUAL, Columns, Fields, Format, make_fields
from ktodata.formats.in_memory import NAME, records_in_memory
from ktodata.formats.label_rules import LABEL_REASONS, MAX_SHOWN, UnmappedLabelError, respelt_lines, values_in_words, yaml_name
from ktodata.formats.message_records import ANSWER, BEFORE, answer_records
from ktodata.formats.records import ABSENT, UnusableError, clip, listed, lookup
from ktodata.formats.scores import ScoreNames, UnaskedVerdictError
from ktodata.formats.table import MAX_VALUES, FeedbackTable, QuarantineTable
from ktodata.formats.times import moment, time_formats, time_reader
from ktodata.formats.unread_fields import UnreadFields
from ktodata.formats.verdicts.several_questions import UnnamedColumns
from ktodata.formats.withdrawn import WithdrawnRecordError, current_lists, record_ids
from ktodata.work_done import WorkDone

SHOWN_VALUES = 20
BY_COMMAND = "`ktodata init --from FILE`, or kd.inspect, names them."  # columns that no format knows
MAX_UNREADABLE_TIMES = 0.05
MAX_TIME_EXAMPLES = 3
# fewer records with the same keys are read one by one: the columns' own cost is that of about so many
MIN_COLUMNAR = 200
MAX_SIDES = 2  # numbers that differ; more are ratings


@dataclass(frozen=True)
class IngestResult:
    """What was read.

    feedback : the feedback table (see ktodata.feedback.COLUMNS), then `rating` where ratings were read, then what was kept.
    quarantine : file, line, reason, detail, raw, raw_chars, ids; one line for each record that did not become rows.
    metrics : counts for the manifest and the report. records == records_used + quarantine.height, always; + withdrawn,
        where lists of withdrawn records were given (withdrawn.py).
    """

    feedback: pl.DataFrame
    quarantine: pl.DataFrame
    metrics: Mapping[str, Any]

    def _counts(self) -> list[str]:
        reasons = self.quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
        unmapped = values_in_words(self.metrics.get("unmapped_labels", {}))
        quarantined = (
            f"{count:,} quarantined: {reason}{f' (values: {unmapped})' if reason == 'label_unmapped' and unmapped else ''}"
            for reason, count in reasons.iter_rows()
        )
        even = self.metrics.get("even_votes", 0)
        held = [f"{even:,} with even votes: a row of each label, which dedupe holds for review"] if even else []
        unread = [
            f"{sum(values.values()):,} verdicts in trusted column {column!r} without a meaning: their rows have no trusted label"
            for column, values in self.metrics.get("unread_trusted", {}).items()
        ]
        respelt = respelt_lines(self.metrics.get("respelt", {}))
        guessed = guessed_lines(self.metrics.get("files", ()))
        first = f"{self.metrics['records']:,} records, {self.feedback.height:,} rows"
        return [first, *guessed, *held, *respelt, *unread, *quarantined]

    def __repr__(self) -> str:
        return "\n".join(self._counts())

    def _repr_html_(self) -> str:
        first, *quarantined = map(html.escape, self._counts())
        return f"<p>{first}</p><ul>{''.join(f'<li>{line}</li>' for line in quarantined)}</ul>"


def read(
    paths: Any,
    *,
    format: str = "auto",
    prompt: Columns = None,
    completion: Columns = None,
    messages: str | None = None,
    judged: str = "last",
    conversation: str | Mapping[str, Any] | None = None,
    label: str | Mapping[Any, Any] | None = None,
    votes: Mapping[str, str] | Sequence[str] | None = None,
    rater: str | None = None,
    created_at: str | Mapping[str, str] | None = None,
    source_id: str | None = None,
    source: str | None = None,
    model: Columns = None,
    pair_id: str | None = None,
    trusted: str | Mapping[Any, Any] | None = None,
    keep: Sequence[str] | Mapping[str, str] | None = None,
    transcripts: bool = False,
    split: str | None = None,
    join_parts: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    table: str | None = None,
    max_record_mb: float = MAX_RECORD_MB,
) -> IngestResult:
    """Read feedback from files, a saved data set or a hub id.

    What a file is, its content says: JSON lines, JSON documents, CSV, Parquet, Arrow, SQLite, DuckDB, .xlsx; text also packed
    with gzip or zstd. `kd.inspect` shows how a file would be read.

    paths : files, globs, s3://, gs://, az:// and hf:// URLs, saved data sets, hub ids; or
        what is in memory: a polars or pandas frame, a list of dicts, a datasets.Dataset.
    format : its name (`ktodata.formats.FORMATS`), or "auto": each record is read in the first format that it looks like;
        with `prompt` or `completion` given, "mapping", or, with two completions, "preference".
    prompt : column of the prompt, or several whose texts are joined, each on its own line. "a.b" is b inside a.
    completion : column of the completion, or of the two that are compared.
    messages : column of whole conversations that end with the judged answer: turns, or turns as JSON text, as in a CSV's cell.
        With `completion`, of the turns before it.
    judged : "last": a conversation ends with the judged answer; "last_assistant": the last answer, whatever turns follow it.
    conversation : where each record is one message, the column of its conversation, or {column, id, parent, role, text};
        role may say what its values mean: {column: isCreatedByUser, true: user, false: assistant}. Each answer is then a record.
    label : column of the label, or {column: thumb, up: true, down: false, meh: null}, or {column: score, at_least: 4.0}; where
        low is good, {column: grade, desirable_at_most: 2}. Values match exactly, or else as one number (1, 1.0, "1"), boolean
        (true, "TRUE") or word ("Yes", "yes "), which is counted. Without meanings only booleans are labels. null sets a record
        aside.
    votes : {column: rater} for several verdicts in one record; the label is in the column of `label`, or else the majority.
        ["votes[]"]: a list of verdicts, which does not say whose they are.
        Where they are even the record gives a row of each label, with the votes for it; `dedupe` holds both for review.
    rater, created_at, source_id, source, model, pair_id : columns. Times are ISO or e-mail text, or
        seconds, milli-, micro- or nanoseconds since 1970; else created_at: {column: ts, format: "%d/%m/%Y"}, or format: excel.
    trusted : column of an expert's verdict, read with the meanings of `label`, or as booleans where none are given (and where it
        is trusted_label, as ktodata writes it); or, with meanings of its own, {column: human_ok, 1: true, 0: false}. A row whose
        verdict has no meaning stays, without a trusted label, and is counted.
    keep : columns to keep as metadata, or {new name: column}.
    split : column of the part that a row was given: train, test, ... It becomes column given_part, for the stage split.
    join_parts : of a data set that has several parts. True: they are read as one; False: given_part keeps each row's. Without it
        they are not read.
    delimiter, encoding : of a CSV, or of any text, where the content does not show it.
    table : of a database; the sheet of a workbook; the list inside a JSON document; the split of a saved data set.
    max_record_mb : a longer record is not read.
    transcripts : read prompts that start with "Human:" as HH-RLHF transcripts, into turns.

    Texts are never altered. A file without records is counted with 0. Raises FormatError (missing, damaged or unreadable file),
    EmptyDataError (no file holds a record), LabelError (no record has a usable label, or no verdict of the trusted column a
    meaning) and SettingError (a setting that cannot be meant, or that names a column no record has).
    """
    about = {
        "rater": rater,
        "created_at": created_at,
        "source_id": source_id,
        "source": source,
        "model": model,
        "pair_id": pair_id,
    }
    fields = make_fields(
        prompt=prompt,
        completion=completion,
        label=label,
        votes=votes,
        trusted=trusted,
        keep=keep,
        transcripts=transcripts,
        part=split,
        keep_parts=join_parts is False or (split is not None and not join_parts),
        messages=messages,
        judged=judged,
        conversation=conversation,
        about=about,
    )
    settings = FileSettings(delimiter, encoding, table, max_record_mb, ask_parts=join_parts is None)
    reader = _Reader(fields, _chosen_format(format, fields), settings)
    if (records := records_in_memory(paths, settings)) is not None:
        counts = {"name": NAME, "bytes": None, "sha256": None, "read_as": NAME} | reader.take(records, NAME)
        if not counts["records"]:
            raise EmptyDataError("there is no record in what was given to read.")
        return reader.result([counts])
    return reader.result([reader.read(source) for source in find_sources(paths)])


def _chosen_format(name: str, fields: Fields) -> Format | None:
    """The format of all records; None: each is read in the first it looks like. Raises SettingError for settings that clash."""
    compares = fields.label.names_sides or len(fields.completion) == 2
    if fields.message_columns is not None:
        return _format_of_messages(name, fields, compares=compares)
    by_turns = EACH in (fields.label.column or "") and not fields.names_columns
    implied_format = PREFERENCE if compares else MAPPING if fields.names_columns else JUDGED_TURNS if by_turns else None
    chosen = implied_format if name == "auto" else format_named(name)
    if chosen is not None:
        _check_fit(chosen, fields, compares=compares)
    return chosen


def _format_of_messages(name: str, fields: Fields, *, compares: bool) -> Format:
    if compares or fields.names_columns or name not in ("auto", MAPPING.name):
        raise SettingError(
            "conversation is for records that are one message each: no other format, prompt, completion or messages."
        )
    return MAPPING


def _check_fit(format: Format, fields: Fields, *, compares: bool) -> None:
    rule = fields.label
    if both := set(fields.prompt) & set(fields.completion):
        raise SettingError(f"prompt and completion both name the column {min(both)!r}: one text cannot be question and answer.")
    if format is JUDGED_TURNS and fields.votes:
        raise SettingError(f"votes are columns of a record; format {format.name!r} has one verdict on each turn, its label.")
    if fields.messages and (fields.prompt or format is not MAPPING):
        raise SettingError("messages is the column of the conversations, for format: mapping, without prompt.")
    if (fields.prompt or fields.completion) and not format.takes_columns:
        raise SettingError(f"format {format.name!r} has its own columns; with prompt or completion given, say format: mapping.")
    if compares and format not in (PREFERENCE, LABEL_STUDIO):
        raise SettingError(
            "two completions, and the words first, second and tie, are for format: preference or label_studio, "
            f"not {format.name!r}."
        )
    if format is PREFERENCE and (
        len(fields.completion) == 1 or rule.threshold is not None or (rule.meanings and not rule.names_sides)
    ):
        raise SettingError(
            "format 'preference' compares two completions: completion names two columns, "
            "and a value of the label means first, second, tie or null."
        )
    if "rating" in format.holds and not rule.is_given and not fields.votes:
        raise SettingError(
            f"format {format.name!r} holds ratings: say which are desirable, e.g. label: {{column: ..., at_least: 4}}, "
            "or desirable_at_most where low is good."
        )


class _Reader:
    """Sorts records into rows and quarantine, and counts."""

    def __init__(self, fields: Fields, format: Format | None, settings: FileSettings) -> None:
        self._fields = replace(fields, prompt=(BEFORE,), completion=(ANSWER,)) if fields.message_columns else fields
        self._settings = settings
        self._format = format
        self._table = FeedbackTable(fields)
        self._quarantine = QuarantineTable()
        self._score_names = ScoreNames()
        self._unread = UnreadFields(fields)
        self._unnamed = UnnamedColumns(fields.columns())
        self._records = 0
        self._nothing_read: EmptyDataError | None = None
        self._withdrawn, self._n_withdrawn = current_lists(), 0
        self._reasons: Counter[str] = Counter()
        self._unmapped: Counter[str] = Counter()
        self._senses: dict[str, Any] = {}
        self._respelt: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._first_problem: tuple[str, int, UnusableError] | None = None
        self._first_unasked: tuple[str, int, UnusableError] | None = None
        self._missing_columns = fields.named_columns()
        self._first_record: Mapping[str, Any] = {}

    def read(self, source: Source) -> dict[str, Any]:
        """Read one file to its end; the metrics about it."""
        with on_this_machine(source) as here:
            return self._read_here(here)

    def _read_here(self, source: Source) -> dict[str, Any]:
        try:
            shape = file_shape(source, self._settings)
            counts = self.take(read_records(source, self._settings, shape), source.name)
        except EmptyDataError as nothing:
            self._nothing_read = self._nothing_read or nothing
            return fingerprint(source) | {"read_as": "no records", "records": 0, "formats": {}}
        except MemoryError:
            limit = f"max_record_mb: {self._settings.max_record_mb:g}"
            raise FormatError(
                f"{source.name!r}: a record needs more memory than there is. {limit} allows it; a lower limit sets it aside."
            ) from None
        guessed = {} if shape.encoding_is_certain else {"guessed_encoding": shape.encoding_evidence}
        return fingerprint(source) | {"read_as": shape.text()} | guessed | counts

    def take(self, entries: Iterator[SourceRecord], name: str) -> dict[str, Any]:
        """Sort the records of one source; how many there were, and in which formats."""
        formats: Counter[str] = Counter()
        before, done = self._records, WorkDone("records")
        for batch in record_batches(self._entries(entries)):
            self._note_columns(batch)
            self._unnamed.add(name, batch)
            columnar = self._take_plain(batch, name, formats)
            for place in sorted(set(range(len(batch))) - columnar):
                entry = batch[place]
                try:
                    formats[self._use(entry, name, self._records + place)] += 1
                except WithdrawnRecordError:
                    self._n_withdrawn += 1
                except UnusableError as problem:
                    self._set_aside(entry, name, problem)
                except RecursionError:
                    self._set_aside(entry, name, UnusableError("malformed_json", "its values are nested too deep"))
            self._records += len(batch)
            done.add(len(batch))
        return {"records": self._records - before, "formats": dict(sorted(formats.items()))}

    def _entries(self, entries: Iterator[SourceRecord]) -> Iterator[SourceRecord]:
        """The records of a file; where they are messages, one record for each answer."""
        if (columns := self._fields.message_columns) is None:
            return entries
        created_at = self._fields.about.get("created_at", (None,))[0]
        named = {*self._fields.columns(), self._fields.label_column()}
        time_of = time_reader(self._fields.time_format)
        return answer_records(entries, columns, self._fields.label_column(), created_at, time_of, named)

    def _take_plain(self, batch: Sequence[SourceRecord], file: str, formats: Counter[str]) -> set[int]:
        """Read the plain records of a batch column by column; which they are."""
        taken: set[int] = set()
        for keys, places in groups_of_keys(batch).items():
            entries = [batch[place] for place in places]
            if len(entries) < MIN_COLUMNAR or (plain := plain_form(keys, entries, self._fields, self._format)) is None:
                continue
            about, time_of = self._table.columns_of(plain.format), self._table.time_of
            rows = plain_rows(entries, plain, about, self._fields, file=file, time_of=time_of)
            if not rows.places:
                continue
            taken.update(places[place] for place in rows.places)
            if self._withdrawn:
                stays = rows.without(self._withdrawn)
                self._n_withdrawn += rows.frame.height - stays.frame.height
                rows = stays
            used = [places[place] for place in rows.places]
            self._table.add_frame(rows, [self._records + place for place in used])
            formats[plain.format.name] += len(used)
            self._unread.add_plain([batch[place].record for place in used], plain.format)
        return taken

    def _use(self, entry: SourceRecord, file: str, place: int) -> str:
        if entry.problem is not None:
            raise entry.problem
        record = entry.record
        self._fields.take_respelt()  # of a record that became no row
        format = format_of(record, self._fields, self._format)
        completions = format.read(record, self._fields)
        if not completions:
            raise UnusableError("no_completions", "the record holds no completion")
        self._table.add(completions, format, file, entry, place)
        self._unread.add(record, format, completions)
        for setting, words in self._fields.take_respelt().items():
            self._respelt[setting].update(words)
        return format.name

    def _note_columns(self, batch: Sequence[SourceRecord]) -> None:
        for entry in batch:
            if self._first_record and not self._missing_columns:
                return
            if entry.problem is None:
                self._first_record = self._first_record or entry.record
                self._missing_columns = [
                    (setting, name) for setting, name in self._missing_columns if lookup(entry.record, name) is ABSENT
                ]

    def _set_aside(self, entry: SourceRecord, file: str, problem: UnusableError) -> None:
        votes = self._fields.vote_values(entry.record) if isinstance(entry.record, Mapping) else ()
        voters = [rater for rater, value in votes if rater is not None and value not in (None, "")]
        ids = record_ids(entry.record, entry.raw, file, self._columns_of_ids(entry.record), voters)
        if any(each.holds_record(ids) for each in self._withdrawn):
            self._n_withdrawn += 1
            return
        self._quarantine.add(file, entry, problem, ids)
        self._reasons[problem.reason] += 1
        self._first_problem = self._first_problem or (file, entry.line, problem)
        if isinstance(problem, UnaskedVerdictError):
            self._score_names.add(problem.scores)
            self._first_unasked = self._first_unasked or (file, entry.line, problem)
        if isinstance(problem, UnmappedLabelError) and (problem.value in self._unmapped or len(self._unmapped) < MAX_VALUES):
            self._unmapped[problem.value] += 1
            self._senses[problem.value] = problem.sense

    def _columns_of_ids(self, record: Any) -> list[tuple[str, str]]:
        """(column of the feedback table, column of a record that became no row) of what may be an id."""
        own: Mapping[str, str] = USUAL
        with suppress(UnusableError, RecursionError):  # what it looks like may be what is wrong with it
            own = self._table.columns_of(format_of(record, self._fields, self._format)) if isinstance(record, Mapping) else USUAL
        named = [(name, column) for name, columns in self._fields.about.items() for column in columns[:1]]
        return [*own.items(), *named, *self._fields.keep.items()]

    def result(self, files: list[dict[str, Any]]) -> IngestResult:
        """The tables and the metrics. Raises when nothing can be used, or when a column that the reader named is nowhere."""
        if not self._records and self._nothing_read is not None:
            raise self._nothing_read
        aside, withdrawn = self._reasons.total(), self._n_withdrawn
        if self._score_names and (self._fields.label.column is None or aside == self._records):
            raise self._unasked_verdict()
        if withdrawn and aside + withdrawn == self._records:
            raise EmptyDataError(f"none of {self._records:,} records is left: {withdrawn:,} were withdrawn (`ktodata forget`).")
        if aside == self._records:
            raise self._nothing_usable()
        if self._missing_columns:
            raise self._no_such_column()
        table = self._table.table()
        if (unread := self._table.unread_trusted) and not table["trusted_label"].count():
            raise self._no_trusted_label(unread)
        self._check_sides(table, {name for file in files for name in file["formats"]})
        metrics = {
            "records": self._records,
            "records_used": self._records - aside - withdrawn,
            **({"withdrawn": withdrawn} if self._withdrawn else {}),
            "rows": table.height,
            "quarantined": dict(sorted(self._reasons.items())),
            "unmapped_labels": dict(self._unmapped_words().most_common(SHOWN_VALUES)),
            "unread_trusted": {self._trusted_column(): dict(unread.most_common(SHOWN_VALUES))} if unread else {},
            "respelt": {setting: dict(words.most_common(SHOWN_VALUES)) for setting, words in self._respelt.items()},
            "not_kept": self._unread.counts(),
            "even_votes": self._table.even_votes,
            "earlier_votes": int(table["earlier_votes"].list.len().sum() or 0),
            "unparseable_times": self._table.unparseable_times,
            "findings": [_time_finding(self._fields, self._table).as_dict(), self._unnamed.finding(table).as_dict()],
            "files": _with_rows(files, table),
            **_vote_counts(table),
        }
        feedback = table.drop("file")
        check_feedback(feedback)
        return IngestResult(feedback, self._quarantine.table(), metrics)

    def _check_sides(self, table: pl.DataFrame, formats: set[str]) -> None:
        """Raise LabelError where comparisons say 0 and 1 and never 2: as often as a tie, 0 is the first of two."""
        if self._fields.label.is_given or not self._reasons["tie"] or formats != {PREFERENCE.name}:
            return
        first_sides = table.group_by("file", "source_line", maintain_order=True).agg(pl.col("label").first())["label"]
        if first_sides.all():
            ties, ones = self._reasons["tie"], first_sides.len()
            raise LabelError(
                f"'preference': {ties:,} comparisons say 0, {ones:,} say 1 and none says 2, so that 0 may be a tie or the first "
                "answer. Say which: label: {column: preference, 0: CHOOSE, 1: CHOOSE}, with first, second or tie for CHOOSE."
            )

    def _trusted_column(self) -> str:
        return (self._fields.trusted and self._fields.trusted.column) or "trusted_label"

    def _no_trusted_label(self, unread: Counter[str]) -> LabelError:
        column, shown = self._trusted_column(), unread.most_common(MAX_SHOWN)
        values = ", ".join(f"{value} {count:,}" for value, count in shown)
        pairs = ", ".join(f"{value}: CHOOSE" for value, _ in shown) + (", ..." if len(unread) > MAX_SHOWN else "")
        return LabelError(
            f"trusted: column {column!r}: none of {unread.total():,} verdicts has a meaning: {values}. Say what each value "
            f"means, with true (desirable), false (undesirable) or null (no verdict) in place of CHOOSE: trusted: "
            f"{{column: {yaml_name(column)}, {pairs}}}; on the command line, --set 'trusted={{column: NAME, VALUE: true, ...}}'."
        )

    def _unasked_verdict(self) -> LabelError:
        file, line, problem = self._first_unasked or ("", 0, UnusableError("", ""))
        return LabelError(f"{file} line {line:,}: {problem.detail}. {self._score_names.in_words()}")

    def _no_such_column(self) -> SettingError:
        setting, column = self._missing_columns[0]
        return SettingError(f"{setting}: no record has a column {column!r}; {self._columns_hint(column)}")

    def _columns_hint(self, column: str) -> str:
        return f"the first has {listed(self._first_record)}. {self._nearest_hint(column)}".rstrip()

    def _nearest_hint(self, column: str) -> str:
        close = get_close_matches(column, self._first_record, n=1)
        return f"Did you mean {close[0]!r}? " if close else ""

    def _texts_hint(self) -> str:
        """Of columns of texts that no record has, what was probably meant."""
        named = (*self._fields.prompt, *self._fields.completion) if self._reasons["missing_column"] else ()
        return "".join(self._nearest_hint(column) for column in named if lookup(self._first_record, column) is ABSENT)

    def _nothing_usable(self) -> LabelError | FormatError | EmptyDataError:
        file, line, problem = self._first_problem or ("", 0, UnusableError("", ""))
        if set(self._reasons) <= set(LABEL_REASONS):
            return LabelError(self._no_label_text(file, line, problem))
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._reasons.most_common())
        none = f"none of {self._records:,} records can be used: {reasons} (first: {file} line {line:,}, {problem.detail})"
        # the texts of most were read, so that it is the label that is in the way
        if self._unmapped and self._reasons.most_common(1)[0][0] == "label_unmapped":
            return LabelError(f"{none}. {self._advice(self._fields.label_column())}")
        return FormatError(
            f"{none}. {self._texts_hint()}The formats are auto, {', '.join(FORMATS)}; "
            f"for columns of other names say prompt, completion and label: {BY_COMMAND}"
        )

    def _unmapped_words(self) -> Counter[str]:
        """Values without a meaning, under the commonest spelling of each: one meaning covers all spellings."""
        spelling: dict[Any, str] = {}
        words: Counter[str] = Counter()
        for value, count in self._unmapped.most_common():
            words[spelling.setdefault(self._senses[value], value)] += count
        return words

    def _no_label_text(self, file: str, line: int, problem: UnusableError) -> str:
        column = self._fields.label_column()
        where = f"first: {problem.detail}, at {file} line {line:,}"
        if self._reasons["label_missing"] == self._records:
            return (
                f"none of {self._records:,} records has a column {column!r}, which the label is read from; "
                f"{self._columns_hint(column).removesuffix('.')}. Name the column, and what its values mean: "
                "label={'column': 'thumb', 'up': True, 'down': False} in Python, label: {column: thumb, up: true, down: false} "
                "in a recipe."
            )
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._reasons.most_common())
        none = f"column {column!r}: none of {self._records:,} records has a usable label"
        return f"{none}: {reasons} ({where}). {self._advice(column)}"

    def _advice(self, column: str) -> str:
        """What to say of the values; a meaning is left open, as how often a value comes says nothing of it."""
        words = self._unmapped_words()
        values = [value for value, _ in words.most_common(MAX_SHOWN)]
        if not values:
            return "A label needs a value in that column; null sets a record aside."
        pairs = ", ".join(f"{value}: CHOOSE" for value in values)
        n_more = len(words) - len(values)
        more = f" {n_more:,} more values in {words.total() - sum(words[value] for value in values):,} records." if n_more else ""
        spellings = " One spelling of each is enough." if len(words) < len(self._unmapped) else ""
        yaml_words = {"'yes'", "'no'", "'on'", "'off'"} & set(values)
        quotes = " In YAML write 'yes' and 'no' in quotes; without them they may be booleans." if yaml_words else ""
        is_scale = len(values) > MAX_SIDES and all(value.strip("'").lstrip("-").replace(".", "", 1).isdigit() for value in values)
        scale = f" Of ratings, an edge says it: label: {{column: {yaml_name(column)}, at_least: CHOOSE}}." if is_scale else ""
        of_column = "" if self._fields.votes and not self._fields.label.column else f"column: {yaml_name(column)}, "
        compares = self._format is PREFERENCE or len(self._fields.completion) == 2
        meanings = "first, second, tie" if compares else "true (desirable), false (undesirable)"
        command = "" if compares else "; on the command line, --up VALUE and --down VALUE, each as often as needed"
        return (
            f"Say what each value means, with {meanings} or null (no label) in place of CHOOSE: "
            f"label: {{{of_column}{pairs}}}{command}.{spellings}{more}{quotes}{scale}"
        )


def _time_finding(fields: Fields, table: FeedbackTable) -> Finding:
    """KD011: many of the times cannot be read."""
    if not table.times:
        return not_applicable("KD011", "no record says when it was judged")
    if table.unparseable_times <= MAX_UNREADABLE_TIMES * table.times:
        return passed("KD011")
    column = fields.about["created_at"][0] if "created_at" in fields.about else "created_at"
    examples = ", ".join(map(repr, map(clip, table.unread_times[:MAX_TIME_EXAMPLES])))
    text = f"{table.unparseable_times:,} of {table.times:,} times cannot be read, e.g. {examples}."
    return issue("KD011", f"{text} {_time_advice(column, fields.time_format, table)}", table.unparseable_times)


def _time_advice(column: str, format: str | None, table: FeedbackTable) -> str:
    """A format only where it reads all of them, and would not lose those that read now."""
    unread, n_read = table.unread_times, table.times - table.unparseable_times
    as_they_are = all(moment(value) is not None for value in unread)
    formats = [] if as_they_are else time_formats(unread)
    settings = " or ".join(f'created_at: {{column: {yaml_name(column)}, format: "{each}"}}' for each in formats)
    if not n_read and as_they_are:
        return f"They read without a format: created_at: {yaml_name(column)}."
    if not n_read and formats:
        order = " Which comes first, day or month, no value shows." if len(formats) > 1 else ""
        return f"Say how they are written: {settings}.{order}"
    one_way = "Write the column in one way, such as 2026-01-27."
    if n_read:
        others = f"the other {n_read:,} read {f'as {format!r}, which is set' if format else 'without a format'}"
        alone = "without a format" if as_they_are else f"as {' or '.join(map(repr, formats))}"
        how = f"They read {alone}, {others}" if as_they_are or formats else f"No one format known here reads them; {others}"
        return f"{how}: no setting reads both. {one_way}"
    setting = f"created_at: {{column: {yaml_name(column)}, format: ...}}"
    return f"No one format known here reads them all. If they are written in one way, say it: {setting}. Else: {one_way}"


def _with_rows(files: Sequence[dict[str, Any]], table: pl.DataFrame) -> list[dict[str, Any]]:
    rows = dict(table.group_by("file").len().iter_rows())
    return [file | {"rows": rows.get(file["name"], 0)} for file in files]


def _vote_counts(table: pl.DataFrame) -> dict[str, Any]:
    raters = table["votes"].explode().struct.field("rater").drop_nulls()
    counts = raters.value_counts().sort("count", "rater", descending=[True, False])
    return {
        "labels": {"desirable": int(table["label"].sum()), "undesirable": int((~table["label"]).sum())},
        "votes": int(table["votes"].list.len().sum()),
        "raters": counts.height,
        "busiest_raters": dict(counts.head(SHOWN_VALUES).iter_rows()),
    }
