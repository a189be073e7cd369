"""What reviewed rows say of the labels and of the flags, and which rows to ask for where nobody has reviewed any."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.labels.classifier.detection import NAMES
from ktodata.labels.people.trusted import check_flags, flip_rates, rows_to_review, trusted_rates
from ktodata.stats import share


@dataclass(frozen=True)
class ReviewCheck:
    """metrics : the labels and the flags against trusted rows, JSON values only. rates : share wrong by class, source and rater.

    refuted : given classes whose flags those show to be mostly wrong
    sample : rows to have reviewed, drawn at random: row_id, label, stands_for; empty where rows were reviewed
    requested : how many were asked for
    """

    metrics: dict[str, Any]
    rates: pl.DataFrame
    refuted: list[bool]
    sample: pl.DataFrame
    requested: int

    def without_refuted_flags(self, table: pl.DataFrame) -> pl.DataFrame:
        """Take back the flags of refuted classes, and those of labels that a reviewer confirmed."""
        vouched = (pl.col("trusted_label") == pl.col("label")).fill_null(False)
        return table.with_columns(flagged=pl.col("flagged") & ~pl.col("label").is_in(self.refuted) & ~vouched)

    def as_metrics(self) -> dict[str, Any]:
        """As JSON values."""
        half = max(self.requested // 2, 1)
        low, high = (f"{end or 0:.0%}" for end in share(round(half / 10), half)[1:])
        rows = self.sample.height
        why = (
            f"A person's verdict on these {rows} rows, drawn at random within each given label, would give the true "
            f"error rate of each label with an exact interval (one wrong in ten of {half} would mean {low} to {high}), show "
            "systematic noise, and measure the flags themselves. Give them back as a file of reviews, or in column trusted_label."
        )
        return {"trusted": self.metrics, "ask_for_review": {"rows": rows, "why": why}}


def check_reviews(
    table: pl.DataFrame, rows_of_class: Mapping[bool, int], *, min_precision: float, review_rows: int, seed: int
) -> ReviewCheck:
    """Measure the labels on trusted rows drawn at random, and the flags on all of them.

    table : with label_quality and flagged. rows_of_class : training rows of each given label. The settings are label_noise's.
    """
    trusted = table.filter((pl.col("part") == "train") & (pl.col("state") != "drop") & pl.col("trusted_label").is_not_null())
    sample = trusted.filter("drawn")
    checks = {given: check_flags(trusted, sample, given=given) for given in NAMES}
    highest = {given: check["flag_precision"]["high"] for given, check in checks.items()}
    refuted = [given for given, high in highest.items() if high is not None and high < min_precision]
    errors = {given: check["error_rate"]["value"] for given, check in checks.items()}
    metrics = {
        "rows": trusted.height,
        "wrong": int((trusted["label"] != trusted["trusted_label"]).sum()),
        "rates_from": "the rows drawn at random" if sample.height < trusted.height else "all of them, taken for a random draw",
        "drawn_at_random": sample.height,
        **{NAMES[given]: check for given, check in checks.items()},
        "flip_rates": flip_rates(dict(rows_of_class), errors),
        "flags_refuted": [NAMES[given] for given in refuted],
    }
    unreviewed = table.filter(pl.col("trained") & pl.col("trusted_label").is_null())
    requested_rows = rows_to_review(unreviewed, total=0 if trusted.height else review_rows, seed=seed)
    return ReviewCheck(metrics, trusted_rates(sample, ("source", "rater")), refuted, requested_rows, review_rows)
