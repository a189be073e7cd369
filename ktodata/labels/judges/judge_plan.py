"""All that a judge is asked about some rows, in its order, and what that costs before any of it is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.errors import DataError, SettingError
from ktodata.feedback import check_columns, check_row_ids
from ktodata.labels.judges.bias_probes import PlantedPairs, planted_pairs
from ktodata.labels.judges.judge_questions import JudgeQuestion, QuestionSet, chat_messages, question_set
from ktodata.labels.judges.judge_settings import JudgeSettings
from ktodata.labels.judges.judge_store import AnswerStore

BYTES_PER_TOKEN = 4
OVERHEAD_TOKENS = 12  # chat markers of two messages


@dataclass(frozen=True)
class JudgePlan:
    """rows : those that are judged. votes : the questions about them. probes : further ones, which measure the judge."""

    rows: pl.DataFrame
    votes: QuestionSet
    probes: tuple[PlantedPairs, ...]

    @property
    def unique(self) -> dict[str, JudgeQuestion]:
        """Every question once, by its key: verdicts first, so that a budget is spent on them."""
        extra = {each.key: each for probe in self.probes for pair in probe.pairs for each in pair}
        return self.votes.unique | extra


def plan_judging(
    feedback: pl.DataFrame,
    settings: JudgeSettings,
    identity: dict[str, Any],
    *,
    max_rows: int | None = None,
    probe_rows: int = 0,
    seed: int = 0,
) -> JudgePlan:
    """What is asked of a judge of that identity. Raises DataError and MissingColumnError for a table that cannot be judged."""
    rows = _rows_to_judge(feedback, max_rows)
    return JudgePlan(rows, question_set(rows, settings, identity), planted_pairs(rows, settings, identity, probe_rows, seed))


@dataclass(frozen=True)
class JudgeCost:
    """What is asked of a judge. cached : questions whose answer is there. left_out : those over max_requests.

    tokens_in : bytes / BYTES_PER_TOKEN, right within about a third for prose, low for code and rare scripts; tokens_out is the
    most there can be. money : None unless both prices are known. Retries are not counted.
    """

    rows: int
    questions: int
    of_probes: int
    cached: int
    requests: int
    left_out: int
    tokens_in: int
    tokens_out: int
    money: float | None

    def words(self) -> str:
        """In a sentence."""
        probes = f", {self.of_probes:,} of them to measure the judge" if self.of_probes else ""
        left = f"; {self.left_out:,} more are over max_requests and are not sent" if self.left_out else ""
        price = "" if self.money is None else f", {self.money:,.2f} in the currency of the prices"
        return (
            f"{self.questions:,} questions on {self.rows:,} rows{probes}; {self.cached:,} are answered in the cache, "
            f"{self.requests:,} would be sent{left}: about {self.tokens_in:,} tokens in, at most {self.tokens_out:,} out{price}"
        )


def cost_of(
    plan: JudgePlan,
    settings: JudgeSettings,
    store: AnswerStore,
    *,
    max_requests: int | None,
    price_in: float | None,
    price_out: float | None,
) -> JudgeCost:
    """price_in, price_out : money per million tokens"""
    unique = plan.unique
    missing = [question for key, question in unique.items() if key not in store.answers]
    sent = missing[:max_requests]
    tokens_in, tokens_out = _tokens_of(sent, settings), settings.max_answer_tokens * len(sent)
    priced = price_in is not None and price_out is not None
    return JudgeCost(
        rows=plan.rows.height,
        questions=len(unique),
        of_probes=len(unique) - len(plan.votes.unique),
        cached=len(unique) - len(missing),
        requests=len(sent),
        left_out=len(missing) - len(sent),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        money=(tokens_in * (price_in or 0) + tokens_out * (price_out or 0)) / 1e6 if priced else None,
    )


def _tokens_of(questions: Sequence[JudgeQuestion], settings: JudgeSettings) -> int:
    size = sum(len(text.encode("utf-8", "replace")) for each in questions for text in chat_messages(each, settings).values())
    return size // BYTES_PER_TOKEN + OVERHEAD_TOKENS * len(questions)


def trained_rows(feedback: pl.DataFrame) -> pl.DataFrame:
    """Rows that may be trained on, those that wait for a person among them."""
    part = pl.col("part") == "train" if "part" in feedback.columns else pl.lit(True)
    state = pl.col("state") != "drop" if "state" in feedback.columns else pl.lit(True)
    return feedback.filter(part & state)


def _rows_to_judge(feedback: pl.DataFrame, max_rows: int | None) -> pl.DataFrame:
    """The first `max_rows` of the rows that may be trained on; raises for a table that cannot be judged."""
    check_columns(feedback, ("row_id", "prompt", "completion"), who="judge")
    for side in ("prompt", "completion"):
        if feedback.schema[side] != pl.String:
            raise DataError(f"judge: column {side!r} is {feedback.schema[side]}; it must be text.")
        if nulls := feedback[side].null_count():
            raise DataError(f"judge: {nulls:,} of {feedback.height:,} rows have no {side}. Take them out first.")
    check_row_ids(feedback, who="judge")
    if max_rows is not None and max_rows < 1:
        raise SettingError(f"judge: max_rows is a number of at least 1; got {max_rows}.")
    rows = trained_rows(feedback)
    return rows if max_rows is None else rows.head(max_rows)


def plan_of(feedback: pl.DataFrame, settings: JudgeSettings, identity: dict[str, Any], values: Mapping[str, Any]) -> JudgePlan:
    """The same from the settings of a recipe's step."""
    probe_rows = values["probe_rows"] if values["probes"] else 0
    return plan_judging(feedback, settings, identity, max_rows=values["max_rows"], probe_rows=probe_rows, seed=values["seed"])
