"""How many rows of each label there are before and after, and the weights that KTO should be given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections.flow_section import PARTS
from ktodata.report.shares import Share
from ktodata.report.text import number, percent


@dataclass(frozen=True)
class BalanceSection:
    """Shares of desirable rows, in the order of the flow, and the weights of KTO's loss (None without rebalance)."""

    shares: dict[str, Share]
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
        pick(facts, "lambda_D"),
        pick(facts, "lambda_U"),
        pick(facts, "weighted_ratio"),
        pick(facts, "trainer_settings", default={}),
        facts,
    )
