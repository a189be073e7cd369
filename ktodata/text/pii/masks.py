"""What stands in place of personal data: <EMAIL_1>, the same for the same address wherever it is in a row.

Nothing is rewritten where it is found: `pii_masks` is a column of positions, and whoever writes the rows out applies it. In
columns that describe a row (rater, source, metadata) a placeholder is numbered over the whole table, so that raters can still be
told apart.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from ktodata.text.pii.patterns import Span, find_in_texts

FIELDS = ("prompt", "completion", "turns")
MASK = {"field": pl.String(), "turn": pl.Int32(), "start": pl.Int64(), "end": pl.Int64(), "mask": pl.String()}
MASKS = pl.List(pl.Struct(MASK))
SPANS = pl.Schema({"row_id": pl.String(), **MASK, "kind": pl.String()})


class Placeholders:
    """Gives each different value of a kind a number, from 1 in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}

    def of(self, kind: str, value: str) -> str:
        """E.g. "<EMAIL_2>". Capitals and separators make no other value: 4111-1111... is 4111 1111... ."""
        same = "".join(sign for sign in value.casefold() if sign.isalnum() or sign in "@+") or value
        numbers = self._numbers.setdefault(kind, {})
        return f"<{kind.upper()}_{numbers.setdefault(same, len(numbers) + 1)}>"


def pii_spans(feedback: pl.DataFrame, also: Callable[[str], list[Span]] | None = None) -> pl.DataFrame:
    """What is found in prompts, completions and turns: row_id, field, turn (its number from 0, or null), start, end, mask, kind.

    start and end count characters from 0. A conversation's prompt is there twice, joined in `prompt` and in its `turns`.
    also : a further finder. Holds no text.
    """
    turns = feedback.select("row_id", pl.col("turns").list.eval(pl.element().struct.field("content"))).drop_nulls()
    texts = pl.concat([feedback["prompt"], feedback["completion"], turns["turns"].explode()])
    spans = find_in_texts(texts, also)
    if not spans:
        return pl.DataFrame(schema=SPANS)
    holds = pl.Series(list(spans)).implode()
    in_turns = turns.filter(pl.col("turns").list.eval(pl.element().is_in(holds)).list.any())["row_id"]
    touched = feedback.filter(
        pl.col("prompt").is_in(holds) | pl.col("completion").is_in(holds) | pl.col("row_id").is_in(in_turns.implode())
    )
    rows = touched.select("row_id", *FIELDS).iter_rows(named=True)
    return pl.DataFrame([line for row in rows for line in _of_row(row, spans)], schema=SPANS, orient="row")


def _of_row(row: dict[str, Any], spans: dict[str, list[Span]]) -> Iterable[tuple[Any, ...]]:
    placeholders = Placeholders()
    texts: list[tuple[str, int | None, str]] = [("prompt", None, row["prompt"]), ("completion", None, row["completion"])]
    texts += [("turns", number, turn["content"]) for number, turn in enumerate(row["turns"] or ())]
    for field, number, text in texts:
        for span in spans.get(text, ()):
            mask = placeholders.of(span.kind, text[span.start : span.end])
            yield row["row_id"], field, number, span.start, span.end, mask, span.kind


def masks_column(row_ids: pl.Series, spans: pl.DataFrame) -> pl.DataFrame:
    """row_id, pii_masks: of every row the list of what to replace, empty where nothing is; what `masked` takes."""
    lists = spans.group_by("row_id", maintain_order=True).agg(pii_masks=pl.struct(*MASK))
    every = row_ids.alias("row_id").to_frame().join(lists, on="row_id", how="left", maintain_order="left")
    return every.with_columns(pl.col("pii_masks").cast(MASKS).fill_null([]))


def masked(feedback: pl.DataFrame, others: Sequence[str] = ()) -> pl.DataFrame:
    """`feedback` with prompt, completion and turns as its column `pii_masks` says, and what is found in `others` replaced too.

    A null in pii_masks means that masking was not asked for; where it is null everywhere, or absent, nothing is changed.
    """
    if "pii_masks" not in feedback.columns or feedback["pii_masks"].null_count() == feedback.height:
        return feedback
    touched = feedback.filter(pl.col("pii_masks").list.len() > 0).select("row_id", "pii_masks", *FIELDS)
    schema = {"row_id": pl.String(), **{f"{name}\0": feedback.schema[name] for name in FIELDS}}
    rewritten = pl.DataFrame([_rewritten(row) for row in touched.iter_rows(named=True)], schema=schema, orient="row")
    joined = feedback.join(rewritten, on="row_id", how="left", maintain_order="left")
    table = joined.with_columns(pl.coalesce(f"{name}\0", name).alias(name) for name in FIELDS).drop(list(schema)[1:])
    return _masked_others(table, [name for name in others if table.schema[name] == pl.String])


def _rewritten(row: dict[str, Any]) -> tuple[Any, ...]:
    def text(value: str, field: str, turn: int | None = None) -> str:
        mine = [mask for mask in row["pii_masks"] if (mask["field"], mask["turn"]) == (field, turn)]
        return replaced(value, [(mask["start"], mask["end"], mask["mask"]) for mask in mine])

    turns = row["turns"]
    new_turns = turns and [{**turn, "content": text(turn["content"], "turns", number)} for number, turn in enumerate(turns)]
    return row["row_id"], text(row["prompt"], "prompt"), text(row["completion"], "completion"), new_turns


def replaced(text: str, masks: Iterable[tuple[int, int, str]]) -> str:
    """`text` with the characters [start, end) of each mask replaced; the masks do not overlap."""
    parts, place = [], 0
    for start, end, mask in sorted(masks):
        parts += [text[place:start], mask]
        place = end
    return "".join([*parts, text[place:]])


def _masked_others(table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    placeholders = Placeholders()
    for name in names:
        spans_of = find_in_texts(table[name])
        new = {text: replaced(text, [_mask(text, span, placeholders) for span in spans]) for text, spans in spans_of.items()}
        if new:
            table = table.with_columns(pl.col(name).replace(new))
    return table


def _mask(text: str, span: Span, placeholders: Placeholders) -> tuple[int, int, str]:
    return span.start, span.end, placeholders.of(span.kind, text[span.start : span.end])
