"""A sitting of one reviewer: which row is next, what is said of it, and what is taken back. Knows nothing of the web."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import RunError
from ktodata.formats.verdicts.matching import content_key
from ktodata.formats.verdicts.verdict_store import DRAWN_VIA, VerdictWord
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run, SavedStage, stage_folder
from ktodata.review.filters import DIFFER, OTHERS, FilterColumns, Filters
from ktodata.review.queue import OUTLOOK_ROWS, ExpectedGain, build_queue, expected_gain, seconds_per_row
from ktodata.review.reviewer_agreement import disagreements
from ktodata.review.row_view import ReviewRow, RowView
from ktodata.review.store import CurrentVerdict, ReviewVerdict, StaleError, VerdictStore
from ktodata.work_done import working_on

MIN_SITTING_ROWS = 2


@dataclass(frozen=True)
class ReviewItem:
    """The page's content: one row, or none where nothing is left.

    current, current_id : the reviewer's verdict on the row so far, None for none, and its number, 0 for none
    undo_token : what undo would take back, as `undo` wants it; empty for nothing
    waiting : rows that the filters let through and that wait; skipped : rows set aside for this sitting
    decided : rows that the reviewer has judged, at whatever sitting; of_sitting : at this one, of its `sitting` rows
    next_place : place of the row that comes next, if this one is judged
    """

    row: ReviewRow | None
    why: str
    current: CurrentVerdict | None
    current_id: int
    note: str
    undo_token: str
    decided: int
    waiting: int
    skipped: int
    of_sitting: int
    sitting: int
    next_place: int | None
    blind: bool


@dataclass(frozen=True)
class ReviewOutlook:
    """The sitting (minutes; None where it is counted in rows), the pace (seconds a row), and what reviews would buy.

    seconds_a_row : None while too few verdicts are timed. gains : the first is of what is left of the sitting
    """

    minutes: float | None
    spent_minutes: float
    seconds_a_row: float | None
    measured: bool
    gains: list[ExpectedGain]


class ReviewSession:
    """One run, one reviewer, one sitting. Verdicts are in the store before a method returns."""

    def __init__(
        self,
        run: Run,
        audit: LabelAudit,
        *,
        reviewer: str,
        blind: bool | None = None,
        minutes: float = 60.0,
        budget: int | None = None,
    ) -> None:
        """`audit` is that of the run's labels; the others as for `open_session`. Raises RunError when verdicts cannot be kept."""
        self.run, self.audit, self.reviewer, self.blind = run, audit, reviewer, blind
        self.minutes = minutes if budget is None else None
        self.store = VerdictStore(run.folder)
        self.name = str(run.manifest["name"])
        self.detector = self._key_on_disk()
        working_on(f"choosing among {audit.table.height:,} rows")
        rows = max(MIN_SITTING_ROWS, int(minutes)) if budget is None else budget
        self.queue = build_queue(audit, rows + self._judged_before())
        working_on("putting rows side by side")
        self.rows = RowView(audit, run)
        self.columns = FilterColumns(audit.table, audit.evidence_against, self.queue.drawn)
        self._judged = np.zeros(len(self.rows), bool)
        self._judged_by_others = np.zeros(len(self.rows), bool)
        self._skipped: list[tuple[int, int]] = []  # place, and the number of the reviewer's latest verdict then
        self._settled: set[int] = set()  # places of rows on which reviewers differed, judged again in this sitting
        self._seconds: list[float] = []
        self._last_event = 0
        self._read_new_events()
        self._decided_before = int(self._judged.sum())
        self.sitting = min(rows, len(self._waiting(Filters())))

    def item(self, filters: Filters, *, place: int | None = None, note: str = "") -> ReviewItem:
        """The next row under the filters, or the one at `place`."""
        self._read_new_events()
        left = self._waiting(filters)
        if place is None and len(left):
            place = int(left[0])
        latest = self.store.latest(self.reviewer)
        current = None if place is None else self.store.current_verdict(self.rows.row_ids[place], self.reviewer)
        return ReviewItem(
            row=None if place is None else self.rows.row(place, float(self.queue.p_wrong[place]), blind=self.hides_label(place)),
            blind=self.hides_label(place),
            why="" if place is None else self.queue.why(place),
            current=current,
            current_id=current.id if current else 0,
            note=note or (current.note if current else ""),
            undo_token=self._undo_token(latest),
            decided=int(self._judged.sum()),
            waiting=len(left),
            skipped=len(self._skipped),
            of_sitting=self._judged_of_sitting(),
            sitting=self.sitting,
            next_place=next((int(row_place) for row_place in left[:2] if row_place != place), None),
        )

    def record(self, row_id: str, verdict: VerdictWord, *, current_id: int, detector: str, note: str, seconds: float) -> None:
        """Write a verdict down. Raises StaleError when the row is not as it was shown."""
        self.check_detector(detector)
        place = self.place(row_id)
        judged = ReviewVerdict(
            row_id=row_id,
            reviewer=self.reviewer,
            verdict=verdict,
            label=bool(self.rows.labels[place]),
            detector=self.detector,
            note=note,
            seconds=seconds,
            blind=self.hides_label(place),
            via=f"{DRAWN_VIA}{self.queue.seed}" if self.queue.drawn[place] else "desk",
            source_id=self.rows.source_ids[place],
            content=content_key(self.rows.text(place, "prompt"), self.rows.text(place, "completion")),
        )
        differed = bool(self._judged_by_others[place]) and place in self._differing()
        self.store.add(judged, current_id=current_id)
        if differed:
            self._settled.add(place)
        self._seconds.append(seconds)
        self._skipped = [skip for skip in self._skipped if skip[0] != place]

    def hides_label(self, place: int | None) -> bool:
        """Whether the label of a row, and all that hints at it, is hidden: of a random draw until it is judged, as it anchors."""
        if self.blind is not None:
            return self.blind
        if place is None or not self.queue.drawn[place]:
            return False
        return self.store.current_verdict(self.rows.row_ids[place], self.reviewer) is None

    def keep_or_flip(self, row_id: str, desirable: bool) -> VerdictWord:
        """Keep or flip, from what a blind reviewer says of the answer."""
        return "keep" if bool(self.rows.labels[self.place(row_id)]) == desirable else "flip"

    def skip(self, row_id: str, detector: str) -> None:
        """Set a row aside for this sitting."""
        self.check_detector(detector)
        latest = self.store.latest(self.reviewer)
        self._skipped.append((self.place(row_id), latest.id if latest else 0))

    def unskip(self) -> None:
        """Ask about the rows that were set aside again."""
        self._skipped.clear()

    def undo(self, undo_token: str, detector: str) -> tuple[int | None, str]:
        """Take the last action back: (the row's place, the note that was there). undo_token : of the page's ReviewItem.

        Raises StaleError when something else was done since.
        """
        self.check_detector(detector)
        if not undo_token or undo_token != self._undo_token(self.store.latest(self.reviewer)):
            raise StaleError(
                "There is nothing to take back, or something else was done since, in another tab or at another desk."
            )
        if undo_token.startswith("skip"):
            return self._skipped.pop()[0], ""
        taken_back = self.store.undo(self.reviewer, int(undo_token), self.detector)
        place = self.rows.places.get(taken_back.row_id)
        self._settled.discard(-1 if place is None else place)
        return place, taken_back.note

    def outlook(self) -> ReviewOutlook:
        """What the rest of the sitting, and fixed numbers of rows, are expected to buy; filters play no part."""
        self._read_new_events()
        left = self._waiting(Filters())
        seconds_a_row, spent = seconds_per_row(self._seconds), sum(self._seconds) / 60
        rows = max(self.sitting - self._judged_of_sitting(), 0)
        if self.minutes is not None and seconds_a_row is not None:
            rows = int(max(self.minutes - spent, 0.0) * 60 // seconds_a_row)
        steps = [rows, *(step for step in OUTLOOK_ROWS if step <= len(left))]
        gains = [expected_gain(self.queue, left, step, seconds_a_row) for step in steps]
        return ReviewOutlook(self.minutes, spent, seconds_a_row, self.queue.measured, gains)

    def _judged_of_sitting(self) -> int:
        return max(int(self._judged.sum()) - self._decided_before, 0)

    def _judged_before(self) -> int:
        """Rows of the queue that the reviewer has judged at earlier sittings."""
        current = self.store.current_verdicts()
        mine = current.filter(pl.col("reviewer") == self.reviewer)["row_id"]
        return int(self.audit.table["row_id"].filter(pl.Series(self.audit.unjudged)).is_in(mine.implode()).sum())

    def place(self, row_id: str) -> int:
        """The place of a row in the audit. Raises StaleError for one that the audit does not hold."""
        place = self.rows.places.get(row_id)
        if place is None:
            raise StaleError("This row is not among those that the audit looked at.")
        return place

    def check_detector(self, detector: str) -> None:
        """Raise StaleError when the page is of another audit than this desk's, or the run was made anew since."""
        if detector != self.detector or self._key_on_disk() != self.detector:
            raise StaleError("The run was made anew since this desk was opened. Stop `ktodata review` and start it again.")

    def _key_on_disk(self) -> str:
        key = SavedStage(stage_folder(self.run.folder, "label_noise")).key
        return key or "none"

    def _undo_token(self, latest: CurrentVerdict | None) -> str:
        """What undo would take back: the latest verdict, or a row skipped after it."""
        number = latest.id if latest else 0
        if self._skipped and self._skipped[-1][1] == number:
            return f"skip-{len(self._skipped)}-{self._skipped[-1][0]}"
        return str(number) if number else ""

    def _waiting(self, filters: Filters) -> NDArray[np.int64]:
        """Places of the rows that wait, best first."""
        if filters.judged == DIFFER:
            passed_over = self._settled.union(place for place, _ in self._skipped)
            mask = self.columns.mask(filters)
            return np.array([at for at in self._differing() if mask[at] and at not in passed_over], dtype=np.int64)
        waits = self.columns.mask(filters) & ~self._judged
        waits[[place for place, _ in self._skipped]] = False
        order = self.queue.order
        if filters.judged == OTHERS:
            waits &= self._judged_by_others
            # a row that had its verdict before the run was made is in no queue, and may have a second one
            outside = np.setdiff1d(np.flatnonzero(waits), order)
            order = np.concatenate([order, outside])
        return order[waits[order]]

    def _differing(self) -> list[int]:
        """Places of rows on which reviewers differ now, in the order in which they were judged."""
        row_ids = disagreements(self.store.current_verdicts())["row_id"].unique(maintain_order=True)
        return [self.rows.places[row_id] for row_id in row_ids if row_id in self.rows.places]

    def _read_new_events(self) -> None:
        """Learn what was written since, here or at another desk."""
        for number, row_id, reviewer in self.store.events_since(self._last_event):
            self._last_event = number
            place = self.rows.places.get(row_id)
            if place is not None:
                if reviewer == self.reviewer:
                    self._judged[place] = self.store.current_verdict(row_id, reviewer) is not None
                else:
                    self._judged_by_others[place] = self.store.judged_by_another(row_id, self.reviewer)


def open_session(
    run: Run,
    *,
    reviewer: str,
    blind: bool | None = None,
    minutes: float = 60.0,
    budget: int | None = None,
    audit: LabelAudit | None = None,
) -> ReviewSession:
    """A sitting of one reviewer.

    blind : hide the given labels: of every row, of none (false), or of those drawn at random (None). minutes, or budget : the
    sitting, at a minute a row, or in rows, beside what was judged before. audit : the run's own when None. Raises RunError for a
    name that is no name.
    """
    name = reviewer.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise RunError(f"--reviewer is a name of 1 to 100 printable characters; got {reviewer!r}.")
    working_on("reading the run")
    return ReviewSession(run, audit or LabelAudit.of_run(run), reviewer=name, blind=blind, minutes=minutes, budget=budget)
