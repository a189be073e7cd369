"""Shares with their exact interval."""

from dataclasses import dataclass

from ktodata.stats import clopper_pearson


@dataclass(frozen=True)
class Share:
    """`hits` of `total`; the exact 95 % interval is [0, 1] when there is nothing to count."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """Hits / total; 0 when there is nothing to count, see `total`."""
        return self.hits / self.total if self.total else 0.0

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return float(clopper_pearson(self.hits, self.total)[0])

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return float(clopper_pearson(self.hits, self.total)[1])
