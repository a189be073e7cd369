"""The recipe of an audit: a short one for a file, or a given one as far as its label noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ktodata.pipeline.pulled_feedback import KEYS
from ktodata.pipeline.recipe import SECTIONS, STEPS, Recipe, load_recipe, read_yaml
from ktodata.settings import settings_of
from ktodata.stages import ORDER
from ktodata.stages.ingest import ingest as ingest_stage

NAME = "audit"
ALWAYS = ("validate", "dedupe", "embed", "label_noise")
KEPT = (*ALWAYS, "split", "hidden_states")  # of a recipe: split, as parts that a source gave are kept by it
LEFT_OUT = ("evaluate", "self_training")


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
    return load_recipe(raw, overrides=texts, reviews=reviews, telemetry=telemetry, folder=folder)


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
