"""The rows to train on, from a folder of shards, a file or a frame; and every reason to refuse them, before expensive work."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ktodata.errors import DataError, EmptyDataError, FormatError, LabelError, MissingColumnError, OneClassError, RunError
from ktodata.feedback import LABEL_NAMES, TEMPLATE_FIELDS
from ktodata.files import is_run
from ktodata.formats.shards import check_shards, read_shard, shard_columns, shard_height, shard_pieces

NEEDS = ("row_id", "prompt", "completion", "label")
COLUMNS = ("row_id", "label", "weight", "p_desirable", "prompt_group")
TEXTS = ("prompt", "completion", *TEMPLATE_FIELDS)


@dataclass(frozen=True)
class Part:
    """The rows of one part where they are: frames in memory, or Parquet files, which are read a piece at a time."""

    places: tuple[Path | pl.DataFrame, ...]

    @property
    def height(self) -> int:
        """How many rows there are."""
        return sum(place.height if isinstance(place, pl.DataFrame) else shard_height(place) for place in self.places)

    def pieces(self, columns: Collection[str]) -> Iterator[pl.DataFrame]:
        """Frames of these columns, of those that are there, in order; a file's in pieces. Raises RunError for a torn file."""
        for place in self.places:
            if isinstance(place, pl.DataFrame):
                yield place.select(name for name in place.columns if name in columns)
            else:
                yield from shard_pieces(place, columns)


@dataclass(frozen=True)
class CheckedPart:
    """Rows that passed the checks of `check_rows`; their texts are read when they are needed.

    columns : row_id, label, weight, p_desirable, prompt_group; digest : names the texts, by value and in their order;
    conversational : prompts and completions are messages
    """

    columns: pl.DataFrame
    part: Part
    digest: str
    conversational: bool

    def texts(self) -> Iterator[pl.DataFrame]:
        """Prompts, completions and what their template is given, some rows at a time."""
        return self.part.pieces(("row_id", *TEXTS))  # row_id names a row that its template refuses

    def columns_digest(self) -> str:
        """32 hex digits of `columns`, by value and in order: what is made of the same texts hangs on their labels and weights."""
        digest = xxhash.xxh3_128()
        for piece in self.columns.iter_slices(1 << 16):
            digest.update(piece.write_csv().encode())  # no layout in memory shows in it
        return digest.hexdigest()


def open_part(shards: Path | str | pl.DataFrame, part: str) -> Part:
    """Where the rows of one part ("train", "validation", "test") are; nowhere when there is no such part.

    shards : a folder with <part>-*.parquet, a run folder with shards/ in it, one Parquet file (all of it is "train"), or a
        frame (its column `part` decides; without one all of it is "train").
    """
    if isinstance(shards, pl.DataFrame):
        if "part" in shards.columns:
            return Part((shards.filter(pl.col("part") == part),))
        return Part((shards if part == "train" else shards.clear(),))
    given: Any = shards  # from a notebook, anything may come
    if not isinstance(given, str | Path):
        instead = " Give one frame with a column 'part' that says train or validation." if isinstance(given, dict) else ""
        raise FormatError(f"shards must be a folder, a file or a polars frame; got {type(given).__name__}.{instead}")
    place = Path(shards)
    if place.is_file():
        try:
            shard_columns(place)
        except RunError as error:
            raise FormatError(f"{place} is no Parquet file: give the folder that export wrote, or a file of it.") from error
        if place.absolute().parent.name == "shards" and is_run(place.absolute().parent.parent):
            check_shards(place.parent)
        return Part((place,) if part == "train" else ())
    folder = place / "shards" if (place / "shards").is_dir() else place
    files = sorted(folder.glob(f"{part}-*.parquet"))
    if not files and part == "train":
        there = ", ".join(sorted(path.name for path in folder.glob("*"))[:5]) if folder.is_dir() else "no such folder"
        raise EmptyDataError(f"{folder} holds no train-*.parquet ({there or 'it is empty'}). Give the folder that export wrote.")
    check_shards(folder)
    return Part(tuple(files))


def read_part(shards: Path | str | pl.DataFrame, part: str) -> pl.DataFrame:
    """All rows of one part in memory, with no rows when there is no such part. shards : as `open_part` takes them"""
    tables = [place if isinstance(place, pl.DataFrame) else read_shard(place) for place in open_part(shards, part).places]
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def check_rows(rows: pl.DataFrame, *, part: str, both_classes: bool) -> pl.DataFrame:
    """`rows`, fit to train or score on, with `weight`, `p_desirable` and `prompt_group` filled in where they were missing.

    p_desirable, the chance that a row is truly desirable, is the label itself, 0 or 1, where it is null or not a column at all.

    Refuses, naming how many and which row_id: missing columns, labels that are not true or false, empty prompts' or
    completions' text, repeated row_id, weights that are no finite number >= 0, p_desirable outside [0, 1], and (with
    `both_classes`) one class only.
    """
    return rows.with_columns(_checked([_without_texts(rows, part)], rows.columns, part, both_classes=both_classes))


def check_part(rows: Part, *, part: str, both_classes: bool) -> CheckedPart:
    """As `check_rows`, of rows that need not fit into memory."""
    digest, names = xxhash.xxh3_128(), dict.fromkeys(name for place in rows.places for name in _columns_of(place))
    narrow, schema, kinds = [], None, set()
    for piece in rows.pieces([*COLUMNS, *TEXTS]):
        narrow.append(_without_texts(piece, part))
        kinds |= {isinstance(piece.schema.get(name), pl.List) for name in TEXTS[:2] if name in piece.columns}
        if len(kinds) > 1:
            raise FormatError(f"{part}: prompt and completion are text in some files, and lists of messages in others.")
        texts = piece.select(name for name in TEXTS if name in piece.columns)
        if texts.schema != schema:
            schema = texts.schema
            digest.update(str(schema).encode())
        if texts.width:
            digest.update(texts.hash_rows().to_numpy().tobytes())
    columns = _checked(narrow, list(names), part, both_classes=both_classes)
    return CheckedPart(columns, rows, digest.hexdigest(), conversational=True in kinds)


def _columns_of(place: Path | pl.DataFrame) -> list[str]:
    return place.columns if isinstance(place, pl.DataFrame) else shard_columns(place)


def _without_texts(rows: pl.DataFrame, part: str) -> pl.DataFrame:
    """Of the columns that are checked those that are there; of prompt and completion, whether they are empty."""
    given = rows.select(name for name in (*COLUMNS, *TEXTS[:2]) if name in rows.columns)
    return given.with_columns(_is_blank(rows, name, part) for name in TEXTS[:2] if name in rows.columns)


def _checked(narrow: list[pl.DataFrame], names: list[str], part: str, *, both_classes: bool) -> pl.DataFrame:
    """row_id, label, weight, p_desirable, prompt_group. narrow : from `_without_texts`; names : all columns, for an error"""
    missing = [name for name in NEEDS if name not in names]
    if missing:
        raise MissingColumnError(
            f"{part}: training needs column {', '.join(map(repr, missing))}; the table has {', '.join(names) or 'none'}."
        )
    rows = pl.concat(narrow, how="diagonal_relaxed")
    if rows.is_empty():
        raise EmptyDataError(f"{part}: there are no rows.")
    rows = rows.with_columns(pl.col("row_id").cast(pl.String))
    _check_row_ids(rows, part)
    _check_labels(rows, part, both_classes)
    _check_texts(rows, part)
    rows = _with_p_desirable(_with_weights(rows, part), part)
    if "prompt_group" not in rows.columns:
        rows = rows.with_columns(prompt_group=pl.lit(None))
    return rows.with_columns(pl.col("prompt_group").cast(pl.String)).select(COLUMNS)


def is_conversational(rows: pl.DataFrame) -> bool:
    """Whether prompt and completion are lists of messages (role, content). Raises FormatError when only one of them is."""
    kinds = {name: isinstance(rows.schema[name], pl.List) for name in ("prompt", "completion")}
    if len(set(kinds.values())) > 1:
        raise FormatError(
            f"prompt is {rows.schema['prompt']} and completion is {rows.schema['completion']}: "
            "both must be text, or both lists of messages with role and content."
        )
    return kinds["prompt"]


def named(row_ids: pl.Series, limit: int = 5) -> str:
    """The first few row_ids, for an error's text."""
    shown = ", ".join(map(str, row_ids.head(limit)))
    return shown + (", ..." if len(row_ids) > limit else "")


def _check_row_ids(rows: pl.DataFrame, part: str) -> None:
    bad = rows.filter(pl.col("row_id").is_null() | pl.col("row_id").is_duplicated())
    if bad.height:
        raise DataError(f"{part}: {bad.height:,} of {rows.height:,} rows have no row_id of their own ({named(bad['row_id'])}).")


def _check_labels(rows: pl.DataFrame, part: str, both_classes: bool) -> None:
    label = rows["label"]
    if label.dtype != pl.Boolean:
        values = ", ".join(repr(value) for value in label.unique(maintain_order=True).head(4))
        raise LabelError(
            f"{part}: column 'label' is {label.dtype} in all {rows.height:,} rows ({values}; first: row_id {rows['row_id'][0]}); "
            "it must be true or false. Say what each value means when the feedback is read: -1, 0.3 and 'no' all count as true."
        )
    empty = rows.filter(pl.col("label").is_null())
    if empty.height:
        raise LabelError(
            f"{part}: {empty.height:,} of {rows.height:,} labels are null (row_id {named(empty['row_id'])}). "
            "Drop those rows or give them a label."
        )
    if both_classes and label.n_unique() == 1:
        only = LABEL_NAMES[bool(label[0])]
        raise OneClassError(
            f"{part}: all {rows.height:,} rows are {only}; KTO needs both. Add rows of the other label, or check the label map."
        )


def _check_texts(rows: pl.DataFrame, part: str) -> None:
    for name in TEXTS[:2]:
        blank = rows.filter(pl.col(name).fill_null(value=True))
        if blank.height:
            raise DataError(
                f"{part}: {blank.height:,} of {rows.height:,} rows have an empty {name} (row_id {named(blank['row_id'])}). "
                "Drop them: an empty text has nothing to learn from."
            )


def _is_blank(rows: pl.DataFrame, name: str, part: str) -> pl.Expr:
    """Whether the text `name` says nothing. Raises FormatError where it is neither text nor messages, as its counterpart is."""
    dtype, conversational = rows.schema[name], set(TEXTS[:2]) <= set(rows.columns) and is_conversational(rows)
    if conversational and not _holds_messages(dtype):
        raise FormatError(f"{part}: {name} is {dtype}; a list of messages needs the text fields role and content.")
    if not conversational and dtype != pl.String:
        raise FormatError(f"{part}: {name} is {dtype}; it must be text, or a list of messages with role and content.")
    text = _turn_texts(pl.col(name), dtype) if conversational else pl.col(name)
    return (text.is_null() | (text.str.strip_chars() == "")).alias(name)


def _turn_texts(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """All that the messages say, joined: a turn of calls alone is not empty."""
    inner: pl.Struct = dtype.inner  # type: ignore[attr-defined]
    names = [field.name for field in inner.fields if field.dtype == pl.String and field.name != "role"]
    return column.list.eval(pl.concat_str(pl.element().struct.field(names).fill_null(""))).list.join("")


def _holds_messages(dtype: pl.DataType) -> bool:
    inner = getattr(dtype, "inner", None)
    texts = {field.name for field in inner.fields if field.dtype == pl.String} if isinstance(inner, pl.Struct) else set()
    return {"role", "content"} <= texts


def _with_weights(rows: pl.DataFrame, part: str) -> pl.DataFrame:
    if "weight" not in rows.columns:
        return rows.with_columns(weight=pl.lit(1.0))
    if not rows.schema["weight"].is_numeric() and rows.schema["weight"] != pl.Null:
        raise DataError(f"{part}: column 'weight' is {rows.schema['weight']}; it must be a number, 1 for a row that counts once.")
    weight = pl.col("weight").cast(pl.Float64)
    # rebalance weighs training rows only: held-out rows count once
    filled = rows.with_columns(weight if part == "train" else weight.fill_null(1.0))
    bad = filled.filter(pl.col("weight").is_null() | ~pl.col("weight").is_finite() | (pl.col("weight") < 0))
    if bad.height:
        raise DataError(
            f"{part}: {bad.height:,} of {rows.height:,} weights are null, negative or not finite "
            f"(row_id {named(bad['row_id'])}). A weight is a number >= 0."
        )
    return filled


def _with_p_desirable(rows: pl.DataFrame, part: str) -> pl.DataFrame:
    label = pl.col("label").cast(pl.Float64)
    if "p_desirable" not in rows.columns:
        return rows.with_columns(p_desirable=label)
    if not rows.schema["p_desirable"].is_numeric() and rows.schema["p_desirable"] != pl.Null:
        raise DataError(
            f"{part}: column 'p_desirable' is {rows.schema['p_desirable']}; it must be a number in [0, 1], the chance that a row "
            "is truly desirable, or null."
        )
    filled = rows.with_columns(p_desirable=pl.col("p_desirable").cast(pl.Float64).fill_null(label))
    bad = filled.filter(~pl.col("p_desirable").is_between(0, 1))  # nan is not between, either
    if bad.height:
        raise DataError(
            f"{part}: {bad.height:,} of {rows.height:,} values of p_desirable are not in [0, 1] (row_id {named(bad['row_id'])}; "
            f"first: {bad['p_desirable'][0]}). It is the chance that a row is truly desirable; null takes the label for certain."
        )
    return filled
