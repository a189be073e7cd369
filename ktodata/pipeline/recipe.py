"""A recipe: YAML in, a checked list of steps out. What a setting may be is read from the stage's own signature."""

import difflib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ktodata.errors import MissingColumnError, RecipeError, SettingError
from ktodata.feedback import COLUMNS
from ktodata.formats.inspection.draft_lines import UNDECIDED, undecided
from ktodata.labels.judges.judge_settings import settings_in
from ktodata.pipeline.pulled_feedback import split_ingest
from ktodata.settings import assign, bare_type, check_settings, read_assignment, settings_of, unknown_name, yaml_problem
from ktodata.stage import Prompts
from ktodata.stages import ORDER, Stage, load_stage

SECTIONS = (
    "name",
    "seed",
    "criterion",
    "ingest",
    "reviews",
    "telemetry",
    "withdrawn",
    "steps",
    "export",
    "train",
    "evaluate",
    "self_training",
)
STEPS = tuple(name for name in ORDER if name not in ("ingest", "export"))
MAX_NAME_BYTES = 200  # a file system's 255, less what is put beside the name while a folder is written
# the runner fills these in, so they are not the recipe's to set
GIVEN_BY_RUNNER = frozenset({"out", "progress", "resume"})


@dataclass(frozen=True)
class RecipeStep:
    """One stage with every setting it will run with, defaults included."""

    stage: Stage
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


@dataclass(frozen=True)
class Recipe:
    """A whole recipe, checked. `folder` is where its relative paths start; `reviews` are files of people's verdicts.

    pull : what is pulled from a service for `ingest`: from, url, project, since; None where it reads files
    telemetry : of an earlier training on these rows; self_training : settings of the rounds. None where the recipe has none.
    """

    name: str
    seed: int
    folder: Path
    ingest: RecipeStep
    reviews: tuple[str, ...]
    telemetry: str | None
    steps: tuple[RecipeStep, ...]
    export: RecipeStep
    train: dict[str, Any] | None
    evaluate: dict[str, Any] | None
    self_training: dict[str, Any] | None
    pull: dict[str, Any] | None = None
    withdrawn: tuple[str, ...] = ()  # lists of records that are not read, beside the run folder's own
    file: str | None = None  # its name in `folder`; None where it was given as a dict
    criterion: str | None = None  # what makes an answer desirable, in the team's words; shown to whoever reviews

    def as_dict(self) -> dict[str, Any]:
        """The resolved recipe, every default written out, as JSON values."""
        return {
            "name": self.name,
            "seed": self.seed,
            "criterion": self.criterion,
            "ingest": self.ingest.settings if self.pull is None else {**self.pull, **self.ingest.settings, "paths": None},
            "reviews": list(self.reviews),
            "telemetry": self.telemetry,
            "withdrawn": list(self.withdrawn),
            "steps": [{step.name: step.settings} for step in self.steps],
            "export": self.export.settings,
            "train": self.train,
            "evaluate": self.evaluate,
            "self_training": self.self_training,
        }


def self_training_settings(
    *,
    rounds: Annotated[int, Field(ge=1, le=20, description="retrainings after the first training, at most")] = 3,
    patience: Annotated[int, Field(ge=1, le=20, description="stop after so many rounds in a row without a higher AUC")] = 1,
    bootstrap: Annotated[int, Field(ge=100, le=100_000, description="resamples of prompt groups for the intervals")] = 1000,
) -> dict[str, Any]:
    """The keys of a recipe's `self_training:` section; ktodata/pipeline/self_training.py says what becomes of them."""
    return {"rounds": rounds, "patience": patience, "bootstrap": bootstrap}


def load_recipe(
    source: Path | str | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    reviews: Sequence[Path | str] = (),
    telemetry: Path | str | None = None,
    folder: Path = Path(),
) -> Recipe:
    """Read and check a recipe: a YAML file or the same as a dict. `overrides` are texts such as "label_noise.min_precision=0.9".

    reviews : further files of verdicts, beside those that the recipe names; telemetry : in place of the one that the recipe
        names. Their paths start at the working directory.
    folder : of a dict, where its relative paths start.

    Raises RecipeError, SettingError or MissingColumnError before any row is read.
    """
    if isinstance(source, Mapping):
        raw, file = dict(source), None
    else:
        raw, folder, file = read_yaml(Path(source)), Path(source).parent, Path(source).name
    for text in overrides:
        override(raw, text)
    _check_decided(raw)
    recipe = _checked_recipe(raw, folder)
    given = recipe.telemetry if telemetry is None else path_from(telemetry, folder)
    return replace(recipe, reviews=(*recipe.reviews, *(path_from(path, folder) for path in reviews)), telemetry=given, file=file)


def override(raw: dict[str, Any], text: str) -> None:
    """Apply "section.key=value" to the raw recipe; the value is YAML."""
    keys, value = read_assignment(text)
    assign(_section(raw, keys[0]) if len(keys) > 1 else raw, keys[1:] or keys, value, text=text)


def takes_prompts(parameter: inspect.Parameter) -> bool:
    """Whether a setting is a list of prompts, which a recipe gives as a file."""
    return bool(bare_type(parameter.annotation) == Prompts)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a recipe as they are written, unchecked. Raises RecipeError for what is no YAML of keys."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # YAML 1.2: `yes` and `no` are words, `1e-5` is a number, a key given twice is an error
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.y*ml")], n=1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise RecipeError(f"there is no recipe {path}.{hint}") from None
    except RecursionError:
        raise RecipeError(f"{path} is not a YAML recipe: it is nested too deep; a recipe has a handful of levels.") from None
    except (YAMLError, ValueError, OSError) as error:
        is_other = path.is_file() and path.suffix.lower() not in (".yaml", ".yml")
        drafts = f" Of a file of feedback `ktodata init --from {path}` drafts one." if is_other else ""
        raise RecipeError(f"{path} is not a YAML recipe: {yaml_problem(error)}.{drafts}") from error
    if not isinstance(raw, dict):
        raise RecipeError(
            f"{path} must hold keys such as name, ingest and steps; it holds {type(raw).__name__}. Of a file of feedback "
            f"`ktodata init --from {path}` drafts a recipe."
        )
    return raw


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings of a section or step of the raw recipe, made empty where they were left out."""
    if name in SECTIONS:
        if raw.get(name) is None:
            raw[name] = {}
        section = raw[name]
        if not isinstance(section, dict):
            raise RecipeError(f"--set: {name} holds a value, not settings.")
        return section
    steps = raw.get("steps") or []
    for position, item in enumerate(steps):
        if item == name:
            steps[position] = {name: {}}
        if isinstance(steps[position], dict) and name in steps[position]:
            steps[position][name] = steps[position][name] or {}
            settings: dict[str, Any] = steps[position][name]
            return settings
    names = [next(iter(item)) if isinstance(item, dict) and item else str(item) for item in steps]
    raise RecipeError(unknown_name("--set: the recipe has no section or step", name, [*SECTIONS, *names]))


def _check_decided(raw: Mapping[str, Any]) -> None:
    """No choice that `ktodata init --from` has left to a person is still open."""
    if open_choices := undecided(raw):
        listed = ", ".join(open_choices[:8]) + (", ..." if len(open_choices) > 8 else "")
        raise RecipeError(
            f"{len(open_choices):,} choice{'s are' if len(open_choices) > 1 else ' is'} still to be made: {listed}. "
            f"Put what is meant in place of each {UNDECIDED}; what there is to choose from stands beside it."
        )


def check_visible(name: str, what: str) -> None:
    """Raise SettingError for a name with a sign that no terminal shows as it is."""
    if hidden := sorted({sign for sign in name if not sign.isprintable()}):
        raise SettingError(f"{what}: it holds {', '.join(map(ascii, hidden))}, which nobody can see.")


def _checked_recipe(raw: dict[str, Any], folder: Path) -> Recipe:
    if unknown := [key for key in raw if key not in SECTIONS]:
        raise RecipeError(unknown_name("the recipe has an unknown key", str(unknown[0]), SECTIONS))
    if "ingest" not in raw:
        raise RecipeError("the recipe has no ingest: say which files to read, e.g. ingest: {paths: [feedback.jsonl]}.")
    seed = raw.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise SettingError(f"seed is a whole number of at least 0; got {seed!r}.")
    name = raw.get("name")
    if not isinstance(name, str) or not name.strip() or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise SettingError(f"name is the name of the run's folder, without slashes; got {name!r}.")
    check_visible(name, "name is that of the run's folder")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise SettingError(f"name is that of the run's folder: {MAX_NAME_BYTES} bytes at most; it has {len(name.encode()):,}.")
    if not isinstance(raw.get("steps") or [], list):
        raise RecipeError(f"steps is a list of stages, e.g. `- dedupe: {{near: 0.8}}`; got {raw['steps']!r}.")
    steps = tuple(_recipe_step(item, number, seed) for number, item in enumerate(raw.get("steps") or [], start=1))
    train = _section_after_steps("train", raw.get("train"), seed) if "train" in raw else None
    export = _make_step("export", raw.get("export"), "export", seed)
    _share_models((*steps, export), train)
    criterion = _criterion(raw.get("criterion"))
    _share_criterion(steps, criterion)
    ingest, pull = split_ingest(raw["ingest"])
    ingest_step = _make_step("ingest", ingest, "ingest", seed)
    _share_parts(ingest_step.settings, steps)
    recipe = Recipe(
        name=name,
        seed=seed,
        folder=folder,
        criterion=criterion,
        ingest=ingest_step,
        pull=pull,
        reviews=_files_of(raw, "reviews", "a file of verdicts, or a list of them, e.g. reviews: [review.csv]"),
        withdrawn=_files_of(raw, "withdrawn", "a list that `ktodata forget` wrote, e.g. withdrawn: runs/support/withdrawn.json"),
        telemetry=_telemetry_place(raw.get("telemetry")),
        steps=steps,
        export=export,
        train=train,
        evaluate=_section_after_steps("evaluate", raw.get("evaluate"), seed) if "evaluate" in raw else None,
        self_training=_with_seed(self_training_settings, raw["self_training"], "self_training", seed)
        if "self_training" in raw
        else None,
    )
    _check_order(recipe)
    _check_rounds(recipe)
    return recipe


def _files_of(raw: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    """One file or a list of them, as a tuple."""
    value = raw.get(key)
    files = [] if value is None else value if isinstance(value, list | tuple) else [value]
    if wrong := [file for file in files if not isinstance(file, str | Path) or not str(file).strip()]:
        raise SettingError(f"{key} is {what}; got {wrong[0]!r}.")
    return tuple(str(file) for file in files)


def _criterion(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise SettingError(f"criterion says in words what makes an answer desirable; got {value!r}.")
    return value.strip()


def _telemetry_place(value: Any) -> str | None:
    """Where the telemetry of an earlier training is."""
    if value is not None and (not isinstance(value, str | Path) or not str(value).strip()):
        raise SettingError(
            f"telemetry is the folder of a run that trained on these rows, or its telemetry.parquet; got {value!r}."
        )
    return None if value is None else str(value)


def path_from(path: Path | str, folder: Path) -> str:
    """A path that starts at the working directory, as it reads from `folder`: a manifest holds no path of one machine."""
    given = Path(path).expanduser()
    return os.path.relpath(given.parent.resolve() / given.name, folder.resolve())


def _recipe_step(item: Any, number: int, seed: int) -> RecipeStep:
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, dict) or len(item) != 1:
        raise RecipeError(f"step {number} must be one stage with its settings, e.g. `- dedupe: {{near: 0.8}}`; got {item!r}.")
    name, settings = next(iter(item.items()))
    if (name, settings) == ("split", "given"):
        settings = {"given": True}
    if name not in STEPS:
        raise RecipeError(unknown_name(f"step {number}: there is no stage", str(name), STEPS))
    return _make_step(name, settings, f"step {number} ({name})", seed)


def _share_models(steps: Sequence[RecipeStep], train: Mapping[str, Any] | None) -> None:
    """Name a model once: unless the recipe says otherwise, coverage embeds its reference as embed does, and validate and export
    know the tokenizer and the chat template of the model that will be trained.
    """
    settings = {step.name: step.settings for step in steps}
    if "embed" in settings and settings.get("coverage", {}).get("reference") and not settings["coverage"]["encoder"]:
        settings["coverage"]["encoder"] = settings["embed"]["model"]
    for name in ("validate", "export"):
        if train and name in settings and not settings[name]["tokenizer"]:
            settings[name]["tokenizer"] = train["model"]


def _share_criterion(steps: Sequence[RecipeStep], criterion: str | None) -> None:
    """A judge goes by the recipe's own criterion, unless its step has another; what cannot be asked is an error."""
    for step in steps:
        if step.name == "judge":
            step.settings["criterion"] = step.settings["criterion"] or criterion
            settings_in(step.settings)


def _share_parts(ingest: dict[str, Any], steps: Sequence[RecipeStep]) -> None:
    """Parts that a step keeps are read as parts; those of a named column are kept by a step or joined, never lost unasked."""
    keeps = any(step.name == "split" and step.settings["given"] for step in steps)
    if keeps and ingest["join_parts"]:
        raise RecipeError("the recipe joins the source's parts (join_parts: true) and keeps them (split: given); choose one.")
    if keeps:
        ingest["join_parts"] = False
    elif ingest["split"] and not ingest["join_parts"]:
        raise RecipeError(
            f"ingest: split names the column {ingest['split']!r} of given parts: keep them with the step "
            "`- split: {given: true}`, or say join_parts: true."
        )


def _make_step(name: str, settings: Any, where: str, seed: int) -> RecipeStep:
    stage = load_stage(name)
    checked = _with_seed(stage.function, settings, where, seed)
    stage.check(checked)
    return RecipeStep(stage, checked)


def _section_after_steps(name: str, settings: Any, seed: int) -> dict[str, Any]:
    from ktodata.evaluate import evaluate
    from ktodata.train import fit

    function: Callable[..., Any] = fit if name == "train" else evaluate
    return _with_seed(function, settings, name, seed)


def _with_seed(function: Callable[..., Any], settings: Any, where: str, seed: int) -> dict[str, Any]:
    if settings is not None and not isinstance(settings, Mapping):
        raise RecipeError(f"{where} takes settings as `key: value`; got {settings!r}.")
    values = dict(settings or {})
    if reserved := sorted(GIVEN_BY_RUNNER & set(values)):
        raise SettingError(f"{where}: {reserved[0]} is not the recipe's to set: the run decides it.")
    if "seed" in settings_of(function):
        values.setdefault("seed", seed)
    checked = check_settings(function, values, where=where, read_as=_recipe_type)
    return {name: value for name, value in checked.items() if name not in GIVEN_BY_RUNNER}


def _check_order(recipe: Recipe) -> None:
    """Every column that a step needs is there by then; no step stands twice; evaluation has something to evaluate."""
    names = [step.name for step in recipe.steps]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"{twice} stands in the recipe {names.count(twice)} times; a step stands once.")
    _check_kept(recipe)
    columns = {*COLUMNS, "state"}
    for number, step in enumerate((*recipe.steps, recipe.export), start=1):
        for column in step.stage.needs:
            if column not in columns:
                raise MissingColumnError(_missing_column_text(number, step.name, column))
        columns |= set(step.stage.adds)
    if recipe.evaluate is not None and recipe.train is None:
        raise RecipeError(
            "the recipe evaluates but does not train: add a train: section, or use `ktodata evaluate` on a trained run."
        )
    if recipe.evaluate is not None and "split" not in names:
        raise RecipeError("the recipe evaluates but holds nothing out: add the step `- split: {validation: 0.05, test: 0.1}`.")


def _check_rounds(recipe: Recipe) -> None:
    """Self-training has something to train, labels to think again about, and rows to judge by."""
    if recipe.self_training is None:
        return
    steps = {step.name: step.settings for step in recipe.steps}
    if recipe.train is None:
        raise RecipeError("the recipe has self_training but trains nothing: add a train: section.")
    if "label_noise" not in steps:
        raise RecipeError(
            "the recipe has self_training, and label_noise is what learns from telemetry: add the step label_noise."
        )
    if not steps.get("split", {}).get("validation"):
        raise RecipeError(
            "the recipe has self_training, whose rounds are judged by validation rows: add the step `- split: {validation: 0.2}`."
        )


def _check_kept(recipe: Recipe) -> None:
    """A kept metadata column never takes the name of a column that a stage adds."""
    taken = {
        "state",
        "training_dynamics",
        "reviewed_contested",
        "draw_seed",
        *(column for name in STEPS for column in load_stage(name).adds),
        *recipe.export.stage.adds,
    }
    if clash := sorted(taken & set(recipe.ingest.settings.get("keep") or ())):
        raise SettingError(
            f"ingest: keep: {', '.join(clash)} is the name of a column that a stage adds. "
            f"Give it another: keep: {{given_{clash[0]}: {clash[0]}}}."
        )


def _missing_column_text(number: int, name: str, column: str) -> str:
    adder = next((other for other in STEPS if column in load_stage(other).adds), None)
    what = f"step {number} ({name}) needs column {column!r}, which no earlier step adds."
    return f"{what} Put {adder} before it." if adder else what


def _recipe_type(parameter: inspect.Parameter) -> Any:
    return str | list[str] | None if takes_prompts(parameter) else parameter.annotation
