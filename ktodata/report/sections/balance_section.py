"""How many rows of each label there are before and after, and the weights that KTO should be given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.feedback import PARTS
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.shares import Share
from ktodata.report.text import number, percent


@dataclass(frozen=True)
class BalanceSection:
    """Shares of desirable rows, in the order of the flow, and the weights of KTO's loss (None without rebalance).

    usable : of the rows that could be trained on: repeats and rows that other steps take out are not among them
    """

    shares: dict[str, Share]
    usable: Share
    desirable_weight: float | None
    undesirable_weight: float | None
    ratio: float | None
    trainer_settings: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, Any]

    @property
    def answer(self) -> str:
        """The share of desirable rows, and the weights that make up for it."""
        part = "train" if "train" in self.shares else "as given"
        rows = "of the training rows" if part == "train" else "of the rows as given"
        text = f"{percent(self.shares[part].value)} {rows} are desirable"
        if self.desirable_weight is None or self.undesirable_weight is None:
            return f"{text}; {'they carry no weights' if self.facts else 'the recipe has no rebalance, so every row weighs 1'}."
        weights = f"{number(self.desirable_weight, 2)} and each undesirable one {number(self.undesirable_weight, 2)}"
        return f"{text}; KTO should weigh each desirable row {weights}."


def read_balance(run: RunFiles) -> BalanceSection | None:
    """Counts by label as given and for each exported part; None before ingest has written its rows."""
    labels = run.columns("ingest", "label")
    if labels is None:
        return None
    facts, exported = run.metrics("rebalance"), run.metrics("export")
    shares = {"as given": Share(int(labels["label"].sum()), labels.height)}
    for part in PARTS:
        if rows := pick(exported, f"rows.{part}"):
            shares[part] = Share(int(pick(exported, f"desirable.{part}", default=0)), int(rows))
    return BalanceSection(
        shares,
        _usable(run, labels),
        pick(facts, "lambda_D"),
        pick(facts, "lambda_U"),
        pick(facts, "weighted_ratio"),
        pick(facts, "trainer_settings", default={}),
        facts,
    )


def _usable(run: RunFiles, labels: pl.DataFrame) -> Share:
    """Of the rows to train on, each with the label that it is trained on with. What rebalance takes out is there to be used."""
    fates = run.fates
    out = fates.filter(pl.col("action") != "relabel", pl.col("stage") != "rebalance")["row_id"]
    turned = fates.filter(pl.col("action") == "relabel")["row_id"]
    rows = labels.filter(~pl.col("row_id").is_in(out.implode()))
    parts = run.columns("split", "part")
    if parts is not None and "part" in parts.columns:
        rows = rows.join(parts.filter(pl.col("part") == "train"), on="row_id", how="semi")
    desirable = rows.select((pl.col("label") ^ pl.col("row_id").is_in(turned.implode())).sum()).item()
    return Share(int(desirable), rows.height)
