"""An optional second opinion: a language model says, under the team's own written criterion, whether a completion is desirable.

The judge is asked in several wordings, so that a leaning towards "yes", towards the first answer named or towards what it read
last shows as disagreement with itself. Prompts and completions are other people's words: they stand inside a fence whose mark
nobody can know beforehand, and whatever they ask for is not done here. Answers that are not a plain yes or no count as none.

Nothing is asked of a network unless `judge` is an address, and then of that address only.

judge_questions.py has the wordings, judge_endpoint.py and judge_local.py ask, judge_workers.py asks several at a time, and
judge_store.py keeps the answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.errors import DataError, MissingColumnError, SettingError, ShapeError
from ktodata.labels.judge_endpoint import ChatEndpoint
from ktodata.labels.judge_local import LocalJudge
from ktodata.labels.judge_questions import JudgeQuestion, JudgeSettings, QuestionSet, chat_messages, question_set, read_verdict
from ktodata.labels.judge_store import AnswerStore, digest_json
from ktodata.labels.judge_workers import JudgeModel, ask_all
from ktodata.models import cache_dir

BYTES_PER_TOKEN = 4
OVERHEAD_TOKENS = 12  # chat markers of two messages


@dataclass(frozen=True)
class JudgeScores:
    """What the judge answered.

    votes : row_id, rater ("judge:<model>/<wording>"), verdict: true desirable, false undesirable, null no usable answer. One line
        for each row that was to be judged and each vote.
    rows : row_id, p_desirable, one line for each row of the feedback, in its order. The share of verdicts that say desirable
        (an endpoint), or the mean probability of it (a local model); null where there is no verdict. Not calibrated.
    metrics : JSON values only.
    """

    votes: pl.DataFrame
    rows: pl.DataFrame
    metrics: dict[str, Any]


def judge(
    feedback: pl.DataFrame,
    *,
    criterion: str,
    judge: str,
    model: str | None = None,
    api_key_env: str | None = None,
    votes: int = 3,
    max_rows: int | None = None,
    max_requests: int | None = None,
    max_chars: int = 8_000,
    max_answer_tokens: int = 16,
    temperature: float = 0.0,
    cache: bool = True,
    concurrency: int = 4,
    timeout_s: float = 60.0,
    retries: int = 5,
    backoff_s: float = 1.0,
    extra: Mapping[str, Any] | None = None,
) -> JudgeScores:
    """Ask a language model whether each completion meets `criterion`; `votes` times, the wording changing from vote to vote.

    feedback : row_id, prompt, completion. Equal texts are asked about once. criterion : what makes a reply desirable, in words.
    judge : "http..." is the base of an OpenAI-compatible endpoint (asked at {judge}/chat/completions), `model` its model; else a
        local causal model: hub id, folder or packaged name, which answers with P(yes) against P(no).
    api_key_env : NAME of the environment variable that holds the key. The key is never stored, logged or shown.
    votes : 1 to 3 at temperature 0 (the wordings); more ask wordings again, which only a temperature above 0 makes worth while.
    max_rows : only the first so many rows are judged. max_requests : stop asking after so many questions that the cache cannot
        answer; what is left has no verdict and is counted (not_requested).
    max_chars : of a prompt and of a completion that the judge reads; what is longer is cut, and counted.
    cache : keep answers under models.cache_dir()/judge, by content; each is on disk as soon as it is there, so a killed run goes
        on where it was. It holds answers and hashes, no prompt, no completion and no key.
    retries, backoff_s : after 408, 409, 429, 5xx and broken connections, waiting longer each time, or as the server says.
    extra : further entries of the request; a value of None takes one out, as {"max_tokens": None, "max_completion_tokens": 99}.

    Raises SettingError and MissingColumnError before anything runs; ModelError when the endpoint refuses the key (401, 403),
    does not exist (404) or fails FAILURES_IN_A_ROW times in a row. Any other failure costs that verdict only, and is counted.
    The labels are not shown to the judge. A judge has leanings of its own (length, style, its own kind of text): check it on
    rows with trusted labels before believing it, and see metrics["per_wording"].
    """
    settings = JudgeSettings(criterion, votes, max_chars, max_answer_tokens, temperature, dict(extra or {}))
    to_judge = _rows_to_judge(feedback, max_rows)
    by_address = judge.startswith(("http://", "https://"))
    chat = {"timeout_s": timeout_s, "retries": retries, "backoff_s": backoff_s}
    judge_model = (
        ChatEndpoint(judge, model, api_key_env, settings, **chat)  # type: ignore[arg-type]
        if by_address
        else LocalJudge(judge, settings)
    )
    questions = question_set(to_judge, settings, judge_model.identity)
    store = AnswerStore(cache_dir() / "judge" / digest_json(judge_model.identity)[:24] if cache else None)
    missing = [question for key, question in questions.unique.items() if key not in store.answers]
    failed = ask_all(missing[:max_requests], judge_model, store, concurrency if by_address else 1)
    metrics = {
        "judge": judge_model.identity | {"criterion": criterion},
        "rows": feedback.height,
        "rows_to_judge": to_judge.height,
        **_request_counts(questions, missing, missing[:max_requests], judge_model, store, failed),
        "cut": {side: int((to_judge[side].str.len_chars() > max_chars).sum()) for side in ("prompt", "completion")},
    }
    return _collect_scores(feedback, to_judge, questions, store, judge_model.name, metrics)


def with_judge(feedback: pl.DataFrame, judged: JudgeScores) -> pl.DataFrame:
    """`feedback` with the judge as one more rater, and the column judge_p_desirable.

    feedback : row_id, and votes or pooled_votes (list of rater, label, created_at); rows that were not judged keep their votes
    The judge's verdicts in several wordings are one vote, that of their majority; a tie is none. Raises ShapeError when a row of
    `feedback` is not among those that were handed to the judge.
    """
    unknown = feedback.join(judged.rows, on="row_id", how="anti")
    if unknown.height:
        raise ShapeError(
            f"judge: {unknown.height:,} of {feedback.height:,} rows were not handed to the judge (first: {unknown['row_id'][0]})."
        )
    name = "pooled_votes" if "pooled_votes" in feedback.columns else "votes"
    rater = pl.lit(f"judge:{judged.metrics['judge']['model']}")
    vote_type = feedback.schema[name].inner  # type: ignore[attr-defined]
    vote = pl.struct(rater=rater, label=pl.col("up") > 0.5, created_at=pl.lit(None)).cast(vote_type)
    majority = judged.votes.drop_nulls("verdict").group_by("row_id").agg(up=pl.col("verdict").mean()).filter(pl.col("up") != 0.5)
    joined = feedback
    for column in (
        judged.rows.select("row_id", judge_p_desirable="p_desirable"),
        majority.select("row_id", vote=pl.concat_list(vote)),
    ):
        joined = joined.join(column, on="row_id", how="left", maintain_order="left")
    with_vote = pl.when(pl.col("vote").is_null()).then(name).otherwise(pl.concat_list(name, "vote"))
    return joined.with_columns(with_vote.alias(name)).drop("vote")


def estimate_cost(
    feedback: pl.DataFrame,
    *,
    criterion: str,
    votes: int = 3,
    max_rows: int | None = None,
    max_requests: int | None = None,
    max_chars: int = 8_000,
    max_answer_tokens: int = 16,
    price_in: float | None = None,
    price_out: float | None = None,
) -> dict[str, Any]:
    """What `judge` would ask with an empty cache, before anything runs: rows, requests, tokens_in, tokens_out, money.

    Tokens are the bytes of the questions / BYTES_PER_TOKEN: right within about a third for prose, low for code and rare scripts;
    tokens_out is the most there can be. price_in, price_out : money per million tokens; money is None unless both are given.
    Retries are not counted.
    """
    settings = JudgeSettings(criterion, votes, max_chars, max_answer_tokens, 1.0, {})
    to_judge = _rows_to_judge(feedback, max_rows)
    questions = list(question_set(to_judge, settings, {}).unique.values())[:max_requests]
    size = sum(len(text.encode("utf-8", "replace")) for each in questions for text in chat_messages(each, settings).values())
    tokens_in, tokens_out = size // BYTES_PER_TOKEN + OVERHEAD_TOKENS * len(questions), max_answer_tokens * len(questions)
    priced = price_in is not None and price_out is not None
    money = (tokens_in * (price_in or 0) + tokens_out * (price_out or 0)) / 1e6 if priced else None
    return {
        "rows": to_judge.height,
        "requests": len(questions),
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "money": money,
    }


def _rows_to_judge(feedback: pl.DataFrame, max_rows: int | None) -> pl.DataFrame:
    """The first `max_rows` rows; raises for a table that cannot be judged."""
    if missing := [name for name in ("row_id", "prompt", "completion") if name not in feedback.columns]:
        wanted = ", ".join(map(repr, missing))
        raise MissingColumnError(f"judge needs column {wanted}; the table has {', '.join(feedback.columns)}.")
    for side in ("prompt", "completion"):
        if feedback.schema[side] != pl.String:
            raise DataError(f"judge: column {side!r} is {feedback.schema[side]}; it must be text.")
        if nulls := feedback[side].null_count():
            raise DataError(f"judge: {nulls:,} of {feedback.height:,} rows have no {side}. Take them out first.")
    if repeats := feedback.height - feedback["row_id"].n_unique():
        raise DataError(f"judge: {repeats:,} of {feedback.height:,} rows share their row_id with another row.")
    if max_rows is not None and max_rows < 1:
        raise SettingError(f"judge: max_rows is a number of at least 1; got {max_rows}.")
    return feedback if max_rows is None else feedback.head(max_rows)


def _request_counts(
    questions: QuestionSet,
    missing: Sequence[JudgeQuestion],
    requested: Sequence[JudgeQuestion],
    judge_model: JudgeModel,
    store: AnswerStore,
    failed: Counter[str],
) -> dict[str, Any]:
    return {
        "requests": len(requested),
        "retries": judge_model.retried,
        "cached": len(questions.unique) - len(missing),
        "unreadable_cache_lines": store.unreadable,
        "not_requested": len(missing) - len(requested),
        "failed": dict(sorted(failed.items())),
        **{f"tokens_{side}": _count_tokens(store, requested, side) for side in ("in", "out")},
    }


def _count_tokens(store: AnswerStore, requested: Sequence[JudgeQuestion], side: str) -> int | None:
    """Tokens that the server counted for what was asked now; None when it counted none."""
    answers = [store.answers[question.key] for question in requested if question.key in store.answers]
    counts = [answer.tokens[side] for answer in answers if side in answer.tokens]
    return sum(counts) if counts else None


def _collect_scores(
    feedback: pl.DataFrame,
    to_judge: pl.DataFrame,
    questions: QuestionSet,
    store: AnswerStore,
    name: str,
    metrics: dict[str, Any],
) -> JudgeScores:
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
    per_row = votes.group_by("row_id").agg(p_desirable=pl.col("p").mean())
    rows = feedback.select(pl.col("row_id").cast(pl.String)).join(per_row, on="row_id", how="left", maintain_order="left")
    several = votes.drop_nulls("verdict").group_by("row_id").agg(split=pl.col("verdict").n_unique() > 1, several=pl.len() > 1)
    metrics |= {
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
