"""From a table of feedback and the settings of a step to what a judge says of it, and what is known of the judge."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from ktodata.feedback import VOTE
from ktodata.labels.judges.bias_probes import (
    family_of,
    leaning_of,
    probe_verdicts,
    self_preference,
    shown_label_followed,
    wording_verdicts,
)
from ktodata.labels.judges.judge_agreement import judge_agreement
from ktodata.labels.judges.judge_findings import judge_findings
from ktodata.labels.judges.judge_plan import JudgeCost, JudgePlan, cost_of, plan_of
from ktodata.labels.judges.judge_scores import JudgeScores, answer_questions, open_store, read_scores
from ktodata.labels.judges.judge_settings import settings_in
from ktodata.labels.judges.judge_store import AnswerStore
from ktodata.stage import StageResult


def run_judge(feedback: pl.DataFrame, values: Mapping[str, Any]) -> StageResult:
    """What the stage judge returns. values : its settings, defaults included"""
    source, settings = settings_in(values)
    identity = source.identity(settings)
    plan, store = plan_of(feedback, settings, identity, values), open_store(identity, cache=values["cache"])
    counts = answer_questions(
        plan.unique, source, settings, store, max_requests=values["max_requests"], concurrency=values["concurrency"]
    )
    scores, by_probe = read_scores(plan.rows, plan.votes, store, source.name), probe_verdicts(plan.probes, store)
    family = (values["family"] or family_of(source.model)).lower()
    facts = {
        "judge": identity | {"criterion": settings.criterion, "rater": f"judge:{source.name}"},
        "rows": feedback.height,
        "rows_to_judge": plan.rows.height,
        **counts,
        "cut": {side: int((plan.rows[side].str.len_chars() > settings.max_chars).sum()) for side in ("prompt", "completion")},
        **scores.metrics,
        "probes": _leanings(plan, by_probe, store),
        "self_preference": self_preference(plan.rows, scores.rows.select("row_id", "verdict"), family),
        "agreement": judge_agreement(feedback, scores.rows.select("row_id", "verdict"), seed=values["seed"]),
    }
    facts["findings"] = [finding.as_dict() for finding in judge_findings(facts)]
    tables = {"verdicts": scores.votes, "probe_verdicts": by_probe}
    return StageResult(_with_every_row(feedback, scores, source.name), metrics=facts, tables=tables)


def cost_before(feedback: pl.DataFrame, values: Mapping[str, Any]) -> JudgeCost:
    """What `run_judge` would ask with what the cache holds now; nothing is asked, fetched or loaded."""
    source, settings = settings_in(values)
    identity = source.identity(settings, fetch=False)
    prices = {name: values[name] for name in ("max_requests", "price_in", "price_out")}
    return cost_of(plan_of(feedback, settings, identity, values), settings, open_store(identity, cache=values["cache"]), **prices)


def _leanings(plan: JudgePlan, by_probe: pl.DataFrame, store: AnswerStore) -> dict[str, Any]:
    """{probe: Leaning as JSON values}; what was not asked is not there."""
    verdicts = {
        str(name): [(with_it, without) for *_, with_it, without in pairs.rows()]
        for (name,), pairs in by_probe.group_by("probe", maintain_order=True)
    }
    if asking := wording_verdicts(plan.votes, store):
        verdicts["wording"] = asking
    leanings = {name: asdict(leaning_of(pairs)) for name, pairs in verdicts.items()}
    if "sycophancy" in leanings:
        leanings["sycophancy"]["followed"] = shown_label_followed(by_probe, plan.rows)
    return leanings


def _with_every_row(feedback: pl.DataFrame, scores: JudgeScores, name: str) -> pl.DataFrame:
    """A line for each row that the stage saw; null where it was not judged."""
    every = feedback.select(pl.col("row_id").cast(pl.String))
    joined = every.join(scores.judge_votes(name), on="row_id", how="left", maintain_order="left")
    return joined.cast({"judge_p_desirable": pl.Float64(), "judge_votes": pl.List(VOTE)})
