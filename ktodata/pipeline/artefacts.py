"""What a stage has written, with size, time and digest: so that a file that was changed, cut or swapped is never taken for it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ktodata.files import digest_file

Artefacts = Mapping[str, Mapping[str, int | str]]


def describe(root: Path, places: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """{path below root: bytes, changed, digest} of every file that the places are or hold. changed : nanoseconds"""
    return {file.relative_to(root).as_posix(): _describe_file(file) for place in places for file in _files_in(place)}


def differing(root: Path, artefacts: Artefacts) -> list[str]:
    """The files that are gone, are no longer what was written, or stand among the tables of a folder without having been written.

    A file of the same size and time is taken to be the same; one of another time is read, and the same if its content is.
    """
    wrong = [name for name, written in artefacts.items() if not _is_same(root / name, written)]
    folders = {(root / name).parent for name in artefacts if name.endswith(".parquet")} - {root}
    there = {file.relative_to(root).as_posix() for folder in folders if folder.is_dir() for file in folder.glob("*.parquet")}
    return sorted({*wrong, *(there - set(artefacts))})


def _is_same(file: Path, written: Mapping[str, int | str]) -> bool:
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
