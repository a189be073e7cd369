"""Shards on disk: Parquet files that any reader takes, with checksums, whole or not there at all."""

import hashlib
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ktodata.errors import EmptyDataError, RunError
from ktodata.feedback import COLUMNS, TURN, check_columns, whole_turns
from ktodata.files import damage_speaks, is_run, make_folder, read_json, read_note, read_parquet, whole_file, write_json
from ktodata.formats.turns import is_plain, loaded_turn, plain, plain_turn
from ktodata.stage import check_stage

CHECKSUMS = "checksums.json"
# JSON, marked as such in the files: `datasets` (4.7 on) hands it on as objects. `tools` is text, which TRL takes apart itself
JSON_FIELDS = ("tool_calls", "chat_template_kwargs")
EXPORT_AGAIN = "`ktodata run` again with its recipe writes them anew."
SHARD_NAME = re.compile(r"(train|validation|test)-\d{5}-of-\d{5}\.parquet")
# fixed, so that the same rows give the same bytes on any machine
ROW_GROUP = 10_000
# read at a time where not all rows need be in memory
PIECE_ROWS = 1024


@dataclass(frozen=True)
class Shard:
    """One written file."""

    file: str
    rows: int
    bytes: int
    sha256: str


def write_shards(table: pl.DataFrame, folder: Path) -> dict[str, dict[str, str | int]]:
    """Write <part>-00000-of-0000N.parquet files and checksums.json into `folder`; returns {file: {rows, bytes, sha256}}.

    table : from `shard_table`; part, shard and position say where a row goes and are not written.
    Each file is written under a temporary name, flushed to disk and renamed. Shards of an earlier export are removed, and
    checksums.json comes last, so it only ever names whole files. The same table gives the same bytes.
    Raises RunError when the disk is full, saying how much is free; no half shard is left.
    """
    check_columns(table, ("part", "shard", "position", "row_id"), who="write_shards")
    make_folder(folder)
    written = [_write_shard(name, rows, folder) for name, rows in _shard_tables(table)]
    names = {shard.file for shard in written}
    for path in folder.iterdir():
        if SHARD_NAME.fullmatch(path.name) and path.name not in names:
            path.unlink()
    checksums = {shard.file: {key: value for key, value in asdict(shard).items() if key != "file"} for shard in written}
    write_json(folder / CHECKSUMS, checksums)
    return checksums


def read_shards(folder: Path, part: str = "train") -> pl.DataFrame:
    """The rows of one part as a feedback table again, in the order of the files; columns beyond it are kept.

    folder : a run folder, or its shards/. Messages become `turns` and plain text; what shards do not hold is null, and the label
    is the only vote. Raises EmptyDataError when there is no shard of that part.
    """
    shards = folder / "shards" if (folder / "shards").is_dir() else folder
    files = sorted(path for path in shards.glob(f"{part}-*.parquet") if SHARD_NAME.fullmatch(path.name))
    if files or (shards / CHECKSUMS).is_file():  # else the folder is none of shards, and that is said
        check_shards(shards)
    if not files:
        raise EmptyDataError(
            f"{shards} holds no {part}-00000-of-....parquet: give a run folder, or the folder that export wrote."
        )
    rows = pl.concat([read_shard(path) for path in files])
    if "chat_template_kwargs" in rows.columns:
        rows = rows.with_columns(pl.col("chat_template_kwargs").replace("{}", None))
    turns = pl.Series([None] * rows.height, dtype=pl.List(TURN))
    if isinstance(rows.schema["prompt"], pl.List):
        turns = whole_turns(rows["prompt"])
        answers = whole_turns(rows["completion"]).list.first()
        loaded = [loaded_turn(answer) for answer in answers]
        rows = rows.with_columns(
            prompt=pl.Series([plain([loaded_turn(turn) for turn in prompt]) for prompt in turns], dtype=pl.String),
            completion=pl.Series([plain_turn(answer) for answer in loaded], dtype=pl.String),
            answer=pl.when(pl.Series([not is_plain(answer) for answer in loaded], dtype=pl.Boolean)).then(answers),
        )
    vote = pl.struct(rater=pl.col("rater") if "rater" in rows.columns else None, label="label", created_at=None)
    rows = rows.with_columns(turns=turns, votes=pl.concat_list(vote).cast(COLUMNS["votes"].dtype))
    missing = [name for name in COLUMNS if name not in rows.columns]
    rows = rows.with_columns(pl.lit(None, COLUMNS[name].dtype).alias(name) for name in missing)
    rows = rows.with_columns(
        pl.col("source").fill_null(shards.name), pl.col("source_line").fill_null(pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    )
    return rows.select(*COLUMNS, *(name for name in rows.columns if name not in COLUMNS))


def changed_shards(folder: Path) -> list[str]:
    """Files named in checksums.json that are missing or hold other bytes."""
    checksums = read_json(folder / CHECKSUMS)
    with damage_speaks(folder / CHECKSUMS):
        try:
            return [name for name, shard in sorted(checksums.items()) if _sha256(folder / Path(name).name) != shard["sha256"]]
        except (KeyError, TypeError) as error:
            raise ValueError("it names no checksums") from error


def check_shards(folder: Path) -> None:
    """Raise RunError where the shards of a folder are not those that its checksums.json names, or a run's are another run's.

    Without one the files are somebody's own, and taken as they are; but a run's shards have one, which its export stage knows.
    """
    run = folder.parent if folder.name else folder.absolute().parent
    if not (folder / CHECKSUMS).is_file():
        if is_run(run):
            raise RunError(f"{folder} has no {CHECKSUMS}, so nobody can tell whether its files are whole: {EXPORT_AGAIN}")
        return
    listed = read_json(folder / CHECKSUMS)
    if is_run(run) and _exported_by(run) != listed:
        raise RunError(f"{folder / CHECKSUMS} is not the one that export wrote: {EXPORT_AGAIN}")
    there = {path.name for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name)}
    if wrong := sorted({*changed_shards(folder), *(there - set(listed))}):
        raise RunError(
            f"{len(wrong):,} of {len(listed):,} shards are not what export wrote ({', '.join(wrong[:3])}): {EXPORT_AGAIN}"
        )


def _exported_by(run: Path) -> dict[str, Any]:
    """The checksums that the run's own export stage wrote. Raises RunError where the stage there is not the manifest's."""
    manifest = read_note(run / "manifest.json")
    if all(stage["name"] != "export" for stage in manifest.get("stages", ())):
        raise RunError(f"{run / 'shards'} is not of this run, by whose manifest.json no export has run: {EXPORT_AGAIN}")
    check_stage(run, "export", manifest)
    return dict(read_note(run / "stages/export/metrics.json").get("checksums", {}))


def _shard_tables(table: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    ordered = table.sort("part", "position")
    of_part = dict(ordered.group_by("part").agg(pl.col("shard").n_unique()).iter_rows())
    for (part, number), rows in ordered.group_by("part", "shard", maintain_order=True):
        yield f"{part}-{number:05d}-of-{of_part[part]:05d}.parquet", rows.drop("part", "shard", "position")


def _write_shard(name: str, rows: pl.DataFrame, folder: Path) -> Shard:
    buffer = io.BytesIO()
    table = rows.to_arrow()
    has_json = any(f"{name}: " in str(table.schema) for name in JSON_FIELDS)
    # without Arrow's own schema readers see plain strings and lists, not polars' large ones; JSON is seen as such only with it
    table = table.cast(_typed(table.schema, json_type=pa.json_(pa.string()))) if has_json else table
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP, store_schema=has_json)
    content = buffer.getvalue()
    with whole_file(folder / name) as scratch:
        scratch.write_bytes(content)
    return Shard(name, rows.height, len(content), hashlib.sha256(content).hexdigest())


def read_shard(path: Path) -> pl.DataFrame:
    """One Parquet file of rows; what it marks as JSON is text, as polars has no type for it. Raises RunError for a torn one."""
    with damage_speaks(path):
        schema = pq.read_schema(path)
        if "arrow.json" not in str(schema):
            return read_parquet(path)
        table = pq.read_table(path)
    return cast("pl.DataFrame", pl.from_arrow(table.cast(_typed(schema, json_type=pa.string()))))


def shard_columns(path: Path) -> list[str]:
    """The names of its columns. Raises RunError for a file that is no Parquet."""
    with damage_speaks(path):
        return list(pq.read_schema(path).names)


def shard_height(path: Path) -> int:
    """How many rows it has. Raises RunError for a file that is no Parquet."""
    with damage_speaks(path):
        return int(pq.read_metadata(path).num_rows)


def shard_pieces(path: Path, columns: Collection[str]) -> Iterator[pl.DataFrame]:
    """`read_shard` in pieces of at most PIECE_ROWS rows, one at least; of these columns, of those that are there."""
    with damage_speaks(path), pq.ParquetFile(path, buffer_size=1 << 20) as file:
        schema = file.schema_arrow
        chosen = [name for name in schema.names if name in columns]
        typed = schema if "arrow.json" not in str(schema) else _typed(schema, json_type=pa.string())
        typed = pa.schema([typed.field(name) for name in chosen])
        batches = file.iter_batches(PIECE_ROWS, columns=chosen)
        empty = [] if file.metadata.num_rows else [pa.RecordBatch.from_pylist([], schema=typed)]
        for batch in chain(batches, empty):
            yield cast("pl.DataFrame", pl.from_arrow(pa.Table.from_batches([batch]).select(chosen).cast(typed)))


def _typed(schema: pa.Schema, *, json_type: pa.DataType) -> pa.Schema:
    """The schema with calls and template settings of `json_type`, and plain texts and lists, not polars' large ones."""
    return pa.schema([(column.name, _type_of(column, json_type)) for column in schema])


def _type_of(column: pa.Field, json_type: pa.DataType) -> pa.DataType:
    dtype = column.type
    if column.name in JSON_FIELDS:
        return json_type
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return pa.list_(pa.field("element", _type_of(dtype.value_field, json_type)))
    if pa.types.is_struct(dtype):
        return pa.struct([(inner.name, _type_of(inner, json_type)) for inner in dtype])
    return pa.string() if "string" in str(dtype) and not pa.types.is_dictionary(dtype) else dtype


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
