"""Implicit rewards of rows: how much likelier training made each completion."""

from collections.abc import Callable
from typing import Any

import polars as pl
import torch

from ktodata.train.data.tokens import TokenRows
from ktodata.train.model.scorer import Scorer


def completion_logps(
    model: Any, rows: TokenRows, *, device: Any, compute_dtype: Any, passed: Callable[[list[int]], None] = lambda part: None
) -> Any:
    """Log p(completion | prompt) of every row under `model`: float64 [N], nats. passed : called with the rows of each pass."""
    scorer = Scorer(model.to(device).eval(), rows, device=device, compute_dtype=compute_dtype)
    logps = scorer.without_gradient([(row, row) for row in range(len(rows))], passed=passed)
    return logps.to(torch.float64).cpu().numpy()


def reward_table(rows: TokenRows, policy_logps: Any, reference_logps: Any, *, beta: float) -> pl.DataFrame:
    """One line per row.

    reward : beta x (policy_logp - reference_logp); higher means that training made the completion likelier.
    base_score, policy_score : reference_logp and policy_logp / completion tokens: what the untrained and the trained model
        themselves think of the completion. By token, as the sums would mostly measure length.
    """
    tokens = rows.completion.lengths
    return pl.DataFrame(
        {
            "row_id": rows.row_id,
            "label": rows.label,
            "group": rows.group,
            "completion_tokens": tokens,
            "policy_logp": policy_logps,
            "reference_logp": reference_logps,
            "reward": beta * (policy_logps - reference_logps),
            "base_score": reference_logps / tokens,
            "policy_score": policy_logps / tokens,
        }
    )
