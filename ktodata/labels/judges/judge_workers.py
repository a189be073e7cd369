"""Several questions at a time to one judge, with an end where it does not answer."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from typing import Protocol

from ktodata.errors import ModelError
from ktodata.labels.judges.judge_questions import JudgeAnswer, JudgeQuestion, NoAnswer
from ktodata.labels.judges.judge_store import AnswerStore
from ktodata.work_done import WorkDone, working_on

FAILURES_IN_A_ROW = 20  # then the endpoint is taken to be down
FAILURES_AT_FIRST = 5  # where it never answered, each after all its retries


class JudgeModel(Protocol):
    """What can be asked. name : as raters are named. stopped : set, no more is asked. retried : requests repeated so far."""

    name: str
    stopped: threading.Event
    retried: int

    def __call__(self, question: JudgeQuestion, /) -> JudgeAnswer: ...

    def close(self) -> None: ...


def ask_all(questions: Sequence[JudgeQuestion], model: JudgeModel, store: AnswerStore, concurrency: int) -> Counter[str]:
    """Ask all, `concurrency` at a time; answers go to the store at once. The reasons of those that failed, counted."""
    shared, workers = _SharedQuestions(questions, model, store), max(1, concurrency)
    with closing(model), closing(store), ThreadPoolExecutor(workers) as pool:
        # a thread has none of its starter's context, as whoever listens to the work done, unless it is given a copy
        running = [pool.submit(copy_context().run, shared.work) for _ in range(workers)]
        try:
            for worker in running:
                worker.result()
        finally:
            model.stopped.set()
    return shared.failed


class _SharedQuestions:
    """What the workers share: the questions that are left, and how often the judge failed."""

    def __init__(self, questions: Sequence[JudgeQuestion], model: JudgeModel, store: AnswerStore) -> None:
        self.failed: Counter[str] = Counter()
        self._left, self._model, self._store = iter(questions), model, store
        self._lock = threading.Lock()
        self._work = WorkDone("questions", len(questions))
        self._failed_in_a_row, self._down, self._answered = 0, 0, False

    def work(self) -> None:
        """Ask until no question is left. An error ends the other workers, too, with the question they are at."""
        try:
            while question := self._take():
                try:
                    self._keep(question.key, self._model(question))
                except NoAnswer as reason:
                    self._count_failure(reason)
        except BaseException:
            self._model.stopped.set()
            raise

    def _take(self) -> JudgeQuestion | None:
        with self._lock:
            return None if self._model.stopped.is_set() else next(self._left, None)

    def _keep(self, key: str, answer: JudgeAnswer) -> None:
        with self._lock:
            self._failed_in_a_row, self._answered = 0, True
            self._store.add(key, answer)
            self._work.add()

    def _count_failure(self, reason: NoAnswer) -> None:
        with self._lock:
            self.failed[str(reason)] += 1
            self._down += reason.down
            if self._answered:
                self._work.add()
            else:
                working_on(f"none of the first {self.failed.total():,} questions was answered: {reason}")
            # a run of texts that are too long is no reason to end, unless nothing ever worked
            self._failed_in_a_row += reason.down or not self._answered
            never = not self._answered and self._down >= FAILURES_AT_FIRST
            if never or self._failed_in_a_row >= FAILURES_IN_A_ROW:
                raise ModelError(
                    f"the judge {self._model.name!r} failed {self._failed_in_a_row} times in a row, last with: {reason}. What it "
                    "answered before is kept in the cache: see to it and run again."
                )
