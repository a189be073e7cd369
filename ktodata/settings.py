"""A function's signature is its configuration: settings are checked against its keyword-only, annotated parameters."""

import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from ktodata.errors import RecipeError, SettingError

ONE_KEY = "; 1 and 1.0, or TRUE and true, are one key to YAML: of a label's values one of them is enough, or write both in quotes"


def settings_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function: its settings, with their full annotations."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_settings(
    function: Callable[..., Any],
    given: Mapping[str, Any] | None,
    *,
    where: str,
    read_as: Callable[[inspect.Parameter], Any] = lambda parameter: parameter.annotation,
) -> dict[str, Any]:
    """`given` with defaults filled in. Raises SettingError naming the first wrong setting and the nearest right name.

    where : what the error calls the place, e.g. "step 4 (label_noise)".
    read_as : the type that a setting has where it is given, if another than the function's (a recipe gives a file for a list).
    """
    parameters = settings_of(function)
    given = dict(given or {})
    if unknown := [name for name in given if name not in parameters]:
        raise SettingError(unknown_name(f"{where}: unknown setting", unknown[0], parameters))
    fields: dict[str, Any] = {name: (read_as(parameter), _default_of(parameter)) for name, parameter in parameters.items()}
    model = create_model(
        "Settings", __config__=ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=()), **fields
    )
    try:
        checked = model(**{name: _to_path(parameters[name], value) for name, value in given.items()})
    except ValidationError as error:
        raise SettingError(_error_text(error, where, given)) from error
    return {name: getattr(checked, name) for name in parameters}


def given_settings(
    function: Callable[..., Any], given: Mapping[str, Any], assignments: Iterable[str], *, section: str
) -> dict[str, Any]:
    """`given`, changed by texts such as "epochs=2" or "train.epochs=2" (`section` is train), and checked; without defaults.

    Raises RecipeError for a text that sets nothing, SettingError for a setting that is wrong.
    """
    changed = dict(given)
    for text in assignments:
        keys, value = read_assignment(text)
        assign(changed, keys[1:] if keys[0] == section and len(keys) > 1 else keys, value, text=text)
    checked = check_settings(function, changed, where=section)
    return {name: checked[name] for name in changed}


def read_assignment(text: str) -> tuple[list[str], Any]:
    """The keys and the value of "section.setting=value", as --set takes it; the value is YAML. Raises RecipeError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {text!r}: write section.setting=value, e.g. label_noise.min_precision=0.9.")
    try:
        return keys, YAML(typ="safe", pure=True).load(value)
    except RecursionError:
        raise RecipeError(f"--set {text[:80]!r}...: the value is nested too deep.") from None
    except (YAMLError, ValueError) as error:
        raise RecipeError(f"--set {text!r}: the value is not YAML: {yaml_problem(error)}") from None


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML text and where, in one line and without the library's advice."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    problem = " ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
    hint = ONE_KEY if re.search(r'duplicate key "(True|False|None|[-+.\d][^"]*)"', problem) else ""
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1}){hint}"


def assign(settings: dict[str, Any], keys: Sequence[str], value: Any, *, text: str) -> None:
    """Set what the keys lead to; settings on the way are made where they are missing. text : what was written, for errors."""
    for key in keys[:-1]:
        settings = settings.setdefault(key, {})
        if not isinstance(settings, dict):
            raise RecipeError(f"--set {text!r}: {key} holds a value, not settings.")
    settings[keys[-1]] = value


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """`what` and `name`, the nearest of the known names, and all of them."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{what} {name!r}.{hint} Known: {', '.join(known)}."


def bare_type(annotation: Any) -> Any:
    """An annotation without its Field."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _default_of(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return ...
    return parameter.default.default if isinstance(parameter.default, FieldInfo) else parameter.default


def _to_path(parameter: inspect.Parameter, value: Any) -> Any:
    """Text for a setting that may be a Path becomes one: YAML has no paths."""
    bare = bare_type(parameter.annotation)
    options = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    return Path(value) if isinstance(value, str) and Path in options and str not in options else value


def _error_text(error: ValidationError, where: str, given: Mapping[str, Any]) -> str:
    """One clear sentence from what pydantic reports: of a setting of several types, what each that came as far would take."""
    errors = error.errors()
    first = max(errors, key=lambda each: _setting_at(each["loc"], given)[0].count("."))
    name, value = _setting_at(first["loc"], given)
    if first["type"] == "missing":
        within = f"{name}." if len(first["loc"]) > 1 else ""
        return f"{where}: {within}{first['loc'][-1]} must be given."
    problems = dict.fromkeys(each["msg"] for each in errors if _setting_at(each["loc"], given)[0] == name)
    problem = ", or ".join(problems).replace("Input", "it", 1).replace("Input should be ", "")
    text = f"{where}: {name}: {problem}; got {value!r}."
    limits = first.get("ctx", {})
    below_one = limits.get("le") == 1 or limits.get("lt") == 1
    if below_one and isinstance(value, int | float) and 1 < value <= 100:
        text += f" Did you mean {value / 100:g}?"
    return text


def _setting_at(place: Sequence[int | str], given: Mapping[str, Any]) -> tuple[str, Any]:
    """The name and value of what an error is about: of pydantic's path only the keys that were given, not the types it tried."""
    keys, value = [str(place[0])], given.get(str(place[0]))
    for key in place[1:]:
        is_place = isinstance(value, list | tuple) and isinstance(key, int) and key < len(value)
        if is_place or (isinstance(value, Mapping) and key in value):
            keys, value = [*keys, str(key)], value[key]  # type: ignore[index]
    return ".".join(keys), value
