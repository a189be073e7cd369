"""The feedback table: each column's name, dtype and meaning. The one place that defines it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.errors import DataError, MissingColumnError

# a turn of a conversation; tool_calls is JSON: [{id, type, function: {name, arguments}}]
TURN_FIELDS = ("role", "content", "name", "tool_call_id", "tool_calls", "reasoning_content")
TURN = pl.Struct(dict.fromkeys(TURN_FIELDS, pl.String))
# columns that a chat template is given beside the turns, each as JSON text
TEMPLATE_FIELDS = ("tools", "chat_template_kwargs")
# rows of the commoner label, at most, that one of the rarer label counts where nobody sets the weights: beyond it single rows own
# the updates that they are in, gradient clipping shortens those, and the labels do not count the same all the same
CLASS_WEIGHT_LIMIT = 10.0
VECTORS = ("prompt_embedding", "completion_embedding", "hidden_state")  # most of a row's bytes
LABEL_NAMES = {False: "undesirable", True: "desirable"}
LABEL_OF = {"desirable": True, "undesirable": False}  # in the order in which they are shown
PARTS = ("train", "validation", "test")  # the further right, the less the model may have seen of it
HELD_OUT = PARTS[1:]
VOTE = pl.Struct({"rater": pl.String, "label": pl.Boolean, "created_at": pl.Datetime("us", "UTC")})


def one_turn(role: str, content: pl.Expr) -> pl.Expr:
    """A conversation of one plain turn: list of TURN."""
    empty = [pl.lit(None, pl.String).alias(name) for name in TURN_FIELDS[2:]]
    return pl.concat_list(pl.struct(pl.lit(role).alias("role"), content.alias("content"), *empty))


def question_text(feedback: pl.DataFrame) -> pl.Series:
    """What each prompt asks: the words of its turns, without system turns and role names; a plain prompt as it is.

    A system prompt that many rows share would make them all alike, and say nothing of what they are about.
    """
    if "turns" not in feedback.columns or not feedback["turns"].count():
        return feedback["prompt"]
    role, content = (pl.element().struct.field(name) for name in ("role", "content"))
    words = pl.col("turns").list.eval(content.filter(role != "system")).list.drop_nulls().list.join("\n\n")
    return feedback.select(prompt=pl.when(words.str.len_chars() > 0).then(words).otherwise("prompt"))["prompt"]


def whole_turns(turns: pl.Series) -> pl.Series:
    """Conversations whose turns lack fields, as shards write them without those that no row uses, as a list of TURN."""
    inner: Any = turns.dtype
    names = {field.name for field in inner.inner.fields}
    fields = [
        pl.element().struct.field(name) if name in names else pl.lit(None, pl.String).alias(name) for name in TURN.to_schema()
    ]
    return turns.list.eval(pl.struct(fields))


@dataclass(frozen=True)
class Column:
    """One column of the feedback table."""

    dtype: pl.DataType
    meaning: str
    nullable: bool = True


COLUMNS: dict[str, Column] = {
    "row_id": Column(pl.String(), "stable name of the row: 16 hex digits made from its content", nullable=False),
    "prompt": Column(
        pl.String(), "the prompt as plain text; a conversation of several turns is joined with role headers", nullable=False
    ),
    "completion": Column(pl.String(), "the model's output that was judged", nullable=False),
    "label": Column(pl.Boolean(), "the verdict as given: true desirable, false undesirable", nullable=False),
    "turns": Column(pl.List(TURN), "the prompt's turns when the source was a conversation"),
    "answer": Column(TURN, "the judged turn, where it is more than text: calls, reasoning; `completion` says it all as text"),
    "tools": Column(pl.String(), "the tools that the model was given, as JSON"),
    "chat_template_kwargs": Column(pl.String(), "what else its chat template was given, as JSON"),
    "votes": Column(
        pl.List(VOTE), "every verdict on this record, with its rater and time; at least the label itself", nullable=False
    ),
    "earlier_votes": Column(pl.List(VOTE), "verdicts that their raters have since replaced; they count nowhere"),
    "rater": Column(pl.String(), "who gave the label"),
    "created_at": Column(pl.Datetime("us", "UTC"), "when the label was given"),
    "source": Column(pl.String(), "the file or data set that the row came from", nullable=False),
    "source_line": Column(pl.Int64(), "line (text files) or record number (others) in the source, from 1", nullable=False),
    "source_id": Column(pl.String(), "the record's own id, where it had one"),
    "pair_id": Column(pl.String(), "the preference pair that the row was one side of"),
    "model": Column(pl.String(), "the model that wrote the completion"),
    "trusted_label": Column(
        pl.Boolean(),
        "a reviewer's verdict, where there is one: it measures the labels, and is trained on where it differs",
    ),
}


def check_columns(table: pl.DataFrame, needs: Iterable[str], *, who: str) -> None:
    """Raise MissingColumnError naming every column of `needs` that `table` lacks."""
    missing = [name for name in needs if name not in table.columns]
    if missing:
        raise MissingColumnError(f"{who} needs column {', '.join(map(repr, missing))}; the table has {', '.join(table.columns)}.")


def check_feedback(table: pl.DataFrame, *, who: str = "feedback") -> None:
    """Raise DataError unless `table` is a feedback table: columns, dtypes, no nulls where none may be, unique row_id."""
    check_columns(table, COLUMNS, who=who)
    for name, column in COLUMNS.items():
        if table.schema[name] != column.dtype:
            raise DataError(f"{who}: column {name!r} is {table.schema[name]}, it must be {column.dtype}.")
        if not column.nullable and (nulls := table[name].null_count()):
            raise DataError(f"{who}: column {name!r} is null in {nulls:,} of {table.height:,} rows.")
    check_row_ids(table, who=who)


def check_row_ids(table: pl.DataFrame, *, who: str) -> None:
    """Raise DataError unless each row has a row_id of its own, a text: all that is known of a row is put beside it by that."""
    ids = table["row_id"]
    if ids.dtype != pl.String or ids.null_count():
        raise DataError(f"{who}: row_id must be a text in every row; it is {ids.dtype}, and null in {ids.null_count():,} rows.")
    if repeats := table.height - ids.n_unique():
        raise DataError(
            f"{who}: {repeats:,} of {table.height:,} rows share their row_id with another row (first: "
            f"{ids.filter(ids.is_duplicated())[0]}). Tables that were read apart may share rows: read their files together."
        )


def feedback_table(*rows: Sequence[Any] | dict[str, Any]) -> pl.DataFrame:
    """Make a small feedback table by hand: rows are (prompt, completion, label) or dicts with any feedback columns.

    Missing columns are filled: row_id "1", "2", ...; one vote that repeats the label; source "by hand". Extra keys become
    metadata columns. Meant for notebooks and tests; files are read with `kd.read`.
    """
    filled = [_fill_row(row, number) for number, row in enumerate(rows, start=1)]
    extra = sorted({key for row in filled for key in row} - set(COLUMNS))
    table = pl.DataFrame(
        filled, schema_overrides={name: column.dtype for name, column in COLUMNS.items()}, infer_schema_length=None
    )
    if not rows:
        table = pl.DataFrame(schema={name: column.dtype for name, column in COLUMNS.items()})
    check_feedback(table)
    return table.select(*COLUMNS, *extra)


def _fill_row(row: Sequence[Any] | dict[str, Any], number: int) -> dict[str, Any]:
    values = dict(row) if isinstance(row, dict) else dict(zip(("prompt", "completion", "label"), row, strict=True))
    filled: dict[str, Any] = dict.fromkeys(COLUMNS)
    filled |= {"row_id": str(number), "source": "by hand", "source_line": number} | values
    if filled["votes"] is None:
        filled["votes"] = [{"rater": filled["rater"], "label": filled["label"], "created_at": filled["created_at"]}]
    return filled
