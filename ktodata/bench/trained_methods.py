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


@method("noise-corrected KTO", only_trained=True)
def noise_corrected_kto(task: BenchTask) -> BenchAnswer:
    """KTO's loss corrected for the flip rates of the reviewed rows; KTO's own where they are none that can be corrected for."""
    rates = {}
    for name, true in (("desirable", True), ("undesirable", False)):
        judged = task.reviewed & (task.verdicts == true)
        rates[name] = float((task.labels != task.verdicts)[judged].mean()) if judged.any() else np.nan
    known = sum(rates.values()) < 1  # nan is not
    return BenchAnswer(doubt=None, terms={"flip_rates": rates} if known else {})
