"""From decisions to outcomes: what each row's state is, the ledger that explains it, and the sum that must come out even."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from ktodata.errors import RunError
from ktodata.feedback import HELD_OUT, LABEL_NAMES, check_row_ids
from ktodata.stage import DECISION_SCHEMA, KEPT, STRENGTH, StageResult, no_decisions, strength, strongest_decisions

OUT = ("drop", "quarantine")
NOT_APPLIED = "verdict_not_applied"  # a row that is exported though a person said otherwise of it
AWAY = {"drop": "dropped", "quarantine": "quarantined", "review": "held for review"}
LEDGER_SCHEMA = pl.Schema(
    {"row_id": pl.String(), "stage": pl.String(), **{k: v for k, v in DECISION_SCHEMA.items() if k != "row_id"}}
)


@dataclass(frozen=True)
class StageDecisions:
    """The decisions of one step, and whether they hold for held-out rows too."""

    stage: str
    applies_to: Literal["all", "train"]
    decisions: pl.DataFrame


def outcomes(
    row_ids: pl.Series, decided: Sequence[StageDecisions], *, part: pl.DataFrame | None, split_follows: bool
) -> pl.DataFrame:
    """Each row's state so far: row_id, state (the strongest action that holds for it), reason, stage, gone.

    part : row_id, part; None when nothing was held out (yet). Decisions for the training part only leave held-out rows alone.
    split_follows : a later step will say which rows are held out, so a row dropped from training is not gone yet.
    """
    everywhere = [step for step in decided if step.applies_to == "all"]
    in_training = [step for step in decided if step.applies_to == "train"]
    final = _strongest(everywhere).with_columns(final=True)
    training = _strongest(in_training).with_columns(final=pl.lit(not split_follows))
    if part is not None:
        training = training.join(part.filter(pl.col("part").is_in(HELD_OUT)), on="row_id", how="anti")
    one_each = (
        pl.concat([final, training])
        .sort(strength(pl.col("action")), "final", descending=True, maintain_order=True)
        .unique("row_id", keep="first", maintain_order=True)
    )
    rows = row_ids.alias("row_id").to_frame().join(one_each, on="row_id", how="left", maintain_order="left")
    return rows.select(
        "row_id",
        state=pl.col("action").fill_null("keep"),
        reason=pl.col("reason"),
        stage=pl.col("stage"),
        gone=(pl.col("action").is_in(OUT) & pl.col("final")).fill_null(value=False),
    )


def _strongest(steps: Sequence[StageDecisions]) -> pl.DataFrame:
    """The strongest decision for each row over several steps, with the step's name."""
    named = [step.decisions.with_columns(stage=pl.lit(step.stage)) for step in steps]
    every = pl.concat([no_decisions().with_columns(stage=pl.lit(None, pl.String)), *named])
    return strongest_decisions(every).select("row_id", "action", "reason", "stage")


def write_up(
    decided: Sequence[StageDecisions], final: pl.DataFrame, exported: pl.DataFrame, contrary: pl.Series | None = None
) -> pl.DataFrame:
    """The ledger: every decision in the order it was taken; each row has one line of stage "export", with what became of it.

    Where export itself decided, that decision is the line. final : what `outcomes` gave after the last step. exported : row_id
    and part of the rows that went into shards. contrary : ids of rows whose trusted label is not the one they were read with;
    where nothing is done about that, or about a verdict that takes the row out, its line says so: NOT_APPLIED.
    """
    reviewed = [step.decisions["row_id"] for step in decided if step.stage == "reviews"]
    judged = pl.concat([*reviewed, pl.Series([], dtype=pl.String) if contrary is None else contrary])
    kept = pl.when(pl.col("row_id").is_in(judged.implode())).then(pl.lit(NOT_APPLIED)).otherwise(pl.lit("sound"))
    taken = [step.decisions.select("row_id", pl.lit(step.stage).alias("stage"), *list(DECISION_SCHEMA)[1:]) for step in decided]
    others = final.filter(pl.col("stage").ne_missing("export"))
    last = others.join(exported.select("row_id", "part"), on="row_id", how="left", maintain_order="left").select(
        "row_id",
        stage=pl.lit("export"),
        action="state",
        reason=pl.coalesce("reason", kept),
        evidence=pl.struct("part", decided_by="stage").struct.json_encode(),
        caused_by=pl.lit(None, pl.String),
    )
    return pl.concat([pl.DataFrame(schema=LEDGER_SCHEMA), *taken, last])


def account(ledger: pl.DataFrame, row_ids: pl.Series, exported: pl.DataFrame, *, quarantined_records: int) -> dict[str, int]:
    """Count, from the ledger, what became of everything that was read. Raises RunError unless it adds up.

    rows_in (rows, and the records that could not become any) = kept + dropped + quarantined + review; each row that was read has
    one outcome, and kept rows are exactly the exported ones. row_ids : of the rows that were read
    """
    final = ledger.filter(pl.col("stage") == "export")
    states = dict(final.group_by("action").len().iter_rows())
    n_kept = sum(states.get(state, 0) for state in KEPT)
    counts = {
        "rows_in": row_ids.len() + quarantined_records,
        "quarantined": quarantined_records + states.get("quarantine", 0),
        "rows": row_ids.len(),
        "kept": n_kept,
        "relabelled": states.get("relabel", 0),
        "dropped": states.get("drop", 0),
        "review": states.get("review", 0),
    }
    counts |= dict(sorted(exported.group_by("part").len().iter_rows()))
    total = counts["kept"] + counts["dropped"] + counts["quarantined"] + counts["review"]
    lost = set(final.filter(pl.col("action").is_in(KEPT))["row_id"]) ^ set(exported["row_id"])
    odd = set(final.filter(pl.col("row_id").is_duplicated())["row_id"]) | set(final["row_id"]) ^ set(row_ids)
    if total != counts["rows_in"] or lost or odd or exported.height != n_kept:
        raise RunError(
            f"the rows do not add up, a defect of ktodata: {counts}; exported wrongly or not at all: {sorted(lost)[:3]}; "
            f"with two outcomes or none: {sorted(odd)[:3]}."
        )
    return counts


def add_columns(feedback: pl.DataFrame, result: StageResult) -> pl.DataFrame:
    """`feedback` with the stage's columns joined on and the rows that it dropped left out, as a recipe would hand it on.

    For notebooks. The column `state` says what was decided about the rows that stay ("keep", "relabel", "review").
    Raises DataError where two rows have one row_id.
    """
    check_row_ids(feedback, who="add_columns")
    actions = strongest_decisions(result.decisions).select("row_id", "action")
    before = pl.col("state") if "state" in feedback.columns else pl.lit("keep")
    new = [name for name in result.columns.columns if name != "row_id"]
    joined = feedback.drop(new, strict=False).join(result.columns, on="row_id", how="left", maintain_order="left")
    ranks = [strength(action) for action in (before, pl.col("action").fill_null("keep"))]
    state = pl.max_horizontal(ranks).replace_strict(dict(enumerate(STRENGTH)), return_dtype=pl.String)
    return (
        joined.join(actions, on="row_id", how="left", maintain_order="left")
        .with_columns(state=state)
        .filter(~pl.col("state").is_in(OUT))
        .drop("action")
    )


def labels_in_words(
    row: Mapping[str, Any], verdict: Mapping[str, Any] | None, decisions: Sequence[Mapping[str, Any]]
) -> dict[str, str | None]:
    """A row's label as it was read and as it is exported (None: it is not), and why.

    verdict : what reviews say of the row itself; decisions : those about it, with their evidence
    """
    read, final = bool(row["label"]), next((line for line in decisions if line["stage"] == "export"), None)
    if final is None or final["action"] in AWAY:
        why = "export has not run" if final is None else f"{AWAY[final['action']]}: {final['reason'].replace('_', ' ')}"
        return {"read": LABEL_NAMES[read], "exported": None, "why": why}
    turned = final["action"] == "relabel"
    who = f"{verdict['reviewer'] or 'somebody'} in {verdict['file']}" if verdict else "the trusted label"
    if turned:
        why = f"turned, as {who} says so" if final["reason"] == "trusted_disagrees" else _turned_by(final, decisions)
    else:
        unheard = row.get("trusted_label") not in (None, read)
        held_out = (final.get("evidence") or {}).get("part") in HELD_OUT
        not_applied = "which changes no held-out row" if held_out else "which no step lets count"
        why = "as it was read" + (f", though {who} says otherwise, {not_applied}" if unheard else "")
    return {"read": LABEL_NAMES[read], "exported": LABEL_NAMES[read ^ turned], "why": why}


def _turned_by(final: Mapping[str, Any], decisions: Sequence[Mapping[str, Any]]) -> str:
    """Which stage turned a label that nobody judged, and how likely it is wrong, by what reviewed rows show."""
    evidence = next(line["evidence"] for line in decisions if line["reason"] == final["reason"])
    chances = [(word, evidence.get(name)) for word, name in (("wrong with P", "p_wrong"), ("at least", "p_wrong_low"))]
    measured = ", ".join(f"{word} {chance:.2f}" for word, chance in chances if chance is not None)
    return f"turned by {final['evidence']['decided_by']}{measured and f': {measured}, by reviewed rows'}"
