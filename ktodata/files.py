"""Files that are there whole or not at all: written beside their place, synced, and moved into it. A damaged one is an error."""

import errno
import fcntl
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ktodata.errors import FormatError, RunError

AGAIN = " Delete it, and do again what made it."
TABLES: dict[str, Callable[[bytes], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".jsonl": lambda content: pl.read_ndjson(content, infer_schema_length=None),
    ".ndjson": lambda content: pl.read_ndjson(content, infer_schema_length=None),
    ".json": lambda content: pl.read_json(content, infer_schema_length=None),
}
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch path that takes `path`'s place when the block ends well, and vanishes when it does not.

    Raises RunError when the disk is full, the place cannot be written or is a folder.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder: give the name of a file.")
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _unwritable_speaks(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield scratch
            _sync(scratch)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes `folder`'s place when the block ends well, and vanishes when it does not.

    Raises RunError when the disk is full or the place cannot be written.
    """
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    with _unwritable_speaks(folder):
        scratch.mkdir(parents=True)
        try:
            yield scratch
            for file in scratch.iterdir():
                _sync(file)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left half written under `folder`."""
    for path in folder.rglob(".*.part"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two processes never write one run folder."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is running in {folder}; wait for it, or give another --out.") from None
        yield


def write_json(path: Path, value: Any) -> None:
    """JSON, readable, keys in the order given; paths and dates as text; a lone surrogate as its escape."""
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises RunError where it holds something else."""
    with damage_speaks(path):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object.{AGAIN}")
    return value


def read_own_table(path: Path) -> pl.DataFrame:
    """The table in a Parquet file that this package wrote. Raises RunError where it cannot be read."""
    with damage_speaks(path):
        return read_parquet(path)


@contextmanager
def damage_speaks(place: Path) -> Iterator[None]:
    """Raise RunError, with the place, for what is no JSON or no Parquet."""
    try:
        yield
    except (pl.exceptions.PolarsError, ValueError, RecursionError) as error:
        raise RunError(f"{place} is damaged: {str(error).strip().splitlines()[0][:120]}.{AGAIN}") from error


def read_parquet(path: Path) -> pl.DataFrame:
    """The Parquet file of this very name. polars takes `[`, `*` and `?` in a name for a pattern and reads other files."""
    return pl.read_parquet(path, glob=False)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """`read_parquet`, of the columns and rows that are asked of it only."""
    return pl.scan_parquet(path, glob=False)


def read_table(path: Path, *, as_text: bool = False) -> pl.DataFrame:
    """The table of this very name, by its ending (TABLES). as_text : a CSV's values stay as they are written

    Raises FormatError for another ending, and where it cannot be read.
    """
    packed = path.suffix == ".gz"
    suffix = path.with_suffix("").suffix if packed else path.suffix
    if suffix not in TABLES:
        raise FormatError(f"{path}: tables are read from {', '.join(TABLES)} files, perhaps with .gz.")
    try:
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        return TABLES[suffix](content) if suffix != ".csv" else pl.read_csv(content, infer_schema=not as_text)
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FormatError(f"{path} cannot be read: {lines[0].rstrip('.')}") from error


def digest_file(path: Path) -> str:
    """16 hex digits of a file's bytes."""
    hasher = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _unwritable_speaks(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise RunError(
            f"cannot write {place}: {error.strerror} ({_free_space(place)}). Nothing half written was left, what was done before "
            "is kept: make room, or give another folder, and run again."
        ) from error


def _free_space(place: Path) -> str:
    existing = next(folder for folder in place.resolve().parents if folder.exists())
    return f"{shutil.disk_usage(existing).free:,} bytes free in {existing.name or existing}"
