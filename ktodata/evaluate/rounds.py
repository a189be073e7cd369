"""Rounds of training side by side: is one better on held-out rows than the best before it, and does any help at all?

Each round is scored by P(a desirable held-out row has the higher reward than an undesirable one), and compared with others on the
same resamples of prompt groups: paired. The loop goes by the value, as a gain may add up over rounds; that a round *helped* is
said only where its difference to round 0 has an interval without zero. The highest of several rounds is a little flattered by
being chosen: each round is one more chance to be lucky.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from ktodata.errors import DataError, OneClassError
from ktodata.feedback import check_columns
from ktodata.stats import Interval
from ktodata.stats.bootstrap import Statistic, bootstrap, difference, weighted_auc

MIN_OF_A_KIND = 5  # reviewed rows of either verdict, from which reviews and not labels are what is judged by


@dataclass(frozen=True)
class Ruler:
    """What rounds are judged by. rows : row_id, truth (bool), group; by : where the truth is from."""

    rows: pl.DataFrame
    by: Literal["reviewed labels", "labels as given"]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "judged_by": self.by,
            "rows": self.rows.height,
            "desirable": int(self.rows["truth"].sum()),
            "prompt_groups": self.rows["group"].n_unique(),
        }


def ruler(held_out: pl.DataFrame) -> Ruler:
    """The held-out rows that were reviewed, if MIN_OF_A_KIND of either verdict were; else all, by their labels as given.

    held_out : row_id, label, trusted_label, prompt_group
    Raises OneClassError where those rows are all of one label: nothing can be ranked then.
    """
    check_columns(held_out, ("row_id", "label", "trusted_label", "prompt_group"), who="ruler")
    reviewed = held_out.filter(pl.col("trusted_label").is_not_null())
    good = int(reviewed["trusted_label"].sum())
    if min(good, reviewed.height - good) >= MIN_OF_A_KIND:
        return Ruler(reviewed.select("row_id", truth="trusted_label", group="prompt_group"), "reviewed labels")
    if held_out["label"].n_unique() < 2:
        raise OneClassError(
            f"self_training: the {held_out.height:,} validation rows are all of one label, so no round can be judged by them. "
            "Hold out more: split: {validation: 0.2}."
        )
    return Ruler(held_out.select("row_id", truth="label", group="prompt_group"), "labels as given")


def compare_rounds(rewards: Sequence[pl.DataFrame], by: Ruler, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """One line for each round: auc in [0, 1], higher is better; and, from round 1 on, its differences, each with a 95 % interval.

    rewards : of each round, row_id and reward; a round has at least the rows that round 0 has
    minus_best : to the best round before it, which is `best_before`, the earliest of equals; minus_round_0 : to the labels that
    no telemetry has changed. includes_zero : whether the interval does.
    Raises DataError where a round lacks a row, OneClassError where the rows that were scored are all of one label.
    """
    rows = by.rows.join(rewards[0], on="row_id", how="semi", maintain_order="left")
    if rows["truth"].n_unique() < 2:
        raise OneClassError(f"self_training: the {rows.height:,} validation rows that the model scored are all of one label.")
    aucs = [weighted_auc(_rewards_in_order(rows, table, number), rows["truth"]) for number, table in enumerate(rewards)]
    lines: list[dict[str, Any]] = []
    for auc in aucs:
        statistics: dict[str, Statistic] = {"auc": auc}
        best = best_round(lines) if lines else None
        if best is not None:
            statistics |= {"minus_best": difference(auc, aucs[best]), "minus_round_0": difference(auc, aucs[0])}
        intervals = bootstrap(statistics, rows["group"], resamples=resamples, seed=seed)
        lines.append(
            {
                "auc": intervals["auc"].as_dict(),
                "best_before": best,
                **{name: _difference_or_none(intervals.get(name)) for name in ("minus_best", "minus_round_0")},
            }
        )
    return lines


def best_round(lines: Sequence[dict[str, Any]]) -> int:
    """The round with the highest AUC, the earliest of equals."""
    return max(range(len(lines)), key=lambda number: (lines[number]["auc"]["value"], -number))


def waited(lines: Sequence[dict[str, Any]]) -> int:
    """Rounds since the best one."""
    return len(lines) - 1 - best_round(lines)


def standing_round(lines: Sequence[dict[str, Any]]) -> int:
    """The best round, if its difference to round 0 has an interval above zero; else round 0."""
    best = best_round(lines)
    return best if best and not lines[best]["minus_round_0"]["includes_zero"] else 0


def _rewards_in_order(rows: pl.DataFrame, rewards: pl.DataFrame, number: int) -> pl.Series:
    joined = rows.select("row_id").join(rewards, on="row_id", how="left", maintain_order="left")["reward"]
    if missing := joined.null_count():
        raise DataError(f"self_training: round {number} lacks the rewards of {missing:,} of {rows.height:,} validation rows.")
    return joined


def _difference_or_none(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else {**interval.as_dict(), "includes_zero": interval.includes_zero is not False}
