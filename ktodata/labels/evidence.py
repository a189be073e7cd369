"""What every piece of evidence on labels gives: one number a row, of one direction, and what it took to get it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """How far each label can be believed, by one account.

    quality : float [N], 1 sound .. 0 doubtful; nan where there is nothing to say of a row
    needs : columns or inputs that it was made of
    cost : what it takes, in words ("one matrix product", "one pass of the model over all rows")
    metrics : how it was made; JSON values only
    """

    name: str
    quality: Floats
    needs: tuple[str, ...]
    cost: str
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Rows that it says something of: bool [N]."""
        return np.isfinite(self.quality)
