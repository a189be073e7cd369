"""The training loop, top to bottom: what happens when is an `if` where it happens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch

from ktodata.errors import ModelError
from ktodata.signals.intervals import auroc
from ktodata.train.batches import Plan, Step, micro_batches
from ktodata.train.checkpoints import Checkpoints
from ktodata.train.objectives import Kto, ReferencePoint, reference_point
from ktodata.train.reference import ReferenceLogps
from ktodata.train.scorer import Scorer
from ktodata.train.shards import named
from ktodata.train.shared_prompts import Pair
from ktodata.train.state import State
from ktodata.train.telemetry import observed

Tensor = Any


def train(
    scorer: Scorer,
    reference: ReferenceLogps,
    objective: Kto,
    optimizer: Any,
    plan: Plan,
    held_out: Plan,
    state: State,
    checkpoints: Checkpoints | None,
    *,
    learning_rate: Callable[[int], float],
    micro_batch_size: int,
    max_grad_norm: float,
    eval_every_steps: int | None,
    save_every_steps: int | None,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Train `scorer.model` in place from `state.step` to the end of `plan`; `state` grows as it goes."""
    first_step, last_step = state.step, len(plan.steps)

    def due(every: int | None) -> bool:
        # at first_step there is nothing new: an untrained policy is its reference, a resumed one was looked at before
        return every is not None and step > first_step and step % every == 0

    for step in range(first_step, last_step + 1):
        done = step == last_step
        if held_out.steps and (done or due(eval_every_steps)):
            state.held_out.append(look_at_held_out(scorer, reference, objective, held_out, state))
            report({"step": step, "steps": last_step, "held_out": state.held_out[-1]})
        if checkpoints is not None and not done and due(save_every_steps):
            checkpoints.save(scorer.model, optimizer, state)
        if not done:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step)
            batch = plan.steps[step]
            line = train_step(scorer, reference, objective, optimizer, batch, state, micro_batch_size, max_grad_norm)
            state.history.append(line)
            state.step = step + 1
            report({**line, "step": state.step, "steps": last_step})


def train_step(
    scorer: Scorer,
    reference: ReferenceLogps,
    objective: Kto,
    optimizer: Any,
    batch: Step,
    state: State,
    micro_batch_size: int,
    max_grad_norm: float,
) -> dict[str, Any]:
    """One update from one effective batch; returns the step's line of the history."""
    z0 = reference_point_of(scorer, reference, batch)  # over the whole step, before any of its losses
    rows, scored = matched(batch), _Scored(scorer, reference, objective, batch, z0)
    with _dropout_of_adapters(scorer.model):
        for micro in micro_batches(len(rows), micro_batch_size):
            losses = scored.score(micro, scorer(rows[micro]))
            (losses.sum() / len(rows)).backward()  # divided by the whole step's rows: accumulation equals one big batch
    scored.check_finite(state.step)
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    grad_norm = torch.nn.utils.clip_grad_norm_(trainable, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    state.telemetry.append(scored.telemetry("train", batch.epoch, state.step))
    return {
        "step": state.step,
        "epoch": batch.epoch,
        "rows": len(rows),
        **scored.summary(),
        "grad_norm": float(grad_norm),
        "learning_rate": optimizer.param_groups[0]["lr"],
    }


def look_at_held_out(scorer: Scorer, reference: ReferenceLogps, objective: Kto, held_out: Plan, state: State) -> dict[str, Any]:
    """Loss and implicit rewards of held-out rows under the policy as it is now; their telemetry goes into `state`."""
    seen = []
    for batch in held_out.steps:
        scored = _Scored(scorer, reference, objective, batch, reference_point_of(scorer, reference, batch))
        scored.score(slice(None), scorer.without_gradient(matched(batch)))
        seen.append(scored.telemetry("validation", state.history[-1]["epoch"] if state.history else 0, state.step))
    state.telemetry.extend(seen)
    table = pl.concat(seen)
    rewards = objective.beta * table["log_ratio"].to_numpy().astype(np.float64)
    loss = float(table["loss"].to_numpy().mean(dtype=np.float64))
    return {"step": state.step, "rows": table.height, "loss": loss} | reward_gap(rewards, table["label"].to_numpy())


def reward_gap(rewards: Any, desirable: Any) -> dict[str, Any]:
    """Mean reward of desirable minus undesirable rows (beta x nats; higher is better) and AUC, each with its 95 % interval."""
    for_, against = rewards[desirable], rewards[~desirable]
    if min(len(for_), len(against)) < 2:
        reason = f"{len(for_)} desirable and {len(against)} undesirable held-out rows: both need two"
        return {"reward_gap": None, "auc": None, "not_applicable": reason}
    gap = float(for_.mean() - against.mean())
    reach = 1.96 * float(np.sqrt(for_.var(ddof=1) / len(for_) + against.var(ddof=1) / len(against)))
    return {"reward_gap": {"value": gap, "low": gap - reach, "high": gap + reach}, "auc": auroc(against, for_).as_dict()}


def reference_point_of(scorer: Scorer, reference: ReferenceLogps, batch: Step) -> ReferencePoint:
    """z0 of one effective batch: every prompt with its partner's completion, pooled over the whole step."""
    pairs = mismatched(batch)
    return reference_point(scorer.without_gradient(pairs) - reference(pairs))


def matched(batch: Step) -> list[Pair]:
    """Each row's prompt with its own completion."""
    return [(int(row), int(row)) for row in batch.rows]


def mismatched(batch: Step) -> list[Pair]:
    """Each row's prompt with its partner's completion."""
    return [(int(row), int(partner)) for row, partner in zip(batch.rows, batch.partners, strict=True)]


class _Scored:
    """Losses of one effective batch, collected over its micro-batches; read only once, when the step is over."""

    def __init__(self, scorer: Scorer, reference: ReferenceLogps, objective: Kto, batch: Step, z0: ReferencePoint) -> None:
        self._rows, self._batch, self._objective, self._z0 = scorer.rows, batch, objective, z0
        self._desirable = torch.from_numpy(scorer.rows.label[batch.rows]).to(scorer.device)
        self._weight = torch.from_numpy(scorer.rows.weight[batch.rows]).float().to(scorer.device)
        self._reference = reference(matched(batch))
        self._logps: list[Tensor] = []
        self._losses: list[Tensor] = []

    def score(self, micro: slice, logps: Tensor) -> Tensor:
        labels, weight, ref_logps = self._desirable[micro], self._weight[micro], self._reference[micro]
        losses = self._objective.loss(logps, ref_logps, labels, self._z0.value, weight)
        self._logps.append(logps.detach())
        self._losses.append(losses.detach())
        return losses

    def check_finite(self, step: int) -> None:
        bad = ~(torch.cat(self._losses).isfinite() & torch.cat(self._logps).isfinite()).cpu().numpy()
        if bad.any():
            row_ids = pl.Series([self._rows.row_id[row] for row in self._batch.rows[bad]])
            raise ModelError(
                f"step {step}: the loss is not finite for {bad.sum()} of {len(bad)} rows (row_id {named(row_ids)}). "
                "Look at those rows, lower learning_rate, or train in float32."
            )

    def telemetry(self, part: str, epoch: int, step: int) -> pl.DataFrame:
        logps = torch.cat(self._logps)
        pull = self._objective.gradient_weight(logps - self._reference, self._desirable, self._z0.value, self._weight)
        measured = {"logp": logps, "ref_logp": self._reference, "loss": torch.cat(self._losses), "gradient_weight": pull}
        arrays = {name: tensor.cpu().numpy() for name, tensor in measured.items()}
        rows = self._batch.rows.tolist()
        return observed(self._rows, rows, part=part, epoch=epoch, step=step, z0=float(self._z0.value), **arrays)

    def summary(self) -> dict[str, Any]:
        rewards = self._objective.beta * (torch.cat(self._logps) - self._reference)
        return {
            "loss": float(torch.cat(self._losses).mean()),
            "z0": float(self._z0.value),
            "z0_unclamped": float(self._z0.unclamped),
            "z0_standard_error": float(self._z0.standard_error),
            "reward_desirable": _mean(rewards[self._desirable]),
            "reward_undesirable": _mean(rewards[~self._desirable]),
        }


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


class _dropout_of_adapters:  # noqa: N801 - reads as a context manager
    """Inside, the adapters' own dropout is on; the base model's dropout stays off always, as the reference has none."""

    def __init__(self, model: Any) -> None:
        self._modules = [module for name, module in model.named_modules() if "lora_dropout" in name]

    def __enter__(self) -> None:
        for module in self._modules:
            module.train()

    def __exit__(self, *_: object) -> None:
        for module in self._modules:
            module.eval()
