"""A judge's answers: what the cache has is taken from there, the others are asked, and all are read as verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.feedback import VOTE
from ktodata.labels.judges.judge_endpoint import ChatEndpoint
from ktodata.labels.judges.judge_local import LocalJudge
from ktodata.labels.judges.judge_questions import JudgeQuestion, QuestionSet, read_verdict
from ktodata.labels.judges.judge_settings import JudgeSettings, JudgeSource
from ktodata.labels.judges.judge_store import AnswerStore, digest_json
from ktodata.labels.judges.judge_workers import JudgeModel, ask_all
from ktodata.models import cache_dir


@dataclass(frozen=True)
class JudgeScores:
    """What the judge answered.

    votes : row_id, rater ("judge:<model>/<wording>"), verdict: true desirable, false undesirable, null no usable answer. One line
        for each row that was to be judged and each vote.
    rows : row_id, p_desirable, verdict, one line for each of those rows. p_desirable: the share of verdicts that say desirable
        (an endpoint), or the mean probability of it (a local model); null where there is no verdict. Not calibrated. verdict: of
        most wordings; null for a tie.
    metrics : JSON values only.
    """

    votes: pl.DataFrame
    rows: pl.DataFrame
    metrics: dict[str, Any]

    def judge_votes(self, name: str) -> pl.DataFrame:
        """row_id, judge_p_desirable, judge_votes: its verdicts in several wordings are one vote, as one more rater's, or none."""
        vote = pl.struct(rater=pl.lit(f"judge:{name}"), label="verdict", created_at=pl.lit(None)).cast(VOTE)
        votes = pl.when(pl.col("verdict").is_not_null()).then(pl.concat_list(vote)).otherwise(pl.lit([], pl.List(VOTE)))
        return self.rows.select("row_id", judge_p_desirable="p_desirable", judge_votes=votes)


def open_store(identity: dict[str, Any], *, cache: bool) -> AnswerStore:
    """The answers of a judge of that identity that are there; an empty store that keeps nothing without `cache`."""
    return AnswerStore(cache_dir() / "judge" / digest_json(identity)[:24] if cache else None)


def answer_questions(
    questions: Mapping[str, JudgeQuestion],
    source: JudgeSource,
    settings: JudgeSettings,
    store: AnswerStore,
    *,
    max_requests: int | None = None,
    concurrency: int = 4,
) -> dict[str, Any]:
    """Ask what the store has no answer to, and keep what comes there: the counts of it. The judge is loaded only to be asked."""
    missing = [question for key, question in questions.items() if key not in store.answers]
    sent = missing[:max_requests]
    failed, retried = Counter[str](), 0
    if sent:
        model: JudgeModel = ChatEndpoint(source, settings) if source.endpoint else LocalJudge(source, settings)
        failed = ask_all(sent, model, store, concurrency if source.endpoint else 1)
        retried = model.retried
    return {
        "requests": len(sent),
        "retries": retried,
        "cached": len(questions) - len(missing),
        "unreadable_cache_lines": store.unreadable,
        "not_requested": len(missing) - len(sent),
        "failed": dict(sorted(failed.items())),
        **{f"tokens_{side}": _count_tokens(store, sent, side) for side in ("in", "out")},
    }


def _count_tokens(store: AnswerStore, requested: Sequence[JudgeQuestion], side: str) -> int | None:
    """Tokens that the server counted for what was asked now; None when it counted none."""
    answers = [store.answers[question.key] for question in requested if question.key in store.answers]
    counts = [answer.tokens[side] for answer in answers if side in answer.tokens]
    return sum(counts) if counts else None


def read_scores(to_judge: pl.DataFrame, questions: QuestionSet, store: AnswerStore, name: str) -> JudgeScores:
    """The verdicts on the rows that `questions` are about. name : the judge's, as raters are named"""
    row_ids, tables, per_wording = to_judge.select(pl.col("row_id").cast(pl.String)), [], {}
    for wording, keys in zip(questions.wordings, questions.of_row, strict=True):
        verdicts = [read_verdict(questions.unique[key], store.answers.get(key)) for key in keys]
        table = row_ids.with_columns(
            pl.lit(f"judge:{name}/{wording}").alias("rater"),
            pl.Series("verdict", [verdict for verdict, _ in verdicts], pl.Boolean),
            pl.Series("p", [p for _, p in verdicts], pl.Float64),
        )
        tables.append(table)
        per_wording[wording] = _wording_counts(table["verdict"], sum(key in store.answers for key in keys))
    votes = pl.concat(tables)
    majority = pl.when(pl.col("up") != 0.5).then(pl.col("up") > 0.5)
    per_row = votes.group_by("row_id").agg(p_desirable=pl.col("p").mean(), up=pl.col("verdict").mean())
    rows = row_ids.join(per_row, on="row_id", how="left", maintain_order="left")
    rows = rows.select("row_id", "p_desirable", verdict=majority)
    several = votes.drop_nulls("verdict").group_by("row_id").agg(split=pl.col("verdict").n_unique() > 1, several=pl.len() > 1)
    metrics = {
        "unparsed": sum(counts["unparsed"] for counts in per_wording.values()),
        "per_wording": per_wording,
        "rows_without_verdict": int(rows["p_desirable"].null_count()),
        "disagreements": {"rows": int(several["split"].sum()), "of": int(several["several"].sum())},
    }
    return JudgeScores(votes.drop("p"), rows, metrics)


def _wording_counts(verdicts: pl.Series, answered: int) -> dict[str, Any]:
    return {
        "verdicts": verdicts.count(),
        "share_desirable": verdicts.mean(),
        "unparsed": answered - verdicts.count(),
        "no_answer": len(verdicts) - answered,
    }
