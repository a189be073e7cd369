"""The learning rate as a function of the step: nothing to save, nothing to restore."""

import math
from typing import Literal

Schedule = Literal["linear", "constant", "cosine"]


def learning_rate_at(step: int, *, steps: int, peak: float, warmup_fraction: float, schedule: Schedule) -> float:
    """Learning rate of update `step` (0 ... steps - 1): rises to `peak` over the warm-up, then falls towards 0 (or stays).

    The first update already moves: it has 1 / warm-up steps of the peak, not 0.
    """
    warmup = math.ceil(steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    left = (steps - step) / max(1, steps - warmup)  # 1 at the end of the warm-up, 1 / n at the last update
    return peak * (left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))
