"""Run a recipe: each stage on what earlier ones found, saved as it ends, not done again while all it depends on is the same."""

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from ktodata.errors import EmptyDataError, RunError, SettingError
from ktodata.feedback import COLUMNS
from ktodata.files import digest_file, read_json, remove_leftovers, whole_file, whole_folder, write_json
from ktodata.formats.prompts import read_prompts
from ktodata.formats.verdicts.reviews import Reviews, join_reviews, read_reviews
from ktodata.labels.evidence.training_dynamics import join_dynamics
from ktodata.ledger import StageDecisions, account, outcomes, write_up
from ktodata.meter import Meter
from ktodata.pipeline.pulled_feedback import pull_for_run
from ktodata.pipeline.recipe import Recipe, RecipeStep, takes_prompts
from ktodata.pipeline.run_folder import Run, SavedStage, digest, save_result, stage_folder, truth_from
from ktodata.settings import settings_of
from ktodata.stage import StageResult
from ktodata.train.results.telemetry_file import read_telemetry

# an event is {"kind": "start" | "progress" | "done" | "cached", "stage": name, "number": i, "of": n, ...}
Notify = Callable[[Mapping[str, Any]], None]
# what a stage writes beside its own folder: when that is gone, the stage runs again
WRITES_BESIDE = {"ingest": "quarantine.parquet", "export": "shards", "train": "model", "evaluate": "evaluation.json"}
# what is known of rows from elsewhere, joined right after they are read, and the column that holds it
JOINED = {"reviews": "trusted_label", "telemetry": "training_dynamics"}
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
    """For each stage "unchanged" or "runs", without running any."""
    return _Execution(plan, folder, None, lambda event: None).preview()


def paths_of(plan: Recipe) -> list[str] | None:
    """What a recipe reads, from here; None where it pulls first, which only a run does."""
    return None if plan.pull is not None else _Execution(plan, Path(), None, lambda event: None).paths()


@dataclass
class _Execution:
    """One go at a recipe: what is known so far, and the steps that add to it."""

    recipe: Recipe
    folder: Path
    until: str | None
    notify: Notify
    saved: dict[str, SavedStage] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = self.names()
        if self.until is not None and self.until not in names:
            raise SettingError(f"--until {self.until}: the recipe has no such stage; it has {', '.join(names)}.")
        # before anything else runs: a word that is no verdict must not come to light after an hour of reading
        self.reviews = self._read_reviews()
        self.telemetry = None if self.recipe.telemetry is None else read_telemetry(self._recipe_path(self.recipe.telemetry))

    def names(self) -> list[str]:
        after = [name for name in ("train", "evaluate") if getattr(self.recipe, name) is not None]
        joined = [name for name in JOINED if getattr(self.recipe, name)]
        return ["ingest", *joined, *(step.name for step in self.recipe.steps), "export", *after]

    def go(self) -> Run:
        _check_run_folder(self.folder, self.recipe.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone_in(self.folder):
            remove_leftovers(self.folder)
            for name in JOINED:
                if name not in self.names():
                    # a page must not count the verdicts of an earlier run; they are joined again in no time
                    shutil.rmtree(stage_folder(self.folder, name), ignore_errors=True)
            self.started = _now()
            self._write_manifest("running")
            if self.recipe.pull is not None:
                pull_for_run(self.folder, self.recipe.pull)
            for name in self.names():
                self._run_stage(name)
                if name == self.until:
                    break
            self._finish()
        return Run(self.folder)

    def preview(self) -> list[tuple[str, str]]:
        answers: list[tuple[str, str]] = []
        for name in self.names():
            # a stage after one that runs has no key yet: what it depends on is not there
            saved = self._unchanged(name, self._stage_key(name)) if len(self.saved) == len(answers) else None
            if saved is not None:
                self.saved[name] = saved
            answers.append((name, "runs" if saved is None else "unchanged"))
        return answers

    def _unchanged(self, name: str, key: str) -> SavedStage | None:
        """The saved result of a stage, if it was made from the very same things and what it wrote beside it is there."""
        saved = SavedStage(stage_folder(self.folder, name))
        return saved if saved.key == key and (self.folder / WRITES_BESIDE.get(name, ".")).exists() else None

    def _run_stage(self, name: str) -> None:
        """Run one stage, or read it back when its key is the same."""
        key, event = self._stage_key(name), self._event(name)
        unchanged = self._unchanged(name, key)
        if unchanged is not None:
            self.saved[name] = unchanged
            self.notify({**event, "kind": "cached"})
        else:
            self.notify({**event, "kind": "start"})
            with Meter() as meter:
                result = self._work(name)
            note = {
                "key": key,
                "rows_in": self._rows_before(name),
                "seconds": round(meter.seconds, 3),
                "peak_mb": round(meter.peak_mb),
            }
            self.saved[name] = save_result(self.folder, name, result, note)
            self.notify({**event, "kind": "done", "seconds": meter.seconds})
        self.entries.append(self._entry(name, cached=unchanged is not None))
        self._write_manifest("running")

    def _event(self, name: str) -> dict[str, Any]:
        return {"stage": name, "number": self.names().index(name) + 1, "of": len(self.names())}

    def _work(self, name: str) -> StageResult:
        own = {
            "ingest": self._ingest,
            "reviews": self._join_reviews,
            "telemetry": self._join_telemetry,
            "export": self._export,
            "train": self._train,
            "evaluate": self._evaluate,
        }
        if name in own:
            return own[name]()
        step = self._step_of(name)
        return step.stage.function(self._input(step), **self._arguments(step))

    # --- what a stage is given ---------------------------------------------------------------------------------------

    def _step_of(self, name: str) -> RecipeStep:
        return next(step for step in (self.recipe.ingest, *self.recipe.steps, self.recipe.export) if step.name == name)

    def _before(self, name: str) -> list[RecipeStep]:
        """The steps between ingest and `name`."""
        order = [step.name for step in self.recipe.steps]
        return list(self.recipe.steps[: order.index(name)] if name in order else self.recipe.steps)

    def _providers(self, step: RecipeStep) -> dict[str, str]:
        """For each column that the step is given, the stage that added it (the last one that did)."""
        columns = {*step.stage.needs, *step.stage.uses} - {"state"}
        providers = dict.fromkeys(self.saved["ingest"].columns.columns, "ingest")
        providers |= {column: name for name, column in JOINED.items() if name in self.saved}
        for earlier in self._before(step.name):
            providers |= dict.fromkeys(earlier.stage.adds, earlier.name)
        if step.name == "export":
            # shards do not hold it, so they do not change with it
            return {column: name for column, name in providers.items() if name != "telemetry"}
        return {column: name for column, name in providers.items() if column in columns}

    def _states(self, name: str) -> pl.DataFrame:
        """row_id, state, gone of every row as stage `name` finds them (or as they end, for export)."""
        earlier = self._before(name)
        part = self._split_parts() if any(step.name == "split" for step in earlier) else None
        split_follows = part is None and any(step.name == "split" for step in self.recipe.steps) and name != "export"
        return outcomes(
            self.saved["ingest"].columns["row_id"], self._decisions_of(earlier), part=part, split_follows=split_follows
        )

    def _decisions_of(self, steps: Sequence[RecipeStep]) -> list[StageDecisions]:
        done = [step for step in steps if step.name in self.saved]
        taken = [StageDecisions(step.name, step.stage.applies_to, self.saved[step.name].decisions) for step in done]
        # people's verdicts come before every step; held-out rows keep their natural mix, whatever is said of them
        by_people = [StageDecisions("reviews", "train", self.saved["reviews"].decisions)] if "reviews" in self.saved else []
        return [*by_people, *taken]

    def _split_parts(self) -> pl.DataFrame | None:
        return self.saved["split"].columns if "split" in self.saved else None

    def _input(self, step: RecipeStep) -> pl.DataFrame:
        """The rows that may still be exported, with the columns that the step asked for and `state`."""
        states = self._states(step.name).filter(~pl.col("gone")).select("row_id", "state")
        if states.is_empty():
            raise EmptyDataError(f"no row is left for {step.name}: see what dropped them in {self.folder / 'stages'}.")
        columns_of: dict[str, list[str]] = {}
        for column, provider in self._providers(step).items():
            columns_of.setdefault(provider, []).append(column)
        for provider, columns in columns_of.items():
            table = self.saved[provider].columns.select("row_id", *(column for column in columns if column != "row_id"))
            states = states.join(table, on="row_id", how="left", maintain_order="left")
        return states

    def _arguments(self, step: RecipeStep) -> dict[str, Any]:
        parameters = settings_of(step.stage.function)
        return {
            name: read_prompts(self._recipe_path(value)) if takes_prompts(parameters[name]) and isinstance(value, str) else value
            for name, value in step.settings.items()
        }

    def _recipe_path(self, path: str) -> Path:
        """A path of the recipe, from the recipe's own folder."""
        return self.recipe.folder / Path(path).expanduser()

    def paths(self) -> list[str]:
        """The paths to ingest; a hub id stays as it is."""
        given = self.recipe.ingest.settings["paths"]
        if self.recipe.pull is not None:
            return [str(self.folder / given)]
        paths = [given] if isinstance(given, str | Path) else list(given)
        return [
            str(self._recipe_path(str(path))) if _looks_like_a_path(str(path), self._recipe_path(str(path))) else str(path)
            for path in paths
        ]

    # --- the stages that touch files -----------------------------------------------------------------------------------

    def _ingest(self) -> StageResult:
        from ktodata.stages.ingest import ingest

        read = ingest(**{**self.recipe.ingest.settings, "paths": self.paths()})
        with whole_file(self.folder / "quarantine.parquet") as scratch:
            read.quarantine.write_parquet(scratch)
        if read.feedback.is_empty():
            raise EmptyDataError(
                f"none of {read.quarantine.height:,} records became a row; {self.folder / 'quarantine.parquet'} says why."
            )
        return StageResult(read.feedback, metrics=read.metrics)

    def _read_reviews(self) -> Reviews | None:
        files = [self._recipe_path(path) for path in self.recipe.reviews]
        return read_reviews(files) if files else None

    def _join_reviews(self) -> StageResult:
        assert self.reviews is not None
        return join_reviews(self.saved["ingest"].columns, self.reviews)

    def _join_telemetry(self) -> StageResult:
        assert self.telemetry is not None
        joined = join_dynamics(self.saved["ingest"].columns, self.telemetry.observations, beta=self.telemetry.beta)
        return StageResult(joined.columns, metrics={**self.telemetry.metrics, **joined.metrics})

    def _export(self) -> StageResult:
        from ktodata.formats.shards import write_shards
        from ktodata.stages.export import Conversational, shard_table

        step = self._step_of("export")
        feedback = self._input(step)
        result = step.stage.function(feedback, **step.settings)
        metadata = [name for name in self.saved["ingest"].columns.columns if name not in COLUMNS]
        conversational: Conversational = "always" if result.metrics["conversational"] else "never"
        table = shard_table(feedback, result.columns, conversational=conversational, metadata=metadata)
        with whole_folder(self.folder / "shards") as scratch:
            checksums = write_shards(table, scratch)
        return StageResult(result.columns, result.decisions, {**result.metrics, "checksums": checksums}, result.tables)

    def _train(self) -> StageResult:
        from ktodata.train import fit

        def notify_step(line: Mapping[str, Any]) -> None:
            if "step" in line and "steps" in line:
                self.notify({**self._event("train"), "kind": "progress", "text": f"update {line['step']} of {line['steps']}"})

        settings = self.recipe.train or {}
        fitted = fit(
            self.folder / "shards", out=self.folder / "model", progress=notify_step, resume=self._same_training(), **settings
        )
        return StageResult(fitted.per_row(), metrics=fitted.metrics)

    def _same_training(self) -> bool:
        """Whether checkpoints in model/ are of this very training; notes that the training is now this one."""
        note, key = self.folder / "stages" / "train.key.json", self._stage_key("train")
        same = note.exists() and json.loads(note.read_text()) == key
        write_json(note, key)
        return same

    def _evaluate(self) -> StageResult:
        from ktodata.evaluate import evaluate

        evaluation = evaluate(self.folder, **self._evaluate_settings())
        write_json(self.folder / "evaluation.json", evaluation.as_dict())
        return StageResult(evaluation.per_row, metrics=evaluation.as_dict())

    def _evaluate_settings(self) -> dict[str, Any]:
        return truth_from(self.recipe.folder, self.recipe.evaluate or {})

    # --- what a result depends on ----------------------------------------------------------------------------------------

    def _stage_key(self, name: str) -> str:
        if name == "ingest":
            return digest("ingest", _code_digest(), {**self.recipe.ingest.settings, "paths": None}, _content_of(self.paths()))
        if name == "reviews" and self.reviews is not None:
            files = [(file["name"], file["sha256"]) for file in self.reviews.metrics["files"]]
            return digest("reviews", _code_digest(), files, self.saved["ingest"].done["digests"]["columns"])
        if name == "telemetry" and self.telemetry is not None:
            made_of = self.telemetry.digest, self.telemetry.beta
            return digest("telemetry", _code_digest(), made_of, self.saved["ingest"].done["digests"]["columns"])
        if name == "train":
            return digest("train", _code_digest(), self.recipe.train, self.saved["export"].metrics["checksums"])
        if name == "evaluate":
            settings = self._evaluate_settings()
            return digest("evaluate", _code_digest(), settings, self._truth_digest(settings), self.saved["train"].key)
        step = self._step_of(name)
        providers = self._providers(step)
        sources = {column: self.saved[provider].done["digests"]["columns"] for column, provider in providers.items()}
        states = self._states(name)
        state_columns = {"state"} & {*step.stage.needs, *step.stage.uses} or name == "export"
        alive = states.filter(~pl.col("gone")).select("row_id", *(["state"] if state_columns else []))
        prompts = [digest_file(self._recipe_path(value)) for value in self._prompt_files(step)]
        return digest(name, _code_digest(), step.settings, sources, _frame_digest(alive), prompts)

    def _truth_digest(self, settings: Mapping[str, Any]) -> str | None:
        if not settings["truth"]:
            return None
        path = Path(settings["truth"]["path"])
        if not path.is_file():
            raise SettingError(f"evaluate: truth: there is no file {path}.")
        return digest_file(path)

    def _prompt_files(self, step: RecipeStep) -> Iterator[str]:
        parameters = settings_of(step.stage.function)
        for name, value in step.settings.items():
            if takes_prompts(parameters[name]) and isinstance(value, str):
                if not self._recipe_path(value).is_file():
                    raise SettingError(f"{step.name}: {name}: there is no file {self._recipe_path(value)}.")
                yield value

    # --- what the run says of itself -------------------------------------------------------------------------------------

    def _rows_before(self, name: str) -> int | None:
        if name == "ingest":
            return None
        if name in JOINED:
            return self.saved["ingest"].columns.height
        before = self._states(name if name not in ("train", "evaluate") else "export")
        return before.height - int(before["gone"].sum())

    def _entry(self, name: str, *, cached: bool) -> dict[str, Any]:
        saved = self.saved[name]
        dropped = saved.decisions.filter(pl.col("action").is_in(["drop", "quarantine"]))["row_id"].n_unique()
        rows_in = saved.done["rows_in"]
        rows_out = saved.columns.height if rows_in is None or name in ("export", "train", "evaluate") else rows_in - dropped
        counts = {"rows_in": rows_in, "rows_out": rows_out, "seconds": saved.done["seconds"], "peak_mb": saved.done["peak_mb"]}
        return {"name": name, "cached": cached, **counts, "metrics": saved.metrics}

    def _finish(self) -> None:
        """Ledger, counts, card and page. Without shards (--until) there is a ledger, but no outcome to account for yet."""
        decided = self._decisions_of([*self.recipe.steps, self.recipe.export])
        complete = "export" in self.saved
        states = outcomes(self.saved["ingest"].columns["row_id"], decided, part=self._split_parts(), split_follows=False)
        exported = self.saved["export"].columns if complete else pl.DataFrame(schema={"row_id": pl.String, "part": pl.String})
        ledger = write_up(decided, states, exported) if complete else write_up(decided, states.clear(), exported)
        with whole_file(self.folder / "ledger.parquet") as scratch:
            ledger.write_parquet(scratch)
        quarantined = pl.scan_parquet(self.folder / "quarantine.parquet").select(pl.len()).collect().item()
        rows = account(states, exported, quarantined_records=quarantined) if complete else {}
        self._write_manifest("done" if self.until is None else f"stopped after {self.until}", rows)
        self._write_pages()

    def _write_pages(self) -> None:
        """report.html and README.md, unless those there were made from the very same results."""
        from ktodata.report import write_pages

        key = digest(_code_digest("report"), [saved.key for saved in self.saved.values()])
        pages = SavedStage(stage_folder(self.folder, "pages"))
        if pages.key == key and (self.folder / "report.html").exists():
            return
        write_pages(self.folder)
        with whole_folder(pages.folder) as scratch:
            write_json(scratch / "done.json", {"key": key})

    def _write_manifest(self, status: str, rows: Mapping[str, int] | None = None) -> None:
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
            "versions": _versions(),
            "machine": {"python": platform.python_version(), "system": platform.system(), "processor": platform.machine()},
            "inputs": metrics.get("ingest", {}).get("files", []),
            "encoder": metrics.get("embed", {}).get("encoder"),
            "device": {
                name: metrics[name]["device"] for name in ("embed", "train", "evaluate") if "device" in metrics.get(name, {})
            },
            "rows": dict(rows or {}),
            "stages": self.entries,
        }
        write_json(self.folder / "manifest.json", manifest)


def _check_run_folder(folder: Path, name: str) -> None:
    """The folder is new, empty, or holds a run of this name."""
    manifest = folder / "manifest.json"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder for the run.")
    if manifest.is_file():
        try:
            other = read_json(manifest).get("name")
        except json.JSONDecodeError:
            other = None
        if other != name:
            raise RunError(
                f"{folder} holds the run {other!r}, and this recipe is {name!r}. Give another --out, or remove that folder."
            )
    elif folder.exists() and any(child.name != ".lock" for child in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run: nothing was written there. Give another --out.")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two processes never write one run folder."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is running in {folder}; wait for it, or give another --out.") from None
        yield


def _looks_like_a_path(text: str, place: Path) -> bool:
    """Whether it is a file, folder or pattern rather than a hub id such as "owner/name"."""
    return (
        place.exists()
        or any(sign in text for sign in "*?[")
        or bool(Path(text).suffix)
        or text.startswith((".", "/", "~"))
        or "/" not in text
    )


def _content_of(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Name and digest of every file that the paths stand for; a hub id stands for itself."""
    contents: list[tuple[str, str]] = []
    for path in paths:
        files = _files_under(Path(path))
        contents += [(file.name, digest_file(file)) for file in files] or [(path, "")]
    return contents


def _files_under(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in path.parent.glob(path.name) if file.is_file()) if path.parent.is_dir() else []


def _frame_digest(frame: pl.DataFrame) -> str:
    hasher = xxhash.xxh3_64()
    for column in frame.columns:
        hasher.update("\n".join(frame[column].to_list()).encode())
    return hasher.hexdigest()


@cache
def _code_digest(*also: str) -> str:
    """The digest of the code that makes results: another version of a stage makes another result."""
    package = Path(__file__).parents[1]
    apart = {"cli.py", "progress.py", "__init__.py", "datasets.py", "notebook.py", "report", "review"} - set(also)
    endings = (".py", ".j2", ".css")
    sources = sorted(path.relative_to(package) for path in package.rglob("*") if path.suffix in endings)
    return digest([(str(path), digest_file(package / path)) for path in sources if not apart & set(path.parts)])


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
