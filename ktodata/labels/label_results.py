"""The typed results of label_noise as the JSON values and tables that it leaves, made once, when all of them are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ktodata.labels.beliefs import Beliefs
from ktodata.labels.evidence.evidence import Evidence
from ktodata.labels.evidence.neighbours import ROWS_COMPARED
from ktodata.labels.label_classifier import Classifier
from ktodata.labels.label_decisions import count_against, count_flags, waiting_rows
from ktodata.labels.label_drift import drift_metrics, drift_tables
from ktodata.labels.label_findings import identifiability_in_words, label_findings
from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.drift import Drift
from ktodata.labels.people.review_check import ReviewCheck
from ktodata.labels.people.weighed_votes import Votes

LABEL_QUALITY_IS = (
    "1 sound .. 0 doubtful, by text, votes and reviews together, out of fold; an order only, unless reviewed rows have "
    "calibrated it"
)


@dataclass(frozen=True)
class LabelResults:
    """What each step of label_noise gave. evidence : what the rows' own columns say, without the models of the labels"""

    rows: LabelRows
    evidence: Sequence[Evidence]
    classifier: Classifier
    votes: Votes
    drift: Drift | None
    reviews: ReviewCheck
    beliefs: Beliefs

    def metrics(self, table: pl.DataFrame, decisions: pl.DataFrame) -> dict[str, Any]:
        """As JSON values, with the findings. table : the rows with everything that was added to them. decisions : about them"""
        metrics = self.classifier.as_metrics(self.rows) | self.votes.as_metrics() | drift_metrics(self.drift, self.rows)
        metrics |= self.reviews.as_metrics() | self.beliefs.as_metrics() | self._neighbours()
        metrics |= {
            "prompts": self.rows.table["prompt_group"].n_unique(),
            "largest_dealt_by_text": self.rows.largest_dealt_by_text,
            "near_contradictions": {"rows": table["near_twin"].count()},
            "flagged": int(table["flagged"].sum()),
            "flags": count_flags(table),
            "evidence_against": count_against(table),
            "rows_to_judge": waiting_rows(table, decisions).len(),
            "label_quality": LABEL_QUALITY_IS,
            "evidence": {
                piece.name: {"needs": piece.needs, "calibrated_on": piece.calibrated_on or "nothing: an order only"}
                for piece in self._pieces
            },
        }
        if metrics.get("injected_flips", {}).get("fraction"):
            metrics["identifiability"] = identifiability_in_words(metrics["injected_flips"]["per_given_class"])
        return metrics | {"findings": [finding.as_dict() for finding in label_findings(metrics)]}

    def tables(self) -> dict[str, pl.DataFrame]:
        """raters, confusions, contested, evidence, drift, drift_examples, trust_curve, trusted_rates, ask_for_review."""
        return (
            self.votes.tables()
            | drift_tables(self.drift)
            | {
                "evidence": self._evidence_table(),
                "trust_curve": self.classifier.curve,
                "trusted_rates": self.reviews.rates,
                "ask_for_review": self.reviews.sample,
            }
        )

    def _evidence_table(self) -> pl.DataFrame:
        """row_id and the label's quality by each piece of evidence, 1 sound .. 0 doubtful, null where it says nothing."""
        quality = {piece.name: pl.Series(piece.quality(self.rows.labels)).fill_nan(None) for piece in self._pieces}
        return pl.DataFrame({"row_id": self.rows.table["row_id"]} | quality | self._vote_share())

    def _vote_share(self) -> dict[str, pl.Series]:
        """The share of votes for the label, where a row has several."""
        up, down = self.votes.columns.up, self.votes.columns.down
        if not (up + down > 1).any():
            return {}
        share = (np.where(self.rows.labels, up, down) + 0.5) / (up + down + 1)
        return {"votes": pl.Series(np.where(up + down > 1, share, np.nan)).fill_nan(None)}

    @cached_property
    def _pieces(self) -> list[Evidence]:
        return [*self.classifier.evidence, *self.evidence]

    def _neighbours(self) -> dict[str, Any]:
        searched = [piece.metrics for piece in self.evidence if piece.name == "neighbour_agreement"]
        if searched:
            return {"neighbours": searched[0]}
        if self.rows.neighbours and len(self.rows.labels) > ROWS_COMPARED:
            return {
                "neighbours": {"left_out": f"more than {ROWS_COMPARED:,} rows: the search would take longer than all the rest"}
            }
        return {}
