"""What is known of one row: its text, the evidence on its label, its siblings, the rows most like it, and who labelled it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.label_words import span
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run
from ktodata.report.examples import in_short
from ktodata.report.sections.labels_section import EVIDENCE_IN_WORDS
from ktodata.report.text import Excerpt, excerpt
from ktodata.review.turn_view import ConversationView, ToolsView, answer_view, prompt_view, tools_view
from ktodata.stats import Interval

MAX_CHARS_SHOWN = 200_000  # characters of a text that are shown on the page; the whole of it is one link away
SHORT_CHARS = 280  # of a row shown beside it
MAX_SIBLINGS = 12
MAX_NEAREST = 6
CACHED_NEAREST = 64  # rows
CONVERSATION = ("turns", "answer", "tools")  # of the row that is shown alone: the rows beside it are short
ORIGIN = ("source", "source_line", "model", "created_at", "part", "cluster")
EVIDENCE_NAMES = {
    "together": "all together",
    "text": "answer in the light of its prompt",
    "completion_residual": "answer, topic taken away",
    "words": "words of prompt and answer",
    "surface_features": "length and form",
    "hidden_state": "hidden states of a language model",
    "prompt": "prompt alone",
    "neighbour_agreement": "rows nearby",
    "judge": "language model as a judge",
    "votes": "votes on this text",
    "training_dynamics": "what training saw",
}


@dataclass(frozen=True)
class SimilarRow:
    """Another row, in short. label : None where hidden. similarity : mean cosine of both texts' vectors; None for a sibling."""

    row_id: str
    label: bool | None
    prompt: Excerpt
    completion: Excerpt
    similarity: float | None = None


@dataclass(frozen=True)
class RaterSummary:
    """Whoever gave the label: rows in the run, share called desirable, agreement with others where they share rows."""

    name: str
    rows: int
    desirable: float
    agreement: Interval
    shared: int
    wrong: list[tuple[str, str]]  # of the rater's votes of a kind how many are wrong, by reviewed rows


@dataclass(frozen=True)
class RowVote:
    """One rater's label of this text."""

    rater: str | None
    label: bool


@dataclass(frozen=True)
class LabelEvidence:
    """All that shows the given label, or hints at it: left out where the reviewer is to be blind."""

    label: bool
    p_wrong: float
    scores: list[tuple[str, float]]  # quality of the label, 1 sound .. 0 doubtful
    reasons: list[str]  # for which the label is doubted
    votes: list[RowVote]
    rater: RaterSummary | None


@dataclass(frozen=True)
class ReviewRow:
    """One row, ready to be shown. evidence is None where the given label is hidden.

    turns, answer : the prompt, and the completion, as turns; None where it is text and nothing else
    """

    row_id: str
    prompt: Excerpt
    completion: Excerpt
    origin: list[tuple[str, Any]]
    evidence: LabelEvidence | None
    turns: ConversationView | None = None
    answer: ConversationView | None = None
    tools: ToolsView | None = None
    siblings: list[SimilarRow] = field(default_factory=list)
    siblings_in_all: int = 0
    nearest: list[SimilarRow] = field(default_factory=list)


class RowView:
    """The rows of an audit, each found in no time."""

    def __init__(self, audit: LabelAudit, run: Run) -> None:
        table = audit.table.rechunk()
        noise = run.stage("label_noise")
        self.places: dict[str, int] = dict(zip(table["row_id"], range(table.height), strict=True))
        self.labels: NDArray[np.bool_] = table["label"].to_numpy()
        self.source_ids: list[str | None] = table["source_id"].to_list()
        votes = pl.col("pooled_votes" if "pooled_votes" in table.columns else "votes").alias("votes")
        names = [name for name in ("row_id", "prompt", "completion", "label", "rater", *ORIGIN) if name in table.columns]
        # the stage's own word: the table's may be older
        doubts = audit.result.columns.select("row_id", evidence_against=audit.evidence_against)
        self._rows = table.select(*names, votes).join(doubts, on="row_id", how="left", maintain_order="left")
        self._conversations = table.select(name for name in CONVERSATION if name in table.columns)
        scores = table.select("row_id").join(noise.table("evidence"), on="row_id", how="left", maintain_order="left")
        self._scores = scores.drop("row_id")
        self._members = _group_members(table["prompt_group"]) if "prompt_group" in table.columns else None
        # embed makes them of length 1, so that their products are cosines
        self._vectors = [
            np.ascontiguousarray(table[f"{side}_embedding"].to_numpy(), np.float32) for side in ("prompt", "completion")
        ]
        self._raters = _rater_summaries(table, noise.table("raters"), noise.table("trusted_rates"))
        # most of what a page costs: kept, so that the next row's can be found while this one is read
        self._near = lru_cache(maxsize=CACHED_NEAREST)(self._find_nearest)

    def __len__(self) -> int:
        return self._rows.height

    def row(self, place: int, p_wrong: float, *, blind: bool) -> ReviewRow:
        """What the reviewer sees of a row; when `blind` no given label, as the rows beside it will be asked about too.

        Nor are the nearest rows of other prompts shown then: what is done with their like is not to lead the reviewer.
        """
        row = self._rows.row(place, named=True)
        siblings = self._siblings(place)
        conversation = self._conversations.row(place, named=True) if self._conversations.width else {}
        return ReviewRow(
            row_id=row["row_id"],
            prompt=excerpt(row["prompt"], MAX_CHARS_SHOWN),
            completion=excerpt(row["completion"], MAX_CHARS_SHOWN),
            turns=prompt_view(conversation.get("turns"), MAX_CHARS_SHOWN),
            answer=answer_view(conversation.get("answer"), row["completion"], MAX_CHARS_SHOWN),
            tools=tools_view(conversation.get("tools")),
            origin=[(name, row[name]) for name in ORIGIN if row.get(name) is not None],
            evidence=None if blind else self._evidence(place, row, p_wrong),
            siblings=[self._similar_row(other, blind=blind) for other in siblings[:MAX_SIBLINGS]],
            siblings_in_all=len(siblings),
            nearest=[] if blind else self._similar_rows(place),
        )

    @property
    def row_ids(self) -> pl.Series:
        """The name of each row, by its place."""
        return self._rows["row_id"]

    def text(self, place: int, side: str) -> str:
        """The whole prompt or completion."""
        return str(self._rows.item(place, side))

    def _evidence(self, place: int, row: Mapping[str, Any], p_wrong: float) -> LabelEvidence:
        quality = self._scores.row(place, named=True)
        votes = [RowVote(vote["rater"], vote["label"]) for vote in row["votes"] or ()]
        return LabelEvidence(
            label=row["label"],
            p_wrong=p_wrong,
            scores=[(EVIDENCE_NAMES.get(name, name), value) for name, value in quality.items() if value is not None],
            reasons=[EVIDENCE_IN_WORDS.get(reason, reason) for reason in row["evidence_against"] or ()],
            votes=votes if len(votes) > 1 else [],
            rater=self._raters.get(row["rater"]) if row.get("rater") is not None else None,
        )

    def _siblings(self, place: int) -> list[int]:
        """Other rows of the same group of prompts."""
        if self._members is None:
            return []
        order, starts, group = self._members
        rows = order[starts[group[place]] : starts[group[place] + 1]]
        return [int(other) for other in rows if other != place]

    def look_ahead(self, place: int) -> None:
        """Find the rows nearest to one that will soon be shown. May run beside everything else."""
        self._near(place)

    def _similar_rows(self, place: int) -> list[SimilarRow]:
        return [self._similar_row(other, blind=False, similarity=similarity) for other, similarity in self._near(place)]

    def _find_nearest(self, place: int) -> list[tuple[int, float]]:
        """Places of the rows of other prompts whose texts are most alike, and how alike."""
        similarity = sum(vectors @ vectors[place] for vectors in self._vectors) / len(self._vectors)
        similarity = np.asarray(similarity)
        similarity[[place, *self._siblings(place)]] = -np.inf
        most = min(MAX_NEAREST, len(self) - 1)
        near = np.argpartition(-similarity, most)[:most] if most else np.empty(0, np.int64)
        ordered = near[np.argsort(-similarity[near], kind="stable")]
        return [(int(other), float(similarity[other])) for other in ordered if similarity[other] > 0]

    def _similar_row(self, place: int, *, blind: bool, similarity: float | None = None) -> SimilarRow:
        row = self._rows.row(place, named=True)
        prompt, completion = excerpt(row["prompt"], SHORT_CHARS), in_short(row["completion"], SHORT_CHARS)
        return SimilarRow(row["row_id"], None if blind else row["label"], prompt, completion, similarity)


def _group_members(groups: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Places ordered by group, where each group starts among them, and the group of each place; a row without one is alone."""
    alone = pl.format("\0{}", pl.int_range(pl.len()))
    group = groups.to_frame("group").select(pl.coalesce("group", alone).rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return np.argsort(group, kind="stable"), starts, group


def _rater_summaries(table: pl.DataFrame, agreement: pl.DataFrame, rates: pl.DataFrame) -> dict[str, RaterSummary]:
    """Each rater by name: labels given, and agreement and shares of wrong votes from label_noise's tables."""
    if "rater" not in table.columns:
        return {}
    wrong: dict[str, list[tuple[str, str]]] = {}
    ends = ("error_rate", "error_low", "error_high")
    for name, given, *rate in rates.filter(by="rater").select("value", "given", *ends).iter_rows():
        wrong.setdefault(name, []).append((LABEL_NAMES[given], span(Interval(*rate))))
    counted = (
        table.select("rater", "label")
        .drop_nulls("rater")
        .group_by("rater")
        .agg(rows=pl.len(), desirable=pl.col("label").mean())
        .join(agreement.select("rater", "shared", "agreement", "agreement_low", "agreement_high"), on="rater", how="left")
    )
    return {
        row["rater"]: RaterSummary(
            row["rater"],
            row["rows"],
            row["desirable"],
            Interval(row["agreement"], row["agreement_low"], row["agreement_high"]),
            row["shared"] or 0,
            wrong.get(row["rater"], []),
        )
        for row in counted.iter_rows(named=True)
    }
