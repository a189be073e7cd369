"""From rows to tokens, and to who meets whom in which step; and what can be refused before the model has run once."""

from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ktodata.errors import EmptyDataError, ModelError, OneClassError
from ktodata.train.data.batches import BatchPlan, plan_held_out, plan_training, shifted
from ktodata.train.data.packing import Pair
from ktodata.train.data.tokens import TokenRows, joined, tokenize
from ktodata.train.data.training_rows import named
from ktodata.train.loss_weights import check_weights_fit
from ktodata.train.objectives import Objective


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

    def pairs(self, objective: Objective) -> list[Pair]:
        """Every (prompt, completion) whose log-prob is needed: matched ones first, they are used most often."""
        steps = (*self.plan.steps, *self.held_out.steps)
        own = [pair for step in steps for pair in step.matched()]
        crossed = [pair for step in steps for pair in step.mismatched().values()] if objective.point == "mismatched" else []
        return list(dict.fromkeys([*own, *crossed]))


def prepare(train_rows: pl.DataFrame, held_out_rows: pl.DataFrame, tokenizer: Any, settings: dict[str, Any]) -> Prepared:
    """Tokens and plan. Raises OneClassError when what fits max_length holds one label only."""
    max_length, batch_size, seed = settings["max_length"], settings["batch_size"], settings["seed"]
    rows, token_metrics = tokenize(train_rows, tokenizer, max_length=max_length, part="train")
    if rows.label.all() or not rows.label.any():
        raise OneClassError(
            f"train: of {train_rows.height:,} rows, {len(rows):,} fit max_length {max_length:,}, and all of those are "
            f"{'desirable' if rows.label[0] else 'undesirable'}. KTO needs both: raise max_length."
        )
    check_weights_fit(rows, soft=settings["soft_labels"], flip_rates=settings["flip_rates"])
    plan = plan_training(
        rows,
        batch_size=batch_size,
        epochs=settings["epochs"],
        max_steps=settings["max_steps"],
        seed=seed,
        group_by_prompt=settings["group_by_prompt"],
        kl_pairs_per_batch=settings["kl_pairs_per_batch"],
    )
    metrics = {"train": token_metrics, "plan": plan.metrics}
    held_out, metrics["validation"] = _held_out_tokens(held_out_rows, tokenizer, max_length)
    if held_out is None:
        return Prepared(rows, plan, BatchPlan((), {}), metrics, len(rows))
    held_out_plan = shifted(
        plan_held_out(held_out, batch_size=batch_size, seed=seed, kl_pairs_per_batch=settings["kl_pairs_per_batch"]), len(rows)
    )
    return Prepared(joined(rows, held_out), plan, held_out_plan, metrics, len(rows))


def _held_out_tokens(rows: pl.DataFrame, tokenizer: Any, max_length: int) -> tuple[TokenRows | None, dict[str, Any]]:
    if rows.is_empty():
        return None, {"not_applicable": "there are no validation rows"}
    try:
        tokens, metrics = tokenize(rows, tokenizer, max_length=max_length, part="validation")
    except EmptyDataError as error:
        return None, {"not_applicable": str(error)}
    if len(tokens) < 2:
        return None, {"not_applicable": "one validation row has no mismatched partner to estimate z0 with"}
    return tokens, metrics


def fit_to(model: Any, prepared: Prepared) -> Prepared:
    """The same, with mismatched pairs cut to the model's context where they are longer than any row of its own.

    Raises ModelError when a row itself is longer, or holds a token that the model has no embedding for.
    """
    rows = prepared.rows
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(rows.prompt, rows.completion, strict=True)]
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and max(lengths) > context:
        over = pl.Series([row_id for row_id, length in zip(rows.row_id, lengths, strict=True) if length > context])
        raise ModelError(
            f"{len(over):,} of {len(rows):,} rows are longer than the model's context of {context:,} tokens "
            f"(row_id {named(over)}). Set max_length to {context:,} or less."
        )
    largest = max(int(ids.max()) for ids in (*rows.prompt, *rows.completion) if len(ids))
    embeddings = model.get_input_embeddings().num_embeddings
    if largest >= embeddings:
        raise ModelError(f"the tokenizer made token {largest}, but the model has {embeddings:,} embeddings: no match.")
    shortest = min(rows.max_length, context) if context is not None else rows.max_length
    return replace(prepared, rows=replace(rows, max_length=shortest))
