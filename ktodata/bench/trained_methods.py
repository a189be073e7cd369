"""Methods that leave the labels as they are, and train on them by another loss: lines of the track "train" alone."""

import numpy as np

from ktodata.bench.bench_methods import BenchAnswer, BenchTask, method


@method("Hölder-KTO", only_trained=True)
def hoelder_kto(task: BenchTask) -> BenchAnswer:
    """A cost that lets go of rows which contradict their label."""
    return BenchAnswer(doubt=None, terms={"objective": "kto_hoelder"})


@method("hybrid KTO", only_trained=True)
def hybrid_kto(task: BenchTask) -> BenchAnswer:
    """KTO's loss and, where a prompt has both labels, DPO's beside it."""
    return BenchAnswer(doubt=None, terms={"objective": "kto_hybrid"})


@method("random drop", only_trained=True)
def random_drop(task: BenchTask) -> BenchAnswer:
    """The control of all that leave rows out: as many as the reviews say are wrong, drawn from those that nobody reviewed."""
    unseen = np.flatnonzero(~task.reviewed)
    wrong = float(task.review_weight @ (task.labels != task.verdicts))  # of all rows, reviewed ones among them
    count = max(round(wrong) - int((task.labels != task.verdicts).sum()), 0)
    dropped = np.zeros(len(task.labels), bool)
    dropped[np.random.default_rng(task.seed).permutation(unseen)[:count]] = True
    return BenchAnswer(doubt=None, dropped=dropped)


@method("noise-corrected KTO", only_trained=True)
def noise_corrected_kto(task: BenchTask) -> BenchAnswer:
    """KTO's loss corrected for the flip rates of the reviewed rows; KTO's own where they are none that can be corrected for."""
    rates = {name: _flip_rate(task, true) for name, true in (("desirable", True), ("undesirable", False))}
    known = sum(rates.values()) < 1 and len(np.unique(task.labels[task.reviewed])) == 2  # nan is not
    return BenchAnswer(doubt=None, terms={"flip_rates": rates} if known else {})


def _flip_rate(task: BenchTask, true: bool) -> float:
    """Of the rows of this true label, how many carry the other one; nan where no reviewed row is of it."""
    judged = task.reviewed & (task.verdicts == true)
    weight = task.review_weight[judged]
    return float(np.average(task.labels[judged] != true, weights=weight)) if judged.any() else float("nan")
