"""Whether labels count the same, rows own their updates, updates see both labels, routers have their loss, rows are held out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktodata.feedback import CLASS_WEIGHT_LIMIT, LABEL_NAMES
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.train.data.batches import BatchPlan
from ktodata.train.data.tokens import TokenRows
from ktodata.train.loss_weights import Balance, row_targets
from ktodata.train.setting_tables import FlipRates

LARGEST_BATCH = 4096  # that batch_size may be
BY_HAND = "Leave desirable_weight and undesirable_weight out: training evens the labels out as far as single rows allow"


@dataclass(frozen=True)
class RowPulls:
    """How hard each training row pulls before the first update, in units of beta / 4: float64 [N].

    lightest : that of the mean row of the label whose rows pull less, of labels that count anything
    """

    pulls: NDArray[np.float64]
    lightest: float

    @classmethod
    def of(cls, rows: TokenRows, weights: Balance, *, soft: bool, flip_rates: FlipRates | None) -> "RowPulls":
        """Weights in force times each row's own; how sure a soft label is counts in the mean, not as a weight.

        Rows that count nothing are in no mean: they make no other row heavy.
        """
        target, sure = row_targets(rows, soft=soft, flip_rates=flip_rates)
        desirable = target.astype(np.float64)
        pulls = rows.weight * np.abs(weights.desirable_weight * desirable - weights.undesirable_weight * (1 - desirable))
        pulls = np.where(sure > 0, pulls, 0.0)
        sides = [side & (pulls > 0) for side in (desirable > 0.5, desirable <= 0.5) if (pulls > 0)[side].any()]
        return cls(pulls, min((float(np.average(pulls[side], weights=sure[side])) for side in sides), default=math.inf))


def training_findings(
    rows: TokenRows,
    weights: Balance,
    plan: BatchPlan,
    *,
    soft: bool,
    flip_rates: FlipRates | None,
    router_facts: Mapping[str, Any],
    held_out: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """KD064 to KD068, as JSON values. rows : those to train on, in the order that the plan numbers them in."""
    findings = (
        check_labels_count_the_same(weights, plan),
        check_row_pulls(RowPulls.of(rows, weights, soft=soft, flip_rates=flip_rates), plan, by_hand=weights.by_hand),
        check_both_labels_meet(plan),
        check_router_loss(router_facts),
        check_rows_held_out(held_out),
    )
    return [finding.as_dict() for finding in findings]


def check_labels_count_the_same(weights: Balance, plan: BatchPlan) -> Finding:
    """KD064: with the weights in force, one label weighs more than the other, outside the paper's interval (Eq. 8)."""
    ratio = weights.ratio
    if weights.within_paper_rule:
        return passed("KD064", f"desirable rows together weigh {ratio:.2f} of what undesirable ones do.")
    lighter = ratio < 1
    counts = plan.metrics["rows_pulled_up"], plan.metrics["rows_pulled_down"]
    of_lighter, others = counts if lighter else counts[::-1]
    name, other = LABEL_NAMES[lighter], LABEL_NAMES[not lighter]
    times = 1 / ratio if 0 < ratio < 1 else ratio
    weighed = f"is {times:,.3g} : 1" if times > 0 and math.isfinite(times) else "leaves the latter nothing"
    head = (
        f"the labels do not count the same: weighed, {others:,} {other} to {of_lighter:,} {name} rows {weighed}. Training mostly "
        f"learns what {'not to write' if lighter else 'to write'}. "
    )
    return issue("KD064", head + _why_uneven(weights, name, other), rows=of_lighter)


def _why_uneven(weights: Balance, lighter: str, other: str) -> str:
    """What holds the labels apart, and what to do."""
    if weights.even_weight is not None:
        return (
            f"A weight of {weights.even_weight:,.3g} would even them out, but no row is made to count more than "
            f"{CLASS_WEIGHT_LIMIT:g} of the other label by itself: it would own its updates. Get more {lighter} rows, or leave "
            f"{other} ones out (rebalance: {{by: drop}})."
        )
    if not weights.by_hand:
        return "That is by what rows weigh themselves, by soft labels or flip rates; the paper advises 1 to 4/3."
    return f"That is by the weights as set; the paper advises 1 to 4/3. {BY_HAND}."


def check_row_pulls(rows: RowPulls, plan: BatchPlan, *, by_hand: bool) -> Finding:
    """KD065: some rows count more than CLASS_WEIGHT_LIMIT rows of the label whose rows count less."""
    heavy = rows.pulls > CLASS_WEIGHT_LIMIT * rows.lightest * (1 + 1e-6)
    if not heavy.any():
        return passed("KD065", f"no row counts more than {CLASS_WEIGHT_LIMIT:g} of the label whose rows count less.")
    owned = sum(2 * rows.pulls[step.rows].max() > rows.pulls[step.rows].sum() for step in plan.steps)
    count = int((rows.pulls > 0).sum())
    return issue(
        "KD065",
        f"{int(heavy.sum()):,} of {count:,} rows count more than {CLASS_WEIGHT_LIMIT:g} of the label whose rows count less, "
        f"up to {rows.pulls.max() / rows.lightest:,.3g}: in {owned:,} of {len(plan.steps):,} updates a single row pulls harder "
        "than all others together, and what clipping (max_grad_norm) then takes back, it takes from all of them. "
        + (f"Lower the weights of those rows or of their label. {BY_HAND}." if by_hand else "Lower the weights of those rows."),
        rows=int(heavy.sum()),
    )


def check_both_labels_meet(plan: BatchPlan) -> Finding:
    """KD066: some updates pull one way only, as there are fewer rows of the other label than updates in an epoch."""
    lonely, updates = plan.metrics["one_class_batches"], len(plan.steps)
    if not lonely:
        return passed("KD066", f"each of {updates:,} updates holds rows of both labels.")
    up, down = plan.metrics["rows_pulled_up"], plan.metrics["rows_pulled_down"]
    rarer, size = min(up, down), plan.metrics["batch_rows_max"]
    name, enough = LABEL_NAMES[up <= down], (up + down) / rarer if rarer else math.inf
    return issue(
        "KD066",
        f"{lonely:,} of {updates:,} updates hold rows of one label only: {rarer:,} {name} among {up + down:,} rows are too few "
        f"for updates of {size:,}. Such an update pushes all its completions one way. Get more of them"
        + (
            f", or give a batch_size of {math.ceil(enough):,} or more, so that every update has one."
            if enough <= LARGEST_BATCH
            else "."
        ),
        rows=rarer,
    )


def check_router_loss(facts: Mapping[str, Any]) -> Finding:
    """KD067: the model's config asks for a router loss that it is trained without."""
    if "not_applicable" in facts:
        return issue(
            "KD067",
            f"the model's config asks for a router loss (router_aux_loss_coef {facts['config_asks_for']:g}), and it was trained "
            f"without: {facts['not_applicable']}. Nothing kept tokens from going to fewer and fewer experts.",
        )
    if not facts["coefficient"]:
        return not_applicable("KD067", "the model has no experts, or no loss of its routers is asked for.")
    return passed("KD067", f"the router loss of each update is added {facts['coefficient']:g} times.")


def check_rows_held_out(facts: Mapping[str, Any]) -> Finding:
    """KD068: validation rows are trained on too, or answer prompts of training rows. facts : of the validation part"""
    rows, known, prompts = (facts.get(name, 0) for name in ("rows", "trained_on_too", "prompt_trained_on_too"))
    if not known and not prompts:
        if "not_applicable" in facts:
            return not_applicable("KD068", f"{facts['not_applicable'].rstrip('.')}.")
        return passed("KD068", f"none of {rows:,} validation rows is trained on, and none has a prompt that is.")
    words = []
    if known:
        words.append(f"{known:,} validation rows are trained on too, and are not scored: the same prompt and completion.")
    if prompts:
        words.append(
            f"{prompts:,} of {rows:,} that are scored have a prompt that is trained on: their AUC does not say how the "
            "model judges answers to other prompts."
        )
    return issue("KD068", " ".join([*words, "Hold out whole prompts with the step `split`."]), rows=known + prompts)
