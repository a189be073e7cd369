"""What one effective batch gave: kept on the device while training goes on, read when it is needed."""

import math
import time
from typing import Any

import numpy as np
import polars as pl
import torch

from ktodata.errors import ModelError
from ktodata.stats import Interval, auroc
from ktodata.stats.bootstrap import bootstrap, weighted_auc, weighted_gap
from ktodata.train.data.batches import Batch
from ktodata.train.data.training_rows import named
from ktodata.train.job import Job
from ktodata.train.model.scorer import Scorer
from ktodata.train.objectives import Examples, ReferencePoint
from ktodata.train.reference import ReferenceLogps
from ktodata.train.results.telemetry import observed

Tensor = Any

RESAMPLES = 1000
# prompts that each label's rows must be of: of fewer, resampled intervals exclude what is true in 8 to 26 of 100 samples
PROMPTS_NEEDED = 10


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
            prompt=torch.from_numpy(scorer.sequences.prompt_of[batch.rows]).to(device),
        )
        self.logps = torch.zeros(len(batch.rows), device=device)
        self.losses = torch.zeros(len(batch.rows), device=device)
        self.tokens = sum(map(scorer.length, batch.matched()))
        self.router_loss: Tensor | None = None  # of a mixture of experts, without its coefficient

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
    for metrics in unread:  # each process has noted its own rows
        metrics.logps, metrics.losses = job.distributed.sum(torch.stack([metrics.logps, metrics.losses]))
    for metrics in unread:
        _check_finite(metrics, job)
        line = _history_line(metrics, job)
        if job.objective.point == "running_mean":
            job.state.running.update(job.objective.beta * metrics.log_ratios)
        job.state.history.append(line)
        job.state.telemetry.append(_row_telemetry(metrics, job, metrics.batch.epoch))
    now = time.perf_counter()
    seconds = now - job.state.read_at if job.state.read_at is not None else None
    job.state.read_at = now
    for metrics, line in zip(unread, job.state.history[-len(unread) :], strict=True):
        pace = {} if seconds is None else {"tokens_per_second": round(sum(metrics.tokens for metrics in unread) / seconds, 1)}
        job.report({**line, **pace, "step": metrics.step + 1, "steps": len(job.plan.steps)})
    unread.clear()


def read_held_out(evaluations: list[StepMetrics], job: Job) -> None:
    """Take an evaluation's numbers off the device, into the state."""
    epoch = job.state.history[-1]["epoch"] if job.state.history else 0
    tables = [_row_telemetry(metrics, job, epoch) for metrics in evaluations]
    job.state.telemetry.extend(tables)
    table = pl.concat(tables)
    rewards = job.objective.beta * table["log_ratio"].to_numpy().astype(np.float64)
    loss = float(table["loss"].to_numpy().mean(dtype=np.float64))
    groups = job.scorer.rows.group_numbers[np.concatenate([metrics.batch.rows for metrics in evaluations])]
    gap = reward_gap(rewards, table["label"].to_numpy(), groups)
    job.state.held_out.append({"step": job.state.step, "rows": table.height, "loss": loss} | gap)


def reward_gap(rewards: Any, desirable: Any, groups: Any) -> dict[str, Any]:
    """Mean reward of desirable minus undesirable rows (beta x nats; higher is better) and AUC, each with its 95 % interval.

    groups : equal for rows of one prompt group, which are resampled together, as they are not independent
    """
    counts = int(desirable.sum()), int((~desirable).sum())
    if min(counts) < 2:
        reason = f"{counts[0]} desirable and {counts[1]} undesirable held-out rows: both need two"
        return {"reward_gap": None, "auc": None, "not_applicable": reason}
    statistics = {"reward_gap": weighted_gap(rewards, desirable), "auc": weighted_auc(rewards, desirable)}
    prompts = [len(np.unique(groups[side])) for side in (desirable, ~desirable)]
    if min(prompts) < PROMPTS_NEEDED:
        whole = np.ones((1, len(rewards)))
        values = {name: Interval(float(statistic(whole)[0]), None, None) for name, statistic in statistics.items()}
        few = f"desirable rows are of {prompts[0]} prompts, undesirable ones of {prompts[1]}, and it takes {PROMPTS_NEEDED} each"
        return {name: value.as_dict() for name, value in values.items()} | {"interval_not_known": few}
    intervals = bootstrap(statistics, groups, resamples=RESAMPLES, seed=0)
    if intervals["auc"].is_counted:  # no resample shows how far the next prompt may be off
        means = [_means_of_groups(rewards[side], groups[side]) for side in (~desirable, desirable)]
        intervals["auc"] = auroc(*means)._replace(value=intervals["auc"].value)
    return {name: interval.as_dict() for name, interval in intervals.items()}


def _means_of_groups(values: Any, groups: Any) -> Any:
    number = np.unique(groups, return_inverse=True)[1]
    return np.bincount(number, values) / np.bincount(number)


def _check_finite(metrics: StepMetrics, job: Job) -> None:
    bad = ~(metrics.losses.isfinite() & metrics.logps.isfinite()).cpu().numpy()
    if bad.any():
        row_ids = pl.Series([job.scorer.rows.row_id[row] for row in metrics.batch.rows[bad]])
        raise ModelError(
            f"step {metrics.step}: the loss is not finite for {bad.sum()} of {len(bad)} rows (row_id {named(row_ids)}). "
            "Look at those rows, lower learning_rate, or train in float32."
        )
    if metrics.grad_norm is not None and not bool(torch.isfinite(metrics.grad_norm)):
        row_ids = pl.Series([job.scorer.rows.row_id[row] for row in metrics.batch.rows])
        raise ModelError(
            f"step {metrics.step}: the gradient is not finite (row_id {named(row_ids)}), although the losses are. "
            "Look at those rows, lower learning_rate, or train in float32."
        )


def _history_line(metrics: StepMetrics, job: Job) -> dict[str, Any]:
    rewards, desirable = job.objective.beta * metrics.log_ratios, metrics.examples.desirable
    routers = {} if metrics.router_loss is None else {"router_loss": float(metrics.router_loss)}
    return {
        "step": metrics.step,
        "epoch": metrics.batch.epoch,
        "rows": len(metrics.batch.rows),
        "tokens": metrics.tokens,
        "loss": float(metrics.losses.mean()),
        "z0": float(metrics.point.value),
        "z0_unclamped": float(metrics.point.unclamped),
        "z0_standard_error": _finite_or_none(float(metrics.point.standard_error)),  # none where nothing was estimated
        "reward_desirable": _mean_or_none(rewards[desirable]),
        "reward_undesirable": _mean_or_none(rewards[~desirable]),
        "grad_norm": None if metrics.grad_norm is None else float(metrics.grad_norm),
        "learning_rate": metrics.learning_rate,
        **routers,
    }


def _row_telemetry(metrics: StepMetrics, job: Job, epoch: int) -> pl.DataFrame:
    pull = job.objective.gradient_weight(metrics.logps, metrics.examples, metrics.point.value).abs()
    measured = {
        "logp": metrics.logps,
        "ref_logp": metrics.examples.reference_logps,
        "loss": metrics.losses,
        "gradient_weight": pull,
    }
    arrays = {name: tensor.cpu().numpy() for name, tensor in measured.items()}
    rows, z0 = metrics.batch.rows.tolist(), float(metrics.point.value)
    return observed(job.scorer.rows, rows, part=metrics.part, epoch=epoch, step=metrics.step, z0=z0, **arrays)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean_or_none(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
