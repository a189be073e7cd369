"""What reviewed rows say of the labels and of the flags, and which rows to ask for where nobody has reviewed any."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.people.stacking import MIN_REVIEWED
from ktodata.labels.people.trusted import reviewed_metrics, rows_to_review, trusted_rates
from ktodata.stats import share


@dataclass(frozen=True)
class ReviewCheck:
    """metrics : the labels and the flags against trusted rows, JSON values only. rates : share wrong by class, source and rater.

    refuted : given classes whose reviewed flags are right too seldom
    sample : rows to have reviewed, drawn at random: row_id, label, stands_for; empty where a draw was reviewed
    """

    metrics: dict[str, Any]
    rates: pl.DataFrame
    refuted: list[bool]
    sample: pl.DataFrame

    def without_refuted_flags(self, table: pl.DataFrame) -> pl.DataFrame:
        """Take back the flags of refuted classes, and those of labels that a reviewer confirmed."""
        vouched = (pl.col("trusted_label") == pl.col("label")).fill_null(False)
        return table.with_columns(flagged=pl.col("flagged") & ~pl.col("label").is_in(self.refuted) & ~vouched)

    def as_metrics(self) -> dict[str, Any]:
        """As JSON values; `why` is empty where no row is asked for."""
        rows = self.sample.height
        half = max(rows // 2, 1)
        wrong = max(round(half / 10), 1)
        low, high = (f"{end or 0:.0%}" for end in share(wrong, half)[1:])
        why = (
            f"A person's verdict on these {rows} rows, drawn at random within each given label, would give the true "
            f"error rate of each label with an exact interval ({wrong} wrong of {half} would mean {low} to {high}), show "
            "systematic noise, and measure the flags themselves. Give them back as a file of reviews, or in column trusted_label."
        )
        return {"trusted": self.metrics, "ask_for_review": {"rows": rows, "why": why if rows else ""}}


def check_reviews(
    table: pl.DataFrame, by_rater: pl.DataFrame, *, min_precision: float, vouched: bool, review_rows: int, seed: int
) -> ReviewCheck:
    """Measure the labels on trusted rows drawn at random; refute flags by all that were judged.

    table : what mark_reviewed adds, with label_quality and flagged. by_rater : as `wrong_by_rater` gives it. vouched : setting
    trusted_at_random. The others are label_noise's
    """
    metrics = reviewed_metrics(table)
    highest = {given: metrics[name]["reviewed_flags"]["high"] for given, name in LABEL_NAMES.items()}
    refuted = [given for given, high in highest.items() if high is not None and high < min_precision]
    metrics |= {"vouched_at_random": vouched, "flags_refuted": [LABEL_NAMES[given] for given in refuted]}
    is_enough = metrics["drawn_at_random"] >= (1 if vouched else MIN_REVIEWED)
    drawn = rows_to_review(table.filter("drawable"), total=0 if is_enough else review_rows, seed=seed)
    rates = trusted_rates(table.filter(pl.col("drawn") | pl.col("undecided")), ("source",))
    rates = pl.concat([rates, by_rater])
    judged = table.filter(pl.col("reviewed") | pl.col("contested"))
    return ReviewCheck(metrics, rates, refuted, drawn.join(judged, on="row_id", how="anti", maintain_order="left"))
