"""The recipe of an audit: a short one for a file, or a given one as far as its label noise."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ktodata.pipeline.pulled_feedback import KEYS
from ktodata.pipeline.recipe import SECTIONS, STEPS, Recipe, load_recipe, read_yaml
from ktodata.pipeline.run_folder import Run
from ktodata.settings import settings_of
from ktodata.stages import ORDER
from ktodata.stages.ingest import ingest as ingest_stage

NAME = "audit"
ALWAYS = ("validate", "dedupe", "embed", "label_noise")
KEPT = (*ALWAYS, "split", "hidden_states")  # of a recipe: split, as parts that a source gave are kept by it
LEFT_OUT = ("evaluate", "self_training")
# of the command, each a text
OPTIONS = ("format", "prompt", "completion", "messages", "rater", "created_at", "source_id", "source")


def is_recipe(feedback: str) -> bool:
    """Whether what is to be audited is a recipe, by its name."""
    return feedback.lower().endswith((".yaml", ".yml"))


def audit_recipe(
    feedback: str,
    *,
    ingest: Mapping[str, Any],
    steps: Mapping[str, Mapping[str, Any]],
    seed: int | None = None,
    overrides: Sequence[str] = (),
    reviews: Sequence[Path | str] = (),
    telemetry: Path | str | None = None,
) -> Recipe:
    """The checked recipe that audits `feedback`: files, a hub id, or a recipe, whose reading, reviews and steps are then used.

    ingest, steps : settings that stand before the recipe's. overrides : texts such as "label_noise.min_precision=0.9"; a setting
        without a section is one of ingest. Raises as `load_recipe` does.
    """
    given = is_recipe(feedback)
    source: dict[str, Any] = read_yaml(Path(feedback)) if given else {"ingest": {"paths": feedback}}
    raw = {key: value for key, value in source.items() if key not in LEFT_OUT} | {"name": NAME}
    if isinstance(raw.get("ingest"), Mapping):
        raw["ingest"] = {**raw["ingest"], **ingest}
    if isinstance(raw.get("steps") or [], list):
        raw["steps"] = _audit_steps(raw.get("steps") or [], steps)
    if seed is not None:
        raw["seed"] = seed
    texts = [_with_section(text) for text in overrides]
    folder = Path(feedback).parent if given else Path()
    recipe = load_recipe(raw, overrides=texts, reviews=reviews, telemetry=telemetry, folder=folder)
    return replace(recipe, file=Path(feedback).name) if given else recipe


def _audit_steps(steps: Sequence[Any], typed: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """The steps of a recipe that an audit takes, with those that every audit has; what is no step stays, to be complained of."""
    taken = [step for step in steps if _name_of(step) not in set(STEPS) - set(KEPT)]
    there = {_name_of(step) for step in taken}
    taken += [name for name in dict.fromkeys((*ALWAYS, *typed)) if name not in there]
    order = {name: place for place, name in enumerate(ORDER)}
    return sorted((_with_typed(step, typed) for step in taken), key=lambda step: order.get(_name_of(step), len(order)))


def _with_typed(step: Any, typed: Mapping[str, Mapping[str, Any]]) -> Any:
    name = _name_of(step)
    before = (step[name] if isinstance(step, Mapping) else None) or {}
    return {name: {**before, **typed[name]}} if typed.get(name) and isinstance(before, Mapping) else step


def _name_of(step: Any) -> str:
    return str(next(iter(step), "") if isinstance(step, Mapping) else step)


def _with_section(text: str) -> str:
    """What --set says, with ingest where it names a setting of ingest and no section."""
    first = text.partition("=")[0].strip().partition(".")[0]
    reads = first in settings_of(ingest_stage) or first in KEYS
    return f"ingest.{text.strip()}" if reads and first not in SECTIONS else text


def is_audit(run: Run) -> bool:
    """Whether `ktodata audit` made the folder, not a recipe's run."""
    manifest = run.manifest
    knows_files = run.recipe_file is not None or manifest["recipe"]["ingest"].get("paths") is not None
    return knows_files and manifest.get("name") == NAME and str(manifest.get("status", "")).startswith("stopped after")


def command_with_reviews(run: Run, reviews: Path) -> str:
    """The command that makes an audit folder again, with verdicts, from here: its files, and what is not default."""
    recipe = run.manifest["recipe"]
    paths = recipe["ingest"]["paths"]
    sources = _from_here(run, [paths] if isinstance(paths, str) else paths or [])
    if run.recipe_file is not None:
        sources = [str(run.recipe_file)]
    default = audit_recipe(sources[0], ingest={}, steps={}).as_dict()
    words = ["ktodata", "audit", *sources, *_settings_as_options(recipe, default)]
    typed = [name for name in recipe["reviews"] if name not in default["reviews"]]
    earlier = [name for name in _from_here(run, typed) if Path(name).resolve() != reviews.resolve()]
    words += ["--out", str(run.folder), *(word for name in [*earlier, str(reviews)] for word in ("--reviews", name))]
    return shlex.join(words)


def _from_here(run: Run, names: Sequence[str]) -> list[str]:
    """Files that the run read, as one would type them here; what is no file of this machine as it was given."""
    place = run.folder / str(run.manifest["recipe_folder"])
    return [os.path.relpath((place / name).resolve()) if (place / name).exists() else name for name in names]


def _settings_as_options(recipe: Mapping[str, Any], default: Mapping[str, Any]) -> Iterator[str]:
    if recipe["seed"] != default["seed"]:
        yield from ("--seed", str(recipe["seed"]))
    for name, value in _differing(recipe["ingest"], default["ingest"]):
        if name == "label":
            yield from _label_options(value)
        elif name in OPTIONS and isinstance(value, str):
            yield from (f"--{name.replace('_', '-')}", value)
        else:
            yield from ("--set", f"{name}={json.dumps(value, ensure_ascii=False)}")
    of_default = {name: settings for step in default["steps"] for name, settings in step.items()}
    for step in recipe["steps"]:
        for name, settings in step.items():
            for setting, value in _differing(settings, of_default.get(name, {})):
                yield from ("--set", f"{name}.{setting}={json.dumps(value, ensure_ascii=False)}")


def _differing(settings: Mapping[str, Any], default: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Settings that are not as they are by default; the seed of a step is the recipe's."""
    return [(name, value) for name, value in settings.items() if name not in ("paths", "seed") and value != default.get(name)]


def _label_options(label: Any) -> Iterator[str]:
    values = label.get("values") if isinstance(label, Mapping) else None
    if set(label) - {"column", "values"} or not values or not all(isinstance(meaning, bool) for _, meaning in values):
        yield from ("--set", f"label={json.dumps(label, ensure_ascii=False)}")
        return
    yield from ("--label", str(label["column"])) if label.get("column") else ()
    for value, meaning in values:
        yield from ("--up" if meaning else "--down", _as_typed(value))


def _as_typed(value: Any) -> str:
    """A label's value so that the command reads this very value: a word as it is, all else as JSON."""
    try:
        json.loads(value)
    except (TypeError, ValueError):
        return value if isinstance(value, str) else json.dumps(value)
    return json.dumps(value)
