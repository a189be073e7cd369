"""What is trained on, in which order and shard; and the table as it is written, which TRL's KTOTrainer reads as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ktodata.errors import DataError, EmptyDataError
from ktodata.feedback import PARTS, TEMPLATE_FIELDS, check_columns, one_turn
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.models import load_tokenizer
from ktodata.stage import KEPT, Seed, StageResult, decide, no_decisions, trained_label
from ktodata.stages.row_order import OrderCheck, check_order, plan_order
from ktodata.text.pii.masks import counted_once, masked
from ktodata.text.rendered_form import rendered_form
from ktodata.text.words import normalised

NEEDS = ("prompt", "completion", "label", "turns", "answer", *TEMPLATE_FIELDS, "state")
USES = ("part", "weight", "prompt_group", "label_quality", "trusted_label", "soft_label", "pii_masks", "duplicate_of")
ADDS = ("part", "shard", "position")

Conversational = Literal["auto", "always", "never"]

# written when they are there, after row_id, prompt, completion, label and weight
KEPT_COLUMNS = ("prompt_group", "p_desirable", "label_quality", "cluster", "source", "source_id", "rater", "model")
# columns that TRL gives a meaning of its own: metadata of that name is written as meta_<name>
TRL_COLUMNS = ("messages", "chosen", "rejected", "tools", "images", "image", "chat_template_kwargs", "completions", "labels")


def export(
    feedback: pl.DataFrame,
    *,
    block: Annotated[
        int, Field(ge=2, description="rows per batch on one device; the order is planned for blocks of this size")
    ] = 16,
    shard_rows: Annotated[int, Field(ge=1, description="rows per file")] = 50_000,
    conversational: Annotated[
        Conversational,
        Field(description="write lists of messages; auto: if any row has turns, or the model a chat template"),
    ] = "auto",
    tokenizer: Annotated[
        str | None, Field(description="the model that will be trained; in a recipe that of train:, unless given")
    ] = None,
    lone_row: Annotated[
        Literal["leave_out", "keep"],
        Field(
            description="when one row would stand alone in the last block: leave out the least trustworthy of the larger class"
        ),
    ] = "leave_out",
    format: Annotated[Literal["trl"], Field(description="format of the shards; other formats: ktodata export")] = "trl",
    license: Annotated[str | None, Field(description="licence of the data, for the dataset card, e.g. cc-by-4.0")] = None,
    seed: Seed = 0,
) -> StageResult:
    """Give each exported row its part, shard and position. Training rows are ordered for KTO (see stages/row_order.py).

    Exported are rows in state keep or relabel; without a column `part` all are for training. Held-out rows keep the order of
    `feedback`. TRL pairs rows inside blocks of `block` counted from the start, so with n mod block = 1 no order can help the last
    row (its mismatched completion is its own): one row is left out, by a decision in the ledger, unless lone_row is "keep".
    """
    rows = _exportable_rows(feedback)
    if rows.is_empty():
        raise EmptyDataError(
            f"export: none of {feedback.height:,} rows is left to export (states: {_rows_per_value(feedback, 'state')}). "
            "See the ledger for what dropped or holds them."
        )
    left_out = _lone_row(rows, block, seed) if lone_row == "leave_out" else rows.clear()
    rows = rows.join(left_out, on="row_id", how="anti", maintain_order="left")
    train = rows.filter(pl.col("part") == "train")
    order = plan_order(*_order_codes(train), block=block, seed=seed)
    check = check_order(order, *_order_codes(train), block=block)
    ordered = [train[order], *(rows.filter(pl.col("part") == part) for part in PARTS[1:])]
    placed = pl.concat([_assign_shards(part, shard_rows) for part in ordered])
    form = written_form(feedback, conversational, tokenizer)
    metrics = _export_metrics(rows, check, block) | {
        "format": format,
        "license": license,
        "conversational": form.conversational,
        "shard_rows": shard_rows,
        "left_out": left_out["row_id"].to_list(),
        "masked": _masked_metrics(feedback, placed),
    }
    written = feedback.join(placed, on="row_id", how="semi")
    findings = (check_labels_in_blocks(check), check_partners(check), check_form(form, tokenizer), check_both_labels(written))
    metrics["findings"] = [finding.as_dict() for finding in findings]
    return StageResult(columns=placed, decisions=_leave_out(left_out, block), metrics=metrics)


def shard_table(
    feedback: pl.DataFrame, columns: pl.DataFrame, *, conversational: Conversational = "auto", metadata: Sequence[str] = ()
) -> pl.DataFrame:
    """The rows as they are written: part, shard and position, then what a trainer and a reader need, in the order of the files.

    feedback : the table that `export` was given, with all columns. columns : what `export` returned.
    metadata : further columns of `feedback` to write. A name that TRL gives a meaning of its own becomes meta_<name>.
    Prompt and completion are text, or both lists of {role, content} when conversational. The label of a row in state "relabel" is
    turned round. p_desirable is the soft_label of label_noise, where there is one. What pii_masks names is replaced, and so are
    personal data in the other columns, when masking was asked for.
    """
    check_columns(feedback, ["row_id", *NEEDS, *metadata], who="shard_table")
    described = [name for name in (*KEPT_COLUMNS, *metadata) if name in feedback.columns and name != "prompt_group"]
    feedback = masked(feedback, described)
    chat = is_conversational(feedback, conversational)
    weight = pl.col("weight") if "weight" in feedback.columns else pl.lit(1.0)
    if "soft_label" in feedback.columns:  # what a trainer should weigh by; the models' own opinion is not that
        feedback = feedback.with_columns(p_desirable="soft_label")
    kept = [name for name in KEPT_COLUMNS if name in feedback.columns]
    extra = {_free_name(name, kept): pl.col(name) for name in metadata if name not in kept}
    placed = columns.select("row_id", "part", "shard", "position").join(
        feedback.drop("part", "shard", "position", strict=False), on="row_id", how="left", maintain_order="left"
    )
    given = {name: pl.col(name) for name in TEMPLATE_FIELDS if chat and placed[name].null_count() < placed.height}
    if "chat_template_kwargs" in given:  # a trainer unpacks it for every row
        given["chat_template_kwargs"] = pl.col("chat_template_kwargs").fill_null("{}")
    table = placed.select(
        "part",
        "shard",
        "position",
        "row_id",
        prompt=_prompt_turns() if chat else pl.col("prompt"),
        completion=_answer_turn() if chat else pl.col("completion"),
        label=trained_label(),
        weight=weight.cast(pl.Float64).fill_null(1.0),
        **given,
        **{name: pl.col(name) for name in kept},
        **extra,
    )
    return table.with_columns(_used_fields(table, ("prompt", "completion"))) if chat else table


@dataclass(frozen=True)
class WrittenForm:
    """How rows are written, and why. has_template : None where no model is named; unasked : nor does a setting or row say how"""

    conversational: bool
    why: str
    has_template: bool | None
    unasked: bool = False


def written_form(feedback: pl.DataFrame, conversational: Conversational, tokenizer: str | None) -> WrittenForm:
    """Messages where that is asked for, where a row is more than a prompt, or where the model to be trained has a chat template.

    Raises DataError as `is_conversational` does, ModelError for a tokenizer that cannot be read.
    """
    has_template = None if tokenizer is None else bool(load_tokenizer(tokenizer).chat_template)
    if conversational != "auto":
        return WrittenForm(is_conversational(feedback, conversational), f"conversational is {conversational}", has_template)
    if is_conversational(feedback, conversational):
        return WrittenForm(conversational=True, why="some rows are conversations", has_template=has_template)
    why = {
        None: "no row is a conversation, and no model is named",
        False: f"{tokenizer} has no chat template",
        True: f"{tokenizer} has a chat template",
    }
    return WrittenForm(bool(has_template), why[has_template], has_template, unasked=has_template is None)


def check_form(form: WrittenForm, tokenizer: str | None) -> Finding:
    """KD092: the rows are written in a form that the model was not made for; where none is named, in which form."""
    written = "messages" if form.conversational else "plain text"
    if form.conversational and form.has_template is False:
        return issue(
            "KD092", f"rows are written as messages ({form.why}), and {tokenizer} has no chat template to train on them."
        )
    if form.has_template is None:
        advice = " A model with a chat template needs messages: name it (export: {tokenizer: MODEL})."
        return not_applicable("KD092", f"rows are written as {written}: {form.why}.{advice if form.unasked else ''}")
    return passed("KD092", f"rows are written as {written}: {form.why}.")


def is_conversational(feedback: pl.DataFrame, conversational: Conversational) -> bool:
    """Whether the shards hold lists of messages: as requested, or, by "auto", when any row is more than a prompt and an answer.

    Raises DataError for "never" where text cannot hold a row: its calls would be trained on as if the model wrote them as words,
    and the tools and settings of its template would be gone.
    """
    more = feedback.select(pl.any_horizontal(pl.col("answer", *TEMPLATE_FIELDS).is_not_null()).sum()).item()
    if conversational == "never" and more:
        what = "tool calls, reasoning, tools or settings of a chat template"
        raise DataError(f"export: conversational is never, and {more:,} rows hold {what}, which text cannot.")
    conversations = feedback.height - feedback["turns"].null_count()
    return conversational == "always" or (conversational == "auto" and conversations + more > 0)


def _exportable_rows(feedback: pl.DataFrame) -> pl.DataFrame:
    """row_id, part, label as trained on, and what the order depends on."""
    part = pl.col("part") if "part" in feedback.columns else pl.lit("train")
    group = pl.col("prompt_group") if "prompt_group" in feedback.columns else pl.lit(None, pl.String)
    quality = pl.col("label_quality") if "label_quality" in feedback.columns else pl.lit(None, pl.Float64)
    trusted = pl.col("trusted_label").is_not_null() if "trusted_label" in feedback.columns else pl.lit(value=False)
    rows = feedback.filter(pl.col("state").is_in(KEPT)).select(
        "row_id",
        "state",
        "completion",
        part=part,
        label=trained_label(),
        group=pl.coalesce(group, "prompt"),
        label_quality=quality,
        trusted=trusted,
    )
    if unknown := set(rows["part"].unique()) - set(PARTS):
        raise DataError(
            f"export: part is {', '.join(map(repr, sorted(unknown)))} in some rows; it must be one of {', '.join(PARTS)}."
        )
    return rows


def _order_codes(train: pl.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels, and codes of prompt groups and completions that do not depend on a hash."""
    codes = train.select(pl.col("group", "completion").rank("dense").cast(pl.Int64))
    return train["label"].to_numpy(), codes["group"].to_numpy(), codes["completion"].to_numpy()


def _lone_row(rows: pl.DataFrame, block: int, seed: int) -> pl.DataFrame:
    """The least trustworthy training row of the larger class if one row would stand alone in the last block, else no row."""
    train = rows.filter(pl.col("part") == "train")
    if train.height % block != 1 or train.height == 1:
        return rows.clear()
    larger = train["label"].sum() * 2 > train.height
    candidates = train.filter(pl.col("label") == larger).sort("row_id")
    chance = pl.Series("chance", np.random.default_rng(seed).permutation(candidates.height))
    least = candidates.with_columns(chance).sort("trusted", "label_quality", "chance", nulls_last=True)
    return least.head(1).drop("chance")


def _leave_out(left_out: pl.DataFrame, block: int) -> pl.DataFrame:
    if left_out.is_empty():
        return no_decisions()
    rows = left_out.with_columns(block=pl.lit(block))
    return decide(
        rows, pl.lit(value=True), action="drop", reason="alone_in_last_block", evidence=("block", "label", "label_quality")
    )


def _assign_shards(part: pl.DataFrame, shard_rows: int) -> pl.DataFrame:
    position = pl.int_range(pl.len(), dtype=pl.Int64)
    return part.select("row_id", "part", shard=(position // shard_rows).cast(pl.Int32), position=position)


def _export_metrics(rows: pl.DataFrame, check: OrderCheck, block: int) -> dict[str, Any]:
    return {
        "rows": _rows_per_value(rows, "part"),
        "desirable": dict(rows.filter("label").group_by("part").len().sort("part").iter_rows()),
        "relabelled": int((rows["state"] == "relabel").sum()),
        "block": block,
        "order": check.as_dict(),
    }


def _masked_metrics(feedback: pl.DataFrame, placed: pl.DataFrame) -> dict[str, Any]:
    """How many of the written rows were masked, and at how many places; empty when that was not asked for."""
    if "pii_masks" not in feedback.columns or feedback["pii_masks"].null_count() == feedback.height:
        return {}
    written = feedback.join(placed, on="row_id", how="semi").select("row_id", "pii_masks").explode("pii_masks").drop_nulls()
    places = written.select(pl.col("pii_masks").struct.field("field")).filter(counted_once())
    return {"rows": written["row_id"].n_unique(), "places": places.height}


def _rows_per_value(table: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(table.group_by(column).len().sort(column).iter_rows())


def check_labels_in_blocks(check: OrderCheck) -> Finding:
    """KD090: some blocks of the training order hold one label only."""
    if not check.rows:
        return not_applicable("KD090", "no row is for training.")
    if not check.single_class_blocks:
        return passed("KD090", f"each of {check.blocks:,} blocks holds both labels.")
    return issue(
        "KD090",
        f"{check.single_class_blocks:,} of {check.blocks:,} blocks hold one label only: the rarer label has too few rows for one "
        "in each block. A larger block, or more rows of that label, mends it.",
    )


def check_partners(check: OrderCheck) -> Finding:
    """KD091: some rows would get a mismatched completion that matches: same prompt group, same completion, or their own."""
    if not check.rows:
        return not_applicable("KD091", "no row is for training.")
    parts = {
        "rows share their block with another row of their prompt group": check.same_group_in_block,
        "neighbours are of one prompt group": check.same_group_neighbours,
        "neighbours have equal completions": check.equal_completion_neighbours,
        "row is alone in the last block": int(check.lone_last_row),
    }
    broken = {text: count for text, count in parts.items() if count}
    if not broken:
        return passed("KD091", "no block repeats a prompt group, no neighbours share a completion.")
    return issue(
        "KD091",
        "; ".join(f"{count:,} {text}" for text, count in broken.items())
        + f". {check.unavoidable_same_group_in_block:,} of the first kind no order can avoid, for a group has more rows than "
        "there are blocks: cap rows per prompt, or train with a smaller block.",
    )


def check_both_labels(written: pl.DataFrame) -> Finding:
    """KD093: one text is written with both labels. Equal as by dedupe's defaults; after dedupe, as they are.

    written : rows of the shards, with NEEDS
    """
    fold = "duplicate_of" not in written.columns
    texts = (normalised(pl.col(side), ignore_case=fold, ignore_space=fold) for side in ("prompt", "completion"))
    rows = written.select(label=trained_label(), text=pl.struct(*texts, rendered_form(written).alias("given")))
    both = rows.filter(pl.col("label").n_unique().over("text") > 1)
    if both.is_empty():
        return passed("KD093", "no text is written with both labels.")
    return issue(
        "KD093",
        f"{both['text'].n_unique():,} of {rows['text'].n_unique():,} texts have both labels in what is written: {both.height:,} "
        f"of {rows.height:,} rows, which pull against each other. Put the step dedupe into the recipe: most votes decide there, "
        "and even ones are held for review.",
        both.height,
    )


def _answer_turn() -> pl.Expr:
    text = one_turn("assistant", pl.col("completion"))
    return pl.when(pl.col("answer").is_not_null()).then(pl.concat_list("answer")).otherwise(text)


def _used_fields(table: pl.DataFrame, columns: Sequence[str]) -> list[pl.Expr]:
    """The columns with the fields of a turn that some row uses: plain conversations are written as role and content."""
    turns = pl.concat([table[name].explode() for name in columns]).struct.unnest()
    used = [name for name in turns.columns if name in ("role", "content") or turns[name].null_count() < turns.height]
    return [pl.col(name).list.eval(pl.struct(pl.element().struct.field(used))) for name in columns]


def _prompt_turns() -> pl.Expr:
    return pl.coalesce(pl.col("turns"), one_turn("user", pl.col("prompt")))


def _free_name(name: str, kept: Sequence[str]) -> str:
    taken = {"row_id", "prompt", "completion", "label", "weight", "part", "shard", "position", *TRL_COLUMNS, *kept}
    return f"meta_{name}" if name in taken else name
