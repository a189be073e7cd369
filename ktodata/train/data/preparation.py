"""From rows to tokens, and to who meets whom in which step; and what can be refused before the model has run once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ktodata.errors import EmptyDataError, OneClassError
from ktodata.train.data.batches import BatchPlan, plan_held_out, plan_training, shifted
from ktodata.train.data.ragged_ids import Numbers
from ktodata.train.data.token_cache import cached_tokens
from ktodata.train.data.tokens import TokenRows, joined
from ktodata.train.data.training_rows import CheckedPart, named
from ktodata.train.loss_weights import check_both_labels_count, check_flip_rates_fit, check_weights_fit, sides_in_updates
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
        return self.rows.taken(np.arange(self.count))

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
    """Tokens and plan. Raises OneClassError when what fits max_length and counts holds one label only."""
    max_length, batch_size, seed = settings["max_length"], settings["batch_size"], settings["seed"]
    rows, token_metrics = cached_tokens(train_rows, tokenizer, max_length=max_length, part="train")
    if rows.label.all() or not rows.label.any():
        raise OneClassError(
            f"train: of {train_rows.columns.height:,} rows, {len(rows):,} fit max_length {max_length:,}, and all of those are "
            f"{'desirable' if rows.label[0] else 'undesirable'}. KTO needs both: raise max_length."
        )
    soft, contrasts = settings["soft_labels"], OBJECTIVES[settings["objective"]].contrasts
    check_weights_fit(rows, soft=soft, flip_rates=settings["flip_rates"])
    check_both_labels_count(rows, soft=soft)
    check_flip_rates_fit(rows, settings["flip_rates"])
    dealt = {
        "batch_size": batch_size,
        "seed": seed,
        "siblings_together": contrasts,
        "kl_pairs_per_batch": settings["kl_pairs_per_batch"],
    }
    sides = sides_in_updates(rows, soft=soft, contrasts=contrasts)
    plan = plan_training(
        rows,
        epochs=settings["epochs"],
        max_steps=settings["max_steps"],
        group_by_prompt=settings["group_by_prompt"],
        sides=sides,
        **dealt,
    )
    metrics = {"train": token_metrics, "plan": plan.metrics}
    trained = _texts_of(rows).filter(pl.Series(sides != 0))
    held_out, metrics["validation"] = _held_out_tokens(held_out_rows, trained, tokenizer, max_length)
    if held_out is None:
        return Prepared(rows, plan, BatchPlan((), {}), metrics, len(rows))
    held_out_plan = shifted(plan_held_out(held_out, **dealt), len(rows))
    return Prepared(joined(rows, held_out), plan, held_out_plan, metrics, len(rows))


def _held_out_tokens(
    rows: CheckedPart | None, trained: pl.DataFrame, tokenizer: Any, max_length: int
) -> tuple[TokenRows | None, dict[str, Any]]:
    """Tokens of the rows that are held out, and metrics; None where too few are. trained : of `_texts_of`"""
    if rows is None:
        return None, {"not_applicable": "there are no validation rows"}
    try:
        tokens, metrics = cached_tokens(rows, tokenizer, max_length=max_length, part="validation")
    except EmptyDataError as error:
        return None, {"not_applicable": str(error)}
    texts, unknown = _texts_of(tokens), tokenizer.unk_token_id
    known = [
        row
        for row in texts.join(trained, on=("prompt", "completion"), how="semi")["row"]
        # texts of words that the tokenizer does not know may be others
        if unknown is None or not (unknown in tokens.prompt[row] or unknown in tokens.completion[row])
    ]
    if known and len(tokens) - len(known) < 2:
        which = f"{len(known):,} of {len(tokens):,} validation rows (row_id {named(pl.Series(tokens.row_id).gather(known))})"
        return None, {"trained_on_too": len(known), "not_applicable": f"{which} are trained on too: fewer than two are held out"}
    if len(tokens) < 2:
        return None, {"not_applicable": "one validation row has no mismatched partner to estimate z0 with"}
    tokens = tokens.taken(np.setdiff1d(np.arange(len(tokens)), known))
    overlap = {
        "trained_on_too": len(known),
        "prompt_trained_on_too": _texts_of(tokens).join(trained, on="prompt", how="semi").height,
    }
    return tokens, metrics | {"rows": len(tokens)} | overlap


def _texts_of(rows: TokenRows) -> pl.DataFrame:
    """row, and what its prompt and completion are known by, as they were cut."""
    return pl.DataFrame({"prompt": rows.prompt.digests, "completion": rows.completion.digests}).with_row_index("row")
