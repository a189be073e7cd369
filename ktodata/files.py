"""Files that are there whole or not at all: written beside their place, synced, and moved into it. A damaged one is an error."""

import errno
import fcntl
import glob
import gzip
import json
import os
import re
import shutil
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ktodata.errors import FormatError, KtodataError, RunError
from ktodata.visible_text import clean

AGAIN = " Delete it, and call again what made it: `ktodata run` with its recipe, or the command that wrote it since."
DAMAGE = (pl.exceptions.PolarsError, ValueError, RecursionError)
TABLES: dict[str, Callable[[bytes], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".jsonl": lambda content: pl.read_ndjson(content, infer_schema_length=None),
    ".ndjson": lambda content: pl.read_ndjson(content, infer_schema_length=None),
    ".json": lambda content: pl.read_json(content, infer_schema_length=None),
}
OWN_DIGEST, SIBLINGS = "digest_of_this", "siblings"  # keys of a note: 16 hex digits of all the others; what files beside it are
Artefacts = Mapping[str, Mapping[str, int | str]]  # {path: bytes, changed, digest} of what a stage has written
# what the system says of a place that cannot be written, and what helps
UNWRITABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or give another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO), "give a folder that can be written"),
    errno.EFBIG: "raise the limit on a file's size (`ulimit -f`), or give a folder on another file system",
    errno.ENAMETOOLONG: "give a shorter name",
}
# what a run writes begins so, below its folder: folders, and files with their tables
RUN_FOLDERS = ("stages/", "shards/", "model/", "reviews/", "pulled/", "rounds/", "ablation/", "comparison/", "withdrawals/")
OF_A_RUN = (
    *RUN_FOLDERS,
    "manifest.",
    "ledger.",
    "quarantine.",
    "evaluation.",
    "ablation.",
    "comparison.",
    "audit.",
    "report.",
    "withdrawn.",
)
HELD: ContextVar[frozenset[Path]] = ContextVar("folders that this thread writes alone in", default=frozenset())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch path that takes `path`'s place when the block ends well, and vanishes when it does not.

    Raises RunError when the disk is full, the place cannot be written or is a folder, or its name cannot be seen.
    """
    _check_name(path)
    if path.is_dir():
        raise RunError(f"{path} is a folder: give the name of a file.")
    scratch = _scratch(path)
    with unwritable_speaks(path, scratch):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_of_the_dead(path)
        try:
            yield scratch
            _sync(scratch)
            scratch.replace(path)
            _sync(path.parent)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes `folder`'s place when the block ends well, and vanishes when it does not.

    Raises RunError when the disk is full, the place cannot be written, or its name cannot be seen.
    """
    _check_name(folder)
    scratch = _scratch(folder)
    with unwritable_speaks(folder, scratch):
        _remove_of_the_dead(folder)
        scratch.mkdir(parents=True)
        try:
            yield scratch
            for file in scratch.iterdir():
                _sync(file)
            _sync(scratch)
            discard(folder)
            scratch.rename(folder)
            _sync(folder.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def make_folder(folder: Path) -> None:
    """Make a folder where there is none yet. Raises RunError where that cannot be done, or its name cannot be seen."""
    _check_name(folder)
    try:
        with unwritable_speaks(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"cannot make the folder {folder}: a file stands there, or above it. Give another folder.") from error


def _check_name(path: Path) -> None:
    """No file or folder of ours has a name that a terminal obeys, or does not show."""
    if clean(path.name) != path.name or any(sign in path.name for sign in "\n\t"):
        raise RunError(f"cannot write {clean(str(path))!r}: its name holds a sign that nobody can see. Give another name.")


def discard(folder: Path) -> None:
    """Remove a folder: it is gone in one step under its own name, so that whoever is killed meanwhile leaves no half of it.

    What such a process left aside goes with it, also where the folder itself is gone.
    """
    _remove_of_the_dead(folder, ".old.part")  # what is to take its place stays
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old.part")
    try:
        folder.rename(aside)
    except (FileNotFoundError, NotADirectoryError):
        return
    shutil.rmtree(aside, ignore_errors=True)


def make_way(files: Iterable[Path]) -> None:
    """Remove what stands as a folder where a file of our own is to be."""
    for file in files:
        if file.is_dir() and not file.is_symlink():
            discard(file)


def remove_leftovers(folder: Path, *, alone: bool = True) -> None:
    """Remove what processes that were killed left half written under `folder`.

    alone : nobody else writes there; if somebody may (a cache), what processes write that still run is left
    """
    for path in folder.rglob(".*.part"):
        number = next((part for part in reversed(path.name.split(".")) if part.isdecimal()), "")
        if alone or (number and not _is_another(int(number))):
            _remove(path)


def _remove_of_the_dead(place: Path, ending: str = ".part") -> None:
    """Remove what this process, and processes that run no more, left half written of this file or folder."""
    for path in place.parent.glob(f".{glob.escape(place.name)}.*{ending}"):
        number = path.name.removeprefix(f".{place.name}.").split(".")[0]
        if number.isdecimal() and not _is_another(int(number)):
            _remove(path)


def _is_another(process: int) -> bool:
    """Whether another process of that number runs."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _scratch(place: Path) -> Path:
    return place.with_name(f".{place.name}.{os.getpid()}.part")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two never write one run folder. Raises RunError while somebody writes there, and where nothing can be written."""
    with unwritable_speaks(folder):
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is running in {folder}; wait for it, or give another --out.") from None
        before = HELD.set(HELD.get() | {folder.resolve()})
        try:
            yield
        finally:
            HELD.reset(before)


@contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Of several processes that need the same file or folder of a cache, one makes it, and the others wait for it."""
    with unwritable_speaks(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = place.with_suffix(".lock").open("w")
    with lock:
        with suppress(OSError):  # a file system without locks: each makes it, and the last one's stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_being_made(place: Path) -> bool:
    """Whether another process makes it at present, `one_at_a_time`."""
    try:
        with place.with_suffix(".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def is_run(folder: Path) -> bool:
    """Whether it holds what a run writes."""
    return (folder / "manifest.json").is_file() and (folder / "stages").is_dir()


def check_no_run_file(target: Path) -> None:
    """Raise RunError where a file to be written would take the place of one that a run folder holds, or stand among them."""
    real = target.resolve()
    run = next(filter(is_run, real.parents), None)
    if run is not None and real.relative_to(run).as_posix().startswith(OF_A_RUN):
        raise RunError(f"cannot write {target}: it is a place of the run {run}'s own files. Give a file outside its folder.")


@contextmanager
def alone_if_run(place: Path | None) -> Iterator[None]:
    """`alone_in` the run folder that `place` is or lies in, if there is one and this thread is not alone in it already."""
    inside = () if place is None else (place, *place.absolute().parents)
    run = next(filter(is_run, inside), None)
    if run is None or run.resolve() in HELD.get():
        yield
        return
    with alone_in(run):
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


def write_note(path: Path, value: Mapping[str, Any], siblings: Iterable[Path] = ()) -> None:
    """A JSON object that says by itself whether it is whole, and what files beside it are: read it with `read_note`.

    siblings : files and folders in the same folder; they are read with `check_siblings` or `read_sibling_table`
    """
    with whole_file(path) as scratch:
        scratch.write_text(note_text(path.name, value, describe(path.parent, siblings)), encoding="utf-8")


def note_text(name: str, value: Mapping[str, Any], siblings: Artefacts | None = None) -> str:
    """What `write_note` writes into a file of this name."""
    written = json.loads(json.dumps({**value, **({SIBLINGS: siblings} if siblings else {})}, default=str))
    return json.dumps({**written, OWN_DIGEST: _note_digest(name, written)}, indent=1)


def read_note(path: Path) -> dict[str, Any]:
    """What `write_note` was given.

    Raises RunError where it is gone, is damaged, was changed since, or is a note of another name.
    """
    note = _whole_note(path)
    note.pop(SIBLINGS, None)
    return note


def _whole_note(path: Path) -> dict[str, Any]:
    note = read_json(path)
    if note.pop(OWN_DIGEST, None) != _note_digest(path.name, note):
        raise RunError(f"{path} is not as ktodata wrote it: it was changed or damaged since, or is another file's.{AGAIN}")
    return note


def _note_digest(name: str, note: Mapping[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(f"{name} {json.dumps(note)}".encode("utf-8", "surrogatepass"))


def is_note(path: Path) -> bool:
    """Whether a file ends as a note does; whether it is whole, reading it tells."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return f'"{OWN_DIGEST}": "'.encode() in file.read()


def siblings_of(path: Path) -> Artefacts:
    """What a note says of the files beside it."""
    return dict(_whole_note(path).get(SIBLINGS, {}))


def check_siblings(path: Path, names: Iterable[str] | None = None) -> None:
    """Raise RunError where a file that stands beside a note is gone, or is not the one that the note speaks of.

    names : of those files; all that the note speaks of when None
    """
    known = siblings_of(path)
    names = list(known) if names is None else list(names)
    unknown = [name for name in names if name not in known]
    wrong = unknown or [name for name in differing(path.parent, {name: known[name] for name in names}) if name in names]
    if wrong:
        raise RunError(
            f"{path.parent / wrong[0]} is not the one that {path.name} speaks of: it is gone, or was changed or damaged since."
            f"{AGAIN}"
        )


def read_sibling_table(path: Path, name: str) -> pl.DataFrame:
    """The Parquet file of that name that a note speaks of. Raises RunError where it is another, or cannot be read."""
    check_siblings(path, [name])
    return read_own_table(path.with_name(name))


def read_own_table(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The table in a Parquet file that this package wrote, or some of its columns. Raises RunError where it cannot be read."""
    with damage_speaks(path):
        return read_parquet(path, columns)


def table_height(path: Path) -> int:
    """How many rows such a file has; none of them is read. Raises RunError where it cannot be."""
    with damage_speaks(path):
        return int(scan_parquet(path).select(pl.len()).collect().item())


@contextmanager
def damage_speaks(place: Path) -> Iterator[None]:
    """Raise RunError, with the place, for what is gone, and for what is no JSON, no Parquet or no safetensors."""
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"{error.filename or place} is gone.{AGAIN}") from error
    except (*DAMAGE, IsADirectoryError, NotADirectoryError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f"{place} is damaged: {first[:120]}.{AGAIN}") from error
    except Exception as error:  # of a library that is not loaded here
        if type(error).__name__ != "SafetensorError":
            raise
        raise RunError(f"{place} is damaged: {str(error)[:120]}.{AGAIN}") from error


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The Parquet file of this very name. polars takes `[`, `*` and `?` in a name for a pattern and reads other files."""
    return pl.read_parquet(path, columns=None if columns is None else list(columns), glob=False)


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


def describe(root: Path, places: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """{path below root: bytes, changed, digest} of every file that the places are or hold. changed : nanoseconds"""
    return {file.relative_to(root).as_posix(): _describe_file(file) for place in places for file in _files_in(place)}


def differing(root: Path, artefacts: Artefacts) -> list[str]:
    """The files that are gone, are no longer what was written, or stand among the tables of a folder without having been written.

    A file of the same size and time is taken to be the same; one of another time is read, and the same if its content is.
    """
    wrong = [name for name, written in artefacts.items() if not is_same(root / name, written)]
    folders = {(root / name).parent for name in artefacts if name.endswith(".parquet")} - {root}
    there = {file.relative_to(root).as_posix() for folder in folders if folder.is_dir() for file in folder.glob("*.parquet")}
    return sorted({*wrong, *(there - set(artefacts))})


def _sync(path: Path) -> None:
    """Put a file, or what a folder lists, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders, on some file systems
            raise
    finally:
        os.close(descriptor)


@contextmanager
def unwritable_speaks(place: Path, scratch: Path | None = None) -> Iterator[None]:
    """Raise RunError, with place and free space, for a disk that is full and a place that cannot be written.

    Whichever library writes: those written in Rust say "(os error 28)" within an error of their own. scratch : what is written
    """
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        read = isinstance(error, OSError) and error.filename is not None and place.parent not in Path(str(error.filename)).parents
        if isinstance(error, KtodataError) or number not in UNWRITABLE or read:
            raise
        words = getattr(error, "strerror", None) or os.strerror(number)
        raise RunError(
            f"cannot write {place}: {words} ({_free_space(place)}). Nothing half written was left, what was done before is kept: "
            f"{UNWRITABLE[number]}, and run again."
        ) from error


def _system_error(error: Exception) -> int:
    """The system's number for what went wrong; 0 where it was something else."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if written_out := re.search(r"\(os error (\d+)\)", str(error)):
        return int(written_out[1])
    # polars says only that its writing was cut short where a limit on the size of files ends it
    writes = any(frame.name == "write_parquet" for frame in traceback.extract_tb(error.__traceback__))
    return errno.EIO if writes and "transport error" in str(error) else 0


def _free_space(place: Path) -> str:
    existing = next(folder for folder in place.absolute().parents if _exists(folder))
    return f"{shutil.disk_usage(existing).free:,} bytes free in {existing}"


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # a name that is too long
        return False


def is_same(file: Path, written: Mapping[str, int | str]) -> bool:
    """Whether a file is the one that `describe` spoke of, by size and time, or by its content."""
    try:
        status = file.stat()
    except OSError:
        return False
    if status.st_size != written["bytes"]:
        return False
    return status.st_mtime_ns == written["changed"] or digest_file(file) == written["digest"]


def _describe_file(file: Path) -> dict[str, int | str]:
    status = file.stat()
    return {"bytes": status.st_size, "changed": status.st_mtime_ns, "digest": digest_file(file)}


def _files_in(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(file for file in place.rglob("*") if file.is_file())
    return [place] if place.is_file() else []
