"""label_noise at its defaults as a method, with reviews drawn at random, and with those that its queue asks for."""

import numpy as np
import polars as pl

from ktodata.bench.bench_methods import BenchAnswer, BenchTask, at_random, method
from ktodata.bench.bench_rows import Ints
from ktodata.pipeline.audit import LabelAudit
from ktodata.stages.label_noise import label_noise


def _audit(task: BenchTask, *, vouched: bool = False) -> LabelAudit:
    """What label_noise makes of a task. vouched : the bench drew the reviewed rows at random"""
    verdicts = pl.when(pl.Series(task.reviewed)).then(pl.Series(task.verdicts))
    table = task.table.with_columns(trusted_label=verdicts)
    return LabelAudit(table, label_noise(table, action="relabel", trusted_at_random=vouched, seed=task.seed), {"seed": task.seed})


def _by_queue(task: BenchTask, count: int) -> Ints:
    """Half of them at random, as long as nothing is known; then those that nobody can call yet."""
    chosen = _audit(task).next_reviews(count, draw=0)["row_id"]
    places = dict(zip(task.table["row_id"], range(task.table.height), strict=True))
    queued = np.array([places[row_id] for row_id in chosen], dtype=np.int64)
    return queued if len(queued) == count else at_random(task, count)  # where nothing can be learnt, nothing is asked for


def _answer(task: BenchTask, *, vouched: bool) -> BenchAnswer:
    audit = _audit(task, vouched=vouched)
    decisions = audit.result.decisions
    turned = task.table["row_id"].is_in(decisions.filter(pl.col("action") == "relabel")["row_id"].implode()).to_numpy()
    p_wrong = audit.p_wrong
    return BenchAnswer(p_wrong, p_wrong if audit.p_wrong_was_measured else None, np.where(turned, ~task.labels, task.labels))


@method("ktodata")
def ktodata_random(task: BenchTask) -> BenchAnswer:
    """Reviews drawn at random."""
    return _answer(task, vouched=True)


@method("ktodata, its queue", choose=_by_queue)
def ktodata_queue(task: BenchTask) -> BenchAnswer:
    """Reviews as `next_reviews` asks for them where half of the rows are to measure."""
    return _answer(task, vouched=False)
