"""A sitting of one reviewer: which row comes next, what is said of it, and what is taken back. Knows nothing of the web."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktodata.errors import RunError
from ktodata.formats.verdict_store import VerdictWord
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run, Saved, stage_folder
from ktodata.review.audit_run import AuditRun
from ktodata.review.budget import STEPS, ExpectedGain, buys, pace
from ktodata.review.filters import OTHERS, FilterColumns, Filters
from ktodata.review.queue import line_up
from ktodata.review.row_view import RowView, Shown
from ktodata.review.store import CurrentVerdict, Given, StaleError, VerdictStore

MIN_IN_A_SITTING = 2


@dataclass(frozen=True)
class Turn:
    """What stands on the page: one row, or none where nothing is left.

    seen, said : number of the reviewer's standing verdict on the row, 0 for none, and the verdict
    last : what undo would take back, as `undo` wants it; empty for nothing
    left : rows that the filters let through and that wait; skipped : rows set aside for this sitting
    after : place of the row that comes next, if this one is judged
    """

    row: Shown | None
    why: str
    seen: int
    said: CurrentVerdict | None
    note: str
    last: str
    decided: int
    left: int
    skipped: int
    of_sitting: int
    sitting: int
    after: int | None


@dataclass(frozen=True)
class Outlook:
    """What is left of the budget (minutes), the pace (seconds a row), and what reviews would buy; the first is what is left."""

    budget: float
    spent: float
    seconds_a_row: float
    measured: bool
    purchases: list[ExpectedGain]


class ReviewSession:
    """One run, one reviewer, one sitting. Verdicts are in the store before a method returns."""

    def __init__(self, run: Run, *, reviewer: str, blind: bool = False, budget_minutes: float = 60.0) -> None:
        """Raises RunError when the run has no label_noise, or its verdicts cannot be kept."""
        audit = run.audit if isinstance(run, AuditRun) else LabelAudit.of_run(run)
        self.run, self.reviewer, self.blind, self.budget = run, reviewer, blind, budget_minutes
        self.name = str(run.manifest["name"])
        self.detector = self._key_on_disk()
        self.queue = line_up(audit, max(MIN_IN_A_SITTING, int(budget_minutes)))
        self.book = RowView(audit, run)
        self.columns = FilterColumns(audit.table, audit.evidence_against, self.queue.drawn)
        self.store = VerdictStore(run.folder)
        self._mine = np.zeros(len(self.book), bool)
        self._others = np.zeros(len(self.book), bool)
        self._skipped: list[tuple[int, int]] = []  # place, and the number of the reviewer's latest verdict then
        self._seconds: list[float] = []
        self._read_up_to = 0

    def turn(self, filters: Filters, *, place: int | None = None, note: str = "") -> Turn:
        """The next row under the filters, or the one at `place`."""
        self._catch_up()
        left = self._left(filters)
        if place is None and len(left):
            place = int(left[0])
        latest = self.store.latest(self.reviewer)
        said = None if place is None else self.store.standing_on(self.book.row_ids[place], self.reviewer)
        first = self.queue.order[: self.queue.sitting]
        return Turn(
            row=None if place is None else self.book.shown(place, float(self.queue.p_wrong[place]), blind=self.blind),
            why="" if place is None else self.queue.why(place),
            seen=said.id if said else 0,
            said=said,
            note=note or (said.note if said else ""),
            last=self._last(latest),
            decided=int(self._mine.sum()),
            left=len(left),
            skipped=len(self._skipped),
            of_sitting=int(self._mine[first].sum()),
            sitting=self.queue.sitting,
            after=next((int(one) for one in left[:2] if one != place), None),
        )

    def give(self, row_id: str, verdict: VerdictWord, *, seen: int, detector: str, note: str, seconds: float) -> None:
        """Write a verdict down. Raises StaleError when the row is not as it was shown."""
        self.check_detector(detector)
        place = self.place(row_id)
        given = Given(
            row_id=row_id,
            reviewer=self.reviewer,
            verdict=verdict,
            label=bool(self.book.labels[place]),
            detector=self.detector,
            note=note,
            seconds=seconds,
            blind=self.blind,
        )
        self.store.give(given, seen=seen)
        self._seconds.append(seconds)
        self._skipped = [one for one in self._skipped if one[0] != place]

    def judge(self, row_id: str, desirable: bool) -> VerdictWord:
        """Keep or flip, from what a blind reviewer says of the answer."""
        return "keep" if bool(self.book.labels[self.place(row_id)]) == desirable else "flip"

    def skip(self, row_id: str, detector: str) -> None:
        """Set a row aside for this sitting."""
        self.check_detector(detector)
        latest = self.store.latest(self.reviewer)
        self._skipped.append((self.place(row_id), latest.id if latest else 0))

    def unskip(self) -> None:
        """Ask about the rows that were set aside again."""
        self._skipped.clear()

    def undo(self, last: str, detector: str) -> tuple[int | None, str]:
        """Take the last act back: (the row's place, the note that stood there). `last` is Turn.last as it was shown.

        Raises StaleError when something else was done since.
        """
        self.check_detector(detector)
        if not last or last != self._last(self.store.latest(self.reviewer)):
            raise StaleError(
                "There is nothing to take back, or something else was done since, in another tab or at another desk."
            )
        if last.startswith("skip"):
            return self._skipped.pop()[0], ""
        taken_back = self.store.undo(self.reviewer, int(last), self.detector)
        return self.book.places.get(taken_back.row_id), taken_back.note

    def outlook(self) -> Outlook:
        """What the rest of the budget, and fixed numbers of rows, are expected to buy; filters play no part."""
        self._catch_up()
        left = self._left(Filters())
        seconds_a_row, spent = pace(self._seconds), sum(self._seconds) / 60
        rows = int(max(self.budget - spent, 0.0) * 60 // seconds_a_row)
        steps = [rows, *(step for step in STEPS if step <= len(left))]
        purchases = [buys(self.queue, left, step, seconds_a_row) for step in steps]
        return Outlook(self.budget, spent, seconds_a_row, self.queue.measured, purchases)

    def place(self, row_id: str) -> int:
        """Where a row stands. Raises StaleError for one that the audit does not hold."""
        place = self.book.places.get(row_id)
        if place is None:
            raise StaleError("This row is not among those that the audit looked at.")
        return place

    def check_detector(self, detector: str) -> None:
        """Raise StaleError when the page is of another audit than this desk's, or the run was made anew since."""
        if detector != self.detector or self._key_on_disk() != self.detector:
            raise StaleError("The run was made anew since this desk was opened. Stop `ktodata review` and start it again.")

    def _key_on_disk(self) -> str:
        key = Saved(stage_folder(self.run.folder, "label_noise")).key
        return key or "none"

    def _last(self, latest: CurrentVerdict | None) -> str:
        """What undo would take back: the latest verdict, or a row skipped after it."""
        number = latest.id if latest else 0
        if self._skipped and self._skipped[-1][1] == number:
            return f"skip-{len(self._skipped)}-{self._skipped[-1][0]}"
        return str(number) if number else ""

    def _left(self, filters: Filters) -> NDArray[np.int64]:
        """Places of the rows that wait, best first."""
        waits = self.columns.mask(filters) & ~self._mine
        waits[[place for place, _ in self._skipped]] = False
        order = self.queue.order
        if filters.judged == OTHERS:
            waits &= self._others
            # a row that had its verdict before the run was made is in no queue, and may have a second one
            outside = np.setdiff1d(np.flatnonzero(waits), order)
            order = np.concatenate([order, outside])
        return order[waits[order]]

    def _catch_up(self) -> None:
        """Learn what was written since, here or at another desk."""
        for number, row_id, reviewer in self.store.touched_since(self._read_up_to):
            self._read_up_to = number
            place = self.book.places.get(row_id)
            if place is not None:
                if reviewer == self.reviewer:
                    self._mine[place] = self.store.standing_on(row_id, reviewer) is not None
                else:
                    self._others[place] = self.store.judged_by_another(row_id, self.reviewer)


def open_session(folder: Run, *, reviewer: str, blind: bool, budget_minutes: float) -> ReviewSession:
    """A desk at a run. Raises RunError for a name that is no name."""
    name = reviewer.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise RunError(f"--reviewer is a name of 1 to 100 printable characters; got {reviewer!r}.")
    return ReviewSession(folder, reviewer=name, blind=blind, budget_minutes=budget_minutes)
