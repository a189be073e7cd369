"""What stands in place of personal data: <EMAIL_1>, the same for the same address wherever it is in a row.

Nothing is rewritten where it is found: `pii_masks` is a column of positions, and whoever writes the rows out applies it. In
columns that describe a row (rater, source, metadata) a placeholder is numbered over the whole table, so that raters can still be
told apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from ktodata.feedback import TEMPLATE_FIELDS
from ktodata.text.pii.json_texts import json_texts
from ktodata.text.pii.patterns import Span, find_in_texts

FIELDS = ("prompt", "completion", "turns", "answer", *TEMPLATE_FIELDS)
# of a turn beside its content, which has the field "turns" or "answer"; tool_calls are named turns.tool_calls, and so on
TURN_PARTS = ("content", "reasoning_content", "tool_calls", "name", "tool_call_id")
IN_JSON = ("tool_calls", *TEMPLATE_FIELDS)
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


class Place(NamedTuple):
    """A text of a row: its field ("completion", "turns", "turns.tool_calls"), and the number of its turn, from 0."""

    field: str
    turn: int | None
    text: str

    @property
    def in_json(self) -> bool:
        """Whether the text is JSON."""
        return self.field.rpartition(".")[2] in IN_JSON


def counted_once() -> pl.Expr:
    """The spans of the texts of a row, without those of its turns: what turns say stands in prompt or completion too."""
    return pl.col("field").is_in(["prompt", "completion", *TEMPLATE_FIELDS])


def pii_spans(feedback: pl.DataFrame, also: Callable[[str], list[Span]] | None = None) -> pl.DataFrame:
    """What is found in all texts of rows: row_id, field, turn (its number from 0, or null), start, end, mask, kind.

    field : prompt, completion, tools, chat_template_kwargs; of turns "turns" for the content, "turns.tool_calls",
        "turns.reasoning_content", ...; "answer" likewise. start and end count characters from 0. A conversation's prompt is
        there twice, joined in `prompt` and in its `turns`.
    also : a further finder. Holds no text.
    """
    fields = [name for name in FIELDS if name in feedback.columns]
    texts = pl.concat(_all_texts(feedback, fields))
    in_json = {raw: [part.text for part in json_texts(raw)] for raw in texts.filter("json")["text"].unique()}
    plain = texts.filter(~pl.col("json"))["text"]
    spans = find_in_texts(
        pl.concat([plain, pl.Series([text for parts in in_json.values() for text in parts], dtype=pl.String)]), also
    )
    if not spans:
        return pl.DataFrame(schema=SPANS)
    holding = [*spans, *(raw for raw, parts in in_json.items() if any(part in spans for part in parts))]
    touched = texts.filter(pl.col("text").is_in(pl.Series(holding).implode()))["row_id"].unique()
    rows = feedback.filter(pl.col("row_id").is_in(touched.implode())).select("row_id", *fields).iter_rows(named=True)
    return pl.DataFrame([line for row in rows for line in _of_row(row, spans)], schema=SPANS, orient="row")


def _all_texts(feedback: pl.DataFrame, fields: Sequence[str]) -> Iterator[pl.DataFrame]:
    """row_id, text, json of every text of the rows."""
    for field in fields:
        table = feedback.select("row_id", value=field).drop_nulls()
        table = table.explode("value") if field == "turns" else table
        parts = TURN_PARTS if field in ("turns", "answer") else (field,)
        for part in parts:
            text = pl.col("value") if part == field else pl.col("value").struct.field(part)
            yield table.select("row_id", text=text, json=pl.lit(part in IN_JSON)).drop_nulls()


def _names_in(field: str) -> dict[str, str]:
    """Each part of a turn of `turns` or `answer`, and the field that its masks name."""
    return {part: field if part == "content" else f"{field}.{part}" for part in TURN_PARTS}


def _places(row: Mapping[str, Any]) -> Iterator[Place]:
    for field in FIELDS:
        value = row.get(field)
        if field in ("turns", "answer"):
            turns = enumerate(value or ()) if field == "turns" else [(None, value)] if value else []
            for number, turn in turns:
                texts = ((name, turn[part]) for part, name in _names_in(field).items())
                yield from (Place(name, number, text) for name, text in texts if text is not None)
        elif value is not None:
            yield Place(field, None, value)


def _of_row(row: dict[str, Any], spans: dict[str, list[Span]]) -> Iterable[tuple[Any, ...]]:
    placeholders = Placeholders()
    # turns are numbered first: their texts are whole, where `prompt` and `completion` hold calls as JSON that is read as it is
    for place in sorted(_places(row), key=lambda place: place.field in ("prompt", "completion")):
        for start, end, mask, kind in _masks_of(place, spans, placeholders):
            yield row["row_id"], place.field, place.turn, start, end, mask, kind


def _masks_of(place: Place, spans: Mapping[str, list[Span]], placeholders: Placeholders) -> Iterator[tuple[int, int, str, str]]:
    if not place.in_json:
        for span in spans.get(place.text, ()):
            yield *_mask(place.text, span, placeholders), span.kind
        return
    for part in json_texts(place.text):
        for span in spans.get(part.text, ())[: 1 if part.quote else None]:
            _, _, mask = _mask(part.text, span, placeholders)
            # a number goes as a whole, and what takes its place is a string
            start, end = (part.places[0], part.places[-1]) if part.quote else (part.places[span.start], part.places[span.end])
            yield start, end, f"{part.quote}{mask}{part.quote}", span.kind


def masks_column(row_ids: pl.Series, spans: pl.DataFrame) -> pl.DataFrame:
    """row_id, pii_masks: of every row the list of what to replace, empty where nothing is; what `masked` takes."""
    lists = spans.group_by("row_id", maintain_order=True).agg(pii_masks=pl.struct(*MASK))
    every = row_ids.alias("row_id").to_frame().join(lists, on="row_id", how="left", maintain_order="left")
    return every.with_columns(pl.col("pii_masks").cast(MASKS).fill_null([]))


def masked(feedback: pl.DataFrame, others: Sequence[str] = ()) -> pl.DataFrame:
    """`feedback` with its texts as its column `pii_masks` says, and what is found in `others` replaced too.

    A null in pii_masks means that masking was not asked for; where it is null everywhere, or absent, nothing is changed.
    """
    if "pii_masks" not in feedback.columns or feedback["pii_masks"].null_count() == feedback.height:
        return feedback
    fields = [name for name in FIELDS if name in feedback.columns]
    touched = feedback.filter(pl.col("pii_masks").list.len() > 0).select("row_id", "pii_masks", *fields)
    schema = {"row_id": pl.String(), **{f"{name}\0": feedback.schema[name] for name in fields}}
    rewritten = pl.DataFrame([_rewritten(row, fields) for row in touched.iter_rows(named=True)], schema=schema, orient="row")
    joined = feedback.join(rewritten, on="row_id", how="left", maintain_order="left")
    table = joined.with_columns(pl.coalesce(f"{name}\0", name).alias(name) for name in fields).drop(list(schema)[1:])
    return _masked_others(table, [name for name in others if table.schema[name] == pl.String])


def _rewritten(row: dict[str, Any], fields: Sequence[str]) -> tuple[Any, ...]:
    def text(value: str | None, field: str, turn: int | None = None) -> str | None:
        mine = [mask for mask in row["pii_masks"] if (mask["field"], mask["turn"]) == (field, turn)]
        return replaced(value, [(mask["start"], mask["end"], mask["mask"]) for mask in mine]) if value and mine else value

    def turned(turn: Mapping[str, Any], field: str, number: int | None) -> dict[str, Any]:
        return {**turn, **{part: text(turn[part], name, number) for part, name in _names_in(field).items()}}

    rewritten: dict[str, Any] = {
        field: row[field] if field in ("turns", "answer") else text(row[field], field) for field in fields
    }
    if rewritten.get("turns"):
        rewritten["turns"] = [turned(turn, "turns", number) for number, turn in enumerate(rewritten["turns"])]
    if rewritten.get("answer"):
        rewritten["answer"] = turned(rewritten["answer"], "answer", None)
    return row["row_id"], *rewritten.values()


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
