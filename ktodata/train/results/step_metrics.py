"""What one effective batch gave: kept on the device while training goes on, read when it is asked for."""

import math
import time
from typing import Any

import numpy as np
import polars as pl
import torch

from ktodata.errors import ModelError
from ktodata.stats import auroc
from ktodata.train.data.batches import Batch
from ktodata.train.data.training_rows import named
from ktodata.train.job import Job
from ktodata.train.model.scorer import Scorer
from ktodata.train.objectives import Examples, ReferencePoint
from ktodata.train.reference import ReferenceLogps
from ktodata.train.results.telemetry import observed

Tensor = Any


class StepMetrics:
    """One effective batch of B rows: what the losses need of it, and log-probs and losses as they come in."""

    def __init__(self, scorer: Scorer, reference: ReferenceLogps, batch: Batch) -> None:
        rows, device = scorer.rows, scorer.device
        self.batch = batch
        self.examples = Examples(
            desirable=torch.from_numpy(rows.label[batch.rows]).to(device),
            p_desirable=torch.from_numpy(rows.p_desirable[batch.rows]).float().to(device),
            weight=torch.from_numpy(rows.weight[batch.rows]).float().to(device),
            reference_logps=reference(batch.matched()),
        )
        self.logps = torch.zeros(len(batch.rows), device=device)
        self.losses = torch.zeros(len(batch.rows), device=device)
        self.tokens = sum(map(scorer.length, batch.matched()))

    def note(self, places: list[int], logps: Tensor, losses: Tensor) -> None:
        """Log-probs and losses of the rows at these places."""
        self.logps[places] = logps.detach()
        self.losses[places] = losses.detach()

    def finish(
        self, part: str, step: int, point: ReferencePoint, grad_norm: Tensor | None = None, learning_rate: float | None = None
    ) -> None:
        """The step is over: under which reference point, and what became of its gradient."""
        self.part, self.step, self.point = part, step, point
        self.grad_norm, self.learning_rate = grad_norm, learning_rate

    @property
    def log_ratios(self) -> Tensor:
        """Float [B], nats."""
        return self.logps - self.examples.reference_logps


def read(unread: list[StepMetrics], job: Job) -> None:
    """Take the numbers of finished steps off the device: past the check for NaN, into history and telemetry, to the report."""
    if not unread:
        return
    for seen in unread:  # each process has noted its own rows
        seen.logps, seen.losses = job.world.sum(torch.stack([seen.logps, seen.losses]))
    for seen in unread:
        _check_finite(seen, job)
        line = _line(seen, job)
        if job.objective.point == "running_mean":
            job.state.running.update(job.objective.beta * seen.log_ratios)
        job.state.history.append(line)
        job.state.telemetry.append(_telemetry(seen, job, seen.batch.epoch))
    now = time.perf_counter()
    seconds = now - job.state.read_at if job.state.read_at is not None else None
    job.state.read_at = now
    for seen, line in zip(unread, job.state.history[-len(unread) :], strict=True):
        pace = {} if seconds is None else {"tokens_per_second": round(sum(one.tokens for one in unread) / seconds, 1)}
        job.report({**line, **pace, "step": seen.step + 1, "steps": len(job.plan.steps)})
    unread.clear()


def read_held_out(looks: list[StepMetrics], job: Job) -> None:
    """Take an evaluation's numbers off the device, into the state."""
    epoch = job.state.history[-1]["epoch"] if job.state.history else 0
    tables = [_telemetry(seen, job, epoch) for seen in looks]
    job.state.telemetry.extend(tables)
    table = pl.concat(tables)
    rewards = job.objective.beta * table["log_ratio"].to_numpy().astype(np.float64)
    loss = float(table["loss"].to_numpy().mean(dtype=np.float64))
    gap = reward_gap(rewards, table["label"].to_numpy())
    job.state.held_out.append({"step": job.state.step, "rows": table.height, "loss": loss} | gap)


def reward_gap(rewards: Any, desirable: Any) -> dict[str, Any]:
    """Mean reward of desirable minus undesirable rows (beta x nats; higher is better) and AUC, each with its 95 % interval."""
    for_, against = rewards[desirable], rewards[~desirable]
    if min(len(for_), len(against)) < 2:
        reason = f"{len(for_)} desirable and {len(against)} undesirable held-out rows: both need two"
        return {"reward_gap": None, "auc": None, "not_applicable": reason}
    gap = float(for_.mean() - against.mean())
    reach = 1.96 * float(np.sqrt(for_.var(ddof=1) / len(for_) + against.var(ddof=1) / len(against)))
    return {"reward_gap": {"value": gap, "low": gap - reach, "high": gap + reach}, "auc": auroc(against, for_).as_dict()}


def _check_finite(seen: StepMetrics, job: Job) -> None:
    bad = ~(seen.losses.isfinite() & seen.logps.isfinite()).cpu().numpy()
    if bad.any():
        row_ids = pl.Series([job.scorer.rows.row_id[row] for row in seen.batch.rows[bad]])
        raise ModelError(
            f"step {seen.step}: the loss is not finite for {bad.sum()} of {len(bad)} rows (row_id {named(row_ids)}). "
            "Look at those rows, lower learning_rate, or train in float32."
        )
    if seen.grad_norm is not None and not bool(torch.isfinite(seen.grad_norm)):
        row_ids = pl.Series([job.scorer.rows.row_id[row] for row in seen.batch.rows])
        raise ModelError(
            f"step {seen.step}: the gradient is not finite (row_id {named(row_ids)}), although the losses are. "
            "Look at those rows, lower learning_rate, or train in float32."
        )


def _line(seen: StepMetrics, job: Job) -> dict[str, Any]:
    rewards, desirable = job.objective.beta * seen.log_ratios, seen.examples.desirable
    return {
        "step": seen.step,
        "epoch": seen.batch.epoch,
        "rows": len(seen.batch.rows),
        "tokens": seen.tokens,
        "loss": float(seen.losses.mean()),
        "z0": float(seen.point.value),
        "z0_unclamped": float(seen.point.unclamped),
        "z0_standard_error": _finite(float(seen.point.standard_error)),  # none where nothing was estimated
        "reward_desirable": _mean(rewards[desirable]),
        "reward_undesirable": _mean(rewards[~desirable]),
        "grad_norm": None if seen.grad_norm is None else float(seen.grad_norm),
        "learning_rate": seen.learning_rate,
    }


def _telemetry(seen: StepMetrics, job: Job, epoch: int) -> pl.DataFrame:
    pull = job.objective.gradient_weight(seen.logps, seen.examples, seen.point.value).abs()
    measured = {"logp": seen.logps, "ref_logp": seen.examples.reference_logps, "loss": seen.losses, "gradient_weight": pull}
    arrays = {name: tensor.cpu().numpy() for name, tensor in measured.items()}
    rows, z0 = seen.batch.rows.tolist(), float(seen.point.value)
    return observed(job.scorer.rows, rows, part=seen.part, epoch=epoch, step=seen.step, z0=z0, **arrays)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
