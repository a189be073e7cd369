"""Whether a run folder still holds what its notes speak of: each file that is gone or another, and what makes it again."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ktodata.errors import RunError
from ktodata.files import is_note, is_same, read_note, siblings_of

# no card shows a figure of these: weights are often removed to save room, and arms are what an experiment goes on from
NOT_SHOWN = ("model/", "ablation/", "comparison/arms/")
# notes of report.html and README.md, which are made anew and read by nobody, and of a training that is not over: it checks it
NO_MATTER = ("stages/pages/done.json", "stages/train.key.json")
# what is not made by `run`: where it lies, and what makes it again; an arm that is half there is refused by its own command
COMMANDS = (
    ("comparison/arms/", "remove {folder}, and `ktodata compare {run}` trains it again"),
    ("comparison/", "`ktodata compare {run}` makes it again"),
    ("ablation/", "remove {folder}, and `ktodata ablate {run}` trains it again"),
    ("ablation.", "`ktodata ablate {run}` makes it again"),
)
STAGE_COMMANDS = {"train": ("model/", "`ktodata train {run}`"), "evaluate": ("evaluation.", "`ktodata evaluate {run}`")}
PLACES = tuple(place for place, _ in (*COMMANDS, *STAGE_COMMANDS.values()))  # a table there has a note
Fault = Literal["gone", "changed", "without note"]
VERBS: dict[str, tuple[str, str]] = {
    "gone": ("is gone", "are gone"),
    "changed": ("was changed or damaged since", "were changed or damaged since"),
    "without note": ("is there without the note that says what it is", "are there without the note that says what they are"),
}
AGAIN = "`ktodata run` again with its recipe makes it anew"


@dataclass(frozen=True)
class FileFault:
    """file : below the run folder. remedy : what makes it again, in words, with {run} and {folder} for where it is"""

    file: str
    fault: Fault
    remedy: str

    @property
    def is_shown(self) -> bool:
        """Whether the card of the run, or what is shared of it, is made of it."""
        return not self.file.startswith(NOT_SHOWN)


def check_finished(run: Path, manifest: Mapping[str, Any]) -> None:
    """Raise RunError where the run goes still, failed or was killed: of half a run there is no figure that is not wrong.

    manifest : the run's. A run of which no more was asked for (--until, an audit) is finished.
    """
    status = str(manifest.get("status", "done"))
    if status != "done" and not status.startswith("stopped after"):
        done = ", ".join(entry["name"] for entry in manifest.get("stages", ())) or "none"
        raise RunError(
            f"{run} holds no finished run (status: {status}; stages done: {done}). If it runs no more, it failed or was "
            "stopped: `ktodata run` again with its recipe (or `ktodata audit` again) takes it up where it stopped."
        )


def faults_of(run: Path, manifest: Mapping[str, Any]) -> list[FileFault]:
    """Every file that a note in the run folder speaks of and that is gone, or is not the one that it speaks of.

    Also each table whose note is gone. Sizes and times are compared first, contents only where times differ. manifest : the run's
    """
    stages = {entry["name"]: entry.get("key") for entry in manifest.get("stages", ())}
    spoken_of = dict(_spoken_of(run)) | _stages_of_another_making(run, stages)
    wrong = [file for file, written in spoken_of.items() if not written or not is_same(run / file, written)]
    faults: dict[str, Fault] = {file: "changed" if (run / file).exists() else "gone" for file in wrong}
    tables = (file.relative_to(run) for file in run.rglob("*.parquet") if not _is_hidden(file, run))
    alone = (file.as_posix() for file in tables if file.as_posix().startswith(PLACES) and file.as_posix() not in spoken_of)
    faults |= dict.fromkeys(alone, "without note")
    return [FileFault(file, fault, _remedy(file, stages)) for file, fault in sorted(faults.items())]


def fault_lines(faults: list[FileFault], place: str) -> list[str]:
    """A sentence for all files of one fault that one command makes again. place : of the run, as one would type it"""
    alike: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        folder = shlex.quote(f"{place}/{Path(fault.file).parent.as_posix()}")
        remedy = fault.remedy.format(run=shlex.quote(place), folder=folder)
        alike.setdefault((fault.fault, remedy), []).append(fault.file)
    return [_line(files, *how) for how, files in alike.items()]


def _line(files: list[str], fault: str, remedy: str) -> str:
    more = f" and {len(files) - 1:,} more" if files[1:] else ""
    one, many = VERBS[fault]
    return f"{files[0]}{more} {many if more else one}: {remedy}."


def _spoken_of(run: Path) -> Iterator[tuple[str, Mapping[str, int | str]]]:
    """(file, what was written there) as each note says; nothing was written where the note itself is not whole.

    Of a folder with a note of its own (a model's), a stage's note says nothing more: `ktodata train` may have made another.
    """
    notes = [file for file in sorted(run.rglob("*.json")) if not _is_hidden(file, run) and is_note(file)]
    of_stages: dict[str, Mapping[str, int | str]] = {}
    own = set[str]()
    for note in notes:
        place = note.parent.relative_to(run)
        if (place / note.name).as_posix() in NO_MATTER:
            continue
        try:
            siblings, artefacts = siblings_of(note), read_note(note).get("artefacts", {})
        except RunError:
            yield (place / note.name).as_posix(), {}
            continue
        of_stages |= artefacts
        own |= {place.as_posix()} if siblings else set()
        yield from (((place / name).as_posix(), of) for name, of in siblings.items())
    for file, of in of_stages.items():
        if not own & {parent.as_posix() for parent in Path(file).parents[:-1]}:
            yield file, of


def _is_hidden(file: Path, run: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(run).parts)


def _stages_of_another_making(run: Path, stages: Mapping[str, str | None]) -> dict[str, dict[str, int | str]]:
    """The notes of stages that are gone, or have another key than the manifest says."""
    places = {f"stages/{name}/done.json": key for name, key in stages.items() if key is not None}
    return {place: {} for place, key in places.items() if _key_in(run / place) != key}


def _key_in(note: Path) -> str | None:
    try:
        return read_note(note).get("key")
    except (RunError, OSError):
        return None


def _remedy(file: str, stages: Collection[str]) -> str:
    places = [*COMMANDS]
    places += [(place, f"{command} makes it again") for stage, (place, command) in STAGE_COMMANDS.items() if stage not in stages]
    return next((words for start, words in places if file.startswith(start)), AGAIN)
