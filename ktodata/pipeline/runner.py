"""Run a recipe: each stage on what earlier ones found, saved as it ends, not done again while all it depends on is the same."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.digests import digest
from ktodata.engines.engine import current_engine
from ktodata.errors import RunError, SettingError
from ktodata.files import (
    alone_in,
    describe,
    differing,
    digest_file,
    discard,
    make_folder,
    make_way,
    read_note,
    remove_leftovers,
    scan_parquet,
    siblings_of,
    whole_file,
    whole_folder,
    write_note,
)
from ktodata.formats.remote_files import is_remote
from ktodata.formats.withdrawn import WithdrawnIds, own_list
from ktodata.ledger import account, outcomes, write_up
from ktodata.meter import Meter
from ktodata.pipeline.pulled_feedback import pull_for_run
from ktodata.pipeline.recipe import Recipe
from ktodata.pipeline.run_folder import Run, SavedStage, keep_previous, save_result, stage_folder
from ktodata.pipeline.run_stages import ColumnStage, stages_of
from ktodata.pipeline.run_state import RunStage, RunState, key_parts
from ktodata.report.run_changes import PREVIOUS
from ktodata.work_done import heard_by, working_on

# an event is {"kind": "start" | "progress" | "done" | "cached", "stage": name, "number": i, "of": n, ...}; of progress also
# text and, where it is counted, done, total, unit, seconds_left
Notify = Callable[[Mapping[str, Any]], None]
PAGES, PAGE_FILES = "pages", ("README.md", "report.html")  # the note of what they were made from
VERSIONS_OF = (
    "ktodata",
    "polars",
    "numpy",
    "scikit-learn",
    "cleanlab",
    "sentence-transformers",
    "torch",
    "transformers",
    "datasets",
)


def run_plan(plan: Recipe, folder: Path, *, until: str | None = None, notify: Notify = lambda event: None) -> Run:
    """Run a checked recipe once into a run folder, whatever rounds it asks for; `ktodata.run` says what else holds."""
    return _Execution(plan, folder, until, notify).go()


def preview_plan(plan: Recipe, folder: Path) -> list[tuple[str, str]]:
    """For each stage "unchanged", or "runs" and why, without running any."""
    return _Execution(plan, folder, None, lambda event: None).preview()


def rows_before(plan: Recipe, folder: Path, name: str) -> pl.DataFrame | None:
    """The rows as that step would be given them now; None where a stage before it would run, or there is no such step."""
    execution = _Execution(plan, folder, None, lambda event: None)
    execution.preview()
    state = execution.state
    for stage in state.stages:
        if stage.name == name and isinstance(stage, ColumnStage):
            return state.table(stage, stage.columns(state))
        if stage.name not in state.saved:
            break
    return None


def paths_of(plan: Recipe) -> list[str] | None:
    """What a recipe reads, from here; None where it pulls first, which only a run does."""
    return None if plan.pull is not None else _paths(plan, Path())


@dataclass
class _Execution:
    """One go at a recipe."""

    recipe: Recipe
    folder: Path
    until: str | None
    notify: Notify
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        stages = stages_of(self.recipe, _paths(self.recipe, self.folder), self._progress, self.folder)
        self.state = RunState(self.folder, stages)
        names = [stage.name for stage in stages]
        if self.until is not None and self.until not in names:
            raise SettingError(f"--until {self.until}: the recipe has no such stage; it has {', '.join(names)}.")

    def go(self) -> Run:
        _check_run_folder(self.folder, self.recipe.name)
        make_folder(self.folder)
        with alone_in(self.folder):
            remove_leftovers(self.folder)
            _check_nothing_is_removed(self.folder)
            self.started, self.finished_before = _now(), _finished(self.folder)
            if not _is_whole(self.folder):  # one that is stays whole until the rows are read: most failures come before
                self._write_manifest("running")
            if self.recipe.pull is not None:
                pull_for_run(self.folder, self.recipe.pull)
            try:
                self._run_stages()
            except KeyboardInterrupt as stop:
                done = list(self.state.saved)
                stop.add_note(f"stopped after {done[-1]}" if done else "stopped before the first stage was done")
                raise
        return Run(self.folder)

    def _run_stages(self) -> None:
        for stage in self.state.stages:
            self._run_stage(stage)
            if stage is self.state.stages[0]:
                self._remove_other_stages()
            if stage.name == self.until:
                break
        self._finish()

    def _remove_other_stages(self) -> None:
        """A page must not count verdicts, or show figures, of a stage that the recipe no longer has."""
        names = {stage.name for stage in self.state.stages}
        for place in (self.folder / "stages").glob("*/done.json"):
            if place.parent.name not in (*names, PAGES, PREVIOUS):
                discard(place.parent)

    def preview(self) -> list[tuple[str, str]]:
        answers: list[tuple[str, str]] = []
        for stage in self.state.stages:
            saved = SavedStage(stage_folder(self.folder, stage.name))
            # a stage after one that runs has no key yet: what it depends on is not there
            ready = len(self.state.saved) == len(answers)
            parts = key_parts(stage, self.state) if ready and saved.key is not None else {}
            why = self._why(saved, parts) if ready else "what it depends on runs"
            if why is None:
                self.state.saved[stage.name] = saved
            answers.append((stage.name, "unchanged" if why is None else f"runs: {why}"))
        return answers

    def _why(self, saved: SavedStage, parts: Mapping[str, str]) -> str | None:
        """Why a saved result cannot be taken: what it was made of has changed, or what was written; None where it can.

        parts : of the key that the result would have now
        """
        if saved.key is None:
            return "it has not run"
        before = saved.done.get("made_of", {})
        if changed := [what for what in parts if parts[what] != before.get(what)]:
            return f"{' and '.join(changed)} changed"
        if wrong := differing(self.folder, saved.done.get("artefacts", {})):
            return f"{wrong[0]} is not what it wrote" + (f", and {len(wrong) - 1:,} more" if wrong[1:] else "")
        return None

    def _run_stage(self, stage: RunStage) -> None:
        """Run one stage, or read it back when all that it depends on is the same and what it wrote is there."""
        saved, event = SavedStage(stage_folder(self.folder, stage.name)), self._event(stage.name)
        parts = key_parts(stage, self.state)
        why = self._why(saved, parts)
        if why is None:
            self.state.saved[stage.name] = saved
            self.notify({**event, "kind": "cached"})
        else:
            self.notify({**event, "kind": "start", "why": why})
            make_way(self.folder / name for name in saved.done.get("artefacts", {}))
            if stage is self.state.stages[0] and self.finished_before is not None:
                with suppress(RunError):  # of a damaged run nothing is said
                    keep_previous(self.folder, self.finished_before)
            with heard_by(partial(self._progress, stage.name)):
                made = _make(stage, self.state, parts)
            self.notify({**event, "kind": "done", "seconds": made.done["seconds"]})
        self.entries.append(_entry(stage, self.state, cached=why is None))
        self._write_manifest("running")

    def _event(self, name: str) -> dict[str, Any]:
        names = [stage.name for stage in self.state.stages]
        return {"stage": name, "number": names.index(name) + 1, "of": len(names)}

    def _progress(self, name: str, work: Mapping[str, Any]) -> None:
        self.notify({**self._event(name), "kind": "progress", **work})

    # --- what the run says of itself -------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Ledger, counts, card and page. Without shards (--until) there is a ledger, no outcome to account for, and no page."""
        done = [stage for stage in self.state.stages if stage.name in self.state.saved]
        decided, part = self.state.decisions(done), self.state.parts(done)
        row_ids = self.state.rows.read("row_id")["row_id"]
        states = outcomes(row_ids, decided, part=part, split_follows=False)
        complete = "export" in self.state.saved
        empty = pl.DataFrame(schema={"row_id": pl.String, "part": pl.String})
        exported = self.state.saved["export"].read("row_id", "part") if complete else empty
        ledger = write_up(decided, states if complete else states.clear(), exported, self.state.contrary(done))
        make_way(self.folder / name for name in ("ledger.parquet", *PAGE_FILES))
        with whole_file(self.folder / "ledger.parquet") as scratch:
            ledger.write_parquet(scratch)
        quarantined = scan_parquet(self.folder / "quarantine.parquet").select(pl.len()).collect().item()
        rows = account(ledger, row_ids, exported, quarantined_records=quarantined) if complete else {}
        status = "done" if self.until is None else f"stopped after {self.until}"
        self._write_manifest(status, rows, [self.folder / "ledger.parquet"])
        # of half a run a page says little, and takes as long; one that is there must not show what is no longer so
        if complete or self.until is None or any((self.folder / name).exists() for name in PAGE_FILES):
            of = {"stage": "report", "number": len(self.state.stages), "of": len(self.state.stages), "kind": "progress"}
            with heard_by(lambda work: self.notify({**of, **work})):
                write_pages_of(self.folder, [saved.key for saved in self.state.saved.values()])

    def _write_manifest(self, status: str, rows: Mapping[str, int] | None = None, siblings: Sequence[Path] = ()) -> None:
        metrics = {entry["name"]: entry["metrics"] for entry in self.entries}
        manifest = {
            "name": self.recipe.name,
            "status": status,
            "started": self.started,
            "finished": None if status == "running" else _now(),
            "seed": self.recipe.seed,
            "recipe": self.recipe.as_dict(),
            # from the run folder, so that the recipe's relative paths can be found again wherever both are moved
            "recipe_folder": os.path.relpath(self.recipe.folder.resolve(), self.folder.resolve()),
            "recipe_file": self.recipe.file,
            "versions": _versions(),
            "machine": {"python": platform.python_version(), "system": platform.system(), "processor": platform.machine()},
            "engine": str(current_engine()),
            "inputs": metrics.get(self.state.stages[0].name, {}).get("files", []),
            "encoder": next((of["encoder"] for of in metrics.values() if "encoder" in of), None),
            "device": {name: of["device"] for name, of in metrics.items() if "device" in of},
            "rows": dict(rows or {}),
            "stages": self.entries,
        }
        write_note(self.folder / "manifest.json", manifest, siblings)


def make_stage(folder: Path, stage: RunStage) -> SavedStage:
    """Make one stage of a run that is there, as `run` would, and write its manifest and pages anew.

    Raises RunError while another process runs there, and what the stage raises.
    """
    run = Run(folder)
    with alone_in(folder):
        saved = {name: run.stage(name) for name in run.stage_names() if name != stage.name}
        state, manifest = RunState(folder, (stage,), saved), run.manifest
        made = _make(stage, state, key_parts(stage, state))
        siblings = [folder / name for name in siblings_of(folder / "manifest.json")]
        entries = [entry for entry in manifest["stages"] if entry["name"] != stage.name]
        write_note(folder / "manifest.json", {**manifest, "stages": [*entries, _entry(stage, state, cached=False)]}, siblings)
        write_pages_of(folder, [each.key for each in state.saved.values()])
    return made


def _make(stage: RunStage, state: RunState, parts: Mapping[str, str]) -> SavedStage:
    """Run a stage and save what it gives, with the parts of its key."""
    with Meter() as meter:
        result = stage.work(state)
    # the hub may have been asked for a model just now: its commit is known from here on
    made_of = {**parts, "models": digest(dict(stage.models()))}
    note = {
        "key": digest(made_of),
        "made_of": made_of,
        "rows_in": stage.rows_in(state),
        "seconds": round(meter.seconds, 3),
        "peak_mb": round(meter.peak_mb),
    }
    places = [state.folder / path for path in stage.artefacts]
    state.saved[stage.name] = save_result(state.folder, stage.name, result, note, places)
    return state.saved[stage.name]


def _entry(stage: RunStage, state: RunState, *, cached: bool) -> dict[str, Any]:
    """A stage's line of the manifest."""
    saved = state.saved[stage.name]
    dropped = saved.decisions.filter(pl.col("action").is_in(["drop", "quarantine"]))["row_id"].n_unique()
    rows_in = saved.done["rows_in"]
    rows_out = saved.height if rows_in is None or stage.artefacts else rows_in - dropped
    counts = {"rows_in": rows_in, "rows_out": rows_out, "seconds": saved.done["seconds"], "peak_mb": saved.done["peak_mb"]}
    return {"name": stage.name, "key": saved.key, "cached": cached, **counts, "metrics": saved.metrics}


def write_pages_of(folder: Path, keys: Sequence[str | None]) -> None:
    """report.html and README.md, unless those there were made from the very same results."""
    from ktodata.report import write_pages

    key = digest(_page_digest(), keys)
    pages = SavedStage(stage_folder(folder, PAGES))
    if pages.key == key and not differing(folder, pages.done["artefacts"]):
        return
    working_on("writing the page")
    write_pages(folder)
    with whole_folder(pages.folder) as scratch:
        write_note(scratch / "done.json", {"key": key, "artefacts": describe(folder, [folder / name for name in PAGE_FILES])})


def _check_run_folder(folder: Path, name: str) -> None:
    """The folder is new, empty, or holds a run of this name."""
    manifest = folder / "manifest.json"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder for the run.")
    if manifest.is_file():
        try:
            other = read_note(manifest).get("name")
        except RunError:  # it is written anew; stages have notes of their own
            other = name if (folder / "stages").is_dir() else None
        if other != name:
            raise RunError(
                f"{folder} holds the run {other!r}, and this recipe is {name!r}. Give another --out, or remove that folder."
            )
    elif folder.exists() and any(child.name != ".lock" for child in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run: nothing was written there. Give another --out.")


def _check_nothing_is_removed(folder: Path) -> None:
    """Raise RunError where a withdrawal was stopped halfway: caches and files may still hold the records."""
    if (ids := own_list(folder)).is_file() and WithdrawnIds.read(ids).status == "removing":
        raise RunError(f"a withdrawal in {folder} was stopped halfway: `ktodata forget` again, with the same --rows, ends it.")


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds a finished run."""
    with suppress(RunError):
        Run(folder)
        return True
    return False


def _finished(folder: Path) -> str | None:
    """When the run that the folder holds got to its export or its end; None where none did, or another has begun since."""
    with suppress(RunError):
        manifest = read_note(folder / "manifest.json")
        whole = manifest.get("status") in ("done", "stopped after export")  # the latter after `forget`
        return str(manifest["finished"]) if whole else None
    return None


def _looks_like_a_path(text: str, place: Path) -> bool:
    """Whether it is a file, folder or pattern rather than a hub id such as "owner/name", or a URL."""
    return not is_remote(text) and (
        place.exists()
        or any(sign in text for sign in "*?[")
        or bool(Path(text).suffix)
        or text.startswith((".", "/", "~"))
        or "/" not in text
    )


def _paths(plan: Recipe, folder: Path) -> list[str]:
    """The paths to ingest; a hub id stays as it is. folder : the run's, where what was pulled lies"""
    given = plan.ingest.settings["paths"]
    if plan.pull is not None:
        return [str(folder / given)]
    places = {str(path): plan.folder / Path(path).expanduser() for path in ([given] if isinstance(given, str | Path) else given)}
    return [str(place) if _looks_like_a_path(path, place) else path for path, place in places.items()]


@cache
def _page_digest() -> str:
    """Of the code that makes pages, templates and styles included."""
    package = Path(__file__).parents[1]
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".j2", ".css"))
    return digest([(path.relative_to(package).as_posix(), digest_file(path)) for path in sources])


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in VERSIONS_OF:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
