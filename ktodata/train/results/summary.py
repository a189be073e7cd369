"""A finished training in a few lines: its rows, how it went, and whether it can be trusted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.train.results.kept_evaluation import choice_words, interval_words, kept_evaluation
from ktodata.visible_text import clean

UNKNOWN = "not noted"


def summary_lines(
    facts: Mapping[str, Any], history: pl.DataFrame, held_out: Sequence[dict[str, Any]], model: object
) -> list[tuple[str, str]]:
    """(name, text) of each line, and of each finding. facts : as in training.json; what an older file lacks reads "not noted"."""
    return [
        ("rows", _rows_line(facts)),
        ("trained", _updates_line(facts, history)),
        ("balance", facts.get("balance", {}).get("sentence", UNKNOWN)),
        ("loss", _loss_line(history)),
        ("z0", _z0_line(history)),
        ("held-out reward AUC", _auc_line(facts, held_out)),
        ("speed", _speed_line(facts)),
        ("model", "in memory only" if model is None else str(model)),
        *((finding["code"], finding["text"]) for finding in facts.get("findings", ()) if finding["status"] == "issue"),
    ]


def as_html(lines: Sequence[tuple[str, str]]) -> str:
    """A table for a notebook; every text escaped, and shown in its own direction of reading."""
    row = Markup('<tr><th scope="row" style="text-align:left">{}</th><td style="text-align:left"><bdi>{}</bdi></td></tr>')
    shown = [row.format(name, clean(text)) for name, text in lines]  # a path may hold bytes that no page can show
    return str(Markup("<table><tbody>{}</tbody></table>").format(Markup("").join(shown)))


def _rows_line(facts: Mapping[str, Any]) -> str:
    balance, train, validation = facts.get("balance"), facts.get("train", {}), facts.get("validation", {})
    if not balance:
        return UNKNOWN
    skipped, cut = len(train.get("skipped_row_ids", ())), len(train.get("cut_row_ids", ()))
    counts = (
        (skipped, "more skipped"),
        (cut, "cut at max_length"),
        (facts.get("plan", {}).get("rows_left_out", 0), "left out of the updates, as they count nothing"),
        (train.get("moved_boundaries", 0), "whose prompt is written otherwise before its completion than alone"),
        (train.get("template_fields_unused", 0), "whose tools or template settings plain text has no place for"),
    )
    lost = ", ".join(f"{number:,} {what}" for number, what in counts if number)
    known = validation.get("trained_on_too", 0)
    held = f"{validation['rows']:,} held out" if "rows" in validation else "none held out"
    held += f" ({known:,} more are trained on)" if known else ""
    return f"{balance['desirable']:,} desirable, {balance['undesirable']:,} undesirable{f' ({lost})' if lost else ''}; {held}"


def _updates_line(facts: Mapping[str, Any], history: pl.DataFrame) -> str:
    settings = facts.get("settings", {})
    epochs = history["epoch"].n_unique() if history.height else 0
    objective = f"{settings.get('objective', 'kto')}, beta {settings['beta']:g}" if "beta" in settings else UNKNOWN
    lonely = facts.get("plan", {}).get("one_class_batches")
    of_one_label = f", {lonely:,} of them with rows of one label only" if lonely else ""
    return f"{history.height:,} updates in {epochs:,} {'epoch' if epochs == 1 else 'epochs'}{of_one_label}; objective {objective}"


def _loss_line(history: pl.DataFrame) -> str:
    return f"{history['loss'][0]:.4f} at the first update, {history['loss'][-1]:.4f} at the last" if history.height else UNKNOWN


def _z0_line(history: pl.DataFrame) -> str:
    last = history.row(-1, named=True) if history.height else {}
    if last.get("z0") is None:
        return UNKNOWN
    error = last.get("z0_standard_error")
    known = error is not None and math.isfinite(error)  # an objective without mismatched pairs estimates nothing
    return f"{last['z0']:.3f} nats at the last update" + (f" (standard error {error:.3f})" if known else "")


def _auc_line(facts: Mapping[str, Any], held_out: Sequence[dict[str, Any]]) -> str:
    settings = facts.get("settings", {})
    evaluation = kept_evaluation(held_out, settings)
    if evaluation is None:
        return f"not measured: {facts.get('validation', {}).get('not_applicable', 'no validation rows were scored')}"
    if evaluation["auc"] is None:
        return f"not measured: {evaluation['not_applicable']}"
    measured = f"{evaluation['auc']['value']:.3f} ({interval_words(evaluation, 'auc')}) after {evaluation['step']:,} updates"
    chosen = choice_words(held_out, settings)
    return f"{measured}. {chosen}" if chosen else measured


def _speed_line(facts: Mapping[str, Any]) -> str:
    if "tokens_per_second" not in facts:
        return UNKNOWN
    on = ", ".join(str(facts[name]) for name in ("device", "dtype") if name in facts)
    padding = f"; {facts['padding_ratio']:.2f} padded tokens per real one" if "padding_ratio" in facts else ""
    return f"{facts['tokens_per_second']:,.0f} tokens/s ({on}){padding}"
