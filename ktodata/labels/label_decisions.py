"""What becomes of each row by what speaks against its label."""

import polars as pl

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.actions import DROP_FROM, RELABEL_FROM
from ktodata.labels.label_rows import LabelRows
from ktodata.stage import Action, decide, no_decisions
from ktodata.text.contradictions import near_contradictions

# what can speak against a label, strongest first, and when it does
AGAINST = {
    "trusted_disagrees": pl.col("trusted_label") != pl.col("label"),
    "contradicted": pl.col("contradicted"),
    "outvoted": pl.col("outvoted"),
    "near_contradiction": pl.col("near_twin").is_not_null(),
    "doubtful_label": pl.col("flagged"),
}
DECISION_EVIDENCE = (
    "label",
    "p_desirable",
    "label_quality",
    "p_wrong",
    "p_wrong_low",
    "trusted_label",
    "votes_up",
    "votes_down",
    "near_twin",
    "near_similarity",
)


def with_near_twins(table: pl.DataFrame, rows: LabelRows, similarity: float) -> pl.DataFrame:
    """Add near_twin and near_similarity for training rows with a near-equal completion of the other label."""
    compared = rows.trained & ~rows.bools("contradicted")
    twins = near_contradictions(rows.table, *rows.vectors, similarity=similarity, among=compared)
    return table.join(twins, on="row_id", how="left", maintain_order="left")


def evidence_against() -> pl.Expr:
    """The names of AGAINST that hold for a training row, strongest first; null when there is none."""
    names = [pl.when(pl.col("trained") & holds.fill_null(False)).then(pl.lit(kind)) for kind, holds in AGAINST.items()]
    kinds = pl.concat_list(names).list.drop_nulls()
    return pl.when(kinds.list.len() > 0).then(kinds)


def count_against(table: pl.DataFrame) -> dict[str, int]:
    """How many rows each kind speaks against. table : with evidence_against"""
    return {kind: int(table["evidence_against"].list.contains(kind).sum()) for kind in AGAINST}


def count_flags(table: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Flagged rows of each given label, and how many of them somebody judged, none of whom found the label right."""
    flagged = table.filter("flagged")
    of_class = {name: flagged.filter(pl.col("label") == given) for given, name in LABEL_NAMES.items()}
    return {name: {"rows": rows.height, "judged": rows["trusted_label"].count()} for name, rows in of_class.items()}


def label_decisions(table: pl.DataFrame, action: str, use_trusted: str) -> pl.DataFrame:
    """`review` for all evidence against a label, but for what `action` and `use_trusted` (label_noise's) say otherwise."""
    if action == "keep":
        return no_decisions()
    by_p_wrong = action in ("soften", "relabel", "drop_and_relabel")
    acts = pl.col("soft_label").is_between(0, 1, closed="none") if action == "soften" else pl.col("p_wrong").is_not_null()
    measured = acts | pl.col("trusted_label").is_not_null()
    # what a person has judged need not wait for one, unless verdicts are to do nothing but measure
    unjudged = pl.col("trusted_label").is_null() if by_p_wrong or use_trusted == "relabel" else pl.lit(value=True)
    # nor need what soft labels, relabel or drop_and_relabel see to
    unsettled = unjudged & ~measured if by_p_wrong else unjudged
    on_trusted: Action = "relabel" if by_p_wrong or use_trusted == "relabel" else "review"
    rules: list[tuple[pl.Expr, Action, str]] = [
        (_speaks_against("trusted_disagrees"), on_trusted, "trusted_disagrees"),
        (_speaks_against("contradicted") & unjudged, "review", "contradicted"),
        (_speaks_against("outvoted") & unsettled, "review", "outvoted"),
        # listed: the little that they differ in may be what was judged
        (_speaks_against("near_contradiction"), "keep", "near_contradiction"),
    ]
    if action in ("review", "drop"):
        # what no review has measured is an order: it may ask for a person, and drops nothing
        drops = pl.lit(action == "drop") & pl.col("p_wrong").is_not_null()
        doubtful = _speaks_against("doubtful_label") & unjudged
        rules += [(doubtful & drops, "drop", "doubtful_label"), (doubtful & ~drops, "review", "doubtful_label")]
    low = pl.col("p_wrong_low")
    if action == "relabel":
        rules.append((low >= RELABEL_FROM, "relabel", "likelier_label"))
    if action == "drop_and_relabel":
        rules.append(((low > DROP_FROM) & (low < RELABEL_FROM), "drop", "likely_wrong"))
        rules.append((low >= RELABEL_FROM, "relabel", "surely_wrong"))
    return pl.concat([no_decisions(), *(_decide_rule(table, *rule) for rule in rules)])


def waiting_rows(table: pl.DataFrame, decisions: pl.DataFrame) -> pl.Series:
    """Row ids of rows that these decisions leave to a person, and that nobody has judged. table : row_id, trusted_label"""
    held = decisions.filter(pl.col("action") == "review")["row_id"]
    return table.filter(pl.col("row_id").is_in(held.implode()), pl.col("trusted_label").is_null())["row_id"]


def _decide_rule(table: pl.DataFrame, where: pl.Expr, action: Action, reason: str) -> pl.DataFrame:
    caused_by = "near_twin" if reason == "near_contradiction" else None
    return decide(table, where.fill_null(False), action=action, reason=reason, evidence=DECISION_EVIDENCE, caused_by=caused_by)


def _speaks_against(kind: str) -> pl.Expr:
    return pl.col("evidence_against").list.contains(kind)
