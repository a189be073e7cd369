"""Where every record and row went: counts by step, as a table and a picture; what became of every record, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from ktodata.feedback import HELD_OUT, PARTS
from ktodata.formats.file_types.encodings import guessed_lines
from ktodata.formats.label_rules import respelt_lines, values_in_words
from ktodata.ledger import AWAY, NOT_APPLIED
from ktodata.report import figures
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.text import count, plural

UNLABELLED = "unlabelled"
SHOWN_FIELDS = 12
ACTIONS = ("drop", "quarantine", "review")
REPEATS = ("repeat", "near_repeat")  # reasons for which a row is dropped that another stands for
# the same, and its label is another: a vote on that row, or one that its rater has taken back
OUTVOTED = {"outvoted": "outvoted", "superseded": "taken back"}
JUDGED = "trusted_disagrees"  # and held: verdicts do nothing but measure


@dataclass(frozen=True)
class FlowStep:
    """One stage of the run. `dropped` and `review` count the rows whose fate this step decided, each row once."""

    name: str
    dropped: int
    review: int
    relabelled: int
    left: int
    seconds: float | None
    cached: bool


@dataclass(frozen=True)
class FlowSection:
    """The way of all rows. rows_in = quarantined + kept + dropped + review.

    A record that never became a row counts as one where each record that was used is one row; where a record makes several, it
    is not among them: `aside`.
    unapplied : training rows whose trusted label is another than the label that they are trained on with
    unapplied_held_out : rows of validation and test of which a person said another label, or that they are of no use or contested
    without_label_noise : whether the recipe has no such step, which alone puts trusted labels in the place of labels
    """

    rows_in: int
    aside: int
    quarantined: int
    kept: int
    dropped: int
    review: int
    relabelled: int
    steps: tuple[FlowStep, ...]
    parts: tuple[tuple[str, int], ...]
    picture: Markup
    account: "RecordAccount | None"
    unapplied: int
    unapplied_held_out: int
    without_label_noise: bool

    @property
    def unapplied_sentence(self) -> str:
        """That verdicts change nothing in what is exported, and why; empty where each is in it."""
        return " ".join(filter(None, (self._unapplied_in_training(), self._unapplied_held_out())))

    def _unapplied_in_training(self) -> str:
        if not self.unapplied:
            return ""
        verdicts = (
            "1 trusted label differs from its row's label and is"
            if self.unapplied == 1
            else (f"{count(self.unapplied)} trusted labels differ from their rows' labels and are")
        )
        why = "the recipe has no label_noise step, which would" if self.without_label_noise else "label_noise is set not to"
        return f"{verdicts} not applied: {why}."

    def _unapplied_held_out(self) -> str:
        if not self.unapplied_held_out:
            return ""
        verdicts = (
            "1 verdict on a held-out row is"
            if self.unapplied_held_out == 1
            else (f"{count(self.unapplied_held_out)} verdicts on held-out rows are")
        )
        return f"{verdicts} not applied: validation and test keep the labels as given, also where a person called them wrong."

    @property
    def counted(self) -> str:
        """What all counts add up to: rows; or, where each record is one row, records."""
        return plural(self.rows_in, unit(self.account))

    @property
    def read(self) -> str:
        """What was read, in words."""
        if self.account is None or self.account.one_row_each:
            return self.counted
        return f"{plural(self.account.records, 'record')}, of which {self._became(self.account)}"

    @property
    def of_what(self) -> str:
        """The beginning of a sentence that counts rows."""
        if self.account is None or self.account.one_row_each:
            return f"Of {self.counted}"
        aside = f", {count(self.aside)} could not be used or have no label" if self.aside else ""
        return f"Of {plural(self.account.records, 'record')} {self._became(self.account)}{aside}. Of these rows"

    def _became(self, account: "RecordAccount") -> str:
        return f"{count(account.used)} became {plural(self.rows_in, 'row')}"

    @property
    def unreadable(self) -> int:
        """Records and, where each record is a row, rows that could not be used for a reason other than having no verdict."""
        several = self.account is not None and not self.account.one_row_each
        return (self.aside if several else self.quarantined) - (self.account.no_label if self.account is not None else 0)

    @property
    def further_votes(self) -> int:
        """Rows dropped that count as votes on the row that stands for their text: nothing of them is lost."""
        return self.account.further_votes if self.account is not None else 0

    @property
    def lost(self) -> int:
        """Rows dropped, further votes left out."""
        return self.dropped - self.further_votes

    @property
    def kept_share(self) -> float:
        """Of all that was read, further votes left out: of rows, and where a record may be several, times the records in rows."""
        used = self.account.used / max(self.account.records, 1) if self.account is not None and self.aside else 1.0
        return used * self.kept / max(self.rows_in - self.further_votes, 1)

    @property
    def votes_clause(self) -> str:
        """That rows are further votes, before what became of the others; empty where there are none."""
        return f"{self.account.votes_in_words()}, " if self.account is not None and self.further_votes else ""

    @property
    def answer(self) -> str:
        """What became of all rows, in a sentence."""
        quarantined = f"{count(self.quarantined)} quarantined"
        gone = f"{self.votes_clause}{count(self.lost)} {'was' if self.lost == 1 else 'were'} dropped, {quarantined}"
        waits = f"{count(self.review)} held for review"
        of_what = self.of_what if self.account is not None else f"{self.of_what} in"
        return f"{of_what}, {gone}, {waits}; {count(self.kept)} {'is' if self.kept == 1 else 'are'} kept."


def read_flow(run: RunFiles) -> FlowSection | None:
    """The counts, from the ledger; None before ingest has written its rows."""
    rows = run.columns("ingest", "row_id")
    if rows is None:
        return None
    fate = run.fates
    counted = pick(run.manifest, "rows", default={})
    totals = dict(fate.group_by("action").len().iter_rows())
    quarantined = pick(counted, "quarantined", default=run.quarantine.height + totals.get("quarantine", 0))
    rows_in = pick(counted, "rows_in", default=rows.height + run.quarantine.height)
    account, aside = record_account(run), 0
    if account is not None and not account.one_row_each:
        rows_in, aside = rows.height, rows_in - rows.height
        quarantined -= aside
    tally = {(stage, action): n for stage, action, n in fate.group_by("stage", "action").len().iter_rows()}
    dropped, review = totals.get("drop", 0), totals.get("review", 0)
    steps = _steps(run, tally, rows_in, 0 if aside else run.quarantine.height)
    parts = tuple((part, int(counted[part])) for part in PARTS if isinstance(counted.get(part), int))
    kept = rows_in - quarantined - dropped - review
    leaving = [figures.FlowLoss(step.name.replace("_", " "), step.dropped, step.review, step.left) for step in steps]
    picture = figures.flow(
        plural(rows_in, unit(account)), rows_in, [step for step in leaving if step.dropped or step.review], parts
    )
    return FlowSection(
        rows_in,
        aside,
        quarantined,
        kept,
        dropped,
        review,
        totals.get("relabel", 0),
        steps,
        parts,
        picture,
        account,
        _count_unapplied(run, "train"),
        _count_unapplied(run, *HELD_OUT),
        all("label_noise" not in step for step in pick(run.manifest, "recipe.steps", default=())),
    )


def unit(account: "RecordAccount | None") -> str:
    """What is counted: a record, where each is one row."""
    return "record" if account is not None and account.one_row_each else "row"


def _count_unapplied(run: RunFiles, *parts: str) -> int:
    """How many rows of these parts are exported as they were read though a person said otherwise of them."""
    exported = run.columns("export", "part")
    if exported is None or "part" not in exported.columns:
        return 0
    unapplied = run.ledger.filter(pl.col("stage") == "export", pl.col("reason") == NOT_APPLIED)
    return exported.filter(pl.col("part").is_in(parts)).join(unapplied, on="row_id", how="semi").height


def _steps(run: RunFiles, tally: dict[tuple[str, str], int], rows_in: int, records: int) -> tuple[FlowStep, ...]:
    """What each stage left. records : that became no row, and are counted with the rows"""
    left, steps = rows_in, []
    for name, stage in _stages(run).items():
        dropped = tally.get((name, "drop"), 0) + tally.get((name, "quarantine"), 0)
        if name == "ingest":
            dropped += records
        review = tally.get((name, "review"), 0)
        left -= dropped + review
        steps.append(
            FlowStep(
                name, dropped, review, tally.get((name, "relabel"), 0), left, stage.get("seconds"), bool(stage.get("cached"))
            )
        )
    return tuple(steps)


def _stages(run: RunFiles) -> dict[str, dict[str, Any]]:
    """What the manifest says of each stage that decides about rows, in the order they ran."""
    listed = pick(run.manifest, "stages", default=[])
    return {stage["name"]: stage for stage in listed if stage.get("name") not in ("train", "evaluate")}


@dataclass(frozen=True)
class RecordAccount:
    """records = used + unlabelled + all of `unreadable`; rows = repeats + dropped + quarantined + held + kept.

    unmapped : values of the label without a meaning, the commonest. not_kept : fields that no row carries, with their records.
    unread_trusted : trusted column -> its values without a meaning -> records.
    respelt : setting -> words that were read as another spelling of one with a meaning -> records.
    even_votes : records with as many votes for each label, which gave a row of each.
    repeats : rows that another stands for; dropped, quarantined, held : for all other reasons, each row once.
    repeats_by_other_raters : of the repeats, no copies, but votes of other raters.
    reasons : action -> reason -> rows, repeats left out.
    withdrawn : records that were not read, as they were withdrawn; they count nowhere else.
    without_records : names of files that hold no record, where others do. guessed : lines on those whose encoding is a guess.
    """

    records: int
    used: int
    rows: int
    unlabelled: int
    unreadable: Mapping[str, int]
    unmapped: Mapping[str, int]
    not_kept: Mapping[str, int]
    earlier_votes: int
    repeats: int
    dropped: int
    quarantined: int
    held: int
    kept: int
    withdrawn: int = 0
    even_votes: int = 0
    unread_trusted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    respelt: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    repeats_by_other_raters: int = 0
    without_records: Sequence[str] = ()
    guessed: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @property
    def one_row_each(self) -> bool:
        """Whether each record that was used became one row, so that the others may be counted with the rows."""
        return self.rows == self.used

    @property
    def no_label(self) -> int:
        """Records without a verdict, or whose verdict is that neither of two is better: they can be read."""
        return self.unlabelled + self.unreadable.get("tie", 0)

    @property
    def copies(self) -> int:
        """Repeats that are no votes of other raters."""
        return self.repeats - self.repeats_by_other_raters

    @property
    def further_votes(self) -> int:
        """Rows that are votes on the row of their text: of other raters who agree, of those outvoted, and those taken back."""
        return self.repeats_by_other_raters + sum(self._outvoted.values())

    @property
    def _outvoted(self) -> dict[str, int]:
        dropped = self.reasons.get("drop", {})
        return {words: dropped[reason] for reason, words in OUTVOTED.items() if dropped.get(reason)}

    def votes_in_words(self) -> str:
        """The further votes by what they say of the label: one wording for the headline, the terminal and the page."""
        each = {"agree": self.repeats_by_other_raters} | self._outvoted
        kinds = ", ".join(f"{count(rows)} {kind}" for kind, rows in each.items() if rows)
        votes = "is a further vote" if self.further_votes == 1 else "are further votes"
        return f"{count(self.further_votes)} {votes} on a text that has its row ({kinds})"

    def lines(self) -> list[str]:
        """One sentence for each thing that became of records, rows or fields."""
        records = self.reading_lines()
        dropped = self.dropped - sum(self._outvoted.values())
        left = [("drop", dropped), ("quarantine", self.quarantined), ("review", self.held)]
        words = [f"{count(number)} {AWAY[name]}{self._why(name)}" for name, number in left if number]
        votes, copies = self.votes_in_words(), f"{plural(self.copies, 'repeat')} dropped"
        words = [*([votes] if self.further_votes else []), *([copies] if self.copies else []), *words]
        return [*records, *([f"of {plural(self.rows, 'row')}, {', '.join(words)}; {count(self.kept)} are left"] if words else [])]

    def _why(self, action: str) -> str:
        """The reasons of one action with their rows, the commonest first."""
        named = ((reason, rows) for reason, rows in self.reasons.get(action, {}).items() if reason not in OUTVOTED)
        reasons = sorted(named, key=lambda item: (-item[1], item[0]))
        each = [f"{f'{count(number)} ' if len(reasons) > 1 else ''}{reason.replace('_', ' ')}" for reason, number in reasons]
        return f" ({', '.join(each)})" if each else ""

    def reading_lines(self) -> list[str]:
        """Those of `lines` that are about reading."""
        lines = [f"{plural(self.records, 'record')} read: {count(self.used)} became {plural(self.rows, 'row')}"]
        if without := self.without_records:
            more = f" and {len(without) - SHOWN_FIELDS:,} more" if len(without) > SHOWN_FIELDS else ""
            hold = "file holds no record" if len(without) == 1 else "files hold no record"
            lines.append(f"{count(len(without))} {hold}: {', '.join(without[:SHOWN_FIELDS])}{more}")
        lines += self.guessed[:SHOWN_FIELDS]
        if self.even_votes:
            lines.append(
                f"{plural(self.even_votes, 'record')} with even votes: a row of each label, held where the recipe has dedupe"
            )
        lines += respelt_lines(self.respelt)
        if self.unlabelled:
            lines.append(f"{plural(self.unlabelled, 'record')} not used: no label, or one that is set aside")
        for reason, number in self.unreadable.items():
            values = values_in_words(self.unmapped)
            also = f" (values: {values})" if reason == "label_unmapped" and values else ""
            lines.append(f"{plural(number, 'record')} not used: {reason.replace('_', ' ')}{also}")
        for column, unread in self.unread_trusted.items():
            values = values_in_words(unread)
            kept = f"in trusted column {column!r} without a meaning (values: {values}); the rows stay, without a trusted label"
            lines.append(f"{plural(sum(unread.values()), 'verdict')} {kept}")
        return [*lines, *self.field_lines()]

    def field_lines(self) -> list[str]:
        """Of fields that no row carries, of verdicts that were replaced, of records that were withdrawn: a sentence each."""
        fields = [*not_kept_lines(self.not_kept, one_line=True), *earlier_votes_lines(self.earlier_votes)]
        withdrawn = f"{plural(self.withdrawn, 'record')} withdrawn (ktodata forget): not read, and counted nowhere else"
        return [*fields, withdrawn] if self.withdrawn else fields


def record_account(run: RunFiles) -> RecordAccount | None:
    """The account of a run, as far as it has come; None before anything was read."""
    metrics = run.metrics("ingest")
    if "records" not in metrics:
        return None
    counted = run.fates.group_by("action", "reason").len().sort("action", "reason")
    gone = {(action, reason): rows for action, reason, rows in counted.iter_rows()}
    return reading_account(metrics, gone=gone, repeats_by_other_raters=run.metrics("dedupe").get("repeats_by_other_raters", 0))


def reading_account(
    metrics: Mapping[str, Any], *, gone: Mapping[tuple[str, str], int] | None = None, repeats_by_other_raters: int = 0
) -> RecordAccount:
    """The account that the metrics of reading give; gone : (action, reason) -> rows, of the steps after it, which counted the
    repeats by other raters.
    """
    gone = gone or {}
    repeats = sum(gone.get(("drop", reason), 0) for reason in REPEATS)
    why = {action: {reason: rows for (name, reason), rows in gone.items() if name == action} for action in ACTIONS}
    why["drop"] = {reason: rows for reason, rows in why["drop"].items() if reason not in REPEATS}
    dropped, quarantined, held = (sum(why[action].values()) for action in ACTIONS)
    reasons: dict[str, int] = dict(metrics.get("quarantined", {}))
    rows = int(metrics["rows"])
    return RecordAccount(
        records=int(metrics["records"]) - int(metrics.get("withdrawn", 0)),
        withdrawn=int(metrics.get("withdrawn", 0)),
        used=int(metrics["records_used"]),
        rows=rows,
        unlabelled=reasons.pop(UNLABELLED, 0),
        unreadable=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        unmapped=dict(metrics.get("unmapped_labels", {})),
        not_kept=dict(metrics.get("not_kept", {})),
        earlier_votes=int(metrics.get("earlier_votes", 0)),
        even_votes=int(metrics.get("even_votes", 0)),
        unread_trusted=dict(metrics.get("unread_trusted", {})),
        respelt=dict(metrics.get("respelt", {})),
        repeats=repeats,
        repeats_by_other_raters=min(repeats_by_other_raters, gone.get(("drop", "repeat"), 0)),
        dropped=dropped,
        quarantined=quarantined,
        held=held,
        kept=rows - repeats - dropped - quarantined - held,
        without_records=[file["name"] for file in metrics.get("files", ()) if file.get("records") == 0],
        guessed=guessed_lines(metrics.get("files", ())),
        reasons=why,
    )


def not_kept_lines(not_kept: Mapping[str, int], *, one_line: bool = False) -> list[str]:
    """The fields that no row carries: a sentence for each, or one for all."""
    if not one_line:
        return [f"field {name!r} of {plural(records, 'record')} is not kept" for name, records in not_kept.items()]
    shown = ", ".join(f"{name} {count(records)}" for name, records in list(not_kept.items())[:SHOWN_FIELDS])
    more = f" and {len(not_kept) - SHOWN_FIELDS:,} more" if len(not_kept) > SHOWN_FIELDS else ""
    return [f"fields not kept, with their records: {shown}{more} (keep: [...] keeps them)"] if not_kept else []


def earlier_votes_lines(earlier: int) -> list[str]:
    """A sentence about verdicts that their own raters have replaced."""
    return [f"{plural(earlier, 'earlier verdict')} replaced by the same rater's last"] if earlier else []


class HeldRows(NamedTuple):
    """texts : with both labels, of which one verdict settles both rows. rows : others that a verdict settles, one each.

    judged : held although a verdict differs. settled : held whatever a verdict says, those judged not among them
    """

    texts: int = 0
    rows: int = 0
    judged: int = 0
    settled: int = 0

    @property
    def verdicts(self) -> int:
        """That the desk asks for: LabelAudit.waits counts the same."""
        return self.texts + self.rows

    def to_judge(self) -> str:
        """What a person should judge; empty where nothing waits."""
        if not self.texts:
            return f"Judge the {plural(self.rows, 'row')} held for review." if self.rows else ""
        texts = f"the {plural(self.texts, 'text')} with both labels"
        others = f", and {plural(self.rows, 'other row')}" if self.rows else ""
        verdicts = "one verdict settles a text" + (f", {count(self.verdicts)} in all" if others else "")
        return f"Judge what is held for review: {texts}{others} ({verdicts})."

    def not_to_judge(self) -> str:
        """Held rows that no verdict would let in; empty where there are none."""
        if not self.settled:
            return ""
        return f"On {count(self.settled)} of those held nothing is left to judge: a verdict was given, or the label is not why."


def held_rows(files: RunFiles, flow: FlowSection | None) -> HeldRows:
    """As dedupe and label_noise counted them; the others are what is left of all that are held."""
    if flow is None:
        return HeldRows()
    repeats, noise = files.metrics("dedupe"), files.metrics("label_noise")
    texts, rows = pick(repeats, "texts_to_judge", default=0), pick(noise, "rows_to_judge", default=0)
    last = files.ledger.filter(pl.col("stage") == "export", pl.col("action") == "review")
    judged = int((last["reason"] == JUDGED).sum())
    return HeldRows(texts, rows, judged, max(flow.review - pick(repeats, "held_for_review", default=0) - rows - judged, 0))
