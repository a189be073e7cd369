"""The stages of a run, each of one protocol (run_state.RunStage): those of a recipe's steps, and those that touch files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from ktodata.errors import EmptyDataError, RunError, SettingError
from ktodata.feedback import COLUMNS, VECTORS
from ktodata.files import describe, differing, digest_file, read_note, whole_file, whole_folder, write_note
from ktodata.formats.data_files import find_sources, is_local
from ktodata.formats.prompts import read_prompts
from ktodata.formats.remote_files import remote_version
from ktodata.formats.verdicts.reviews import Reviews, join_reviews, read_reviews, words_of
from ktodata.formats.withdrawn import WithdrawnIds, leaving_out, own_list, staying
from ktodata.labels.evidence.training_dynamics import join_dynamics
from ktodata.models import model_digest
from ktodata.pipeline.recipe import Recipe, RecipeStep, takes_prompts
from ktodata.pipeline.run_folder import places_from, stage_folder
from ktodata.pipeline.run_state import RunStage, RunState, frame_digest, key_parts
from ktodata.settings import settings_of
from ktodata.stage import StageResult
from ktodata.train.results.telemetry_file import Telemetry, read_telemetry
from ktodata.work_done import working_on

NAMES_A_MODEL = ("model", "tokenizer", "encoder", "reference")  # settings of that name, wherever they stand
Progress = Callable[[str, Mapping[str, Any]], None]  # (stage, how far it is: work_done.Listener)


def stages_of(
    recipe: Recipe, paths: Sequence[str], progress: Progress = lambda stage, work: None, run: Path | None = None
) -> tuple[RunStage, ...]:
    """The recipe's stages in order. paths : what ingest reads; run : a folder whose own list of withdrawn records holds, too

    Raises what `read_reviews`, `read_telemetry` and `WithdrawnIds.read` raise: a word that is no verdict must not come to light
    after an hour.
    """
    reviews = [recipe.folder / Path(path).expanduser() for path in recipe.reviews]
    lists = [recipe.folder / Path(path).expanduser() for path in recipe.withdrawn]
    own = [own_list(run)] if run is not None and own_list(run).is_file() else []
    withdrawn = tuple({path.resolve(): WithdrawnIds.read(path) for path in [*lists, *own]}.values())
    stages: list[RunStage] = [Ingest(recipe.ingest, paths, withdrawn)]
    if reviews:
        stages.append(JoinedReviews(read_reviews(reviews, words_of(recipe.ingest.settings["label"])).without(withdrawn)))
    if recipe.telemetry is not None:
        telemetry = read_telemetry(recipe.folder / Path(recipe.telemetry).expanduser())
        seen = telemetry.observations.filter(staying(telemetry.observations, withdrawn))
        stages.append(JoinedTelemetry(replace(telemetry, observations=seen)))
    stages += [ColumnStage(step, recipe.folder) for step in recipe.steps]
    stages.append(Export(recipe.export, recipe.folder))
    if recipe.train is not None:
        stages.append(Train(recipe.train, progress))
    if recipe.evaluate is not None:
        stages.append(Evaluate(places_from(recipe.folder, recipe.evaluate), progress))
    return tuple(stages)


def models_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """What the models that settings name stand for at present."""
    return {name: model_digest(settings[name]) for name in NAMES_A_MODEL if isinstance(settings.get(name), str)}


@dataclass(frozen=True)
class Ingest:
    """Reads the records, but for those that were withdrawn. Writes the quarantine."""

    step: RecipeStep
    paths: Sequence[str]
    withdrawn: Sequence[WithdrawnIds] = ()
    name: ClassVar[str] = "ingest"
    adds: ClassVar[tuple[str, ...]] = ()
    decides: ClassVar[None] = None
    code: ClassVar[tuple[str, ...]] = ("ktodata.stages.ingest",)
    artefacts: ClassVar[tuple[str, ...]] = ("quarantine.parquet",)

    def made_of(self, run: RunState) -> dict[str, Any]:
        sources = find_sources(self.paths)
        named = [source.path for source in sources if source.kind == "hub"]
        local = [Path(source.path) for source in sources if is_local(source.kind)]
        files = [(name, of["digest"]) for place in local for name, of in describe(place.parent, [place]).items()]
        files += [("/".join(remote_version(source.path)), "") for source in sources if source.kind == "remote"]
        lists = {"withdrawn records": [ids.digests_text() for ids in self.withdrawn]} if self.withdrawn else {}
        return {"settings": {**self.step.settings, "paths": named}, "files": files, **lists}

    def work(self, run: RunState) -> StageResult:
        from ktodata.stages.ingest import ingest

        with leaving_out(self.withdrawn):
            read = ingest(**{**self.step.settings, "paths": list(self.paths)})
        if read.feedback.is_empty():  # the quarantine of an earlier run stays: it is that run's
            why = ", ".join(
                f"{reason} {count:,}" for reason, count in read.quarantine["reason"].value_counts(sort=True).iter_rows()
            )
            raise EmptyDataError(f"none of {read.quarantine.height:,} records became a row: {why or 'nothing is there to read'}.")
        with whole_file(run.folder / self.artefacts[0]) as scratch:
            read.quarantine.write_parquet(scratch)
        return StageResult(read.feedback, metrics=read.metrics)

    def models(self) -> Mapping[str, str]:
        return {}

    def rows_in(self, run: RunState) -> None:
        return None


@dataclass(frozen=True)
class JoinedReviews:
    """People's verdicts, joined to the rows that were read. They come before every step."""

    reviews: Reviews
    name: ClassVar[str] = "reviews"
    adds: ClassVar[tuple[str, ...]] = ("trusted_label", "reviewed_contested", "draw_seed")
    decides: ClassVar[Literal["train"]] = "train"  # held-out rows keep their natural mix, whatever is said of them
    code: ClassVar[tuple[str, ...]] = ("ktodata.formats.verdicts.reviews",)
    artefacts: ClassVar[tuple[str, ...]] = ()

    def made_of(self, run: RunState) -> dict[str, Any]:
        files = [(file["name"], file["sha256"]) for file in self.reviews.metrics["files"]]
        withdrawn = {"withdrawn": count} if (count := self.reviews.metrics.get("withdrawn")) else {}
        return {"files": files, "rows": run.rows.done["columns"], **withdrawn}

    def work(self, run: RunState) -> StageResult:
        return join_reviews(run.rows.read(*run.rows.names), self.reviews)

    def models(self) -> Mapping[str, str]:
        return {}

    def rows_in(self, run: RunState) -> int:
        return run.rows.height


@dataclass(frozen=True)
class JoinedTelemetry:
    """What an earlier training saw of the rows."""

    telemetry: Telemetry
    name: ClassVar[str] = "telemetry"
    adds: ClassVar[tuple[str, ...]] = ("training_dynamics",)
    decides: ClassVar[None] = None
    code: ClassVar[tuple[str, ...]] = ("ktodata.labels.evidence.training_dynamics", "ktodata.train.results.telemetry_file")
    artefacts: ClassVar[tuple[str, ...]] = ()

    def made_of(self, run: RunState) -> dict[str, Any]:
        return {"files": (self.telemetry.digest, self.telemetry.beta), "rows": run.rows.done["columns"]}

    def work(self, run: RunState) -> StageResult:
        joined = join_dynamics(run.rows.read(*run.rows.names), self.telemetry.observations, beta=self.telemetry.beta)
        return StageResult(joined.columns, metrics={**self.telemetry.metrics, **joined.metrics})

    def models(self) -> Mapping[str, str]:
        return {}

    def rows_in(self, run: RunState) -> int:
        return run.rows.height


@dataclass(frozen=True)
class ColumnStage:
    """A step of the recipe: a module of ktodata/stages, a function of the rows that may still be exported."""

    step: RecipeStep
    folder: Path  # of the recipe

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def adds(self) -> tuple[str, ...]:
        return self.step.stage.adds

    @property
    def decides(self) -> Literal["all", "train"]:
        return self.step.stage.applies_to

    @property
    def code(self) -> tuple[str, ...]:
        return (f"ktodata.stages.{self.name}",)

    artefacts: ClassVar[tuple[str, ...]] = ()

    def columns(self, run: RunState) -> list[str]:
        """The columns it is given, of those that are there, without state."""
        wanted = {*self.step.stage.needs, *self.step.stage.uses}
        return [column for column in run.providers(self) if column in wanted]

    def sees_state(self) -> bool:
        return "state" in {*self.step.stage.needs, *self.step.stage.uses}

    def made_of(self, run: RunState) -> dict[str, Any]:
        alive = run.alive(self)
        return {
            "settings": self.step.settings,
            "columns": run.digests(self, self.columns(run)),
            "rows": frame_digest(alive if self.sees_state() else alive.select("row_id")),
            "files": [digest_file(path) for path in self._prompt_files()],
        }

    def work(self, run: RunState) -> StageResult:
        return self.step.stage.function(run.table(self, self.columns(run)), **self._arguments())

    def models(self) -> Mapping[str, str]:
        return models_of(self.step.settings)

    def rows_in(self, run: RunState) -> int | None:
        return run.alive(self).height

    def _arguments(self) -> dict[str, Any]:
        files = {name: self.folder / Path(value).expanduser() for name, value in self._prompt_settings()}
        return {name: read_prompts(files[name]) if name in files else value for name, value in self.step.settings.items()}

    def _prompt_settings(self) -> Iterator[tuple[str, str]]:
        parameters = settings_of(self.step.stage.function)
        for name, value in self.step.settings.items():
            if takes_prompts(parameters[name]) and isinstance(value, str):
                yield name, value

    def _prompt_files(self) -> Iterator[Path]:
        for name, value in self._prompt_settings():
            path = self.folder / Path(value).expanduser()
            if not path.is_file():
                raise SettingError(f"{self.name}: {name}: there is no file {path}.")
            yield path


@dataclass(frozen=True)
class Export(ColumnStage):
    """The step that writes shards: it sees every column but what is of no use to a trainer: what training saw, and vectors."""

    adds: ClassVar[tuple[str, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ("ktodata.stages.export", "ktodata.formats.shards")
    artefacts: ClassVar[tuple[str, ...]] = ("shards",)

    def columns(self, run: RunState) -> list[str]:
        return [column for column in run.providers(self) if column not in (*JoinedTelemetry.adds, *VECTORS)]

    def sees_state(self) -> bool:
        return True

    def work(self, run: RunState) -> StageResult:
        from ktodata.formats.shards import write_shards
        from ktodata.stages.export import Conversational, shard_table

        feedback = run.table(self, self.columns(run))
        result = self.step.stage.function(feedback, **self.step.settings)
        metadata = [name for name in run.rows.names if name not in COLUMNS]
        conversational: Conversational = "always" if result.metrics["conversational"] else "never"
        table = shard_table(feedback, result.columns, conversational=conversational, metadata=metadata)
        working_on(f"writing {table.height:,} rows")
        with whole_folder(run.folder / "shards") as scratch:
            checksums = write_shards(table, scratch)
        return StageResult(result.columns, result.decisions, {**result.metrics, "checksums": checksums}, result.tables)


@dataclass(frozen=True)
class Train:
    """Trains on the shards. Goes on from the checkpoints of this very training."""

    settings: Mapping[str, Any]
    progress: Progress
    name: ClassVar[str] = "train"
    adds: ClassVar[tuple[str, ...]] = ()
    decides: ClassVar[None] = None
    code: ClassVar[tuple[str, ...]] = ("ktodata.train.trainer",)
    artefacts: ClassVar[tuple[str, ...]] = ("model",)

    def made_of(self, run: RunState) -> dict[str, Any]:
        shards = run.result("export").metrics["checksums"]
        return {"settings": dict(self.settings), "shards": shards}

    def work(self, run: RunState) -> StageResult:
        from ktodata.train import fit
        from ktodata.train.results.training_progress import updates_heard_by

        notify_step = updates_heard_by(partial(self.progress, self.name))
        fitted = fit(
            run.folder / "shards", out=run.folder / "model", progress=notify_step, resume=self._resumes(run), **self.settings
        )
        return StageResult(fitted.per_row(), metrics=fitted.metrics)

    def models(self) -> Mapping[str, str]:
        return models_of(self.settings)

    def rows_in(self, run: RunState) -> int | None:
        return run.result("export").height

    def _resumes(self, run: RunState) -> bool:
        """Whether checkpoints in model/ are of this very training; notes that the training is now this one."""
        note, parts = stage_folder(run.folder, "train").with_name("train.key.json"), key_parts(self, run)
        try:
            same = note.is_file() and read_note(note) == parts
        except RunError:  # damaged: nobody knows what the checkpoints are of
            same = False
        write_note(note, parts)
        return same


@dataclass(frozen=True)
class Evaluate:
    """Scores held-out rows with the trained model and its base."""

    settings: Mapping[str, Any]
    progress: Progress
    name: ClassVar[str] = "evaluate"
    adds: ClassVar[tuple[str, ...]] = ()
    decides: ClassVar[None] = None
    code: ClassVar[tuple[str, ...]] = ("ktodata.evaluate.evaluation",)
    artefacts: ClassVar[tuple[str, ...]] = ("evaluation.json",)

    def made_of(self, run: RunState) -> dict[str, Any]:
        return {
            "settings": dict(self.settings),
            "model": {} if self.settings.get("model") else self._trained(run),  # first, as what most unfinished runs lack
            "shards": run.result("export").metrics["checksums"],
            "truth": self._digest_of("truth", (self.settings.get("truth") or {}).get("path")),
            "instructions": self._digest_of("instructions", self.settings.get("instructions")),
        }

    def work(self, run: RunState) -> StageResult:
        from ktodata.evaluate import evaluate
        from ktodata.evaluate.evaluation_progress import rows_left

        def notify_pass(event: dict[str, Any]) -> None:
            self.progress(self.name, rows_left(event))

        evaluation = evaluate(run.folder, **{**self.settings, "progress": notify_pass})
        write_note(run.folder / self.artefacts[0], evaluation.as_dict())
        tables = {} if evaluation.answers is None else {"answers": evaluation.answers}
        return StageResult(evaluation.per_row, metrics=evaluation.as_dict(), tables=tables)

    def models(self) -> Mapping[str, str]:
        return models_of(self.settings)

    def rows_in(self, run: RunState) -> int | None:
        return run.result("export").height

    def _trained(self, run: RunState) -> dict[str, Any]:
        """{file: digest} of the model that is there: the stage's own, or that of a `ktodata train` since."""
        model = run.folder / Train.artefacts[0]
        if not (model / "training.json").is_file():
            raise RunError(f"{run.folder} has no trained model yet: `ktodata run` with a recipe that trains, or `ktodata train`.")
        written = run.saved["train"].done.get("artefacts", {}) if "train" in run.saved else {}
        if not written or differing(run.folder, written):
            written = describe(run.folder, [model])
        return {name: of["digest"] for name, of in written.items() if name.startswith("model/")}

    def _digest_of(self, name: str, given: str | None) -> str | None:
        if not given:
            return None
        path = Path(given)
        if not path.is_file():
            raise SettingError(f"evaluate: {name}: there is no file {path}.")
        return digest_file(path)
