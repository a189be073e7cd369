"""Even out desirable and undesirable rows: by KTO's loss weights, or by dropping the least trustworthy rows of the larger class.

The weights follow Ethayarajh et al. 2024, arXiv:2402.01306, Eq. (8): lambda_D n_D / (lambda_U n_U) in [1, 4/3], one of them 1.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import MissingColumnError, OneClassError
from ktodata.feedback import CLASS_WEIGHT_LIMIT, LABEL_NAMES
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.stage import Seed, StageResult, decide, is_trained, no_decisions, trained_label

NEEDS = ("label", "state")
USES = ("part", "label_quality", "cluster", "trusted_label")
ADDS = ("weight",)

LOWEST, HIGHEST = 1.0, 4 / 3
HEAVY = CLASS_WEIGHT_LIMIT  # times the weight of other rows
RULE = "lambda_D n_D / (lambda_U n_U) in [1, 4/3], one of the two being 1"
SOURCE = "Ethayarajh et al. 2024, arXiv:2402.01306, Eq. (8)"


def rebalance(
    feedback: pl.DataFrame,
    *,
    by: Annotated[
        Literal["weights", "drop", "none"],
        Field(description="weights: loss weights by the paper's rule; drop: leave out rows of the larger class; none: only caps"),
    ] = "weights",
    target: Annotated[
        float, Field(ge=LOWEST, le=HIGHEST, description="by weights: the weighted desirable-to-undesirable ratio to reach")
    ] = 1.0,
    max_weight: Annotated[
        float,
        Field(ge=1, description="by weights: no class weighs more, whatever the ratio; KD062 says where that holds it back"),
    ] = CLASS_WEIGHT_LIMIT,
    ratio: Annotated[float, Field(gt=0, description="by drop: desirable rows per undesirable row to keep")] = 1.0,
    max_per_cluster: Annotated[
        int | None, Field(ge=1, description="rows kept of one prompt cluster, least trustworthy out first; needs coverage before")
    ] = None,
    seed: Seed = 0,
) -> StageResult:
    """Add weight: what each row's loss is multiplied by. Counted on the rows that will be trained on; held-out rows weigh 1.

    Rows leave in this order: those without a trusted_label first, then lowest label_quality, then at random (seeded); a row
    without a quality among rows that have one counts as the median row.
    Raises OneClassError when all training rows have one label.
    """
    rows = _rows_to_balance(feedback, seed)
    before = _label_counts(rows)
    _check_two_classes(before, feedback)
    capped = _over_cap(rows, max_per_cluster)
    left = rows.join(capped, on="row_id", how="anti")
    surplus = _surplus(left, ratio) if by == "drop" else left.clear()
    after = _label_counts(left.join(surplus, on="row_id", how="anti"))
    _check_two_classes(after)
    by_rule = kto_weights(after.desirable, after.undesirable, target) if by == "weights" else (1.0, 1.0)
    weights = (min(by_rule[0], max_weight), min(by_rule[1], max_weight))
    metrics = _rebalance_metrics(before, after, weights, by) | {
        "dropped_over_cap": capped.height,
        "dropped_to_ratio": surplus.height,
    }
    metrics["findings"] = [
        finding.as_dict() for finding in _rebalance_findings(before, after, weights, max(by_rule), rows.height)
    ]
    return StageResult(columns=_weigh(feedback, rows, weights), decisions=_rebalance_decisions(capped, surplus), metrics=metrics)


def kto_weights(desirable: int, undesirable: int, target: float = 1.0) -> tuple[float, float]:
    """(lambda_D, lambda_U): the smaller class is weighed up until lambda_D n_D / (lambda_U n_U) = target; the other weight is 1.

    Both are 1 when the counts alone lie in [1, 4/3] already.
    """
    counts = desirable / undesirable
    if LOWEST <= counts <= HIGHEST:
        return 1.0, 1.0
    return (1.0, counts / target) if counts > HIGHEST else (target / counts, 1.0)


@dataclass(frozen=True)
class _Counts:
    desirable: int
    undesirable: int

    @property
    def rows(self) -> int:
        return self.desirable + self.undesirable

    @property
    def larger_share(self) -> float:
        return max(self.desirable, self.undesirable) / self.rows


def _rows_to_balance(feedback: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The rows that will be trained on, the least trustworthy first: row_id, desirable, label_quality, cluster."""
    quality = pl.col("label_quality") if "label_quality" in feedback.columns else pl.lit(None, pl.Float64)
    trusted = pl.col("trusted_label").is_not_null() if "trusted_label" in feedback.columns else pl.lit(value=False)
    cluster = pl.col("cluster") if "cluster" in feedback.columns else pl.lit(None, pl.Int32)
    rows = (
        feedback.filter(is_trained(feedback.columns))
        .sort("row_id")
        .select(
            "row_id",
            desirable=trained_label(),
            label_quality=quality,
            cluster=cluster,
            trusted=trusted,
        )
    )
    chance = pl.Series("chance", np.random.default_rng(seed).permutation(rows.height))
    trust = pl.col("label_quality").fill_nan(None).fill_null(pl.col("label_quality").fill_nan(None).median())
    return rows.with_columns(chance).sort("trusted", trust, "chance").drop("trusted", "chance")


def _label_counts(rows: pl.DataFrame) -> _Counts:
    desirable = int(rows["desirable"].sum())
    return _Counts(desirable, rows.height - desirable)


def _check_two_classes(counts: _Counts, feedback: pl.DataFrame | None = None) -> None:
    if counts.desirable and counts.undesirable:
        return
    only = (
        f"all {counts.rows:,} are {'desirable' if counts.desirable else 'undesirable'}{_where_others_are(feedback, counts)}"
        if counts.rows
        else f"there are none{_why_none(feedback)}"
    )
    raise OneClassError(
        f"rebalance: of the rows to train on, {only}. KTO needs both labels: check how ingest maps the label, whether an earlier "
        "step dropped or holds back the other class (see the ledger), or add feedback of the other kind."
    )


def _where_others_are(feedback: pl.DataFrame | None, counts: _Counts) -> str:
    """What became of the rows that were given as the other label, in brackets."""
    if feedback is None:
        return ""
    others = feedback.filter(pl.col("label") != bool(counts.desirable))
    states = {"held for review": "review", "turned": "relabel"}
    there = {word: int((others["state"] == state).sum()) for word, state in states.items()}
    if not any(there.values()):
        return ""
    each = " and ".join(f"{rows:,} {'is' if rows == 1 else 'are'} {word}" for word, rows in there.items() if rows)
    why = "" if "trusted_label" not in feedback.columns else "; `ktodata audit` with the recipe says what the verdicts show"
    return f" (of those given as the other label {each}{why})"


def _why_none(feedback: pl.DataFrame | None) -> str:
    """What became of the rows, in brackets."""
    if feedback is None or feedback.is_empty():
        return ""
    held = int((feedback["state"] == "review").sum())
    return f" (of {feedback.height:,} that are not dropped {held:,} are held for review)"


def _over_cap(rows: pl.DataFrame, cap: int | None) -> pl.DataFrame:
    """The least trustworthy rows of each cluster that holds more than `cap`."""
    if cap is None:
        return rows.clear()
    if rows["cluster"].null_count() == rows.height:
        raise MissingColumnError(
            f"rebalance: max_per_cluster={cap} needs column 'cluster', which coverage adds. Put coverage before rebalance."
        )
    over = pl.len().over("cluster").cast(pl.Int64) - cap
    rank = pl.int_range(pl.len()).over("cluster")
    return rows.with_columns(cluster_rows=pl.len().over("cluster")).filter(
        pl.col("cluster").is_not_null() & (rank.cast(pl.Int64) < over)
    )


def _surplus(rows: pl.DataFrame, ratio: float) -> pl.DataFrame:
    """The least trustworthy rows of the class that is too large for desirable : undesirable = ratio."""
    counts = _label_counts(rows)
    _check_two_classes(counts)
    if counts.desirable > ratio * counts.undesirable:
        larger, surplus = True, counts.desirable - max(1, round(ratio * counts.undesirable))
    else:
        larger, surplus = False, counts.undesirable - max(1, round(counts.desirable / ratio))
    return rows.filter(pl.col("desirable") == larger).head(surplus)


def _rebalance_decisions(capped: pl.DataFrame, surplus: pl.DataFrame) -> pl.DataFrame:
    every = pl.lit(value=True)
    decisions = [
        decide(
            capped,
            every,
            action="drop",
            reason="cluster_cap",
            evidence=("cluster", "cluster_rows", "desirable", "label_quality"),
        )
        if capped.height
        else no_decisions(),
        decide(surplus, every, action="drop", reason="rebalance", evidence=("desirable", "label_quality")),
    ]
    return pl.concat(decisions).sort("row_id")


def _weigh(feedback: pl.DataFrame, rows: pl.DataFrame, weights: tuple[float, float]) -> pl.DataFrame:
    of_class = pl.when("desirable").then(weights[0]).otherwise(weights[1])
    weighed = rows.select("row_id", weight=of_class.cast(pl.Float64))
    return (
        feedback.select("row_id")
        .join(weighed, on="row_id", how="left", maintain_order="left")
        .with_columns(pl.col("weight").fill_null(1.0))
    )


def _rebalance_metrics(before: _Counts, after: _Counts, weights: tuple[float, float], by: str) -> dict[str, Any]:
    lambda_d, lambda_u = weights
    return {
        "by": by,
        "rule": RULE,
        "source": SOURCE,
        "n_D_before": before.desirable,
        "n_U_before": before.undesirable,
        "n_D": after.desirable,
        "n_U": after.undesirable,
        "lambda_D": lambda_d,
        "lambda_U": lambda_u,
        "weighted_ratio": _weighted_ratio(after, weights),
        "effective_rows": _effective_rows(after, weights),
        "trainer_settings": {
            "trl": {"desirable_weight": lambda_d, "undesirable_weight": lambda_u},
            "halos": {"loss.desirable_weight": lambda_d, "loss.undesirable_weight": lambda_u},
            "llamafactory": {"kto_chosen_weight": lambda_d, "kto_rejected_weight": lambda_u},
            "axolotl": {"kto_desirable_weight": lambda_d, "kto_undesirable_weight": lambda_u},
            "ms-swift": {"desirable_weight": lambda_d, "undesirable_weight": lambda_u},
        },
    }


def _weighted_ratio(counts: _Counts, weights: tuple[float, float]) -> float:
    return weights[0] * counts.desirable / (weights[1] * counts.undesirable)


def _effective_rows(counts: _Counts, weights: tuple[float, float]) -> float:
    """(sum w)^2 / sum w^2: equally weighted rows that would average out noise as well (Kish)."""
    total = weights[0] * counts.desirable + weights[1] * counts.undesirable
    return float(total**2 / (weights[0] ** 2 * counts.desirable + weights[1] ** 2 * counts.undesirable))


def _rebalance_findings(
    before: _Counts, after: _Counts, weights: tuple[float, float], by_rule: float, rows: int
) -> list[Finding]:
    return [
        check_label_balance(before),
        check_weighted_ratio(after, weights, by_rule),
        check_weight_size(after, weights, by_rule),
        check_rows_dropped(rows - after.rows, rows),
    ]


def check_label_balance(counts: _Counts) -> Finding:
    """KD060: more than two training rows in three have one label."""
    text = f"{counts.desirable:,} desirable and {counts.undesirable:,} undesirable rows to train on"
    if counts.larger_share <= 2 / 3:
        return passed("KD060", f"{text}.")
    larger = LABEL_NAMES[counts.desirable > counts.undesirable]
    return issue(
        "KD060",
        f"{text}: {counts.larger_share:.1%} are {larger}. Loss weights even out the gradient, not the information: "
        "more feedback of the rarer kind is worth more.",
        rows=max(counts.desirable, counts.undesirable),
    )


def check_weighted_ratio(counts: _Counts, weights: tuple[float, float], by_rule: float) -> Finding:
    """KD061: the weighted ratio lies outside the paper's interval."""
    reached = _weighted_ratio(counts, weights)
    if LOWEST - 1e-9 <= reached <= HIGHEST + 1e-9:
        return passed("KD061", f"lambda_D n_D / (lambda_U n_U) = {reached:.3f}.")
    advice = "Use by: weights, or another ratio"
    if by_rule > max(weights):
        advice = "The setting max_weight holds the weights back, and more feedback of the rarer label is what is missing"
    return issue("KD061", f"lambda_D n_D / (lambda_U n_U) = {reached:.3f} lies outside [1, 4/3] ({SOURCE}). {advice}.")


def check_weight_size(counts: _Counts, weights: tuple[float, float], by_rule: float) -> Finding:
    """KD062: a few rows carry more than ten times the weight of the others, or would by the rule, but for max_weight."""
    heavy = max(weights)
    if heavy == 1 and by_rule <= 1:
        return not_applicable("KD062", "no row is weighed up.")
    if heavy <= HEAVY and by_rule <= heavy:
        return passed("KD062", f"the largest weight is {heavy:.2f}.")
    few = min(counts.desirable, counts.undesirable)
    held_back = f" The rule asks for {by_rule:.2f}, and max_weight holds it back." if by_rule > heavy else ""
    costs = f"{few:,} rows weigh {heavy:.1f} each, so a wrong label among them costs as much as {heavy:.0f} others."
    advice = "Have them reviewed, or use by: drop."
    if heavy == 1:
        costs, advice = (
            "No row is weighed up.",
            "More feedback of the rarer label is what is missing; by: drop evens out as well.",
        )
    return issue("KD062", f"{costs}{held_back} {advice}", rows=few)


def check_rows_dropped(dropped: int, rows: int) -> Finding:
    """KD063: evening out costs more than half of the training rows."""
    if not dropped:
        return not_applicable("KD063", "no row was dropped.")
    if dropped <= rows / 2:
        return passed("KD063", f"{dropped:,} of {rows:,} rows were dropped.")
    return issue("KD063", f"{dropped:,} of {rows:,} rows to train on were dropped. by: weights keeps them all.", rows=dropped)
