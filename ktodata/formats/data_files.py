"""What `paths` name: files, globs, object stores, saved data sets, hub ids. All are looked up before anything is read."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from ktodata.errors import FormatError, SettingError
from ktodata.formats.remote_files import is_remote, local_copy, remote_files

FileKind = Literal["lines", "json", "csv", "parquet"]
Lake = Literal["delta", "iceberg", "lance"]
SourceKind = Literal["file", "remote", "saved", "hub"] | Lake
FOLDERS: tuple[SourceKind, ...] = ("saved", "delta", "iceberg", "lance")  # what is one data set, in many files
# what a file is written as; what one that is read is, its content says (file_types/file_shape.py)
KINDS: dict[str, FileKind] = {".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
PACKED = (".gz", ".zst", ".bz2")
# a name that ends so is a file's, and no data set's on the hub
OTHER_SUFFIXES = (".tsv", ".tab", ".txt", ".arrow", ".feather", ".ipc", ".db", ".sqlite", ".sqlite3", ".duckdb", ".xlsx")
# what marks a folder as one data set
MARKS: dict[str, SourceKind] = {
    "dataset_info.json": "saved",
    "dataset_dict.json": "saved",
    "_delta_log": "delta",
    "metadata/*.metadata.json": "iceberg",
    "_versions": "lance",
}


@dataclass(frozen=True)
class Source:
    """A file or data set to read. `name` is what rows and messages call it: never an absolute path. path : a remote file's URL"""

    path: str
    name: str
    kind: SourceKind


def find_sources(paths: str | Path | Sequence[str | Path]) -> list[Source]:
    """Every file and data set that `paths` name, each once, in the order given; a glob's files are sorted.

    What has several names, by `..` or by links, is read once, under the first of them.
    Raises FormatError for what is not there, with the nearest names that are.
    """
    patterns = [paths] if isinstance(paths, str | Path) else list(paths)
    if not patterns:
        raise SettingError("paths is empty; name at least one file, glob, data set folder or hub id.")
    sources = _each_once(source for pattern in patterns for source in _expand(str(pattern)))
    local = [path for path, kind in sources if is_local(kind)]
    root = os.path.commonpath([Path(path).absolute().parent for path in local]) if local else ""
    return [Source(path, _relative(path, root) if is_local(kind) else path, kind) for path, kind in sources]


def _each_once(sources: Iterable[tuple[str, SourceKind]]) -> list[tuple[str, SourceKind]]:
    """The first of those that are one place."""
    first: dict[str, tuple[str, SourceKind]] = {}
    for path, kind in sources:
        first.setdefault(os.path.realpath(path) if is_local(kind) else path, (path, kind))
    return list(first.values())


@contextmanager
def on_this_machine(source: Source) -> Iterator[Source]:
    """The source itself; of a remote file a copy, which is gone afterwards."""
    if source.kind != "remote":
        yield source
        return
    with local_copy(source.path) as path:
        yield replace(source, path=path, kind="file")


def is_local(kind: SourceKind) -> bool:
    """Whether a source is files of this machine."""
    return kind == "file" or kind in FOLDERS


def _relative(path: str, root: str) -> str:
    return Path(path).absolute().relative_to(root).as_posix()


def _expand(path: str) -> list[tuple[str, SourceKind]]:
    if is_remote(path):
        return [(url, "remote") for url in remote_files(path)]
    if Path(path).is_dir():
        return [(path, _folder_kind(path))]
    if Path(path).exists():
        return [(path, "file")]
    if glob.has_magic(path):
        files = sorted(file for file in _matches(path) if Path(file).is_file())
        if not files:
            raise FormatError(f"no file matches {path!r}. {nearest(path)}")
        return [(file, "file") for file in files]
    if _is_hub_id(path):
        return [(path, "hub")]
    raise FormatError(f"there is no file {path!r}. {nearest(path)}")


def _matches(pattern: str) -> Iterator[str]:
    """As glob.glob, but that `**` comes into each folder once, whatever links lead to it: two that lead up would never end."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207  Path.glob refuses absolute patterns
        return
    at = parts.index("**")
    for base in _matches(str(Path(*parts[:at]))):
        for folder in _folders_below(base):
            yield from _matches(str(Path(glob.escape(folder), *(parts[at + 1 :] or "*"))))


def _folders_below(base: str) -> Iterator[str]:
    """The folder and those in it, without hidden ones; each once."""
    visited = set[str]()
    for folder, names, _ in os.walk(base, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if (real := os.path.realpath(folder)) in visited:
            names.clear()
            continue
        visited.add(real)
        yield folder


def _is_hub_id(path: str) -> bool:
    owner, _, name = path.partition("/")
    return (
        bool(owner and name)
        and "/" not in name
        and not path.startswith((".", "~"))
        and suffix_of(path) not in (*KINDS, *OTHER_SUFFIXES)
        and not Path(owner).is_dir()
    )


def suffix_of(path: str) -> str:
    """The ending of a file's name, without that of its packing."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def kind_of(path: str) -> FileKind:
    """What a file is to be written as, by its name. Raises FormatError for a name that says nothing."""
    if (kind := KINDS.get(suffix_of(path))) is None:
        raise FormatError(
            f"cannot tell what kind of file {path!r} is; names end with {', '.join(KINDS)}, perhaps with {' or '.join(PACKED)}."
        )
    return kind


def _folder_kind(path: str) -> SourceKind:
    for mark, kind in MARKS.items():
        if next(Path(path).glob(mark), None) is not None:
            return kind
    raise FormatError(
        f"{path!r} is a folder, and neither one that datasets.save_to_disk wrote nor a Delta, Iceberg or Lance table. "
        f"Name its files, e.g. '{path}/*.jsonl'."
    )


def nearest(path: str) -> str:
    """A sentence that names what is there in place of a file that is not."""
    folder = Path(path).parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(entry.name for entry in folder.iterdir())
    close = get_close_matches(Path(path).name, names, n=3, cutoff=0.5) or names[:5]
    if not close:
        return f"The folder {str(folder)!r} is empty."
    return f"Nearest in {str(folder)!r}: {', '.join(close)}."


def fingerprint(source: Source) -> dict[str, int | str | None]:
    """{name, bytes, sha256} of a file; a data set that is not one file has neither size nor hash."""
    if source.kind == "hub" or source.kind in FOLDERS:
        return {"name": source.name, "bytes": None, "sha256": None}
    with Path(source.path).open("rb") as file:
        return {
            "name": source.name,
            "bytes": Path(source.path).stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
