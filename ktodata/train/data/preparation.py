"""From rows to tokens, and to who meets whom in which step; and what can be refused before the model has run once."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ktodata.errors import EmptyDataError, OneClassError
from ktodata.train.data.batches import BatchPlan, plan_held_out, plan_training, shifted
from ktodata.train.data.ragged_ids import Numbers
from ktodata.train.data.token_cache import cached_tokens
from ktodata.train.data.tokens import TokenRows, joined
from ktodata.train.data.training_rows import CheckedPart
from ktodata.train.loss_weights import check_weights_fit, sides_pulled
from ktodata.train.objectives import OBJECTIVES, Objective


@dataclass(frozen=True)
class Prepared:
    """Rows as tokens, and which of them meet in which step. Held-out rows are numbered after the training rows."""

    rows: TokenRows
    plan: BatchPlan
    held_out: BatchPlan
    metrics: dict[str, Any]
    count: int  # of training rows

    @property
    def train_rows(self) -> TokenRows:
        """The training rows alone."""
        return self.rows.first(self.count)

    @property
    def held_out_labels(self) -> list[bool]:
        """Labels of the validation rows that are scored."""
        return [bool(label) for label in self.rows.label[self.count :]]

    def pairs(self, objective: Objective) -> Numbers:
        """Every (prompt, completion) whose log-prob is needed, once, by rows: int64 [P, 2]; matched ones first, most used."""
        steps = (*self.plan.steps, *self.held_out.steps)
        pairs = [np.stack([step.rows, step.rows], axis=1) for step in steps]
        if objective.point == "mismatched":
            pairs += [np.stack([step.rows, step.partners], axis=1)[step.compared] for step in steps]
        every = np.concatenate(pairs)
        return every[np.sort(np.unique(every @ [len(self.rows), 1], return_index=True)[1])]


def prepare(train_rows: CheckedPart, held_out_rows: CheckedPart | None, tokenizer: Any, settings: dict[str, Any]) -> Prepared:
    """Tokens and plan. Raises OneClassError when what fits max_length holds one label only."""
    max_length, batch_size, seed = settings["max_length"], settings["batch_size"], settings["seed"]
    rows, token_metrics = cached_tokens(train_rows, tokenizer, max_length=max_length, part="train")
    if rows.label.all() or not rows.label.any():
        raise OneClassError(
            f"train: of {train_rows.columns.height:,} rows, {len(rows):,} fit max_length {max_length:,}, and all of those are "
            f"{'desirable' if rows.label[0] else 'undesirable'}. KTO needs both: raise max_length."
        )
    check_weights_fit(rows, soft=settings["soft_labels"], flip_rates=settings["flip_rates"])
    dealt = {
        "batch_size": batch_size,
        "seed": seed,
        "siblings_together": OBJECTIVES[settings["objective"]].contrasts,
        "kl_pairs_per_batch": settings["kl_pairs_per_batch"],
    }
    plan = plan_training(
        rows,
        epochs=settings["epochs"],
        max_steps=settings["max_steps"],
        group_by_prompt=settings["group_by_prompt"],
        sides=sides_pulled(rows, soft=settings["soft_labels"]),
        **dealt,
    )
    metrics = {"train": token_metrics, "plan": plan.metrics}
    held_out, metrics["validation"] = _held_out_tokens(held_out_rows, tokenizer, max_length)
    if held_out is None:
        return Prepared(rows, plan, BatchPlan((), {}), metrics, len(rows))
    held_out_plan = shifted(plan_held_out(held_out, **dealt), len(rows))
    return Prepared(joined(rows, held_out), plan, held_out_plan, metrics, len(rows))


def _held_out_tokens(rows: CheckedPart | None, tokenizer: Any, max_length: int) -> tuple[TokenRows | None, dict[str, Any]]:
    if rows is None:
        return None, {"not_applicable": "there are no validation rows"}
    try:
        tokens, metrics = cached_tokens(rows, tokenizer, max_length=max_length, part="validation")
    except EmptyDataError as error:
        return None, {"not_applicable": str(error)}
    if len(tokens) < 2:
        return None, {"not_applicable": "one validation row has no mismatched partner to estimate z0 with"}
    return tokens, metrics
