"""Files that are there whole or not at all: written beside their place, synced, and moved into it. A damaged one is an error."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ktodata.errors import RunError

AGAIN = " Delete it, and do again what made it."
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


def read_table(path: Path | list[Path]) -> pl.DataFrame:
    """The table in a Parquet file, or in several with the same columns. Raises RunError where it cannot be read."""
    with damage_speaks(path if isinstance(path, Path) else path[0].parent):
        return pl.read_parquet(path)


@contextmanager
def damage_speaks(place: Path) -> Iterator[None]:
    """Raise RunError, with the place, for what is no JSON or no Parquet."""
    try:
        yield
    except (pl.exceptions.PolarsError, ValueError, RecursionError) as error:
        raise RunError(f"{place} is damaged: {str(error).strip().splitlines()[0][:120]}.{AGAIN}") from error


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
