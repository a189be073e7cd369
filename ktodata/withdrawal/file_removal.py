"""The files of a run folder: its own that hold rows are removed, to be made again; others lose the records that go."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.files import discard, is_run, read_note, read_own_table, siblings_of, whole_file, write_note
from ktodata.formats.withdrawn import LIST
from ktodata.withdrawal.file_contents import is_legible, without_marked, write_content
from ktodata.withdrawal.withdrawn_texts import Marks

# all that a run makes of its rows, but for what ingest left, which says which rows go, and is removed last
MADE = ("shards", "ledger.parquet", "quarantine.parquet", "report.html", "README.md", "evaluation.json", "pulled")
# what other commands have made of them: whoever wants it again calls those
ON_DEMAND = {
    "ablation": "ktodata ablate",
    "ablation.json": "ktodata ablate",
    "ablation.parquet": "ktodata ablate",
    "comparison": "ktodata compare",
    "report-without-text.html": "ktodata report --no-text",
    "audit.html": "ktodata audit",
    "self_training.json": "ktodata run",
}
KEPT = ("manifest.json", LIST, "withdrawals", "model", "reviews/reviews.sqlite", "rounds", "stages", ".lock", *MADE, *ON_DEMAND)


@dataclass
class FileChanges:
    """removed : places that are gone. rewritten : {file: records that it lost}. unread : files that nobody could look into

    Places are named as they may stand in a receipt: without what gives a row away.
    """

    removed: list[str] = field(default_factory=list)
    rewritten: dict[str, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def remove_from_other_files(folder: Path, marks: Marks, changes: FileChanges, *, dry: bool = False) -> None:
    """Take what holds one of the marks out of the files that are not the run's own: of a table its records, else the file.

    A run that lies in the folder, such as an audit's, goes as a whole.
    """
    for place in _other_places(folder, marks):
        parts = place.relative_to(folder).parts
        hidden = marks.held(parts)
        shown = "/".join("…" if hides else part for part, hides in zip(parts, hidden, strict=True))
        if place.is_symlink():
            changes.unread.append(f"{shown} (a link)")
        elif any(hidden) or (place.is_dir() and holding(place, marks)):
            changes.removed.append(shown)
            if not dry:
                remove_place(place)
        elif place.is_file():
            _remove_from_file(place, shown, marks, changes, dry=dry)


def _remove_from_file(file: Path, name: str, marks: Marks, changes: FileChanges, *, dry: bool) -> None:
    stays = without_marked(file, marks)
    if stays is None:
        changes.unread.append(name)
    elif stays.lost:
        if stays.content is None:
            changes.removed.append(name)
        else:
            changes.rewritten[name] = stays.lost
        if not dry:
            write_content(file, stays.content)


def holding(folder: Path, marks: Marks) -> list[str]:
    """The files in a folder, whoever made them, that hold one of the marks."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink() and is_legible(file)]
    unmarked = {file.relative_to(folder).as_posix(): without_marked(file, marks) for file in files}
    return [name for name, stays in unmarked.items() if stays is not None and stays.lost]


def remove_made(folder: Path, changes: FileChanges, *, dry: bool = False) -> None:
    """Remove what the run, and commands since, have made of its rows; ingest's own result stays."""
    stages = sorted(place.relative_to(folder).as_posix() for place in (folder / "stages").glob("*") if place.name != "ingest")
    rounds = sorted(place.relative_to(folder).as_posix() for place in (folder / "rounds").glob("*") if place.name != "0")
    checkpoints = "model/checkpoints"
    for name in (*stages, *rounds, checkpoints, *MADE, *ON_DEMAND):
        if (folder / name).exists():
            changes.removed.append(name)
            if not dry:
                remove_place(folder / name)


def remove_place(place: Path) -> None:
    """A file or a folder, if it is there."""
    if place.is_dir() and not place.is_symlink():
        discard(place)
    else:
        place.unlink(missing_ok=True)


def remove_from_model(folder: Path, row_ids: pl.Series, changes: FileChanges, *, dry: bool = False) -> int:
    """Take the rows out of what training wrote down of each; how many of them it was trained or measured on. Weights stay."""
    note, telemetry = folder / "model" / "training.json", folder / "model" / "telemetry.parquet"
    if not (note.is_file() and telemetry.is_file()):
        return 0
    table, training = read_own_table(telemetry), read_note(note)
    goes = pl.col("row_id").is_in(row_ids.implode())
    lost, stays = table.filter(goes), _without_items(training, set(row_ids))
    if not dry and (lost.height or stays != training):
        siblings = siblings_of(note)
        with whole_file(telemetry) as scratch:
            table.filter(~goes).write_parquet(scratch)
        write_note(note, stays, [note.with_name(name) for name in siblings if note.with_name(name).exists()])
    if lost.height:
        changes.rewritten["model/telemetry.parquet"] = lost.height
    if stays != training:
        changes.rewritten["model/training.json"] = 1
    return lost["row_id"].n_unique()


def _without_items(value: Any, gone: set[str]) -> Any:
    """A JSON value whose lists lack these texts."""
    if isinstance(value, dict):
        return {key: _without_items(inner, gone) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_items(inner, gone) for inner in value if not (isinstance(inner, str) and inner in gone)]
    return value


def _other_places(folder: Path, marks: Marks) -> Iterator[Path]:
    """Files and links that are not the run's own, and folders that go as a whole: other runs, and those named by an id."""
    passed = [folder / name for name in KEPT]
    for place in sorted(folder.rglob("*")):
        if place.name.startswith(("reviews.sqlite-", ".lock")) or any(above in (place, *place.parents) for above in passed):
            continue
        if place.is_dir() and not place.is_symlink():
            if not (is_run(place) or any(marks.held([place.name]))):
                continue
            passed.append(place)
        yield place
